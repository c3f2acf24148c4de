"""A reward by digits: the expected value of each score under the probabilities that a model gives the digits.

One forward pass for all qualities and replies that are asked at once: what their prompts share is read once. Nothing is
written and nothing is drawn, so an answer is the same each time, but for the last bits of floats.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import torch

from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest, Usage
from esckit.conversation.turn_rule import Message
from esckit.language_models.backbone import device_of
from esckit.language_models.token_tree import build_tries, collate, target_log_probabilities
from esckit.mining.tree_search.asked_roles import QUALITIES
from esckit.prompts.own import Prompts
from esckit.rendering import ChatTemplate, Example

__all__ = ["DigitsModel"]

_VERSION: Final = 1  # of how digits become scores
_DIGITS: Final = ("0", "1", "2", "3", "4")
_NODES: Final = 4096  # tokens of a trie: attention's cost grows with its square


class DigitsModel:
    """A causal language model as a chat model that answers nothing but scores, as `asked_roles.DigitScores`.

    A score is the sum of each digit's value times its probability, over the digits 0 to 4 alone.

    Args:
        model: on this machine.
        prompts: whose ``reward_digit`` stands behind each request, once for each quality.
    """

    concurrency = 1

    def __init__(self, model: LocalChatModel, prompts: Prompts) -> None:
        self.batch_size = model.batch_size
        self._model = model
        self._template = ChatTemplate(model.backbone.tokenizer)
        self._asked = [prompts.fill("reward_digit", quality=quality) for quality in QUALITIES]

    @property
    def identity(self) -> Any:
        """The model's, what it is asked, and how digits become scores."""
        return {"model": self._model.unguided, "digits": _VERSION, "asked": self._asked}

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """See `ChatModel.answer`; a reply is JSON text, each quality's score with three decimals."""
        longest = self._model.backbone.max_context
        examples: dict[int, list[Example]] = {}
        for place, request in enumerate(requests):
            found = [example for asked in self._asked for example in self._examples(request, asked)]
            if (over := max(len(each.context) + len(each.scored) for each in found) - longest) > 0:
                yield place, CallFailure("too_long", f"{over} tokens longer than the model's context", "give_up")
            else:
                examples[place] = found
        if not examples:
            return
        for (place, own), scores in zip(examples.items(), self._scores([*examples.values()]), strict=True):
            text = json.dumps(dict(zip(QUALITIES, scores, strict=True)))
            yield place, ChatReply(text, "stop", Usage(len(own[0].context), 0))

    def _examples(self, request: ChatRequest, asked: str) -> list[Example]:
        """Each digit as the answer to one quality's question."""
        *before, last = request.messages
        messages = [*before, Message(last.role, f"{last.content}\n\n{asked}")]
        prompt = self._template.prompt(messages) + self._template.lead + self._template.blank
        encoder = self._template.encoder
        context = encoder.encode(prompt)
        return [Example("", context, (), encoder.continued(prompt, [digit])[0]) for digit in _DIGITS]

    @torch.no_grad()
    def _scores(self, requests: Sequence[Sequence[Example]]) -> list[list[float]]:
        """Scores (N, Q) of N requests' examples, in 0..4."""
        examples = [example for own in requests for example in own]
        with self._model.backbone.playing(self._model.adapter) as model:
            device = device_of(model)
            tries = build_tries(examples, _NODES)
            each = torch.cat([target_log_probabilities(model, collate([trie]).to(device)).cpu() for trie in tries])
        probabilities = each.double().view(len(requests), len(QUALITIES), len(_DIGITS)).softmax(-1)  # (N, Q, digits)
        scores = probabilities @ torch.arange(len(_DIGITS), dtype=torch.float64)
        return [[round(score, 3) for score in own] for own in scores.tolist()]

    async def close(self) -> None:
        """Nothing belongs to the event loop."""
