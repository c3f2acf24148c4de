"""What a recipe may say, checked before anything runs; the keys of each kind of stage stand in `recipes.stages`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationInfo, model_validator

from esckit.conversation.turn_rule import MergedLabel, TurnRule
from esckit.errors import RunError
from esckit.judging.open_annotator import AnnotatorOptions
from esckit.recipes.stage import Keys, Split, Stage
from esckit.recipes.stages import KINDS
from esckit.rendering import Layout

if TYPE_CHECKING:
    from esckit.corpora import Corpus

FORMAT = 1


class CorpusConfig(Keys):
    """Which dialogues: a shipped corpus, a file a part, or one file and a split (`corpora.load_corpus`).

    Attributes:
        split_seed: of a split by ratio. It is not the recipe's: runs with other seeds are measured on the same test.
        labels: a map of the files' labels to a taxonomy's, YAML or JSON.
        dialogues: only so many of the training part, drawn by ``split_seed``: for a small version of a run.
        held_out: only so many of the validation part, and of the test part.
        turn_rule: ``merged`` joins a speaker's utterances in a row; ``merged_label`` says whose strategy counts.
    """

    name: str = "starter"
    train: str | None = None
    valid: str | None = None
    test: str | None = None
    file: str | None = None
    split: str | None = None
    split_seed: int = 0
    labels: str | None = None
    turn_rule: TurnRule = "decoupled-esc"
    merged_label: MergedLabel = "first"
    dialogues: int | None = Field(None, ge=1)
    held_out: int | None = Field(None, ge=1)

    def load(self) -> "Corpus":
        """Read it.

        Raises:
            CorpusError: see `corpora.load_corpus`.
        """
        from esckit.corpora import load_corpus
        from esckit.mining.inferential import draw_dialogues

        corpus = load_corpus(**self.model_dump(exclude={"dialogues", "held_out"}))
        return replace(
            corpus,
            train=draw_dialogues(corpus.train, self.dialogues, self.split_seed),
            valid=draw_dialogues(corpus.valid, self.held_out, self.split_seed),
            test=draw_dialogues(corpus.test, self.held_out, self.split_seed),
        )

    @model_validator(mode="after")
    def _label_is_for_merged(self) -> Self:
        if self.merged_label != "first" and self.turn_rule != "merged":
            raise ValueError("merged_label is for turn_rule merged: set both, or leave it out")
        return self


class ModelConfig(Keys):
    """Which backbone.

    Attributes:
        path: a folder or Hub id of a causal language model, ``smollm2``, or a GGUF file; null makes a pocket backbone.
        pocket: size of the pocket backbone.
        vocabulary: most tokens of the pocket backbone's tokenizer.
        max_context: most tokens of a path; null takes the model's own limit.
        layout: what each part reads and says (`rendering.layouts`).
        trust_remote_code: code that this model or another one of the recipe brings along may run; else such a model is
            refused. Read it first.
        quantisation: ``4bit`` loads the backbone's linear layers in four bits, under adapters in full precision; needs
            bitsandbytes and a CUDA device.
    """

    path: str | None = None
    pocket: Literal["2m", "10m"] = "2m"
    vocabulary: int = Field(2048, ge=300)
    max_context: int | None = Field(None, ge=256)
    layout: Layout = "shared-prefix"
    quantisation: Literal["4bit"] | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _quantises_what_is_there(self) -> Self:
        if self.quantisation and not self.path:
            raise ValueError("quantisation is for a backbone that is there: set model.path")
        return self


class Recipe(Keys):
    """One experiment: stages in order, each reading what earlier ones made."""

    format: Literal[1]
    title: str = ""
    seed: int = 0
    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = ModelConfig()
    annotator: AnnotatorOptions = AnnotatorOptions()
    stages: list[SerializeAsAny[Stage]] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_fit(self, info: ValidationInfo) -> Self:
        kinds = (info.context or {}).get("kinds", KINDS)
        seen: dict[str, Stage] = {}
        for stage in self.stages:
            if stage.name in seen or stage.name in Recipe.model_fields or not stage.name.replace("-", "").isalnum():
                raise ValueError(f"stage name {stage.name!r} is taken or not made of letters, digits and hyphens")
            for wanted in stage.inputs:
                if wanted.name not in seen or seen[wanted.name].makes not in wanted.wanted:
                    tags = " or ".join(kind.kind() for kind in kinds if kind.makes in wanted.wanted)
                    raise ValueError(f"stage {stage.name!r} needs an earlier {tags} stage named {wanted.name!r}")
            seen[stage.name] = stage
            stage.check_recipe(self)
        if "annotator" in self.model_fields_set and not self.asks_annotator:
            raise ValueError("annotator is for mine stages with the rule judged, and there is none")
        return self

    def named(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    def behind(self, stage: Stage) -> Iterator[Stage]:
        """All stages that a stage's result is made from, each once."""
        waiting, seen = [each.name for each in stage.inputs], set[str]()
        while waiting:
            name = waiting.pop(0)
            if name not in seen:
                seen.add(name)
                yield self.named(name)
                waiting += [each.name for each in self.named(name).inputs]

    @property
    def needs_backbone(self) -> bool:
        """True where a stage trains or asks a language model."""
        return any(stage.uses_backbone for stage in self.stages)

    @property
    def makes_backbone(self) -> Stage | None:
        """The stage that makes the backbone; None where the recipe names one, or has none."""
        made = (stage for stage in self.stages if stage.makes == "backbone")
        return None if self.model.path else next(made, None)

    @property
    def asks_annotator(self) -> bool:
        """True where a stage needs the annotator."""
        return any(stage.asks_annotator for stage in self.stages)

    def refuse_seen(self, stage: Stage, does: str, split: Split, corpus: "Corpus") -> None:
        """Refuse to fit to or to measure on what anything behind a stage was fitted to; the training part may be.

        What the stage does with the part stands in the message: "predicts valid".

        Raises:
            RunError: one sentence.
        """
        for other in self.behind(stage):
            if split in other.fitted_to(corpus):
                raise RunError(
                    f"stage {stage.name!r} {does}, which {other.stage} stage {other.name!r} is fitted to: take another "
                    f"part (split, corpus.test=FILE), or fit {other.name!r} to another one."
                )
