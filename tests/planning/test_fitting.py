"""Training an encoder planner: the same call gives the same planner, whatever stopped it on the way."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esckit.conversation import Conversation
from esckit.errors import CorpusError, ModelError
from esckit.planning import fitting as module
from esckit.planning.calibration import Unseen, fit_modes, log_normalise
from esckit.planning.encoder import Encoder
from esckit.planning.encoder_planner import EncoderPlanner, load_tensors
from esckit.planning.fitting import train_planner
from esckit.planning.forest import grow_forest
from esckit.planning.network import predict_turns, train_network
from esckit.planning.planner_options import PlannerOptions
from esckit.rendering import supporter_turns
from esckit.strategy import ANNOMI, CSO, ESCONV, Taxonomy
from tests.tiny import TINY_PLANNER, starter_dialogues, talk, tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def dialogues() -> list[Conversation]:
    return starter_dialogues(8, 16)


def make(
    dialogues: Sequence[Conversation],
    encoder: Encoder | None,
    folder: Path,
    *,
    taxonomy: Taxonomy = ESCONV,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    return train_planner(dialogues, encoder, taxonomy, TINY_PLANNER.model_copy(update=options), folder, seed=seed)


def relabelled(dialogue: Conversation, taxonomy: Taxonomy) -> Conversation:
    """The dialogue under another taxonomy's labels."""
    names = {label: taxonomy.labels[i % len(taxonomy.labels)] for i, label in enumerate(ESCONV.labels)}
    turns = [replace(turn, strategy=turn.strategy and names[turn.strategy]) for turn in dialogue.turns]
    return replace(dialogue, turns=turns, taxonomy=taxonomy.name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_planner_is_two_files_and_facts(dialogues: list[Conversation], encoder: Encoder, tmp_path: Path) -> None:
    facts = make(dialogues, encoder, tmp_path / "planner", seeds=2)
    assert sorted(contents(tmp_path / "planner")) == ["planner.json", "weights.safetensors"]
    assert facts == json.loads((tmp_path / "planner/planner.json").read_text(encoding="utf-8"))["facts"]
    assert facts["members"] == 6
    assert sum(facts["frequencies"].values()) == pytest.approx(1)
    for mode in ("shown", "hidden"):
        for treatment in ("plain", "calibrated"):
            figures = facts["out_of_fold"][mode][treatment]
            assert figures["n"] == facts["turns"]
            assert 0 <= figures["q"] <= 1
            assert 0 < figures["nll"] < 3
    numbers = {name.partition(".")[0] for name in load_tensors(tmp_path / "planner/weights.safetensors")}
    assert numbers == {"0", "1", "2", "3", "4", "5"}


def test_the_same_call_gives_the_same_bytes_and_another_seed_others(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def training(*arguments: Any) -> Any:
        seeds.append(arguments[4])
        return train_network(*arguments)

    monkeypatch.setattr(module, "train_network", training)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        torch.rand(3)  # the global random state is not what seeds
        make(dialogues, encoder, tmp_path / name, seed=seed)
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["weights.safetensors"] != three["weights.safetensors"]
    assert seeds[:2] == seeds[2:4]
    assert len(set(seeds)) == 4, "every network has a seed of its own"


def test_training_leaves_the_global_random_state(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    make(dialogues, encoder, tmp_path / "planner")
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_stopped_run_continues_to_the_same_planner(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    make(dialogues, encoder, tmp_path / "whole", seeds=2)
    done = {0: 0, 1: 1, 3: 4}  # members before the network at which it stops: a forest follows two of them
    calls = {"train_network": 0, "embed": 0}

    def counted(*arguments: Any) -> Any:
        if calls["train_network"] == stop_after:
            raise KeyboardInterrupt
        calls["train_network"] += 1
        return train_network(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_network", counted)
        with pytest.raises(KeyboardInterrupt):
            make(dialogues, encoder, tmp_path / "stopped", seeds=2)
    assert not (tmp_path / "stopped/planner.json").exists()
    members = sorted(path.name for path in (tmp_path / "stopped").glob(".training-*/member-*"))
    assert members == [f"member-{name}.safetensors" for name in ("0-0", "0-1", "0-forest", "1-0")[: done[stop_after]]]
    paths = list((tmp_path / "stopped").glob(".training-*/member-*"))
    times = [path.stat().st_mtime_ns for path in paths]

    class Never(Encoder):
        def embed(self, texts: Sequence[str], max_tokens: int = 128) -> Any:
            raise AssertionError("all texts have been embedded")

    monkeypatch.setattr("esckit.planning.fitting.shutil.rmtree", lambda folder: None)
    make(dialogues, Never(encoder.model, encoder.tokenizer, encoder.source), tmp_path / "stopped", seeds=2)
    assert [path.stat().st_mtime_ns for path in paths] == times, "what was done is not done again"
    files = {name: (tmp_path / "stopped" / name).read_bytes() for name in ("planner.json", "weights.safetensors")}
    assert files == contents(tmp_path / "whole")


def test_embedding_continues_after_a_stop(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Encoder):
        blocks: list[int] = []  # noqa: RUF012

        def embed(self, texts: Sequence[str], max_tokens: int = 128) -> Any:
            self.blocks.append(len(texts))
            if len(self.blocks) == 3:
                raise KeyboardInterrupt
            return super().embed(texts, max_tokens)

    monkeypatch.setattr(module, "_BLOCK", 20)
    stopping = Stopping(encoder.model, encoder.tokenizer, encoder.source)
    with pytest.raises(KeyboardInterrupt):
        make(dialogues, stopping, tmp_path / "stopped")
    make(dialogues, stopping, tmp_path / "stopped")
    texts = {(turn.text or "").strip() for dialogue in dialogues for turn in dialogue.trunk}
    assert sum(stopping.blocks) == len(texts) + 20, "one block twice"
    make(dialogues, encoder, tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_what_is_done_is_not_done_again(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = make(dialogues, encoder, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_network", None)
        assert make(dialogues, encoder, tmp_path) == facts
    assert make(dialogues[:7], encoder, tmp_path)["dialogues"] == 7, "another corpus makes another planner"
    (tmp_path / "weights.safetensors").write_bytes(b"broken")
    make(dialogues[:7], encoder, tmp_path)
    assert (tmp_path / "weights.safetensors").stat().st_size > 100, "what is broken is made again"


def test_each_dialogue_is_predicted_by_networks_that_have_not_seen_it(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, unseen = [], []

    def training(dialogues: Any, *arguments: Any) -> Any:
        seen.append({id(each) for each in dialogues})
        return train_network(dialogues, *arguments)

    def predicting(network: Any, dialogues: Any, *arguments: Any, **more: Any) -> Any:
        unseen.append({id(each) for each in dialogues})
        assert not unseen[-1] & seen[-1]
        return predict_turns(network, dialogues, *arguments, **more)

    def growing(dialogues: Any, *arguments: Any) -> Any:
        seen.append({id(each) for each in dialogues})
        return grow_forest(dialogues, *arguments)

    monkeypatch.setattr(module, "train_network", training)
    monkeypatch.setattr(module, "grow_forest", growing)
    monkeypatch.setattr(module, "predict_turns", predicting)
    make(dialogues, encoder, tmp_path, folds=4, seeds=1)
    assert len(seen) == 8
    assert len(set.union(*unseen)) == sum(len(each) for each in unseen[::4]) == len(dialogues)


@pytest.mark.parametrize("taxonomy", [CSO, ANNOMI], ids=lambda taxonomy: taxonomy.name)
def test_other_taxonomies_are_planned(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    facts = make([relabelled(dialogue, taxonomy) for dialogue in dialogues], encoder, tmp_path, taxonomy=taxonomy)
    assert list(facts["frequencies"]) == list(taxonomy.labels)


def test_more_training_makes_a_better_planner(dialogues: list[Conversation], encoder: Encoder, tmp_path: Path) -> None:
    """Supporters who take turns at two strategies: what came last tells what comes next, unless it is hidden."""
    lines: list[tuple[str, str] | tuple[str, str, str]] = []
    for place in range(8):
        lines += [("seeker", "I see"), ("supporter", "Hm", ("Question", "Information")[place % 2])]
    regular = [talk(*lines[2 * (i % 2) :], conversation_id=str(i)) for i in range(24)]
    options: dict[str, Any] = {"model": "linear", "learning_rate": 0.05, "batch_size": 4}
    short = make(regular, None, tmp_path / "short", epochs=1, **options)["out_of_fold"]
    long = make(regular, None, tmp_path / "long", epochs=12, **options)["out_of_fold"]
    assert long["shown"]["plain"]["nll"] < short["shown"]["plain"]["nll"]
    assert long["shown"]["plain"]["accuracy"] > 0.85
    assert long["hidden"]["plain"]["accuracy"] < 0.7
    blind = make(regular, None, tmp_path / "blind", epochs=12, hidden_rate=1, **options)["out_of_fold"]
    assert blind["shown"]["plain"]["accuracy"] < 0.7, "what is always hidden is not learnt"


def test_a_linear_planner_needs_no_encoder_and_an_encoder_planner_does(
    dialogues: list[Conversation], tmp_path: Path
) -> None:
    assert make(dialogues, None, tmp_path, model="linear")["members"] == 2
    with pytest.raises(ModelError, match="needs an encoder"):
        make(dialogues, None, tmp_path)


def test_a_planner_that_reads_nothing_has_the_same_folder(dialogues: list[Conversation], tmp_path: Path) -> None:
    assert make(dialogues, None, tmp_path, model="majority")["members"] == 0
    assert sorted(contents(tmp_path)) == ["planner.json", "weights.safetensors"]


def test_without_calibration_none_is_written(dialogues: list[Conversation], tmp_path: Path) -> None:
    facts = make(dialogues, None, tmp_path, model="linear", calibration="none")
    card = json.loads((tmp_path / "planner.json").read_text(encoding="utf-8"))
    assert card["calibration"]["shown"] == card["calibration"]["hidden"] == {"temperature": 1, "offsets": [0] * 8}
    assert facts["out_of_fold"]["shown"].keys() == {"plain"}


def test_too_few_dialogues_and_foreign_labels_are_sentences(dialogues: list[Conversation], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"1 dialogues have .* fewer than the planner's 2 folds"):
        make([talk(("seeker", "a")), dialogues[0]], None, tmp_path, model="linear")
    with pytest.raises(CorpusError, match="Reassurance', no label of the taxonomy cso"):
        make(dialogues, None, tmp_path, model="majority", taxonomy=CSO)


def test_each_mode_says_strategies_as_often_as_people() -> None:
    """Hidden makes up, on later turns, for what opening turns say too often."""
    random = np.random.default_rng(0)
    gold = random.choice(3, size=3000, p=[0.5, 0.3, 0.2])
    follows = random.random(3000) < 0.8
    shown = log_normalise(
        np.eye(3)[gold] + random.normal(size=(3000, 3)) + np.where(follows, 0, 3)[:, None] * [1, 0, 0]
    )
    hidden = np.where(follows[:, None], log_normalise(shown + random.normal(size=(3000, 3))), shown)
    unseen = Unseen({"shown": shown, "hidden": hidden}, gold, follows, np.arange(3000))
    fitted = fit_modes(unseen)
    wanted = np.bincount(gold)
    said = {
        "shown": fitted["shown"].apply(shown).argmax(1),
        "hidden": np.where(follows, fitted["hidden"].apply(hidden).argmax(1), fitted["shown"].apply(hidden).argmax(1)),
    }
    for mode, choices in said.items():
        assert np.abs(np.bincount(choices, minlength=3) - wanted).sum() < 30, mode


def test_options_are_checked() -> None:
    for wrong in (
        {"folds": 1},
        {"seeds": 0},
        {"trees": -1},
        {"hidden_rate": 1.1},
        {"model": "oracle"},
        {"calibration": "tune"},
    ):
        with pytest.raises(ValueError, match="validation error"):
            PlannerOptions.model_validate(wrong)


def test_a_stop_while_writing_leaves_no_planner(
    dialogues: list[Conversation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an older planner.json would stand beside newer weights."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    make(dialogues, None, tmp_path, model="linear")
    with monkeypatch.context() as patch:
        patch.setattr("esckit.planning.encoder_planner.write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            make(dialogues[:7], None, tmp_path, model="linear")
    assert not (tmp_path / "planner.json").exists()
    make(dialogues[:7], None, tmp_path, model="linear")
    assert sorted(contents(tmp_path)) == ["planner.json", "weights.safetensors"]


def test_the_forest_weighs_in_what_is_said_of_unseen_dialogues_as_in_the_planner(
    dialogues: list[Conversation], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esckit.planning.fitting.shutil.rmtree", lambda folder: None)
    plain = make(dialogues, encoder, tmp_path, seeds=2)["out_of_fold"]["shown"]["plain"]
    folds = np.random.default_rng(0).permutation(np.arange(len(dialogues)) % 2)
    losses = []
    for fold in (0, 1):
        saved = [load_tensors(next(tmp_path.glob(f".training-*/member-{fold}-{name}.*"))) for name in (0, 1, "forest")]
        average = sum(w * each["shown"].numpy() for w, each in zip((0.3, 0.3, 0.4), saved, strict=True))
        mine = [each for each, own in zip(dialogues, folds, strict=True) if own == fold]
        gold = [ESCONV.labels.index(str(turn.strategy)) for each in mine for turn in supporter_turns(each)]
        losses += (-log_normalise(np.asarray(average))[np.arange(len(gold)), gold]).tolist()
    assert plain["nll"] == pytest.approx(np.mean(losses))


# -------------------------------------------------------------------------------------------------------------- roles


def in_roles(dialogues: Sequence[Conversation], *roles: str | None) -> list[Conversation]:
    """The dialogues in these roles by turns; in each role all replies have one strategy."""
    found = []
    for number, dialogue in enumerate(dialogues):
        role = roles[number % len(roles)]
        label = ESCONV.labels[number % len(roles)]
        turns = [replace(turn, strategy=turn.strategy and label) for turn in dialogue.turns]
        found.append(replace(dialogue, turns=turns, labels={**dialogue.labels, **({"role": role} if role else {})}))
    return found


def test_one_role_or_none_changes_nothing_of_a_planner(dialogues: list[Conversation], tmp_path: Path) -> None:
    make(dialogues, None, tmp_path / "plain", model="linear")
    make([replace(each, labels={"role": "a"}) for each in dialogues], None, tmp_path / "one", model="linear")
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("plain", "one")]
    assert weights[0] == weights[1]
    assert "roles" not in json.loads((tmp_path / "plain/planner.json").read_text(encoding="utf-8"))
    assert EncoderPlanner.load(tmp_path / "plain").card.roles == ()


@pytest.mark.parametrize("model", ["linear", "encoder"])
def test_a_planner_of_several_roles_plans_by_who_speaks(model: Any, encoder: Encoder, tmp_path: Path) -> None:
    taught = in_roles(starter_dialogues(24, 12), "a", "b", None)
    how = {"model": model, "epochs": 8, "learning_rate": 0.02, "calibration": "none"}
    make(taught, encoder if model == "encoder" else None, tmp_path / "planner", **how)
    planner = EncoderPlanner.load(tmp_path / "planner", encoder if model == "encoder" else None)
    assert planner.card.roles == ("a", "b")
    (asked,) = in_roles(starter_dialogues(25, 12)[24:], None)
    turns = [replace(turn, strategy=None) for turn in supporter_turns(asked)]

    def scores(role: str | None, other: str = "") -> Any:
        own = [replace(turn, extra={"role": other}) if other else turn for turn in turns]
        return planner.score(replace(asked, labels={"role": role} if role else {}), own, {})

    for place, role in enumerate(("a", "b", None)):
        found = np.exp(scores(role))[:, place].mean()
        others = [np.exp(scores(other))[:, place].mean() for other in ("a", "b", None) if other != role]
        assert found > max(others) + 0.05, role
    np.testing.assert_array_equal(scores("nobody"), scores(None), "a role that was not there is none")
    np.testing.assert_array_equal(scores("b", other="a"), scores("a"), "a turn's own role comes first")
