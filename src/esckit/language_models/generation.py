"""What a supporter asks of a language model: a reply to each prompt, and how probable each label of the taxonomy is.

Prompts are read once, as a trie, and every reply is drawn by a seed of its own; labels are branches of one context.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.language_models.attention import trie_masks
from esckit.language_models.backbone import device_of
from esckit.language_models.token_tree import TokenTrie, build_tries, collate, target_log_probabilities
from esckit.rendering import Example, Part, Renderer

_ROWS: Final = 64  # prompts written at once: their keys and values are in memory together
MAX_TOKENS_PER_ROW = 8192  # of planner rows at inference; longer dialogues are divided, which changes no figure


class Reply(NamedTuple):
    """Generated text and how it ended: ``stop`` at the end of turn, ``length`` at the limit."""

    text: str
    finish: Literal["stop", "length"]


class TextStreamer:
    """A streamer for transformers' ``generate`` on one prompt; its pieces add up to the reply's text.

    Characters whose bytes are not complete yet, and white space that may turn out to be the reply's end, wait for the
    next token. Where a tokenizer decodes what came before differently once more tokens follow, nothing more goes out:
    the reply's text counts. ``decode`` makes the text of the tokens so far, ``on_text`` is told each piece.
    """

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], None]) -> None:
        self._decode = decode
        self._on_text = on_text
        self._ids: list[int] | None = None
        self._told = ""

    def put(self, ids: Any) -> None:
        """Take the prompt (1, W), which comes first, or the next token (1,)."""
        if self._ids is None:
            self._ids = []
            return
        self._ids += ids.tolist()
        self._tell(self._decode(self._ids).rstrip("\ufffd").rstrip())

    def end(self) -> None:
        """The reply is complete."""
        self._tell(self._decode(self._ids or []))

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
) -> list[Reply]:
    """Continue each prompt until the end of turn; see `generate_ids`.

    ``on_text``, where there is one prompt, is told the reply's text piece by piece while it is written.
    """
    streamer = on_text and TextStreamer(lambda ids: read_reply(tokenizer, ids, end_of_turn).text, on_text)
    written = generate_ids(model, prompts, end_of_turn, decoding, seeds, streamer=streamer)
    return [read_reply(tokenizer, ids, end_of_turn) for ids in written]


def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    decoding: Decoding,
    seeds: Sequence[int],
    *,
    streamer: TextStreamer | None = None,
) -> list[list[int]]:
    """Continue each prompt until the end of turn, in left-padded batches.

    The prompts of a batch are read once, as a trie, and each takes its own path's keys and values from there: prompts
    of one dialogue share most of their tokens. No process-wide random state is read or changed.

    Args:
        model: a causal language model, adapters chosen.
        prompts: token ids, each of two tokens or more.
        end_of_turn: the token that ends a reply.
        seeds: of each prompt, so that its reply is drawn alike whatever stands beside it (but for the last bits of
            floats); greedy decoding reads none.
        streamer: is given the tokens of the one prompt as they come.

    Returns:
        The ids that were written, each up to and including the first end of turn.
    """
    written: list[list[int]] = []
    for first in range(0, len(prompts), _ROWS):
        rows = slice(first, first + _ROWS)
        written += _write_batch(model, prompts[rows], end_of_turn, decoding, seeds[rows], streamer)
    return written


@torch.no_grad()
def _write_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    decoding: Decoding,
    seeds: Sequence[int],
    streamer: TextStreamer | None,
) -> list[list[int]]:
    from transformers import GenerationConfig, LogitsProcessorList

    device = device_of(model)
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), end_of_turn)  # (B, W)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    config = GenerationConfig(
        do_sample=False,  # `_OwnDraws` draws
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=end_of_turn,
        pad_token_id=end_of_turn,
    )
    output: Tensor = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        past_key_values=_read(model, prompts, width - 1),
        generation_config=config,
        streamer=streamer,
        logits_processor=LogitsProcessorList([] if decoding.greedy else [_OwnDraws(decoding, seeds)]),
    )
    rows = output[:, width:].tolist()
    return [row[: row.index(end_of_turn) + 1] if end_of_turn in row else row for row in rows]


class _OwnDraws:
    """Sampling with a generator a row: the drawn token is left as the only possible one."""

    def __init__(self, decoding: Decoding, seeds: Sequence[int]) -> None:
        self._decoding = decoding
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scaled = scores.float() / self._decoding.temperature  # (B, V)
        probabilities, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        reached = torch.where(before < self._decoding.top_p, probabilities, 0.0).cumsum(-1)  # the nucleus
        uniform = torch.stack([torch.rand(1, generator=generator) for generator in self._generators])  # (B, 1)
        below = reached <= uniform.to(reached.device) * reached[:, -1:]
        drawn = order.gather(-1, below.sum(-1, keepdim=True))  # (B, 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def _read(model: Any, prompts: Sequence[Sequence[int]], width: int) -> Any:
    """Keys and values of every prompt but its last token, left-padded to ``width``, from one pass over their trie."""
    from transformers import DynamicCache

    examples = [Example("", tuple(prompt[:1]), (), tuple(prompt[1:-1])) for prompt in prompts]
    trie = TokenTrie.merge(examples)
    batch = collate([trie]).to(device_of(model))
    read = model(
        input_ids=batch.input_ids,
        attention_mask=trie_masks(model, batch.end, batch.position_ids),
        position_ids=batch.position_ids,
        past_key_values=DynamicCache(),  # a model's own would keep the last rows of a sliding window, not of a path
        logits_to_keep=1,
        use_cache=True,
    ).past_key_values
    roots = {trie.tokens[node]: node for node, depth in enumerate(trie.depth) if depth == 0}
    nodes = torch.zeros(len(prompts), width, dtype=torch.long)  # (B, W); what pads is masked
    for row, (prompt, target) in enumerate(zip(prompts, trie.targets, strict=True)):
        nodes[row, width - 1 - len(target.nodes) :] = torch.tensor((roots[prompt[0]], *target.nodes))
    cache = DynamicCache()
    for index, layer in enumerate(read.layers):
        keys, values = (states[0][:, nodes.to(states.device)].transpose(0, 1) for states in (layer.keys, layer.values))
        cache.update(keys, values, index)  # (B, H, W, D)
    return cache


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
