"""Predictions: what training saw, the same bytes every time, and the same bytes after a stop."""

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.errors import CorpusError, EsckitError, ModelError
from esckit.language_models.generation import Reply, generate
from esckit.language_models.token_tree import build_tries, collate, token_log_probabilities
from esckit.measures import Prediction, add_context, read_predictions
from esckit.rendering import Layout, Part, PastStrategies, past_strategies, supporter_turns
from esckit.strategy import ESCONV
from esckit.supporters import Supporter, predict
from esckit.supporters import prediction as module
from esckit.supporters.parts import Wording
from esckit.supporters.prediction import predict_conversation
from esckit.supporters.supporter_folder import Kind, SupporterCard
from tests.answers import first_of, requests_at
from tests.tiny import (
    label_ids,
    starter_dialogues,
    talk,
    tiny_model,
    tiny_renderer,
    tiny_tokenizer,
    with_lora,
    write_supporter,
)
from tests.tolerance import tolerance

SHORT: Final = Decoding(max_new_tokens=5)
Predict = Callable[..., bytes]


@pytest.fixture(scope="module")
def dialogues() -> list[Conversation]:
    return starter_dialogues(3, 6)


def run(supporter: Supporter, conversations: Sequence[Conversation], out: Path, **more: Any) -> bytes:
    """Predict with short replies; return the file's bytes."""
    rows = predict(supporter, conversations, out, **{"wording": SHORT, **more})
    content = out.read_bytes()
    assert rows == content.count(b"\n")
    return content


def lines_of(content: bytes, conversation: Conversation) -> list[bytes]:
    """A conversation's lines of a predictions file."""
    return [line for line in content.splitlines() if json.loads(line)["conversation_id"] == conversation.id]


# ------------------------------------------------------------------------------------------------- what the rows hold


def test_a_row_for_every_labelled_turn(decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path) -> None:
    run(decoupled, dialogues, tmp_path / "p.jsonl")
    rows = read_predictions(tmp_path / "p.jsonl", ESCONV)
    wanted = [(c.id, turn.id, turn.strategy, turn.text) for c in dialogues for turn in supporter_turns(c)]
    assert [(r.conversation_id, r.turn_id, r.gold_strategy, r.gold_text) for r in rows] == wanted
    for row in rows:
        assert row.strategy_probabilities is not None
        assert list(row.strategy_probabilities) == list(ESCONV.labels)
        assert sum(row.strategy_probabilities.values()) == pytest.approx(1, abs=1e-5)
        best = max(row.strategy_probabilities, key=row.strategy_probabilities.__getitem__)
        assert row.predicted_strategy == best, "greedy by default"
        assert row.finish in ("stop", "length")
        assert row.extra == {"past_strategies": "hidden"}, "as the supporter was trained"
    bare = [replace(row, position=None, seeker_turns=None) for row in rows]
    assert add_context(bare, dialogues) == rows, "measured without the corpus as with it"
    assert len({row.predicted_strategy for row in rows}) > 1
    assert len({row.predicted_text for row in rows}) > 1


def training_scores(
    model: Any, conversation: Conversation, part: Part, shown: Mapping[str, str], layout: Layout = "shared-prefix"
) -> NDArray[np.float64]:
    """(T, K) from the very tries that training reads: a label's token log-probabilities where it is the gold label."""
    renderer = tiny_renderer(layout=layout)
    turns = supporter_turns(conversation)
    scores = np.empty((len(turns), len(ESCONV.labels)))
    for row, turn in enumerate(turns):
        for column, label in enumerate(ESCONV.labels):
            relabelled = [replace(t, strategy=label) if t is turn else t for t in conversation.turns]
            examples = renderer.examples(replace(conversation, turns=relabelled), part, shown)
            batch = collate(build_tries(examples))
            with torch.no_grad():
                tokens = token_log_probabilities(model, batch)[batch.target == row]
            scores[row, column] = float(tokens[: len(label_ids(renderer, label, part))].sum())
    normalised: NDArray[np.float64] = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("mode", ["gold", "hidden", "predicted"])
