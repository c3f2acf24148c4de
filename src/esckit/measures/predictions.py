"""The predictions file: JSON Lines, one supporter turn a line, what gold says beside what a model said."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from esckit.conversation.thoughts import without_thought
from esckit.errors import PredictionsError
from esckit.measures.record_files import read_json_lines
from esckit.strategy import ESCONV, Taxonomy

Finish = Literal["stop", "length"]

_ID: Final = ((str, int), "a string or an integer")
_TEXT: Final = ((str,), "a string")
_TEXT_OR_NULL: Final = ((str, type(None)), "a string or null")
REQUIRED: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "conversation_id": _ID,
    "turn_id": _ID,
    "gold_strategy": _TEXT_OR_NULL,
    "predicted_strategy": _TEXT_OR_NULL,
    "gold_text": _TEXT,
    "predicted_text": _TEXT_OR_NULL,
}
_OPTIONAL: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "strategy_probabilities": ((dict, type(None)), "an object of label to probability, or null"),
    "raw": _TEXT_OR_NULL,
    "finish": _TEXT_OR_NULL,
    "group": _TEXT_OR_NULL,
    "position": ((list, type(None)), "[k, N], the k-th of the dialogue's N utterances, or null"),
    "seeker_turns": ((list, type(None)), "a list of strings or null"),
}
FIELDS: Final = (*REQUIRED, *_OPTIONAL)
"""Names of the line's fields; a line has the required ones."""

_SPOKEN: Final = ("gold_strategy", "gold_text", "predicted_strategy", "predicted_text")
_SUM_TOLERANCE: Final = 1e-3  # probabilities written with three or more decimals may add up to a little over 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One supporter turn. Labels and texts stand here as the file has them; measuring matches labels to a taxonomy.

    Attributes:
        conversation_id: the dialogue, the unit that intervals resample.
        turn_id: unique within the dialogue.
        gold_strategy: a label of the taxonomy; None (with no prediction) where the turn is measured by its text alone.
        predicted_strategy: what the model chose; None, or anything that is no label, is an unparsed prediction.
        gold_text: the reference response.
        predicted_text: the model's response; None is scored as empty text and counted.
        strategy_probabilities: label to probability, each in 0..1, together at most 1; a label left out has 0.
        raw: what the model wrote, before parsing.
        finish: why generation ended.
        group: a name to report this turn under.
        position: [k, N]: the turn is utterance k, from 1, of the dialogue's N.
        seeker_turns: what the seeker had said before, oldest first.
        extra: every other field of the line, passed through.
    """

    conversation_id: str | int
    turn_id: str | int
    gold_strategy: str | None
    predicted_strategy: str | None
    gold_text: str
    predicted_text: str | None
    strategy_probabilities: dict[str, float] | None = None
    raw: str | None = None
    finish: Finish | None = None
    group: str | None = None
    position: list[int] | None = None
    seeker_turns: list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def read_predictions(path: Path | str, taxonomy: Taxonomy = ESCONV) -> list[Prediction]:
    """Read and check a predictions file.

    Raises:
        PredictionsError: the file is missing, empty or malformed, or a line breaks a rule; one sentence names the
            file, the line and what to do.
    """
    return collect(read_json_lines(Path(path)), taxonomy)


def collect(records: Iterable[tuple[str, Any]], taxonomy: Taxonomy) -> list[Prediction]:
    """Check records, each given with the place that an error names; no turn may occur twice.

    A thought before a label or a text is taken off; ``raw`` keeps what was predicted with it.

    Raises:
        PredictionsError: a record breaks a rule of the format, or repeats a turn.
    """
    predictions: list[Prediction] = []
    first_place: dict[tuple[str | int, str | int], str] = {}
    for place, record in records:
        try:
            prediction = prediction_from_json(_spoken(record), taxonomy)
        except PredictionsError as error:
            raise PredictionsError(f"{place}: {error}") from error
        key = (prediction.conversation_id, prediction.turn_id)
        if key in first_place:
            before = first_place[key].rsplit(", ", 1)[-1]
            raise PredictionsError(
                f"{place}: conversation {key[0]!r}, turn {key[1]!r} stands in {before} already: keep one prediction "
                "a turn."
            )
        first_place[key] = place
        predictions.append(prediction)
    return predictions


def _spoken(record: Any) -> Any:
    """A record without thoughts: of a prediction that is nothing else, one that was cut, null is left."""
    if not isinstance(record, dict):
        return record
    written = {name: record[name] for name in _SPOKEN if isinstance(record.get(name), str)}
    changed = {name: said for name, text in written.items() if (said := without_thought(text)) != text}
    if "gold_text" in changed:
        changed["gold_text"] = changed["gold_text"] or ""
    raw = "\n".join(written[name] for name in changed if name.startswith("predicted"))
    return record | changed | ({"raw": raw} if raw and record.get("raw") is None else {})


def prediction_from_json(record: Any, taxonomy: Taxonomy = ESCONV) -> Prediction:
    """Check one decoded line and make a Prediction of it.

    Raises:
        PredictionsError: the record breaks a rule of the format.
    """
    problem = _problem(record, taxonomy)
    if problem is not None:
        raise PredictionsError(problem)
    known = {name: record[name] for name in (*REQUIRED, *_OPTIONAL) if name in record}
    return Prediction(**known, extra={name: value for name, value in record.items() if name not in known})


def prediction_to_json(prediction: Prediction) -> dict[str, Any]:
    """Return the line's JSON object: required fields always, optional ones where they hold something."""
    record = {name: getattr(prediction, name) for name in REQUIRED}
    optional = {name: getattr(prediction, name) for name in _OPTIONAL}
    return record | {name: value for name, value in optional.items() if value is not None} | prediction.extra


