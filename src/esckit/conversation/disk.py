"""Conversation trees as JSON Lines, one a line. Reading checks everything; an error names file, line and turn."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esckit.conversation.records import DECOUPLED_ESC_REASONS, Turn
from esckit.conversation.tree import FORMAT, Conversation, Problem, check_conversation
from esckit.errors import CorpusError
from esckit.files import read_lines, write_jsonl

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_FORMAT_PROBLEM: Final = (
    "the record has format {}, this esckit reads format 1: "
    "convert it with `esckit corpus convert`, or install the esckit that wrote it."
)
_KINDS: Final = {"text": "content", "speaker": "speaker", "strategy": "label"}


def conversation_to_json(conversation: Conversation) -> dict[str, Any]:
    """Return the JSON object of a conversation; fields that are empty by default are left out, format comes first.

    Raises:
        CorpusError: the conversation breaks a rule of the tree: whatever is written has been checked in full.
    """
    check_conversation(conversation)
    body = _compact(conversation, keep=("id", "language", "taxonomy", "turns"))
    body["turns"] = [_turn_to_json(turn) for turn in conversation.turns]
    if conversation.preferences:
        body["preferences"] = [_compact(preference) for preference in conversation.preferences]
    return {"format": conversation.format, **{key: value for key, value in body.items() if key != "format"}}


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    body = _compact(turn, keep=("id", "parent", "speaker", "text"))
    if turn.verdicts:
        body["verdicts"] = [_compact(verdict) for verdict in turn.verdicts]
    return body


def _compact(record: Any, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    if fields.get("reasons") == DECOUPLED_ESC_REASONS:
        del fields["reasons"]
    return {name: value for name, value in fields.items() if name in keep or value not in (None, {}, [])}


@cache
def _adapter() -> "TypeAdapter[Conversation]":
    """The validator of a conversation's JSON, built once; pydantic is imported only where something is read."""
    from pydantic import TypeAdapter

    return TypeAdapter(Conversation)


def parse_conversation(line: str) -> Conversation:
    """Build and check a conversation from one line of JSON.

    Raises:
        CorpusError: one sentence that names the field or the turn.
    """
    conversation = validate_conversation(line)
    if isinstance(conversation, Conversation):
        check_conversation(conversation)
        return conversation
    raise CorpusError(conversation[0].text)


def validate_conversation(line: str) -> "Conversation | list[Problem]":
    """Build a conversation whose fields have the right types from one line of JSON; its rules are not checked yet.

    Returns:
        The conversation, or every problem that its fields have.
    """
    from pydantic import ValidationError

    try:
        conversation = _adapter().validate_json(line)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        if problems[0]["type"] == "json_invalid":
            return [Problem("record", f"not valid JSON ({problems[0]['ctx']['error']}); mend that line.")]
        value = json.loads(line)
        return list(dict.fromkeys(_field_problem(problem, value) for problem in problems))
    problem = _unvalidated_problem(conversation, line)
    return [Problem("tree", problem)] if problem else conversation


def _unvalidated_problem(conversation: Conversation, line: str) -> str | None:
    """What pydantic lets pass: a record that does not say its format, and numbers in ``extra`` that JSON cannot say."""
    if not line.lstrip().startswith('{"format"') and "format" not in json.loads(line):
        return _FORMAT_PROBLEM.format(None)
    free = [conversation.provenance, conversation.extra, [turn.extra for turn in conversation.turns]]
    try:
        json.dumps(free, allow_nan=False)
    except ValueError:
        return f"conversation {conversation.id!r} has a number in extra or provenance that is not finite; write null."
    return None


def _field_problem(problem: Any, value: Any) -> Problem:
    """One sentence from pydantic's error: the turn by its id, the field by its name."""
    if isinstance(value, dict) and value.get("format") != FORMAT:
        return Problem("tree", _FORMAT_PROBLEM.format(repr(value.get("format"))))
    location = list(problem["loc"])
    where, name = "", None
    if len(location) >= 2 and location[0] == "turns" and isinstance(location[1], int):
        turn = value["turns"][location[1]]
        name = turn.get("id", location[1]) if isinstance(turn, dict) else location[1]
        where, location = f"turn {name!r}: ", location[2:]
    field_name = ".".join(str(part) for part in location) or "the record"
    sentence = f"{field_name}: {problem['msg'][:1].lower()}{problem['msg'][1:]}; see docs/conversation-tree.md."
    if problem["type"] == "unexpected_keyword_argument":
        sentence = f"unknown field {field_name!r}; put a source's own fields under 'extra'."
    return Problem(_KINDS.get(field_name, "tree"), where + sentence, None if name is None else str(name))


def read_conversations(path: Path | str) -> list[Conversation]:
    """Read a JSON Lines file of conversation trees and check all of it.

    Raises:
        CorpusError: one sentence that names the file, the line and the turn.
    """
    return list(iterate_conversations(path))


def iterate_conversations(path: Path | str) -> Iterator[Conversation]:
    """Yield the conversations of a file one by one, each checked; ids are unique in a file."""
    ids: set[str] = set()
    for number, line in read_lines(Path(path), what="a conversation file (JSON Lines)"):
        if not line.strip():
            continue
        try:
            conversation = parse_conversation(line)
        except CorpusError as error:
            raise CorpusError(f"{path}:{number}: {error}") from error
        if conversation.id in ids:
            raise CorpusError(
                f"{path}:{number}: conversation {conversation.id!r} occurs twice; ids are unique in a file."
            )
        ids.add(conversation.id)
        yield conversation


def write_conversations(path: Path | str, conversations: Iterable[Conversation]) -> None:
    """Write conversations as JSON Lines, atomically."""
    write_jsonl(Path(path), map(conversation_to_json, conversations))
