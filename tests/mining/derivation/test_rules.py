"""Derivation without a model: what people said is cut, told on and opened, word by word."""

from itertools import pairwise
from random import Random
from typing import Any, Final

import pytest

from esckit.conversation import Conversation
from esckit.corpora import load_corpus
from esckit.mining.derivation.dialogue import dialogue_by_rules
from esckit.mining.derivation.exchanges import PHASES, exchanges_of, supporter_text
from esckit.mining.derivation.experiences import experiences_by_rules
from esckit.mining.derivation.options import DerivationOptions, Filters
from esckit.mining.derivation.rules import rules_in
from esckit.mining.derivation.sources import Source, read_source, roles_for
from esckit.mining.derivation.style import style_by_rules
from esckit.mining.derivation.words import in_common, likenesses
from esckit.roles.telling import TellingOptions
from esckit.strategy import ESCONV
from tests.mining.derivation.talks import bank, question, role, talk, tree

MOLE: Final = role("mole")


def made(source: Source, filters: Filters | None = None) -> tuple[list[str], list[str], list[str | None]]:
    """Seekers' own turns, supporter's turns and labels of what the rules make of a question."""
    found = dialogue_by_rules(source, filters or Filters(), ESCONV, Random(0))
    return (
        [each.seeker for each in found if not each.stock],
        [each.supporter for each in found],
        [each.strategy for each in found],
    )


def of(conversation: Conversation) -> Source:
    source = read_source(conversation, DerivationOptions())
    assert isinstance(source, Source)
    return source


def test_a_question_is_told_and_answered_word_by_word() -> None:
    start = question()
    seekers, supporters, _ = made(of(start))
    assert " ".join(seekers) == str(start.turns[0].text).replace("\n", " ")
    explore = rules_in("en").explore
    assert " ".join(text for text in supporters if text not in explore) == start.turns[1].text
    assert sum(text in explore for text in supporters) == 2, "what stands between the parts of the question"
    assert len(supporters) == 10


def test_a_long_description_is_told_in_two_turns_and_a_chinese_one_is_cut_at_its_marks() -> None:
    asked = "为什么姐姐不打电话？\n我们五月份吵了一架，说了很多难听的话。"
    asked += "从那以后她再也没有给我打过电话，我每天都在等她的消息！"
    answer = "".join(f"这是回答里的第{number}句话，说得慢一点。" for number in "一二三四五六七八九")
    source = of(question(asked, answer, "zh"))
    seekers, supporters, _ = made(source)
    assert len(seekers) == 3
    assert "".join(seekers) == asked.replace("\n", "")
    explore = rules_in("zh").explore
    assert "".join(text for text in supporters if text not in explore) == answer
    phases = [each.phase for each in dialogue_by_rules(source, Filters(), ESCONV, Random(0))]
    assert phases == sorted(phases, key=PHASES.index)
    assert {*phases} == {*PHASES}


def test_strategies_are_those_of_labelled_spans() -> None:
    sentences = [f"Sentence number {number} says a little more." for number in range(8)]
    answer = " ".join(sentences)
    kinds = ("Approval and Reassurance", "Interpretation", "Direct Guidance", "Restatement")
    ends = [answer.index(sentences[number]) for number in (2, 4, 6)] + [len(answer)]
    spans = [{"start": s, "end": e, "type": kind} for s, e, kind in zip([0, *ends], ends, kinds, strict=False)]
    *_, labels = made(of(question(answer=answer, labels_sequence=spans)))
    assert labels[2:] == [
        *["Affirmation and Reassurance"] * 2,
        *["Information"] * 2,
        *["Providing Suggestions"] * 2,
        *["Restatement or Paraphrasing"] * 2,
    ]


@pytest.mark.parametrize(
    ("language", "text", "label"),
    [
        ("en", "How long has this been going on?", "Question"),
        ("en", "You could write her a short letter.", "Providing Suggestions"),
        ("en", "It is okay, and you are not alone.", "Affirmation and Reassurance"),
        ("en", "That sounds painful.", "Reflection of feelings"),
        ("en", "So you wait for her call every night.", "Restatement or Paraphrasing"),
        ("en", "Hello there.", "Others"),
        ("en", "I used to wait like that, too.", "Self-disclosure"),
        ("en", "Silence has many reasons.", "Information"),
        ("zh", "这样多久了？", "Question"),
        ("zh", "你不妨给她写一封短信。", "Providing Suggestions"),
        ("zh", "相信你会越来越好。", "Affirmation and Reassurance"),
        ("zh", "我能理解你的心情。", "Reflection of feelings"),
        ("zh", "你提到姐姐一直没有消息。", "Restatement or Paraphrasing"),
        ("zh", "不客气。", "Others"),
        ("zh", "我自己曾经也等过。", "Self-disclosure"),
        ("zh", "沉默有很多原因。", "Information"),
    ],
)
def test_a_reply_without_a_strategy_gets_the_one_that_its_words_point_to(language: str, text: str, label: str) -> None:
    assert rules_in(language).strategy_of(text) == label


