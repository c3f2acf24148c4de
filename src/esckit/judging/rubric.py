"""Rubrics: what a judge is asked about, a file each, so that anyone can add one without touching code."""

import re
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from esckit.errors import EsckitError
from esckit.files import read_text

KnownGroup = Literal["gold", "failed", "shuffled", "stock"]
DEFAULT_ORDER: Final[tuple[tuple[KnownGroup, KnownGroup], ...]] = (
    ("gold", "failed"),
    ("gold", "shuffled"),
    ("gold", "stock"),
    ("failed", "shuffled"),
)
"""Which known group has to score above which. Of replies from elsewhere and stock replies neither has to: the one is
about something else, the other about nothing."""

SHIPPED: Final = ("decoupled-esc", "empath", "self-evolution")

CAPPED: Final = "+caps"
"""Ends the name of a rubric whose caps are asked for: its scores do not compare with those without."""
_SUFFIXES: Final = (".yaml", ".yml", ".json")
_Words = Annotated[str, Field(min_length=1)]

QUOTE: Final = "_quote"
"""Ends the name of the field that holds the words of a reply which show a problem."""

_Problem = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Wording(BaseModel):
    """What a rubric says in one language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: _Words  # the quality as a question
    criteria: str = ""  # what to look at and what to leave aside
    scale: dict[int, _Words]  # each point, a whole number, and what it means; no point between two others is left out
    # yes/no questions by name; a yes is a problem of the reply. The scale is then 0, a yes or more, and 1, none
    problems: dict[_Problem, _Words] = {}


class Rubric(Wording):
    """One quality and its scale."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")  # lower-case letters, digits, ``-`` and ``_``
    version: int = Field(ge=1)  # change it with the text: scores under two versions do not compare
    language: str = "en"  # of the texts above
    translations: dict[str, Wording] = {}  # the same in other languages
    needs: Literal["role"] | None = None  # it is asked only of replies that have a role, and with the role's card
    # limits and deductions, a line each; the judge is told them only where they are asked for (`load_rubrics`)
    caps: tuple[_Words, ...] = ()
    # which known group has to score above which (`DEFAULT_ORDER`); none where the quality does not tell them apart
    known_groups: tuple[tuple[KnownGroup, KnownGroup], ...] = DEFAULT_ORDER

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: dict[int, str]) -> dict[int, str]:
        points = sorted(scale)
        if len(points) < 2 or points != list(range(points[0], points[-1] + 1)):
            raise ValueError("a scale needs two points or more, whole numbers without a gap")
        return dict(sorted(scale.items()))

    @model_validator(mode="after")
    def _check_wordings(self) -> Self:
        if self.problems and set(self.scale) != {0, 1}:
            raise ValueError("a rubric with problems has the scale 0 (a problem is there) and 1 (none is)")
        if self.caps and (self.problems or self.translations):
            raise ValueError("a rubric with problems or translations has no caps: leave them out")
        for language, wording in self.translations.items():
            if set(wording.scale) != set(self.scale) or [*wording.problems] != [*self.problems]:
                raise ValueError(f"translation {language!r} has other points or problems: give all of them, in order")
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that it has, its own first."""
        return self.language, *self.translations

    def worded(self, language: str) -> "Rubric":
        """The rubric in one of its `languages`."""
        if language == self.language:
            return self
        wording = self.translations[language]
        return self.model_copy(update={"language": language, "translations": {}, **dict(wording)})

    @property
    def lowest(self) -> int:
        """The worst score."""
        return min(self.scale)

    @property
    def highest(self) -> int:
        """The best score."""
        return max(self.scale)

    @property
    def scale_text(self) -> str:
        """The scale as lines of a prompt."""
        return "\n".join(f"{point}: {meaning}" for point, meaning in self.scale.items())

    @property
    def problems_text(self) -> str:
        """The yes/no questions as lines of a prompt."""
        return "\n".join(f"{name}: {question}" for name, question in self.problems.items())

    @cached_property
    def reply(self) -> type[BaseModel]:
        """What a judge has to answer: an explanation first, so that it is not made up for the score, then a point.

        Of a rubric with problems: for each the words that show it, then yes or no.
        """
        if self.problems:
            answers: dict[str, Any] = {}
            for name in self.problems:
                answers |= {name + QUOTE: (str, ...), name: (Literal["no", "yes"], ...)}
            return create_model("Problems", **answers)
        point: Any = Annotated[Literal[tuple(self.scale)], BeforeValidator(_no_boolean)]
        return create_model("Score", explanation=(str, ...), score=(point, ...))


def _no_boolean(score: Any) -> Any:
    """Python takes true for 1, and so would the literals of a scale."""
    if isinstance(score, bool):
        raise ValueError("a score is a number")
    return score


def load_rubrics(source: str, *, caps: bool = False) -> list[Rubric]:
    """Read a set of rubrics: a shipped one by name (`SHIPPED`), or a folder with a file each; in the order of files.

    With ``caps`` the names of those that have caps end in `CAPPED`; without, none has any.

    Raises:
        EsckitError: there is none, two have one name, a file is no rubric, or caps are asked for and none has any; one
            sentence names it.
    """
    rubrics = _load(source)
    if not caps:
        return [rubric.model_copy(update={"caps": ()}) for rubric in rubrics]
    if not any(rubric.caps for rubric in rubrics):
        raise EsckitError(f"no rubric of {source} has caps: leave caps out, or write a rubric's (docs/judging.md).")
    return [rubric.model_copy(update={"name": rubric.name + CAPPED}) if rubric.caps else rubric for rubric in rubrics]


def _load(source: str) -> list[Rubric]:
    if source in SHIPPED:
        with resources.as_file(resources.files("esckit.judging") / "rubrics" / source) as folder:
            return _read_folder(folder)
    folder = Path(source)
    if not folder.is_dir():
        shipped = ", ".join(SHIPPED)
        raise EsckitError(f"there are no rubrics {source!r}: give a folder of rubric files, or one of {shipped}.")
    return _read_folder(folder)


def _read_folder(folder: Path) -> list[Rubric]:
    rubrics: dict[str, Rubric] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES):
        rubric = read_rubric(path)
        if rubric.name in rubrics:
            raise EsckitError(f"{path}: a rubric {rubric.name!r} is in this folder already: give it another name.")
        rubrics[rubric.name] = rubric
    if not rubrics:
        raise EsckitError(f"{folder} holds no rubric: write one YAML or JSON file for each quality (docs/judging.md).")
    return list(rubrics.values())


def read_rubric(path: Path) -> Rubric:
    """Read and check one rubric, YAML or JSON.

    Raises:
        EsckitError: it cannot be read or is no rubric; one sentence names the file and the key.
    """
    text = read_text(path, what="a rubric (YAML or JSON)", error=EsckitError)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise EsckitError(f"{path}, line {line}: this is not valid YAML; mend that line.") from error
    if not isinstance(value, dict):
        raise EsckitError(f"{path} is no rubric: it needs the keys name, version, question and scale.")
    if not value.get("scale"):
        raise EsckitError(f"the rubric {path} has no scale: write scale, with what each whole-number point means.")
    try:
        return Rubric.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        message = re.sub(r"^Value error, ", "", problem["msg"])
        raise EsckitError(f"{path}, {where}: {message[:1].lower()}{message[1:]} (docs/judging.md).") from error
