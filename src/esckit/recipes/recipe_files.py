"""Reading recipes: shipped ones by name, files, settings of the command line; and one sentence for what is wrong."""

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from esckit.errors import RecipeError
from esckit.files import read_text
from esckit.recipes.recipe import FORMAT, Recipe, tag_of
from esckit.recipes.stages import Stage

__all__ = ["load_recipe", "shipped_recipes"]


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with esckit."""
    files = resources.files("esckit.recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_recipe(name: str, settings: list[str] | None = None) -> Recipe:
    """Read a recipe by shipped name or path, and apply ``key=value`` settings.

    Args:
        name: a shipped name (`shipped_recipes`) or the path of a YAML file.
        settings: ``seed=1``, ``corpus.train=FILE``, ``planner.learning_rate=1e-4``: a top-level key or a stage's name,
            then keys; values are YAML.

    Raises:
        RecipeError: one sentence that names the key and, for an unknown one, the nearest right one.
    """
    if name in shipped_recipes():
        text = resources.files("esckit.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        text = read_text(Path(name), what="a recipe (YAML)", error=RecipeError)
    else:
        raise RecipeError(f"there is no recipe {name!r}{_nearest(name, shipped_recipes())}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise RecipeError(f"{name}:{line}: not valid YAML; mend that line.") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{name} is not a recipe: it needs keys such as format, corpus, model and stages.")
    if value.get("format") != FORMAT:
        raise RecipeError(
            f"{name} has recipe format {value.get('format')!r}, this esckit reads format {FORMAT}: "
            "install the esckit that it was written for, or write the recipe anew."
        )
    for setting in settings or []:
        _apply_setting(value, setting)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(_sentence(error, value)) from error


def _apply_setting(recipe: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {setting!r} is not key=value: write for example --set seed=1.")
    first, *path = key.split(".")
    stages = {stage["name"]: stage for stage in recipe.get("stages", []) if isinstance(stage, dict) and "name" in stage}
    target: Any = stages.get(first) if first in stages else recipe
    if target is recipe:
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
        target[path[-1]] = _number(yaml.safe_load(text))
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


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}."


def _sentence(error: ValidationError, recipe: dict[str, Any]) -> str:
    """One sentence from the first problem: where, what, and the nearest right key for an unknown one."""
    problem = error.errors(include_url=False)[0]
    location, stage = list(problem["loc"]), None
    if len(location) >= 2 and location[0] == "stages" and isinstance(location[1], int):
        stage = recipe["stages"][location[1]]
        name = stage.get("name", location[1]) if isinstance(stage, dict) else location[1]
        location = [name, *location[3 if len(location) > 2 else 2 :]]
    where = ".".join(map(str, location)) or "the recipe"
    if problem["type"] == "extra_forbidden":
        keys = _keys_at(problem["loc"][:-1])
        return f"unknown key {where!r}{_nearest(str(location[-1]), keys)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]} (given: {problem['input']!r})." if location else f"{message}."


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the schema allows at a validation location."""
    model: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, int) or part == "stages":
            continue
        kinds = {tag_of(kind): kind for kind in get_args(Stage)}
        if model is Recipe and part in kinds:
            model = kinds[part]
            continue
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)
        model = annotation
    return list(model.model_fields)
