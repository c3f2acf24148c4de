"""Perplexity: how improbable a causal language model finds texts. It means nothing without the model's name."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import torch

from esckit.language_models.backbone import Backbone, device_of
from esckit.progress import progress

__all__ = ["Perplexity", "perplexities", "perplexity"]

_TOKENS: Final = 2048  # of a batch, padding included: its logits take 4 bytes a token and word of the vocabulary


class Perplexity(NamedTuple):
    """What a model makes of a text, or of several.

    Attributes:
        nats: the sum of its negative log-probabilities, 0 or more.
        tokens: so many were predicted.
    """

    nats: float
    tokens: int

    @property
    def value(self) -> float:
        """Per token, 1 or more: exp(nats / tokens). Of several texts every token counts alike, not every text."""
        return math.exp(self.nats / self.tokens) if self.tokens else math.nan


def perplexity(texts: Sequence[str], backbone: Backbone, *, batch_tokens: int = _TOKENS) -> Perplexity:
    """Of all texts together, weighted by tokens; NaN where they have none. See `perplexities`."""
    found = perplexities(texts, backbone, batch_tokens=batch_tokens)
    return Perplexity(math.fsum(each.nats for each in found), sum(each.tokens for each in found))


def perplexities(texts: Sequence[str], backbone: Backbone, *, batch_tokens: int = _TOKENS) -> list[Perplexity]:
    """Of each text by itself, in order, in batches of texts of like length.

    A text stands alone, without a chat template, behind the tokenizer's token for a beginning (``bos``, else ``eos``),
    so that its first token is predicted, too. A text that is longer than the model's context is read in pieces, each
    with a beginning of its own; a text without tokens has a perplexity of NaN.

    Args:
        texts: any.
        backbone: whose model and tokenizer.
        batch_tokens: the most tokens of a batch, padding included; one text may have more.
    """
    pieces = [(place, piece) for place, text in enumerate(texts) for piece in _pieces(text, backbone)]
    pieces.sort(key=lambda each: len(each[1]))
    nats, tokens = [0.0] * len(texts), [0] * len(texts)
    with progress("perplexity", len(pieces)) as bar, backbone.lock, torch.inference_mode():
        for batch in _batches(pieces, batch_tokens):
            for (place, piece), loss in zip(batch, _losses([piece for _, piece in batch], backbone), strict=True):
                nats[place] += loss
                tokens[place] += len(piece) - 1
                bar.advance()
    return [Perplexity(*each) for each in zip(nats, tokens, strict=True)]


def _pieces(text: str, backbone: Backbone) -> Iterator[list[int]]:
    """A text's tokens behind a beginning, in pieces that the model can read."""
    tokenizer = backbone.tokenizer
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids, most = tokenizer(text, add_special_tokens=False)["input_ids"], backbone.max_context - 1
    for start in range(0, len(ids), most):
        yield [begin, *ids[start : start + most]]


def _batches(pieces: Iterable[tuple[int, list[int]]], most: int) -> Iterator[list[tuple[int, list[int]]]]:
    """So many pieces at once, which come by length, that their number times the longest's is at most ``most``."""
    batch: list[tuple[int, list[int]]] = []
    for each in pieces:
        if batch and len(each[1]) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def _losses(pieces: Sequence[list[int]], backbone: Backbone) -> list[float]:
    """The sum of negative log-probabilities of each piece's tokens behind its first one."""
    device, longest = device_of(backbone.model), max(map(len, pieces))
    ids = torch.zeros((len(pieces), longest), dtype=torch.long)
    there = torch.zeros_like(ids)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = torch.tensor(piece)
        there[row, : len(piece)] = 1
    ids, there = ids.to(device), there.to(device)
    logits = backbone.model(input_ids=ids, attention_mask=there).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return [float(x) for x in (losses.view(len(pieces), -1).double() * there[:, 1:]).sum(1)]