@pytest.mark.parametrize("kind", ["decoupled", "coupled"])
def test_the_planner_predicts_with_what_training_saw(
    kind: Kind, mode: PastStrategies, supporters: dict[Kind, Supporter], dialogues: list[Conversation], tmp_path: Path
) -> None:
    part: Part = "coupled" if kind == "coupled" else "planner"
    conversation = dialogues[0]
    run(supporters[kind], [conversation], tmp_path / "p.jsonl", past=mode)
    rows = read_predictions(tmp_path / "p.jsonl", ESCONV)
    shown = past_strategies(conversation, mode, {str(row.turn_id): str(row.predicted_strategy) for row in rows})
    wanted = training_scores(with_lora(tiny_model(), part, seed=1), conversation, part, shown)
    written = np.array([list((row.strategy_probabilities or {}).values()) for row in rows])
    np.testing.assert_allclose(written, np.exp(wanted), atol=5e-7 + tolerance(tokens=8))  # six decimals are written
    scores = supporters[kind].score(conversation, supporter_turns(conversation), shown)
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert {row.extra["past_strategies"] for row in rows} == {mode}


@pytest.mark.parametrize("kind", ["decoupled", "coupled"])
def test_in_the_layout_paper_both_parts_predict_with_what_training_saw(
    kind: Kind, dialogues: list[Conversation], tmp_path: Path
) -> None:
    mode: PastStrategies = "gold" if kind == "coupled" else "hidden"
    supporter = Supporter.load(write_supporter(tmp_path / kind, kind, mode, layout="paper"))
    assert supporter.card.layout == "paper"
    parts: tuple[Part, Part] = ("coupled", "coupled") if kind == "coupled" else ("planner", "generator")
    conversation, turns = dialogues[0], supporter_turns(dialogues[0])
    shown = past_strategies(conversation, mode)
    wanted = training_scores(with_lora(tiny_model(), parts[0], seed=1), conversation, parts[0], shown, "paper")
    np.testing.assert_allclose(supporter.score(conversation, turns, shown), wanted, atol=1e-4)
    renderer, model = tiny_renderer(layout="paper"), with_lora(tiny_model(), parts[1], seed=len(set(parts)))
    prompts = []
    for turn in turns:
        example = renderer.example(conversation, turn, parts[1], shown)
        label = label_ids(renderer, str(turn.strategy)) if kind == "coupled" else ()
        prompts.append((*example.context, *label))
    greedy = Decoding(greedy=True, max_new_tokens=6)
    asked = requests_at(conversation, turns, [str(turn.strategy) for turn in turns], shown=shown, wording=greedy)
    replies = generate(model, tiny_tokenizer(), prompts, renderer.end_of_turn, greedy, range(len(prompts)))
    assert [(found.text, found.finish) for found in first_of(supporter, asked)] == replies


def test_modes_differ(supporters: dict[Kind, Supporter], dialogues: list[Conversation], tmp_path: Path) -> None:
    """The tests of equality would mean little where nothing changes."""
    modes: tuple[PastStrategies, ...] = ("gold", "hidden", "predicted")
    rows = []
    for mode in modes:
        run(supporters["decoupled"], dialogues[:1], tmp_path / mode, past=mode)
        rows.append([row.strategy_probabilities for row in read_predictions(tmp_path / mode, ESCONV)])
    assert rows[0] != rows[1] != rows[2] != rows[0]


# ----------------------------------------------------------------------------------------------------- past predicted


