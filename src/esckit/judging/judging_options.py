"""What a recipe or a command line can say about judging; it needs no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from esckit.prompts.own import Prompts, read_prompts

__all__ = ["JudgingOptions", "Reference"]

Reference = Literal["both", "shown", "hidden"]


class JudgingOptions(BaseModel):
    """Who judges what (`judging.judge_run`).

    Attributes:
        judge: ``remote:MODEL``, a chat model behind a URL, or the folder or Hub id of one.
        base_url: of ``remote:MODEL``; its key stands in OPENAI_API_KEY.
        turns: how many are judged, the same for all systems.
        rubrics: ``decoupled-esc``, or a folder with a file for each quality.
        reference: whether the judge sees the human reply; both ways doubles the calls.
        pairs: compare every two systems, too, in both orders.
        known_groups: judge replies whose order is known, too.
        failed: dialogues of failed support, one more known group.
        max_new_tokens: of an answer; a model that thinks before it answers needs thousands.
        prompts: a folder with prompts of the user's own (`prompts.own`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str = Field(min_length=1)
    base_url: str | None = None
    turns: int = Field(100, ge=1)
    rubrics: str = "decoupled-esc"
    reference: Reference = "both"
    pairs: bool = False
    known_groups: bool = False
    failed: str | None = None
    max_new_tokens: int = Field(512, ge=1)
    prompts: str | None = None

    def read_prompts(self) -> Prompts:
        """The prompts that the judge is asked with.

        Raises:
            EsckitError: the user's are wrong; one sentence says how.
        """
        return read_prompts(self.prompts, "judge")
