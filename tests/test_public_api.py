"""``import esckit``: name by name, light, and the examples of docs/python.md."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import GenericAlias
from typing import Any, Final

import pytest

import esckit
from esckit.conversation import write_conversations
from esckit.measures import Prediction, prediction_to_json
from tests.conftest import ROOT
from tests.tiny import save_base, starter_dialogues, write_supporter

WITHOUT_TORCH: Final = (
    *("REASONS", "TAXONOMIES", "AnnotatorOptions", "Conversation", "Corpus", "Decoding", "EsckitError", "GrowingTree"),
    *(
        "JudgingOptions",
        "MiningOptions",
        "PlannerOptions",
        "Prediction",
        "Preference",
        "SearchOptions",
        "Taxonomy",
        "Turn",
        "Verdict",
    ),
    *("add_predictions", "agreement", "annotate", "bradley_terry", "check_conversation", "check_files", "compare"),
    *("corpus_statistics", "evaluate", "import_predictions", "iterate_conversations", "judge_files", "load_corpus"),
    *(
        "load_recipe",
        "mined_id",
        "open_annotator",
        "open_supporter",
        "prediction_from_json",
        "prediction_to_json",
        "predictions_in",
    ),
    *("RefinementOptions", "read_conversations", "read_corpus", "read_predictions", "read_ratings", "shipped_recipes"),
    *("DerivationOptions", "RoleBank", "derive_corpus", "read_bank", "write_conversations", "write_corpus"),
)
WITH_TORCH: Final = (
    *("Candidate", "Chat", "Miner", "Supporter", "TurnRequest", "embedded_supporter", "make_supporter", "predict"),
    *("export_adapters", "predict_conversation", "refine_corpus", "run", "search_dialogues"),
)


def test_every_name_is_listed_here() -> None:
    assert sorted([*WITHOUT_TORCH, *WITH_TORCH, "__version__"]) == sorted(esckit.__all__)


@pytest.mark.parametrize("name", [*WITHOUT_TORCH, *WITH_TORCH])
def test_a_name_can_be_had_and_is_documented(name: str) -> None:
    found = getattr(esckit, name)
    if callable(found) and not isinstance(found, GenericAlias):
        assert (found.__doc__ or "").strip()


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(esckit, "no_such_name")  # noqa: B009 - mypy knows that it is not there


def test_trees_corpora_and_measures_need_no_torch() -> None:
    code = f"import esckit, sys\nfor name in {WITHOUT_TORCH!r}: getattr(esckit, name)\nprint('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def _blocks() -> list[Any]:
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    titles, codes = re.findall(r"^## (.*)$", text, re.MULTILINE), re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(titles) == len(codes) >= 10
    return list(zip(titles, codes, strict=True))


def _prepare(folder: Path) -> None:
    """The files that the examples read, small ones."""
    dialogues = starter_dialogues(3, 8)
    write_conversations(folder / "train.json", dialogues)
    write_supporter(folder / "runs/starter/decoupled", "decoupled")
    save_base(folder / "models/my-model")
    for name, wrong in (("coupled", 2), ("decoupled", 3)):
        rows = [
            Prediction(
                conversation_id=dialogue.id,
                turn_id=turn.id,
                gold_strategy=str(turn.strategy),
                predicted_strategy=str(turn.strategy) if number % wrong else "Question",
                gold_text=turn.text or "",
                predicted_text="How do you feel about it?",
            )
            for dialogue in dialogues
            for number, turn in enumerate(dialogue.trunk)
            if turn.strategy
        ]
        lines = [json.dumps(prediction_to_json(row)) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one namespace, from top to bottom, as in a notebook."""
    pytest.importorskip("pandas")
    _prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for title, code in _blocks():
        exec(compile(code, title, "exec"), names)
    assert (tmp_path / "grown.jsonl").exists()
    assert len(names["candidates"]) == 3
    assert {each.strategy for each in names["candidates"]} & {"Question"} == set()
    assert names["reply"].text is not None
    assert sum(names["supporter"].plan("Hello.").values()) == pytest.approx(1)
