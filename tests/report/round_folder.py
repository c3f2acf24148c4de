"""A run's folder with rounds of self-refinement, as the runner would have left it."""

import json
from pathlib import Path
from typing import Any

from esckit.files import write_json
from tests.report.folder import HOSTILE, PAIRS

FILTERS = ("first turn", "last turns", "empty draft", "unparsed", "longer than the draft", "near-equal", "not accepted")


def add_rounds(folder: Path, *, stopped: bool = False) -> Path:
    """Give the run of `make_run` two rounds; ``stopped``: the first was not kept, and the second was not made."""
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    recipe["stages"][-1:-1] = [
        stage
        for number, before in ((1, "coupled-sft"), (2, "kept-1"))
        for stage in (
            {
                "stage": "refine",
                "name": f"refined-{number}",
                "model": before,
                "trees": "refined-1" if number > 1 else None,
            },
            {"stage": "preference", "name": f"dpo-{number}", "start": before, "pairs": f"refined-{number}"},
            {"stage": "keep", "name": f"kept-{number}", "start": f"dpo-{number}", "before": before},
        )
    ]
    write_json(folder / "recipe.json", recipe)
    add_round(folder, 1, [2, 0, 1, 3, 2, 0, 0])
    add_preference(folder, 1)
    add_keep(folder, 1, "coupled-sft", better=not stopped)
    if stopped:
        why = "dpo-1 is not above coupled-sft by rouge_l_utterance (difference -0.0100)"
        skip(folder, "refine", "refined-2", why)
        skip(folder, "preference", "dpo-2", f"refined-2 was skipped: {why}")
        record(folder, "keep", "kept-2", {"kept": "kept-1", "stopped": True, "why": why})
    else:
        relevance = {"chosen": 0.31, "rejected": 0.22, "likeness": 0.81, "likeness_interval": [0.7, 0.9], "pairs": 20}
        replaced = {"unparsed": 1, "longer than the draft": 3}
        add_round(folder, 2, [2, 0, 0, 0, 0, 5, 3], refiner=HOSTILE, relevance=relevance, replaced=replaced)
        add_preference(folder, 2)
        add_keep(folder, 2, "kept-1", better=False, stops=False)
    return folder


def record(folder: Path, kind: str, name: str, facts: dict[str, Any], state: str = "done") -> None:
    write_json(
        folder / f"stages/{name}.json", {"name": name, "stage": kind, "state": state, "seconds": 5.0, "facts": facts}
    )


def skip(folder: Path, kind: str, name: str, why: str) -> None:
    record(folder, kind, name, {"why": why}, "skipped")


def add_round(folder: Path, number: int, taken: list[int], **changes: Any) -> None:
    """What a refine stage writes; ``taken``: by each of FILTERS."""
    found = {
        "refined_by": "model",
        "refiner": "remote:large",
        "mode": "paper" if "replaced" in changes else "ours",
        "round": number,
        "drafted_by": "coupled-sft" if number == 1 else "kept-1",
        "rejected_from": "current",
        "dialogues": 4,
        "swapped": 0,
        "merged": 0,
        "contexts": 26,
        "filters": dict(zip(FILTERS, taken, strict=True)),
        "replaced": {},
        "pairs": 20,
        "from_people": 4,
        "scores": {"1": 1, "2": 4, "3": 15, "4": 0, "5": 0},
        "calls": {"draft": 26, "refine": 26, "accept": 0},
        "words": {"chosen": 20.5 + number, "rejected": 14.25, "longer_chosen": 0.75},
        "tokens": {"prompt": 12000, "completion": 3400},
        "relevance": {"chosen": 0.28, "rejected": 0.2, "likeness": 0.6},
    }
    write_json(folder / f"refined-{number}/refinement.json", {**found, **changes})
    write_json(folder / f"refined-{number}/pairs.json", {**PAIRS, "pairs": 20})
    record(folder, "refine", f"refined-{number}", {"round": number, "pairs": 20, "calls": 52})


def add_preference(folder: Path, number: int) -> None:
    """What a preference stage writes, as far as it is read."""
    facts = {"pairs": 20, "duplicates": 0, "longer_chosen": 15, "length_ratio": 1.4}
    record(folder, "preference", f"dpo-{number}", facts)


def add_keep(folder: Path, number: int, before: str, *, better: bool, stops: bool = True) -> None:
    """What a keep stage writes."""
    sign = 1 if better else -1
    found = {
        "candidate": f"dpo-{number}",
        "before": before,
        "measure": "rouge_l_utterance",
        "bar": "lower",
        "dialogues": 4,
        "contexts": 1234,
        "difference": 0.0123 * sign,
        "interval": sorted([0.001 * sign, 0.0234 * sign]),
        "better": better,
        "stops": stops,
        "stopped": stops and not better,
        "kept": before if stops and not better else f"dpo-{number}",
    }
    write_json(folder / f"kept-{number}/keep.json", found)
    record(folder, "keep", f"kept-{number}", {"kept": found["kept"], "stopped": found["stopped"], "why": "told"})
