"""Near-duplicates: retellings are found, chance is not, and the index finds what comparing all pairs finds."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus, read_corpus
from esckit.corpora.duplicates import (
    SITUATION_OVERLAP,
    SITUATION_WORDS,
    Retelling,
    Stories,
    _overlapping,
    shared_runs,
    similarities,
)


def dialogue(*said: str, situation: str | None = None) -> Conversation:
    """The seeker says each text, the supporter agrees."""
    turns: list[Turn] = []
    for text in said:
        for speaker, words in (("seeker", text), ("supporter", "I see what you mean by that, go on please.")):
            parent = turns[-1].id if turns else None
            turns.append(Turn(str(len(turns)), parent, "seeker" if speaker == "seeker" else "supporter", words))
    return Conversation("c", turns, situation=situation, taxonomy=None)


def pairs(*conversations: Conversation) -> list[Retelling]:
    stories = Stories()
    for conversation in conversations:
        stories.add(conversation)
    return stories.pairs()


# ------------------------------------------------------------------------------------------------------ rule by rule


def test_the_same_seeker_utterances_are_a_pair_with_the_first_of_them_each() -> None:
    same = [dialogue("Hello there!", "Bye."), dialogue("hello THERE", "bye"), dialogue("Hello, there.", "Bye…")]
    other = dialogue("Hello there bye.")
    assert [(p.first, p.second) for p in pairs(same[0], other, *same[1:])] == [(0, 2), (0, 3)]
    assert pairs(*same)[0] == Retelling(0, 1, "have the same seeker utterances", "hello there", "0", "0")


def test_the_same_situation_is_a_pair_and_no_situation_is_none() -> None:
    (pair,) = pairs(dialogue("One.", situation="My dog died."), dialogue("Two.", situation="my dog died"))
    assert pair == Retelling(0, 1, "have the same situation", "", None, None)
    assert pairs(dialogue("One."), dialogue("Two."), dialogue("Three.", situation=" . ")) == []


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("I may lose my job in spring", "I may lose my job in May", True),
        ("I lost my job", "recently I lost my job", True),
        ("My dog died", "my dog died recently", False),
        ("I may lose my job in spring", "I may lose my home in the spring", False),
    ],
)
def test_situations_that_overlap_are_a_pair_if_they_are_long_enough(one: str, other: str, found: bool) -> None:
    reasons = [pair.reason for pair in pairs(dialogue("One.", situation=one), dialogue("Two.", situation=other))]
    assert reasons == (["have situations that overlap by 0.86" if "spring" in one else reasons[0]] if found else [])


FILLER = [" ".join(f"w{n}x{k}" for k in range(400)) for n in range(4)]


def test_five_rare_runs_of_six_words_are_a_pair_wherever_they_stand() -> None:
    ten, nine = "a b c d e f g h i j", "a b c d e f g h i"
    found = pairs(dialogue(FILLER[0], ten), dialogue(f"{FILLER[1]} {ten}", "x"))
    assert found == [Retelling(0, 1, "share 5 rare runs of 6 words", ten, "2", "0")]
    assert pairs(dialogue(FILLER[0], nine), dialogue(FILLER[1], nine)) == []


def test_runs_that_many_have_are_no_evidence() -> None:
    ten = "a b c d e f g h i j"
    assert len(pairs(*(dialogue(FILLER[n], ten) for n in range(3)))) == 3
    assert pairs(*(dialogue(FILLER[n], ten) for n in range(4))) == []


def test_no_run_crosses_the_end_of_an_utterance() -> None:
    assert pairs(*(dialogue(FILLER[n], "a b c d e f g h", "i j k") for n in range(2))) == []
    (pair,) = pairs(*(dialogue(FILLER[n], "a b c d e f g h i j", "k l") for n in range(2)))
    assert pair.words == "a b c d e f g h i j"


def test_what_the_supporter_says_is_not_compared() -> None:
    assert pairs(*(dialogue(text) for text in FILLER)) == []


def test_phrases_count_wherever_they_stand_and_six_of_them_are_needed() -> None:
    (pair,) = pairs(dialogue("p q r s t u v w z", "a b c d"), dialogue("e f g h", "p q r s t", "s t u v w z"))
    shared, alone = 7 * math.log(1000 / 2) ** 2, 2 * math.log(1000 / 1) ** 2
    assert pair.reason == f"tell much the same (similarity {shared / (shared + alone):.2f})"
    assert pairs(dialogue("p q r s t u v"), dialogue("p q r s t u v x")) == []


@pytest.mark.parametrize(("others", "found"), [(74, True), (80, False)])
def test_the_more_else_they_say_the_less_similar_they_are(others: int, found: bool) -> None:
    """Six phrases of weight ln(500)² shared, ``others`` of weight ln(1000)² not: 0.0616 and 0.0572."""
    fillers = [" ".join(f"w{n}x{k}" for k in range(others + 2)) for n in range(2)]
    assert bool(pairs(*(dialogue(filler, "a b c d e", "f g h i j") for filler in fillers))) == found


def test_a_situation_counts_for_phrases_and_not_for_runs() -> None:
    situations = [f"a b c d e f g h i j {' '.join(f's{n}x{k}' for k in range(20))}" for n in range(2)]
    assert [
        pair.reason[:18]
        for pair in pairs(*(dialogue(f"t{n}", situation=situation) for n, situation in enumerate(situations)))
    ] == ["tell much the same"]
    told = [dialogue(FILLER[n], situation=situation) for n, situation in enumerate(situations)]
    assert pairs(*told) == []


def test_ideographs_are_words_and_phrases_of_six_are_compared() -> None:
    story = "我的公司要裁员了我很害怕丢掉工作"
    (pair,) = pairs(dialogue(f"你好，{story}。"), dialogue(f"{story}，怎么办？"))
    assert (pair.reason[:18], pair.words) == ("tell much the same", story)
    assert pairs(dialogue("我的公司要裁员了。"), dialogue("我的公司要搬家了。")) == []


# --------------------------------------------------------------------------------------- the index against all pairs

TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=5)


def runs_of(words: Sequence[int], length: int) -> set[tuple[int, ...]]:
    found = (tuple(words[start : start + length]) for start in range(len(words) - length + 1))
    return {run for run in found if 0 not in run}


@given(TEXTS, st.integers(1, 3), st.integers(2, 4))
def test_the_index_counts_as_comparing_all_pairs_does(texts: list[list[int]], length: int, most: int) -> None:
    ended = [[*text, 0] for text in texts]
    words = np.array([word for text in ended for word in text], np.int64)
    owner = np.repeat(np.arange(len(ended)), [len(text) for text in ended])
    runs = [runs_of(text, length) for text in ended]
    dialogues = Counter(run for each in runs for run in each)
    weight = {run: np.log(1000 / count) ** 2 for run, count in dialogues.items()}
    shared = {
        (a, b): {run for run in runs[a] & runs[b] if dialogues[run] <= most}
        for a, b in combinations(range(len(runs)), 2)
    }
    assert shared_runs(words, owner, length=length, most=most).at_least(1) == {
        pair: len(each) for pair, each in shared.items() if each
    }
    cosines = {
        (a, b): sum(weight[run] for run in each)
        / np.sqrt(sum(weight[run] for run in runs[a]) * sum(weight[run] for run in runs[b]))
        for (a, b), each in shared.items()
        if each
    }
    assert similarities(words, owner, length=length, most=most).at_least(0) == pytest.approx(cosines)
    two = similarities(words, owner, length=length, most=most).at_least(0, runs=2)
    assert two.keys() == {pair for pair, each in shared.items() if len(each) >= 2}


@given(st.lists(st.frozensets(st.integers(0, 9), max_size=8), max_size=12))
def test_overlapping_sets_are_those_that_comparing_all_finds(sets: list[frozenset[int]]) -> None:
    firsts = {words: sets.index(words) for words in sets if len(words) >= SITUATION_WORDS}
    expected = {
        (firsts[one], firsts[other])
        for one, other in combinations(firsts, 2)
        if len(one & other) / len(one | other) >= SITUATION_OVERLAP
    }
    assert {pair for pair, _ in _overlapping(sets)} == expected


# ------------------------------------------------------------------------------------------------------- retellings


def edited(text: str, rate: float, words: Sequence[str], rng: random.Random) -> str:
    """A text with words left out and replaced, ``rate`` of them in all."""
    kept = []
    for word in text.split():
        draw = rng.random()
        if draw >= rate / 2:
            kept.append(rng.choice(words) if draw < rate else word)
    return " ".join(kept)


def retold(
    conversation: Conversation, rate: float, replaced: float, others: Sequence[str], rng: random.Random
) -> Conversation:
    """The same story: the situation and utterances edited, some utterances replaced by another seeker's."""
    words = " ".join(others).split()
    turns = [
        turn
        if turn.speaker == "supporter"
        else replace(
            turn,
            text=rng.choice(others) if rng.random() < replaced else edited(turn.text or "", rate, words, rng),
        )
        for turn in conversation.turns
    ]
    return replace(conversation, turns=turns, situation=edited(conversation.situation or "", rate, words, rng))


