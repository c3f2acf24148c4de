"""Stage ``baseline``: a prompted chat model predicts a part of the corpus, through the run's own ledger."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import check_chat_model, open_chat_model
from esckit.chat_models.pacing import Pace
from esckit.corpora.starter import read_starter
from esckit.decoding import Decoding
from esckit.prompts.own import Prompts, read_prompts
from esckit.recipes.identity import prompt_texts
from esckit.recipes.stage import DecodingConfig
from esckit.recipes.stages.predict import PredictionsStage
from esckit.supporters.baseline_run import BaselineRun, write_rows
from esckit.supporters.baselines import METHODS, places_of

if TYPE_CHECKING:
    from esckit.chat_models.protocol import ChatModel
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["LEDGER", "BaselineStage"]

LEDGER: Final = "baselines.ledger"
"""In the run's folder, for all baseline stages: methods share their drafts, a stage that is run again its answers."""


class BaselineStage(PredictionsStage):
    """Predicts a part by prompting a chat model (`supporters.baselines`).

    Attributes:
        method: which baseline.
        model: ``remote:MODEL``, a chat model behind a URL, whose key stands in OPENAI_API_KEY, or the folder or Hub id
            of one; null is the run's backbone.
        base_url: of ``remote:MODEL``, up to and including ``/v1``; null is OpenAI's.
        prompts: a folder with prompts of the user's own (`prompts.own`).
        decoding: of every answer.
        at_once: the most calls at once; of a model on this machine, prompts a batch.
        budget_calls, budget_tokens: that the run's ledger of baselines may hold.
    """

    stage: Literal["baseline"]
    method: str
    model: str | None = None
    base_url: str | None = None
    prompts: str | None = None
    decoding: DecodingConfig = DecodingConfig(max_new_tokens=256)
    at_once: int = Field(16, ge=1)
    budget_calls: int | None = Field(None, ge=1)
    budget_tokens: int | None = Field(None, ge=1)

    elsewhere: ClassVar[frozenset[str]] = frozenset({"prompts", "at_once", "budget_calls", "budget_tokens"})

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.method not in METHODS:
            raise ValueError(f"there is no baseline {self.method!r}: use one of {', '.join(METHODS)}")
        if self.base_url and not self.model:
            raise ValueError("a base_url needs the model's name there: set model to remote:MODEL")
        return self

    @property
    def uses_backbone(self) -> bool:
        return self.model is None

    def read_prompts(self) -> Prompts:
        """The prompts that the model is asked with.

        Raises:
            EsckitError: the user's are wrong; one sentence says how.
        """
        return read_prompts(self.prompts, "baselines")

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        super().check_before(recipe, corpus)
        self.read_prompts()
        if self.model is not None:
            check_chat_model(self.model, self.base_url)

    def depends_on(self, run: "RunFolder") -> Any:
        return [prompt_texts(self.read_prompts()), run.source(self.model) if self.model else None]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Predict every labelled supporter turn; what failed before is asked again.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
        """
        conversations = self.write_conversations(run)
        seed = run.recipe.seed  # not the stage's own: stages that ask the same share the answer
        places = places_of(conversations, METHODS[self.method], lambda: read_starter().train, seed)
        prompts = self.read_prompts()
        with Ledger(run.folder / LEDGER) as ledger:
            ledger.forget_failed()
            asked = BaselineRun(
                self._model(run),
                ledger,
                self.method,
                places,
                decoding=Decoding(**self.decoding.model_dump()),
                pace=Pace(budget_calls=self.budget_calls, budget_tokens=self.budget_tokens),
                seed=seed,
                prompts=prompts,
            )
            usages = [each.usage for each in asked.ask()]
        states = write_rows(asked.rows(), run.folder / self.name / "predictions.jsonl")
        for state in ("without a strategy", "unparsed", "refused", "failed"):
            run.count(self, f"turns {state}", states[state])
        return {
            "split": self.split_in(run.corpus),
            "turns": len(places),
            "dialogues": len(conversations),
            "prompts": prompts.label,
            "calls": sum(usage.calls for usage in usages),
            "prompt_tokens": sum(usage.prompt for usage in usages),
            "completion_tokens": sum(usage.completion for usage in usages),
        }

    def _model(self, run: "RunFolder") -> "ChatModel":
        if self.model is not None:
            return open_chat_model(self.model, self.base_url, at_once=self.at_once)
        from esckit.chat_models.local import LocalChatModel

        return LocalChatModel(run.load_backbone(), batch_size=self.at_once)
