"""Reading recipes: shipped ones by name, files, settings of the command line; and one sentence for what is wrong."""

import difflib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from esckit.errors import RecipeError
from esckit.files import read_text
from esckit.recipes.recipe import FORMAT, Recipe
from esckit.recipes.rounds import Repeat, plain_names, write_out
from esckit.recipes.stage import Stage, TrainingStage
from esckit.recipes.stages import KINDS

Checked = TypeVar("Checked", bound=BaseModel)
_BACKBONE: Final = re.compile(r"model\.path=(?!(null|~)?\s*$)|model=.*\bpath:")  # settings that name one


class _Loader(yaml.SafeLoader):
    """YAML 1.1 but for its numbers to the base of sixty: a recipe's ``8:1:1`` is a split."""


def _number_or_ratios(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if ":" in node.value:
        return node.value
    return loader.construct_yaml_int(node) if node.tag.endswith("int") else loader.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number_or_ratios)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with esckit."""
    files = resources.files("esckit.recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_recipe(name: str, settings: Sequence[str] = (), *, kinds: Sequence[type[Stage]] = KINDS) -> Recipe:
    """Read a recipe by shipped name or path, and apply ``key=value`` settings.

    Args:
        name: a shipped name (`shipped_recipes`) or the path of a YAML file.
        settings: ``seed=1``, ``corpus.train=FILE``, ``planner.learning_rate=1e-4``: a top-level key or a stage's name,
            then keys; values are YAML. The name of a stage in a repeated block is that of all its rounds, with a
            round's number it is that round's. Where ``model.path`` takes the place of a backbone that the recipe makes,
            the recipe's rates are left out, which are that backbone's; those of settings stay.
        kinds: of stages; with kinds of your own, ``[*KINDS, MyStage]``.

    Raises:
        RecipeError: one sentence that names the key and, for an unknown one, the nearest right one.
    """
    value = _read(name, (), kinds)
    stages = value.get("stages")
    if not _names_backbone(value) and any(_BACKBONE.match(setting) for setting in settings):
        _leave_out_rates(value, kinds)
    if not isinstance(stages, list):
        for setting in settings:
            _apply(value, {}, setting)
    else:
        value["stages"] = _plain_stages(value, stages, settings, kinds)
    try:
        return Recipe.model_validate(value, context={"kinds": kinds})
    except ValidationError as error:
        raise RecipeError(_sentence(error, Recipe)) from error


def _read(name: str, inside: Sequence[str], kinds: Sequence[type[Stage]]) -> dict[str, Any]:
    """A recipe as YAML has it, what it is based on included."""
    if name in shipped_recipes():
        text = resources.files("esckit.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        text = read_text(Path(name), what="a recipe (YAML)", error=RecipeError)
    else:
        raise RecipeError(f"there is no recipe {name!r}{_nearest(name, shipped_recipes())}")
    try:
        value = _unshared(yaml.load(text, _Loader))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise RecipeError(f"{name}:{line}: not valid YAML; mend that line.") from error
    except RecursionError as error:
        raise RecipeError(f"{name}: something in it contains itself (an alias); write it out.") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{name} is not a recipe: it needs keys such as format, corpus, model and stages.")
    if value.get("format") != FORMAT:
        raise RecipeError(
            f"{name} has recipe format {value.get('format')!r}, this esckit reads format {FORMAT}: "
            "install the esckit that it was written for, or write the recipe anew."
        )
    base = value.pop("base", None)
    if base is None:
        return value
    if not isinstance(base, str) or name in inside:
        raise RecipeError(f"{name}: base is the name or the path of another recipe (given: {base!r}).")
    below = _read(base, [*inside, name], kinds)
    if _names_backbone(value) and not _names_backbone(below):
        _leave_out_rates(below, kinds)
    return _over(below, value, name)


def _unshared(value: Any) -> Any:
    """A copy in which nothing stands in two places: YAML's aliases share what they name."""
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value


def _names_backbone(value: dict[str, Any]) -> bool:
    """Whether a recipe takes a backbone that is there, and makes none."""
    model = value.get("model")
    return isinstance(model, dict) and bool(model.get("path"))