class Scripted:
    """Plays a supporter's parts from a script and keeps what it was shown, by what is answered."""

    identity = about = "scripted"
    strategies: frozenset[str] | None = None

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = list(choices)
        self.seen: list[tuple[list[str | None], dict[str, str]]] = []
        self.wanted: list[Wording] = []

    def score(self, _: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]) -> NDArray[np.float64]:
        self.seen.append(([turn.parent for turn in turns], dict(shown)))
        chosen = [ESCONV.labels.index(self.choices.pop(0)) for _ in turns]
        return np.log(np.eye(len(ESCONV.labels))[chosen] * 0.9 + 0.1 / len(ESCONV.labels))

    def write(self, wanted: Sequence[Wording], on_text: object = None) -> list[Reply | None]:
        self.wanted += wanted
        return [Reply("Well.", "stop") for _ in wanted]


CONVERSATION: Final = talk(
    ("seeker", "a"),
    ("supporter", "b", "Question"),
    ("supporter", "c"),
    ("seeker", "d"),
    ("supporter", "e", "Information"),
    ("supporter", "f", "Others"),
    ("seeker", "g"),
)
OWN: Final = ["Others", "Self-disclosure", "Question"]


def predict_scripted(
    play: Scripted, past: PastStrategies | None, *, generator: bool = True, **more: Any
) -> list[Prediction]:
    card = SupporterCard("decoupled", "hidden", planner="encoder", generator="retrieval" if generator else "none")
    supporter = Supporter(card, play, play if generator else None)
    greedy = Decoding(greedy=True)
    return predict_conversation(supporter, CONVERSATION, seed=0, planning=greedy, wording=greedy, past=past, **more)


def words_of(play: Scripted) -> tuple[list[str | None], list[str], list[dict[str, str]]]:
    """What was answered, under which strategies, and what the history showed."""
    wanted = play.wanted
    return [w.parent for w in wanted], [w.strategy for w in wanted], [dict(w.shown) for w in wanted]


def test_past_predicted_shows_the_models_own_choices() -> None:
    play = Scripted(OWN)
    rows = predict_scripted(play, "predicted")
    assert play.seen == [
        (["0"], {}),
        (["3"], {"1": "Others"}),
        (["4"], {"1": "Others", "4": "Self-disclosure"}),
    ]
    chosen = {"1": "Others", "4": "Self-disclosure", "5": "Question"}
    assert words_of(play) == (["0", "3", "4"], OWN, [chosen] * 3)
    assert [row.predicted_strategy for row in rows] == OWN
    assert [row.gold_strategy for row in rows] == ["Question", "Information", "Others"]


@pytest.mark.parametrize("past", ["gold", "hidden", None])
def test_other_modes_are_one_call_with_what_they_show(past: PastStrategies | None) -> None:
    play = Scripted(OWN)
    rows = predict_scripted(play, past)
    shown = {"1": "Question", "4": "Information", "5": "Others"} if past == "gold" else {}
    assert play.seen == [(["0", "3", "4"], shown)]
    assert words_of(play) == (["0", "3", "4"], OWN, [shown] * 3)
    assert {row.extra["past_strategies"] for row in rows} == {past or "hidden"}


@pytest.mark.parametrize("past", ["predicted", "hidden"])
def test_strategies_without_replies_are_passed_over_and_probabilities_stay(past: PastStrategies) -> None:
    play = Scripted(["Self-disclosure", "Information", "Self-disclosure"])
    play.strategies = frozenset(ESCONV.labels) - {"Self-disclosure", ESCONV.labels[0]}
    rows = predict_scripted(play, past)
    best = next(label for label in ESCONV.labels if label in play.strategies)
    assert [row.predicted_strategy for row in rows] == [best, "Information", best]
    assert words_of(play)[1] == [best, "Information", best]
    assert [(row.strategy_probabilities or {})["Self-disclosure"] for row in rows] == [0.9125, 0.0125, 0.9125]
    if past == "predicted":
        assert play.seen[-1][1] == {"1": best, "4": "Information"}


@pytest.mark.parametrize("past", ["predicted", "hidden"])
def test_a_planner_alone_predicts_strategies_without_texts(past: PastStrategies) -> None:
    rows = predict_scripted(Scripted(OWN), past, generator=False)
    assert [(row.predicted_strategy, row.predicted_text, row.finish) for row in rows] == [(s, None, None) for s in OWN]


