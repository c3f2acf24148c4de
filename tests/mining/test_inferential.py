"""Mining keeps what the model says and gold does not, adds nothing twice, and continues to the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esckit.conversation import (
    Conversation,
    Turn,
    check_conversation,
    mined_id,
    read_conversations,
    write_conversations,
)
from esckit.decoding import Decoding
from esckit.errors import EsckitError
from esckit.language_models.backbone import Backbone
from esckit.language_models.generation import Reply
from esckit.mining.at_random import AtRandom
from esckit.mining.inferential import Miner, draw_dialogues, fold_of, mine
from esckit.mining.mining_options import MiningOptions
from esckit.mining.pairs import Pair, kind_of
from esckit.rendering import Part, supporter_turns
from esckit.strategy import ESCONV
from esckit.supporters import Supporter, supporter
from esckit.supporters.language_parts import LanguageParts
from esckit.supporters.parts import Wording
from esckit.supporters.supporter_folder import SupporterCard
from tests.mining.grown import dialogue
from tests.tiny import starter_dialogues, tiny_model, tiny_renderer, tiny_tokenizer, with_lora

PARTS: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")
REF, QUE, SUG, OTH = "Reflection of feelings", "Question", "Providing Suggestions", "Others"


def miner(part: Part, supporter: Any, source: str = "m", worded_by: str | None = None, **options: Any) -> Miner:
    """A miner with short replies."""
    return Miner(part, supporter, source, MiningOptions(**{"max_new_tokens": 6, **options}), worded_by)


def chance(conversations: Sequence[Conversation] = ()) -> AtRandom:
    """The control: replies of these dialogues."""
    return AtRandom(conversations, ESCONV)


@pytest.fixture(scope="module")
def models() -> dict[Part, Supporter]:
    """A random model a part."""
    found = {}
    for number, part in enumerate(PARTS):
        coupled = part == "coupled"
        backbone = Backbone(with_lora(tiny_model(), part, seed=number), tiny_tokenizer(), "tiny")
        parts = LanguageParts(backbone, tiny_renderer(), coupled=coupled)
        found[part] = Supporter(SupporterCard("coupled" if coupled else "decoupled", "hidden"), parts, parts)
    return found


class Script:
    """Plays the supporter's parts: what it plans and says, and what it was asked."""

    identity = about = "scripted"
    strategies = None

    def __init__(self) -> None:
        self.plans: list[str] = []
        self.replies: list[Reply] = []
        self.asked: list[tuple[str, str]] = []
        self.decoding: Decoding | None = None

    def score(self, _: Conversation, turns: Sequence[Turn], __: object) -> Any:
        chosen = [ESCONV.labels.index(label) for label in self.plans[: len(turns)]]
        return np.log(np.eye(len(ESCONV.labels))[chosen] * 0.992 + 0.001)

    def write(self, wanted: Sequence[Wording], on_text: object = None) -> list[Reply | None]:
        self.asked = [(str(int(str(each.parent)) + 1), each.strategy) for each in wanted]
        (self.decoding,) = {each.decoding for each in wanted}
        return list(self.replies)

    def says(self, *texts: str) -> None:
        self.replies = [Reply(text, "stop") for text in texts]

    def miner(self, part: Part, worded_by: str | None = None, **options: Any) -> Miner:
        card = SupporterCard("coupled" if part == "coupled" else "decoupled", "hidden")
        return miner(part, Supporter(card, self, self), worded_by=worded_by, **options)


@pytest.fixture
def script() -> Script:
    return Script()


class Even:
    """A planner to which these probabilities are all that there is."""

    identity = "even"

    def __init__(self, probabilities: Sequence[float]) -> None:
        self.probabilities = probabilities

    def score(self, _: Conversation, turns: Sequence[Turn], __: object) -> Any:
        return np.log(np.tile(np.array(self.probabilities), (len(turns), 1)))


def found(tree: Conversation) -> list[tuple[str, str | None, str | None, str, str | None]]:
    """Gold turn, strategy and text beside it, aspect and kind of each preference, which only pairs of texts have."""
    rejected = [tree.turn(preference.rejected) for preference in tree.preferences]
    return [
        (
            preference.chosen,
            turn.strategy,
            turn.text,
            preference.aspect,
            None if turn.text is None else kind_of(Pair(tree, preference)),
        )
        for preference, turn in zip(tree.preferences, rejected, strict=True)
    ]


