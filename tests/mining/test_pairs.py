"""The linter counts what spoils training; length matching leaves no clue in lengths; both sides share a context."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.conversation import Conversation, Preference, Turn
from esckit.errors import CorpusError
from esckit.mining.pairs import (
    Pair,
    PairReport,
    check_pairs,
    length_matched,
    lint_pairs,
    normalise,
    pairs_of,
    render_pairs,
)
from esckit.rendering import Part, past_strategies
from esckit.strategy import ESCONV
from tests.mining.grown import GOLD, dialogue, grown, prefer
from tests.tiny import tiny_renderer

PARTS: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")


def pair(chosen: str, rejected: str, conversation_id: str = "c") -> Pair:
    """Two replies under one strategy to one opening."""
    turns = [
        Turn("0", None, "seeker", "Hello."),
        Turn("a", "0", "supporter", chosen, GOLD),
        Turn("b", "0", "supporter", rejected, GOLD, source="m"),
    ]
    return Pair(Conversation(conversation_id, turns), Preference("a", "b", "response"))


# ---------------------------------------------------------------------------------------------------- the parts' pairs


def test_each_part_trains_on_its_aspects() -> None:
    tree = prefer(prefer(prefer(dialogue(), "2", "Others"), "2", None, "Well."), "2", "Others", "Well.")
    held = {part: [own.preference.aspect for own in pairs_of([tree], part)] for part in PARTS}
    assert held == {"planner": ["strategy"], "generator": ["response"], "coupled": ["response", "turn"]}


def test_what_is_compared() -> None:
    assert pairs_of([grown("planner")], "planner")[0].texts == ("[Reflection of feelings]", "[Others]")
    assert pair(" How are you? ", "Well.").texts == ("[Question] How are you?", "[Question] Well.")


def test_replies_without_a_strategy_are_compared_by_text_and_cannot_be_trained_on() -> None:
    bare = replace(dialogue(), turns=[replace(turn, strategy=None) for turn in dialogue().turns])
    tree = bare.grow([Turn("m", "1", "supporter", " Well.")], [Preference("2", "m", "response")])
    (own,) = pairs_of([tree], "generator")
    assert own.texts == ("That must hurt.", "Well.")
    with pytest.raises(CorpusError, match="turn '2' has no strategy"):
        render_pairs([own], tiny_renderer(), "generator", hidden)


@pytest.mark.parametrize(
    ("one", "other"), [("A  b\nc", "a b c"), (" x ", "X"), ("ﬁne", "fine"), ("Straße", "STRASSE"), ("a\u00a0b", "a b")]
)
def test_replies_that_count_as_equal(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert normalise(one) != normalise(other + "!")


# ------------------------------------------------------------------------------------------------------------- linting


def test_a_sound_set_has_no_fault() -> None:
    report = lint_pairs([pair("What is it?", "Well."), pair("What is it?", "Well.", "another")])
    assert report == PairReport(2, 0, 0, 2, 22 / 16)


def test_every_fault_is_counted_once() -> None:
    pairs = [
        pair("What is it?", "Well."),
        pair("What is it? ", " what  is it?", "spaces and case"),  # not the same tokens: it can be learned
        pair("What is it?", "What is it? ", "equal"),
        pair("What is it?", " well."),  # the first again, but for case and space
    ]
    report = lint_pairs(pairs)
    assert (report.pairs, report.equal, report.duplicates) == (4, 1, 1)
    assert (report.longer_chosen, round(report.length_ratio, 3)) == (2, round(22 * 4 / (16 + 23 + 22 + 16), 3))


def test_no_pairs_have_no_ratio_to_divide_by() -> None:
    assert lint_pairs([]) == PairReport(0, 0, 0, 0, 1.0)


def test_faulty_pairs_are_refused_by_default() -> None:
    pairs = [pair("a", "b"), pair("a", "a", "equal"), pair("a", " a", "equal but for a space")]
    with pytest.raises(CorpusError, match=r"2 of 3 preference pairs must not be trained on, as their sides are equal"):
        check_pairs(pairs)
    assert check_pairs(pairs, drop=True) == pairs[:1]


def test_duplicates_alone_are_not_refused_and_can_be_dropped() -> None:
    pairs = [pair("a", "b"), pair("c", "d", "other"), pair("a", "b")]
    assert check_pairs(pairs) == pairs
    assert check_pairs(pairs, drop=True) == pairs[:2]


@pytest.mark.parametrize("drop", [False, True])
def test_nothing_to_train_on_is_refused(drop: bool) -> None:
    with pytest.raises(CorpusError, match="no preference pair"):
        check_pairs([], drop=drop)
    if drop:
        with pytest.raises(CorpusError, match="no preference pair"):
            check_pairs([pair("a", "a")], drop=True)


# ----------------------------------------------------------------------------------------------------- length matching

sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=40)
seeds = st.integers(0, 3)


def of_sizes(pairs: list[tuple[int, int]]) -> list[Pair]:
    return [pair("a" * chosen, "b" * rejected, str(number)) for number, (chosen, rejected) in enumerate(pairs)]


def ratio(own: Pair) -> float:
    chosen, rejected = map(len, own.texts)
    return chosen / rejected


@settings(deadline=None, max_examples=60)
@given(sizes, seeds)
def test_as_many_longer_chosen_as_longer_rejected_at_every_ratio(pairs: list[tuple[int, int]], seed: int) -> None:
    given_pairs = of_sizes(pairs)
    kept = length_matched(given_pairs, seed)
    edges = [2 ** (half / 2) for half in range(14)]
    for edge in pairwise(edges):  # bins of half an octave, each against its mirror image

        def count(among: list[Pair], edge: tuple[float, float] = edge) -> tuple[int, int]:
            sizes = [tuple(map(len, own.texts)) for own in among]
            longer = sum(edge[0] <= c / r < edge[1] for c, r in sizes if c > r)
            return longer, sum(edge[0] <= r / c < edge[1] for c, r in sizes if r > c)

        assert count(kept) == (min(count(given_pairs)),) * 2, "balanced, and no more is lost than must be"
    assert sum(ratio(own) == 1 for own in kept) == sum(ratio(own) == 1 for own in given_pairs)


@settings(deadline=None, max_examples=30)
@given(sizes, seeds)
def test_order_is_kept_and_a_balanced_set_is_kept_whole(pairs: list[tuple[int, int]], seed: int) -> None:
    kept = length_matched(of_sizes(pairs), seed)
    numbers = [int(own.conversation.id) for own in kept]
    assert numbers == sorted(set(numbers))
    assert length_matched(kept, seed + 1) == kept


def test_the_draw_follows_the_seed() -> None:
    pairs = of_sizes([(40, 10)] * 30 + [(10, 40)] * 10)
    drawn = {tuple(own.conversation.id for own in length_matched(pairs, seed)) for seed in range(4)}
    assert len(drawn) == 4
    assert length_matched(pairs, 1) == length_matched(pairs, 1)
    assert Counter(ratio(own) > 1 for own in length_matched(pairs, 1)) == {True: 10, False: 10}


# ----------------------------------------------------------------------------------------------------------- rendering


def hidden(_: Conversation) -> dict[str, str]:
    return {}


def test_targets_of_each_part() -> None:
    renderer = tiny_renderer()
    gold, other = "[Reflection of feelings]", "[Others]"
    for part, given_ids, chosen, rejected in (
        ("planner", "", gold, other),
        ("generator", gold, " That must hurt.<|im_end|>", " Well.<|im_end|>"),
        ("coupled", "", f"{gold} That must hurt.<|im_end|>", f"{other} Well.<|im_end|>"),
    ):
        ((first, *_),) = render_pairs(pairs_of([grown(part)], part), renderer, part, hidden)  # type: ignore[arg-type]
        decode = renderer.tokenizer.decode
        assert [decode(side.given) for side in first] == [given_ids] * 2
        assert [decode(side.scored) for side in first] == [chosen, rejected]
        assert decode(first.chosen.context).endswith("I failed my exam.\nAgain.<|im_end|>\n<|im_start|>assistant\n")
        assert first.chosen.context == first.rejected.context


def test_pairs_of_one_conversation_stand_together_in_order() -> None:
    trees = [grown("coupled", "a"), grown("coupled", "b")]
    mixed = [own for both in zip(*(pairs_of([tree], "coupled") for tree in trees), strict=True) for own in both]
    rendered = render_pairs(mixed, tiny_renderer(), "coupled", hidden)
    assert [len(own) for own in rendered] == [3, 3]
    for tree, own in zip(trees, rendered, strict=True):
        assert [side.turn_id for example in own for side in example] == [
            turn for preference in tree.preferences for turn in (preference.chosen, preference.rejected)
        ]


def test_the_history_shows_what_it_is_told_to_show() -> None:
    def gold(conversation: Conversation) -> dict[str, str]:
        return past_strategies(conversation, "gold")

    pairs = pairs_of([grown("coupled")], "coupled")
    decode = tiny_renderer().tokenizer.decode
    for shown, there in ((gold, True), (hidden, False)):
        ((_, second, _),) = render_pairs(pairs, tiny_renderer(), "coupled", shown)
        assert ("[Reflection of feelings] That must hurt." in decode(second.chosen.context)) is there


@settings(deadline=None, max_examples=25)
@given(part=st.sampled_from(PARTS), max_context=st.integers(315, 360), words=st.integers(1, 43), seed=seeds)
def test_both_sides_have_one_context_also_where_it_is_cut(part: Part, max_context: int, words: int, seed: int) -> None:
    draw = random.Random(seed)
    renderer = tiny_renderer(max_context)
    turns = [replace(turn, text=f"{turn.text} " + "and more " * draw.randint(0, 8)) for turn in dialogue().turns]
    tree = replace(dialogue(), turns=turns)
    for gold in ("2", "3", "5"):
        text = None if part == "planner" else "word " * words
        strategy = (
            None if part == "generator" else draw.choice([s for s in ESCONV.labels if s != tree.turn(gold).strategy])
        )
        tree = prefer(tree, gold, strategy, text)
    pairs = pairs_of([tree], part)
    (rendered,) = render_pairs(pairs, renderer, part, hidden)
    for own, example in zip(pairs, rendered, strict=True):
        assert example.chosen.context == example.rejected.context
        assert example.chosen.dropped == example.rejected.dropped
        longest = max(len(side.context + side.given + side.scored) for side in example)
        assert longest <= max_context
        alone = [renderer.example(tree, tree.turn(side.turn_id), part, {}) for side in example]
        assert example.chosen.dropped == max(side.dropped for side in alone), "no more than must be"
        assert own.preference.chosen == example.chosen.turn_id


def test_a_long_side_cuts_the_context_of_the_short_one() -> None:
    tree = prefer(dialogue(), "5", None, "word " * 30)
    whole = tiny_renderer().pair(tree, tree.preferences[0], "generator", {})
    tight = tiny_renderer(len(whole.rejected.context) + len(whole.rejected.given) + len(whole.rejected.scored) - 1)
    short = tight.example(tree, tree.turn("5"), "generator", {})
    ((cut,),) = render_pairs(pairs_of([tree], "generator"), tight, "generator", hidden)
    assert short.dropped == 0
    assert cut.chosen.dropped == cut.rejected.dropped > 0
    assert cut.chosen.context == cut.rejected.context != short.context
