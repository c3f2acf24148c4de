"""Replay: general instructions that an sft or a preference stage trains on beside what it is for.

A model that learns support alone forgets what it could do before; a few instructions among its targets hold that back
(self-evolution, section 2.1.2; InsCL, Wang et al. 2024). Which ones are drawn at random, by the stage's seed.
"""

import random
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from esckit.corpora.instructions import hash_instructions, read_instructions
from esckit.errors import CorpusError
from esckit.recipes.stage import Stage, TrainingStage

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.rendering import Example, Renderer

__all__ = ["ReplayingStage"]


class ReplayingStage(TrainingStage):
    """A training stage that can replay general instructions, in the backbone's plain chat template.

    Attributes:
        replay: a file of instructions (`corpora.instructions`), or ``own``, the 60 that are shipped; null replays none.
        replay_examples: so many of them, drawn by the stage's seed; null is all.
    """

    replay: str | None = None
    replay_examples: int | None = Field(None, ge=1)

    elsewhere: ClassVar[frozenset[str]] = TrainingStage.elsewhere | {"replay"}
    later: ClassVar[frozenset[str]] = TrainingStage.later | {"replay_examples"}

    @model_validator(mode="after")
    def _replays_something(self) -> Self:
        if self.replay_examples and not self.replay:
            raise ValueError("replay_examples is how many are drawn from replay: give replay, a file or own")
        return self

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        super().check_before(recipe, corpus)
        if self.replay:
            read_instructions(self.replay)

    def depends_on(self, run: "RunFolder") -> Any:
        return {"replay": hash_instructions(self.replay)} if self.replay else None

    def replayed(self, run: "RunFolder", stage: Stage, renderer: "Renderer") -> "list[list[Example]]":
        """The targets of each chat that is replayed on behalf of ``stage``; what is left out is counted.

        Raises:
            CorpusError: none fits the model's context.
        """
        if not self.replay:
            return []
        chats, unusable = read_instructions(self.replay)
        wanted = self.replay_examples or len(chats)
        drawn = random.Random(run.seed(stage)).sample(range(len(chats)), min(wanted, len(chats)))
        rendered = [renderer.chat(chats[place]) for place in sorted(drawn)]
        fitting = [own for own in rendered if max(map(_length, own)) <= renderer.max_context]
        if not fitting:
            raise CorpusError(
                f"no chat of {self.replay} fits max_context {renderer.max_context}: raise it, or replay shorter ones."
            )
        run.count(stage, "chats to replay without a reply, or with speakers out of turn", unusable)
        run.count(stage, "chats to replay longer than max_context", len(rendered) - len(fitting))
        if missing := wanted - len(drawn):
            run.count(stage, "chats to replay that the file does not have", missing)
            print(f"esckit: {stage.name} replays {len(drawn)} chats, all that {self.replay} has.", file=sys.stderr)
        return fitting


def _length(example: "Example") -> int:
    """Tokens of a target's path."""
    return len(example.context) + len(example.given) + len(example.scored)
