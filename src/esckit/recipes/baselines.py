"""The stage ``baseline``: a prompted chat model predicts a split, through the run's own ledger."""

from typing import Any, Final

from esckit.chat_models.ledger import Ledger
from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.opening import check_chat_model, open_chat_model
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel
from esckit.conversation import Conversation, write_conversations
from esckit.corpora.starter import read_starter
from esckit.decoding import Decoding
from esckit.recipes.folder import Run
from esckit.recipes.stages import BaselineStage
from esckit.supporters.baseline_run import BaselineRun, write_rows
from esckit.supporters.baselines import METHODS, places_of

__all__ = ["LEDGER", "ask_baseline", "check_baseline"]

LEDGER: Final = "baselines.ledger"
"""In the run's folder, for all baseline stages: methods share their drafts, a stage that is run again its answers."""


def ask_baseline(this: Run, stage: BaselineStage, split: str) -> dict[str, Any]:
    """Predict every labelled supporter turn of a split; what failed before is asked again.

    Raises:
        BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
    """
    conversations: list[Conversation] = getattr(this.corpus, split)
    seed = this.recipe.seed  # not the stage's own: stages that ask the same share the answer
    places = places_of(conversations, METHODS[stage.method], lambda: read_starter().train, seed)
    decoding = Decoding(**stage.decoding.model_dump())
    pace = Pace(budget_calls=stage.budget_calls, budget_tokens=stage.budget_tokens)
    prompts = stage.read_prompts()
    with Ledger(this.folder / LEDGER) as ledger:
        ledger.forget_failed()
        run = BaselineRun(
            _model(this, stage),
            ledger,
            stage.method,
            places,
            decoding=decoding,
            pace=pace,
            seed=seed,
            prompts=prompts,
        )
        usages = [each.usage for each in run.ask()]
    states = write_rows(run.rows(), this.folder / stage.name / "predictions.jsonl")
    write_conversations(this.folder / stage.name / "conversations.jsonl", conversations)
    for state in ("without a strategy", "unparsed", "refused", "failed"):
        this.count(stage, f"turns {state}", states[state])
    return {
        "split": split,
        "turns": len(places),
        "dialogues": len(conversations),
        "prompts": prompts.label,
        "calls": sum(usage.calls for usage in usages),
        "prompt_tokens": sum(usage.prompt for usage in usages),
        "completion_tokens": sum(usage.completion for usage in usages),
    }


def check_baseline(stage: BaselineStage) -> None:
    """Refuse before anything is trained what a model could not be asked with.

    Raises:
        ChatError, ModelError: see `check_chat_model`.
        EsckitError: a user's prompts are wrong.
    """
    stage.read_prompts()
    if stage.model is not None:
        check_chat_model(stage.model, stage.base_url)


def _model(this: Run, stage: BaselineStage) -> ChatModel:
    if stage.model is not None:
        return open_chat_model(stage.model, stage.base_url, at_once=stage.at_once)
    return LocalChatModel(this.load_backbone(), batch_size=stage.at_once)
