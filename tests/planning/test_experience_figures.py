"""hit@1 of experiences on held-out pairs."""

from pathlib import Path

import pytest

from esckit.errors import RoleError
from esckit.planning.experience_figures import experience_figures, read_own_pairs
from esckit.planning.matcher_fitting import train_matcher
from esckit.planning.role_matcher import RoleMatcher
from esckit.roles.pairs import Pair
from tests.roles.little import STORIES, little_bank

SAID = {
    "joy": ("I am so glad", "我太高兴了"),
    "fear": ("I am terrified", "我好害怕"),
    "anger": ("He lied, I am angry", "我气死了"),
}


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> RoleMatcher:
    folder = tmp_path_factory.mktemp("matcher")
    train_matcher([], little_bank(), None, folder)
    return RoleMatcher.load(folder)


def pairs() -> list[Pair]:
    return [
        Pair(role, f"{role}-{emotion}", {"en": english, "zh": chinese})
        for role in STORIES
        for emotion, (english, chinese) in SAID.items()
    ]


def test_emotions_find_what_words_do_not(matcher: RoleMatcher) -> None:
    found = experience_figures(matcher, pairs(), tolerance=0.0)
    assert [*found] == ["en", "zh"]
    for language in found.values():
        assert [*language] == ["as told", "emotions alone", "words alone", "chance"]
        assert language["chance"] == {"n": 9, "hit": 0.25}
        assert language["as told"]["hit"] == language["emotions alone"]["hit"] > 0.6
        low, high = language["emotions alone"]["interval"]
        assert low <= language["emotions alone"]["hit"] <= high


def test_the_tolerance_goes_from_emotions_to_words(matcher: RoleMatcher) -> None:
    storm = [Pair("captain", "captain-joy", {"en": "With ship and storm I was sad, sad"})]
    assert experience_figures(matcher, storm, tolerance=2.0)["en"]["as told"]["hit"] == 0
    sad = [Pair("captain", "captain-sadness", {"en": "With ship and storm I was sad, sad"})]
    assert experience_figures(matcher, sad, tolerance=2.0)["en"]["words alone"]["hit"] == 1


def test_pairs_of_one_s_own_are_read_and_checked(matcher: RoleMatcher, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"role": "captain", "experience": "captain-joy", "en": "glad"}\n\n', encoding="utf-8")
    assert read_own_pairs(path) == [Pair("captain", "captain-joy", {"en": "glad"})]
    for line, told in (
        ("{", "is not valid JSON"),
        ("[]", "is no pair: write"),
        ('{"role": "captain", "en": "glad", "zh": "x"}', "is no pair"),
        ('{"role": "captain", "experience": "captain-joy"}', "is no pair"),
        ('{"role": "captain", "experience": "captain-joy", "en": " "}', "is no pair"),
    ):
        path.write_text(line, encoding="utf-8")
        with pytest.raises(RoleError, match=f":1 {told}"):
            read_own_pairs(path)
    with pytest.raises(RoleError, match="has no role 'pirate'"):
        experience_figures(matcher, [Pair("pirate", "x", {"en": "y"})])
    with pytest.raises(RoleError, match="has no experience 'x'"):
        experience_figures(matcher, [Pair("captain", "x", {"en": "y"})])
