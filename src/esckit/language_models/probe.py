"""Whether a model reads a token trie as it reads separate sequences: tried on a few tokens when it is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from esckit.errors import ModelError
from esckit.language_models.attention import SUPPORTED
from esckit.language_models.token_tree import TokenTrie, collate, token_log_probabilities
from esckit.rendering import Example

__all__ = ["check_exactness"]

_SHARED: Final = 12
_BRANCH: Final = 8
_WINDOW: Final = 5  # shorter than a branch, so that a sliding layer forgets


@torch.no_grad()
def check_exactness(model: Any, source: str) -> None:
    """Compare two branches of one context, read as a trie, with the two sequences that they stand for.

    The sequences are read as anybody would read them, without a mask and without positions. Sliding windows are made
    short meanwhile, so that they are tried too.

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
            apart = _plain(model, torch.tensor([[*b.context, *b.scored] for b in branches], device=parameter.device))
            batch = collate([TokenTrie.merge(branches)]).to(parameter.device)
            together = token_log_probabilities(model, batch)
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{source} takes no mask and positions of a token trie ({reason}), as is usual with ALiBi, recurrence and "
            f"state-space layers: {SUPPORTED}."
        ) from error
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
