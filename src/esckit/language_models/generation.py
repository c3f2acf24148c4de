"""What a supporter asks of a language model: a reply to each prompt, and how probable each label of the taxonomy is.

What prompts share is read once, and every reply is drawn by a seed of its own; labels are branches of one context.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.language_models.backbone import device_of
from esckit.language_models.cohorts import Cohort, in_groups, take_step, takes_steps
from esckit.language_models.guided import Guide
from esckit.language_models.token_tree import build_tries, collate, target_log_probabilities
from esckit.rendering import Part, Renderer

_ROWS: Final = 64  # prompts written at once: their keys and values are in memory together
_LIKELIEST: Final = 256  # tokens that a nucleus is looked for in at first
MAX_TOKENS_PER_ROW = 8192  # of planner rows at inference; longer dialogues are divided, which changes no figure


class Reply(NamedTuple):
    """Generated text and how it ended: ``stop`` at the end of turn, ``length`` at the limit."""

    text: str
    finish: Literal["stop", "length"]


class TextStreamer:
    """Tells the text of a reply while its tokens come; the pieces add up to the reply's text.

    Characters whose bytes are not complete yet, and white space that may turn out to be the reply's end, wait for the
    next token. Where a tokenizer decodes what came before differently once more tokens follow, nothing more goes out:
    the reply's text counts. ``decode`` makes the text of the tokens so far, ``on_text`` is told each piece.
    """

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], None]) -> None:
        self._decode = decode
        self._on_text = on_text
        self._ids: list[int] = []
        self._told = ""

    def put(self, token: int) -> None:
        """Take the next token."""
        self._ids.append(token)
        self._tell(self._decode(self._ids).rstrip("\ufffd").rstrip())

    def end(self) -> None:
        """The reply is complete."""
        self._tell(self._decode(self._ids))

    def _tell(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            piece, self._told = text[len(self._told) :], text
            self._on_text(piece)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    decoding: Decoding,
    seeds: Sequence[int],
    on_text: Callable[[str], None] | None = None,
    pairs: Sequence[Sequence[int]] | None = None,
) -> list[Reply]:
    """Continue each prompt until the end of turn; see `generate_ids`.

    ``on_text``, where there is one prompt, is told the reply's text piece by piece while it is written.
    """
    streamer = on_text and TextStreamer(lambda ids: read_reply(tokenizer, ids, end_of_turn).text, on_text)
    on_token = streamer.put if streamer else None
    written = generate_ids(model, prompts, end_of_turn, decoding, seeds, on_token=on_token, pairs=pairs)
    if streamer:
        streamer.end()
    return [read_reply(tokenizer, ids, end_of_turn) for ids in written]


@torch.no_grad()
def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    decoding: Decoding,
    seeds: Sequence[int],
    *,
    on_token: Callable[[int], None] | None = None,
    guides: Sequence[Guide | None] | None = None,
    pairs: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Continue each prompt until the end of turn; a row that has ended makes room for the next prompt.

    What prompts of one dialogue share is read and kept once (`cohorts`). No process-wide random state takes part.

    Args:
        model: a causal language model in evaluation mode, adapters chosen.
        prompts: token ids, each of two tokens or more.
        end_of_turn: the token that ends a reply.
        seeds: of each prompt, so that its reply is drawn alike whatever stands beside it (but for the last bits of
            floats); greedy decoding reads none.
        on_token: is told the tokens of the one prompt as they come.
        guides: of each prompt, what its reply may be; None where it may be anything.
        pairs: of each prompt, what experts each token is read under (`rendering.gates`); its reply is written under the
            last one. None reads all as a model without experts does.

    Returns:
        The ids that were written, each up to and including the first end of turn.
    """
    texts = [list(prompt) for prompt in prompts]
    guides = guides or [None] * len(texts)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    written: list[list[int]] = [[] for _ in texts]
    under = [list(own) for own in pairs] if pairs else [[0] * len(text) for text in texts]
    waiting = in_groups([list(zip(*both, strict=True)) for both in zip(texts, under, strict=True)])[::-1]
    cohorts: list[Cohort] = []
    while waiting or cohorts:
        rows = sum(len(cohort.rows) for cohort in cohorts)
        if waiting and (not cohorts or rows + sum(map(len, waiting[-1])) <= _ROWS):
            new = [Cohort(model, texts, waiting.pop(), under)]
            cohorts += new
        elif takes_steps(model):
            take_step(model, cohorts)
            new = cohorts
        else:  # read everything again, which is slow and right
            longer = [text + ids for text, ids in zip(texts, written, strict=True)]
            wider = [own + own[-1:] * len(ids) for own, ids in zip(under, written, strict=True)]
            new = cohorts = [Cohort(model, longer, [cohort.rows], wider) for cohort in cohorts]
        for cohort in new:
            so_far = (texts[row] + written[row] for row in cohort.rows)
            logits = penalised(cohort.logits, decoding.repetition_penalty, so_far)
            logits = _guided(logits, [guides[row] for row in cohort.rows])
            tokens = _next_tokens(logits, decoding, [generators[row] for row in cohort.rows])
            for row, token in zip(cohort.rows, tokens.tolist(), strict=True):
                written[row].append(token)
                _tell(token, guides[row], on_token)
            said = [written[row] for row in cohort.rows]
            cohort.go_on(tokens, [s[-1] != end_of_turn and len(s) < decoding.max_new_tokens for s in said])
        cohorts = [cohort for cohort in cohorts if cohort.rows]
    return written


