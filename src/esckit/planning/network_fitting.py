"""One network of an encoder planner: its training loop, and its predictions for dialogues that it has not seen."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from esckit.errors import EsckitError
from esckit.planning.network import Binner
from esckit.planning.planner_folder import Sizes, new_network
from esckit.planning.planner_options import PlannerOptions
from esckit.planning.turn_batches import ReadTurns, collate_turns
from esckit.strategy import Taxonomy

__all__ = ["check_finite", "predict_turns", "train_network"]

_WARMUP = 0.15  # share of the steps over which the rate rises
_MAX_GRAD_NORM = 1.0
_POOL = 6  # batches whose dialogues are sorted by length together: little padding, and still random
_AT_ONCE = 64  # dialogues a batch of predictions


def train_network(
    dialogues: Sequence[ReadTurns],
    taxonomy: Taxonomy,
    sizes: Sizes | None,
    options: PlannerOptions,
    seed: int,
    title: str = "planner",
) -> nn.Module:
    """Train a network on dialogues that were read with their gold strategies shown, and with their turns' own texts.

    The loss of a batch is the mean cross-entropy of its turns' strategies, and ``said_weight`` times that of naming
    them from their own texts. The global random state is left as it was.

    Args:
        dialogues: at least one.
        taxonomy: the labels.
        sizes: of the network; None trains a linear one.
        options: how.
        seed: of weights, order, dropout and of which dialogues' past is hidden.
        title: for the error.

    Raises:
        EsckitError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        network = new_network(Binner.fit(np.concatenate([each.features for each in dialogues])), taxonomy, sizes)
        optimizer = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        batches = (each for _ in range(options.epochs) for each in _batches(dialogues, options.batch_size, random))
        steps = options.epochs * len(_batches(dialogues, options.batch_size, np.random.default_rng(0)))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, steps, pct_start=_WARMUP)
        network.train()
        for step, batch in enumerate(batches, 1):
            loss = _loss(network, batch, len(taxonomy.labels), options, random)
            check_finite(loss, f"loss at step {step}", title)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRAD_NORM)
            optimizer.step()
            schedule.step()
    return network.eval()


def check_finite(values: torch.Tensor, what: str, title: str) -> None:
    """Stop a training whose figures have overflowed.

    Raises:
        EsckitError: some value is infinite or not a number.
    """
    if not torch.isfinite(values).all():
        raise EsckitError(f"{title} stopped, a network has no finite {what}: lower its learning_rate.")


@torch.no_grad()
def predict_turns(
    network: nn.Module, dialogues: Sequence[ReadTurns], labels: int, *, hidden: bool
) -> NDArray[np.float64]:
    """Log-probabilities (T, K) of all dialogues' turns in order, past strategies shown or hidden."""
    found: dict[int, NDArray[np.float64]] = {}
    order = sorted(range(len(dialogues)), key=lambda index: _length(dialogues[index]))
    for start in range(0, len(order), _AT_ONCE):
        here = order[start : start + _AT_ONCE]
        batch = collate_turns([dialogues[index] for index in here], labels)
        if hidden:
            batch = batch.hide(torch.ones(len(batch.vectors), dtype=torch.bool), labels)
        scores = network(batch).planned.double().log_softmax(-1).numpy()
        ends = np.cumsum([len(dialogues[index].gold) for index in here])
        found.update(zip(here, np.split(scores, ends[:-1]), strict=True))
    return np.concatenate([found[index] for index in range(len(dialogues))])


def _loss(
    network: nn.Module, dialogues: list[ReadTurns], labels: int, options: PlannerOptions, random: np.random.Generator
) -> torch.Tensor:
    batch = collate_turns(dialogues, labels)
    hide = torch.from_numpy(random.random(len(batch.vectors)) < options.hidden_rate)
    logits = network(batch.hide(hide, labels))
    loss = nn.functional.cross_entropy(logits.planned, batch.gold)
    if logits.said is not None:
        loss = loss + options.said_weight * nn.functional.cross_entropy(logits.said, batch.gold)
    return loss


def _batches(dialogues: Sequence[ReadTurns], size: int, random: np.random.Generator) -> list[list[ReadTurns]]:
    """Random batches of dialogues of similar length."""
    order = random.permutation(len(dialogues))
    batches = []
    for start in range(0, len(order), size * _POOL):
        pool = sorted(order[start : start + size * _POOL].tolist(), key=lambda index: _length(dialogues[index]))
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    return [[dialogues[index] for index in batches[place]] for place in random.permutation(len(batches))]


def _length(dialogue: ReadTurns) -> int:
    return max(map(len, dialogue.vectors))
