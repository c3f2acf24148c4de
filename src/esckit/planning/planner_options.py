"""What can be said about fitting an encoder planner; it needs no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PlannerOptions(BaseModel):
    """How an encoder planner is made (`planning.fitting`).

    Attributes:
        model: ``encoder`` reads utterances and explicit features; ``linear`` explicit features alone; ``majority``
            knows only how often each strategy occurs: the most probable one is the most frequent, a draw is by chance.
        folds: the training dialogues are divided into so many; each network leaves one out, and is judged on it.
        seeds: networks a fold.
        epochs: passes over the dialogues.
        batch_size: dialogues an optimiser step.
        learning_rate: peak rate of AdamW, one cycle.
        hidden_rate: share of the dialogues whose past strategies are hidden, drawn anew each time, so that one planner
            serves with and without them.
        width: of a network's layers; head: of its last one.
        trees: of a fold's forest, for shown and for hidden past strategies each; an encoder planner only. 0 grows none.
        calibration: ``match`` makes the planner say each strategy as often as people do, fitted on predictions for
            dialogues that the networks have not seen; ``none`` leaves its probabilities as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["encoder", "linear", "majority"] = "encoder"
    folds: int = Field(5, ge=2)
    seeds: int = Field(2, ge=1)
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    hidden_rate: float = Field(0.4, ge=0, le=1)
    width: int = Field(96, ge=1)
    head: int = Field(128, ge=1)
    trees: int = Field(60, ge=0)
    calibration: Literal["match", "none"] = "match"

    @property
    def forests(self) -> bool:
        """A forest stands beside a fold's networks."""
        return self.model == "encoder" and self.trees > 0
