"""The stage ``baseline``: a prompted chat model predicts a split, through the run's ledger."""

from typing import Any

from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.opening import open_chat_model
from esckit.chat_models.protocol import ChatModel
from esckit.conversation import Conversation, write_conversations
from esckit.corpora.starter import read_starter
from esckit.recipes.folder import Run
from esckit.recipes.stages import BaselineStage
from esckit.supporters.baseline_run import BaselineRun, write_rows
from esckit.supporters.baselines import METHODS, baseline_turns

__all__ = ["ask_baseline"]


def ask_baseline(this: Run, stage: BaselineStage, split: str) -> dict[str, Any]:
    """Predict every labelled supporter turn of a split; what failed before is asked again.

    Raises:
        BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
    """
    conversations: list[Conversation] = getattr(this.corpus, split)
    seed = this.recipe.seed  # not the stage's own: stages that ask the same share the answer
    turns = baseline_turns(conversations, METHODS[stage.method], lambda: read_starter().train, seed)
    with Ledger(this.folder / LEDGER) as ledger:
        ledger.forget_failed()
        run = BaselineRun(_model(this, stage), ledger, stage, turns, seed=seed)
        usages = [each.usage for each in run.ask()]
    states = write_rows(run.rows(), this.folder / stage.name / "predictions.jsonl")
    write_conversations(this.folder / stage.name / "conversations.jsonl", conversations)
    this.count(stage, "turns without a strategy", states["no_strategy"])
    for state in ("unparsed", "refused", "failed"):
        this.count(stage, f"turns {state}", states[state])
    return {
        "split": split,
        "turns": len(turns),
        "dialogues": len(conversations),
        "prompts": run.prompts.label,
        "calls": sum(usage.calls for usage in usages),
        "prompt_tokens": sum(usage.prompt for usage in usages),
        "completion_tokens": sum(usage.completion for usage in usages),
    }


def _model(this: Run, stage: BaselineStage) -> ChatModel:
    if stage.model is not None:
        return open_chat_model(stage)
    backbone = this.load_backbone()
    return LocalChatModel(backbone, stage.concurrency) if stage.concurrency else LocalChatModel(backbone)
