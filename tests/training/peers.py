"""TRL 1.16's own trainers on the token ids that our tries are made of: what exactness is measured against."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from esckit.rendering import PairExample
from tests.tiny import tiny_tokenizer
from tests.training.pairs import Outcome, gradients, sequence

PLAIN: dict[str, Any] = {
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "max_length": None,
}
TEXTS = Dataset.from_list([{"prompt": "Hi", "chosen": " you", "rejected": " there"}] * 2)
"""For trainers that insist on tokenising something; the batch is ours."""


class TokenisedDPO(DPOTrainer):
    """Takes token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class TokenisedKTO(KTOTrainer):
    """Takes token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def rows(pairs: Sequence[PairExample]) -> list[dict[str, list[int]]]:
    """What TRL's DPO collator reads."""
    found = []
    for pair in pairs:
        (prompt, chosen), (_, rejected) = sequence(pair.chosen), sequence(pair.rejected)
        found.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return found


def dpo_trainer(model: Any, pairs: Sequence[PairExample], folder: Path, **options: Any) -> Any:
    """A DPOTrainer; ``ref_model`` and ``peft_config`` are the trainer's, all else is its config's."""
    own = {name: options.pop(name) for name in ("ref_model", "peft_config") if name in options}
    arguments = DPOConfig(output_dir=str(folder), **PLAIN, **options)
    data = Dataset.from_list(rows(pairs))
    return TokenisedDPO(model=model, args=arguments, train_dataset=data, processing_class=tiny_tokenizer(), **own)


def run_dpo(trainer: Any, pairs: Sequence[PairExample]) -> Outcome:
    """One batch of all pairs."""
    model = trainer.model.train()
    model.zero_grad()
    loss = trainer.compute_loss(model, trainer.data_collator(rows(pairs)))
    torch.autograd.backward(loss)
    metrics = trainer._metrics["train"]
    chosen, rejected, accuracy = (metrics[f"rewards/{name}"][-1] for name in ("chosen", "rejected", "accuracies"))
    return Outcome(float(loss.detach()), chosen, rejected, accuracy, gradients(model))


def padded(pairs: Sequence[PairExample]) -> dict[str, Tensor]:
    """The batch that TRL's CPO and ORPO read."""
    batch = {}
    for number, side in enumerate(("chosen", "rejected")):
        sides = [sequence(pair[number]) for pair in pairs]
        ids = [torch.tensor([*prompt, *reply]) for prompt, reply in sides]
        labels = [torch.tensor([-100] * len(prompt) + reply) for prompt, reply in sides]
        pad = torch.nn.utils.rnn.pad_sequence
        batch[f"{side}_input_ids"] = pad(ids, batch_first=True)
        batch[f"{side}_attention_mask"] = pad([torch.ones_like(row) for row in ids], batch_first=True)
        batch[f"{side}_labels"] = pad(labels, batch_first=True, padding_value=-100)
    return batch


def simpo(model: Any, pairs: Sequence[PairExample], folder: Path, *, beta: float, margin: float) -> Outcome:
    """SimPO as CPOTrainer has it: without the likelihood of the chosen replies."""
    arguments = CPOConfig(
        output_dir=str(folder), loss_type="simpo", cpo_alpha=0.0, simpo_gamma=margin, beta=beta, **PLAIN
    )
    trainer = CPOTrainer(model=model, args=arguments, train_dataset=TEXTS, processing_class=tiny_tokenizer())
    model.zero_grad()
    loss, metrics = trainer.get_batch_loss_metrics(model, padded(pairs))
    torch.autograd.backward(loss)
    chosen, rejected, accuracy = (metrics[f"rewards/{name}"] for name in ("chosen", "rejected", "accuracies"))
    return Outcome(float(loss.detach()), chosen, rejected, accuracy, gradients(model))


def orpo_trainer(model: Any, folder: Path, *, beta: float) -> Any:
    """An ORPOTrainer."""
    arguments = ORPOConfig(output_dir=str(folder), beta=beta, **PLAIN)
    return ORPOTrainer(model=model, args=arguments, train_dataset=TEXTS, processing_class=tiny_tokenizer())


def kto(
    model: Any,
    pairs: Sequence[PairExample],
    mismatched: Sequence[tuple[list[int], list[int]]],
    folder: Path,
    *,
    beta: float,
    weights: tuple[float, float] = (1.0, 1.0),
    **own: Any,
) -> tuple[Outcome, float]:
    """KTOTrainer's loss and KL over both sides of pairs, its KL completions replaced by ours (a prompt each).

    ``weights`` are those of desirable and undesirable replies.
    """
    by_prompt = {tuple(prompt): reply for prompt, reply in mismatched}
    examples = []
    for number, label in enumerate((True, False)):
        for pair in pairs:
            prompt, reply = sequence(pair[number])
            wrong = by_prompt[tuple(prompt)]
            examples.append({"prompt_ids": prompt, "completion_ids": reply, "KL_completion_ids": wrong, "label": label})
    options = {"beta": beta, "desirable_weight": weights[0], "undesirable_weight": weights[1]}
    arguments = KTOConfig(output_dir=str(folder), per_device_train_batch_size=2, **options, **PLAIN)
    data = Dataset.from_list(examples)
    trainer = TokenisedKTO(model=model, args=arguments, train_dataset=data, processing_class=tiny_tokenizer(), **own)
    model = trainer.model.train()
    model.zero_grad()
    loss = trainer.compute_loss(model, trainer.data_collator(examples))
    torch.autograd.backward(loss)
    metrics = trainer._metrics["train"]
    chosen, rejected = (metrics[f"rewards/{name}"][-1] for name in ("chosen", "rejected"))
    return Outcome(float(loss.detach()), chosen, rejected, float("nan"), gradients(model)), metrics["kl"][-1]
