"""The token trie: the sequences of a conversation merged by their prefixes, one node a token.

A node's position id is its depth and it attends to its ancestors only, so log-probabilities and gradients equal those
of the separate sequences up to rounding. With nodes in depth-first order and ``end[j]`` the end of j's subtree, node i
sees node j iff ``j <= i < end[j]``: one integer a token describes the mask. Several tries stand side by side in one row
the same way (a forest).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from esckit.errors import ModelError
from esckit.language_models.attention import SUPPORTED, TRIE_ERRORS, takes_no_trie, trie_masks
from esckit.rendering import Example

_ROOT = -1
_SHARED: Final = 12  # tokens that `check_exactness` tries, of the context and of each branch
_BRANCH: Final = 8
_WINDOW: Final = 5  # shorter than a branch, so that a sliding layer forgets


class Target(NamedTuple):
    """The scored nodes of one example, the nodes that predict them (their parents), and their weights in SFT."""

    nodes: tuple[int, ...]
    parents: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TokenTrie:
    """A trie in depth-first order, all of length N.

    Attributes:
        tokens: token id of each node.
        depth: number of ancestors, the position id.
        end: one past the last node of each node's subtree.
        targets: one a merged example, in the order they were given.
        pairs: what experts each node is read under (`rendering.gates`); a token under two pairs is two nodes.
    """

    tokens: tuple[int, ...]
    depth: tuple[int, ...]
    end: tuple[int, ...]
    targets: tuple[Target, ...]
    pairs: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def merge(cls, examples: Sequence[Example]) -> "TokenTrie":
        """Merge examples: shared prefixes become shared nodes; two examples may share scored nodes as well."""
        builder = _Builder()
        scored = [builder.insert(example) for example in examples]
        return builder.finish(scored, [example.weights or (1.0,) * len(example.scored) for example in examples])


class _Builder:
    """Nodes in insertion order; `finish` puts them into depth-first order."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.pairs: list[int] = []
        self.parents: list[int] = []
        self.child: dict[tuple[int, int, int], int] = {}

    def insert(self, example: Example) -> list[int]:
        """Walk and extend the trie by an example; return its scored nodes."""
        path: list[int] = []
        node = _ROOT
        tokens = (*example.context, *example.given, *example.scored)
        for token, pair in zip(tokens, example.pairs or (0,) * len(tokens), strict=True):
            key = (node, token, pair)
            node = self.child.setdefault(key, len(self.tokens))
            if node == len(self.tokens):
                self.tokens.append(token)
                self.pairs.append(pair)
                self.parents.append(key[0])
            path.append(node)
        return path[len(path) - len(example.scored) :]

    def finish(self, scored: list[list[int]], weights: list[tuple[float, ...]]) -> TokenTrie:
        children: dict[int, list[int]] = {}
        size = [1] * len(self.tokens)
        for node in range(len(self.tokens) - 1, -1, -1):  # children come after their parents
            children.setdefault(self.parents[node], []).append(node)
            if self.parents[node] != _ROOT:
                size[self.parents[node]] += size[node]
        order: list[int] = []
        stack = children.get(_ROOT, [])
        while stack:  # the lists are in reverse insertion order, so popping gives insertion order
            node = stack.pop()
            order.append(node)
            stack += children.get(node, [])
        place = {node: index for index, node in enumerate(order)}
        depth = [0] * len(order)
        for index, node in enumerate(order):
            parent = self.parents[node]
            depth[index] = 0 if parent == _ROOT else depth[place[parent]] + 1
        return TokenTrie(
            tokens=tuple(self.tokens[node] for node in order),
            depth=tuple(depth),
            end=tuple(index + size[node] for index, node in enumerate(order)),
            targets=tuple(
                Target(tuple(place[n] for n in nodes), tuple(place[self.parents[n]] for n in nodes), own)
                for nodes, own in zip(scored, weights, strict=True)
            ),
            pairs=tuple(self.pairs[node] for node in order),
        )


