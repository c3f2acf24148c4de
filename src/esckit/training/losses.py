"""The losses of preference learning: pure functions of log-probabilities, in nats, one value a pair or a reply.

Shapes: (P,) for P pairs. A *log ratio* is the policy's log-probability of a whole reply less the reference's. A *mean*
log-probability is the sum over a reply's tokens divided by their number. docs/training.md says where TRL's differ.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["dpo", "ipo", "kto", "log_odds", "orpo", "simpo"]


def dpo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Direct Preference Optimization: ``-log sigmoid(beta (chosen - rejected))`` (Rafailov et al. 2023, eq. 7).

    Args:
        chosen, rejected: (P,) log ratios.
        beta: strength of the pull to the reference, above 0.

    Returns:
        (P,) losses; ln 2 where the policy is the reference.
    """
    return -logsigmoid(beta * (chosen - rejected))


def ipo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Identity Preference Optimization: ``(chosen - rejected - 1 / (2 beta))^2`` (Azar et al. 2024, eq. 17).

    Args:
        chosen, rejected: (P,) log ratios: sums as in the paper, or divided by each reply's tokens as in TRL.
        beta: the paper's tau, above 0.
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, margin: float) -> Tensor:
    """Simple Preference Optimization: ``-log sigmoid(beta (chosen - rejected) - margin)`` (Meng et al. 2024, eq. 6).

    Args:
        chosen, rejected: (P,) mean log-probabilities of the policy; there is no reference.
        beta: above 0.
        margin: the paper's gamma, 0 or more.
    """
    return -logsigmoid(beta * (chosen - rejected) - margin)


def kto(
    log_ratio: Tensor,
    desirable: Tensor,
    *,
    divergence: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky Optimization (Ethayarajh et al. 2024, eq. 8).

    ``w (1 - sigmoid(beta (r - z)))`` for a desirable reply, ``w' (1 - sigmoid(beta (z - r)))`` for an undesirable one.

    Args:
        log_ratio: (R,) r, a reply each.
        desirable: (R,) bool.
        divergence: () z, the estimate of KL(policy || reference) from mismatched replies, at least 0; not trained.
        beta: above 0.
        desirable_weight, undesirable_weight: w and w', the paper's lambdas, above 0.

    Returns:
        (R,) losses, from 0 to the reply's weight.
    """
    distance = log_ratio - divergence.detach()
    losses = 1 - torch.sigmoid(beta * torch.where(desirable, distance, -distance))
    return torch.where(desirable, desirable_weight * losses, undesirable_weight * losses)


def log_odds(mean_log_probability: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of ``p = exp(mean log-probability)``, finite for p below 1 (Hong et al. 2024, eq. 4).

    Where p rounds to 1, the largest finite value of 1 - p is taken, so that no pair makes the loss infinite.
    """
    smallest = math.log(torch.finfo(mean_log_probability.dtype).eps)
    p = mean_log_probability.clamp(max=-torch.finfo(mean_log_probability.dtype).eps)
    return mean_log_probability - torch.log(-torch.expm1(p)).clamp(min=smallest)


def orpo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """The odds-ratio term of ORPO: ``-beta log sigmoid(log odds of chosen - log odds of rejected)`` (eq. 6 and 7).

    The whole loss adds the likelihood of the chosen replies (`training.preferences`).

    Args:
        chosen, rejected: (P,) mean log-probabilities of the policy; there is no reference.
        beta: the paper's lambda, above 0.
    """
    return -beta * logsigmoid(log_odds(chosen) - log_odds(rejected))
