"""Predictions that other programs wrote: LLaMA-Factory, DecoupledESC, and whoever names the fields likewise.

Their rows mostly name no dialogue. A row that holds a ``conversation_id`` keeps it; any other is taken for a dialogue
of its own, so that intervals and tests resample turns, which evaluation warns of, unless `matching` finds its dialogue.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from esckit.conversation.thoughts import without_thought
from esckit.errors import PredictionsError
from esckit.measures.predictions import FIELDS, REQUIRED, Prediction, collect
from esckit.measures.record_files import Placed, read_records
from esckit.measures.replies import bare_label, split_reply
from esckit.measures.tables import plain_name
from esckit.strategy import ESCONV, FAILED_ESCONV_TO_ESCONV, Taxonomy

Names = Callable[[str], str]
"""From a written label to the taxonomy's, where it is another name; else unchanged."""

SOURCES: Final = ("esckit", "llamafactory", "decoupled-esc")
_OWN: Final[Mapping[str, Mapping[str, str]]] = {
    "llamafactory": {"gold_text": "label", "predicted_text": "predict"},
    "decoupled-esc": {
        "gold_strategy": "GT_strategy",
        "predicted_strategy": "predict_strategy",
        "gold_text": "GT_content",
        "predicted_text": "predict_content",
    },
}
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "conversation_id": "dialogue_id dialog_id conv_id session_id",
    "turn_id": "utterance_id utt_id turn_index turn_idx turn_number turn",
    "gold_strategy": "gt_strategy true_strategy reference_strategy strategy_label label_strategy target_strategy "
    "strategy_gold strategy",
    "predicted_strategy": "predict_strategy pred_strategy strategy_prediction strategy_pred generated_strategy "
    "predicted_label",
    "gold_text": "gt_content gt_text gold_response gold_reply reference references ref gold ground_truth gt target "
    "label labels human_response",
    "predicted_text": "predict_content predicted_content predict prediction predictions predicted pred hypothesis hyp "
    "generated_text generated_response generated generation model_output model_response predicted_response",
}
"""How else fields are called, those that say most about themselves first; case, blanks and signs do not count."""

_EITHER: Final = ("response", "output", "answer", "completion", "reply")
"""What one side is called where the other side's name is plain: ms-swift's answer, or a data set's."""

_KNOWN: Final = (*FIELDS, *" ".join(_OTHER_NAMES.values()).split(), *_EITHER)
_IDS: Final = {"conversation_id", "turn_id"}
_MANY: Final = 5  # of esckit's six required fields, ids among them: whoever has them means its form


def import_predictions(path: Path | str, source: str | None = None, taxonomy: Taxonomy = ESCONV) -> list[Prediction]:
    """Read a predictions file as one of ``SOURCES``, or somebody with other names for the fields, wrote it.

    Args:
        path: JSON Lines, a JSON list, CSV or Parquet (`record_files.read_records`).
        source: ``esckit``; ``llamafactory``: rows of ``label`` and ``predict``, each ``[Strategy] text``, a strategy or
            a text alone; ``decoupled-esc``: rows of ``GT_strategy``, ``predict_strategy``, ``GT_content``,
            ``predict_content``; None: as the names of the fields tell, which may be written in other ways.
        taxonomy: the labels. FailedESConv's names for them are understood in gold labels, and in predictions where
            the file's gold labels use them; in a file with the taxonomy's own labels they are unparsed.

    Raises:
        PredictionsError: the source is unknown, or the file is missing, empty or malformed, breaks a rule, or has no
            gold text at all.
    """
    if source is not None and source not in SOURCES:
        raise PredictionsError(f"the source {source!r} is unknown: use one of {', '.join(SOURCES)}.")
    path = Path(path)
    rows = read_records(path, _KNOWN)
    for place, row in rows:
        if not isinstance(row, dict):
            raise PredictionsError(f"{place}: this is no JSON object: write one for each predicted supporter turn.")
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    ours = {plain_name(name): name for name in FIELDS}
    fields = {column: ours.get(plain_name(column), column) for column in columns}
    required = set(REQUIRED) & set(fields.values())
    if source == "esckit" or (source is None and required >= _IDS and len(required) >= _MANY):
        return collect(((place, _as_ours(row, fields)) for place, row in rows), taxonomy)
    return _imported(rows, _fields(columns, _OWN.get(source or "", {}), path), path, taxonomy)


