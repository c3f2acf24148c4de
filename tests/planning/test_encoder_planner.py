"""The encoder planner at work: what it reads, what it refuses, what a folder carries."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus
from esckit.decoding import Decoding, choose_strategies
from esckit.errors import CorpusError, ModelError
from esckit.planning.encoder import Encoder, load_encoder
from esckit.planning.encoder_planner import EncoderPlanner
from esckit.planning.fitting import train_planner
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import CSO, ESCONV
from esckit.supporters import Supporter
from esckit.supporters.prediction import predict_conversation
from esckit.supporters.retrieval import build_store
from esckit.supporters.supporter_folder import SupporterCard, save_supporter
from tests.answers import requests_at, texts
from tests.tiny import TINY_PLANNER, starter_dialogues, tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def folder(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained planner; tests change only copies."""
    place = tmp_path_factory.mktemp("planner")
    options = TINY_PLANNER.model_copy(update={"epochs": 4, "learning_rate": 0.02, "seeds": 2})
    train_planner(starter_dialogues(12, 30), encoder, ESCONV, options, place)
    return place


@pytest.fixture(scope="module")
def planner(folder: Path) -> EncoderPlanner:
    return EncoderPlanner.load(folder)


@pytest.fixture(scope="module")
def dialogue() -> Conversation:
    return load_corpus("starter").test[0]


def gold(dialogue: Conversation) -> dict[str, str]:
    return past_strategies(dialogue, "gold")


def test_scores_are_log_probabilities_of_the_labels(planner: EncoderPlanner, dialogue: Conversation) -> None:
    turns = supporter_turns(dialogue)
    for one in (planner, planner.uncalibrated):
        scores = one.score(dialogue, turns, gold(dialogue))
        assert scores.shape == (len(turns), 8)
        np.testing.assert_allclose(np.exp(scores).sum(1), 1)
    assert planner.score(dialogue, [], {}).shape == (0, 8)
    assert planner.taxonomy is ESCONV


@pytest.mark.parametrize("mode", ["gold", "hidden"])
def test_one_turn_alone_is_scored_as_all_together(planner: EncoderPlanner, dialogue: Conversation, mode: str) -> None:
    turns, shown = supporter_turns(dialogue), gold(dialogue) if mode == "gold" else {}
    together = planner.score(dialogue, turns, shown)
    alone = np.concatenate([planner.score(dialogue, [turn], shown) for turn in turns])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    backwards = planner.score(dialogue, turns[::-1], shown)
    np.testing.assert_allclose(together, backwards[::-1], atol=1e-4)


def test_only_what_stands_before_a_turn_is_read(planner: EncoderPlanner, dialogue: Conversation) -> None:
    turns, shown = supporter_turns(dialogue), gold(dialogue)
    before = planner.score(dialogue, turns, shown)
    for number, turn in enumerate(turns):
        cut = dialogue.turns.index(turn)
        later = [replace(each, text="Changed?", strategy=each.strategy and "Others") for each in dialogue.turns[cut:]]
        other = replace(dialogue, turns=[*dialogue.turns[:cut], *later], situation=None)
        found = planner.score(other, [other.turn(turn.id)], gold(other))
        np.testing.assert_allclose(found[0], before[number], atol=1e-4)
    assert np.abs(before - planner.score(other, supporter_turns(other), gold(other))).max() < 1e-4  # the last turn only


def test_hidden_ignores_past_strategies_entirely(planner: EncoderPlanner, dialogue: Conversation) -> None:
    turns = supporter_turns(dialogue)
    other = replace(dialogue, turns=[replace(t, strategy=t.strategy and "Information") for t in dialogue.turns])
    hidden = planner.score(dialogue, turns, {})
    np.testing.assert_array_equal(hidden, planner.score(other, supporter_turns(other), {}))
    shown = [planner.score(each, supporter_turns(each), gold(each)) for each in (dialogue, other)]
    assert np.abs(shown[0] - shown[1]).max() > 0.01
    assert np.abs(hidden - shown[0])[1:].max() > 0.01
    np.testing.assert_allclose(hidden[0], shown[0][0], atol=1e-5, err_msg="before the first reply there is no past")