def _leave_out_rates(value: dict[str, Any], kinds: Sequence[type[Stage]]) -> None:
    """Take out a recipe's rates: they are those of the backbone that it makes, and another one takes its place."""
    trains = {kind.kind() for kind in kinds if issubclass(kind, TrainingStage)}
    stages = value.get("stages")
    for stage in plain_names(stages if isinstance(stages, list) else ()).values():
        if stage.get("stage") in trains:
            stage.pop("learning_rate", None)


def _over(base: dict[str, Any], own: dict[str, Any], name: str) -> dict[str, Any]:
    """A recipe's keys over those of its base; ``stages`` may say by name which keys of a stage are others."""
    result = {**base, **own}
    for key in base.keys() & own.keys():
        if key == "stages" and isinstance(own[key], dict):
            stages = plain_names(base[key])
            for stage, keys in own[key].items():
                if stage not in stages or not isinstance(keys, dict):
                    raise RecipeError(f"{name}: its base has no stage {stage!r} with keys{_nearest(stage, stages)}")
                stages[stage].update(keys)
            result[key] = base[key]
        elif isinstance(base[key], dict) and isinstance(own[key], dict):
            result[key] = {**base[key], **own[key]}
    return result


def _plain_stages(
    value: dict[str, Any], stages: list[Any], settings: Sequence[str], kinds: Sequence[type[Stage]]
) -> list[Stage]:
    """The stages, with settings applied and blocks written out: of their kinds, each checked alone."""
    names = plain_names(stages)
    blocks = any(isinstance(stage, dict) and "repeat" in stage for stage in stages)
    later = []  # settings of one round
    for setting in settings:
        first = setting.partition("=")[0].split(".")[0]
        if first in names or first in Recipe.model_fields or not blocks:
            _apply(value, names, setting)
        else:
            later.append(setting)
    plain = write_out(stages, kinds, lambda block: _checked(Repeat, block.get("repeat"), "repeat"))
    for setting in later:
        _apply(value, names | plain_names(plain), setting)
    return [_stage(each, place, kinds) for place, each in enumerate(plain)]


def _apply(recipe: dict[str, Any], stages: dict[str, dict[str, Any]], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {setting!r} is not key=value: write for example --set seed=1.")
    first, *path = key.split(".")
    target: Any = stages.get(first, recipe)
    if first not in stages:
        if first not in Recipe.model_fields:
            raise RecipeError(f"unknown key {first!r} in --set{_nearest(first, [*Recipe.model_fields, *stages])}")
        path = [first, *path]
    elif not path:
        raise RecipeError(f"--set {setting!r} names a stage and no key: write for example {first}.epochs=1.")
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {setting!r}: {part!r} has no keys below it.")
    try:
        target[path[-1]] = _number(yaml.load(text, _Loader))
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {setting!r}: the value is not valid YAML; quote it.") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as a string; a recipe means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _stage(value: Any, place: int, kinds: Sequence[type[Stage]]) -> Stage:
    if not isinstance(value, dict) or not isinstance(value.get("stage"), str):
        raise RecipeError(f"stage {place + 1} is no stage: write {{stage: KIND, name: NAME, ...}} (given: {value!r}).")
    name, known = value.get("name", place + 1), {kind.kind(): kind for kind in kinds}
    if value["stage"] not in known:
        raise RecipeError(f"stage {name!r}: there is no kind {value['stage']!r}{_nearest(value['stage'], known)}")
    return _checked(known[value["stage"]], value, str(name))


def _checked(model: type[Checked], value: Any, where: str) -> Checked:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RecipeError(_sentence(error, model, where)) from error


def _nearest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}."


def _sentence(error: ValidationError, model: type[BaseModel], *at: str) -> str:
    """One sentence from the first problem: where, what, and the nearest right key for an unknown one."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, (*at, *problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where!r}{_nearest(str(problem['loc'][-1]), _keys_at(model, problem['loc'][:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return f"{message}."
    given = (
        "" if isinstance(problem["input"], dict) else f" (given: {problem['input']!r})"
    )  # a whole stage says nothing
    return f"{where}: {message[:1].lower()}{message[1:]}{given}."


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        model = next(each for each in (annotation, *get_args(annotation)) if isinstance(each, type))
    return list(model.model_fields)