@pytest.mark.parametrize("past", ["gold", "hidden", "predicted"])
def test_a_generator_that_is_given_gold_strategies_is_not_planned_for(past: PastStrategies) -> None:
    play = Scripted([])
    rows = predict_scripted(play, past, given_gold=True)
    gold = ["Question", "Information", "Others"]
    shown = dict(zip(["1", "4", "5"], gold, strict=True)) if past == "gold" else {}
    assert words_of(play) == (["0", "3", "4"], gold, [shown] * 3)
    assert play.seen == []
    assert [(r.gold_strategy, r.predicted_strategy, r.strategy_probabilities) for r in rows] == [
        (strategy, None, None) for strategy in gold
    ]
    assert {(r.extra["strategy_given"], r.extra["past_strategies"]) for r in rows} == {("gold", past)}


def test_gold_strategies_that_cannot_be_worded_are_refused() -> None:
    play = Scripted([])
    play.strategies = frozenset({"Others", "Question"})
    with pytest.raises(ModelError, match="no replies under the strategy 'Information': it has Others, Que"):
        predict_scripted(play, "hidden", given_gold=True)
    with pytest.raises(ModelError, match="only plans: give it a generator"):
        predict_scripted(play, "hidden", given_gold=True, generator=False)


# --------------------------------------------------------------------------------------------------- the same bytes


def test_the_same_call_gives_the_same_bytes(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path
) -> None:
    sampled = {"planning": Decoding(temperature=2.0), "seed": 4}
    first = run(decoupled, dialogues, tmp_path / "1.jsonl", **sampled)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert run(decoupled, dialogues, tmp_path / "2.jsonl", **sampled) == first
    assert torch.equal(torch.get_rng_state(), before), "the process's random state is nobody's business"
    assert run(decoupled, dialogues, tmp_path / "3.jsonl", **{**sampled, "seed": 5}) != first
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("past", ["hidden", "predicted"])
def test_a_conversations_rows_do_not_depend_on_the_others(
    past: PastStrategies, decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path
) -> None:
    sampled = {"planning": Decoding(temperature=2.0), "past": past}
    together = run(decoupled, dialogues, tmp_path / "all.jsonl", **sampled)
    turned = run(decoupled, dialogues[::-1], tmp_path / "turned.jsonl", **sampled)
    for conversation in dialogues:
        alone = run(decoupled, [conversation], tmp_path / "one.jsonl", **sampled)
        assert alone.splitlines() == lines_of(together, conversation) == lines_of(turned, conversation)


def test_every_conversation_has_draws_of_its_own(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path
) -> None:
    twins = [replace(dialogues[0], id=name) for name in ("one", "other")]
    hot = Decoding(temperature=50.0, top_p=1.0, max_new_tokens=3)
    run(decoupled, twins, tmp_path / "p.jsonl", planning=hot, wording=hot)
    rows = read_predictions(tmp_path / "p.jsonl", ESCONV)
    one, other = ([row for row in rows if row.conversation_id == twin.id] for twin in twins)
    assert [row.strategy_probabilities for row in one] == [row.strategy_probabilities for row in other]
    assert [row.predicted_strategy for row in one] != [row.predicted_strategy for row in other]
    assert [row.predicted_text for row in one] != [row.predicted_text for row in other]


