"""Stage ``replies``: what a corpus's supporters said, stored to be said again."""

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.progress import progress
from esckit.recipes.stage import Stage
from esckit.rendering import supporter_turns

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe


class RepliesStage(Stage):
    """Stores the training part's supporter replies that a program may say again, by strategy and context.

    Attributes:
        encoder: ``embedded``, a folder, or a Hub id.
    """

    stage: Literal["replies"]
    encoder: str = "embedded"

    makes: ClassVar[str] = "replies"

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        from esckit.planning.encoder import check_encoder

        check_encoder(self.encoder)

    def depends_on(self, run: "RunFolder") -> Any:
        return run.source(self.encoder)

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Build the store; what must not be said again is left out and counted."""
        from esckit.planning.encoder import load_encoder
        from esckit.supporters.retrieval import build_store

        left_out: Counter[str] = Counter()
        corpus = run.corpus
        turns = sum(len(supporter_turns(conversation)) for conversation in corpus.train)
        with progress(self.name, turns) as bar:
            store = build_store(
                corpus.train,
                load_encoder(self.encoder),
                corpus.name,
                corpus.licence,
                left_out,
                lambda done: bar.advance(steps=done),
            )
            bar.advance("left out what must not be said again", steps=bar.total - bar.done)
        store.save(run.folder / self.name)
        for reason, count in left_out.items():
            run.count(self, f"replies left out: {reason}", count)
        return {"turns": turns, "replies": len(store.replies)}
