"""Rounds: a block of stages that a recipe repeats, written out as plain stages before anything reads them."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from pydantic import ConfigDict, Field

from esckit.errors import RecipeError
from esckit.recipes.stage import Keys, Stage

Raw = dict[str, Any]
"""A stage or a block as YAML has it."""


class Repeat(Keys):
    """A block of stages, done several times.

    Names of the block's stages get the round's number (``dpo-2``). In the block, the name of a stage that stands
    earlier in it means this round's; its own or a later one's means the previous round's. After the block, it means the
    last round's, and in a list ``NAME-*`` means every round's.

    Attributes:
        name: for ``--set NAME.times=5``; it is no stage.
        times: how many rounds.
        start: by name of a block's stage, what stands for it before the first round: another stage, or null, and then
            the key that names it is left out.
        stages: of one round.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    times: int = Field(ge=1, le=1000)
    start: dict[str, str | None] = Field(default_factory=dict)
    stages: list[dict[str, Any]] = Field(min_length=1)


def plain_names(stages: Iterable[Any]) -> dict[str, Raw]:
    """Stages by name as they stand in the file, those of blocks among them, and blocks that have a name."""
    found: dict[str, Raw] = {}
    for stage in stages:
        if not isinstance(stage, dict):
            continue
        block = stage.get("repeat", stage)
        if isinstance(block, dict) and isinstance(block.get("name"), str):
            found[block["name"]] = block
        if isinstance(block, dict) and isinstance(block.get("stages"), list):
            found |= plain_names(block["stages"])
    return found


def write_out(stages: list[Any], kinds: Iterable[type[Stage]], check: Callable[[Any], Repeat]) -> list[Any]:
    """Write every block out as plain stages; ``check`` validates a block, and refuses a wrong one in a sentence.

    Raises:
        RecipeError: a block reads what is not there in its first round, or holds another block.
    """
    reads = {kind.kind(): kind.reads for kind in kinds}
    plain: list[Any] = []
    last: dict[str, str] = {}  # what the plain names of blocks mean after them
    every: dict[str, list[str]] = {}  # what NAME-* means after them
    for stage in stages:
        if not (isinstance(stage, dict) and "repeat" in stage):
            plain.append(_renamed(stage, reads, every, partial(_after, last)))
            continue
        if stage.keys() != {"repeat"}:
            raise RecipeError("what belongs to a repeat block stands below repeat: indent its keys further.")
        block = check(stage)
        if any("repeat" in each for each in block.stages):
            raise RecipeError("a repeat block holds another one: repeat plain stages, or write a round out.")
        names = [each.get("name") for each in block.stages]
        if unknown := sorted(block.start.keys() - set(names)):
            raise RecipeError(f"repeat.start names {unknown[0]!r}, and no stage of the block is called so.")
        for turn in range(1, block.times + 1):
            for place, each in enumerate(block.stages):
                meaning = _meaning(block, names, place, turn, last)
                named = {"name": f"{each['name']}-{turn}"} if "name" in each else {}
                plain.append({**_renamed(each, reads, every, meaning), **named})
        last |= {str(name): f"{name}-{block.times}" for name in names}
        every |= {f"{name}-*": [f"{name}-{turn}" for turn in range(1, block.times + 1)] for name in names}
    return plain


def _after(last: Mapping[str, str], name: str) -> str:
    """What a name means where no block is at hand."""
    return last.get(name, name)


def _meaning(
    block: Repeat, names: list[Any], place: int, turn: int, last: Mapping[str, str]
) -> Callable[[str], str | None]:
    """What a name means to the stage at a place of the block, in a round from 1 on; None is nothing."""

    def meaning(name: str) -> str | None:
        if name not in names:
            return _after(last, name)
        if names.index(name) < place:
            return f"{name}-{turn}"
        if turn > 1:
            return f"{name}-{turn - 1}"
        if name not in block.start:
            raise RecipeError(
                f"stage {names[place]!r} reads {name!r} of the round before, and there is none before the first: say "
                f"under repeat.start what stands for {name!r} then, a stage's name or null."
            )
        before = block.start[name]
        return before and _after(last, before)

    return meaning


def _renamed(
    stage: Any,
    reads: Mapping[str, Mapping[str, Any]],
    every: Mapping[str, list[str]],
    meaning: Callable[[str], str | None],
) -> Any:
    """A stage whose references have their meanings; a key that then names nothing is left out."""
    if not isinstance(stage, dict):
        return stage
    renamed = dict(stage)
    for key in reads.get(str(stage.get("stage")), {}):
        value = stage.get(key)
        if isinstance(value, str):
            renamed[key] = meaning(value)
        elif isinstance(value, list):
            names = [name for each in value for name in every.get(str(each), [each])]
            renamed[key] = [told for each in names if (told := meaning(each) if isinstance(each, str) else each)]
        if key in renamed and renamed[key] is None:
            del renamed[key]
    return renamed
