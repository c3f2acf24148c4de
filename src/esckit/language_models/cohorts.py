"""Replies written side by side: a dialogue's prompts are read once, and its rows attend to what they share in place.

A cohort is groups of prompts that begin together. Its keys and values stand in two parts: those of each group's token
trie, read in one pass and never copied for a row, and those that each row writes. Rows of several cohorts, at whatever
point each is, take a step in one pass of the model; a row that has ended leaves it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from esckit.language_models.attention import by_layers, trie_masks, windows_of
from esckit.language_models.backbone import device_of
from esckit.language_models.token_tree import TokenTrie, collate, read_under
from esckit.rendering import Example
from esckit.rendering.pieces import shared_length

WRITING_ATTENTION: Final = "trie_writing"
"""Name of the attention of a step, as transformers knows it."""

COHORT_ROWS: Final = 32  # that begin together
_SPARE: Final = 1.5  # tokens of a group's trie over those of its longest prompt, at most
_ROOM: Final = 32  # tokens that there is room for before a row's own keys and values must move


def in_groups(prompts: Sequence[Sequence[Any]]) -> list[list[list[int]]]:
    """Put prompts that share most of their tokens into groups, and groups of a size into cohorts.

    A token is its id, or where experts are read, its id and its pair.

    Returns:
        Cohorts of groups of indices.
    """
    groups: list[list[int]] = []
    nodes: list[int] = []  # of each group's trie, at most
    for index in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        prompt = prompts[index]
        added = [
            len(prompt) - shared_length(prompt, prompts[group[-1]]) if len(group) < COHORT_ROWS else len(prompt)
            for group in groups
        ]
        best = min(range(len(groups)), key=added.__getitem__, default=None)
        if best is None or len(groups[best]) == COHORT_ROWS or nodes[best] + added[best] > _SPARE * len(prompt):
            groups.append([])
            nodes.append(0)
            added.append(len(prompt))
            best = -1
        groups[best].append(index)
        nodes[best] += added[best]
    cohorts: list[list[list[int]]] = []
    for group in sorted(groups, key=lambda g: (-len(g), -len(prompts[g[-1]]))):
        if not cohorts or (len(cohorts[-1]) + 1) * len(cohorts[-1][0]) > COHORT_ROWS:
            cohorts.append([])
        cohorts[-1].append(group)
    return cohorts


class Cohort:
    """G groups of up to R rows each, a place for every row; N tokens of the longest trie.

    Attributes:
        rows: indices of the prompts whose replies are still written, B of them.
        logits: (B, V) of each one's next token.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        groups: Sequence[Sequence[int]],
        pairs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._windows = windows_of(model.config)
        self._shape = (len(groups), max(map(len, groups)))  # (G, R)
        under = pairs or [()] * len(prompts)
        tries = [TokenTrie.merge([_whole(prompts[index], under[index]) for index in group]) for group in groups]
        width, device = max(map(len, tries)), device_of(model)
        self._depth = torch.zeros(len(groups), width, dtype=torch.long)
        self._path = torch.zeros(*self._shape, width, dtype=torch.bool)  # which nodes a place sees
        self._read: list[list[Tensor]] = []  # a layer: keys and values (G, H, N, D)
        self._own: list[list[Tensor]] = []  # a layer: keys and values (G, H, R, room, D)
        self._length = 0  # tokens written
        self.rows: list[int] = []
        places, logits = [], []
        for number, (group, trie) in enumerate(zip(groups, tries, strict=True)):
            ends = torch.tensor([target.nodes[-1] for target in trie.targets])
            after, nodes = torch.tensor(trie.end), torch.arange(len(trie))
            self._depth[number, : len(trie)] = torch.tensor(trie.depth)
            self._path[number, : len(group), : len(trie)] = (nodes <= ends[:, None]) & (ends[:, None] < after)
            logits.append(self._read_group(model, number, trie, ends, width))
            places += [number * self._shape[1] + row for row in range(len(group))]
            self.rows += group
        self.logits = torch.cat(logits)
        self._places = torch.tensor(places, device=device)
        self._positions = torch.tensor([len(prompts[row]) for row in self.rows], device=device)
        self._pairs = torch.tensor([under[row][-1] if under[row] else 0 for row in self.rows], device=device)
        self._tokens = self._places  # of the rows, (B,), once `go_on` says so
        self._depth, self._path = self._depth.to(device), self._path.to(device)
        self._seen: dict[int | None, Tensor] = {}

    def _read_group(self, model: Any, number: int, trie: TokenTrie, ends: Tensor, width: int) -> Tensor:
        """Read a group's trie; return the logits at each prompt's end."""
        from transformers import DynamicCache

        batch = collate([trie]).to(device_of(model))
        last, row = torch.unique(ends, return_inverse=True)
        keep = torch.zeros_like(batch.keep)
        keep[0, last.to(keep.device)] = True
        one_text = min(trie.end) == len(trie)  # which the model's own mask does for, and attention is faster without
        read = model(
            input_ids=batch.input_ids,
            attention_mask=None if one_text else trie_masks(model, batch.end, batch.position_ids),
            position_ids=batch.position_ids,
            past_key_values=DynamicCache(),  # a model's own would keep the last rows of a window, not of a path
            logits_to_keep=keep,
            use_cache=True,
            **read_under(model, batch.pairs),
        )
        for index, layer in enumerate(read.past_key_values.layers):
            found = (layer.keys, layer.values)  # (1, H, n, D)
            if number == 0:
                groups, rows = self._shape
                self._read.append([_empty(one, groups, one.shape[1], width) for one in found])
                self._own.append([_empty(one, groups, one.shape[1], rows, 0) for one in found])
            for place, one in zip(self._read[index], found, strict=True):
                place[number, :, : len(trie)] = one[0]
        return read.logits.view(len(last), -1)[row.to(read.logits.device)]  # type: ignore[no-any-return]

    def go_on(self, tokens: Tensor, going: Sequence[bool]) -> None:
        """Take the next token (B,) of each row; rows that have ended leave."""
        left = torch.tensor([at for at, goes in enumerate(going) if goes], dtype=torch.long, device=tokens.device)
        self._tokens, self._places = tokens[left], self._places[left]
        self._positions, self._pairs = self._positions[left], self._pairs[left]
        self.rows = [row for row, goes in zip(self.rows, going, strict=True) if goes]

    def begin_step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Make room, and say what each layer's rows see; return tokens, positions and pairs (B,)."""
        if self._length == self._own[0][0].shape[3]:
            self._own = [[_longer(one) for one in layer] for layer in self._own]
        positions = self._depth.new_zeros(self._path.shape[:2]).flatten()
        positions[self._places] = self._positions
        for window in self._windows.values():
            if window is not None or None not in self._seen:
                seen = self._path
                if window is not None:
                    seen = seen & (positions.view(*self._shape, 1) - self._depth[:, None] < window)
                hidden = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)
                self._seen[window] = hidden[:, None, :, None]  # (G, 1, R, 1, N)
        return self._tokens, self._positions, self._pairs

    def end_step(self, logits: Tensor) -> None:
        """What the step gave (B, V)."""
        self.logits = logits
        self._length += 1
        self._positions = self._positions + 1

    def attend(
        self, layer: int, window: int | None, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]
    ) -> Tensor:
        """Attention (B, H, D) of this step's rows, whose own key and value are kept.

        Args:
            layer, window: which one, and how far it sees.
            query, key, value: (B, H, D); keys and values may have fewer heads.
            options: scaling, softcap and s_aux, as transformers gives them.
        """
        groups, rows = self._shape
        heads, size = key.shape[1], query.shape[-1]
        each = query.shape[1] // heads
        group, row = self._places // rows, self._places % rows
        for own, new in zip(self._own[layer], (key, value), strict=True):
            own[group, :, row, self._length] = new
        first = 0 if window is None else max(0, self._length + 1 - window)
        own_keys, own_values = (own[:, :, :, first : self._length + 1] for own in self._own[layer])  # (G, H, R, n, D)
        keys, values = self._read[layer]
        placed = query.new_zeros(groups * rows, *query.shape[1:])
        placed[self._places] = query
        placed = placed.view(groups, rows, heads, each, size).transpose(1, 2)  # (G, H, R, E, D)
        together = placed.reshape(groups, heads, rows * each, size)
        before = (together @ keys.transpose(-1, -2)).view(groups, heads, rows, each, -1)
        scores = torch.cat([before, placed @ own_keys.transpose(-1, -2)], -1).float()
        scores *= options.get("scaling") or size**-0.5
        if softcap := options.get("softcap"):
            scores = (scores / softcap).tanh_().mul_(softcap)
        width = keys.shape[2]
        scores[..., :width] += self._seen[window]
        weights = _softmax(scores, options.get("s_aux")).to(value.dtype)
        found = (weights[..., :width].reshape(groups, heads, rows * each, width) @ values).view(
            groups, heads, rows, each, -1
        )
        found += weights[..., width:] @ own_values
        return found.transpose(1, 2).reshape(groups * rows, heads * each, -1)[self._places]


