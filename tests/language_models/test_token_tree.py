"""The token trie as a data structure: merging, the mask, division over rows, packing."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from esckit.language_models.attention import trie_attention
from esckit.language_models.token_tree import (
    TokenTrie,
    TrieBatch,
    build_tries,
    collate,
    target_log_probabilities,
    token_log_probabilities,
)
from esckit.rendering import Example

VOCABULARY = 5


def tokens(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Few different tokens, so that prefixes are often shared."""
    return st.lists(st.integers(0, VOCABULARY - 1), min_size=least, max_size=most).map(tuple)


example = st.builds(Example, st.just(""), tokens(1, 6), tokens(0, 2), tokens(1, 3))
few_examples = st.lists(example, min_size=1, max_size=8)
property_test = settings(deadline=None, max_examples=100)


def sequence(one: Example) -> tuple[int, ...]:
    return (*one.context, *one.given, *one.scored)


def parent_of(trie: TokenTrie, node: int) -> int | None:
    """The parent by depth-first order and depths alone: the nearest earlier node that is one less deep."""
    return next((j for j in range(node - 1, -1, -1) if trie.depth[j] == trie.depth[node] - 1), None)


def path_to(trie: TokenTrie, node: int | None) -> list[int]:
    """Nodes from the root to this one, inclusive."""
    path: list[int] = []
    while node is not None:
        path.append(node)
        node = parent_of(trie, node)
    return path[::-1]