def test_a_branch_is_planned_like_a_trunk(planner: EncoderPlanner, dialogue: Conversation) -> None:
    turns = supporter_turns(dialogue)
    at = turns[3]
    reply = Turn("new", at.parent, "supporter", "Tell me more?", "Question", source="model")
    answer = Turn("answer", "new", "seeker", "It began in May")
    candidate = Turn("candidate", "answer", "supporter", None, "Information")
    tree = dialogue.grow([reply, answer, candidate])
    straight = replace(dialogue, turns=[*dialogue.path(at.parent), reply, answer, candidate])
    shown = {**gold(dialogue), "new": "Question"}
    alone = planner.score(straight, [candidate], shown)
    together = planner.score(tree, [turns[-1], candidate, turns[0]], shown)
    np.testing.assert_allclose(together[1], alone[0], atol=1e-4)
    np.testing.assert_allclose(together[0], planner.score(dialogue, turns[-1:], gold(dialogue))[0], atol=1e-4)


def test_calibration_is_by_mode_and_can_be_left_off(planner: EncoderPlanner, dialogue: Conversation) -> None:
    turns = supporter_turns(dialogue)
    for mode, shown in (("shown", gold(dialogue)), ("hidden", {})):
        plain = planner.uncalibrated.score(dialogue, turns, shown)
        calibration = planner.card.calibration["hidden" if mode == "hidden" else "shown"]
        np.testing.assert_allclose(planner.score(dialogue, turns, shown)[1:], calibration.apply(plain)[1:], atol=1e-9)
        assert max(map(abs, calibration.offsets)) > 0.01
    assert planner.uncalibrated.identity != planner.identity
    assert planner.calibrated, "the planner itself stays as it was"


def test_a_moved_folder_scores_as_before(
    planner: EncoderPlanner, folder: Path, encoder: Encoder, dialogue: Conversation, tmp_path: Path
) -> None:
    moved = EncoderPlanner.load(shutil.copytree(folder, tmp_path / "elsewhere"), encoder)
    turns = supporter_turns(dialogue)
    np.testing.assert_array_equal(moved.score(dialogue, turns, {}), planner.score(dialogue, turns, {}))
    assert moved.identity == planner.identity
    assert moved.encoder is encoder


