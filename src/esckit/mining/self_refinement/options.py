"""What can be said about self-refinement: who drafts, refines and judges, and which pairs are left out. No torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.chat_models.opening import PromptedOptions
from esckit.decoding import Decoding, completed
from esckit.judging.better_reply import AcceptOptions

__all__ = ["EMBEDDED", "MODES", "RefinementOptions", "RefinerOptions"]

EMBEDDED: Final = "embedded"
"""Names the embedded annotator."""

Mode = Literal["ours", "paper"]

MODES: Final[Mapping[Mode, Mapping[str, Any]]] = MappingProxyType(
    {
        "ours": {"first_speaker": "as_it_is", "merge": False, "instead": "nothing", "whole": True, "near_equal": 0.9},
        "paper": {"first_speaker": "seeker", "merge": True, "instead": "human", "whole": False, "near_equal": 1.0},
    }
)
"""The switches of each mode (self-evolution, appendix A); docs/mining.md says why ours differ."""

_DRAWN: Final[Mapping[Mode, Decoding]] = {
    "ours": Decoding(temperature=0.9, top_p=0.8, max_new_tokens=128),
    "paper": Decoding(temperature=0.9, top_p=0.8, top_k=50, repetition_penalty=1.2, max_new_tokens=128),
}
"""How drafts are drawn (section 3.2). Ours have no penalty, which keeps the seeker's own words out of replies, too."""


class RefinerOptions(PromptedOptions):
    """Who refines, where it is not the policy itself."""

    asks_with: ClassVar[str] = "self_refinement"

    decoding: Decoding = Decoding(temperature=0.9, top_p=0.8, max_new_tokens=512)


class RefinementOptions(BaseModel):
    """How a round makes pairs: a draft is rejected, what it was refined to is chosen (self-evolution, section 2.2.1).

    Attributes:
        mode: which switches are taken where they are not said: ours, or the paper's.
        refined_by: where chosen replies come from: the ``policy`` itself, another chat ``model``, or ``people``, whose
            replies stand in the dialogues (self-evolution, section 5.3: SR, HL, HM).
        refiner: the other chat model, and how it or the policy is asked.
        rejected_from: the draft of the ``current`` policy is rejected, or one of the ``first``, the model after SFT:
            then both sides cannot grow alike over rounds. What is refined is the current one's in any case.
        dialogues: so many of those that no earlier round has taken, drawn by the seed; null is all.
        reuse: take dialogues that an earlier round has taken, too.
        skip_first, skip_last: so many of a dialogue's supporter turns at its ends are greetings and left out.
        first_speaker: ``seeker`` makes whoever speaks first the seeker; ``as_it_is`` changes no role.
        merge: join the utterances of one speaker in a row; else replies that follow the supporter's own are left out.
        longest: a refined reply of more than so many times the words of the draft, or of the human reply, is not taken.
        instead: what takes its place, or that of a refinement that did not come or cannot be read: the ``human`` reply,
            or ``nothing``.
        whole: leave out a refined reply that ends in the middle of a sentence, or the next model learns to end there.
        near_equal: sides with this share of words in common, 0 to 1, are no pair (1: equal ones alone).
        length_ratio: the longer side has at most so many times the words of the shorter one; null: any.
        patterns: leave out a chosen reply that completes a pattern (`measures.patterns`).
        accept: who has to find the chosen side better; null: nobody is asked.
        encoder: measures how near both sides are to the seeker's words (`mining.relevance`): ``embedded``, which knows
            English alone, a folder or a Hub id; null: nothing does.
        wording: how drafts are drawn.
        budget_calls: take only so many contexts as make at most so many questions: drafts, refinements, verdicts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = "ours"
    refined_by: Literal["policy", "model", "people"] = "policy"
    refiner: RefinerOptions = RefinerOptions()
    rejected_from: Literal["current", "first"] = "current"
    dialogues: int | None = Field(None, ge=1)
    reuse: bool = False
    skip_first: int = Field(1, ge=0)
    skip_last: int = Field(2, ge=0)
    first_speaker: Literal["seeker", "as_it_is"] = "as_it_is"
    merge: bool = False
    longest: float | None = Field(2.0, gt=0)
    instead: Literal["human", "nothing"] = "nothing"
    whole: bool = True
    near_equal: float = Field(0.9, gt=0, le=1)
    length_ratio: float | None = Field(None, ge=1)
    patterns: bool = False
    accept: AcceptOptions | None = None
    encoder: str | None = "embedded"
    wording: Decoding = _DRAWN["ours"]
    budget_calls: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _switches_of_the_mode(cls, given: Any) -> Any:
        """What is not said is as the mode has it; keys of ``wording`` that are left out are the default's."""
        if not isinstance(given, dict) or given.get("mode", "ours") not in MODES:
            return given
        mode = given.get("mode", "ours")
        return {**MODES[mode], **given, "wording": completed(given.get("wording", {}), _DRAWN[mode])}

    @model_validator(mode="after")
    def _one_refiner(self) -> Self:
        if self.refined_by == "model" and self.refiner.model is None:
            raise ValueError("refined_by: model needs one: set refiner.model (remote:NAME, a folder, smollm2)")
        if self.refined_by != "model" and self.refiner.model is not None:
            raise ValueError(f"refiner.model {self.refiner.model} is not asked: set refined_by to model")
        if self.budget_calls is not None and self.budget_calls < self.calls_a_context:
            raise ValueError(f"a context takes {self.calls_a_context} questions: raise budget_calls to that at least")
        return self

    @property
    def calls_a_context(self) -> int:
        """The most questions about one context; the repair of an answer belongs to its question."""
        accepts = self.accept is not None and self.accept.asks
        return 1 + (self.rejected_from == "first") + (self.refined_by != "people") + 2 * accepts
