"""The planner's scores are the label's own log-probabilities; choosing follows temperature and nucleus."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from esckit.decoding import Decoding, choose_strategies
from esckit.language_models.generation import score_strategies
from esckit.rendering import Renderer, past_strategies, supporter_turns
from esckit.strategy import ESCONV
from tests.tiny import Architecture, label_ids, starter_dialogues, tiny_model, tiny_renderer

# ------------------------------------------------------------------------------------------------------------- scoring


def plain_scores(model: Any, renderer: Renderer, contexts: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """(T, K): every label after every context, each read alone from left to right, then normalised over the labels."""
    rows = []
    for context in contexts:
        row = []
        for label in ESCONV.labels:
            said = label_ids(renderer, label)
            ids = torch.tensor([[*context, *said]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(context) - 1 : -1].double().log_softmax(-1)
            row.append(logits[torch.arange(len(said)), torch.tensor(said)].sum())
        rows.append(torch.stack(row).log_softmax(-1))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_scores_are_those_of_each_label_read_alone(architecture: Architecture) -> None:
    model, renderer = tiny_model(architecture), tiny_renderer()
    (conversation,) = starter_dialogues(1, 8)
    turns = supporter_turns(conversation)
    shown = past_strategies(conversation, "gold")
    scores = score_strategies(model, renderer, conversation, turns, shown)
    contexts = [renderer.context(conversation.path(turn.parent), shown, 0).ids for turn in turns]
    np.testing.assert_allclose(scores, plain_scores(model, renderer, contexts), atol=1e-4)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1)
    assert scores.dtype == np.float64
    assert scores.std() > 0.1, "the model has preferences to get wrong"


def test_scores_follow_the_order_of_the_turns_and_do_not_depend_on_the_rows() -> None:
    model, renderer = tiny_model(), tiny_renderer()
    (conversation,) = starter_dialogues(1, 8)
    turns = supporter_turns(conversation)
    scores = score_strategies(model, renderer, conversation, turns, {})
    backwards = score_strategies(model, renderer, conversation, turns[::-1], {})
    np.testing.assert_allclose(backwards[::-1], scores, atol=1e-4)
    for turn, row in zip(turns, scores, strict=True):
        np.testing.assert_allclose(score_strategies(model, renderer, conversation, [turn], {})[0], row, atol=1e-4)


def test_rows_that_are_divided_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    model, renderer = tiny_model(), tiny_renderer()
    (conversation,) = starter_dialogues(1, 8)
    turns = supporter_turns(conversation)
    scores = score_strategies(model, renderer, conversation, turns, {})
    monkeypatch.setattr("esckit.language_models.generation.MAX_TOKENS_PER_ROW", 200)
    np.testing.assert_allclose(score_strategies(model, renderer, conversation, turns, {}), scores, atol=1e-4)


def test_nothing_but_what_stands_before_a_turn_is_read() -> None:
    model, renderer = tiny_model(), tiny_renderer()
    (conversation,) = starter_dialogues(1, 8)
    turn = supporter_turns(conversation)[1]
    place = conversation.turns.index(turn)
    shown = past_strategies(conversation, "gold")
    scores = score_strategies(model, renderer, conversation, [turn], shown)
    changed = [
        replace(t, text="Something else.", strategy="Others" if t.strategy else None) if number >= place else t
        for number, t in enumerate(conversation.turns)
    ]
    other = replace(conversation, turns=changed)
    later = dict.fromkeys(list(shown)[1:], "Others")
    np.testing.assert_array_equal(
        score_strategies(model, renderer, other, [other.turns[place]], {**shown, **later}), scores
    )
    hidden = score_strategies(model, renderer, conversation, [turn], {})
    assert np.abs(hidden - scores).max() > 1e-3, "past strategies are read where they are shown"


# ------------------------------------------------------------------------------------------------------------ choosing

logits = st.lists(st.floats(-20, 0), min_size=2, max_size=8)
property_test = settings(deadline=None, max_examples=200)
TEMPERATURES: Final = st.floats(0.05, 5)
NUCLEI: Final = st.floats(0.01, 1)


def log_probabilities(values: list[float]) -> NDArray[np.float64]:
    return torch.tensor(values, dtype=torch.float64).log_softmax(-1).numpy()


@property_test
@given(logits, TEMPERATURES, NUCLEI, st.integers(1, 9))
def test_greedy_takes_the_largest_each_once_whatever_else_is_set(
    values: list[float], temperature: float, top_p: float, n: int
) -> None:
    row = log_probabilities(values)
    chosen = choose_strategies(row, Decoding(True, temperature, top_p), n, 0)
    assert chosen[0] == int(np.argmax(row))
    assert len(chosen) == len(set(chosen)) == min(n, len(values))
    assert row[chosen].tolist() == sorted(row, reverse=True)[:n]


@property_test
@given(logits, TEMPERATURES, NUCLEI)
def test_a_draw_is_from_the_smallest_nucleus_of_the_tempered_probabilities(
    values: list[float], temperature: float, top_p: float
) -> None:
    asked: list[tuple[list[int], list[float]]] = []

    class Dice:
        """Stands for numpy's generator and keeps what it was asked to draw from."""

        def choice(self, kept: NDArray[np.int64], n: int, p: NDArray[np.float64]) -> list[int]:
            asked.append((kept.tolist(), p.tolist()))
            return [int(kept[-1])] * n

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("esckit.decoding.np.random.default_rng", lambda _: Dice())
        chosen = choose_strategies(log_probabilities(values), Decoding(False, temperature, top_p), 3, 0)
    ((places, p),) = asked
    assert chosen == [places[-1]] * 3
    tempered = np.exp(np.array(values) / temperature - np.max(values) / temperature)
    tempered /= tempered.sum()
    kept, dropped = tempered[places], np.delete(tempered, places)
    assert len(set(places)) == len(places) >= 1
    assert kept.min() >= dropped.max(initial=0) - 1e-9, "the likeliest are kept"
    assert kept.sum() >= top_p - 1e-9
    assert kept.sum() - kept.min() < top_p + 1e-9, "and no more of them than needed"
    np.testing.assert_allclose(p, kept / kept.sum(), rtol=1e-9)


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    row = log_probabilities([0.0, -1.0, -2.0, -9.0])

    def draws(seed: int, decoding: Decoding) -> list[int]:
        return choose_strategies(row, decoding, 2000, seed)

    plain = Decoding(temperature=1.0, top_p=1.0)
    assert draws(1, plain) == draws(1, plain) != draws(2, plain)
    shares = np.bincount(draws(1, plain), minlength=4) / 2000
    np.testing.assert_allclose(shares, np.exp(row), atol=0.04)
    firsts = [choose_strategies(row, plain, 1, seed)[0] for seed in range(2000)]
    np.testing.assert_allclose(np.bincount(firsts, minlength=4) / 2000, np.exp(row), atol=0.04)
    assert set(draws(1, Decoding(temperature=1.0, top_p=0.7))) == {0, 1}
    assert set(draws(1, Decoding(temperature=0.01, top_p=1.0))) == {0}


@pytest.mark.parametrize("decoding", [Decoding(greedy=True), Decoding(temperature=5.0, top_p=1.0)])
def test_what_is_impossible_is_never_chosen(decoding: Decoding) -> None:
    row = np.array([-np.inf, -1.0, -np.inf, -3.0])
    assert set(choose_strategies(row, decoding, 50, 0)) == {1, 3}
    assert choose_strategies(np.full(4, -np.inf), decoding, 2, 0) == []
