"""A run's folder: what it is made of, which stages are done and with what, what was counted."""

import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from esckit import __version__
from esckit.conversation import conversation_to_json
from esckit.corpora import Corpus, corpus_statistics
from esckit.errors import RunError
from esckit.files import alone, remove_folder, remove_leftovers, write_json, write_jsonl
from esckit.hub import is_hub_id, is_smollm2
from esckit.language_models.backbone import Backbone, default_device, load_backbone
from esckit.language_models.sources import settled
from esckit.prompts import shipped_prompts
from esckit.recipes.identity import digest, source_identity
from esckit.recipes.recipe import Recipe
from esckit.recipes.stage import Stage
from esckit.rendering import Renderer
from esckit.rendering.gates import Gates
from esckit.roles import RoleBank
from esckit.strategy import ESCONV, TAXONOMIES
from esckit.training.processes import count_processes, is_main

CHECKPOINTS: Final = "checkpoints"
"""Subfolder of what is being trained."""

_VERSIONS: Final = "versions.json"
_PACKAGES: Final = (
    *("torch", "transformers", "peft", "accelerate", "tokenizers"),
    *("numpy", "nltk", "sacrebleu", "rouge-score"),
)


@dataclass
class RunFolder:
    """A run's folder: recipe, corpus, records of its stages."""

    recipe: Recipe
    folder: Path
    corpus: Corpus
    events: dict[str, Counter[str]] = field(default_factory=dict)
    _identities: dict[str, str] = field(default_factory=dict)
    _sources: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def taxonomy(self) -> str:
        """Name of the corpus's taxonomy; a derivation labels what has none by ESConv's."""
        return str(self.corpus.train[0].taxonomy or ESCONV.name)

    @cached_property
    def backbone_source(self) -> str:
        """Where the backbone is: the recipe's path, or what a stage made."""
        path, made = self.recipe.model.path, self.recipe.makes_backbone
        if path:  # a folder's supporters may be moved, and be loaded from anywhere
            return settled(path) if is_hub_id(path) or is_smollm2(path) else str(Path(path).absolute())
        assert made
        return str(self.folder / made.name / "model")

    def load_backbone(self) -> Backbone:
        """The backbone, as the recipe stores its weights."""
        return load_backbone(self.backbone_source, quantisation=self.recipe.model.quantisation)

    def seed(self, stage: Stage) -> int:
        """The stage's own seed."""
        return stage_seed(self.recipe.seed, stage)

    def max_context(self, backbone: Backbone) -> int:
        """The most tokens of a path."""
        return min(self.recipe.model.max_context or backbone.max_context, backbone.max_context)

    def renderer(self, backbone: Backbone, gates: Gates | None = None, bank: RoleBank | None = None) -> Renderer:
        """The renderer of a backbone for this corpus; a part with roles has gates, a bank or both."""
        return Renderer(
            backbone.tokenizer,
            TAXONOMIES[self.taxonomy],
            max_context=self.max_context(backbone),
            layout=self.recipe.model.layout,
            gates=gates,
            bank=bank,
        )

    @cached_property
    def corpus_hash(self) -> str:
        """SHA-256 over every conversation of every part."""
        parts = self.corpus.parts.values()
        return digest([[conversation_to_json(conversation) for conversation in part] for part in parts])

    @cached_property
    def languages(self) -> frozenset[str]:
        """Those of the corpus's dialogues: prompts in other languages say nothing here."""
        return frozenset(tree.language for part in self.corpus.parts.values() for tree in part)

    @cached_property
    def model_identity(self) -> Any:
        """What the recipe says of the backbone, what is in its folder, and the prompts of its layout."""
        model = self.recipe.model
        layouts = [shipped_prompts(method, self.languages) for method in ("support", "decoupled_esc")]
        return [
            model.model_dump(exclude={"path", "trust_remote_code"}),
            model.path,
            self.source(model.path or ""),
            layouts,
        ]

    def source(self, source: str) -> Any:
        """What a model's or an encoder's source stands for now (`source_identity`), looked at once a run."""
        if source not in self._sources:
            self._sources[source] = source_identity(source) if source else None
        return self._sources[source]

    def identity(self, stage: Stage) -> str:
        """Hash of everything that a stage's result depends on; computed once."""
        if stage.name not in self._identities:
            self._identities[stage.name] = self._identify(stage)
        return self._identities[stage.name]

    def _identify(self, stage: Stage) -> str:
        reads = [self.identity(self.recipe.named(each.name)) for each in stage.inputs]
        backbone = None
        if stage.uses_backbone:
            made = self.recipe.makes_backbone
            backbone = [self.model_identity, made and self.identity(made)]
        own = [stage.version, self.seed(stage), stage.depends_on(self)]
        return digest([stage.counting_keys, own, self.corpus_hash, backbone, reads])

    def is_done(self, stage: Stage) -> bool:
        """True where the stage's result is there and current, or it was skipped for what is current."""
        record = self._record(stage.name)
        ended = record is not None and record["state"] in ("done", "skipped")
        return ended and record is not None and record["fingerprint"] == self.identity(stage)

    def was_skipped(self, name: str) -> bool:
        """True where a stage had nothing to do (`Stage.skips`)."""
        record = self._record(name)
        return record is not None and record["state"] == "skipped"

    def facts(self, name: str) -> dict[str, Any]:
        """What a stage that has ended says in its record."""
        return dict((self._record(name) or {})["facts"])

    def is_outdated(self, stage: Stage) -> bool:
        """True where the stage was run, or begun, with something else."""
        record = self._record(stage.name)
        return record is not None and record["fingerprint"] != self.identity(stage)

    def refuse_outdated(self) -> None:
        """Refuse a folder that holds another run's stages.

        Raises:
            RunError: a stage is out of date.
        """
        for stage in self.recipe.stages:
            if self.is_outdated(stage):
                raise RunError(
                    f"stage {stage.name!r} in {self.folder} was run with other settings, inputs, models or dialogues: "
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
        versions = _versions()
        write_json(self.folder / _VERSIONS, versions)
        value = {"name": stage.name, "stage": stage.stage, "state": state, "fingerprint": self.identity(stage)}
        told = {"facts": facts or {}, "events": dict(self.events.get(stage.name, {})), "versions": versions}
        self._write_record({**value, "seconds": seconds, **told})
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
        """Write what the run is made of, recipe and corpus; in the main process only."""
        if not is_main():
            return
        write_json(self.folder / "recipe.json", self.recipe.model_dump(mode="json"))
        statistics = {name: corpus_statistics(part) for name, part in self.corpus.parts.items() if part}
        about = {"name": self.corpus.name, "licence": self.corpus.licence, "source": self.corpus.source}
        write_json(self.folder / "corpus.json", {**about, "hash": self.corpus_hash, "parts": statistics})
        if not (self.folder / _VERSIONS).exists():  # else those of the last stage that ran
            write_json(self.folder / _VERSIONS, _versions())


def stage_seed(seed: int, stage: Stage) -> int:
    """A stage's seed, in 0..2^32-1, from the recipe's and the stage's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{stage.name}".encode()).digest()[:4], "big")


def _versions() -> dict[str, Any]:
    import torch

    return {
        "esckit": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "device": str(default_device()),
        "threads": torch.get_num_threads(),
        "processes": count_processes(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }
