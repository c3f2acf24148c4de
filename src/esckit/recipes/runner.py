"""The newcomer's file: how a recipe becomes a report, top to bottom.

A run lives in one folder. Each stage reads what earlier stages made, writes into a folder of its own name, and leaves
a record ``stages/<name>.json``; a stage that is done and unchanged is skipped, so the same command continues after a
stop.
"""

import hashlib
import json
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, assert_never

from esckit import __version__
from esckit.conversation import Conversation, conversation_to_json, write_conversations
from esckit.corpora import Corpus, corpus_statistics, load_corpus
from esckit.errors import CorpusError, RunError
from esckit.files import write_json, write_jsonl
from esckit.measures import evaluate, read_predictions
from esckit.models.backbone import Backbone, Decoding, check_source, default_device, load_backbone, seed_everything
from esckit.models.pocket import make_pocket_model, train_tokenizer
from esckit.models.token_tree import TokenTrie, build_tries
from esckit.recipes.schema import (
    EvaluateStage,
    PredictStage,
    PretrainStage,
    Recipe,
    ReportStage,
    SftStage,
    Stage,
    SupporterStage,
    input_names,
)
from esckit.rendering import Example, Renderer, past_strategies, supporter_turns
from esckit.report import write_report
from esckit.strategy import TAXONOMIES
from esckit.supporters import Supporter, predict
from esckit.supporters.supporter import SupporterCard, save_supporter
from esckit.training.trainer import Trained, TrieDataset, train

__all__ = ["run"]


def run(recipe: Recipe, out: Path, *, fresh: bool = False) -> "Run":
    """Carry out a recipe in a folder; continue where an earlier run of the same recipe stopped.

    Args:
        recipe: the experiment.
        out: the run's folder.
        fresh: run changed stages (and all that read them) again instead of refusing.

    Raises:
        RunError: the folder holds a stage that was run with other settings, and ``fresh`` is not set.
        EsckitError: any stage's own.
    """
    this = Run(recipe, out, _load(recipe))
    this.describe()
    for stage in recipe.stages:
        fingerprint = this.fingerprint(stage)
        if this.is_done(stage, fingerprint, fresh):
            continue
        started = time.monotonic()
        this.record(stage, fingerprint, state="running")
        match stage:
            case PretrainStage():
                facts = pretrain(this, stage)
            case SftStage():
                facts = fine_tune(this, stage)
            case SupporterStage():
                facts = assemble(this, stage)
            case PredictStage():
                facts = predict_split(this, stage)
            case EvaluateStage():
                facts = measure(this, stage)
            case ReportStage():
                facts = report(this)
            case _:
                assert_never(stage)
        this.record(stage, fingerprint, state="done", facts=facts, seconds=round(time.monotonic() - started, 1))
    return this


# -------------------------------------------------------------------------------------------------------------- stages


def pretrain(this: "Run", stage: PretrainStage) -> dict[str, Any]:
    """Make a tokenizer and a pocket backbone from the training part, and train every weight on both speakers' texts."""
    if this.recipe.model.path:
        this.count(stage, "skipped: model.path is used as it is")
        return {}
    seed = this.seed(stage)
    tokenizer = train_tokenizer(this.corpus.train, this.recipe.model.vocabulary)
    seed_everything(seed)
    model = make_pocket_model(this.recipe.model.pocket, tokenizer).to(default_device())
    renderer = this.renderer(Backbone(model, tokenizer, "pocket"))

    def examples(conversation: Conversation) -> list[Example]:
        return renderer.dialogue(conversation, past_strategies(conversation, stage.past_strategies))

    trained = this.train(stage, model, examples, seed)
    model.save_pretrained(this.folder / stage.name / "model")
    tokenizer.save_pretrained(this.folder / stage.name / "model")
    return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), **_training_facts(trained)}


def fine_tune(this: "Run", stage: SftStage) -> dict[str, Any]:
    """Train a fresh LoRA adapter for one part on every labelled supporter turn of the training part's trunks."""
    from peft import LoraConfig, get_peft_model

    seed = this.seed(stage)
    backbone = load_backbone(this.backbone_source)
    renderer = this.renderer(backbone)
    seed_everything(seed)
    lora = LoraConfig(
        r=stage.lora.r,
        lora_alpha=stage.lora.alpha,
        lora_dropout=stage.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(backbone.model, lora, adapter_name=stage.part)

    def examples(conversation: Conversation) -> list[Example]:
        return renderer.examples(conversation, stage.part, past_strategies(conversation, stage.past_strategies))

    trained = this.train(stage, model, examples, seed)
    model.save_pretrained(str(this.folder / stage.name))  # writes the subfolder <part>
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"trained_parameters": parameters, **_training_facts(trained)}