def _whole(prompt: Sequence[int], pairs: Sequence[int]) -> Example:
    """A prompt whose last token is the target, so that its node is known."""
    return Example("", tuple(prompt[:1]), tuple(prompt[1:-1]), tuple(prompt[-1:]), pairs=tuple(pairs))


def _empty(like: Tensor, *shape: int) -> Tensor:
    return like.new_zeros(*shape, like.shape[-1])


def _longer(own: Tensor) -> Tensor:
    """Room for twice as many tokens."""
    more = own.new_zeros(*own.shape[:3], max(_ROOM, own.shape[3]), own.shape[4])
    return torch.cat([own, more], 3)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Attention weights (G, H, R, E, N); a sink (H * E,) takes its share and gives nothing."""
    if sinks is None:
        return scores.softmax(-1)
    groups, heads, rows, each, _ = scores.shape
    sink = sinks.float().view(1, heads, 1, each, 1).expand(groups, heads, rows, each, 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


class _Sight(Tensor):
    """What stands for a step's mask on its way through the model: the cohorts, and how far the layer sees."""

    cohorts: Sequence[Cohort]
    window: int | None


def _writing_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention in transformers' form, of one new token (B, H, 1, D) a row: (B, 1, H, D)."""
    found, first = [], 0
    for cohort in attention_mask.cohorts:
        rows = slice(first, first := first + len(cohort.rows))
        states = (one[rows, :, 0] for one in (query, key, value))
        found.append(cohort.attend(module.layer_idx, attention_mask.window, *states, options))
    return torch.cat(found)[:, None], None


