"""The losses of preference learning: against TRL's own functions, and what must hold whatever the numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from esckit.training.losses import dpo, ipo, kto, log_odds, orpo, simpo
from tests.tolerance import tolerance

log_ratios = st.floats(-50, 50)
extremes = st.floats(-1e6, 1e6)
betas = st.floats(0.01, 5)
means = st.floats(-20, -1e-3)
likely = st.floats(-20, -0.05)


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


# ----------------------------------------------------------------------------------------------------------------- TRL


class Accelerator:
    """All that TRL's loss functions ask of a trainer besides its options."""

    device = torch.device("cpu")


def trl_function(trainer: Any, **options: Any) -> Any:
    """A trainer that was never made, for its loss function."""
    made = object.__new__(trainer)
    made.__dict__.update(accelerator=Accelerator, label_smoothing=0.0, alpha=0.0, **options)
    return made


@given(st.lists(st.tuples(means, means), min_size=1, max_size=5), betas, st.floats(0, 3))
def test_simpo_is_trls(pairs: list[tuple[float, float]], beta: float, margin: float) -> None:
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    peer = trl_function(CPOTrainer, loss_type="simpo", beta=beta, simpo_gamma=margin)
    torch.testing.assert_close(
        simpo(chosen, rejected, beta=beta, margin=margin), peer.cpo_loss(chosen, rejected)[0], atol=1e-9, rtol=1e-9
    )


@given(st.lists(st.tuples(likely, likely), min_size=1, max_size=5), betas)
def test_orpo_is_minus_what_trl_adds_up(pairs: list[tuple[float, float]], beta: float) -> None:
    """In float32, in which TRL computes; it loses digits of 1 - p where p is near 1, so p is at most .95."""
    chosen, rejected = torch.tensor(pairs).T
    losses = trl_function(ORPOTrainer, beta=beta).odds_ratio_loss(chosen, rejected)[0]
    torch.testing.assert_close(orpo(chosen, rejected, beta=beta), -losses, atol=tolerance(), rtol=tolerance())


# ---------------------------------------------------------------------------------------------------------- properties


@given(log_ratios, betas)
def test_without_a_margin_dpo_and_simpo_are_ln_2(value: float, beta: float) -> None:
    assert float(dpo(one(value), one(value), beta=beta)) == pytest.approx(math.log(2), abs=1e-12)
    assert float(simpo(one(value), one(value), beta=beta, margin=0)) == pytest.approx(math.log(2), abs=1e-12)


@given(st.floats(-30, -1e-3), betas)
def test_without_a_margin_orpo_is_beta_ln_2(value: float, beta: float) -> None:
    assert float(orpo(one(value), one(value), beta=beta)) == pytest.approx(beta * math.log(2), rel=1e-12)


@given(st.tuples(st.floats(-8, 8), st.floats(0.01, 4)), betas.filter(lambda beta: beta < 1), st.floats(0, 2))
def test_dpo_and_simpo_fall_as_the_margin_grows(margins: tuple[float, float], beta: float, gamma: float) -> None:
    less, more = margins[0], margins[0] + margins[1]
    assert dpo(one(more), one(0), beta=beta) < dpo(one(less), one(0), beta=beta)
    assert simpo(one(more), one(0), beta=beta, margin=gamma) < simpo(one(less), one(0), beta=beta, margin=gamma)
    assert dpo(one(0), one(-more), beta=beta) < dpo(one(0), one(-less), beta=beta), "the margin alone counts"


@given(st.floats(-6, -0.1), st.floats(0.01, 2), st.floats(-6, -0.1), betas)
def test_orpo_falls_with_chosen_and_rises_with_rejected(low: float, step: float, other: float, beta: float) -> None:
    high = min(low + step, -0.01)
    assert orpo(one(high), one(other), beta=beta) < orpo(one(low), one(other), beta=beta)
    assert orpo(one(other), one(high), beta=beta) > orpo(one(other), one(low), beta=beta)


