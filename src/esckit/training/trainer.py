"""The training loop: transformers' Trainer over token tries.

What is minimised is an `Objective`: a mean over the optimiser step's units (scored tokens, or pairs), over all forward
passes and processes; so gradients do not depend on how conversations are grouped. The batches of all epochs are planned
before the first step, so resuming is skipping. A batch is a step; processes and passes divide it among themselves.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from esckit.errors import EsckitError
from esckit.files import make_folder, writing
from esckit.language_models.precision import SLOW_BFLOAT16, fast_bfloat16
from esckit.language_models.token_tree import TokenTrie, TrieBatch, collate, token_log_probabilities
from esckit.progress import Progress
from esckit.training.batches import ConversationDataset, TrieDataset, divide, in_passes, plan_batches
from esckit.training.checkpoints import latest_checkpoint, mark_whole
from esckit.training.early_stopping import EarlyStopping, best_step, evaluation_steps, valid_losses
from esckit.training.processes import from_main, is_main
from esckit.training.references import in_evaluation
from esckit.training.training_options import TrainingOptions, usual_rates

__all__ = [
    "Likelihood",
    "Objective",
    "Trained",
    "TrieTrainer",
    "mean_loss",
    "train",
]

_MEASURED = {"loss", "valid_loss"}


class Trained(NamedTuple):
    """What a training run tells: its curve (dicts of step, epoch, loss, valid_loss, ...) and its counts.

    ``best`` is the step whose weights are kept, of the ``planned`` ones; without early stopping None, the last.
    """

    curve: list[dict[str, float]]
    steps: int
    scored_tokens: int
    nodes: int
    planned: int
    best: int | None = None


class Objective(Protocol):
    """What a training run minimises."""

    def units(self, inputs: dict[str, Any]) -> Tensor:
        """What a batch adds to the step's denominators, (U,)."""

    def loss(self, model: Any, inputs: dict[str, Any], units: Tensor) -> Tensor:
        """A batch's part of the step's loss, a mean over ``units`` (U,), the denominators of the whole step."""

    def metrics(self) -> dict[str, float]:
        """Means since the last call, over all processes, for the curve; every process calls it."""

    def measure(self, model: Any, dataset: Any, options: TrainingOptions) -> float:
        """The loss of a dataset that is not trained on."""


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

    def measure(self, model: Any, dataset: TrieDataset, options: TrainingOptions) -> float:
        """`mean_loss`: every token weighs 1."""
        return mean_loss(model, dataset)


@torch.no_grad()
def mean_loss(model: Any, dataset: TrieDataset, batch_size: int = 16) -> float:
    """Mean negative log-likelihood of the scored tokens, in nats."""
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    with in_evaluation(model):
        for batch in plan_batches(dataset.counts(), batch_size, 1, 0)[0]:
            tensors = collate([trie for index in batch for trie in dataset[index]]).to(device)
            total -= float(token_log_probabilities(model, tensors).double().sum())
            tokens += len(tensors.token)
    return total / tokens


