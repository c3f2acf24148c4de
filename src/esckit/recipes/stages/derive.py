"""Stage ``derive``: role dialogues from questions with answers, or from dialogues, for all parts of the corpus."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from esckit.chat_models.ledger import LEDGER
from esckit.conversation import Conversation, read_conversations
from esckit.mining.derivation.options import DerivationOptions
from esckit.recipes.identity import answers_identity
from esckit.recipes.stage import Split, Stage
from esckit.recipes.trees import TREES
from esckit.roles.bank import read_bank

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["FILES", "DeriveStage"]

FILES: Final = {"train": TREES, "valid": "valid.jsonl", "test": "test.jsonl"}
"""In its folder, by the part of the corpus: no version of a source is in another part than the source."""


class DeriveStage(Stage, DerivationOptions):
    """Derives role dialogues of the corpus (`DerivationOptions`; docs/derivation.md)."""

    stage: Literal["derive"]

    makes: ClassVar[str] = "dialogues"
    elsewhere: ClassVar[frozenset[str]] = frozenset({"bank", "deriver"})
    labels_corpus: ClassVar[bool] = True

    @property
    def uses_backbone(self) -> bool:
        limit = self.filters.perplexity
        return limit is not None and limit.model is None

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        from esckit.mining.derivation.by_name import check_deriver
        from esckit.mining.derivation.run import check_sources

        check_sources(corpus.train, self, read_bank(self.bank), recipe.seed)
        check_deriver(self)

    def depends_on(self, run: "RunFolder") -> Any:
        limit = self.filters.perplexity
        told = answers_identity(self.deriver, run.languages) if self.deriver.model else None
        return [
            read_bank(self.bank).digest,
            run.source(self.deriver.model or ""),
            told,
            limit and run.source(limit.model or ""),
        ]

    def read(self, run: "RunFolder", split: Split) -> list[Conversation]:
        """The dialogues that it derived of a part; none where the corpus lacks it."""
        path = run.folder / self.name / FILES[split]
        return read_conversations(path) if path.exists() else []

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Derive; a stopped derivation continues from the run's ledger.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
        """
        from esckit.mining.derivation.by_name import deriver_of
        from esckit.mining.derivation.run import derive_parts

        found = derive_parts(
            {FILES[part]: trees for part, trees in run.corpus.parts.items()},
            self,
            run.folder / self.name,
            read_bank(self.bank),
            deriver_of(self, run.load_backbone),
            ledger=run.folder / LEDGER,
            seed=run.seed(self),
        )
        for reason, number in found["left_out"].items():
            run.count(self, f"no source: {reason}", number)
        for step, faults in found["faults"].items():
            for reason, number in faults.items():
                run.count(self, f"left out, {step}: {reason}", number)
        return {
            **{name: found[name] for name in ("derived_by", "sources", "versions", "faults")},
            **{name: found[name] for name in ("experiences", "own_disclosures")},
            "dialogues": sum(found["dialogues"].values()),
            "calls": sum(found["calls"].values()),
        }
