"""What a recipe can say about mining; it needs no torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.decoding import Decoding

__all__ = ["MiningOptions"]


class MiningOptions(BaseModel):
    """How inferential preference mining samples and keeps (`mining.inferential`).

    Attributes:
        rule: ``unequal`` keeps what the model says and gold does not; ``judged`` keeps of that what an annotator finds
            faulty (`judged_pairs`); ``random`` is the control without a model: labels and replies drawn at random, of
            other dialogues.
        clean_chosen: rule ``judged``: gold must be free of the part's errors too, by the same annotator (DecoupledESC,
            figure 15, for replies; for strategies it is ours).
        dialogues: mine so many dialogues of the training part, drawn by the recipe's seed, the same for all parts; more
            of them hold the fewer. Null is all. What a chat model judges costs money, what is generated time.
        samples: draws a turn; equal ones count once.
        top_k: planner and coupled model: take the k likeliest strategies instead of drawing.
        temperature, top_p: of strategies and texts; DecoupledESC's by default (section 5.1).
        top_k_tokens, repetition_penalty: of texts, `Decoding`'s top_k and repetition_penalty.
        max_new_tokens: of a text; one that is cut there is kept and counted.
        folds: cross-fitting: each of so many parts of the dialogues is mined by a model trained on the others. 1 is the
            paper's way, mining the turns that the model was trained on.
        budget_calls: mine only the first so many contexts, in order, as make at most so many questions: what is said
            there, and a chat model's verdicts. Where nobody is asked, at random, a draw counts in its place.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["unequal", "judged", "random"] = "unequal"
    clean_chosen: bool = True
    dialogues: int | None = Field(None, ge=1)
    samples: int = Field(1, ge=1)
    top_k: int | None = Field(None, ge=1)
    temperature: float = Field(0.7, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k_tokens: int | None = Field(None, ge=1)
    repetition_penalty: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(128, ge=1)
    folds: int = Field(1, ge=1)
    budget_calls: int | None = Field(None, ge=1)

    def contexts(self, verdicts: bool) -> int | None:
        """The most contexts within the budget; ``verdicts``: a chat model judges. None is all.

        Raises:
            ValueError: the budget is below one context's questions.
        """
        said = self.top_k or self.samples
        each = said + verdicts * (said + self.clean_chosen)
        if self.budget_calls is not None and self.budget_calls < each:
            raise ValueError(f"a context takes {each} questions: raise budget_calls to that at least")
        return None if self.budget_calls is None else self.budget_calls // each

    @property
    def decoding(self) -> Decoding:
        """How texts are drawn."""
        return Decoding(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            top_k=self.top_k_tokens,
            repetition_penalty=self.repetition_penalty,
        )

    @model_validator(mode="after")
    def _each_fold_has_a_dialogue(self) -> Self:
        if self.dialogues is not None and self.dialogues < self.folds:
            raise ValueError(f"{self.dialogues} dialogues cannot be divided into {self.folds} folds: mine more of them")
        return self