def assemble(this: "Run", stage: SupporterStage) -> dict[str, Any]:
    """Put adapters and base into one folder that `Supporter.load` reads; a pocket base travels along."""
    trained = {part: this.recipe_stage(name) for part, name in stage.parts.items()}
    first = next(iter(trained.values()))
    assert isinstance(first, SftStage)
    backbone = load_backbone(this.backbone_source)
    card = SupporterCard(
        kind="coupled" if stage.coupled else "decoupled",
        past_strategies=first.past_strategies,
        base=this.backbone_source,
        base_hash=backbone.weights_hash,
        max_context=this.max_context(backbone),
        taxonomy=this.taxonomy,
    )
    adapters = {part: this.folder / sft.name / part for part, sft in trained.items()}
    base = None if this.recipe.model.path else Path(this.backbone_source)
    save_supporter(this.folder / stage.name, card, adapters, base)
    return {"kind": card.kind, "past_strategies": card.past_strategies}


def predict_split(this: "Run", stage: PredictStage) -> dict[str, Any]:
    """Predict every labelled supporter turn of a split."""
    split = _split(stage, this.corpus)
    conversations: list[Conversation] = getattr(this.corpus, split)
    folder = this.folder / stage.name
    rows = predict(
        Supporter.load(this.folder / stage.supporter),
        conversations,
        folder / "predictions.jsonl",
        seed=this.seed(stage),
        planning=Decoding(**stage.planning.model_dump()),
        wording=Decoding(**stage.wording.model_dump()),
        past=stage.past_strategies,
        title=stage.name,
    )
    write_conversations(folder / "conversations.jsonl", conversations)
    predictions = read_predictions(folder / "predictions.jsonl", TAXONOMIES[this.taxonomy])
    this.count(stage, "replies cut at max_new_tokens", sum(row.finish == "length" for row in predictions))
    return {"split": split, "turns": rows, "dialogues": len(conversations)}


def measure(this: "Run", stage: EvaluateStage) -> dict[str, Any]:
    """Evaluate predictions files; definitions in docs/measures.md."""
    figures = {}
    for name in stage.predictions:
        rows = read_predictions(this.folder / name / "predictions.jsonl", TAXONOMIES[this.taxonomy])
        figures[name] = evaluate(rows, TAXONOMIES[this.taxonomy], seed=this.seed(stage), resamples=stage.resamples)
        this.count(stage, f"{name}: unparsed strategies", sum(row.predicted_strategy is None for row in rows))
    write_json(this.folder / stage.name / "evaluation.json", figures)
    return {}


def report(this: "Run") -> dict[str, Any]:
    """Write report.html from the folder."""
    write_report(this.folder)
    return {}


# ---------------------------------------------------------------------------------------------------- the run's folder