class TrieTrainer(Trainer):
    """Trainer whose batches, a step each, are planned ahead and whose loss is an objective's."""

    def __init__(
        self,
        batches: list[list[int]],
        objective: Objective,
        *,
        passes: int = 1,
        max_tokens: int | None = None,
        title: str = "training",
        stopping: EarlyStopping | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(data_collator=self._collate, **arguments)
        self.batches = batches
        self.objective = objective
        self.passes = passes
        self.max_tokens = max_tokens
        self.title = title
        self.stopping = stopping
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        """Batches in the planned order, the same in every process: each takes its share when it collates."""
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)

    def _collate(self, items: Sequence[Any]) -> dict[str, Any]:
        """This process's forward passes of a batch, and the units of all processes.

        Every process makes equally many passes, since they meet in each; who has less to read reads something again
        that counts for nothing.
        """
        data = self.train_dataset
        shares = divide([data.size(item) for item in items], int(self.accelerator.num_processes))
        passes = [in_passes(data, [items[i] for i in share], self.passes, self.max_tokens) for share in shares]
        every = [one for own in passes for one in own]
        own = passes[self.accelerator.process_index]
        idle = data.idle(min(every, key=lambda one: int(one["input_ids"].numel())))
        return {
            "forwards": own + [idle] * (max(map(len, passes)) - len(own)),
            "units": torch.stack([self.objective.units(one) for one in every]).sum(0),  # (U,)
        }

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward, one part of the batch after the other: memory is that of the largest part."""
        units = inputs["units"].to(self.args.device)
        *parts, last = inputs["forwards"]
        losses = []
        for part in parts:
            with self._step_goes_on(model):
                losses.append(super().training_step(model, part, units))
        losses.append(super().training_step(model, last, units))
        return torch.stack(losses).sum()

    @contextmanager
    def _step_goes_on(self, model: Any) -> Iterator[None]:
        """Gradients are added up without asking the other processes; DeepSpeed, which steps by itself, does not yet."""
        state = self.accelerator.gradient_state
        synchronised = state.sync_gradients
        state._set_sync_gradients(False)
        with nullcontext() if self.is_deepspeed_enabled else self.accelerator.no_sync(model):
            yield
        state._set_sync_gradients(synchronised)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This pass's part of the step's loss; processes are averaged, hence their number."""
        loss = self.objective.loss(model, inputs, num_items_in_batch)
        value = float(loss.detach())
        _check_loss(value, f"{self.title} stopped, its loss is {value} at step {self.state.global_step + 1}")
        return loss * int(self.accelerator.num_processes)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, mark it as whole when every process has, and only then remove what it replaces."""
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with writing(checkpoint):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                if self.stopping:
                    self.stopping.save(checkpoint)
                mark_whole(checkpoint)

    def log(self, logs: dict[str, float], *arguments: Any, **more: Any) -> None:
        """Add the objective's own figures to a point of the curve."""
        super().log({**logs, **self.objective.metrics()} if "loss" in logs else logs, *arguments, **more)


