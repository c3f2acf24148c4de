"""The files of a judging: every verdict, the figures, and a sheet on which people rate the same replies blindly."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from esckit.errors import EsckitError
from esckit.files import atomic_write, read_text, write_json, write_jsonl
from esckit.judging.judge_questions import Scoring
from esckit.judging.plan import JudgeAnswers, JudgePlan
from esckit.judging.rubric import CAPPED
from esckit.measures.judgements import Judgement
from esckit.measures.judging_results import Judging
from esckit.measures.tables import sheet_cell

FIGURES: Final = "judging.json"
JUDGEMENTS: Final = "judgements.jsonl"
CONTESTS: Final = "pairs.jsonl"
SHEET: Final = "sheet.csv"
_COLUMNS: Final = ("item", "rater", "rating", "quality", "question", "scale", "talk", "reply")
_LIKE_A_NUMBER: Final = re.compile(r"\d+(e\d+)?")  # a spreadsheet would write it its own way
_ADAPTER: Final = TypeAdapter(Judgement)


def write_judging(folder: Path, judged: JudgeAnswers, plan: JudgePlan, found: Judging) -> None:
    """Write ``judgements.jsonl``, ``pairs.jsonl``, ``sheet.csv`` and last ``judging.json``.

    Raises:
        EsckitError: the folder cannot be written.
    """
    rows = [{"item": item_of(each), "known_group": False, **asdict(each)} for each in judged.judgements]
    rows += [{"item": item_of(each), "known_group": True, **asdict(each)} for each in judged.groups]
    write_jsonl(folder / JUDGEMENTS, rows)
    write_jsonl(folder / CONTESTS, ({**asdict(each), "winner": each.winner} for each in judged.contests))
    with atomic_write(folder / SHEET) as file:
        file.write(_sheet(plan.scorings))
    write_json(folder / FIGURES, found.to_json())


def item_of(judgement: Judgement) -> str:
    """A name for a reply and a quality that does not tell who wrote the reply; people's ratings need no caps."""
    parts = [judgement.system, judgement.conversation_id, judgement.turn_id, judgement.rubric.removesuffix(CAPPED)]
    name = sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return f"x{name[1:]}" if _LIKE_A_NUMBER.fullmatch(name) else name


def read_judgements(folder: Path) -> dict[str, list[tuple[Judgement, bool]]]:
    """Read ``judgements.jsonl``: item to its judgements (with and without the reference), and if of a known group.

    Raises:
        EsckitError: the folder holds no judging, or a line is none.
    """
    path = folder / JUDGEMENTS
    text = read_text(path, what=f"a folder that esckit judge wrote (it holds {JUDGEMENTS})", error=EsckitError)
    found: dict[str, list[tuple[Judgement, bool]]] = {}
    for number, line in enumerate(filter(None, text.split("\n")), 1):
        try:
            row = json.loads(line)
            item, known = str(row.pop("item")), bool(row.pop("known_group"))
            found.setdefault(item, []).append((_ADAPTER.validate_python(row), known))
        except (ValueError, KeyError, AttributeError, ValidationError) as error:
            raise EsckitError(f"{path}, line {number} is no judgement: run esckit judge into it again.") from error
    return found


def _sheet(scorings: Sequence[Scoring]) -> str:
    """A row an item in the order of items, which shuffles systems; rater and rating are to be filled in.

    A byte-order mark tells spreadsheets that it is UTF-8, and no cell is a formula.
    """
    rows = {}
    for scoring in scorings:
        rubric, turn = scoring.rubric, scoring.turn
        item = item_of(Judgement(scoring.system, *turn.key, rubric.name, False, "done", None, 0))
        talk = "\n".join(f"{said.speaker}: {said.text or ''}" for said in turn.context)
        told = rubric.name, rubric.question, rubric.scale_text, talk, scoring.reply
        rows[item] = (item, "", "", *map(sheet_cell, told))
    written = io.StringIO("\ufeff", newline="")
    written.seek(0, io.SEEK_END)
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows[item] for item in sorted(rows))
    return written.getvalue()