@dataclass
class Run:
    """A run's folder: recipe, corpus, records of its stages."""

    recipe: Recipe
    folder: Path
    corpus: Corpus
    events: dict[str, Counter[str]] = field(default_factory=dict)

    @cached_property
    def taxonomy(self) -> str:
        """Name of the corpus's taxonomy."""
        return str(self.corpus.train[0].taxonomy)

    @cached_property
    def corpus_hash(self) -> str:
        """SHA-256 over every conversation of every part."""
        parts = (self.corpus.train, self.corpus.valid, self.corpus.test)
        return _digest([[conversation_to_json(conversation) for conversation in part] for part in parts])

    @cached_property
    def backbone_source(self) -> str:
        """Where the backbone is: the recipe's path, or what the pretrain stage made."""
        if self.recipe.model.path:
            return self.recipe.model.path
        made = next(stage.name for stage in self.recipe.stages if isinstance(stage, PretrainStage))
        return str(self.folder / made / "model")

    def seed(self, stage: Stage) -> int:
        """The stage's own seed."""
        return stage_seed(self.recipe.seed, stage)

    def recipe_stage(self, name: str) -> Stage:
        """The recipe's stage of this name."""
        return next(stage for stage in self.recipe.stages if stage.name == name)

    def max_context(self, backbone: Backbone) -> int:
        """The most tokens of a path."""
        return min(self.recipe.model.max_context or backbone.max_context, backbone.max_context)

    def renderer(self, backbone: Backbone) -> Renderer:
        """The renderer of a backbone for this corpus."""
        return Renderer(backbone.tokenizer, TAXONOMIES[self.taxonomy], max_context=self.max_context(backbone))

    def train(self, stage: PretrainStage | SftStage, model: Any, examples: Any, seed: int) -> Trained:
        """Render, merge into tries, train with checkpoints, and write the stage's curve."""
        folder = self.folder / stage.name
        limit = stage.max_tokens_per_row
        train_set = TrieDataset(self._tries(stage, map(examples, self.corpus.train), limit))
        valid_set = TrieDataset(build_tries(rows, limit) for rows in map(examples, self.corpus.valid))
        checkpoints = folder / "checkpoints"
        trained = train(model, train_set, stage, folder=checkpoints, title=stage.name, seed=seed, valid=valid_set)
        write_jsonl(folder / "curve.jsonl", trained.curve)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return trained

    def _tries(
        self, stage: Stage, conversations: Iterable[list[Example]], limit: int | None
    ) -> Iterable[list[TokenTrie]]:
        for examples in conversations:
            tries = build_tries(examples, limit)
            self.count(stage, "targets whose context lost its oldest turns", sum(e.dropped > 0 for e in examples))
            self.count(stage, "conversations divided over rows", int(len(tries) > 1))
            yield tries

    # What is done, what it was done with, what it counted.

    def fingerprint(self, stage: Stage) -> str:
        """Hash of everything that a stage's result depends on: its config, its inputs, the corpus, the seed."""
        inputs = [self.fingerprint(self.recipe_stage(name)) for name in input_names(stage)]
        if isinstance(stage, SftStage) and not self.recipe.model.path:
            inputs += [self.fingerprint(made) for made in self.recipe.stages if isinstance(made, PretrainStage)]
        if isinstance(stage, ReportStage):
            inputs += [self.fingerprint(other) for other in self.recipe.stages if other is not stage]
        model = self.recipe.model.model_dump()
        return _digest([stage.model_dump(mode="json"), model, self.seed(stage), self.corpus_hash, inputs])

    def is_done(self, stage: Stage, fingerprint: str, fresh: bool) -> bool:
        """True where the stage's result is there and current; what is out of date is removed where ``fresh``.

        Raises:
            RunError: it is out of date and not ``fresh``.
        """
        record = self._record(stage.name)
        if record is None or record["fingerprint"] == fingerprint:
            return record is not None and record["state"] == "done"
        if not fresh:
            raise RunError(
                f"stage {stage.name!r} in {self.folder} was run with other settings, inputs or dialogues: "
                "add --fresh to run it and what follows again, or choose another folder with --out."
            )
        shutil.rmtree(self.folder / stage.name, ignore_errors=True)
        return False

    def _record(self, name: str) -> dict[str, Any] | None:
        path = self.folder / "stages" / f"{name}.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def record(
        self, stage: Stage, fingerprint: str, *, state: str, facts: dict[str, Any] | None = None, seconds: float = 0
    ) -> None:
        """Write a stage's record, and gather every stage's events into events.jsonl."""
        events = dict(self.events.get(stage.name, {}))
        value = {"name": stage.name, "stage": stage.stage, "state": state, "fingerprint": fingerprint}
        write_json(
            self.folder / "stages" / f"{stage.name}.json",
            {**value, "seconds": seconds, "facts": facts or {}, "events": events},
        )
        rows = []
        for other in self.recipe.stages:
            counted = (self._record(other.name) or {}).get("events", {})
            rows += [{"stage": other.name, "event": event, "count": count} for event, count in counted.items()]
        write_jsonl(self.folder / "events.jsonl", rows)

    def count(self, stage: Stage, event: str, number: int = 1) -> None:
        """Count something that was cut, dropped, skipped or unparsed; zero leaves no trace."""
        if number:
            self.events.setdefault(stage.name, Counter())[event] += number

    def describe(self) -> None:
        """Write what the run is made of: recipe, corpus, versions."""
        write_json(self.folder / "recipe.json", self.recipe.model_dump(mode="json"))
        parts = {"train": self.corpus.train, "valid": self.corpus.valid, "test": self.corpus.test}
        statistics = {name: corpus_statistics(part) for name, part in parts.items() if part}
        about = {"name": self.corpus.name, "licence": self.corpus.licence, "source": self.corpus.source}
        write_json(self.folder / "corpus.json", {**about, "hash": self.corpus_hash, "parts": statistics})
        write_json(self.folder / "versions.json", _versions())


def stage_seed(seed: int, stage: Stage) -> int:
    """A stage's seed, in 0..2^32-1, from the recipe's and the stage's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{stage.name}".encode()).digest()[:4], "big")


def _split(stage: PredictStage, corpus: Corpus) -> str:
    """The split that a stage predicts: test where there is one, else valid, unless the stage names it."""
    return stage.split or ("test" if corpus.test else "valid")


def _load(recipe: Recipe) -> Corpus:
    """Load the corpus, and refuse before anything is written what would fail after hours."""
    if recipe.model.path:
        check_source(recipe.model.path)
    elif not any(isinstance(stage, PretrainStage) for stage in recipe.stages):
        raise RunError("the recipe has no backbone: add a pretrain stage, or set model.path to a causal LM.")
    corpus = load_corpus(**recipe.corpus.model_dump(), seed=recipe.seed)
    if not any(supporter_turns(conversation) for conversation in corpus.train):
        raise CorpusError(
            f"the training part of {corpus.source} has no supporter turn with a strategy: nothing can be trained on it."
        )
    for stage in recipe.stages:
        if isinstance(stage, PredictStage) and not getattr(corpus, _split(stage, corpus)):
            split = _split(stage, corpus)
            raise CorpusError(
                f"stage {stage.name!r} predicts {split}, which the corpus lacks: give corpus.{split}=FILE."
            )
    return corpus


def _training_facts(trained: Trained) -> dict[str, Any]:
    return {"steps": trained.steps, "scored_tokens": trained.scored_tokens, "tokens_read": trained.nodes}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _versions() -> dict[str, Any]:
    import torch

    packages = (
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "tokenizers",
        "numpy",
        "nltk",
        "sacrebleu",
        "rouge-score",
    )
    return {
        "esckit": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "device": str(default_device()),
        "threads": torch.get_num_threads(),
        **{package: metadata.version(package) for package in packages},
    }
