"""Stage ``baseline``: a prompted chat model predicts a part of the corpus, through the run's ledger."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.chat_models.opening import PACE_KEYS, open_chat_model
from esckit.corpora.starter import read_starter
from esckit.recipes.identity import prompt_texts
from esckit.recipes.stages.predict import PREDICTIONS, PredictionsStage
from esckit.supporters.baseline_run import BaselineRun, write_rows
from esckit.supporters.baselines import METHODS, BaselineOptions, baseline_turns

if TYPE_CHECKING:
    from esckit.chat_models.protocol import ChatModel
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["BaselineStage"]


class BaselineStage(PredictionsStage, BaselineOptions):
    """Predicts a part by prompting a chat model, by default the run's backbone (`BaselineOptions`)."""

    stage: Literal["baseline"]

    elsewhere: ClassVar[frozenset[str]] = frozenset({"prompts", *PACE_KEYS})

    @property
    def uses_backbone(self) -> bool:
        return self.model is None

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        super().check_before(recipe, corpus)
        self.check_askable()

    def depends_on(self, run: "RunFolder") -> Any:
        return [prompt_texts(self.read_prompts()), run.source(self.model) if self.model else None]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Predict every labelled supporter turn; what failed before is asked again.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
        """
        conversations = self.dialogues(run)
        seed = run.recipe.seed  # not the stage's own: stages that ask the same share the answer
        turns = baseline_turns(conversations, METHODS[self.method], lambda: read_starter().train, seed)
        with Ledger(run.folder / LEDGER) as ledger:
            ledger.forget_failed()
            asked = BaselineRun(self._chat_model(run), ledger, self, turns, seed=seed)
            usages = [each.usage for each in asked.ask()]
        states = write_rows(asked.rows(), run.folder / self.name / PREDICTIONS)
        self.write_trees(run)
        run.count(self, "turns without a strategy", states["no_strategy"])
        for state in ("unparsed", "refused", "failed"):
            run.count(self, f"turns {state}", states[state])
        return {
            "split": self.split_in(run.corpus),
            "turns": len(turns),
            "dialogues": len(conversations),
            "prompts": asked.prompts.label,
            "calls": sum(usage.calls for usage in usages),
            "prompt_tokens": sum(usage.prompt for usage in usages),
            "completion_tokens": sum(usage.completion for usage in usages),
        }

    def _chat_model(self, run: "RunFolder") -> "ChatModel":
        if self.model is not None:
            return open_chat_model(self)
        from esckit.chat_models.local import LocalChatModel

        backbone = run.load_backbone()
        return LocalChatModel(backbone, self.concurrency) if self.concurrency else LocalChatModel(backbone)