def counts(tree: Conversation, source: str = "m") -> dict[str, int]:
    counted: dict[str, int] = tree.provenance["mined"][source]
    return counted


# ------------------------------------------------------------------------------------------------------- rule: unequal


def test_the_planner_keeps_strategies_that_differ_from_gold(script: Script) -> None:
    script.plans = [REF, OTH, "Information"]
    tree = script.miner("planner").mine(dialogue(), {}, 0)
    assert found(tree) == [("3", OTH, None, "strategy", None), ("5", "Information", None, "strategy", None)]
    assert counts(tree) == {"turns": 3, "sampled": 3, "equal_to_gold": 1, "pairs": 2}
    assert tree.turns[-1].scores == {"probability": 0.993}
    assert {preference.judge for preference in tree.preferences} == {"rule:unequal"}


def test_the_generator_keeps_texts_that_differ_after_normalising(script: Script) -> None:
    script.says(" that  MUST hurt. ", "What happened??", "You could ask\nfor another date.")
    tree = script.miner("generator").mine(dialogue(), {}, 0)
    assert found(tree) == [("3", QUE, "What happened??", "response", "PsNr")]
    assert script.asked == [("2", REF), ("3", QUE), ("5", SUG)], "at the gold strategies"
    assert counts(tree) == {"turns": 3, "sampled": 3, "equal_to_gold": 2, "pairs": 1}
    assert tree.turns[-1].scores == {}


def test_the_coupled_model_s_pairs_say_their_kind(script: Script) -> None:
    script.plans = [REF, OTH, SUG]
    script.says("Well.", "Well.", "you could ask for another date. ")
    tree = script.miner("coupled").mine(dialogue(), {}, 0)
    assert found(tree) == [("2", REF, "Well.", "response", "PsNr"), ("3", OTH, "Well.", "turn", "NsNr")]
    assert script.asked == [("2", REF), ("3", OTH), ("5", SUG)], "at its own strategies"
    assert counts(tree)["equal_to_gold"] == 1


def test_several_samples_count_equal_ones_once(script: Script) -> None:
    script.says("A.", "A.", "a.", "B.", "What happened?", "B.", "C.", "C.", "C.")
    tree = script.miner("generator", samples=3).mine(dialogue(), {}, 0)
    assert script.asked == [(turn, label) for turn, label in (("2", REF), ("3", QUE), ("5", SUG)) for _ in range(3)]
    assert [(turn, text) for turn, _, text, _, _ in found(tree)] == [("2", "A."), ("2", "a."), ("3", "B."), ("5", "C.")]
    assert counts(tree) == {"turns": 3, "sampled": 9, "equal_to_gold": 1, "sampled_twice": 4, "pairs": 4}


def test_top_k_takes_the_likeliest_with_their_probabilities(models: dict[Part, Supporter]) -> None:
    (conversation,) = starter_dialogues(1, 6)
    turns = supporter_turns(conversation)
    tree = miner("planner", models["planner"], top_k=3, samples=9).mine(conversation, {}, 0)
    scores = np.exp(models["planner"].score(conversation, turns, {}))
    wanted = []
    for turn, row in zip(turns, scores, strict=True):
        likeliest = [ESCONV.labels[index] for index in np.argsort(-row)[:3]]
        wanted += [(turn.id, label) for label in likeliest if label != turn.strategy]
    assert [(turn, label) for turn, label, *_ in found(tree)] == wanted
    assert counts(tree)["sampled"] == 3 * len(turns)
    for preference in tree.preferences:
        mined = tree.turn(preference.rejected)
        row = scores[[turn.id for turn in turns].index(preference.chosen)]
        assert mined.scores["probability"] == pytest.approx(row[ESCONV.labels.index(str(mined.strategy))], abs=1e-6)


def test_empty_and_cut_replies_are_counted(script: Script) -> None:
    script.replies = [Reply("  ", "stop"), Reply("Well, as I", "length"), Reply("", "length")]
    tree = script.miner("generator").mine(dialogue(), {}, 0)
    assert [text for _, _, text, _, _ in found(tree)] == ["Well, as I"]
    assert counts(tree) == {"turns": 3, "sampled": 1, "empty": 2, "cut": 2, "pairs": 1}


