"""When a role tells an experience, and which one."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from esckit.conversation import Turn
from esckit.roles.bank import Experience, Role
from esckit.roles.emotions import centred_cosine

TELLING: Final[Mapping[str, tuple[str, ...]]] = {
    "esconv": ("Restatement or Paraphrasing", "Self-disclosure", "Affirmation and Reassurance", "Information"),
    "cso": ("Emotional Validation", "Affirmation", "Provide Different Perspectives", "Share Information"),
    "annomi": ("therapist_input",),
}
"""By taxonomy, the strategies under which an experience is told (Empath, section 4.2: restatement, self-disclosure,
affirmation, information). A story answers what the person has said, shows that one is not alone, or how it went for
somebody. A question, a reflection or a suggestion is about the person: a story would turn the talk away from them."""

TOLERANCE: Final = 0.3
"""Centred cosines that are no further apart count as equal: the least of which the shipped bank's experiences find
themselves again about as well as with any other (benchmarks/experience_tolerance.py)."""


class TellingOptions(BaseModel):
    """When experiences are told.

    Attributes:
        strategies: under which; by default those of `TELLING` for ESConv's labels.
        every: at most one in so many supporter turns.
        most: in a dialogue.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategies: tuple[str, ...] = TELLING["esconv"]
    every: int = Field(3, ge=1)
    most: int = Field(2, ge=0)


def told_on(path: Sequence[Turn]) -> list[str]:
    """Ids of the experiences that were told on a path, the first one first."""
    return [str(turn.extra["experience"]) for turn in path if turn.extra.get("experience")]


def may_tell(path: Sequence[Turn], strategy: str | None, options: TellingOptions) -> bool:
    """Whether an experience may be told in the turn behind a path, under this strategy."""
    if strategy not in options.strategies or len(told_on(path)) >= options.most:
        return False
    replies = [turn for turn in path if turn.speaker == "supporter"]
    recent = replies[len(replies) - options.every + 1 :] if options.every > 1 else []
    return not told_on(recent)


def choose_experience(
    role: Role, feelings: ArrayLike, likeness: ArrayLike, used: Collection[str], tolerance: float = TOLERANCE
) -> Experience | None:
    """Choose the role's experience whose emotions are most like a person's; of equal ones, the most alike in words.

    Args:
        role: whose experiences.
        feelings: the person's eight scores (8,), 1..10.
        likeness: of the person's words with each of the role's experiences (n,), in their order.
        used: ids of experiences that were told in this dialogue; none is told twice.
        tolerance: how far below the best centred cosine counts as equal.

    Returns:
        None where all were told. What is equal in both is taken in the bank's order.
    """
    left = [place for place, each in enumerate(role.experiences) if each.id not in used]
    if not left:
        return None
    alike = centred_cosine(feelings, [role.experiences[place].scores for place in left])
    words = np.asarray(likeness, np.float64)[left]
    equal = alike >= alike.max() - tolerance
    return role.experiences[left[int(np.where(equal, words, -np.inf).argmax())]]