def holds_trees(path: Path) -> bool:
    """Whether a file begins with a conversation tree; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and isinstance(first.get("turns"), list)


def _fields(columns: Sequence[str], own: Mapping[str, str], path: Path) -> dict[str, str]:
    """What each role's field is called in a file.

    Raises:
        PredictionsError: gold or prediction cannot be told.
    """
    plain = {plain_name(column): column for column in reversed(columns)}
    found = {role: name for role, name in own.items() if name in columns}
    for role, others in _OTHER_NAMES.items():
        match = next((plain[name] for name in map(plain_name, (role, *others.split())) if name in plain), None)
        if role not in found and match is not None and match not in found.values():
            found[role] = match
    either = [plain[name] for name in _EITHER if name in plain and plain[name] not in found.values()]
    for side, other in (("predicted", "gold"), ("gold", "predicted")):
        known = {role.partition("_")[0] for role in found}
        told = f"{other}_text" in found or (other in known and side not in known)
        if told and f"{side}_text" not in found and len(either) == 1:
            found[f"{side}_text"] = either.pop()
    found = {**own, **found}
    for side, name in (("gold", "label"), ("predicted", "predict")):
        if not any(role.startswith(side) for role in found):
            raise PredictionsError(
                f"{path} has no field for what is {side} that esckit knows (its fields: {', '.join(columns)[:200]}): "
                f"call it {name}, or {side}_text and {side}_strategy."
            )
    return found


def _imported(rows: Sequence[Placed], fields: Mapping[str, str], path: Path, taxonomy: Taxonomy) -> list[Prediction]:
    gold = fields.get("gold_strategy") or fields["gold_text"]
    _check_gold(rows, [fields[role] for role in ("gold_text", "gold_strategy") if role in fields], path)
    names = _names([row.get(gold) for _, row in rows], taxonomy)
    in_pairs = "gold_strategy" not in fields or (
        "predicted_strategy" not in fields and _any_labelled(rows, fields, names, taxonomy)
    )
    convert = _from_replies if in_pairs else _from_fields
    return collect(_converted(rows, lambda row: convert(row, fields, names, taxonomy), fields), taxonomy)


def _check_gold(rows: Sequence[Placed], fields: Sequence[str], path: Path) -> None:
    """Refuse a file whose gold fields hold nothing."""
    written = [row.get(field) for _, row in rows for field in fields]
    if all(isinstance(text, str) and not (without_thought(text) or "").strip() for text in written):
        raise PredictionsError(
            f"{path}: all {len(rows)} gold texts ({fields[0]}) are empty: predict with the human replies in the data "
            "set, for nothing can be compared without them."
        )


def _converted(
    rows: Sequence[Placed], convert: Callable[[dict[str, Any]], dict[str, Any]], fields: Mapping[str, str]
) -> Iterator[Placed]:
    for number, (place, row) in enumerate(rows, start=1):
        try:
            record = convert(row)
        except PredictionsError as error:
            raise PredictionsError(f"{place}: {error}") from error
        rest = {
            name: value
            for name, value in row.items()
            if name not in fields.values() and (name not in FIELDS or value != "")
        }
        ids = {
            role: row[name] for role, name in fields.items() if role.endswith("_id") and row.get(name) not in ("", None)
        }
        yield place, {"conversation_id": number, "turn_id": number, **rest, **ids, **record}


def _from_fields(row: dict[str, Any], fields: Mapping[str, str], names: Names, taxonomy: Taxonomy) -> dict[str, Any]:
    """Strategies and texts in fields of their own; beside a predicted strategy that is null, ``raw`` tells of it."""
    gold, predicted = (_of(row, fields, f"{side}_strategy", null=side == "predicted") for side in ("gold", "predicted"))
    planned, text = "predicted_strategy" in fields, _of(row, fields, "predicted_text", null=True)
    return {
        "gold_strategy": names(bare_label(gold or "")) or None,
        "predicted_strategy": None if not predicted else names(bare_label(predicted)),
        "gold_text": _of(row, fields, "gold_text") or "",
        "predicted_text": text,
        **({"raw": text or ""} if planned and not predicted else {}),
    }


def _from_replies(row: dict[str, Any], fields: Mapping[str, str], names: Names, taxonomy: Taxonomy) -> dict[str, Any]:
    """Each side a reply, ``[Strategy] text``; the gold strategy may have a field of its own."""
    label, written = _of(row, fields, "gold_text") or "", _of(row, fields, "predicted_text", null=True)
    said = None if written is None else without_thought(written)
    gold = split_reply(without_thought(label) or "", _matching(names, taxonomy))
    if "gold_strategy" in fields:
        gold = gold._replace(strategy=bare_label(_of(row, fields, "gold_strategy") or ""), text=gold.text or "")
    strategy, text = None, None if said is None else said.strip()
    if gold.strategy is not None and said is not None:
        strategy, text = split_reply(said, _matching(names, taxonomy))
        text = (text or "") if gold.text is not None else None
    return {
        "gold_strategy": None if gold.strategy is None else names(gold.strategy),
        "predicted_strategy": None if strategy is None else names(strategy),
        "gold_text": gold.text or "",
        "predicted_text": text,
        "raw": written,
    }


def _any_labelled(rows: Sequence[Placed], fields: Mapping[str, str], names: Names, taxonomy: Taxonomy) -> bool:
    """Whether a predicted text begins with a label."""
    match, field = _matching(names, taxonomy), fields.get("predicted_text", "")
    texts = [row[field] for _, row in rows if isinstance(row.get(field), str)]
    return any(match(split_reply(without_thought(text) or "", match).strategy or "") for text in texts)


def _matching(names: Names, taxonomy: Taxonomy) -> Callable[[str], str | None]:
    return lambda written: taxonomy.match(names(bare_label(written)))


def _names(gold: Sequence[Any], taxonomy: Taxonomy) -> Names:
    """Understand the aliases that the gold labels use, and only those: elsewhere such a prediction is unparsed."""
    labels = [split_reply(without_thought(text) or "", lambda label: None) for text in gold if isinstance(text, str)]
    written = {bare_label(each.strategy or each.text or "").casefold() for each in labels}
    aliases = {alias.casefold(): label for alias, label in FAILED_ESCONV_TO_ESCONV.items()}
    used = {alias: label for alias, label in aliases.items() if alias in written and taxonomy.match(label)}
    return lambda text: used.get(text.strip().casefold(), text)


def _of(row: Mapping[str, Any], fields: Mapping[str, str], role: str, *, null: bool = False) -> str | None:
    """The text of a row's field; None where the file has no such field, or where null is allowed and written.

    Raises:
        PredictionsError: the row lacks the field, or it holds no text.
    """
    if role not in fields:
        return None
    name = fields[role]
    if null and name not in row and role.endswith("strategy"):
        raise PredictionsError(f"{name} is missing: write a string, or null where nothing was predicted.")
    if null and name in row and row[name] is None:
        return None
    if not isinstance(row.get(name), str):
        raise PredictionsError(f"{name} is missing or no text: write a string.")
    return str(row[name])


def _as_ours(row: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """A row under esckit's own names; an empty cell of what may be null is null."""
    record = {fields[name]: value for name, value in row.items()}
    empty = [name for name in FIELDS if record.get(name) == "" and name not in ("gold_text", "predicted_text", "raw")]
    return record | dict.fromkeys(empty)
