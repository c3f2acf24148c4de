"""The encoder planner's networks: from what stands before a turn to a logit a strategy.

Two are here. `StrategyNetwork` reads the utterances' frozen vectors with a GRU, beside the explicit features;
`LinearNetwork` reads the explicit features alone. Both see features through a piecewise-linear encoding.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Binner", "LinearNetwork", "Logits", "StrategyNetwork", "TurnBatch"]

_FEATURE_DROPOUT = 0.2


class TurnBatch(NamedTuple):
    """T turns to plan, and the B paths of at most N utterances on which they stand; K labels."""

    vectors: Tensor  # (B, N, D) utterances
    speakers: Tensor  # (B, N) 0 seeker, 1 supporter, 2 padding
    strategies: Tensor  # (B, N) label index, K where none is shown
    features: Tensor  # (T, F) explicit, the history's first
    hidden: Tensor  # (T,) bool: past strategies exist and none is shown
    follows: Tensor  # (T,) bool: a supporter turn stands before
    row: Tensor  # (T,) the turn's path
    place: Tensor  # (T,) utterances before it on that path
    gold: Tensor  # (T,) label index, -1 where the turn has none

    def hide(self, paths: Tensor, labels: int) -> "TurnBatch":
        """Hide the past strategies of some paths, (B,) bool."""
        strategies = self.strategies.masked_fill(paths[:, None], labels)
        return self._replace(strategies=strategies, hidden=self.hidden | (paths[self.row] & self.follows))


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
    """Logits linear in the encoded explicit features.

    Args:
        binner: fitted.
        history: the first columns, which depend on past strategies.
        labels: K.
    """

    def __init__(self, binner: Binner, history: int, labels: int) -> None:
        super().__init__()
        self.explicit = _Explicit(binner, history)
        self.wide = nn.Linear(self.explicit.width, labels)
        nn.init.zeros_(self.wide.weight)

    def forward(self, batch: TurnBatch) -> Logits:
        """Logits of a batch."""
        return Logits(self.wide(self.explicit(batch)), None)


class StrategyNetwork(nn.Module):
    """A GRU over the utterances beside the explicit features, wide and deep (Cheng et al. 2016).

    Utterance vectors come from a frozen encoder: what can be learnt from a thousand dialogues is how turns follow each
    other, and training takes seconds. Half-way, the network also names the strategy that each turn's own text shows
    (`Logits.said`): what makes a reply a reflection helps to read the replies before the next one.

    Args:
        binner: fitted.
        history: the first columns, which depend on past strategies.
        labels: K.
        vectors: length D of an utterance's vector.
        width: of an utterance, of the GRU's state and of the explicit features' layer.
        head: of the last hidden layer.
        dropout: share of inputs and hidden units left out in training.
    """

    def __init__(
        self, binner: Binner, history: int, labels: int, *, vectors: int, width: int, head: int, dropout: float
    ) -> None:
        super().__init__()
        self.explicit = _Explicit(binner, history)
        self.project = nn.Linear(vectors, width)
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