def takes_steps(model: Any) -> bool:
    """Whether the architecture takes an attention of ours; some older ones (GPT-J, XGLM) take their own only."""
    return bool(getattr(model, "_supports_attention_backend", False) or getattr(model, "_supports_sdpa", False))


def take_step(model: Any, cohorts: Sequence[Cohort]) -> None:
    """Read the next token of every row, in one pass; each cohort gets its logits."""
    begun = zip(*(cohort.begin_step() for cohort in cohorts), strict=True)
    tokens, positions, pairs = (torch.cat(parts) for parts in begun)

    def sight(window: int | None) -> _Sight:
        mask = torch.zeros(1, 1, 1, 1, device=tokens.device).as_subclass(_Sight)
        mask.cohorts, mask.window = cohorts, window
        return mask

    with _writing(model.config):
        logits = model(
            input_ids=tokens[:, None],
            attention_mask=by_layers(model.config, sight),
            position_ids=positions[:, None],
            use_cache=False,
            **read_under(model, pairs[:, None]),
        ).logits[:, -1]
    for cohort, own in zip(cohorts, logits.split([len(cohort.rows) for cohort in cohorts]), strict=True):
        cohort.end_step(own)


@contextmanager
def _writing(config: Any) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = WRITING_ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


AttentionInterface.register(WRITING_ATTENTION, _writing_attention)
AttentionMaskInterface.register(WRITING_ATTENTION, sdpa_mask)
