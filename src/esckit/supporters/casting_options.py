"""How roles and experiences are chosen; it needs no torch."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from esckit.chat_models.opening import ChatModelOptions
from esckit.roles.telling import TellingOptions

__all__ = ["ROLES", "CastingOptions"]

ROLES: Final = ("matched", "labelled", "drawn", "none")
"""How a role is found, besides the name of one."""


class CastingOptions(BaseModel):
    """How roles and experiences are chosen; what a request says itself comes first.

    Attributes:
        role: ``matched`` by the matcher; ``labelled``: the dialogue's label, else matched; ``drawn`` by the roles'
            shares of the questions that the matcher was trained on, once a dialogue (Empath's ablation, section 6.5);
            ``none``; or the name of a role.
        abstains: no role speaks where the matcher finds none likely enough; false: the likeliest one does, as in the
            paper.
        experiences: ``nearest`` in emotions; ``drawn``: any of the role's; ``none``.
        telling: when one is told.
        scorer: a chat model that scores what the person feels, a call a story; null: the matcher, without any. Where
            its answer has no scores, no story is told.
        seed: of what is drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str = "matched"
    abstains: bool = True
    experiences: Literal["nearest", "drawn", "none"] = "nearest"
    telling: TellingOptions = TellingOptions()
    scorer: ChatModelOptions | None = None
    seed: int = 0
