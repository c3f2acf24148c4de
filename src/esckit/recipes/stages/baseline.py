"""Stage ``baseline``: a prompted chat model predicts a part of the corpus, through the run's ledger."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.chat_models.ledger import LEDGER, Ledger, UsageSummary
from esckit.chat_models.opening import PACE_KEYS
from esckit.corpora.starter import starter_in
from esckit.recipes.identity import prompt_texts
from esckit.recipes.stages.predict import PREDICTIONS, PredictionsStage
from esckit.supporters.baselines import BaselineOptions
from esckit.supporters.open_model import check_model, open_model
from esckit.supporters.prompted import PromptedSupporter, corpus_requests, predict_at_once

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
        check_model(self)

    def depends_on(self, run: "RunFolder") -> Any:
        return [prompt_texts(self.read_prompts(), run.languages), run.source(self.model) if self.model else None]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Predict every labelled supporter turn; what failed before is asked again.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
        """
        conversations = self.dialogues(run)
        seed = run.recipe.seed  # not the stage's own: stages that ask the same share the answer
        requests, usages = corpus_requests(conversations, self, seed), list[UsageSummary]()
        with Ledger(run.folder / LEDGER) as ledger:
            ledger.forget_failed()
            supporter = PromptedSupporter(
                self._chat_model(run),
                ledger,
                self,
                examples=lambda: starter_in(conversations[0].language).train,
                tell=lambda question, usage: usages.append(usage),
            )
            states = predict_at_once(supporter, conversations, requests, run.folder / self.name / PREDICTIONS)
        self.write_trees(run)
        run.count(self, "turns without a strategy", states["no_strategy"])
        for state in ("unparsed", "refused", "failed"):
            run.count(self, f"turns {state}", states[state])
        return {
            "split": self.split_in(run.corpus),
            "turns": len(requests),
            "dialogues": len(conversations),
            "prompts": supporter.prompts.label,
            "calls": sum(usage.calls for usage in usages),
            "prompt_tokens": sum(usage.prompt for usage in usages),
            "completion_tokens": sum(usage.completion for usage in usages),
        }

    def _chat_model(self, run: "RunFolder") -> "ChatModel":
        if self.model is not None:
            return open_model(self)
        from esckit.chat_models.local import LocalChatModel

        backbone = run.load_backbone()
        return LocalChatModel(backbone, self.concurrency) if self.concurrency else LocalChatModel(backbone)
