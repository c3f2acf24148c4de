"""What several processes do in `test_processes`, and one process too: the same steps, the same run.

torchrun --standalone --nproc-per-node 2 -m tests.training.together FOLDER
"""

import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from esckit.conversation.turn_rule import Message
from esckit.language_models.token_tree import build_tries
from esckit.training.batches import TrieDataset
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item, replay_item
from esckit.training.processes import count_processes, from_main, is_main, join_processes, total, wait
from esckit.training.references import Reference, adapter_off, frozen_adapter
from esckit.training.trainer import Likelihood, train
from esckit.training.training_options import PreferenceOptions, TrainingOptions
from tests.tiny import randomise_adapter, starter_dialogues, tiny_model, tiny_renderer, with_lora
from tests.training.pairs import rendered_pairs
from tests.training.step import one_step

STEPS: Final[dict[str, tuple[str, list[int], int, int | None]]] = {
    "sft": ("sft", [0, 1, 2, 3], 1, None),
    "sft, a process without a conversation": ("sft", [0], 1, None),
    "sft, in passes": ("sft", [0, 1, 2, 3], 3, None),
    "sft, more passes in one process": ("sft", [0, 1, 2, 3], 1, 300),
    "dpo": ("dpo", [0, 1, 2, 3], 1, None),
    "dpo, a process without a conversation": ("dpo", [1], 2, None),
    "dpo, more passes in one process": ("dpo", [0, 1, 2, 3], 1, 500),
    "dpo with sft, adapter off": ("dpo + sft", [0, 1, 2, 3], 2, None),
    "orpo": ("orpo", [0, 1, 2, 3], 2, None),
    "dpo with replay": ("replay", [0, 1, 2, 3, 4, 5], 1, None),
    "dpo with replay, in passes": ("replay", [5, 1, 4], 3, None),
    "dpo with replay, more passes in one process": ("replay", [0, 1, 2, 3, 4, 5], 1, 300),
}
"""Each an objective, the batch of one optimiser step, its forward passes, and the most tokens of one."""

CHATS: Final = (
    [Message("user", "What is 2 + 2?"), Message("assistant", "4")],
    [
        Message("system", "Be brief."),
        Message("user", "Name a tree."),
        Message("assistant", "Oak."),
        Message("user", "And another one, of another family, which loses its leaves."),
        Message("assistant", "The silver birch, which grows fast and lets much light through."),
    ],
)
"""What is replayed."""


class Run(NamedTuple):
    """A whole run's curve and trained weights."""

    curve: list[dict[str, float]]
    weights: dict[str, Tensor]


def setting(kind: str, most: int | None = None) -> tuple[Any, Any, Any]:
    """Model, data and objective; conversations of different lengths, so that means of means would show."""
    model = with_lora(tiny_model(seed=1), "generator", seed=2)
    if kind == "sft":
        renderer = tiny_renderer()
        examples = [renderer.examples(c, "generator", {}) for c in starter_dialogues(4, 8)]
        counts = (4, 1, 3, 2)
        tries = (build_tries(own[:count], most) for own, count in zip(examples, counts, strict=True))
        return model, TrieDataset(tries), Likelihood()
    pairs = rendered_pairs("generator", count=4, turns=6, each=2)
    items = [make_item(own[:count], most) for own, count in zip(pairs, (4, 1, 3, 2), strict=True)]
    if kind == "replay":
        items += [replay_item(tiny_renderer().chat(chat), most) for chat in CHATS]
    reference: Reference = adapter_off
    if kind in ("dpo", "replay"):
        reference = with_frozen_copy(model)
    options = {
        "dpo": PreferenceOptions(beta=0.3),
        "dpo + sft": PreferenceOptions(sft_weight=0.5),
        "orpo": PreferenceOptions(loss="orpo"),
        "replay": PreferenceOptions(sft_weight=0.5),
    }[kind]
    return model, PairDataset(items), PreferenceObjective(options, reference)


def with_frozen_copy(model: Any) -> Reference:
    """A second adapter beside the trained one, frozen, that says something else."""
    model.add_adapter("reference", model.peft_config["generator"])
    torch.manual_seed(5)
    randomise_adapter(model, ".reference.")
    model.set_adapter("generator")
    return frozen_adapter("generator", "reference")


def whole_run(folder: Path) -> Run:
    """Two epochs, a checkpoint a step; where checkpoints are there already, it continues from the newest."""
    return train_pairs(folder, PairDataset(setting("dpo")[1].items[2:]), epochs=2, checkpoint_seconds=0)


def stopped_run(folder: Path) -> Run:
    """Its held-out pairs want the opposite of what is trained, so that it stops after the second evaluation."""
    turned = [item._replace(chosen=item.rejected, rejected=item.chosen) for item in setting("dpo")[1].items]
    return train_pairs(folder, PairDataset(turned), epochs=6, patience=1)


def train_pairs(folder: Path, valid: PairDataset, **more: Any) -> Run:
    """Train the pairs of `setting`."""
    model, data, objective = setting("dpo")
    options = TrainingOptions(batch_size=3, learning_rate=3e-3, warmup=0.2, **more)
    trained = train(model, data, options, folder=folder, title="test", seed=3, objective=objective, valid=valid)
    return Run(trained.curve, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad})


def everything(folder: Path) -> dict[str, Any]:
    """All of the above by name."""
    found: dict[str, Any] = {
        name: one_step(*setting(kind, most), batch, folder / "step", passes=passes, max_tokens=most)
        for name, (kind, batch, passes, most) in STEPS.items()
    }
    return {
        **found,
        "run": whole_run(folder / "run"),
        "again": whole_run(folder / "run"),
        "stopped": stopped_run(folder / "stopped"),
    }


def main(folder: Path) -> None:
    """Do everything, and save what each process found."""
    torch.set_num_threads(1)
    processes = join_processes()
    found = everything(folder)
    rank = torch.distributed.get_rank() if processes > 1 else 0
    heard, sums = from_main(lambda: rank), total({"a": rank + 1.0, str(rank): 1})
    found["talk"] = (processes, count_processes(), is_main(), heard, sums)
    torch.save(found, folder / f"{rank}.pt")
    wait()


if __name__ == "__main__":
    from tests.training import together  # what is saved must not belong to __main__

    together.main(Path(sys.argv[1]))
