"""A run's folder: what it is made of, which stages are done and with what, what was counted."""

import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from esckit import __version__
from esckit.chat_models.opening import PACE_KEYS
from esckit.conversation import conversation_to_json
from esckit.corpora import Corpus, corpus_statistics
from esckit.errors import RunError
from esckit.files import alone, hash_file, remove_folder, remove_leftovers, write_json, write_jsonl, writing
from esckit.judging.open_annotator import annotator_identity
from esckit.judging.rubric import load_rubrics
from esckit.language_models.backbone import Backbone, default_device, load_backbone
from esckit.language_models.token_tree import TokenTrie, build_tries
from esckit.recipes.recipe import Recipe, input_names
from esckit.recipes.stages import BaselineStage, JudgeStage, MineStage, PretrainStage, ReportStage, SftStage, Stage
from esckit.rendering import Example, Renderer
from esckit.strategy import TAXONOMIES
from esckit.training.batches import ConversationDataset, TrieDataset
from esckit.training.processes import count_processes, is_main
from esckit.training.trainer import Objective, Trained, train
from esckit.training.training_options import TrainingOptions

__all__ = ["CHECKPOINTS", "Run", "stage_seed"]

CHECKPOINTS: Final = "checkpoints"
"""Subfolder of what is being trained."""


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
    def model(self) -> dict[str, Any]:
        """What the recipe says of the model; of a folder, its weights' hashes too: others may take their place."""
        folder = Path(self.recipe.model.path or "")
        files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")] if self.recipe.model.path else []
        weights = {path.name: hash_file(path) for path in sorted(files)}
        return {**self.recipe.model.model_dump(), **({"weights": weights} if weights else {})}

    @cached_property
    def backbone_source(self) -> str:
        """Where the backbone is: the recipe's path, or what the pretrain stage made."""
        path = self.recipe.model.path
        if path:  # a folder's supporters may be moved, and be loaded from anywhere
            return str(Path(path).absolute()) if Path(path).is_dir() else path
        made = next(stage.name for stage in self.recipe.stages if isinstance(stage, PretrainStage))
        return str(self.folder / made / "model")

    def load_backbone(self) -> Backbone:
        """The backbone, as the recipe stores its weights."""
        return load_backbone(self.backbone_source, quantisation=self.recipe.model.quantisation)

    def seed(self, stage: Stage) -> int:
        """The stage's own seed."""
        return stage_seed(self.recipe.seed, stage)

    def max_context(self, backbone: Backbone) -> int:
        """The most tokens of a path."""
        return min(self.recipe.model.max_context or backbone.max_context, backbone.max_context)

    def renderer(self, backbone: Backbone) -> Renderer:
        """The renderer of a backbone for this corpus."""
        return Renderer(
            backbone.tokenizer,
            TAXONOMIES[self.taxonomy],
            max_context=self.max_context(backbone),
            layout=self.recipe.model.layout,
        )

    def train(
        self,
        stage: Stage,
        options: TrainingOptions,
        model: Any,
        dataset: ConversationDataset,
        folder: Path,
        save: Callable[[], None],
        *,
        objective: Objective | None = None,
        valid: TrieDataset | None = None,
    ) -> Trained:
        """Train with checkpoints, save, and write the curve into ``folder``, last.

        The checkpoints stay until the stage is done: what follows in it may be stopped too.
        """
        trained = train(
            model,
            dataset,
            options,
            folder=folder / CHECKPOINTS,
            title=stage.name if folder.name == stage.name else f"{stage.name} {folder.name}",
            seed=self.seed(stage),
            objective=objective,
            valid=valid,
        )
        if is_main():
            with writing(folder):
                save()
            write_jsonl(folder / "curve.jsonl", trained.curve)
        return trained

    def tries(
        self, stage: Stage, options: TrainingOptions, conversations: Iterable[list[Example]], *, count: bool = True
    ) -> TrieDataset:
        """Merge each conversation's targets; count what was cut or divided unless ``count`` is false."""
        rows = list(conversations)
        dataset = [build_tries(examples, options.max_tokens_per_row) for examples in rows]
        if count:
            self.count_cuts(stage, (example for examples in rows for example in examples), dataset)
        return TrieDataset(dataset)

    def count_cuts(self, stage: Stage, examples: Iterable[Example], tries: Iterable[list[TokenTrie]]) -> None:
        """Count targets whose context was cut, and conversations that do not fit one row."""
        self.count(stage, "targets whose context lost its oldest turns", sum(e.dropped > 0 for e in examples))
        self.count(stage, "conversations divided over rows", sum(len(own) > 1 for own in tries))

    # What is done, what it was done with, what it counted.

    def fingerprint(self, stage: Stage) -> str:
        """Hash of everything that a stage's result depends on: its config, its inputs, the corpus, the seed."""
        inputs = [self.fingerprint(self.recipe.named(name)) for name in input_names(stage)]
        if isinstance(stage, SftStage | BaselineStage) and not self.recipe.model.path:
            inputs += [self.fingerprint(made) for made in self.recipe.stages if isinstance(made, PretrainStage)]
        if isinstance(stage, ReportStage):
            inputs += [self.fingerprint(other) for other in self.recipe.stages if other is not stage]
        if isinstance(stage, MineStage) and stage.rule == "judged":
            inputs.append(_digest(annotator_identity(self.recipe.annotator)))
        if isinstance(stage, BaselineStage | JudgeStage) and (own := stage.read_prompts().digest):
            inputs.append(own)
        if isinstance(stage, JudgeStage):
            rubrics = [rubric.model_dump(mode="json") for rubric in load_rubrics(stage.rubrics)]
            inputs.append(_digest([rubrics, hash_file(Path(stage.failed)) if stage.failed else None]))
        elsewhere = {"prompts", "rubrics", "failed"} | PACE_KEYS  # what is in these files counts, not where they are
        settings = stage.model_dump(mode="json", exclude=elsewhere)
        return _digest([settings, self.model, self.seed(stage), self.corpus_hash, inputs])

    def is_done(self, stage: Stage) -> bool:
        """True where the stage's result is there and current."""
        record = self._record(stage.name)
        return record is not None and record["state"] == "done" and record["fingerprint"] == self.fingerprint(stage)

    def is_outdated(self, stage: Stage) -> bool:
        """True where the stage was run, or begun, with something else."""
        record = self._record(stage.name)
        return record is not None and record["fingerprint"] != self.fingerprint(stage)

    def refuse_outdated(self) -> None:
        """Refuse a folder that holds another run's stages.

        Raises:
            RunError: a stage is out of date.
        """
        for stage in self.recipe.stages:
            if self.is_outdated(stage):
                raise RunError(
                    f"stage {stage.name!r} in {self.folder} was run with other settings, inputs or dialogues: "
                    "add --fresh to run it and what follows again, or choose another folder with --out."
                )

    def begin(self, stage: Stage) -> None:
        """Record that a stage runs; what an outdated one left is removed, nothing of it is continued."""
        record = self._record(stage.name)
        if record and self.is_outdated(stage):
            self._write_record({**record, "state": "running"})  # a stop from here on leaves nothing that is done
            if (self.folder / stage.name).exists():
                remove_folder(self.folder / stage.name)
        self.record(stage, state="running")

    def remove_checkpoints(self, stage: Stage) -> None:
        """Remove a done stage's checkpoints, those of its folds too."""
        for checkpoints in [*(self.folder / stage.name).glob(f"**/{CHECKPOINTS}")]:
            remove_folder(checkpoints)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse a folder in which another run is at work; of a run's processes, the first holds the lock.

        Raises:
            EsckitError: another run is at work here, or the folder cannot be written.
        """
        if int(os.environ.get("RANK", "0")) > 0:
            yield
            return
        with alone(self.folder, self.folder / ".lock"):
            remove_leftovers(self.folder)
            yield

    def _record(self, name: str) -> dict[str, Any] | None:
        path = self.folder / "stages" / f"{name}.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def _write_record(self, record: dict[str, Any]) -> None:
        write_json(self.folder / "stages" / f"{record['name']}.json", record)

    def record(self, stage: Stage, *, state: str, facts: dict[str, Any] | None = None, seconds: float = 0) -> None:
        """Write a stage's record, and gather every stage's events into events.jsonl; in the main process only."""
        if not is_main():
            return
        events = dict(self.events.get(stage.name, {}))
        value = {"name": stage.name, "stage": stage.stage, "state": state, "fingerprint": self.fingerprint(stage)}
        self._write_record({**value, "seconds": seconds, "facts": facts or {}, "events": events})
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
        """Write what the run is made of: recipe, corpus, versions; in the main process only."""
        if not is_main():
            return
        write_json(self.folder / "recipe.json", self.recipe.model_dump(mode="json"))
        parts = {"train": self.corpus.train, "valid": self.corpus.valid, "test": self.corpus.test}
        statistics = {name: corpus_statistics(part) for name, part in parts.items() if part}
        about = {"name": self.corpus.name, "licence": self.corpus.licence, "source": self.corpus.source}
        write_json(self.folder / "corpus.json", {**about, "hash": self.corpus_hash, "parts": statistics})
        write_json(self.folder / "versions.json", _versions())


def stage_seed(seed: int, stage: Stage) -> int:
    """A stage's seed, in 0..2^32-1, from the recipe's and the stage's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{stage.name}".encode()).digest()[:4], "big")


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
        "processes": count_processes(),
        **{package: metadata.version(package) for package in packages},
    }
