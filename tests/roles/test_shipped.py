"""The nine roles that come with esckit, the held-out pairs, and the roles of the starter corpus."""

import re
from collections import Counter
from typing import Final

import pytest

from esckit.conversation import Conversation
from esckit.corpora import load_corpus
from esckit.corpora.starter import starter_roles
from esckit.roles import EMOTIONS, Experience, read_bank
from esckit.roles.pairs import Pair, read_pairs
from esckit.strategy import ESCONV

BANK: Final = read_bank()
PAIRS: Final = read_pairs()
PSYQA: Final = ("自我成长", "情绪", "恋爱", "人际", "行为", "家庭", "治疗", "婚姻", "职业")
ESCONV_PROBLEMS: Final = (
    *("ongoing depression", "job crisis", "breakup with partner", "problems with friends", "academic pressure"),
    *("Sleep Problems", "Procrastination", "conflict with parents", "Alcohol Abuse", "Appearance Anxiety"),
    *("Issues with Children", "Issues with Parents", "School Bullying"),
)
WORD: Final = re.compile(r"[a-z']+")


def test_each_topic_of_psyqa_has_a_role_of_its_own() -> None:
    found = [BANK.of_topic(topic) for topic in PSYQA]
    assert [role.name for role in found if role] == [*dict.fromkeys(role.name for role in found if role)]
    assert {role.name for role in found if role} == set(BANK.names)
    assert len(BANK.names) == 9


def test_every_problem_type_of_starter_and_esconv_has_a_role() -> None:
    starter = {conversation.labels["problem_type"] for conversation in _starter()}
    assert [problem for problem in (*starter, *ESCONV_PROBLEMS) if BANK.of_topic(problem) is None] == []


@pytest.mark.parametrize("name", BANK.names)
def test_a_role_is_complete_in_both_languages(name: str) -> None:
    role = BANK.role(name)
    assert role.languages == ("en", "zh")
    assert len(role.experiences) >= 20
    for language in role.languages:
        phrases = role.phrases[language]
        assert len(phrases.keys() & set(ESCONV.labels)) >= 5
        assert phrases.keys() == role.phrases["en"].keys()
        assert {label: len(openers) for label, openers in phrases.items() if not 4 <= len(openers) <= 8} == {}
        openers = [opener for each in phrases.values() for opener in each]
        assert len(openers) == len(set(openers))
    chinese = [role.titles, role.profile, role.background, role.style, role.guide]
    assert [texts["zh"] for texts in chinese if not re.search(r"[\u4e00-\u9fff]", texts["zh"])] == []
    assert [texts["en"] for texts in chinese if re.search(r"[\u4e00-\u9fff]", texts["en"])] == []


@pytest.mark.parametrize("name", BANK.names)
def test_experiences_have_the_length_and_the_person_that_prompts_expect(name: str) -> None:
    experiences = BANK.role(name).experiences
    assert [each.id for each in experiences if not 40 <= len(each.text("en").split()) <= 90] == []
    assert [each.id for each in experiences if not 60 <= len(each.text("zh")) <= 140] == []
    assert [each.id for each in experiences if not re.search(r"\b(I|me|my)\b", each.text("en"))] == []
    assert [each.id for each in experiences if "我" not in each.text("zh")] == []
    assert [each.id for each in experiences if "\n" in each.text("en") + each.text("zh")] == []
    assert [each.id for each in experiences if re.search(r"[a-zA-Z\s]", each.text("zh"))] == []


@pytest.mark.parametrize("name", BANK.names)
def test_experiences_of_a_role_differ_in_what_is_felt(name: str) -> None:
    """Else retrieval by feelings could not tell them apart."""
    experiences = BANK.role(name).experiences
    patterns = Counter(each.scores for each in experiences)
    assert max(patterns.values()) == 1
    assert len({_strongest(each) for each in experiences}) >= 5
    assert [each.id for each in experiences if max(each.scores) < 6] == []
    assert [each.id for each in experiences if sum(score <= 4 for score in each.scores) < 4] == []


def test_ids_are_once_in_the_bank_and_titles_too() -> None:
    ids = Counter(each.id for role in BANK.roles for each in role.experiences)
    assert max(ids.values()) == 1
    assert len({role.titles["zh"] for role in BANK.roles}) == len(BANK.roles)


def test_openers_are_of_one_role_alone() -> None:
    """So that a role can be heard."""
    for language in BANK.languages:
        openers = Counter(text for role in BANK.roles for each in role.phrases[language].values() for text in each)
        assert [text for text, count in openers.items() if count > 1] == []


def test_pairs_name_experiences_of_the_bank_ten_a_role() -> None:
    assert all(BANK.role(pair.role).experience(pair.experience) for pair in PAIRS)
    assert len({pair.experience for pair in PAIRS}) == len(PAIRS)
    counts = Counter(pair.role for pair in PAIRS)
    assert set(counts) == set(BANK.names)
    assert min(counts.values()) >= 10


def test_pairs_are_in_both_languages() -> None:
    assert {tuple(pair.said) for pair in PAIRS} == {("en", "zh")}
    assert [pair.experience for pair in PAIRS if not 30 <= len(pair.said["en"].split()) <= 70] == []
    assert [pair.experience for pair in PAIRS if not 40 <= len(pair.said["zh"]) <= 140] == []


def test_pairs_do_not_repeat_the_words_of_their_experience() -> None:
    """A search for common words would find it then, and nothing about feelings would be measured."""
    assert [pair.experience for pair in PAIRS if _runs(pair, "en", 5)] == []
    assert [pair.experience for pair in PAIRS if _runs(pair, "zh", 7)] == []


def test_each_starter_dialogue_has_a_role_or_none() -> None:
    roles, conversations = starter_roles(), _starter()
    assert roles.keys() == {conversation.id for conversation in conversations}
    assert set(roles.values()) - {None} == set(BANK.names)
    by_topic = {each.id: BANK.of_topic(str(each.labels["problem_type"])) for each in conversations}
    others = [id for id, name in roles.items() if name and (role := by_topic[id]) and role.name != name]
    assert len(others) >= len(conversations) / 5


def _starter() -> list[Conversation]:
    corpus = load_corpus("starter")
    return [*corpus.train, *corpus.valid, *corpus.test]


def _strongest(experience: Experience) -> str:
    return EMOTIONS[experience.scores.index(max(experience.scores))]


def _runs(pair: Pair, language: str, length: int) -> set[tuple[str, ...]]:
    """Runs of words (of characters, in Chinese) that the person's text has in common with the experience's."""
    told = BANK.role(pair.role).experience(pair.experience).text(language)
    one, other = (_tokens(text, language) for text in (pair.said[language], told))
    return _grams(one, length) & _grams(other, length)


def _tokens(text: str, language: str) -> list[str]:
    return re.findall(r"[\u4e00-\u9fff]", text) if language == "zh" else WORD.findall(text.lower())


def _grams(tokens: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(tokens[at : at + length]) for at in range(len(tokens) - length + 1)}