def prefixes(sequences: Iterable[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {ids[: length + 1] for ids in sequences for length in range(len(ids))}


# ------------------------------------------------------------------------------------------------------------- one trie


@property_test
@given(few_examples)
def test_every_example_is_a_path_and_no_prefix_stands_twice(examples: list[Example]) -> None:
    trie = TokenTrie.merge(examples)
    assert len(trie.targets) == len(examples)
    for target, one in zip(trie.targets, examples, strict=True):
        path = path_to(trie, target.nodes[-1])
        assert tuple(trie.tokens[node] for node in path) == sequence(one)
        assert target.nodes == tuple(path[len(path) - len(one.scored) :])
        assert target.parents == tuple(path[len(path) - len(one.scored) - 1 : -1])
    assert len(trie) == len(prefixes(map(sequence, examples))) <= sum(len(sequence(one)) for one in examples)


@property_test
@given(few_examples)
def test_depth_and_end_and_the_mask_say_who_is_an_ancestor_of_whom(examples: list[Example]) -> None:
    trie = TokenTrie.merge(examples)
    paths = [path_to(trie, node) for node in range(len(trie))]
    seen = torch.zeros(len(trie), len(trie), dtype=torch.bool)
    for node, path in enumerate(paths):
        assert trie.depth[node] == len(path) - 1
        seen[node, path] = True
    mask = trie_attention(torch.tensor([trie.end]))
    assert mask.shape == (1, 1, len(trie), len(trie))
    assert torch.equal(mask[0, 0], seen)
    for node in range(len(trie)):  # depth-first: a subtree is one run of nodes
        below = [other for other, path in enumerate(paths) if node in path]
        assert below == list(range(node, trie.end[node]))


@property_test
@given(few_examples)
def test_branches_keep_the_order_in_which_they_were_given(examples: list[Example]) -> None:
    trie = TokenTrie.merge(examples)
    found = [tuple(trie.tokens[node] for node in path_to(trie, node)) for node in range(len(trie))]
    wanted: list[tuple[int, ...]] = []
    first_seen = list(dict.fromkeys(ids[: n + 1] for ids in map(sequence, examples) for n in range(len(ids))))

    def walk(prefix: tuple[int, ...]) -> None:
        for child in (other for other in first_seen if other[:-1] == prefix):
            wanted.append(child)
            walk(child)

    walk(())
    assert found == wanted


def test_a_trie_by_hand() -> None:
    trie = TokenTrie.merge(
        [Example("a", (1, 2), (), (3, 4)), Example("b", (1, 2), (5,), (6,)), Example("c", (1, 2), (), (3, 7))]
    )
    assert trie.tokens == (1, 2, 3, 4, 7, 5, 6)
    assert trie.depth == (0, 1, 2, 3, 3, 2, 3)
    assert trie.end == (7, 7, 5, 4, 5, 7, 7)
    assert [target.nodes for target in trie.targets] == [(2, 3), (6,), (2, 4)]
    assert [target.parents for target in trie.targets] == [(1, 2), (5,), (1, 2)]


# ------------------------------------------------------------------------------------------------------------- division


@property_test
@given(few_examples, st.integers(1, 30))
def test_division_covers_every_target_once_and_in_order(examples: list[Example], most: int) -> None:
    tries = build_tries(examples, most)
    rest = list(examples)
    for number, trie in enumerate(tries):
        group, rest = rest[: len(trie.targets)], rest[len(trie.targets) :]
        assert trie == TokenTrie.merge(group), "each row has the whole prefix of its targets"
        assert len(trie) <= most or len(group) == 1
        if number < len(tries) - 1:
            assert len(TokenTrie.merge([*group, rest[0]])) > most, "no row is cut before it is full"
    assert rest == []


@property_test
@given(few_examples)
def test_without_a_limit_a_conversation_is_one_trie(examples: list[Example]) -> None:
    assert build_tries(examples) == build_tries(examples, 10_000) == [TokenTrie.merge(examples)]


def test_nothing_gives_no_trie() -> None:
    assert build_tries([]) == build_tries([], 64) == []


# -------------------------------------------------------------------------------------------------------------- packing


class Bag:
    """A model whose logits depend on which (token, position) pairs a node sees, and on nothing else."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.token = torch.randn(VOCABULARY, 16, generator=draw, dtype=torch.float64)
        self.position = torch.randn(16, 16, generator=draw, dtype=torch.float64)
        self.head = torch.randn(16, VOCABULARY, generator=draw, dtype=torch.float64)
        self.config = SimpleNamespace(_attn_implementation="sdpa")

    def logits(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, N, V)."""
        state = torch.tanh(self.token[ids] * self.position[positions])  # (B, N, 16)
        return mask.double() @ state @ self.head

    def __call__(self, **given: Any) -> SimpleNamespace:
        assert given["use_cache"] is False
        logits = self.logits(given["input_ids"], given["position_ids"], given["attention_mask"][:, 0])
        return SimpleNamespace(logits=logits[given["logits_to_keep"]])

    def apart(self, one: Example) -> Tensor:
        """Log-probability (S,) of the scored tokens, the sequence read alone from left to right."""
        ids = torch.tensor([sequence(one)])
        causal = torch.ones(ids.shape[1], ids.shape[1]).tril()[None]
        logits = self.logits(ids, torch.arange(ids.shape[1])[None], causal)[0].log_softmax(-1)
        start = ids.shape[1] - len(one.scored)
        return logits[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]]


@property_test
@given(st.lists(few_examples, min_size=1, max_size=4), st.none() | st.integers(4, 20))
def test_a_batch_gives_each_target_what_it_has_apart(conversations: list[list[Example]], most: int | None) -> None:
    tries = [trie for examples in conversations for trie in build_tries(examples, most)]
    batch = collate(tries)
    assert batch.targets == sum(map(len, conversations))
    apart = [Bag().apart(one) for examples in conversations for one in examples]
    per_token = token_log_probabilities(Bag(), batch)
    for number, wanted in enumerate(apart):
        torch.testing.assert_close(per_token[batch.target == number], wanted)
    torch.testing.assert_close(target_log_probabilities(Bag(), batch), torch.stack([row.sum() for row in apart]))


@property_test
@given(st.lists(few_examples, min_size=1, max_size=6))
def test_tries_share_rows_and_never_see_each_other(conversations: list[list[Example]]) -> None:
    tries = [TokenTrie.merge(examples) for examples in conversations]
    batch = collate(tries, pad=VOCABULARY)
    rows, width = batch.input_ids.shape
    assert width == max(map(len, tries))
    assert rows <= len(tries)
    mask = trie_attention(batch.end)[:, 0]
    unplaced = sorted(tries, key=len, reverse=True)  # a trie may begin as a shorter one does
    for row in range(rows):
        seen = torch.zeros(width, width, dtype=torch.bool)
        start = 0
        while start < width and batch.input_ids[row, start] != VOCABULARY:
            trie = next(t for t in unplaced if fits_at(batch, t, row, start))
            unplaced.remove(trie)
            stop = start + len(trie)
            seen[start:stop, start:stop] = trie_attention(torch.tensor([trie.end]))[0, 0]
            start = stop
        padding = torch.arange(start, width)
        seen[padding, padding] = True  # a node that sees nothing would make its row of the softmax NaN
        assert batch.input_ids[row, start:].eq(VOCABULARY).all()
        assert not batch.keep[row, start:].any()
        assert torch.equal(mask[row], seen)
    assert unplaced == []


def fits_at(batch: TrieBatch, trie: TokenTrie, row: int, start: int) -> bool:
    """Whether this trie stands at this place of a row."""
    span = slice(start, start + len(trie))
    end = tuple(int(stop) - start for stop in batch.end[row, span])
    return (tuple(batch.input_ids[row, span].tolist()), tuple(batch.position_ids[row, span].tolist()), end) == (
        trie.tokens,
        trie.depth,
        trie.end,
    )


def chain(length: int) -> TokenTrie:
    return TokenTrie.merge([Example("", (0,) * (length - 1), (), (1,))])


@pytest.mark.parametrize(
    ("lengths", "rows"), [([4, 4], 2), ([9, 5, 4], 2), ([3, 9, 3, 3, 9, 2, 2], 4), ([7, 2, 2, 2], 2), ([5], 1)]
)
def test_short_tries_fill_the_rows_of_long_ones(lengths: Sequence[int], rows: int) -> None:
    assert collate([chain(length) for length in lengths]).input_ids.shape == (rows, max(lengths))


def test_the_head_runs_on_parents_of_scored_tokens_only() -> None:
    shared = [Example("", (1, 2, 3), (), (4,)), Example("", (1, 2, 3), (), (0,)), Example("", (1, 2), (3,), (2, 2))]
    batch = collate([TokenTrie.merge(shared)])
    assert int(batch.keep.sum()) == 2, "one node predicts three branches, one node the last token"
    assert batch.token.tolist() == [4, 0, 2, 2]
    assert batch.target.tolist() == [0, 1, 2, 2]


def test_a_batch_moves_whole() -> None:
    batch = collate([chain(3)])
    moved = batch.to("meta")
    assert moved.targets == batch.targets
    assert {value.device.type for name, value in moved._asdict().items() if name != "targets"} == {"meta"}