@given(log_ratios, betas, st.floats(0.01, 5))
def test_ipo_is_0_at_its_target_and_grows_away_from_it(rejected: float, beta: float, away: float) -> None:
    target = rejected + 1 / (2 * beta)
    assert float(ipo(one(target), one(rejected), beta=beta)) == pytest.approx(0, abs=1e-20 + 1e-24 * target**2)
    for sign in (-1, 1):
        near, far = (ipo(one(target + sign * d), one(rejected), beta=beta) for d in (away, 2 * away))
        assert float(near) == pytest.approx(away**2, rel=1e-6)
        assert far > near


@given(st.floats(-10, 10), st.floats(0, 5), betas, st.floats(0.01, 3))
def test_kto_is_a_half_at_the_divergence_and_wants_each_side_its_way(
    ratio: float, divergence: float, beta: float, step: float
) -> None:
    z = torch.tensor(divergence, dtype=torch.float64)
    both = torch.tensor([True, False])
    at = kto(torch.full((2,), divergence, dtype=torch.float64), both, divergence=z, beta=beta)
    assert at.tolist() == [0.5, 0.5]
    low, high = (kto(one(value).repeat(2), both, divergence=z, beta=0.1) for value in (ratio, ratio + step))
    assert high[0] < low[0]
    assert high[1] > low[1]
    assert float(low.sum()) == pytest.approx(1), "the two are mirror images"


def test_ktos_divergence_is_not_trained() -> None:
    ratio, divergence = one(0.3).requires_grad_(), torch.tensor(0.2, requires_grad=True)
    torch.autograd.backward(kto(ratio, torch.tensor([True]), divergence=divergence, beta=0.5).sum())
    assert ratio.grad is not None
    assert ratio.grad < 0
    assert divergence.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(chosen=extremes, rejected=extremes)
def test_losses_and_their_gradients_are_finite_for_extreme_log_ratios(
    dtype: torch.dtype, chosen: float, rejected: float
) -> None:
    sides = torch.tensor([[chosen], [rejected]], dtype=dtype, requires_grad=True)
    zero = torch.zeros((), dtype=dtype)
    flags = torch.tensor([True, False])
    losses = [
        dpo(*sides, beta=0.1),
        ipo(*sides, beta=0.1),
        simpo(*sides, beta=2.0, margin=0.5),
        kto(sides[:, 0], flags, divergence=zero, beta=0.1),
    ]
    assert_finite(torch.cat(losses), sides)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chosen", [0.0, -1e-45, -1e-9, -1e-3, -1.0, -90.0, -1e6])
@pytest.mark.parametrize("rejected", [0.0, -1e-45, -1e-9, -1e-3, -1.0, -90.0, -1e6])
def test_orpo_is_finite_where_a_probability_rounds_to_1_or_0(
    chosen: float, rejected: float, dtype: torch.dtype
) -> None:
    sides = torch.tensor([[chosen], [rejected]], dtype=dtype, requires_grad=True)
    assert_finite(orpo(*sides, beta=0.1), sides)


def assert_finite(losses: Tensor, sides: Tensor) -> None:
    torch.autograd.backward(losses.sum())
    assert torch.isfinite(losses).all()
    assert sides.grad is not None
    assert torch.isfinite(sides.grad).all()


@given(st.floats(1e-6, 1 - 1e-6))
def test_log_odds_are_those_of_the_probability(probability: float) -> None:
    found = float(log_odds(one(math.log(probability))))
    assert found == pytest.approx(math.log(probability / (1 - probability)), rel=1e-6, abs=1e-9)


def test_each_pair_has_a_loss_of_its_own() -> None:
    chosen, rejected = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 5.0])
    assert dpo(chosen, rejected, beta=1).tolist() == pytest.approx([math.log(2), 0.313262, 3.048587], rel=1e-5)
    assert ipo(chosen, rejected, beta=0.5).tolist() == pytest.approx([1, 0, 16])
    assert kto(chosen, torch.tensor([True, False, True]), divergence=torch.tensor(1.0), beta=1).tolist() == (
        pytest.approx([0.731059, 0.5, 0.268941], rel=1e-5)
    )
