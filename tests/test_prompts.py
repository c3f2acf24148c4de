"""Prompts are files with slots, and a prompt is never sent with a slot unfilled."""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

import pytest

from esckit.errors import EsckitError
from esckit.prompts import load_prompt


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
    prompt = load_prompt(method, name, **slots)
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


def test_a_value_is_taken_verbatim_whatever_it_holds() -> None:
    value = r"{{strategies}} {{other}} {} %s \1 \g<0>"
    assert value in load_prompt("support", "system", strategies=value)