def test_a_dialogue_keeps_its_strategies_and_gets_those_that_it_lacks() -> None:
    said = tuple(each._replace(strategy=None) if place == 0 else each for place, each in enumerate(talk()))
    found = dialogue_by_rules(of(tree(said)), Filters(), ESCONV, Random(0))
    assert [each.strategy for each in found[1:]] == [each.strategy for each in said[1:]]
    assert found[0].strategy in ESCONV.labels
    assert supporter_text(found) == supporter_text(said)


def test_a_dialogue_is_cut_and_the_rest_is_counted() -> None:
    said = talk() + talk()
    source = of(tree(said))
    assert (len(source.talk), source.cut) == (10, 6)
    assert source.talk == said[:10]


def test_a_starter_dialogue_begins_with_the_seeker_and_joins_what_one_says_in_a_row() -> None:
    start = next(each for each in load_corpus("starter").train if each.trunk[0].speaker == "supporter")
    found = exchanges_of(start)
    assert found[0].seeker.startswith(str(next(t.text for t in start.trunk if t.speaker == "seeker")))
    told = {turn.text for turn in start.trunk}
    assert {line for each in found for line in (each.seeker + "\n" + each.supporter).split("\n")} <= told


def test_the_experience_that_is_most_like_what_the_seeker_said_is_told_as_a_story() -> None:
    found = experiences_by_rules(talk(), MOLE, "en", TellingOptions(most=1))
    (place,) = [place for place, each in enumerate(found) if each.experience]
    assert (place, found[place].experience) == (3, "mole-1"), (
        "the one with a phone and a sister, not in the first third"
    )
    assert found[place].supporter.startswith(talk()[place].supporter)
    assert "In the story of Mole" in found[place].supporter
    assert [each.seeker for each in found] == [each.seeker for each in talk()]
    others = [each for at, each in enumerate(found) if at != place]
    assert others == [each for at, each in enumerate(talk()) if at != place]


def test_a_story_takes_the_place_of_a_life_that_the_role_has_not() -> None:
    said = talk(labels=("Question",) * 5 + ("Information", "Self-disclosure", "Others"))
    found = experiences_by_rules(said, MOLE, "zh", TellingOptions(most=1))
    assert found[5] == said[5], "the place before it has to wait"
    assert found[6].experience
    assert said[6].supporter not in found[6].supporter
    assert "鼹鼠mole的故事" in found[6].supporter


def test_no_more_is_told_than_allowed_and_nothing_twice() -> None:
    said = talk(labels=("Information",) * 10)
    found = experiences_by_rules(said, MOLE, "en", TellingOptions(most=5, every=2))
    told = [each.experience for each in found if each.experience]
    assert len(told) == len({*told}) == 3, "it has no more"
    places = [place for place, each in enumerate(found) if each.experience]
    assert all(other - one >= 2 for one, other in pairwise(places))


def test_the_style_opens_with_the_roles_phrases_each_once() -> None:
    found = style_by_rules(talk(), MOLE, "en", Random(0))
    opened = [each.supporter for each in found if each.supporter.startswith("Digging on, ")]
    assert len(opened) == 1, "it has one phrase"
    assert [each.seeker for each in found] == [each.seeker for each in talk()]
    own = talk(labels=("Self-disclosure",) * 8)
    assert style_by_rules(own, MOLE, "en", Random(0)) == own, "somebody's own life is no story of the role"


def test_roles_by_topic_by_likeness_all_drawn_and_named() -> None:
    three = bank("otter", "wren", "mole")
    source = of(question())

    def names(**given: Any) -> list[str]:
        return [each.name for each in roles_for(source, three, DerivationOptions(**given), 0)]

    assert names() == ["mole"], "the first keyword"
    assert names(roles="all") == ["otter", "wren", "mole"]
    assert names(roles=("wren",)) == ["wren"]
    drawn = {
        tuple(each.name for each in roles_for(source, three, DerivationOptions(roles=2), seed)) for seed in range(9)
    }
    assert all(len({*each}) == 2 for each in drawn)
    assert len(drawn) > 1
    unknown = of(tree(talk()))
    assert roles_for(unknown, three, DerivationOptions(), 0)[0].name == "otter", (
        "no topic: the likest, of equal ones the first"
    )


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("a b c d", "A, b; c d!", 1.0),
        ("a b c d", "a b c e", 1 / 3),
        ("a b c", "d e f", 0.0),
        ("我等了很久", "我等了很多", 1 / 2),
        ("", "", 1.0),
    ],
)
def test_runs_in_common(one: str, other: str, share: float) -> None:
    assert in_common(one, other) == pytest.approx(share)


def test_likeness_counts_rare_words_more() -> None:
    texts = ["the sister and the phone", "the river and the boat", "the hill"]
    alike = likenesses("the phone of my sister", texts)
    assert max(range(3), key=alike.__getitem__) == 0
    assert all(0 <= each <= 1.0000001 for each in alike)
    assert likenesses("姐姐的电话", ["姐姐没打电话", "河边的船"])[0] > 0
    assert likenesses("", texts) == [0.0] * 3