def build_tries(
    examples: Sequence[Example], max_tokens: int | None = None, units: Sequence[int] | None = None
) -> list[TokenTrie]:
    """Merge a conversation's examples into one trie, or into several where it would exceed ``max_tokens`` nodes.

    Each of several tries has the prefix that its targets need, so this is exact. An example longer than ``max_tokens``
    stands alone, in a trie longer than that.

    Args:
        examples: in order; so are the targets of the tries.
        max_tokens: most nodes of a trie.
        units: a number an example; neighbours of the same number stay in one trie, however long.
    """
    numbers = units if units is not None else range(len(examples))
    tries: list[TokenTrie] = []
    group: list[Example] = []
    builder = _Builder()
    for _, numbered in groupby(zip(numbers, examples, strict=True), key=lambda pair: pair[0]):
        unit = [example for _, example in numbered]
        for example in unit:
            builder.insert(example)
        if group and max_tokens is not None and len(builder.tokens) > max_tokens:
            tries.append(TokenTrie.merge(group))
            group, builder = [], _Builder()
            for example in unit:
                builder.insert(example)
        group += unit
    return [*tries, TokenTrie.merge(group)] if group else tries


class TrieBatch(NamedTuple):
    """Forests padded to one length; B rows, N nodes, S scored tokens, T targets.

    Attributes:
        input_ids, position_ids, end, pairs: (B, N).
        keep: (B, N) bool, the nodes whose next-token logits are needed; M of them are true, in row-major order.
        logit_row: (S,) which of the M logits predicts each scored token.
        token: (S,) the scored tokens.
        weight: (S,) of the scored tokens in the loss of SFT.
        target: (S,) which target, in 0..T-1, each scored token belongs to; targets keep the order of the tries given.
        targets: T.
    """

    input_ids: Tensor
    position_ids: Tensor
    end: Tensor
    keep: Tensor
    logit_row: Tensor
    token: Tensor
    weight: Tensor
    target: Tensor
    targets: int
    pairs: Tensor

    def to(self, device: Any) -> "TrieBatch":
        """The batch with its tensors on ``device``."""
        moved: Any = {name: value.to(device) for name, value in self._asdict().items() if name != "targets"}
        return self._replace(**moved)


def _pack(lengths: Sequence[int]) -> list[list[int]]:
    """First-fit-decreasing: indices of tries grouped into rows no longer than the longest trie."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, space in enumerate(room) if space >= lengths[index]), None)
        if row is None:
            rows.append([])
            room.append(max(lengths))
            row = len(rows) - 1
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


def collate(tries: Sequence[TokenTrie], pad: int = 0) -> TrieBatch:
    """Pack tries into the rows of a batch. A padding node sees itself only, so that no row of the mask is empty."""
    rows = _pack([len(trie) for trie in tries])
    width = max(map(len, tries))
    input_ids = torch.full((len(rows), width), pad)
    position_ids = torch.zeros_like(input_ids)
    pairs = torch.zeros_like(input_ids)
    end = torch.arange(1, width + 1).repeat(len(rows), 1)
    parents: list[int] = []  # (S,) flat index b * N + n of the predicting node
    tokens: list[int] = []
    weights: list[float] = []
    owners: list[int] = []
    first_target = [0]
    for trie in tries:
        first_target.append(first_target[-1] + len(trie.targets))
    for b, members in enumerate(rows):
        start = 0
        for index in members:
            trie = tries[index]
            span = slice(start, start + len(trie))
            input_ids[b, span] = torch.tensor(trie.tokens)
            position_ids[b, span] = torch.tensor(trie.depth)
            pairs[b, span] = torch.tensor(trie.pairs)
            end[b, span] = torch.tensor(trie.end) + start
            for number, target in enumerate(trie.targets, first_target[index]):
                parents += [b * width + start + node for node in target.parents]
                tokens += [trie.tokens[node] for node in target.nodes]
                weights += target.weights
                owners += [number] * len(target.nodes)
            start += len(trie)
    kept, logit_row = torch.unique(torch.tensor(parents, dtype=torch.long), return_inverse=True)
    keep = torch.zeros(len(rows) * width, dtype=torch.bool)
    keep[kept] = True
    return TrieBatch(
        input_ids,
        position_ids,
        end,
        keep.view(len(rows), width),
        logit_row,
        torch.tensor(tokens),
        torch.tensor(weights),
        torch.tensor(owners),
        first_target[-1],
        pairs,
    )


def read_under(model: Any, pairs: Tensor) -> dict[str, Tensor]:
    """What tells a model's forward which experts each token (B, N) is read under; nothing for a model without any."""
    return {"pairs": pairs} if getattr(getattr(model, "module", model), "takes_pairs", False) else {}