def test_a_dialogue_without_labelled_turns_is_left_as_it_is() -> None:
    bare = replace(dialogue(), turns=dialogue().turns[:2])
    tree = Script().miner("coupled").mine(bare, {}, 0)
    assert (tree.turns, tree.preferences) == (bare.turns, [])
    assert counts(tree) == {}


# ------------------------------------------------------------------------------------------------------------ sampling


def test_texts_are_sampled_as_the_options_say(script: Script) -> None:
    script.says("A.", "B.", "C.")
    script.miner("generator").mine(dialogue(), {}, 0)
    assert script.decoding == Decoding(temperature=0.7, top_p=0.95, max_new_tokens=6)
    script.miner("generator", temperature=1.5, top_p=0.5).mine(dialogue(), {}, 0)
    assert script.decoding == Decoding(temperature=1.5, top_p=0.5, max_new_tokens=6)
    script.miner("generator", top_k_tokens=50, repetition_penalty=1.2).mine(dialogue(), {}, 0)
    assert script.decoding == Decoding(max_new_tokens=6, top_k=50, repetition_penalty=1.2)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 0.95), (1.0, 1.0)])
def test_strategies_follow_the_tempered_nucleus(temperature: float, top_p: float) -> None:
    """600 seeds, 2 turns each whose gold strategy is not in the nucleus: every draw is seen."""
    probabilities = np.array([0.4, 0.3, 0.15, 0.08, 0.04, 0.02, 0.009, 0.001])
    planner = Supporter(SupporterCard("decoupled", "hidden", generator="none"), Even(probabilities.tolist()), None)
    turns = dialogue().turns[:4]
    rare = replace(dialogue(), turns=[*turns[:2], *(replace(turn, strategy=OTH) for turn in turns[2:])])
    one = miner("planner", planner, temperature=temperature, top_p=top_p)
    drawn = [label for seed in range(600) for _, label, *_ in found(one.mine(rare, {}, seed))]
    tempered = probabilities ** (1 / temperature) / (probabilities ** (1 / temperature)).sum()
    kept = np.where(np.cumsum(tempered) - tempered < top_p, tempered, 0)
    wanted = kept / kept.sum()
    shares = np.array([drawn.count(label) for label in ESCONV.labels]) / len(drawn)
    assert len(drawn) >= 1190
    np.testing.assert_allclose(shares, wanted, atol=4 * 0.5 / 1190**0.5)  # four standard errors at most
    assert (shares[wanted == 0] == 0).all()


def test_two_turns_of_a_dialogue_are_drawn_apart() -> None:
    planner = Supporter(SupporterCard("decoupled", "hidden", generator="none"), Even([1 / 8] * 8), None)
    drawn = {tuple(found(miner("planner", planner).mine(dialogue(), {}, seed))[:2]) for seed in range(20)}
    assert any(first[1] != second[1] for first, second in (pair for pair in drawn if len(pair) == 2))


# ------------------------------------------------------------------------------------------------------------ the tree


@pytest.mark.parametrize("part", PARTS)
def test_the_grown_tree_keeps_every_rule_and_its_trunk(
    part: Part, models: dict[Part, Supporter], tmp_path: Path
) -> None:
    (conversation,) = starter_dialogues(1, 8)
    conversation = replace(conversation, provenance={"from": "somewhere"})
    tree = miner(part, models[part], samples=2).mine(conversation, {}, 0)
    check_conversation(tree)
    assert tree.preferences, "or nothing is tested"
    assert tree.trunk == conversation.trunk
    assert tree.turns[: len(conversation.turns)] == conversation.turns
    for preference in tree.preferences:
        gold, mined = tree.turn(preference.chosen), tree.turn(preference.rejected)
        assert gold in conversation.turns
        assert mined.parent == gold.parent
        assert mined.id == mined_id(mined.parent, "m", mined.strategy, mined.text)
        assert mined.source == "m"
    assert tree.provenance["from"] == "somewhere"
    write_conversations(tmp_path / "tree.jsonl", [tree])
    assert read_conversations(tmp_path / "tree.jsonl") == [tree]


@pytest.mark.parametrize("part", PARTS)
def test_mining_twice_adds_nothing(part: Part, models: dict[Part, Supporter]) -> None:
    (conversation,) = starter_dialogues(1, 8)
    once = miner(part, models[part]).mine(conversation, {}, 0)
    assert miner(part, models[part]).mine(once, {}, 0) == once
    other = miner(part, models[part], source="another").mine(once, {}, 0)
    assert len(other.preferences) == 2 * len(once.preferences), "another model's turns are other turns"
    assert counts(other) == counts(other, "another") == counts(once)


