"""Prompts are files with slots, and a prompt is never sent with a slot unfilled."""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

import pytest

from esckit.errors import EsckitError
from esckit.prompts import languages_of, load_prompt, shipped_prompts


def shipped() -> list[tuple[str, str]]:
    """Method and name of every prompt that is shipped."""
    folders: list[Traversable] = [folder for folder in files("esckit.prompts").iterdir() if folder.is_dir()]
    return sorted(
        (folder.name, file.name.removesuffix(".txt"))
        for folder in folders
        for file in folder.iterdir()
        if file.name.endswith(".txt")
    )


@pytest.mark.parametrize(("method", "name"), shipped())
def test_every_shipped_prompt_is_filled_by_exactly_its_slots(method: str, name: str) -> None:
    source = files("esckit.prompts").joinpath(method, f"{name}.txt").read_text(encoding="utf-8")
    slots = {slot: f"<{slot} é>" for slot in re.findall(r"\{\{(\w+)\}\}", source)}
    name, _, language = name.partition(".")
    prompt = load_prompt(method, name, language or "en", **slots)
    assert prompt == prompt.strip()
    assert all(value in prompt for value in slots.values())
    assert "{{" not in prompt


def test_the_support_prompt_names_the_strategies() -> None:
    assert ("support", "system") in shipped()
    assert "one support strategy: Question, Others. Listen" in load_prompt(
        "support", "system", strategies="Question, Others"
    )


@pytest.mark.parametrize(
    ("slots", "named"),
    [
        ({}, "strategies"),
        ({"strategies": "Question", "persona": "a nurse"}, "persona"),
        ({"strategy": "Question"}, "strategies, strategy"),
    ],
)
def test_a_slot_too_few_or_too_many_is_refused(slots: dict[str, str], named: str) -> None:
    with pytest.raises(EsckitError) as error:
        load_prompt("support", "system", **slots)
    assert str(error.value) == f"prompt support/system and its values disagree on {named}: fill exactly its slots."


@pytest.mark.parametrize(("method", "name"), [each for each in shipped() if each[1].endswith(".zh")])
def test_a_translation_stands_beside_its_prompt_with_the_same_slots_and_is_chinese(method: str, name: str) -> None:
    texts = shipped_prompts(method)
    slots = [set(re.findall(r"\{\{(\w+)\}\}", texts[each])) for each in (name, name.removesuffix(".zh"))]
    assert slots[0] == slots[1]
    letters = re.sub(r"\{\{\w+\}\}", "", texts[name])
    assert len(re.findall(r"[\u4e00-\u9fff]", letters)) > len(re.findall(r"[a-zA-Z]", letters))


def test_a_method_that_is_translated_is_translated_whole() -> None:
    for method in {method for method, _ in shipped()}:
        names = shipped_prompts(method)
        for language in set(languages_of(method)) - {"en"}:
            english = shipped_prompts(method, ())
            assert set(names) == {*english, *(f"{name}.{language}" for name in english)}


def test_a_language_without_prompts_is_one_sentence_and_an_untranslated_method_asks_in_english(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EsckitError) as error:
        load_prompt("support", "free", "fr")
    assert str(error.value) == (
        "there are no prompts in 'fr' for support, only in en and zh: use dialogues in one of these, or give their "
        "language as one of these where it is wrong."
    )
    monkeypatch.setattr("esckit.prompts.languages_of", lambda method: ("en",))
    assert load_prompt("support", "free", "fr") == load_prompt("support", "free")


def test_a_value_is_taken_verbatim_whatever_it_holds() -> None:
    value = r"{{strategies}} {{other}} {} %s \1 \g<0>"
    assert value in load_prompt("support", "system", strategies=value)
