"""A bank of roles on disk: a folder of YAML, a file a role. docs/roles.md has the format."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, cast

from esckit.errors import RoleError
from esckit.files import atomic, read_text
from esckit.roles.bank import SHIPPED, Experience, Role, RoleBank
from esckit.roles.emotions import EMOTIONS, HIGHEST, LOWEST
from esckit.strategy import TAXONOMIES

__all__ = ["read_folder", "read_shipped", "write_folder"]

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})?")
_FIELDS: Final = ("format", "name", "topics", "experiences")
_TEXTS: Final = {"titles": "title"} | {name: name for name in ("profile", "background", "style", "guide")}
"""A role's field to its name under a language."""
_LABELS: Final = tuple(dict.fromkeys(label for taxonomy in TAXONOMIES.values() for label in taxonomy.labels))


@cache
def read_shipped() -> RoleBank:
    """The bank that comes with esckit."""
    with resources.as_file(resources.files("esckit.roles") / "bank") as folder:
        return RoleBank(read_folder(folder).roles, SHIPPED)


def read_folder(folder: Path) -> RoleBank:
    """Read every ``.yaml`` and ``.yml`` file of a folder as a role.

    Raises:
        RoleError: as `read_bank`.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise RoleError(f"{folder} {found}: a role bank is a folder of YAML files, one a role, or {SHIPPED!r}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.name[0] != ".")
    if not paths:
        raise RoleError(f"{folder} has no roles: put a YAML file for each role into it.")
    by_name: dict[str, tuple[Path, Role]] = {}
    topics: dict[str, tuple[Path, Role]] = {}
    for path in paths:
        role = _read_role(path)
        if role.name in by_name:
            raise RoleError(f"{by_name[role.name][0]} and {path} are both named {role.name!r}: rename one.")
        by_name[role.name] = path, role
        for topic in map(str.casefold, role.topics):
            other = topics.setdefault(topic, (path, role))[0]
            if other != path:
                raise RoleError(f"{other} and {path} both have the topic {topic!r}: leave it to one role.")
    return RoleBank(tuple(by_name[name][1] for name in sorted(by_name)), str(folder))


def _read_role(path: Path) -> Role:
    value = _load(path)
    if value.get("format") != "1":
        raise RoleError(f"{path}: format: is {value.get('format')!r}: this version of esckit reads format: 1.")
    for key in value:
        if key not in _FIELDS and not _LANGUAGE.fullmatch(key):
            wanted = ", ".join(_FIELDS)
            raise RoleError(f"{path}: {key}: is no field of a role: take {wanted}, or a language such as en or zh.")
    name = _id(path, "name", value.get("name"))
    languages = [key for key in value if key not in _FIELDS]
    if not languages:
        raise RoleError(f"{path} has no texts: put them under the language that they are in, such as en: or zh:.")
    fields = (*_TEXTS.values(), "phrases")
    said = {language: _mapping(path, language, value[language], fields) for language in languages}
    texts = {
        field: {language: _text(path, f"{language}.{key}", said[language].get(key)) for language in languages}
        for field, key in _TEXTS.items()
    }
    return Role(
        name=name,
        **texts,
        topics=_texts(path, "topics", value.get("topics", [])),
        phrases={language: _phrases(path, language, said[language].get("phrases", {})) for language in languages},
        experiences=tuple(_experiences(path, value.get("experiences"), languages)),
    )


def _load(path: Path) -> dict[str, Any]:
    """A file's mapping. All scalars are texts, so that no word or date is taken for something else."""
    from yaml import YAMLError, load

    try:
        value = load(read_text(path, what="a role (YAML)", error=RoleError), _loader())
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        message = f"{where} is not YAML ({reason}): correct it, and quote texts that hold ': ' or ' #'."
        raise RoleError(message) from error
    if not isinstance(value, dict):
        raise RoleError(f"{path} is no mapping: a role has fields such as name: and experiences:.")
    return value


