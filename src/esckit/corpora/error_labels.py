"""Replies labelled with the psychological errors that they show: esckit's own examples, or DecoupledESC's records.

Ours are *author-written examples*; docs/error-examples.md says how they were made and documents the format.
DecoupledESC's records (its ``data/Statistic``) hold the seeker's last message, the strategy, the reply and what a
language model said of it. Which variants of its labels mean what is decided here, once.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation, Speaker, Turn
from esckit.conversation.records import STRICT
from esckit.errors import CorpusError
from esckit.files import decode_json, read_lines, read_text
from esckit.strategy import ESCONV, FAILED_ESCONV_TO_ESCONV

_VARIANTS: Final = {
    "strategy_mismatch": "mismatched strategy|strategy mismatch",
    "lack_of_empathy": "lack of empathetic content|lack of empathy|lack empathy",
    "early_emotion_shift": "premature early emotion shift|premature emotional transition|early emotion shift",
    "template_response": "repetitive or template-like response|template response|template-like response",
    "emotion_misread": "emotional misunderstanding|emotion misread",
    "other": "other error|others",
}
_NONE: Final = ("", "none", "n/a", "no error", "no")
_ERROR_OF: Final = {text: error for error, variants in _VARIANTS.items() for text in (*variants.split("|"), error)}
_ANY: Final = re.compile("|".join(re.escape(variant) for variant in sorted(_ERROR_OF, key=len, reverse=True)))
_FIELDS: Final = ("Contains Empathy Error", "Error Type", "user_input", "strategy", "response")
_DOCUMENTED: Final = "see docs/error-examples.md."


@dataclass(frozen=True, slots=True)
class ContextTurn:
    """One utterance of a context."""

    __pydantic_config__ = STRICT

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """A supporter's reply to a context that ends with the seeker, and the error that a person saw in it (or None)."""

    __pydantic_config__ = STRICT

    id: str
    language: str
    context: tuple[ContextTurn, ...]
    strategy: str | None
    response: str
    error: str | None
    reason: str


_VALIDATOR: Final = TypeAdapter(ErrorExample)


def read_error_examples(path: Path | None = None) -> list[ErrorExample]:
    """Read and check examples of psychological errors: a JSON Lines file's, or those that the package ships.

    Raises:
        CorpusError: one sentence that names the file, the line and the field.
    """
    if path is None:
        return _read_shipped("error_examples.jsonl")
    examples: dict[str, ErrorExample] = {}
    for number, line in read_lines(path, what="a file of error examples (JSON Lines)"):
        if not line.strip():
            continue
        try:
            example = _parse(line)
        except CorpusError as error:
            raise CorpusError(f"{path}:{number}: {error}") from error
        if example.id in examples:
            raise CorpusError(f"{path}:{number}: id: {example.id!r} occurs twice; ids are unique in a file.")
        examples[example.id] = example
    if not examples:
        raise CorpusError(f"{path} holds no examples: write one JSON object a line, {_DOCUMENTED}")
    return list(examples.values())


def read_chat_examples() -> list[ErrorExample]:
    """Read the author-written examples that are as short and plain as replies in a chat are."""
    return _read_shipped("chat_examples.jsonl")


def _read_shipped(name: str) -> list[ErrorExample]:
    with as_file(files("esckit.corpora") / "starter" / name) as path:
        return read_error_examples(path)


def _parse(line: str) -> ErrorExample:
    try:
        example = _VALIDATOR.validate_json(line)
    except ValidationError as error:
        raise CorpusError(_sentence(error.errors(include_url=False)[0])) from error
    if problem := _problem(example):
        raise CorpusError(problem)
    return example


def _sentence(problem: Any) -> str:
    """One sentence from pydantic's first error, beginning with the field."""
    if problem["type"] == "json_invalid":
        return f"not valid JSON ({problem['ctx']['error']}); mend that line."
    field = ".".join(map(str, problem["loc"])) or "the example"
    if problem["type"] == "unexpected_keyword_argument":
        return f"unknown field {field!r}; {_DOCUMENTED}"
    message = problem["msg"]
    return f"{field}: {message[:1].lower()}{message[1:]}; {_DOCUMENTED}"


def _problem(example: ErrorExample) -> str | None:
    """What is wrong with an example beyond the types, beginning with the field; None where nothing is."""
    texts = {
        "id": example.id,
        "language": example.language,
        **{f"context.{index}.text": utterance.text for index, utterance in enumerate(example.context)},
        "response": example.response,
        "reason": example.reason,
    }
    empty = next((field for field, text in texts.items() if not text.strip()), None)
    if empty:
        return f"{empty}: it is empty; write a text."
    if not example.context or example.context[-1].speaker != "seeker":
        return "context: it does not end with the seeker; end it with the utterance that the response answers."
    if example.strategy is not None and example.strategy not in ESCONV.labels:
        return f"strategy: unknown {example.strategy!r}; allowed are {', '.join(ESCONV.labels)}, or null."
    if example.error is not None and example.error not in PSYCHOLOGICAL_ERRORS:
        return f"error: unknown {example.error!r}; allowed are {', '.join(PSYCHOLOGICAL_ERRORS)}, or null."
    if len(example.reason.splitlines()) > 1:
        return "reason: it has more than one line; write one line."
    return None


