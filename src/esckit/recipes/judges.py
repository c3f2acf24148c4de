"""The judge stage: a language model scores what predict stages predicted."""

from typing import TYPE_CHECKING, Any

from esckit.chat_models.ledger import LEDGER
from esckit.conversation import read_conversations
from esckit.judging.judge_run import judge_files
from esckit.judging.plan import mining_judges
from esckit.measures import read_predictions
from esckit.recipes.stages import JudgeStage, MineStage
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.recipes.folder import Run

__all__ = ["judge_predictions"]


def judge_predictions(this: "Run", stage: JudgeStage) -> dict[str, Any]:
    """Let a judge score predictions; it is flagged where it judged the preferences of one of the run's mine stages.

    The ledger stands beside the stages' folders: a stage that is run afresh pays for nothing twice.
    """
    taxonomy = TAXONOMIES[this.taxonomy]
    mined = [this.folder / other.name / "trees.jsonl" for other in this.recipe.stages if isinstance(other, MineStage)]
    found = judge_files(
        {name: read_predictions(this.folder / name / "predictions.jsonl", taxonomy) for name in stage.predictions},
        read_conversations(this.folder / stage.predictions[0] / "conversations.jsonl"),
        stage,
        this.folder / stage.name,
        ledger=this.folder / LEDGER,
        miners=sorted({judge for path in mined if path.exists() for judge in mining_judges(read_conversations(path))}),
        seed=this.seed(stage),
    )
    rows = [*found["scores"], *((found["known_groups"] or {}).get("scores", ())), *found["pairs"]]
    for state in ("unparsed", "refused", "failed"):
        this.count(stage, f"verdicts {state}", sum(row["states"][state] for row in rows))
    return {
        "judge": found["judge"],
        "turns": found["turns"],
        "prompts": found["prompts"],
        "also_mined": found["also_mined"],
    }
