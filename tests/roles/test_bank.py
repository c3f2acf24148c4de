"""A bank of a user's own: read, refused in one sentence, saved again."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from esckit.errors import RoleError
from esckit.roles import EMOTIONS, RoleBank, read_bank, save_bank
from tests.cli.test_entry import call

Change = Callable[[dict[str, Any]], object]


def role(name: str = "sailor", languages: tuple[str, ...] = ("en", "zh")) -> dict[str, Any]:
    """A role as a file has it."""
    texts = {key: f"{key} of {name}" for key in ("title", "profile", "background", "style", "guide")}
    return {
        "format": 1,
        "name": name,
        "topics": [f"topic of {name}"],
        **{language: texts | {"phrases": {"Question": ["Tell me."]}} for language in languages},
        "experiences": [
            {"id": f"{name}-{place}", "scores": dict.fromkeys(EMOTIONS, place)}
            | {language: f"I sailed {place} times ({language})." for language in languages}
            for place in (1, 2)
        ],
    }


def write(folder: Path, *roles: dict[str, Any], **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for value in roles:
        text = yaml.safe_dump(value, allow_unicode=True)
        (folder / f"{value.get('name')}.yaml").write_text(text, encoding="utf-8")
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_bank_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    bank = read_bank(write(tmp_path / "bank", role("sailor"), first=yaml.safe_dump(role("zoologist"))))
    assert bank.names == ("sailor", "zoologist")
    assert bank.languages == ("en", "zh")
    sailor = bank.role("sailor")
    assert sailor.style["zh"] == "style of sailor"
    assert sailor.phrases["en"] == {"Question": ("Tell me.",)}
    assert sailor.experience("sailor-2").text("zh") == "I sailed 2 times (zh)."
    assert sailor.experience("sailor-2").scores == (2,) * 8
    assert bank.of_topic(" Topic of SAILOR ") == sailor
    assert bank.of_topic("weather") is None


def test_scores_are_in_the_order_of_the_emotions_however_the_file_has_them(tmp_path: Path) -> None:
    value = role()
    value["experiences"][0]["scores"] = {emotion: place + 1 for place, emotion in enumerate(EMOTIONS)}
    bank = read_bank(write(tmp_path / "bank", value))
    assert bank.roles[0].experiences[0].scores == (1, 2, 3, 4, 5, 6, 7, 8)


def test_a_bank_in_chinese_alone_is_fine(tmp_path: Path) -> None:
    bank = read_bank(write(tmp_path / "bank", role(languages=("zh",))))
    assert bank.languages == ("zh",)
    bank.refuse_language("zh")
    with pytest.raises(RoleError, match=r"no texts in 'en' for sailor: write them, or take dialogues in .*\(zh\)"):
        bank.refuse_language("en")


def test_a_saved_bank_is_read_back_the_same(tmp_path: Path) -> None:
    bank = read_bank()
    save_bank(bank, tmp_path / "copy")
    again = read_bank(tmp_path / "copy")
    assert again == bank
    assert again.digest == bank.digest
    assert again.source != bank.source
    smaller = read_bank(write(tmp_path / "own", role()))
    save_bank(smaller, tmp_path / "copy")
    assert read_bank(tmp_path / "copy") == smaller


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    value = role()
    one = read_bank(write(tmp_path / "one", value)).digest
    (tmp_path / "two").mkdir()
    (tmp_path / "two/other name.yml").write_text(json.dumps(value | {"name": "sailor"}), encoding="utf-8")
    assert read_bank(tmp_path / "two").digest == one
    value["en"]["title"] += "\n"
    assert read_bank(write(tmp_path / "one", value)).digest == one
    value["experiences"][0]["scores"]["joy"] = 9
    assert read_bank(write(tmp_path / "one", value)).digest != one


def test_the_digest_does_not_hang_on_the_order_of_roles() -> None:
    bank = read_bank()
    assert RoleBank(bank.roles[::-1]).digest == bank.digest


def test_names_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    bank = read_bank(write(tmp_path / "bank", role("sailor"), role("baker")))
    with pytest.raises(RoleError, match=r"has no role 'king': take one of baker, sailor\."):
        bank.role("king")
    with pytest.raises(RoleError, match=r"role baker has no experience 'x': take one of baker-1, baker-2\."):
        bank.role("baker").experience("x")


BAD: Final[dict[str, tuple[Change, str]]] = {
    "no experiences": (lambda it: it.pop("experiences"), "experiences: has none: give the role at least one"),
    "empty experiences": (lambda it: it.update(experiences=[]), "experiences: has none"),
    "one id twice": (lambda it: it["experiences"][1].update(id="sailor-1"), "two experiences have the id 'sailor-1'"),
    "no id": (lambda it: it["experiences"][1].pop("id"), "experience 2: id: is None: take a short id"),
    "no scores": (lambda it: it["experiences"][0].pop("scores"), "experience sailor-1: scores: is no mapping"),
    "a score missing": (
        lambda it: it["experiences"][0]["scores"].pop("anger"),
        "experience sailor-1: scores: has no anger: score all of joy",
    ),
    "a score too high": (
        lambda it: it["experiences"][0]["scores"].update(joy=11),
        "experience sailor-1: scores: joy is 11: give a whole number from 1 to 10",
    ),
    "a score too low": (lambda it: it["experiences"][0]["scores"].update(joy=0), "joy is 0: give a whole number"),
    "a negative score": (lambda it: it["experiences"][0]["scores"].update(joy=-3), "joy is -3: give a whole number"),
    "half a score": (lambda it: it["experiences"][0]["scores"].update(joy=2.5), "joy is 2.5: give a whole number"),
    "a score in words": (lambda it: it["experiences"][0]["scores"].update(joy="much"), "joy is much: give a whole"),
    "a score that is yes": (lambda it: it["experiences"][0]["scores"].update(joy=True), "joy is true: give a whole"),
    "an unknown emotion": (
        lambda it: it["experiences"][0]["scores"].update(hope=3),
        "hope is unknown: take one of joy",
    ),
    "an unknown field": (lambda it: it.update(hobbies="x"), "hobbies: is no field of a role: take format, name"),
    "an unknown text": (lambda it: it["en"].update(motto="x"), "en: motto is unknown: take one of title"),
    "an unknown field of an experience": (
        lambda it: it["experiences"][0].update(mood="x"),
        "experience 1: mood is unknown: take one of id, scores",
    ),
    "a text missing in a language": (lambda it: it["zh"].pop("guide"), "zh.guide: is missing"),
    "an empty text": (lambda it: it["zh"].update(guide="  "), "zh.guide: is no text"),
    "a list for a text": (lambda it: it["zh"].update(guide=["a"]), "zh.guide: is no text"),
    "an experience without a language": (
        lambda it: it["experiences"][1].pop("zh"),
        "experience sailor-2: zh: is missing: every text of a role stands in each of its languages",
    ),
    "no language": (lambda it: [it.pop("en"), it.pop("zh")], "has no texts: put them under the language"),
    "a language without texts": (lambda it: it.update(zh=None), "zh: is no mapping"),
    "no name": (lambda it: it.pop("name"), "name: is None: take a short id"),
    "a long name": (lambda it: it.update(name="Der alte Seemann"), "name: is 'Der alte Seemann': take a short id"),
    "a Chinese name": (lambda it: it.update(name="水手"), "name: is '水手': take a short id"),
    "an unknown strategy": (
        lambda it: it["en"]["phrases"].update(Hypnosis=["Sleep."]),
        "en.phrases: Hypnosis is unknown: take one of Question",
    ),
    "one phrase, not a list": (
        lambda it: it["en"]["phrases"].update(Question="Tell me."),
        "en.phrases.Question: is no list",
    ),
    "topics that are no list": (lambda it: it.update(topics="love"), "topics: is no list"),
    "another format": (lambda it: it.update(format=2), "format: is '2': this version of esckit reads format: 1"),
    "no format": (lambda it: it.pop("format"), "format: is None"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_role_is_told(case: str, tmp_path: Path) -> None:
    change, sentence = BAD[case]
    value = role()
    change(value)
    (tmp_path / "sailor.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    with pytest.raises(RoleError, match=re.escape(sentence)) as caught:
        read_bank(tmp_path)
    assert str(tmp_path / "sailor.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


FILES: Final = {
    "no YAML": (b"name: [1\nformat: 1", r"sailor.yaml:2 is not YAML \(.*\): correct it"),
    "a colon in a text": (b"format: 1\ntitle: one: two", r"sailor.yaml:2 is not YAML \(mapping values"),
    "a field twice": (b"format: 1\nname: a\nname: b", r"sailor.yaml:3 is not YAML \(name stands twice\)"),
    "a strange character": (b"name: \x07", r"sailor.yaml is not YAML \(unacceptable character"),
    "a list as a key": (b"? [a]\n: b", r"sailor.yaml:1 is not YAML \(found unhashable key\)"),
    "two documents": (b"a: b\n---\na: b", r"sailor.yaml:2 is not YAML \(but found another document\)"),
    "a list": (b"- 1", "is no mapping: a role has fields"),
    "nothing": (b"", "is no mapping: a role has fields"),
    "not UTF-8": ("format: 1\nname: Lü".encode("latin-1"), r"is not UTF-8 text \(byte 17\): save it as UTF-8"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_role_is_told(case: str, tmp_path: Path) -> None:
    content, sentence = FILES[case]
    (tmp_path / "sailor.yaml").write_bytes(content)
    with pytest.raises(RoleError, match=sentence) as caught:
        read_bank(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_roles_of_one_name_or_topic_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "bank", role(), a=yaml.safe_dump(role()))
    with pytest.raises(RoleError, match=r"a\.yaml and .*sailor\.yaml are both named 'sailor': rename one"):
        read_bank(folder)
    folder = write(tmp_path / "topics", role(), role("baker") | {"topics": ["Topic of sailor"]})
    with pytest.raises(RoleError, match=r"baker\.yaml and .*sailor\.yaml both have the topic 'topic of sailor'"):
        read_bank(folder)


def test_a_place_without_roles_is_told(tmp_path: Path) -> None:
    with pytest.raises(RoleError, match=r"has no roles: put a YAML file for each role into it"):
        read_bank(tmp_path)
    with pytest.raises(RoleError, match=r"nowhere does not exist: a role bank is a folder of YAML files"):
        read_bank(tmp_path / "nowhere")
    (tmp_path / "x.yaml").touch()
    with pytest.raises(RoleError, match=r"x\.yaml is a file: a role bank is a folder"):
        read_bank(str(tmp_path / "x.yaml"))


def test_the_command_tells_what_a_bank_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "bank", role("sailor"), role("baker", ("zh",)))
    assert call(monkeypatch, "check", "bank", folder) == 0
    assert "title of sailor" in capsys.readouterr().out
    assert call(monkeypatch, "check", "bank", folder, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["digest"] == read_bank(folder).digest
    assert told["roles"][0] == {"name": "baker", "languages": ["zh"], "topics": ["topic of baker"], "experiences": 2}
    assert call(monkeypatch, "check", "bank", tmp_path / "none") == 2
    assert "does not exist" in capsys.readouterr().err