@dataclass(frozen=True, slots=True)
class LabelledReply:
    """A reply and the error that an annotator saw in it; None for a clean reply.

    ``context`` is the turns before it, as far as they are known; ``group`` is the dialogue: replies of one group are
    not independent of each other.
    """

    context: tuple[Turn, ...]
    strategy: str | None
    response: str
    error: str | None
    group: str
    explanation: str | None = None


class ErrorLabels(NamedTuple):
    """Labelled replies, and how many of them were found in the dialogues that were given (their context is whole)."""

    replies: list[LabelledReply]
    placed: int


def parse_error_label(contains: str | None, error_type: str | None) -> str | None:
    """Return the error that a published record says, or None for no error.

    A type may stand in the yes/no field. Of a compound the first type counts. "No" beside any type is no error.

    Raises:
        CorpusError: neither field says anything that is known.
    """
    said = (contains or "").strip().casefold()
    kind = (error_type or "").strip().casefold()
    if said in ("no", "false"):
        return None
    for text in (kind, said):
        if match := _ANY.search(text):
            return _ERROR_OF[match[0]]
    if kind in _NONE:
        return None
    known = ", ".join(_VARIANTS)
    raise CorpusError(f"the error type {error_type!r} is unknown: use one of {known}, or an empty one for no error.")


def read_error_labels(path: Path, dialogues: Sequence[Conversation] = ()) -> ErrorLabels:
    """Read labelled replies: DecoupledESC's records (a JSON list), or examples (docs/error-examples.md).

    ``dialogues`` is where the replies were said, in the order of their file: with them a record gets all that was said
    before its reply, without them the seeker's last message alone.

    Raises:
        CorpusError: one sentence that names the file, the record and what to do.
    """
    text = read_text(path, what="labelled replies (a JSON list of records, or JSON Lines of examples)")
    if not text.lstrip().startswith("["):
        return ErrorLabels([example_reply(example) for example in read_error_examples(path)], 0)
    try:
        records = decode_json(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path} is no JSON ({error}): give the list of records as it is published.") from error
    if not records:
        raise CorpusError(f"{path} holds no records: give labelled replies.")
    places = _Places(dialogues)
    replies = []
    for number, record in enumerate(records):
        try:
            replies.append(_read_record(record, places))
        except CorpusError as error:
            raise CorpusError(f"{path}, record {number}: {error}") from error
    return ErrorLabels(replies, len(places.taken))


def example_reply(example: ErrorExample) -> LabelledReply:
    """An example as a labelled reply; each is its own group."""
    turns = [
        Turn(str(place), str(place - 1) if place else None, said.speaker, said.text)
        for place, said in enumerate(example.context)
    ]
    return LabelledReply(tuple(turns), example.strategy, example.response, example.error, example.id, example.reason)


def _read_record(record: Any, places: "_Places") -> LabelledReply:
    missing = [name for name in _FIELDS if not isinstance(record, dict) or not isinstance(record.get(name), str)]
    if missing:
        raise CorpusError(f"has no text under {missing[0]!r}: give records as DecoupledESC publishes them.")
    error = parse_error_label(record["Contains Empathy Error"], record["Error Type"])
    strategy = record["strategy"].strip()
    strategy = FAILED_ESCONV_TO_ESCONV.get(strategy, strategy)
    if strategy and strategy not in ESCONV.labels:
        raise CorpusError(f"has the unknown strategy {strategy!r}: use one of {', '.join(ESCONV.labels)}.")
    place = places.find(record)
    if place is not None:
        context, group = place
    else:
        said = record["user_input"].strip()
        context = (Turn("0", None, "seeker", said),) if said else ()
        dialogue = record.get("dialogue")
        group = f"dialogue {dialogue}" if dialogue is not None else f"reply {_plain(record['response'])}"
    explanation = record.get("Brief Explanation")
    return LabelledReply(context, strategy or None, record["response"], error, group, explanation)


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


class _Places:
    """Supporter turns of dialogues by their text; a turn is taken by one record."""

    def __init__(self, dialogues: Iterable[Conversation]) -> None:
        self.taken: set[tuple[int, str]] = set()
        self._dialogues = list(dialogues)
        self._by_text: Mapping[str, list[tuple[int, Turn]]] = defaultdict(list)
        for number, conversation in enumerate(self._dialogues):
            for turn in conversation.trunk:
                if turn.speaker == "supporter":
                    self._by_text[_plain(turn.text)].append((number, turn))

    def find(self, record: dict[str, Any]) -> tuple[tuple[Turn, ...], str] | None:
        """What stands before a record's reply, and its dialogue; None where that cannot be told."""
        said, dialogue = _plain(record["user_input"]), record.get("dialogue")
        found = [
            (number, turn)
            for number, turn in self._by_text.get(_plain(record["response"]), ())
            if dialogue in (None, number) and said in self._heard(number, turn)
        ]
        labelled = [place for place in found if place[1].strategy == record["strategy"]] or found
        free = [place for place in labelled if (place[0], place[1].id) not in self.taken]
        if not free or (dialogue is None and len(labelled) > 1):
            return None
        number, turn = free[0]
        self.taken.add((number, turn.id))
        return tuple(self._dialogues[number].path(turn.parent)), f"dialogue {number}"

    def _heard(self, number: int, turn: Turn) -> tuple[str, str]:
        """The seeker's message directly before a turn, and all of its messages in a row; empty where there is none."""
        run: list[str] = []
        for before in reversed(self._dialogues[number].path(turn.parent)):
            if before.speaker != "seeker":
                break
            run.insert(0, before.text or "")
        return _plain(run[-1] if run else ""), _plain(" ".join(run))
