"""The training loop: transformers' Trainer over token tries.

What is minimised is an `Objective`: a mean over the optimiser step's units (scored tokens, or pairs), over accumulation
and all processes; so gradients do not depend on how conversations are grouped. The batches of all epochs are planned
before the first step, so resuming is skipping.
"""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from esckit.errors import EsckitError
from esckit.files import sync, write_json, writing
from esckit.models.token_tree import TokenTrie, TrieBatch, collate, in_forwards, token_log_probabilities
from esckit.progress import Progress
from esckit.training.options import TrainingOptions

__all__ = [
    "ConversationDataset",
    "Likelihood",
    "Objective",
    "Trained",
    "TrieDataset",
    "TrieTrainer",
    "mean_loss",
    "plan_batches",
    "train",
]

_MEASURED = {"loss", "valid_loss"}
_COMPLETE = "complete"  # the mark that is written last into a checkpoint: its files with their sizes
_KEPT = 2  # checkpoints


class Trained(NamedTuple):
    """What a training run tells: its curve (dicts of step, epoch, loss, valid_loss, ...) and its counts."""

    curve: list[dict[str, float]]
    steps: int
    scored_tokens: int
    nodes: int


class ConversationDataset(Protocol):
    """What can be trained on: an item is a conversation."""

    def __len__(self) -> int: ...

    def counts(self) -> list[int]:
        """What fills a batch, a conversation each."""

    def tries(self) -> Iterator[TokenTrie]:
        """Every trie."""

    def forwards(self, items: Sequence[Any], max_tokens: int | None) -> list[dict[str, Any]]:
        """The tensors of a batch, a dict a forward pass."""


class TrieDataset(Dataset[list[TokenTrie]]):
    """An item is a conversation: its tries."""

    def __init__(self, conversations: Iterable[list[TokenTrie]]) -> None:
        self.items = [tries for tries in conversations if tries]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[TokenTrie]:
        return self.items[index]

    def counts(self) -> list[int]:
        """What fills a batch, a conversation each: its targets."""
        return [sum(len(trie.targets) for trie in tries) for tries in self.items]

    def tries(self) -> Iterator[TokenTrie]:
        """Every trie."""
        return (trie for tries in self.items for trie in tries)

    @staticmethod
    def forwards(items: Sequence[list[TokenTrie]], max_tokens: int | None) -> list[dict[str, Any]]:
        """The tensors of a batch, divided into forward passes of at most ``max_tokens`` tokens where it is given."""
        tries = [trie for own in items for trie in own]
        return [collate(tries[part])._asdict() for part in in_forwards(list(map(len, tries)), max_tokens)]


class Objective(Protocol):
    """What a training run minimises."""

    def units(self, inputs: dict[str, Any]) -> Tensor:
        """What a batch adds to the step's denominators, (U,)."""

    def loss(self, model: Any, inputs: dict[str, Any], units: Tensor) -> Tensor:
        """A batch's part of the step's loss, a mean over ``units`` (U,), the denominators of the whole step."""

    def metrics(self) -> dict[str, float]:
        """Means since the last call, for the curve."""


class Likelihood:
    """SFT: the weighted mean of the scored tokens' losses, in nats."""

    def units(self, inputs: dict[str, Any]) -> Tensor:
        """The weight of the batch's scored tokens, (1,); tokens weigh 1 unless their example says otherwise."""
        return inputs["weight"].sum()[None]  # type: ignore[no-any-return]

    def loss(self, model: Any, inputs: dict[str, Any], units: Tensor) -> Tensor:
        """Weighted sum of the batch's token losses over the step's weight."""
        batch = TrieBatch(**inputs)
        return -(batch.weight * token_log_probabilities(model, batch)).sum() / units[0]

    def metrics(self) -> dict[str, float]:
        """None beyond the loss."""
        return {}


