"""From conversations to a network's input: utterance vectors, past strategies, explicit features."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esckit.conversation import Conversation, Turn
from esckit.planning.encoder import Encoder
from esckit.planning.turn_features import read_text, shown_indices, turn_features
from esckit.rendering.gates import member_of
from esckit.strategy import Taxonomy

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors (N, D) of length 1; D may be 0, where only explicit features are read."""

SURFACE: Final = 4
"""Numbers that an utterance's surface adds to its vector."""

_SCALE: Final = 8.0  # a unit vector's components are about 1/20: beside other inputs they would hardly be seen


class ReadTurns(NamedTuple):
    """T turns of one conversation as a network reads them, on one or more of its paths."""

    vectors: list[NDArray[np.float32]]  # a path: (N, D + SURFACE)
    speakers: list[NDArray[np.int64]]  # a path: (N,) 0 seeker, 1 supporter
    strategies: list[NDArray[np.int64]]  # a path: (N,) label index, K where none is shown
    features: NDArray[np.float32]  # (T, F)
    hidden: NDArray[np.bool_]  # (T,)
    follows: NDArray[np.bool_]  # (T,)
    row: NDArray[np.int64]  # (T,) its path
    place: NDArray[np.int64]  # (T,) utterances before it
    gold: NDArray[np.int64]  # (T,) -1 where it has no strategy


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


class TextVectors:
    """An encoder that remembers: of a chat that goes on, only what is new is embedded.

    It remembers ``size`` texts at most; the one unused longest is forgotten first.
    """

    def __init__(self, encoder: Encoder, size: int = 16384) -> None:
        self.encoder = encoder
        self.size = size
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (N, D) of length 1."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self.encoder.embed(new), strict=True))
        for text in texts:
            self._known.move_to_end(text)
        found = np.array([self._known[text] for text in texts], dtype=np.float32).reshape(-1, self.encoder.width)
        while len(self._known) > self.size:
            self._known.popitem(last=False)
        return found


def plain_text(turn: Turn) -> str:
    """A turn's text as it is embedded."""
    return (turn.text or "").strip()


def read_turns(
    conversation: Conversation,
    turns: Sequence[Turn],
    shown: Mapping[str, str],
    taxonomy: Taxonomy,
    embed: Embed,
    *,
    themselves: bool = False,
    roles: Sequence[str] = (),
) -> ReadTurns:
    """Read what stands before turns, on any branches of the tree; those on one path share it.

    ``shown`` are the strategies that the history shows, by turn id; with ``themselves``, for training, the paths hold
    the turns too. ``roles`` adds a feature each: whether the turn is said in it (`rendering.gates.member_of`).

    Raises:
        CorpusError: a strategy is no label of the taxonomy.
    """
    before = [conversation.path(turn.parent) for turn in turns]
    paths, row = _shared([[*path, turn] for path, turn in zip(before, turns, strict=True)] if themselves else before)
    read = [turn_features(path, shown, taxonomy) for path in before]
    vectors = np.split(_vectors([turn for path in paths for turn in path], embed), np.cumsum([*map(len, paths)])[:-1])
    k = len(taxonomy.labels)
    shown_at = [np.array(shown_indices(path, shown, taxonomy), dtype=np.int64) for path in paths]
    own = {turn.id: turn.strategy for turn in turns if turn.strategy is not None}
    return ReadTurns(
        vectors=vectors,
        speakers=[np.array([turn.speaker == "supporter" for turn in path], dtype=np.int64) for path in paths],
        strategies=[np.where(strategies < 0, k, strategies) for strategies in shown_at],
        features=np.hstack(
            [
                np.stack([np.concatenate([each.history, each.shape]) for each in read]),
                np.array(
                    [[member_of(conversation, turn, "role") == role for role in roles] for turn in turns], np.float32
                ),
            ]
        ),
        hidden=np.array([each.hidden for each in read]),
        follows=np.array([each.follows for each in read]),
        row=np.array(row, dtype=np.int64),
        place=np.array([*map(len, before)], dtype=np.int64),
        gold=np.array(shown_indices(turns, own, taxonomy), dtype=np.int64),
    )


def collate_turns(items: Sequence[ReadTurns], labels: int) -> TurnBatch:
    """Pad the paths of several conversations to one batch; ``labels`` is K."""
    first = np.cumsum([0, *(len(item.vectors) for item in items)])
    vectors = [path for item in items for path in item.vectors]
    longest = max(1, *map(len, vectors))  # even where every turn opens its dialogue, there is something to index

    def pad(paths: list[NDArray[np.int64]], empty: int) -> Tensor:
        rows = [np.pad(path, (0, longest - len(path)), constant_values=empty) for path in paths]
        return torch.from_numpy(np.stack(rows))

    def join(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(item, name) for item in items]))

    return TurnBatch(
        vectors=torch.from_numpy(np.stack([np.pad(path, ((0, longest - len(path)), (0, 0))) for path in vectors])),
        speakers=pad([path for item in items for path in item.speakers], 2),
        strategies=pad([path for item in items for path in item.strategies], labels),
        features=join("features"),
        hidden=join("hidden"),
        follows=join("follows"),
        row=torch.from_numpy(np.concatenate([item.row + start for item, start in zip(items, first, strict=False)])),
        place=join("place"),
        gold=join("gold"),
    )


def _shared(paths: Sequence[Sequence[Turn]]) -> tuple[list[Sequence[Turn]], list[int]]:
    """The paths that are no beginning of another, and for each path given the one that it begins.

    In a tree a path is known by its last turn.
    """
    kept: list[Sequence[Turn]] = []
    row = [0] * len(paths)
    owner: dict[str, int] = {}
    for index in sorted(range(len(paths)), key=lambda index: -len(paths[index])):
        path = paths[index]
        if not kept or (path and path[-1].id not in owner):
            kept.append(path)
            for turn in path:
                owner.setdefault(turn.id, len(kept) - 1)
        row[index] = owner[path[-1].id] if path else 0
    return kept, row


def _vectors(turns: Sequence[Turn], embed: Embed) -> NDArray[np.float32]:
    """Vectors (N, D + SURFACE): what is said, and how long and how asking it looks."""
    texts = [plain_text(turn) for turn in turns]
    surface = np.array([_surface(text) for text in texts], dtype=np.float32).reshape(-1, SURFACE)
    return np.concatenate([_SCALE * embed(texts), surface], axis=1)


def _surface(text: str) -> tuple[float, float, float, float]:
    read = read_text(text)
    return float(read.asks), float(read.ends_asking), math.log1p(read.words) / 3, min(read.words, 60) / 30
