"""A kind of stage that esckit does not know: it counts a word in the training part. It needs no model."""

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from esckit.errors import CorpusError
from esckit.files import write_json
from esckit.recipes.stage import Stage

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["CountStage"]


class CountStage(Stage):
    """Counts a word, on top of what other stages of its kind counted."""

    stage: Literal["count"]
    word: str = Field(min_length=1)
    before: str | None = None
    also: list[str] = Field(default_factory=list)

    makes: ClassVar[str] = "counts"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"before": ("counts",), "also": ("counts",)}

    done: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def check_recipe(self, recipe: "Recipe") -> None:
        if " " in self.word:
            raise ValueError(f"stage {self.name!r} counts one word, and {self.word!r} is several")

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        if not any(self.word in (turn.text or "") for c in corpus.train for turn in c.turns):
            raise CorpusError(f"stage {self.name!r} counts {self.word!r}, which nobody says.")

    def depends_on(self, run: "RunFolder") -> Any:
        self.asked.append(self.name)
        return None

    def work(self, run: "RunFolder") -> dict[str, Any]:
        self.done.append(self.name)
        own = sum((turn.text or "").split().count(self.word) for c in run.corpus.train for turn in c.turns)
        earlier = [json.loads((run.folder / each.name / "count.json").read_text()) for each in self.inputs]
        run.count(self, "dialogues looked at", len(run.corpus.train))
        write_json(run.folder / self.name / "count.json", own + sum(earlier))
        return {"own": own, "all": own + sum(earlier)}