@cache
def _loader() -> Any:
    """YAML without types, and in which no field stands twice (plain YAML keeps the last of them in silence)."""
    import yaml

    base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

    class Loader(base):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set[str]()
            for key, _ in node.value:
                if str(key.value) in seen:
                    problem = f"{key.value} stands twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                seen.add(str(key.value))
            return cast("dict[Any, Any]", super().construct_mapping(node, deep))

    return Loader


def _experiences(path: Path, value: Any, languages: Sequence[str]) -> Iterator[Experience]:
    if not isinstance(value, list) or not value:
        raise RoleError(f"{path}: experiences: has none: give the role at least one, with id, scores and its texts.")
    seen = set[str]()
    for number, each in enumerate(value, start=1):
        found = _mapping(path, f"experience {number}", each, ("id", "scores", *languages))
        id = _id(path, f"experience {number}: id", found.get("id"))
        if id in seen:
            raise RoleError(f"{path}: two experiences have the id {id!r}: rename one.")
        seen.add(id)
        texts = {language: _text(path, f"experience {id}: {language}", found.get(language)) for language in languages}
        yield Experience(id, texts, _scores(path, id, found.get("scores")))


def _scores(path: Path, id: str, value: Any) -> tuple[int, ...]:
    where = f"experience {id}: scores"
    scores = _mapping(path, where, value, EMOTIONS)
    if missing := [emotion for emotion in EMOTIONS if emotion not in scores]:
        raise RoleError(f"{path}: {where}: has no {', '.join(missing)}: score all of {', '.join(EMOTIONS)}.")
    for emotion, score in scores.items():
        allowed = isinstance(score, str) and re.fullmatch(r"\d{1,2}", score, re.ASCII)
        if not (allowed and LOWEST <= int(score) <= HIGHEST):
            message = f"{path}: {where}: {emotion} is {score}: give a whole number from {LOWEST} to {HIGHEST}."
            raise RoleError(message)
    return tuple(int(scores[emotion]) for emotion in EMOTIONS)


def _phrases(path: Path, language: str, value: Any) -> dict[str, tuple[str, ...]]:
    """Openers by strategy label; a role may have none."""
    phrases = _mapping(path, f"{language}.phrases", value, _LABELS)
    return {label: _texts(path, f"{language}.phrases.{label}", openers) for label, openers in phrases.items()}


def _mapping(path: Path, where: str, value: Any, fields: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RoleError(f"{path}: {where}: is no mapping: give it some of {', '.join(fields)}.")
    for key in value:
        if key not in fields:
            raise RoleError(f"{path}: {where}: {key} is unknown: take one of {', '.join(fields)}.")
    return value


def _text(path: Path, where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        found = "is missing" if value is None or value == "" else "is no text"
        raise RoleError(f"{path}: {where}: {found}: every text of a role stands in each of its languages; write it.")
    return value.strip()


def _texts(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RoleError(f"{path}: {where}: is no list: write one text a line, each after a hyphen.")
    return tuple(_text(path, where, each) for each in value)


def _id(path: Path, where: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise RoleError(f"{path}: {where}: is {value!r}: take a short id of a to z, 0 to 9 and hyphens (at most 40).")
    return value


def write_folder(bank: RoleBank, folder: Path) -> None:
    """As `save_bank`."""
    import yaml

    with atomic(folder) as place:
        place.mkdir()
        for role in bank.roles:
            text = yaml.safe_dump(_as_yaml(role), allow_unicode=True, sort_keys=False, width=120)
            (place / f"{role.name}.yaml").write_text(text, encoding="utf-8")


def _as_yaml(role: Role) -> dict[str, Any]:
    texts: dict[str, Any] = {
        language: {key: getattr(role, field)[language] for field, key in _TEXTS.items()}
        | {"phrases": {label: [*openers] for label, openers in role.phrases[language].items()}}
        for language in role.languages
    }
    experiences = [
        {"id": each.id, "scores": dict(zip(EMOTIONS, each.scores, strict=True)), **each.texts}
        for each in role.experiences
    ]
    return {"format": 1, "name": role.name, "topics": [*role.topics], **texts, "experiences": experiences}
