"""What commands share: options, above all of those that ask a chat model, and how JSON is printed."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from esckit.errors import EsckitError
from esckit.hub import allow_code

if TYPE_CHECKING:
    from pydantic import BaseModel

    from esckit.conversation import Conversation
    from esckit.supporters.baselines import BaselineOptions
    from esckit.supporters.own_model import OwnOptions

ModelOption = Annotated[
    str,
    typer.Option(
        help="remote:MODEL (a chat model behind a URL), a chat model's folder or Hub id, smollm2, or a supporter's "
        "folder."
    ),
]


def _allow_code(allowed: bool) -> None:
    allow_code(allowed)


TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", callback=_allow_code, help="Run code that a model here brings along; read it first."
    ),
]
BaseUrlOption = Annotated[
    str | None, typer.Option(help="Of remote:MODEL, default OpenAI's; its key stands in OPENAI_API_KEY.")
]
ExtraBodyOption = Annotated[
    str | None, typer.Option(help="Of remote:MODEL: more fields of each request, as a JSON object.")
]
LeaveOutOption = Annotated[
    str | None,
    typer.Option(
        help="Of remote:MODEL: settings that are not sent, with commas between them (temperature, top_p, top_k, "
        "repetition_penalty, max_tokens, json_schema, response_format, system)."
    ),
]
PlannerOption = Annotated[
    str | None,
    typer.Option(
        help="Of a model that is no supporter: whose planner chooses the strategy, the folder of an encoder planner or "
        "of a supporter, or embedded; default: the model itself."
    ),
]
SystemOption = Annotated[
    Path | None,
    typer.Option(
        help="Likewise: a file with the system text that it was trained with; {strategies} in it is the list of all, "
        "{strategy} the planned one. none: it has no system text."
    ),
]
FormOption = Annotated[
    str | None,
    typer.Option(help="Likewise: how a reply holds its strategy, default '[{strategy}] {text}'. none: it holds none."),
]
BaseOption = Annotated[str | None, typer.Option(help="Of a LoRA folder: its base, in place of the one that it names.")]
PromptsOption = Annotated[
    Path | None, typer.Option(help="A folder of your own prompts for a chat model (esckit prompts).")
]
RoleOption = Annotated[
    str | None, typer.Option(help="Who speaks, of a supporter with roles: a name, or none; default: who suits.")
]

LedgerOption = Annotated[
    Path | None, typer.Option(help="Answers of a chat model; default ledger.sqlite beside what is written.")
]
NewTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Of an answer; a model that thinks before it answers needs thousands.")
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(min=1, help="Most calls at once to a URL; prompts a batch of a model here.")
]
CallsOption = Annotated[int | None, typer.Option(min=1, help="Most calls that the ledger may hold of this kind.")]
TokensOption = Annotated[int | None, typer.Option(min=1, help="Most tokens, likewise.")]

LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="A map from the dialogues' own labels of strategies to a taxonomy's (YAML or JSON)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: plain keys, fractions.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the bootstrap.")]

Options = TypeVar("Options", bound="BaseModel")


def options_of(kind: type[Options], told: Mapping[str, Any]) -> Options:
    """Options from a command's arguments, of which those that it does not know and those that are None are left out.

    Raises:
        EsckitError: they do not fit together, in one sentence.
    """
    from pydantic import ValidationError

    given = {name: str(each) if isinstance(each, Path) else each for name, each in told.items() if each is not None}
    options = {name: given[name] for name in kind.model_fields if name in given}
    if decoding := {name: given[name] for name in ("max_new_tokens", "greedy") if name in given}:
        options["decoding"] = decoding
    if "leave_out" in given:
        options["leave_out"] = [name.strip() for name in given["leave_out"].split(",") if name.strip()]
    try:
        if "extra_body" in given:
            options["extra_body"] = json.loads(given["extra_body"])
        return kind(**options)
    except json.JSONDecodeError as error:
        raise EsckitError(f"--extra-body {given['extra_body']!r} is no JSON object: write one such as {{}}.") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = "-".join(map(str, problem["loc"])).replace("_", "-")
        where = "" if problem["type"] == "value_error" else f"--{option} {problem['input']!r}: "
        raise EsckitError(f"{where}{problem['msg'].removeprefix('Value error, ')}.") from error


def read_options(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML or JSON file of keys; ``what`` they are options of.

    Raises:
        EsckitError: it cannot be read, or holds no keys.
    """
    import yaml

    from esckit.files import read_text

    try:
        value = yaml.safe_load(read_text(path, what=f"options of {what}", error=EsckitError))
    except yaml.YAMLError as error:
        raise EsckitError(f"{path} is not valid YAML: mend it, or leave --options out.") from error
    if not isinstance(value, dict):
        raise EsckitError(f"{path} holds no keys: write them as key: value (docs/mining.md).")
    return value


def own_options(model: str, told: Mapping[str, Any]) -> "OwnOptions":
    """Options of whoever is named to answer, from a command's arguments; ``system`` is a file, or none.

    Raises:
        EsckitError: the file cannot be read, or options do not fit together.
    """
    from esckit.files import read_text
    from esckit.supporters.own_model import NO_FORM, OwnOptions

    own: dict[str, Any] = {key: told.get(key) for key in (*OwnOptions.own_keys, "concurrency", "max_new_tokens")}
    own |= {key: told.get(key) for key in ("budget_calls", "budget_tokens")}
    if (system := told.get("system")) is not None:
        own["system"] = ""
        if str(system) != NO_FORM:
            own["system"] = read_text(system, what="a file with a system text", error=EsckitError).strip()
    return options_of(OwnOptions, {**own, "model": model})


def chat_options(told: Mapping[str, Any]) -> "BaselineOptions | OwnOptions | None":
    """Who is to answer in a chat: a model that is prompted, or whoever is named; None is the embedded supporter.

    Raises:
        EsckitError: options do not fit together.
    """
    from esckit.supporters.own_model import OwnOptions

    own = [f"--{key.replace('_', '-')}" for key in OwnOptions.own_keys if told[key] is not None]
    if told["model"] is None:
        if told["method"] is not None:
            raise EsckitError("--method is of a chat model that is prompted: give --model as well, or leave it out.")
        if told["supporter"] is not None:
            return own_options(told["supporter"], told)
        if own:
            raise EsckitError(f"{own[0]} is of a model that is named: name it (esckit chat MODEL), or leave it out.")
        return None
    if told["supporter"] is not None:
        raise EsckitError(
            f"--model {told['model']} answers in a supporter's place: leave out {told['supporter']}, or --model."
        )
    if lonely := [option for option in own if option not in ("--base-url", "--extra-body")]:
        raise EsckitError(f"{lonely[0]} is of a model as it is: name it without --model, or leave {lonely[0]} out.")
    from esckit.supporters.baselines import BaselineOptions

    return options_of(BaselineOptions, {**told, "method": told["method"] or "base"})


def read_dialogues(path: Path, *, format: str | None = None, labels: Path | None = None) -> "list[Conversation]":
    """Read a dialogue file; where replies carry several strategies, say on standard error how many do."""
    from esckit.corpora import read_corpus
    from esckit.corpora.labels import several_labels

    conversations = read_corpus(path, format, labels=labels)
    tell_several(path, several_labels(conversations))
    return conversations


def tell_several(path: object, count: int) -> None:
    """Say on standard error how many replies carry several strategies."""
    if count:
        told = f"note: {path}: {count} replies carry more than one strategy; the first counts, all stay in extra"
        print(told, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as it stands in files: every number is one."""
    print(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False))
