"""Stage ``match``: which role suits whom, learnt from the training part and a bank of roles."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.planning.matcher_options import MatcherOptions
from esckit.recipes.stage import Stage
from esckit.roles import read_bank

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe


class MatchStage(Stage, MatcherOptions):
    """Trains a role matcher and an emotion scorer; its folder holds the bank too, from which a supporter takes it.

    Attributes:
        bank: ``shipped``, or a folder of roles.
        encoder: ``embedded``, a folder or a Hub id; null reads all by characters.
        trees: a derive stage, whose dialogues are learnt from in place of the training part.
    """

    stage: Literal["match"]
    bank: str = "shipped"
    encoder: str | None = "embedded"
    trees: str | None = None

    makes: ClassVar[str] = "matcher"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"trees": ("dialogues",)}
    elsewhere: ClassVar[frozenset[str]] = frozenset({"bank"})

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        from esckit.planning.encoder import check_encoder

        read_bank(self.bank)
        if self.encoder:
            check_encoder(self.encoder)

    def depends_on(self, run: "RunFolder") -> Any:
        return [read_bank(self.bank).digest, run.source(self.encoder) if self.encoder else None]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Train it; how well it does on dialogues that it has not seen becomes facts."""
        from esckit.conversation import read_conversations
        from esckit.corpora.starter import starter_roles
        from esckit.planning.encoder import load_encoder
        from esckit.planning.matcher_fitting import train_matcher
        from esckit.planning.questions import questions_with_gold
        from esckit.recipes.trees import TREES

        bank = read_bank(self.bank)
        trees = read_conversations(run.folder / self.trees / TREES) if self.trees else run.corpus.train
        questions, left_out = questions_with_gold(trees, bank, starter_roles())
        for reason, number in left_out.items():
            run.count(self, f"questions left out: {reason}", number)
        options = MatcherOptions.model_validate(self.model_dump(include=set(MatcherOptions.model_fields)))
        encoder = load_encoder(self.encoder) if self.encoder else None
        facts = train_matcher(questions, bank, encoder, run.folder / self.name, options=options, seed=run.seed(self))
        unseen = {
            f"{name}_{language}": own["unseen"][way]["f1"]
            for language, own in facts["languages"].items()
            if "unseen" in own
            for way, name in (("matcher", "f1_unseen"), ("topic alone", "f1_of_topic"))
        }
        return {"questions": facts["questions"], "gold": facts["gold"], **unseen}