def test_the_strategy_is_the_likeliest_and_the_text_is_drawn_as_in_the_paper_unless_told(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def ask(*_: object, **settings: Any) -> list[Prediction]:
        asked.append(settings)
        return []

    monkeypatch.setattr(module, "predict_conversation", ask)
    predict(decoupled, dialogues[:1], tmp_path / "p.jsonl")
    (settings,) = asked
    drawn = {"planning": Decoding(greedy=True), "wording": Decoding()}
    assert settings == {"seed": 0, "past": None, "given_gold": False, **drawn}
    assert (Decoding().greedy, Decoding().temperature, Decoding().top_p) == (False, 0.7, 0.95)


# ----------------------------------------------------------------------------------------------------------- resuming


class Stopped(BaseException):
    """Stands for a kill between two conversations."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the conversations that are predicted; an entry "stop" ahead of them stops the run there."""
    log: list[str] = []
    predict_one = module.predict_conversation

    def predict_counted(supporter: Supporter, conversation: Conversation, **more: Any) -> list[Prediction]:
        if log.count("stop") and len(log) > log.index("stop") + 1:
            raise Stopped
        log.append(conversation.id)
        return predict_one(supporter, conversation, **more)

    monkeypatch.setattr(module, "predict_conversation", predict_counted)
    return log


def stop_after_one(supporter: Supporter, dialogues: list[Conversation], out: Path, log: list[str], **more: Any) -> Path:
    """Predict one conversation, stop, and return the partial file."""
    before = set(out.parent.iterdir())
    log[:] = ["stop"]
    with pytest.raises(Stopped):
        run(supporter, dialogues, out, **more)
    log.clear()
    (partial,) = set(out.parent.iterdir()) - before
    assert partial != out
    return partial


@pytest.fixture(scope="module")
def whole(
    supporters: dict[Kind, Supporter], dialogues: list[Conversation], tmp_path_factory: pytest.TempPathFactory
) -> dict[PastStrategies, bytes]:
    """Predictions that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "p.jsonl"
    modes: tuple[PastStrategies, ...] = ("hidden", "predicted")
    return {mode: run(supporters["decoupled"], dialogues, out, past=mode) for mode in modes}


CUTS: Final[dict[PastStrategies, tuple[float, ...]]] = {
    "hidden": (0, 0.02, 0.3, 0.34, 0.5, 0.7, 0.97, 0.999, 1),
    "predicted": (0.4, 0.9),
}


@pytest.mark.parametrize(("past", "part"), [(past, part) for past, parts in CUTS.items() for part in parts])
def test_a_file_cut_at_any_byte_is_continued_to_the_same_bytes(
    part: float,
    past: PastStrategies,
    whole: dict[PastStrategies, bytes],
    decoupled: Supporter,
    dialogues: list[Conversation],
    tmp_path: Path,
    counted: list[str],
) -> None:
    out = tmp_path / "p.jsonl"
    partial = stop_after_one(decoupled, dialogues, out, counted, past=past)
    kept = whole[past][: round(part * len(whole[past]))]
    partial.write_bytes(kept)
    assert run(decoupled, dialogues, out, past=past) == whole[past]
    complete = [c.id for c in dialogues if all(line + b"\n" in kept for line in lines_of(whole[past], c))]
    assert counted == [c.id for c in dialogues][len(complete) :], "whole conversations are not predicted again"
    assert not partial.exists()


def test_every_boundary_between_rows_is_continued(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, counted: list[str]
) -> None:
    content = run(decoupled, dialogues[:2], tmp_path / "whole.jsonl")
    ends = np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    for end in [*ends - 1, *ends]:
        partial = stop_after_one(decoupled, dialogues[:2], tmp_path / "p.jsonl", counted)
        partial.write_bytes(content[: int(end)])
        assert run(decoupled, dialogues[:2], tmp_path / "p.jsonl") == content
        (tmp_path / "p.jsonl").unlink()


def test_nothing_stands_under_the_name_before_it_is_complete(
    whole: dict[PastStrategies, bytes],
    decoupled: Supporter,
    dialogues: list[Conversation],
    tmp_path: Path,
    counted: list[str],
) -> None:
    out = tmp_path / "p.jsonl"
    partial = stop_after_one(decoupled, dialogues, out, counted)
    assert not out.exists()
    assert partial.read_bytes() == b"".join(line + b"\n" for line in lines_of(whole["hidden"], dialogues[0]))
    out.write_bytes(b"an older file\n")
    assert run(decoupled, dialogues, out) == whole["hidden"]
    assert counted == [dialogues[1].id, dialogues[2].id]


def spoil(partial: Path) -> None:
    """Change what a partial file says: whoever reuses it copies the lie."""
    partial.write_bytes(partial.read_bytes().replace(b'"finish"', b'"reused": 1, "finish"'))


def another_supporter(supporter: Supporter, tmp_path: Path) -> Supporter:
    return Supporter.load(write_supporter(tmp_path / "other", seed=30))


def test_a_partial_file_is_continued_as_it_is(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, counted: list[str]
) -> None:
    spoil(stop_after_one(decoupled, dialogues, tmp_path / "p.jsonl", counted))
    assert b"reused" in run(decoupled, dialogues, tmp_path / "p.jsonl"), "so the tests below would see it"


def test_a_partial_file_of_another_supporter_is_not_continued(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, counted: list[str]
) -> None:
    other = another_supporter(decoupled, tmp_path)
    same = replace(other.card, adapter_hashes=decoupled.card.adapter_hashes)
    assert same == decoupled.card, "same kind, same base: only the adapters differ"
    spoil(stop_after_one(decoupled, dialogues, tmp_path / "p.jsonl", counted))
    content = run(other, dialogues, tmp_path / "p.jsonl")
    assert b"reused" not in content
    assert content == run(other, dialogues, tmp_path / "clean.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"past": "gold"},
        {"past": "predicted"},
        {"given_gold": True},
        {"planning": Decoding(temperature=1.0)},
        {"wording": Decoding(max_new_tokens=4)},
    ],
    ids=str,
)
def test_a_partial_file_of_other_settings_is_not_continued(
    changes: dict[str, Any], decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, counted: list[str]
) -> None:
    spoil(stop_after_one(decoupled, dialogues, tmp_path / "p.jsonl", counted))
    assert b"reused" not in run(decoupled, dialogues, tmp_path / "p.jsonl", **changes)


def test_a_partial_file_of_other_dialogues_is_not_continued(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, counted: list[str]
) -> None:
    spoil(stop_after_one(decoupled, dialogues, tmp_path / "p.jsonl", counted))
    assert b"reused" not in run(decoupled, dialogues[:2], tmp_path / "p.jsonl")
    edited = [replace(c, turns=[replace(c.turns[0], text="Hm."), *c.turns[1:]]) for c in dialogues]
    assert b"reused" not in run(decoupled, edited, tmp_path / "p.jsonl"), "the ids are the same, the words are not"


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_corpus_without_labelled_turns_is_refused(decoupled: Supporter, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"no supporter turn with a strategy: nothing can be predicted, give another\."
    ):
        predict(decoupled, [talk(("seeker", "a"), ("supporter", "b"))], tmp_path / "p.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_conversations_without_labelled_turns_are_passed_over(
    decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path
) -> None:
    unlabelled = talk(("seeker", "a"), ("supporter", "b"))
    plain = run(decoupled, dialogues[:1], tmp_path / "1.jsonl")
    assert run(decoupled, [unlabelled, dialogues[0]], tmp_path / "2.jsonl") == plain


@pytest.mark.parametrize("call", ["pathlib.Path.replace", "pathlib.Path.open", "esckit.files.os.fsync"])
def test_a_file_that_cannot_be_written_is_said(
    call: str, decoupled: Supporter, dialogues: list[Conversation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(call, fail)
        with pytest.raises(EsckitError) as error:
            predict(decoupled, dialogues[:1], tmp_path / "p.jsonl", wording=SHORT)
    reason = f"{tmp_path / 'p.jsonl'} cannot be written (No space left on device)"
    assert str(error.value) == f"{reason}: free space or choose another place, then run again."
    assert run(decoupled, dialogues[:1], tmp_path / "p.jsonl"), "and the same again works"