class _Watch(TrainerCallback):
    """Shows progress, measures what is not trained on at these steps, saves checkpoints by the clock, stops early."""

    def __init__(
        self,
        title: str,
        total: int,
        measured: Sequence[int],
        measure: Callable[[Any], float] | None,
        every: float,
        stopping: EarlyStopping | None,
    ):
        self.bar = Progress(title, total)
        self.measured = set(measured)
        self.measure = measure
        self.every = every
        self.stopping = stopping
        self.saved = time.monotonic()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = Progress(self.bar.title, self.bar.total, state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        control.should_log = control.should_log or state.global_step in self.measured
        losses = [
            f"{key} {row[key]:.3f}" for row in state.log_history[-2:] for key in ("loss", "valid_loss") if key in row
        ]
        if state.is_world_process_zero:
            self.bar.advance("  ".join(losses))
        if self.measure and state.global_step in self.measured:
            loss = self.measure(model)
            loss = from_main(lambda: loss)  # processes round differently, and must stop together
            _check_loss(loss, f"{self.bar.title} stopped, its valid_loss is {loss} after step {state.global_step}")
            state.log_history.append({"step": state.global_step, "valid_loss": loss})
            if self.stopping and self.stopping.hear(valid_losses(state.log_history), model):
                control.should_training_stop = True
        due = time.monotonic() - self.saved >= self.every
        # Between, a point of the curve would be cut in two; nothing continues from ruined weights, or after the end;
        # clocks differ, so one process decides.
        may = control.should_log and not control.should_training_stop and state.global_step < state.max_steps
        control.should_save = may and from_main(lambda: due and _finite(model))

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved = time.monotonic()

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()


def _check_loss(loss: float, told: str) -> None:
    """Stop where a loss says that the weights are ruined."""
    if not math.isfinite(loss):
        raise EsckitError(f"{told}: lower its learning_rate, or check the weights that it starts from.")


@torch.no_grad()
def _check_trained(model: Any, trie: TokenTrie, told: str) -> None:
    """Stop where the last step ruined the weights, as no loss was taken after it."""
    batch = collate([trie]).to(next(model.parameters()).device)
    _check_loss(float(token_log_probabilities(model, batch).sum()), told)


def _finite(model: Any) -> bool:
    """True where no trained weight is infinite or not a number."""
    return all(bool(torch.isfinite(weight).all()) for weight in model.parameters() if weight.requires_grad)


def _rate(options: TrainingOptions, model: Any, title: str, *, preference: bool) -> float:
    """The peak rate: the one that is given, or the usual one for the model's size, which is said."""
    if options.learning_rate is not None:
        return options.learning_rate
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    parameters = sum(size for name, size in sizes.items() if "lora_" not in name)
    rates = usual_rates(parameters)
    rate = rates.preference if preference else rates.sft if parameters < sum(sizes.values()) else rates.whole
    if is_main():
        told = f"the usual rate on a {rates.kind} backbone ({parameters:,} parameters)"
        print(f"esckit: {title} trains at {rate:g}, {told}; learning_rate sets another.", file=sys.stderr)
    return rate


def _arguments(options: TrainingOptions, folder: Path, steps: int, seed: int, rate: float) -> TrainingArguments:
    """What transformers' Trainer is told."""
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        activation_checkpointing=options.gradient_checkpointing,
        bf16=options.in_bfloat16("cuda" if cuda else "cpu"),
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
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else several devices in one process would divide a trie's row
    return arguments


def _say_slow(options: TrainingOptions) -> None:
    """Who asks for bfloat16 gets it, and a line where that is a bad idea."""
    if options.precision == "bfloat16" and not torch.cuda.is_available() and not fast_bfloat16() and is_main():
        print(f"esckit: {SLOW_BFLOAT16}: leave precision at auto.", file=sys.stderr)


def train(
    model: Any,
    dataset: ConversationDataset,
    options: TrainingOptions,
    *,
    folder: Path,
    title: str,
    seed: int,
    objective: Objective | None = None,
    valid: ConversationDataset | None = None,
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
        valid: what is not trained on; the objective measures it ``options.evaluations`` times an epoch.

    Raises:
        EsckitError: a loss is not finite, or none would be after the last step.
    """
    _say_slow(options)
    rate = _rate(options, model, title, preference=objective is not None)
    epochs = plan_batches(dataset.counts(), options.batch_size, options.epochs, seed)
    batches = [batch for epoch in epochs for batch in epoch]
    minimised: Objective = objective or Likelihood()
    steps = len(batches)
    with writing(folder):
        from_main(make_folder, folder)
    measure = partial(minimised.measure, dataset=valid, options=options) if valid is not None and len(valid) else None
    stopping = EarlyStopping(options.patience) if options.patience and measure else None
    measured = evaluation_steps([*map(len, epochs)], options.evaluations)
    trainer = TrieTrainer(
        batches,
        minimised,
        passes=options.accumulation,
        max_tokens=options.max_tokens_per_row,
        title=title,
        stopping=stopping,
        model=model,
        args=_arguments(options, folder, steps, seed, rate),
        train_dataset=dataset,
        callbacks=[_Watch(title, steps, measured, measure, options.checkpoint_seconds, stopping)],
    )
    checkpoint = from_main(latest_checkpoint, folder)
    if stopping and checkpoint:
        stopping.load(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopping:
        stopping.restore(model)
    model.eval()
    done = f"step {trainer.state.global_step}, the last"
    _check_trained(model, next(dataset.tries()), f"{title} stopped, its model is ruined after {done}")
    return _told(trainer, dataset, options.epochs)


def _told(trainer: TrieTrainer, dataset: ConversationDataset, epochs: int) -> Trained:
    """What a finished run tells."""
    state, steps = trainer.state, len(trainer.batches)
    return Trained(
        curve=[_point(row, steps, epochs) for row in state.log_history if _MEASURED & row.keys()],
        steps=state.global_step,
        scored_tokens=sum(len(target.nodes) for trie in dataset.tries() for target in trie.targets),
        nodes=sum(map(len, dataset.tries())),
        planned=steps,
        best=best_step(state.log_history) if trainer.stopping else None,
    )


def _point(row: dict[str, float], steps: int, epochs: int) -> dict[str, float]:
    """A point of the training curve, its epoch from 0 to ``epochs``."""
    keys = row.keys() - {"step", "epoch"}
    return {"step": row["step"], "epoch": row["step"] / steps * epochs, **{key: row[key] for key in sorted(keys)}}
