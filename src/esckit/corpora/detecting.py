"""Which format a file has, told from what its dialogues look like; a form that tells too little is refused.

Two corpora may share a form and differ in their licences, and rows for instruction tuning do not say where a dialogue
ends: then the sentence says which formats it could be, and the user names one.
"""

from pathlib import Path
from typing import Any, Final

from esckit.corpora.encodings import lines_of
from esckit.corpora.forms import form_of, told_fields
from esckit.corpora.source_files import Record, dialogue_records, is_parquet
from esckit.corpora.speakers import role_of
from esckit.errors import CorpusError

_FAILED: Final = {"speaker", "listener"}
_COUNSELLING: Final = {"client", "counselor", "counsellor"}
_HOW: Final = "--format; where a command has none, convert the file first: esckit corpus convert --from"
_UNSURE: Final = {
    "counselling": "could be cpsycoun or smile, which differ in their licences",
    "marked": "is in no format that esckit knows for certain: one dialogue in marked lines is cpsycoun's or anybody's "
    "(marked_lines)",
    "alpaca": "is in no format that esckit knows for certain: rows for instruction tuning with a history may be "
    "cpsycoun's, a dialogue each, or one a reply",
}


def detect_format(path: Path, known: tuple[str, ...]) -> str:
    """The format that the file's first clear dialogue shows.

    Raises:
        CorpusError: it is none of those known, or could be several, or the file is empty.
    """
    if not path.is_dir() and not is_parquet(path):
        start = next((line.lstrip() for _, line in lines_of(path) if line.strip()), None)
        if start is None:
            raise CorpusError(f"{path} is empty: give a file with at least one dialogue.")
        if "main_therapist_behaviour" in start and start[0] not in "[{":
            return "annomi"
    broken: Record | None = None
    first: Any = None
    for record in dialogue_records(path):
        if record.problem is not None:
            broken = broken or record
            continue
        shown = _format_of(record, path)
        if shown in _UNSURE:
            raise CorpusError(f"{path} {_UNSURE[shown]}: name the format ({_HOW}).")
        if shown:
            return shown
        first = record.value if first is None else first
    return _none(path, known, first, broken)


def _none(path: Path, known: tuple[str, ...], first: Any, broken: Record | None) -> str:
    if first is None and broken is None:
        return "esconv"  # a list without dialogues, which has no other form than any other
    if first is None and broken is not None and str(broken.problem).startswith("not valid JSON"):
        raise CorpusError(f"{path}:{broken.line}: {broken.problem}")
    has = told_fields(first) if first is not None else "text that is no JSON and has no speakers' marks"
    raise CorpusError(
        f"{path} is in no format that esckit knows ({', '.join(known)}); it has {has}: "
        "convert it into one of them, as docs/corpora.md describes."
    )


def _format_of(record: Record, path: Path) -> str | None:
    item = record.value
    if isinstance(item, dict) and isinstance(item.get("format"), int):
        return "tree"
    if isinstance(item, dict) and any(_is_extes(each) for each in _list(item.get("content"))):
        return "extes"
    form = form_of(item)
    if form in ("dialog", "rows"):
        return _of_dialog(item["dialog"], form)
    if form == "pairs":
        return "augesc"
    if form == "list":
        names = {each.get("role") for each in item if isinstance(each, dict)}
        return "smile" if names & _COUNSELLING else "messages"
    if form == "marked" and (path.is_dir() or record.name == path.stem):
        return "marked"
    return "marked_lines" if form == "marked" else form


def _of_dialog(entries: list[Any], form: str) -> str | None:
    names = {str(each.get("speaker")) for each in entries if isinstance(each, dict)}
    if names & _FAILED:
        return "failed_esconv"
    if names & _COUNSELLING:
        return "counselling"
    return "esconv" if form == "dialog" or any(map(role_of, names)) else None


def _is_extes(entry: Any) -> bool:
    return isinstance(entry, dict) and ("User" in entry or "AI" in entry)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
