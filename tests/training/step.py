"""One optimiser step by the trainer, with the gradients that the optimiser takes."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from esckit.training.batches import ConversationDataset
from esckit.training.trainer import Objective, TrieTrainer


class Step(NamedTuple):
    """The loss and the objective's figures as they are logged, and the gradients of what is trained."""

    logged: dict[str, float]
    gradients: dict[str, Tensor]


class _Catch(TrainerCallback):
    """Keeps the gradients as they are when the optimiser takes them."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def one_step(
    model: Any,
    data: ConversationDataset,
    objective: Objective,
    batch: list[int],
    folder: Path,
    *,
    passes: int = 1,
    max_tokens: int | None = None,
) -> Step:
    """Train a single step on a batch of conversations, divided over so many forward passes."""
    catch = _Catch()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        max_grad_norm=0,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
    )
    trainer = TrieTrainer(
        [batch],
        objective,
        passes=passes,
        max_tokens=max_tokens,
        model=model,
        args=arguments,
        train_dataset=data,
        callbacks=[catch],
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    keep = {"loss", "margin", "accuracy", "chosen_reward", "rejected_reward"} & logged.keys()
    return Step({key: logged[key] for key in keep}, catch.gradients)