def test_a_planner_on_a_folder_s_encoder_is_loaded_from_wherever_one_stands(
    dialogue: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by a path relative to where it was trained; then the supporter is moved, and called from elsewhere."""
    tiny_encoder(tmp_path / "encoders/tiny")
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("encoders/tiny")
    train = load_corpus("starter").train[:6]
    train_planner(train, encoder, ESCONV, TINY_PLANNER, tmp_path / "planner")
    build_store(train, encoder, "starter", "CC0-1.0", Counter()).save(tmp_path / "replies")
    card = SupporterCard("decoupled", "gold", planner="encoder", generator="retrieval")
    parts = {"planner": tmp_path / "planner", "generator": tmp_path / "replies"}
    save_supporter(tmp_path / "supporter", card, parts)
    before, turns = Supporter.load(tmp_path / "supporter"), supporter_turns(dialogue)
    (tmp_path / "far/away").mkdir(parents=True)
    shutil.move(tmp_path / "supporter", tmp_path / "far/away/moved")
    monkeypatch.chdir(tmp_path / "far")
    after = Supporter.load("away/moved")
    np.testing.assert_array_equal(after.score(dialogue, turns, {}), before.score(dialogue, turns, {}))
    asked = requests_at(dialogue, turns[:1], ["Question"])
    assert texts(after, asked) == texts(before, asked)


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def apply(folder: Path) -> None:
        fields = json.loads((folder / "planner.json").read_text(encoding="utf-8"))
        change(fields)
        (folder / "planner.json").write_text(json.dumps(fields), encoding="utf-8")

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit(lambda f: f.update(format=2)), "has another format than 1"),
        (edit(lambda f: f.update(model="oracle")), "no whole encoder planner .unknown model 'oracle'"),
        (edit(lambda f: f.update(taxonomy="none")), "no whole encoder planner"),
        (edit(lambda f: f.update(labels=["Others"])), "labels or features are not this version's"),
        (edit(lambda f: f.pop("calibration")), "no whole encoder planner"),
        (edit(lambda f: f["calibration"]["shown"].update(offsets=[0.0])), "not one offset a label"),
        (edit(lambda f: f["sizes"].update(width=9)), "weights do not fit"),
        (edit(lambda f: f["encoder"].update(weights_hash="0")), "is not the one that .* was trained with"),
        (edit(lambda f: f["encoder"].update(source="/no/such/folder")), "cannot be loaded as an encoder"),
        (lambda folder: (folder / "planner.json").write_text("[]"), "no whole encoder planner"),
        (lambda folder: (folder / "planner.json").write_text("{"), "no whole encoder planner"),
        (lambda folder: (folder / "planner.json").unlink(), "planner.json does not exist"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "no whole encoder planner"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x" * 99), "is not the one that .* names"),
    ],
)
def test_a_folder_that_is_not_whole_is_a_sentence(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    spoil(broken)
    with pytest.raises(ModelError, match=message) as raised:
        EncoderPlanner.load(broken)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_changed_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "weights.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, broken / "weights.safetensors")
    with pytest.raises(ModelError, match="is not the one that"):
        EncoderPlanner.load(broken)


def test_a_strategy_of_another_taxonomy_is_a_sentence(planner: EncoderPlanner, dialogue: Conversation) -> None:
    turns = supporter_turns(dialogue)
    with pytest.raises(CorpusError, match="no strategy of the taxonomy esconv"):
        planner.score(dialogue, turns, {turns[0].id: CSO.labels[0]})


def test_frequencies_are_probabilities_and_drawing_is_the_caller_s(tmp_path: Path) -> None:
    """Greedy, the most frequent strategy; drawn by the caller, each as often as in training, and by one draw alone."""
    train, test = load_corpus("starter").train, load_corpus("starter").test
    options = TINY_PLANNER.model_copy(update={"model": "majority"})
    shares = train_planner(train, None, ESCONV, options, tmp_path, seed=5)["frequencies"]
    planner, wanted = EncoderPlanner.load(tmp_path), np.array(list(shares.values()))
    turns = [(dialogue, turn) for dialogue in [*train, *test] for turn in supporter_turns(dialogue)]
    found = np.concatenate([planner.score(dialogue, [turn], {}) for dialogue, turn in turns])
    np.testing.assert_allclose(np.exp(found), np.tile(wanted, (len(turns), 1)), atol=0.01)
    by_frequency = Decoding(temperature=1, top_p=1)
    drawn = [choose_strategies(row, by_frequency, 1, seed)[0] for seed, row in enumerate(np.tile(found, (5, 1)))]
    np.testing.assert_allclose(np.bincount(drawn, minlength=8) / len(drawn), wanted, atol=0.03)


@pytest.mark.parametrize("past", ["gold", "predicted", "hidden"])
def test_a_supporter_can_have_this_planner(folder: Path, dialogue: Conversation, tmp_path: Path, past: str) -> None:
    card = SupporterCard("decoupled", "hidden", planner="encoder", generator="none")
    save_supporter(tmp_path / "supporter", card, {"planner": folder})
    supporter = Supporter.load(tmp_path / "supporter")
    greedy = Decoding(greedy=True)
    assert past in ("gold", "predicted", "hidden")
    rows = predict_conversation(supporter, dialogue, seed=0, planning=greedy, wording=greedy, past=past)  # type: ignore[arg-type]
    assert [row.turn_id for row in rows] == [turn.id for turn in supporter_turns(dialogue)]
    assert {row.extra["past_strategies"] for row in rows} == {past}