def found_among(
    conversations: list[Conversation], count: int, change: Callable[[Conversation, random.Random], Conversation]
) -> int:
    """How many of ``count`` conversations are found again after a change."""
    rng = random.Random(1)
    chosen = rng.sample(range(len(conversations)), count)
    found = pairs(*conversations, *(change(conversations[number], rng) for number in chosen))
    expected = {(number, len(conversations) + place) for place, number in enumerate(chosen)}
    return len(expected & {(pair.first, pair.second) for pair in found})


def seekers(conversations: list[Conversation]) -> list[str]:
    return [turn.text or "" for each in conversations for turn in each.trunk if turn.speaker == "seeker"]


def test_retellings_of_the_starter_corpus_are_found_and_nothing_else() -> None:
    corpus = load_corpus("starter")
    conversations = [*corpus.train, *corpus.valid, *corpus.test]
    assert pairs(*conversations) == []
    others = seekers(conversations)
    assert found_among(conversations, 20, lambda each, rng: retold(each, 0.2, 0.3, others, rng)) == 20


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("rate", "replaced", "least"), [(0.1, 0.5, 60), (0.2, 0.3, 60), (0.3, 0.3, 58), (0.2, 0.7, 54), (0.4, 0.5, 45)]
)
def test_retellings_of_esconv_are_found(rate: float, replaced: float, least: int, data_dir: Path) -> None:
    conversations = read_corpus(data_dir / "esconv/train.json")
    others = seekers(conversations)
    assert found_among(conversations, 60, lambda each, rng: retold(each, rate, replaced, others, rng)) >= least


@pytest.mark.corpus
def test_train_against_valid_is_quiet_and_train_knows_its_retellings(data_dir: Path) -> None:
    """Every group of these was read: the same person tells of the same firm, beer, finals, boyfriend, ..."""
    parts = [read_corpus(data_dir / f"esconv/{part}.json") for part in ("train", "valid")]
    names = [each.id.removeprefix("esconv-") for part in parts for each in part]
    found = {(names[pair.first], names[pair.second]) for pair in pairs(*parts[0], *parts[1])}
    valid = {each.id.removeprefix("esconv-") for each in parts[1]}
    assert [pair for pair in found if len(valid & {*pair}) == 1] == []
    assert len([pair for pair in found if not valid & {*pair}]) == 32
    told = ["465 466", "472 499", "510 528", "522 532", "564 693", "609 828", "320 326", "598 635", "633 640", "3 18"]
    assert {(one, other) for one, other in map(str.split, told)} <= found
