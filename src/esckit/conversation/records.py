"""The records that a conversation tree is made of, and the reasons that verdicts and preferences name."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

PSYCHOLOGICAL_ERRORS: Final = (
    "strategy_mismatch",
    "lack_of_empathy",
    "early_emotion_shift",
    "template_response",
    "emotion_misread",
    "other",
)
"""The error types of DecoupledESC, section 3.1; no error is None."""

DECOUPLED_ESC_REASONS: Final = "decoupled-esc"

CSO_REASONS: Final = "cso"

SELF_REFINEMENT_REASONS: Final = "self-refinement"

REASONS: Final[dict[str, tuple[str, ...]]] = {
    DECOUPLED_ESC_REASONS: PSYCHOLOGICAL_ERRORS,
    # the rejected turn is worth too little; the same, but that rests on one judgement; nobody judged
    CSO_REASONS: ("low_value", "low_value_once", "random"),
    # the draft was refined; a human reply took the refined one's place, or was chosen from the beginning
    SELF_REFINEMENT_REASONS: ("refined", "human"),
}
"""Taxonomies of reasons by name: what an error or a preference may say. A method adds its own in one line."""

Speaker = Literal["seeker", "supporter"]
Aspect = Literal["strategy", "response", "turn"]

STRICT: Final = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one turn; ``error`` is one of the taxonomy ``reasons``.

    A verdict that could not be parsed is a state, never a default score.
    """

    __pydantic_config__ = STRICT

    judge: str
    rubric: str
    error: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    explanation: str | None = None
    state: Literal["done", "unparsed", "refused"] = "done"
    reasons: str = DECOUPLED_ESC_REASONS


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance, verbatim; a supporter turn with a strategy and no text is *planned* and has no children."""

    __pydantic_config__ = STRICT

    id: str
    parent: str | None
    speaker: Speaker
    text: str | None
    strategy: str | None = None
    source: str = "human"
    scores: dict[str, float] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def planned(self) -> bool:
        """True where only a strategy has been chosen."""
        return self.text is None


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two siblings, this one over that one; the context is the path to their parent.

    ``reason`` is one of the taxonomy ``reasons``; None where nobody says why.
    """

    __pydantic_config__ = STRICT

    chosen: str
    rejected: str
    aspect: Aspect
    reason: str | None = None
    judge: str | None = None
    explanation: str | None = None
    reasons: str = DECOUPLED_ESC_REASONS
