"""What a kind of stage has to provide; the kinds that come with esckit stand in `recipes.stages`.

A kind is a class: its keys, what it reads, what it checks, what its result depends on, its work. Everything else (the
order, what is skipped, records, stops) is the runner's. Heavy libraries are imported inside methods, so that a recipe
can be read without them.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict

from esckit.errors import CorpusError
from esckit.rendering import supporter_turns
from esckit.training.training_options import LoraOptions, TrainingOptions

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.rendering import Example, Renderer
    from esckit.training.batches import TrieDataset
    from esckit.training.preferences import PairDataset

Split = Literal["train", "valid", "test"]


class Keys(BaseModel):
    """Nothing but its keys, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(NamedTuple):
    """A stage that is read: the key that names it, its name, and what it must make."""

    key: str
    name: str
    wanted: tuple[str, ...]


class Stage(Keys):
    """One step of a recipe.

    A kind narrows ``stage`` to a literal, the word that recipes write; its other fields are its keys.

    Attributes:
        stage: the kind.
        name: of this stage, of its folder and its record.
        makes: what later stages may read of it, in a word; empty for nothing.
        reads: by key, what the stages named there must make. A key holds a name, a list of names, or null.
        elsewhere: keys on which the result does not depend as they stand: where files are (what is in them goes into
            `depends_on`), how fast something is asked.
        later: keys that are younger than runs that must stay as they are: at its default, such a key does not count.
        version: raised by hand when another esckit makes another result of the same keys and inputs.
        labels_corpus: it makes dialogues with strategies of a corpus that may have none.
        in_all_processes: every process of a launcher does the work; else the first one, while the others wait.
    """

    stage: str
    name: str

    makes: ClassVar[str] = ""
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    elsewhere: ClassVar[frozenset[str]] = frozenset()
    later: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 1
    in_all_processes: ClassVar[bool] = False
    labels_corpus: ClassVar[bool] = False

    @classmethod
    def kind(cls) -> str:
        """The word that recipes write."""
        return str(get_args(cls.model_fields["stage"].annotation)[0])

    @property
    def inputs(self) -> Iterator[Input]:
        """The stages that it reads."""
        for key, wanted in self.reads.items():
            value = getattr(self, key)
            for name in value if isinstance(value, list) else [value] if value else []:
                yield Input(key, name, wanted)

    @property
    def counting_keys(self) -> dict[str, Any]:
        """Keys on whose values the result depends, JSON-ready."""
        fields = type(self).model_fields
        without = {key for key in self.later if getattr(self, key) == fields[key].default}
        return self.model_dump(mode="json", exclude={*self.elsewhere, *without})

    @property
    def uses_backbone(self) -> bool:
        """True where it loads the recipe's language model itself, not by what it reads."""
        return False

    @property
    def asks_annotator(self) -> bool:
        """True where the recipe's annotator takes part."""
        return False

    def check_recipe(self, recipe: "Recipe") -> None:
        """Refuse what does not fit together; the stages that it reads are there and of the right kind.

        Raises:
            ValueError: one sentence.
        """

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        """Refuse, before anything of the run is written, what would fail after hours.

        Raises:
            EsckitError: one sentence.
        """

    def check_source(self, source: str, split: Split, corpus: "Corpus") -> None:
        """Refuse a part whose trees hold turns by this source, under which the stage adds its own.

        Raises:
            CorpusError: they do.
        """
        if any(turn.source == source for tree in getattr(corpus, split) for turn in tree.turns):
            raise CorpusError(
                f"the trees of the corpus's {split} part hold turns by {source!r} already, and stage {self.name!r} "
                f"could not tell its own from them: rename the stage {source!r}."
            )

    def fitted_to(self, corpus: "Corpus") -> tuple[Split, ...]:
        """The parts of the corpus besides the training part that its result is fitted to, apart from what it reads."""
        return ()

    def depends_on(self, run: "RunFolder") -> Any:
        """JSON-ready: what its result depends on beyond keys, version, seed, corpus, backbone and what it reads."""
        return None

    def skips(self, run: "RunFolder") -> str | None:
        """Why there is nothing to do, by default the reason of a skipped stage that it reads; None where there is work.

        Of a list of stages, those that were skipped are passed over, unless all were.
        """
        for key in self.reads:
            named = [each.name for each in self.inputs if each.key == key]
            if named and all(map(run.was_skipped, named)):
                return str(run.facts(named[0])["why"])
        return None

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Do it, into ``run.folder / name``; continue what was stopped in the middle.

        Returns:
            Facts for the record, JSON-ready. What was cut, dropped or left out is counted by `RunFolder.count`.
        """
        raise NotImplementedError


class TrainingStage(Stage, TrainingOptions):
    """A stage that trains a language model: what it trains on is also what `esckit run --check` estimates memory by."""

    elsewhere: ClassVar[frozenset[str]] = frozenset({"checkpoint_seconds"})
    later: ClassVar[frozenset[str]] = frozenset({"evaluations", "patience"})
    in_all_processes: ClassVar[bool] = True

    @property
    def measures_valid(self) -> bool:
        """True where it is the validation part that it measures and does not train on."""
        return True

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        if (
            self.patience
            and self.measures_valid
            and self.trains(recipe)
            and not any(map(supporter_turns, corpus.valid))
        ):
            raise CorpusError(
                f"stage {self.name!r} stops early by the loss on the validation part, and there is none: give "
                "corpus.valid or a split that has one, or leave patience out."
            )

    def trains(self, recipe: "Recipe") -> bool:
        """False where the recipe leaves it nothing to do."""
        return True

    def trained_lora(self, recipe: "Recipe") -> LoraOptions | None:
        """Of the adapter that it trains; None where it trains every weight."""
        raise NotImplementedError

    def targets(self, conversation: "Conversation", renderer: "Renderer") -> "list[Example]":
        """What it trains on in a conversation."""
        raise NotImplementedError

    def root(self, recipe: "Recipe") -> "TrainingStage":
        """The stage whose `targets` it trains on; of pairs, these are the chosen sides."""
        return self

    def rejected_sides(self, recipe: "Recipe") -> int:
        """Of each target, at most; 0 where it trains on no pairs."""
        return 0

    def frozen_copy(self, recipe: "Recipe") -> bool:
        """True where a second copy of the adapter is loaded as reference."""
        return False

    def as_dataset(self, recipe: "Recipe", targets: "list[list[Example]]") -> "TrieDataset | PairDataset":
        """The conversations with these targets as it trains on them, for the estimate of memory."""
        from esckit.language_models.token_tree import build_tries
        from esckit.training.batches import TrieDataset

        return TrieDataset(build_tries(examples, self.max_tokens_per_row) for examples in targets)
