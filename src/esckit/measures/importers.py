"""Predictions that other programs wrote: LLaMA-Factory's generated_predictions.jsonl, DecoupledESC's outputs.

Their rows name no dialogue. A row that holds a ``conversation_id`` keeps it; any other is taken for a dialogue of its
own, so that intervals and tests resample turns, which evaluation warns of.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from esckit.errors import PredictionsError
from esckit.files import read_text
from esckit.measures.predictions import Prediction, collect, decode_printable, read_lines, read_predictions
from esckit.strategy import ESCONV, FAILED_ESCONV_TO_ESCONV, Taxonomy

_REPLY: Final = re.compile(r"\s*\[([^\[\]]*)\](.*)", re.DOTALL)

Names = Callable[[str], str]
"""From a written label to the taxonomy's, where it is another name; else unchanged."""


def import_predictions(path: Path | str, source: str, taxonomy: Taxonomy = ESCONV) -> list[Prediction]:
    """Read a predictions file as one of ``SOURCES`` wrote it.

    Args:
        path: JSON Lines; a JSON list too where the file is not esckit's.
        source: ``esckit``; ``llamafactory``: rows of ``label`` and ``predict``, each ``[Strategy] text``, a strategy or
            a text alone; ``decoupled-esc``: rows of ``GT_strategy``, ``predict_strategy``, ``GT_content``,
            ``predict_content``.
        taxonomy: the labels. FailedESConv's names for them are understood in gold labels, and in predictions where
            the file's gold labels use them; in a file with the taxonomy's own labels they are unparsed.

    Raises:
        PredictionsError: the source is unknown, or the file is missing, empty or malformed, or breaks a rule.
    """
    if source not in SOURCES:
        raise PredictionsError(f"the source {source!r} is unknown: use one of {', '.join(SOURCES)}.")
    if source == "esckit":
        return read_predictions(path, taxonomy)
    convert, gold = (_llamafactory, "label") if source == "llamafactory" else (_decoupled_esc, "GT_strategy")
    rows = list(_read_records(Path(path)))
    names = _names([row.get(gold) for _, row in rows if isinstance(row, dict)], taxonomy)
    return collect(_converted(rows, convert, names, taxonomy), taxonomy)


SOURCES: Final = ("esckit", "llamafactory", "decoupled-esc")


def _read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Decode JSON Lines, or one JSON list."""
    text = read_text(path, what="a predictions file", error=PredictionsError)
    if not text.lstrip().startswith("["):
        yield from read_lines(path)
        return
    try:
        records = decode_printable(text)
    except json.JSONDecodeError as error:
        raise PredictionsError(f"{path} is not JSON ({error}): give a complete JSON list or JSON Lines.") from error
    if not records:
        raise PredictionsError(f"{path} is an empty list: give one object for each predicted supporter turn.")
    yield from ((f"{path}, row {number}", record) for number, record in enumerate(records, start=1))


def _converted(
    rows: list[tuple[str, Any]],
    convert: Callable[[dict[str, Any], Names, Taxonomy], dict[str, Any]],
    names: Names,
    taxonomy: Taxonomy,
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, (place, row) in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise PredictionsError(f"{place}: this is no JSON object: write one for each predicted supporter turn.")
        try:
            record = convert(row, names, taxonomy)
        except PredictionsError as error:
            raise PredictionsError(f"{place}: {error}") from error
        yield place, {"conversation_id": number, "turn_id": number, **record}


def _decoupled_esc(row: dict[str, Any], names: Names, taxonomy: Taxonomy) -> dict[str, Any]:
    gold, predicted = _text(row, "GT_strategy"), _text_or_null(row, "predict_strategy")
    converted = {
        "gold_strategy": names(_unbracketed(gold)),
        "predicted_strategy": None if predicted is None else names(_unbracketed(predicted)),
        "gold_text": _text(row, "GT_content"),
        "predicted_text": _text_or_null(row, "predict_content"),
    }
    return {**_rest(row, "GT_strategy", "predict_strategy", "GT_content", "predict_content"), **converted}


def _llamafactory(row: dict[str, Any], names: Names, taxonomy: Taxonomy) -> dict[str, Any]:
    label, written = _text(row, "label"), _text(row, "predict")
    gold_strategy, gold_text = _split_reply(label, names, taxonomy)
    strategy: str | None = None
    text: str | None = written.strip()
    if gold_strategy is not None:
        strategy, text = _split_reply(written, names, taxonomy)
        text = (text or "") if gold_text is not None else None
    converted = {
        "gold_strategy": gold_strategy,
        "predicted_strategy": strategy,
        "gold_text": gold_text or "",
        "predicted_text": text,
        "raw": written,
    }
    return {**_rest(row, "label", "predict"), **converted}


def _split_reply(reply: str, names: Names, taxonomy: Taxonomy) -> tuple[str | None, str | None]:
    """Take ``[Strategy] text`` apart; a label alone, with or without brackets, has no text, a text no strategy."""
    found = _REPLY.fullmatch(reply)
    if found is None:
        alone = taxonomy.match(names(reply))
        return (alone, None) if alone else (None, reply.strip())
    return names(found[1]), found[2].strip() or None


def _names(gold: list[Any], taxonomy: Taxonomy) -> Names:
    """Understand the aliases that the gold labels use, and only those: elsewhere such a prediction is unparsed."""
    written = {_label_of(text).casefold() for text in gold if isinstance(text, str)}
    aliases = {alias.casefold(): label for alias, label in FAILED_ESCONV_TO_ESCONV.items()}
    used = {alias: label for alias, label in aliases.items() if alias in written and taxonomy.match(label)}
    return lambda text: used.get(text.strip().casefold(), text)


def _label_of(reply: str) -> str:
    found = _REPLY.fullmatch(reply)
    return (found[1] if found else reply).strip()


def _unbracketed(label: str) -> str:
    return label.strip().removeprefix("[").removesuffix("]")


def _rest(row: dict[str, Any], *used: str) -> dict[str, Any]:
    """Fields that the source's own names do not take: ids, a group, past_strategies, anything else."""
    return {name: value for name, value in row.items() if name not in used}


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise PredictionsError(f"{name} is missing or no text: write a string.")
    return str(row[name])


def _text_or_null(row: dict[str, Any], name: str) -> str | None:
    if name not in row:
        raise PredictionsError(f"{name} is missing: write a string, or null where nothing was predicted.")
    return None if row[name] is None else _text(row, name)
