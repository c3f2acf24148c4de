"""What can be said about training a role matcher; it needs no torch."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

BANK: Final = "bank"
"""In a matcher's folder: the roles that it knows."""


class MatcherOptions(BaseModel):
    """How a role matcher is trained (`planning.matcher_fitting`).

    Attributes:
        threshold: it abstains where the likeliest role's probability is lower; None: chosen by cross-validation over
            the training dialogues, so that a right role counts as much as a wrong one costs.
        keywords: it reads a corpus's keywords too. Where the gold role is found by these, it then reads the answer.
        folds: the dialogues are divided into so many, by source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None = Field(None, ge=0, le=1)
    keywords: bool = False
    folds: int = Field(5, ge=2)
