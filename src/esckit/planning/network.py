"""The encoder planner's networks: from what stands before a turn to a logit a strategy, and how they are trained.

Two are here. `StrategyNetwork` reads the utterances' frozen vectors with a GRU, beside the explicit features;
`LinearNetwork` reads the explicit features alone. Both see features through a piecewise-linear encoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esckit.errors import EsckitError
from esckit.planning.planner_options import PlannerOptions
from esckit.planning.turn_batches import SURFACE, ReadTurns, TurnBatch, collate_turns
from esckit.planning.turn_features import history_width
from esckit.strategy import Taxonomy

DROPOUT: Final = 0.4
"""Share of a `StrategyNetwork`'s inputs and hidden units left out in training."""

_FEATURE_DROPOUT: Final = 0.2
_SAID_WEIGHT: Final = 0.3  # of the second task, naming the strategy of the turn from its own text
_WEIGHT_DECAY: Final = 0.05
_WARMUP: Final = 0.15  # share of the steps over which the rate rises
_MAX_GRAD_NORM: Final = 1.0
_POOL: Final = 6  # batches whose dialogues are sorted by length together: little padding, and still random
_AT_ONCE: Final = 64  # dialogues a batch of predictions


class Logits(NamedTuple):
    """planned: of the strategy at each turn (T, K); said: of the strategy that its text shows, in training only."""

    planned: Tensor
    said: Tensor | None


class Binner(nn.Module):
    """Piecewise-linear encoding of numbers (Gorishniy et al. 2022, section 3.2), standardised.

    Each column becomes one ramp from 0 to 1 for every stretch between its quantiles.

    Args:
        column, low, high: (E,) the column that a ramp reads, where it begins and ends.
        mean, scale: (E,) of the ramps over the rows fitted to.
    """

    column: Tensor
    low: Tensor
    high: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, column: Tensor, low: Tensor, high: Tensor, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        for name, value in (("column", column), ("low", low), ("high", high), ("mean", mean), ("scale", scale)):
            self.register_buffer(name, value)

    @classmethod
    def fit(cls, rows: NDArray[np.float32], bins: int = 6) -> "Binner":
        """Fit to rows (N, F); a column that never changes gets one flat ramp."""
        edges = [np.unique(np.quantile(values, np.linspace(0, 1, bins + 1))) for values in rows.T.astype(np.float64)]
        edges = [each if len(each) > 1 else each[0] + np.array([-0.5, 0.5]) for each in edges]
        column = torch.tensor([place for place, each in enumerate(edges) for _ in each[1:]])
        low = torch.tensor(np.concatenate([each[:-1] for each in edges]), dtype=torch.float32)
        high = torch.tensor(np.concatenate([each[1:] for each in edges]), dtype=torch.float32)
        plain = cls(column, low, high, torch.zeros_like(low), torch.ones_like(low))
        ramps = plain(torch.from_numpy(rows))
        # A ramp that hardly ever moves must not become a huge number when it does.
        return cls(column, low, high, ramps.mean(0), ramps.std(0, correction=0) + 0.05)

    def forward(self, rows: Tensor) -> Tensor:
        """Encode (T, F) to (T, E)."""
        ramps = ((rows[:, self.column] - self.low) / (self.high - self.low)).clamp(0, 1)
        return (ramps - self.mean) / self.scale


class _Explicit(nn.Module):
    """The encoded explicit features and the flag of hidden history, (T, E + 1); a hidden history reads 0."""

    def __init__(self, binner: Binner, history: int) -> None:
        super().__init__()
        self.binner = binner
        self.history = history
        self.dropout = nn.Dropout(_FEATURE_DROPOUT)

    @property
    def width(self) -> int:
        return len(self.binner.column) + 1

    def forward(self, batch: TurnBatch) -> Tensor:
        silent = batch.hidden[:, None] & (self.binner.column < self.history)  # (T, E)
        encoded = self.binner(batch.features).masked_fill(silent, 0)
        return self.dropout(torch.cat([encoded, batch.hidden[:, None].float()], 1))  # type: ignore[no-any-return]


class LinearNetwork(nn.Module):
    """Logits of K labels, linear in the encoded explicit features, whose first columns depend on past strategies."""

    def __init__(self, binner: Binner, history: int, labels: int) -> None:
        super().__init__()
        self.explicit = _Explicit(binner, history)
        self.wide = nn.Linear(self.explicit.width, labels)
        nn.init.zeros_(self.wide.weight)

    def forward(self, batch: TurnBatch) -> Logits:
        """Logits of a batch."""
        return Logits(self.wide(self.explicit(batch)), None)