def _problem(record: Any, taxonomy: Taxonomy) -> str | None:
    """Return what is wrong with a record, as the rest of a sentence; None where nothing is."""
    if not isinstance(record, dict):
        return f"this is {_show(record)}: write one JSON object a line."
    for name, (types, described) in (*REQUIRED.items(), *_OPTIONAL.items()):
        if name not in record:
            if name in REQUIRED:
                null = " (null where nothing was predicted)" if type(None) in types else ""
                return f"{name} is missing: write {described}{null}."
        elif type(record[name]) not in types:  # exact types: True is no integer here
            return f"{name} is {_show(record[name])}: write {described}."
    labels, gold = taxonomy.labels, record["gold_strategy"]
    if gold is None and record["predicted_strategy"] is not None:
        return "gold_strategy is null beside a predicted_strategy: write the gold label, or null for both."
    if gold is not None and not _is_label(gold, labels, taxonomy):
        allowed = ", ".join(labels)
        return f"gold_strategy is {_show(gold)}, no label of the taxonomy {taxonomy.name}: use one of {allowed}."
    if record.get("finish") not in ("stop", "length", None):
        return f"finish is {_show(record['finish'])}: write stop, length or null."
    return _context_problem(record) or _probability_problem(
        record.get("strategy_probabilities") or {}, labels, taxonomy
    )


def _context_problem(record: dict[str, Any]) -> str | None:
    position, turns = record.get("position"), record.get("seeker_turns")
    if position is not None and not (
        [type(number) for number in position] == [int, int] and 1 <= position[0] <= position[1]
    ):
        return f"position is {_show(position)}: write [k, N] with 1 <= k <= N."
    if turns is not None and not all(isinstance(turn, str) for turn in turns):
        return f"seeker_turns is {_show(turns)}: write a list of strings."
    return None


def _probability_problem(probabilities: dict[str, Any], labels: tuple[str, ...], taxonomy: Taxonomy) -> str | None:
    for label, value in probabilities.items():
        if not _is_label(label, labels, taxonomy):
            allowed = ", ".join(labels)
            return f"strategy_probabilities names {_show(label)}, no label of {taxonomy.name}: use {allowed}."
        if type(value) not in (int, float) or not 0 <= value <= 1:
            return f"strategy_probabilities gives {label} {_show(value)}: write a number from 0 to 1."
    total = sum(probabilities.values())
    if total > 1 + _SUM_TOLERANCE:
        return f"strategy_probabilities add up to {total:.4g}: normalise them to at most 1."
    return None


def _is_label(text: str, labels: tuple[str, ...], taxonomy: Taxonomy) -> bool:
    return text in labels or taxonomy.match(text) is not None


def _show(value: Any) -> str:
    """A value as JSON, cut to what fits in a sentence."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."