def kept_logits(model: Any, batch: TrieBatch) -> Tensor:
    """Logits (M, V) of the next token at each node that predicts a scored one, as the model gives them."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=trie_masks(model, batch.end, batch.position_ids),
        position_ids=batch.position_ids,
        logits_to_keep=batch.keep,
        use_cache=False,
        **read_under(model, batch.pairs),
    )
    return output.logits  # type: ignore[no-any-return]


def token_log_probabilities(model: Any, batch: TrieBatch) -> Tensor:
    """Log-probability (S,) of each scored token given its ancestors, in nats, float32 or wider."""
    logits = kept_logits(model, batch)
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    normaliser = logits.logsumexp(-1)  # (M,)
    return logits[batch.logit_row, batch.token] - normaliser[batch.logit_row]


def target_log_probabilities(model: Any, batch: TrieBatch) -> Tensor:
    """Log-probability (T,) of each target, the sum over its tokens, in nats."""
    return sum_targets(token_log_probabilities(model, batch), batch)


def sum_targets(per_token: Tensor, batch: TrieBatch) -> Tensor:
    """Sums (T,) over each target's tokens of a value (S,) a scored token."""
    return per_token.new_zeros(batch.targets).index_add(0, batch.target, per_token)


def in_forwards(lengths: Sequence[int], max_tokens: int | None) -> list[slice]:
    """Divide neighbours into groups of at most ``max_tokens`` tokens, each group at least one; one group for None."""
    if max_tokens is None:
        return [slice(0, len(lengths))]
    starts, size = [0], 0
    for index, length in enumerate(lengths):
        if index > starts[-1] and size + length > max_tokens:
            starts.append(index)
            size = 0
        size += length
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


@torch.no_grad()
def check_exactness(model: Any, source: str) -> None:
    """Compare two branches of one context, read as a trie, with the two sequences that they stand for.

    The sequences are read as anybody would read them, without a mask and without positions, and by eager attention,
    which computes all that a model has (sinks, soft-capping). Sliding windows are made short meanwhile, so that they
    are tried too.

    Raises:
        ModelError: the log-probabilities differ, or the model takes no such mask or positions.
    """
    parameter = next(model.parameters())
    size = min(model.config.vocab_size, 5000)
    ids = torch.arange(_SHARED + 2 * _BRANCH).mul(7).add(3).remainder(size).tolist()
    context, rest = tuple(ids[:_SHARED]), ids[_SHARED:]
    branches = [Example("", context, (), tuple(part)) for part in (rest[:_BRANCH], rest[_BRANCH:])]
    try:
        with _short_windows(model.config):
            rows = torch.tensor([[*b.context, *b.scored] for b in branches], device=parameter.device)
            with _eager(model):
                apart = _plain(model, rows)
            batch = collate([TokenTrie.merge(branches)]).to(parameter.device)
            together = token_log_probabilities(model, batch)
    except TRIE_ERRORS as error:
        raise takes_no_trie(source, error) from error
    worst = float((together - apart).abs().max())
    if not worst <= (1e-3 if parameter.dtype == torch.float32 else 0.3):  # bfloat16 rounds each logit; nan is refused
        raise ModelError(
            f"{source} reads a token trie otherwise than its sequences (a log-probability differs by {worst:.2g}), "
            f"as models do that ignore the mask or count positions themselves: {SUPPORTED}."
        )


def _plain(model: Any, input_ids: Tensor) -> Tensor:
    """Log-probabilities (2 * _BRANCH,) of the sequences' last tokens."""
    logits = model(input_ids=input_ids, use_cache=False).logits[:, _SHARED - 1 : -1].float()  # (2, _BRANCH, V)
    chosen: Tensor = logits.log_softmax(-1).gather(-1, input_ids[:, _SHARED:, None])
    return chosen.flatten()


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _short_windows(config: Any) -> Iterator[None]:
    window = getattr(config, "sliding_window", None)
    if window is None:
        yield
        return
    config.sliding_window = _WINDOW
    try:
        yield
    finally:
        config.sliding_window = window
