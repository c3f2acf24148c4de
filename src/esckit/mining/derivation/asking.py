"""What a chat model is asked in a step, and what its answer says. All steps answer with a whole dialogue."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, WithJsonSchema, create_model

from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.mining.derivation.exchanges import PHASES, Exchange, Talk
from esckit.mining.derivation.experiences import likest
from esckit.mining.derivation.options import DerivationOptions, StepName
from esckit.mining.derivation.rules import rules_in
from esckit.mining.derivation.sources import Source
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote
from esckit.roles.bank import Role
from esckit.strategy import Taxonomy

__all__ = ["STEP", "Task", "is_asked", "prompt_of", "read_talk", "step_request"]

STEP: Final = "derive/1"
"""Name and version of the questions in ledgers."""

_FIELDS: Final = {"dialogue": ("phase",), "tags": (), "experiences": ("experience",), "style": ()}
"""What each prompt wants of an exchange besides both texts and the strategy."""


class Task(NamedTuple):
    """One talk before one step.

    Attributes:
        source: where it comes from.
        talk: as the step before left it; of a source the source's.
        role: whose; None in the step ``dialogue``, which is the same for all roles.
    """

    source: Source
    talk: Talk
    role: Role | None = None


def is_asked(step: StepName, task: Task) -> bool:
    """Whether a model has something to do: a dialogue with strategies needs no first step."""
    return step != "dialogue" or task.source.is_question or any(each.strategy is None for each in task.talk)


def prompt_of(step: StepName, task: Task) -> str:
    """The prompt's name: dialogues that lack strategies are tagged."""
    return "tags" if step == "dialogue" and not task.source.is_question else step


@cache
def _schema(prompt: str, labels: tuple[str, ...], ids: tuple[str, ...]) -> type[BaseModel]:
    """A dialogue. Servers that hold to a schema are told the labels; any text can be read, and filters name it."""
    kinds = {"phase": PHASES, "strategy": labels, "experience": ("", *ids)}
    names = ("seeker", *_FIELDS[prompt][:1], "strategy", "supporter")
    fields: dict[str, Any] = {name: (_one_of(kinds[name]) if name in kinds else str, ...) for name in names}
    exchange: Any = create_model("Exchange", **fields)
    return create_model("Dialogue", exchanges=(list[exchange], ...))


def _one_of(values: Sequence[str]) -> Any:
    return Annotated[str, WithJsonSchema({"type": "string", "enum": list(values)})]


def step_request(
    step: StepName, task: Task, options: DerivationOptions, taxonomy: Taxonomy, prompts: Prompts, sample: int
) -> ChatRequest:
    """What a model is asked in a step about a talk, in its language. Whatever people said stands in it as data."""
    prompt, language = prompt_of(step, task), task.source.language
    offered = _offered(task, options) if prompt == "experiences" else []
    schema = _schema(prompt, taxonomy.labels, tuple(id for id, _ in offered))
    slots = {"schema": schema_text(schema)}
    if prompt == "dialogue":
        slots["question"] = quote(task.talk[0].seeker)
        slots["answer"] = quote(task.talk[0].supporter)
        slots |= {"fewest": str(options.filters.fewest), "most": str(options.filters.most)}
    else:
        slots["dialogue"] = _lines(task.talk)
    if prompt in ("dialogue", "tags"):
        slots["strategies"] = _guidelines(taxonomy, language)
    if task.role is not None:
        slots |= _of_role(task.role, language)
        slots["mark"] = rules_in(language).mark.format(name=task.role.titles[language])
    if prompt == "experiences":
        telling = options.telling
        lines = ({"experience": id, "text": text} for id, text in offered)
        slots["experiences"] = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        slots |= {"where": ", ".join(telling.strategies), "times": str(telling.most), "every": str(telling.every)}
    system, asked = prompts.fill("system", language), prompts.fill(prompt, language, **slots)
    return ChatRequest((Message("system", system), Message("user", asked)), options.deriver.decoding, schema, sample)


def _offered(task: Task, options: DerivationOptions) -> list[tuple[str, str]]:
    assert task.role is not None
    language = task.source.language
    found = likest(task.talk, task.role, language, set())
    return [(each.id, each.text(language)) for each in found[: options.offered]]


def _of_role(role: Role, language: str) -> dict[str, str]:
    card = {name: getattr(role, name)[language] for name in ("profile", "background", "style", "guide")}
    return {"who": role.titles[language], "card": "\n".join(card.values())}


def _lines(talk: Talk) -> str:
    return "\n".join(f"{{{_fields(number, each)}}}" for number, each in enumerate(talk, 1))


def _fields(number: int, each: Exchange) -> str:
    told = {"seeker": each.seeker, "strategy": each.strategy, "supporter": each.supporter}
    return ", ".join([f'"exchange": {number}', *(f'"{name}": {quote(text)}' for name, text in told.items() if text)])


def _guidelines(taxonomy: Taxonomy, language: str) -> str:
    names = [(taxonomy.shown_in(label, language), taxonomy.definition_in(label, language)) for label in taxonomy.labels]
    return "\n".join(f"- {name}: {definition}" for name, definition in names)


def read_talk(step: StepName, task: Task, outcome: Outcome, request: ChatRequest, taxonomy: Taxonomy) -> Talk | str:
    """The talk that an outcome holds, or its state where it is not done.

    A label in another spelling or language is read as it is meant; one that is none stays as it was written, for the
    filters.
    """
    if outcome.state != "done":
        return outcome.state
    assert request.schema is not None
    told = outcome.value(request.schema).model_dump()["exchanges"]
    talk = []
    for place, each in enumerate(told):
        before = task.talk[place] if place < len(task.talk) else Exchange("", "")
        talk.append(
            Exchange(
                each["seeker"],
                each["supporter"],
                taxonomy.match(each["strategy"]) or each["strategy"],
                each.get("phase", before.phase),
                each.get("experience", before.experience) or None,
                stock=step != "dialogue" and before.stock,
            )
        )
    return tuple(talk)
