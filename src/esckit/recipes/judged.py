"""Rule ``judged`` of a mine stage: what was sampled is judged by the recipe's annotator, and pairs are kept."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

from esckit.chat_models.ledger import LEDGER
from esckit.conversation import PSYCHOLOGICAL_ERRORS, read_conversations
from esckit.judging.open_annotator import open_annotator
from esckit.mining.inferential import mining_counts
from esckit.mining.judged_pairs import Keeper, judge_sampled
from esckit.recipes.folder import Run
from esckit.recipes.recipe import Recipe
from esckit.recipes.stages import MineStage, PreferenceStage

__all__ = ["SAMPLED", "judge_pairs", "judged_facts", "no_pairs"]

SAMPLED: Final = "sampled.jsonl"
"""In a mine stage's folder: the trees with what was sampled, before anyone has judged it."""

_STATES: Final = ("unparsed", "refused", "failed")


def judge_pairs(this: Run, stage: MineStage, sampled: Path, out: Path) -> Counter[str]:
    """Judge what a mine stage sampled, write the trees with verdicts and preferences, and return what was counted."""
    if not out.exists():  # a stop may have come after it
        _judge(this, stage, sampled, out)
    counts = mining_counts(read_conversations(out), stage.model)
    for event in ("blames what is gold's", "chosen faulty", "chosen not judged"):
        this.count(stage, event, counts[event])
    for state in _STATES:
        this.count(stage, f"judged {state}", counts[f"judged {state}"] + counts[f"gold judged {state}"])
    return counts


def _judge(this: Run, stage: MineStage, sampled: Path, out: Path) -> None:
    part = this.recipe.sft_of(stage.model).part
    with open_annotator(this.recipe.annotator, this.folder / LEDGER) as annotator:
        judge_sampled(
            read_conversations(sampled),
            annotator,
            Keeper(part, stage.model, stage.clean_chosen, annotator.judge),
            out,
            key=this.fingerprint(stage),
            title=f"{stage.name} judged",
        )


def judged_facts(counts: Counter[str]) -> dict[str, Any]:
    """For a stage's record: outcomes of sampled and gold turns, and kept pairs by reason and kind."""
    outcomes = (*PSYCHOLOGICAL_ERRORS, "none", *_STATES)

    def table(prefix: str, names: tuple[str, ...]) -> dict[str, int]:
        return {name: counts[f"{prefix} {name}"] for name in names if counts[f"{prefix} {name}"]}

    return {
        "judged": table("judged", outcomes),
        "gold_judged": table("gold judged", outcomes),
        "reasons": table("kept", PSYCHOLOGICAL_ERRORS),
        "kinds": table("kept", ("PsNr", "NsNr", "NsPr")),
    }


def no_pairs(recipe: Recipe, stage: PreferenceStage, mined: int) -> str:
    """The one sentence where there is nothing to align on."""
    mining = recipe.named(stage.pairs)
    assert isinstance(mining, MineStage)
    if mined:
        return (
            f"stage {stage.name!r} finds no pair of its kinds among the {mined} of {mining.name!r}: take other kinds."
        )
    judged = "set its clean_chosen to false, take another annotator, or " if mining.rule == "judged" else ""
    return f"stage {mining.name!r} kept no preference pair: {judged}raise its samples or its temperature."
