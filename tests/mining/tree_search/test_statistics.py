"""Figures of searched trees, counted by hand."""

import json
from dataclasses import replace

import pytest

from esckit.conversation import Conversation, Preference, Turn, check_conversation
from esckit.mining.tree_search.statistics import PARTS, search_statistics, turns_by_part
from tests.mining.tree_search.searched import hand_made, searched
from tests.trees import small_tree


def test_the_made_trees_are_trees() -> None:
    for tree in (hand_made(), searched(900), searched(900, deep=True)):
        check_conversation(tree)


def test_a_turn_belongs_to_the_parts_that_it_plays() -> None:
    parts = {part: [turn.id for turn in turns] for part, turns in turns_by_part(hand_made()).items()}
    assert parts == {
        "seed_seeker": ["0", "2", "4"],
        "seed_supporter": ["1", "3"],
        "seeker": ["d"],  # g answers a rejected reply
        "kept": ["1", "c", "e"],
        "rejected": ["3", "b", "f"],
    }


def test_table_5_is_as_counted_by_hand() -> None:
    figures = search_statistics([hand_made("a"), hand_made("b")])
    assert figures["dialogues"] == {"seed": 2, "kept": 2}  # 0 1 2 c d e; the seed's own end is not kept
    assert figures["mean_utterances"] == {"seed": 5.0, "kept": 6.0}
    assert {part: row["turns"] for part, row in figures["turns"].items()} == dict(
        zip(PARTS, (6, 4, 2, 6, 6), strict=True)
    )
    assert figures["turns"]["kept"]["mean_words"] == pytest.approx((5 + 6 + 2) / 3)
    assert figures["turns"]["kept"]["mean_characters"] == pytest.approx((21 + 24 + 10) / 3)
    assert figures["turns"]["rejected"]["mean_words"] == pytest.approx((2 + 4 + 1) / 3)
    assert figures["turns"]["seed_seeker"]["mean_words"] == pytest.approx((4 + 2 + 1) / 3)
    assert figures["turns"]["seeker"]["mean_words"] == 3


def test_what_tells_the_sides_apart_is_as_counted_by_hand() -> None:
    figures = search_statistics([hand_made()])
    assert figures["pairs"] == 3  # the planner's pair is the second one again
    assert figures["longer_wins"] == pytest.approx(2 / 3)  # 21 to 22, 24 to 11, 24 to 4
    assert (figures["human_pairs"], figures["human_wins"]) == (2, 0.5)
    assert figures["once"] == pytest.approx(1 / 3)


def test_equal_lengths_win_half() -> None:
    tree = hand_made()
    turns = [replace(turn, text="x" * 24) if turn.id == "3" else turn for turn in tree.turns]
    assert search_statistics([replace(tree, turns=turns)])["longer_wins"] == pytest.approx(1.5 / 3)


def test_random_pairs_rest_on_no_judgement() -> None:
    tree = hand_made()
    pairs = [replace(pair, reason="random") for pair in tree.preferences]
    assert search_statistics([replace(tree, preferences=pairs)])["once"] is None


def test_other_preferences_are_not_the_search_s() -> None:
    mined = small_tree()
    figures = search_statistics([mined])
    assert figures["pairs"] == 0
    assert figures["turns"]["rejected"]["turns"] == 0
    assert figures["dialogues"] == {"seed": 1, "kept": 0}


def test_strategies_stand_in_the_sixth_of_the_longest_talk_to_an_end() -> None:
    figures = search_statistics([hand_made()])["strategies"]
    found = {
        side: {n: label for n, sixth in enumerate(sixths) for label, share in sixth.items() if share}
        for side, sixths in figures.items()
    }
    # of the seed, 6 k / 5 for k 2 and 4; of what is kept, k of 6 for k 2, 4, 6
    assert found["seed"] == {2: "Reflection of feelings", 4: "Providing Suggestions"}
    assert found["kept"] == {2: "Reflection of feelings", 4: "Question", 5: "Others"}
    assert sum(figures["seed"][2].values()) == 1


def test_a_kept_turn_that_leads_to_no_end_is_placed_by_the_seed_s_length() -> None:
    tree = hand_made()
    turns = [replace(turn, scores={**turn.scores, "kept": 1.0}) if turn.id == "b" else turn for turn in tree.turns]
    sixths = search_statistics([replace(tree, turns=turns)])["strategies"]["kept"]
    assert [n for n, sixth in enumerate(sixths) if sixth["Affirmation and Reassurance"]] == [2]  # 6 * 2 / 5


def test_a_kept_end_of_the_seed_counts_with_what_the_seed_says_after_it() -> None:
    tree = hand_made()
    turns = [replace(turn, scores={**turn.scores, "kept": 1.0}) if turn.id == "3" else turn for turn in tree.turns]
    figures = search_statistics([replace(tree, turns=turns)])
    assert figures["dialogues"]["kept"] == 2
    assert figures["mean_utterances"]["kept"] == 5.5


@pytest.mark.parametrize(
    "trees", [[], [Conversation("empty", [])], [Conversation("one", [Turn("0", None, "seeker", "Hi.")])]]
)
def test_nothing_has_no_means(trees: list[Conversation]) -> None:
    figures = search_statistics(trees)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["longer_wins"] is figures["human_wins"] is figures["once"] is None
    assert figures["mean_utterances"]["kept"] is None
    assert len(figures["strategies"]["kept"]) == 6


def test_the_walk_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A talk of thousands of turns is not walked again for each of them: no path is asked for."""
    monkeypatch.setattr(Conversation, "path", None)
    tree = searched(5000, deep=True)
    figures = search_statistics([tree])
    assert figures["turns"]["kept"]["turns"] == sum("kept" in turn.scores for turn in tree.turns)
    assert figures["pairs"] == len(tree.preferences)


def test_a_strategy_outside_the_taxonomy_is_counted() -> None:
    turns = [Turn("0", None, "seeker", "Hi."), Turn("1", "0", "supporter", "Hello.", "Greeting")]
    figures = search_statistics([Conversation("own", turns, taxonomy=None)])
    assert figures["strategies"]["seed"][5] == {"Greeting": 1.0}


def test_pairs_are_those_of_the_search_in_a_tree_that_was_mined_before() -> None:
    tree = hand_made()
    mined = Preference("1", "b", "turn", "lack_of_empathy", "annotator")
    assert search_statistics([replace(tree, preferences=[*tree.preferences, mined])])["pairs"] == 3