def _tell(token: int, guide: Guide | None, on_token: Callable[[int], None] | None) -> None:
    if guide is not None:
        guide.take(token)
    if on_token:
        on_token(token)


def penalised(logits: Tensor, penalty: float, texts: Iterable[Sequence[int]]) -> Tensor:
    """Logits (B, V) after the penalty on tokens that each row's text has (`Decoding`), in float32; by 1 as they are."""
    if penalty == 1:
        return logits
    logits = logits.to(torch.float32, copy=True)
    for row, text in zip(logits, texts, strict=True):
        had = torch.tensor(list(set(text)), device=logits.device)
        row[had] = torch.where(row[had] < 0, row[had] * penalty, row[had] / penalty)
    return logits


def _guided(logits: Tensor, guides: Sequence[Guide | None]) -> Tensor:
    """Logits (B, V), those of tokens that a row's guide does not allow minus infinity."""
    allowed = {row: found for row, guide in enumerate(guides) if guide and (found := guide.allowed()) is not None}
    logits = logits.clone() if allowed else logits
    for row, found in allowed.items():
        hidden = torch.ones_like(logits[row], dtype=torch.bool)
        hidden[: len(found)] = ~found[: logits.shape[1]]
        logits[row, hidden] = -torch.inf
    return logits


def _next_tokens(logits: Tensor, decoding: Decoding, generators: Sequence[torch.Generator]) -> Tensor:
    """The next token of each row (B,), from logits (B, V): the likeliest, or a draw by the row's own generator."""
    if decoding.greedy:
        return logits.argmax(-1)
    uniform = torch.stack([torch.rand(1, generator=generator) for generator in generators])  # (B, 1)
    return draw(logits, decoding, uniform.to(logits.device))


def draw(logits: Tensor, decoding: Decoding, uniform: Tensor) -> Tensor:
    """Tokens (B,) drawn from the nucleus of the likeliest of logits (B, V) by numbers (B, 1) in [0, 1).

    Usually the nucleus is within the likeliest few, and the whole vocabulary need not be put in order.
    """
    scaled = logits.float() / decoding.temperature
    if decoding.top_k is not None:
        last = scaled.topk(min(decoding.top_k, scaled.shape[-1])).values[:, -1:]
        scaled = scaled.masked_fill(scaled < last, -torch.inf)
    total = scaled.logsumexp(-1, keepdim=True)
    for few in (_LIKELIEST, scaled.shape[-1]):
        top, order = scaled.topk(min(few, scaled.shape[-1]), sorted=True)
        probabilities = (top - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        if few >= scaled.shape[-1] or bool((before[:, -1] >= decoding.top_p).all()):
            break
    reached = torch.where(before < decoding.top_p, probabilities, 0.0).cumsum(-1)
    below = reached <= uniform * reached[:, -1:]
    return order.gather(-1, below.sum(-1, keepdim=True))[:, 0]


def read_reply(tokenizer: Any, ids: list[int], end_of_turn: int) -> Reply:
    """The text of what `generate_ids` wrote, and how it ended."""
    stopped = ids[-1:] == [end_of_turn]
    ids = ids[:-1] if stopped else ids
    return Reply(tokenizer.decode(ids, skip_special_tokens=True).strip(), "stop" if stopped else "length")


@torch.no_grad()
def score_strategies(
    model: Any,
    renderer: Renderer,
    conversation: Conversation,
    turns: Sequence[Turn],
    shown: Mapping[str, str],
    part: Part = "planner",
) -> NDArray[np.float64]:
    """Log-probability of each label at each turn, normalised over the taxonomy (natural log).

    All turns and labels of a conversation are one trie, hence one forward pass. Of a turn only what stands before it is
    read. The model's active adapter is the part's, planner or coupled; ``shown`` are strategies by turn id.

    Returns:
        Array (T, K): T turns in the order given, K labels in taxonomy order; each row's exponentials sum to 1.
    """
    examples = [example for turn in turns for example in renderer.choices(conversation, turn, part, shown)]
    tries = build_tries(examples, MAX_TOKENS_PER_ROW)
    device = device_of(model)
    scores = torch.cat([target_log_probabilities(model, collate([trie]).to(device)) for trie in tries])  # (T * K,)
    return scores.double().view(len(turns), len(renderer.taxonomy.labels)).log_softmax(-1).cpu().numpy()