# -------------------------------------------------------------------------------------------------------- rule: judged


def test_judged_sampling_keeps_nothing_yet(script: Script) -> None:
    script.says("A.", "What happened?", "B.")
    tree = script.miner("generator", rule="judged").mine(dialogue(), {}, 0)
    assert tree.preferences == []
    assert [turn.text for turn in tree.turns[6:]] == ["A.", "B."]
    assert counts(tree) == {"turns": 3, "sampled": 3, "equal_to_gold": 1}


def test_a_planner_s_strategies_are_worded_by_the_generator(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([OTH, OTH, REF, QUE, QUE, QUE, SUG, REF, REF])  # three a turn
    monkeypatch.setattr(supporter, "choose_strategies", lambda *_: [ESCONV.labels.index(next(drawn)) for _ in "abc"])
    script.plans = [REF, QUE, SUG]
    script.says("Well.", "I see how you feel.")
    tree = script.miner("planner", "g", rule="judged", samples=3).mine(dialogue(), {}, 0)
    assert script.asked == [("2", OTH), ("5", REF)], "each strategy once, and gold's never"
    new = tree.turns[6:]
    assert [(turn.strategy, turn.text, turn.extra) for turn in new] == [
        (OTH, "Well.", {"worded_by": "g"}),
        (REF, "I see how you feel.", {"worded_by": "g"}),
    ]
    assert all("probability" in turn.scores for turn in new)
    assert counts(tree) == {"turns": 3, "sampled": 9, "equal_to_gold": 5, "sampled_twice": 2}


def test_a_planner_that_is_always_right_words_nothing(script: Script) -> None:
    script.plans = [REF, QUE, SUG]
    tree = script.miner("planner", "g", rule="judged", top_k=1).mine(dialogue(), {}, 0)
    assert len(tree.turns) == 6
    assert script.decoding is None, "the generator is not asked about no turn"
    assert counts(tree) == {"turns": 3, "sampled": 3, "equal_to_gold": 3}


# -------------------------------------------------------------------------------------------------------- rule: random


def test_random_strategies_are_never_gold_and_any_other() -> None:
    control = miner("planner", chance(), rule="random")
    drawn = {(turn, label) for seed in range(100) for turn, label, *_ in found(control.mine(dialogue(), {}, seed))}
    wanted = {(turn.id, label) for turn in supporter_turns(dialogue()) for label in ESCONV.labels}
    assert drawn == wanted - {("2", REF), ("3", QUE), ("5", SUG)}
    tree = miner("planner", chance(), rule="random", samples=20).mine(dialogue(), {}, 0)
    assert counts(tree) == {"turns": 3, "sampled": 21, "pairs": 21}
    assert {preference.judge for preference in tree.preferences} == {"rule:random"}
    assert {turn.scores["probability"] for turn in tree.turns[6:]} == {round(1 / 7, 6)}


@pytest.mark.parametrize("part", ["generator", "coupled"])
def test_random_replies_are_of_other_dialogues_under_the_same_strategy(part: Part) -> None:
    dialogues = starter_dialogues(12, 12)
    texts: dict[tuple[str, str], set[str]] = {}
    for conversation in dialogues:
        for turn in supporter_turns(conversation):
            texts.setdefault((str(turn.strategy), str(turn.text)), set()).add(conversation.id)
    control = miner(part, chance(dialogues), rule="random", samples=4)
    seen = 0
    for conversation in dialogues:
        tree = control.mine(conversation, {}, 0)
        for gold, strategy, text, _, _ in found(tree):
            assert texts[str(strategy), str(text)] - {conversation.id}, "another dialogue said it, under this strategy"
            assert (strategy == conversation.turn(gold).strategy) is (part == "generator")
            seen += 1
    assert seen > 50


def test_random_replies_where_nobody_else_has_any() -> None:
    tree = miner("generator", chance([dialogue()]), rule="random").mine(dialogue(), {}, 0)
    assert tree.preferences == []
    assert counts(tree) == {"turns": 3, "empty": 3}


# ------------------------------------------------------------------------------------------------------------ the file

Call = Callable[..., bytes]


class Watched:
    """Mines by chance, without a model; keeps which dialogue each fold mined, and stops where it is told."""

    def __init__(self, conversations: Sequence[Conversation], stop_at: int | None = None) -> None:
        self.control = miner("coupled", chance(conversations), rule="random", samples=2)
        self.calls: list[tuple[int, str]] = []
        self.stop_at = stop_at

    def of(self, fold: int) -> Any:
        owner = self

        class OfFold:
            source = owner.control.source

            def mine(
                self, conversation: Conversation, shown: Mapping[str, str], seed: int, most: int | None = None
            ) -> Conversation:
                if len(owner.calls) == owner.stop_at:
                    raise KeyboardInterrupt
                owner.calls.append((fold, conversation.id))
                return owner.control.mine(conversation, shown, seed, most)

        return OfFold()


def mine_all(
    conversations: Sequence[Conversation], out: Path, *, stop_at: int | None = None, folds: int = 1, **more: Any
) -> Watched:
    """Mine a file, or its beginning."""
    watched = Watched(conversations, stop_at)
    arguments: dict[str, Any] = {"seed": 0, "key": "key", **more}
    try:
        mine(watched.of, conversations, out, source="m", folds=folds, shown=lambda _: {}, **arguments)
    except KeyboardInterrupt:
        assert stop_at is not None
    return watched


@pytest.fixture(scope="module")
def dialogues() -> list[Conversation]:
    return starter_dialogues(5, 6)


def partial_of(out: Path) -> Path:
    (partial,) = out.parent.glob(f".{out.name}.*.partial")
    return partial


def test_the_file_holds_every_dialogue_in_order_and_counts_add_up(
    dialogues: list[Conversation], tmp_path: Path
) -> None:
    older = [replace(c, provenance={"mined": {"older": {"pairs": 100}}}) for c in dialogues]
    watched = Watched(older)
    total = mine(watched.of, older, tmp_path / "t.jsonl", source="m", shown=lambda _: {}, seed=0, key="k")
    trees = read_conversations(tmp_path / "t.jsonl")
    assert [tree.id for tree in trees] == [c.id for c in dialogues]
    assert total["pairs"] == sum(len(tree.preferences) for tree in trees) > 0
    assert total["turns"] == sum(len(supporter_turns(c)) for c in dialogues)


@pytest.mark.parametrize("part", PARTS)
def test_a_tree_does_not_depend_on_its_neighbours(
    part: Part, dialogues: list[Conversation], models: dict[Part, Supporter], tmp_path: Path
) -> None:
    one = miner(part, models[part])

    def lines(name: str, conversations: Sequence[Conversation], seed: int = 0) -> list[bytes]:
        mine(lambda _: one, conversations, tmp_path / name, source="m", shown=lambda _: {}, seed=seed, key=name)
        return (tmp_path / name).read_bytes().splitlines()

    together = lines("all", dialogues[:3])
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert lines("again", dialogues[:3]) == together
    assert torch.equal(torch.get_rng_state(), before)
    assert lines("alone", dialogues[2:3]) == together[2:]
    assert lines("other order", dialogues[2::-1]) == together[::-1]
    assert lines("other seed", dialogues[:3], seed=1) != together


def test_a_budget_takes_the_first_contexts_in_order(tmp_path: Path) -> None:
    conversations = starter_dialogues(3, 9)
    each = [len(supporter_turns(conversation)) for conversation in conversations]
    control = miner("coupled", chance(starter_dialogues(6, 9)), rule="random", budget_calls=each[0] + 1)
    how: dict[str, Any] = {"source": "m", "shown": lambda _: {}, "seed": 0, "key": "k"}
    all_of_it = mine(lambda _: control, conversations, tmp_path / "all.jsonl", **how)
    contexts = control.options.contexts(verdicts=False)
    counts = mine(lambda _: control, conversations, tmp_path / "some.jsonl", contexts=contexts, **how)
    assert (counts["turns"], counts["beyond_budget"]) == (each[0] + 1, sum(each) - each[0] - 1)
    assert all_of_it["turns"] == sum(each)
    every, some = (read_conversations(tmp_path / f"{name}.jsonl") for name in ("all", "some"))
    assert some[0].turns == every[0].turns, "what is mined at a turn does not depend on the budget"
    assert [len(tree.preferences) for tree in some] == [each[0], 1, 0]


def test_a_context_s_questions_are_what_is_said_there_and_verdicts() -> None:
    assert MiningOptions(samples=3, budget_calls=10).contexts(verdicts=False) == 3
    assert MiningOptions(rule="judged", samples=2, budget_calls=10).contexts(verdicts=True) == 2
    assert MiningOptions(rule="judged", clean_chosen=False, budget_calls=10).contexts(verdicts=True) == 5
    assert MiningOptions().contexts(verdicts=True) is None
    with pytest.raises(ValueError, match="a context takes 3 questions: raise budget_calls"):
        MiningOptions(rule="judged", budget_calls=2).contexts(verdicts=True)


def test_a_stopped_call_continues_to_the_same_bytes(dialogues: list[Conversation], tmp_path: Path) -> None:
    whole = mine_all(dialogues, tmp_path / "whole.jsonl")
    out = tmp_path / "stopped.jsonl"
    assert len(mine_all(dialogues, out, stop_at=2).calls) == 2
    assert not out.exists(), "it appears when it is complete"
    assert mine_all(dialogues, out).calls == whole.calls[2:], "nothing is mined twice"
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert list(tmp_path.glob(".*.partial")) == []


def test_a_file_that_was_cut_anywhere_continues_to_the_same_bytes(
    dialogues: list[Conversation], tmp_path: Path
) -> None:
    mine_all(dialogues, tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    ends = [end + 1 for end in range(len(whole)) if whole[end : end + 1] == b"\n"]
    cuts = {0, 1, *ends, *(end - 1 for end in ends), *range(7, len(whole), len(whole) // 20)}
    for cut in sorted(cuts):
        out = tmp_path / f"{cut}.jsonl"
        mine_all(dialogues, out, stop_at=0)
        partial_of(out).write_bytes(whole[:cut])
        assert len(mine_all(dialogues, out).calls) == len(dialogues) - sum(end <= cut for end in ends)
        assert out.read_bytes() == whole


@pytest.mark.parametrize("change", ["key", "seed", "folds", "dialogue"])
def test_something_else_is_not_continued(change: str, dialogues: list[Conversation], tmp_path: Path) -> None:
    mine_all(dialogues, tmp_path / "t.jsonl", stop_at=3)
    values: dict[str, Any] = {"key": "other", "seed": 1, "folds": 2}
    more = {name: value for name, value in values.items() if name == change}
    changed = [*dialogues[:4], replace(dialogues[4], situation="another")] if change == "dialogue" else dialogues
    assert len(mine_all(changed, tmp_path / "t.jsonl", **more).calls) == len(dialogues)


def test_a_place_that_cannot_be_written(dialogues: list[Conversation], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EsckitError, match="cannot be written"):
        mine_all(dialogues, tmp_path / "file" / "t.jsonl")


# --------------------------------------------------------------------------------------------------------------- folds


@given(st.integers(1, 60), st.integers(1, 12))
def test_folds_are_contiguous_even_and_cover(total: int, folds: int) -> None:
    placed = [fold_of(index, total, folds) for index in range(total)]
    assert placed == sorted(placed)
    sizes = [placed.count(fold) for fold in range(folds)]
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1


def test_more_dialogues_hold_the_fewer_in_their_order() -> None:
    talks = [
        replace(dialogue, id=f"talk {number}") for number, dialogue in enumerate([starter_dialogues(1, 4)[0]] * 40)
    ]
    ids = [talk.id for talk in talks]
    drawn = {number: [talk.id for talk in draw_dialogues(talks, number, 0)] for number in (5, 20)}
    assert [len(own) for own in drawn.values()] == [5, 20]
    assert set(drawn[5]) < set(drawn[20])
    assert all(own == sorted(own, key=ids.index) for own in drawn.values())
    assert [talk.id for talk in draw_dialogues(talks[::-1], 5, 0)] == drawn[5][::-1]
    assert {talk.id for talk in draw_dialogues(talks, 20, 1)} != set(drawn[20])
    assert draw_dialogues(talks, None, 0) == draw_dialogues(talks, 50, 0) == talks


def test_each_dialogue_is_mined_by_the_miner_of_its_fold(dialogues: list[Conversation], tmp_path: Path) -> None:
    watched = mine_all(dialogues, tmp_path / "t.jsonl", folds=2)
    ids = [conversation.id for conversation in dialogues]
    assert watched.calls == [(0, ids[0]), (0, ids[1]), (0, ids[2]), (1, ids[3]), (1, ids[4])]
