"""Mixtures of experts on tiny models: nine roles, ESConv's strategies, gates far from uniform; dialogues in roles."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from esckit.conversation import Conversation
from esckit.files import hash_file
from esckit.language_models.experts import ExpertsLinear, ExpertsModel, experts_of
from esckit.rendering import Layout, Renderer
from esckit.strategy import ESCONV
from esckit.training.adapters import fresh_experts
from esckit.training.training_options import ExpertsOptions, LoraOptions
from tests.tiny import POSITIONS, starter_dialogues, tiny_model, tiny_tokenizer, write_supporter

ROLES: Final = ("baker", "captain", "doctor", "farmer", "judge", "nurse", "pilot", "tailor", "weaver")
MEMBERS: Final[Mapping[str, Sequence[str]]] = {
    "role": ROLES,
    "strategy": ESCONV.labels,
    "role+strategy": tuple(f"{role}+{label}" for role in ROLES[:2] for label in ESCONV.labels[:2]),
    "language": ("en", "zh"),
}
GROUPS: Final = {"role": 3, "strategy": 2}


def with_experts(
    model: Any,
    part: str = "generator",
    *,
    seed: int = 0,
    r: int = 4,
    dropout: float = 0.0,
    groups: Mapping[str, int] | None = None,
    random: bool = True,
    described: Any = None,
    members: Mapping[str, Sequence[str]] = MEMBERS,
    **options: Any,
) -> Any:
    """The model under a mixture of this name, in evaluation mode; with random B and gates it changes every figure."""
    torch.manual_seed(seed)
    experts = ExpertsOptions(**{"groups": dict(groups or GROUPS), "embedding_size": 5, **options})
    lora = LoraOptions(r=r, alpha=6, dropout=dropout)
    made = fresh_experts(model, lora, experts, members, part, described=described)
    if random:
        randomise_experts(made, part)
    return made.eval()


def randomise_experts(model: Any, part: str = "generator") -> None:
    """Draw an adapter's B matrices and gates anew."""
    with torch.no_grad():
        for layer in layers_of(model):
            layer.experts_B[part].normal_(std=0.1)
            if part in layer.experts_gate:
                layer.experts_gate[part].normal_(std=0.5)


def write_empath(folder: Path, **switches: Any) -> Path:
    """Write a supporter whose generator is a mixture, with a plain planner; its base travels along."""
    write_supporter(folder, seed=1)
    save_mixture(folder, **switches)
    card = json.loads((folder / "supporter.json").read_text(encoding="utf-8"))
    card["adapter_hashes"]["generator"] = hash_file(folder / "generator/adapter_model.safetensors")
    (folder / "supporter.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def save_mixture(folder: Path, **switches: Any) -> None:
    """Write a mixture on `tiny_model` into the subfolder ``generator``."""
    shutil.rmtree(folder / "generator", ignore_errors=True)
    with_experts(tiny_model(), seed=2, **switches).save_pretrained(str(folder))


def layers_of(model: Any) -> list[ExpertsLinear]:
    """The adapted layers."""
    return [module for module in model.modules() if isinstance(module, ExpertsLinear)]


def tuner_of(model: Any) -> ExpertsModel:
    """The mixture of a PEFT model."""
    tuner = experts_of(model)
    assert tuner is not None
    return tuner


def renderer_of(model: Any, part: str = "generator", layout: Layout = "shared-prefix", **more: Any) -> Renderer:
    """A renderer that gives every token the pair that the model's experts have for it."""
    gates = tuner_of(model).gates_of(part)
    return Renderer(tiny_tokenizer(), ESCONV, max_context=POSITIONS, layout=layout, gates=gates, **more)


def dialogues(count: int = 2, turns: int = 6) -> list[Conversation]:
    """The first dialogues of the starter corpus, each in a role; in the first one the role changes with a turn."""
    told = [replace(c, labels={**c.labels, "role": ROLES[i]}) for i, c in enumerate(starter_dialogues(count, turns))]
    answers = [turn.id for turn in told[0].turns if turn.speaker == "supporter"]
    changed = [
        replace(turn, extra={**turn.extra, "role": ROLES[5]}) if turn.id in answers[1:2] else turn
        for turn in told[0].turns
    ]
    return [replace(told[0], turns=changed), *told[1:]]