@dataclass(frozen=True)
class Sizes:
    """Of a `StrategyNetwork`.

    Attributes:
        vectors: the encoder's width.
        width: of an utterance, of the GRU's state and of the explicit features' layer.
        head: of the last hidden layer.
        dropout: share of inputs and hidden units left out in training.
    """

    vectors: int
    width: int
    head: int
    dropout: float


class StrategyNetwork(nn.Module):
    """A GRU over the utterances beside the explicit features, wide and deep (Cheng et al. 2016).

    Utterance vectors come from a frozen encoder: what can be learnt from a thousand dialogues is how turns follow each
    other, and training takes seconds. Half-way, the network also names the strategy that each turn's own text shows
    (`Logits.said`): what makes a reply a reflection helps to read the replies before the next one.

    The binner is fitted; the first ``history`` columns depend on past strategies.
    """

    def __init__(self, binner: Binner, history: int, labels: int, sizes: Sizes) -> None:
        super().__init__()
        width, head, dropout = sizes.width, sizes.head, sizes.dropout
        self.explicit = _Explicit(binner, history)
        self.project = nn.Linear(sizes.vectors + SURFACE, width)
        self.speaker = nn.Embedding(3, width)
        self.strategy = nn.Embedding(labels + 1, width)
        nn.init.normal_(self.speaker.weight, std=0.1)
        nn.init.normal_(self.strategy.weight, std=0.1)
        self.reader = nn.GRU(width, width, batch_first=True)
        self.said = nn.Linear(2 * width, labels)
        self.deep = nn.Linear(self.explicit.width, width)
        self.out = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(3 * width, head), nn.ReLU(), nn.Dropout(dropout), nn.Linear(head, labels)
        )
        self.wide = nn.Linear(self.explicit.width, labels, bias=False)
        nn.init.zeros_(self.wide.weight)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: TurnBatch) -> Logits:
        """Logits of a batch; in training its paths hold the turns themselves, for their texts."""
        row, place = batch.row, batch.place
        features = self.explicit(batch)
        utterances = torch.tanh(self.project(self.dropout(batch.vectors))) + self.speaker(batch.speakers)  # (B, N, W)
        states, _ = self.reader(self.dropout(utterances + self.strategy(batch.strategies)))
        # A zero in front: [row, place] is then what stands before the turn, nothing where it opens the dialogue.
        state, last = (nn.functional.pad(each, (0, 0, 1, 0))[row, place] for each in (states, utterances))  # (T, W)
        planned = self.out(torch.cat([torch.relu(self.deep(features)), state, last], 1)) + self.wide(features)
        if not self.training:
            return Logits(planned, None)
        return Logits(planned, self.said(torch.cat([utterances[row, place], self.dropout(state)], 1)))


def new_network(binner: Binner, taxonomy: Taxonomy, sizes: Sizes | None) -> nn.Module:
    """A network before training: a `StrategyNetwork`, or a `LinearNetwork` where there are no sizes."""
    history, labels = history_width(taxonomy), len(taxonomy.labels)
    if sizes is None:
        return LinearNetwork(binner, history, labels)
    return StrategyNetwork(binner, history, labels, sizes)


def train_network(
    dialogues: Sequence[ReadTurns],
    taxonomy: Taxonomy,
    sizes: Sizes | None,
    options: PlannerOptions,
    seed: int,
    title: str = "planner",
) -> nn.Module:
    """Train a network on dialogues that were read with their gold strategies shown, and with their turns' own texts.

    The loss of a batch is the mean cross-entropy of its turns' strategies, and a share of that of naming
    them from their own texts. The global random state is left as it was.

    Args:
        dialogues: at least one.
        sizes: of the network; None trains a linear one.
        seed: of weights, order, dropout and of which dialogues' past is hidden.

    Raises:
        EsckitError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        network = new_network(Binner.fit(np.concatenate([each.features for each in dialogues])), taxonomy, sizes)
        optimizer = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=_WEIGHT_DECAY)
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


def check_finite(values: Tensor, what: str, title: str) -> None:
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
        log_probabilities = network(batch).planned.double().log_softmax(-1).numpy()
        ends = np.cumsum([len(dialogues[index].gold) for index in here])
        found.update(zip(here, np.split(log_probabilities, ends[:-1]), strict=True))
    return np.concatenate([found[index] for index in range(len(dialogues))])


def _loss(
    network: nn.Module, dialogues: list[ReadTurns], labels: int, options: PlannerOptions, random: np.random.Generator
) -> Tensor:
    batch = collate_turns(dialogues, labels)
    hide = torch.from_numpy(random.random(len(batch.vectors)) < options.hidden_rate)
    logits = network(batch.hide(hide, labels))
    loss = nn.functional.cross_entropy(logits.planned, batch.gold)
    if logits.said is not None:
        loss = loss + _SAID_WEIGHT * nn.functional.cross_entropy(logits.said, batch.gold)
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