def plan_batches(counts: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[list[int]]]:
    """Plan every epoch's batches: shuffle, then add whole conversations until their targets reach ``batch_size``.

    Args:
        counts: targets of each conversation.
        batch_size: targets a batch; a batch overshoots by at most one conversation, an epoch's last may fall short.
        epochs: how many passes.
        seed: of the shuffles.

    Returns:
        Epochs of batches of conversation indices.
    """
    plan = []
    for epoch in range(epochs):
        order = list(range(len(counts)))
        random.Random(f"{seed}:{epoch}").shuffle(order)
        batches: list[list[int]] = [[]]
        for index in order:
            if sum(counts[i] for i in batches[-1]) >= batch_size:
                batches.append([])
            batches[-1].append(index)
        plan.append(batches)
    return plan


@torch.no_grad()
def mean_loss(model: Any, dataset: TrieDataset, batch_size: int = 16) -> float:
    """Mean negative log-likelihood of the scored tokens, in nats."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for batch in plan_batches(dataset.counts(), batch_size, 1, 0)[0]:
        tensors = collate([trie for index in batch for trie in dataset[index]]).to(device)
        total -= float(token_log_probabilities(model, tensors).double().sum())
        tokens += len(tensors.token)
    model.train(was_training)
    return total / tokens


class TrieTrainer(Trainer):
    """Trainer whose batches are planned ahead and whose loss is an objective's."""

    def __init__(
        self, batches: list[list[int]], objective: Objective, *, max_tokens: int | None = None, **arguments: Any
    ) -> None:
        forwards = arguments["train_dataset"].forwards
        super().__init__(data_collator=lambda items: {"forwards": forwards(items, max_tokens)}, **arguments)
        self.batches = batches
        self.objective = objective
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole step's units
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        """Batches in the planned order."""
        loader = DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The optimiser step's batches and its units over all processes."""
        samples = [sample for _, sample in zip(range(num_batches), epoch_iterator, strict=False)]
        if not samples:
            return samples, None
        each = [self.objective.units(inputs) for sample in samples for inputs in sample["forwards"]]
        units = torch.stack(each).sum(0).to(device)  # (U,)
        return samples, self.accelerator.gather(units[None]).sum(0)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward, one part of the batch after the other: memory is that of the largest part."""
        losses = [super(TrieTrainer, self).training_step(model, one, num_items_in_batch) for one in inputs["forwards"]]
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This batch's part of the step's loss; processes are averaged, hence their number."""
        loss = self.objective.loss(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise EsckitError(
                f"the loss is {float(loss.detach())} at step {self.state.global_step + 1}: "
                "lower learning_rate, or check the model's weights."
            )
        return loss * int(self.accelerator.num_processes)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, mark it as whole when every process has, and only then remove what it replaces."""
        folder = Path(self.args.output_dir)
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        with writing(checkpoint):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                sync(checkpoint)
                write_json(checkpoint / _COMPLETE, _sizes(checkpoint))
                _keep(_whole_checkpoints(folder)[-_KEPT:], folder)

    def log(self, logs: dict[str, float], *arguments: Any, **more: Any) -> None:
        """Add the objective's own figures to a point of the curve."""
        super().log({**logs, **self.objective.metrics()} if "loss" in logs else logs, *arguments, **more)


class _Watch(TrainerCallback):
    """Shows progress, measures valid at epoch ends, saves checkpoints by the clock and marks whole ones."""

    def __init__(
        self, title: str, total: int, epoch_ends: Sequence[int], valid: Callable[[Any], float] | None, every: float
    ):
        self.bar = Progress(title, total)
        self.epoch_ends = set(epoch_ends)
        self.valid = valid
        self.every = every
        self.saved = time.monotonic()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = Progress(self.bar.title, self.bar.total, state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        control.should_log = control.should_log or state.global_step in self.epoch_ends
        due = time.monotonic() - self.saved >= self.every and state.global_step < state.max_steps
        control.should_save = due and control.should_log  # between, a point of the curve would be cut in two
        losses = [
            f"{key} {row[key]:.3f}" for row in state.log_history[-2:] for key in ("loss", "valid_loss") if key in row
        ]
        self.bar.advance("  ".join(losses))
        if self.valid and state.global_step in self.epoch_ends:
            state.log_history.append({"step": state.global_step, "valid_loss": self.valid(model)})

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved = time.monotonic()

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; one that is not as it was when it was marked is never taken."""
    return next(reversed(_whole_checkpoints(folder)), None)


def _whole_checkpoints(folder: Path) -> list[Path]:
    """In the order of their steps."""
    whole = [checkpoint for checkpoint in folder.glob("checkpoint-*") if _is_whole(checkpoint)]
    return sorted(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _is_whole(checkpoint: Path) -> bool:
    mark = checkpoint / _COMPLETE
    try:
        return mark.exists() and bool(json.loads(mark.read_bytes()) == _sizes(checkpoint))
    except ValueError:  # the mark itself is broken
        return False


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Every file of a checkpoint but the mark, in bytes."""
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / _COMPLETE)
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def _keep(wanted: Sequence[Path], folder: Path) -> None:
    """Remove all other checkpoints, also what is left of one that could not be finished."""
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint not in wanted:
            shutil.rmtree(checkpoint)


def _arguments(options: TrainingOptions, folder: Path, steps: int, seed: int) -> TrainingArguments:
    """What transformers' Trainer is told."""
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        activation_checkpointing=options.gradient_checkpointing,
        bf16=options.precision == "bfloat16" or (options.precision == "auto" and cuda),
        use_cpu=not cuda,
        seed=seed,
        save_strategy="no",  # _Watch saves
        logging_steps=max(1, steps // 100),
        logging_first_step=True,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        restore_callback_states_from_checkpoint=True,
    )


def train(
    model: Any,
    dataset: ConversationDataset,
    options: TrainingOptions,
    *,
    folder: Path,
    title: str,
    seed: int,
    objective: Objective | None = None,
    valid: TrieDataset | None = None,
) -> Trained:
    """Train the parameters of ``model`` that require gradients; continue from ``folder`` where a checkpoint is there.

    Args:
        model: a causal language model, possibly with an adapter.
        dataset: conversations with at least one target.
        options: how.
        folder: for checkpoints.
        title: for the progress bar.
        seed: of the order of conversations and of dropout.
        objective: what is minimised; SFT's `Likelihood` by default.
        valid: its likelihood is measured after each epoch.

    Raises:
        EsckitError: the loss is not finite.
    """
    epochs = plan_batches(dataset.counts(), max(1, options.batch_size // options.accumulation), options.epochs, seed)
    batches = [batch for epoch in epochs for batch in epoch]
    steps = -(-len(batches) // options.accumulation)
    epoch_ends = [-(-end // options.accumulation) for end in accumulate(map(len, epochs))]
    measure = (lambda model: mean_loss(model, valid)) if valid is not None and len(valid) else None
    watch = _Watch(title, steps, epoch_ends, measure, options.checkpoint_seconds)
    trainer = TrieTrainer(
        batches,
        objective or Likelihood(),
        max_tokens=options.max_tokens_per_row,
        model=model,
        args=_arguments(options, folder, steps, seed),
        train_dataset=dataset,
        callbacks=[watch],
    )
    checkpoint = latest_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model.eval()
    return Trained(
        curve=[_point(row, steps, options.epochs) for row in trainer.state.log_history if _MEASURED & row.keys()],
        steps=steps,
        scored_tokens=sum(len(target.nodes) for trie in dataset.tries() for target in trie.targets),
        nodes=sum(map(len, dataset.tries())),
    )


def _point(row: dict[str, float], steps: int, epochs: int) -> dict[str, float]:
    """A point of the training curve, its epoch from 0 to ``epochs``."""
    keys = row.keys() - {"step", "epoch"}
    return {"step": row["step"], "epoch": row["step"] / steps * epochs, **{key: row[key] for key in sorted(keys)}}
