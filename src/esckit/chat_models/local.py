"""A causal language model on this machine as a chat model."""

from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any, Final

from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest, Usage
from esckit.conversation.thoughts import opened_thought, split_thought
from esckit.decoding import Decoding
from esckit.language_models.backbone import Backbone
from esckit.language_models.generation import generate_ids, read_reply
from esckit.rendering import ChatTemplate

_TAIL: Final = 24  # tokens at a prompt's end in which a template may open a thought


def request_seed(request: ChatRequest) -> int:
    """The seed that a request's reply is drawn with: by what it asks and its ``sample``, in 0..2^32-1."""
    return int(request.key("", "")[:8], 16)


class LocalChatModel:
    """Any backbone, asked by its tokenizer's chat template in padded batches.

    A reply is drawn by its request's own seed, so it does not depend on the batch (but for the last bits of floats).
    A schema is not enforced here: say it in the prompt (`json_replies.schema_text`).

    Raises:
        TemplateError: the tokenizer's chat template cannot be used.
    """

    concurrency = 1

    def __init__(self, backbone: Backbone, batch_size: int = 8, adapter: str | None = None) -> None:
        self.backbone = backbone
        self.batch_size = batch_size
        self.adapter = adapter
        self._template = ChatTemplate(backbone.tokenizer)

    @property
    def identity(self) -> Any:
        """Hashes of the weights and of the chat template, and the precision that it reads in."""
        template = sha256(self.backbone.tokenizer.get_chat_template().encode()).hexdigest()
        return {
            "weights": self.backbone.weights_hash,
            "dtype": str(self.backbone.model.dtype),
            "template": template,
        } | ({"adapter": self.adapter} if self.adapter else {})

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """See `ChatModel.answer`; replies come out batch by batch, the event loop waits."""
        prompts = [self._template.prompt_ids(request.messages) for request in requests]
        groups: dict[Decoding, list[int]] = {}
        for place, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            if (over := len(prompt) + request.decoding.max_new_tokens - self.backbone.max_context) > 0:
                yield place, CallFailure("too_long", f"{over} tokens longer than the model's context", "give_up")
            else:
                groups.setdefault(request.decoding, []).append(place)
        for decoding, places in groups.items():
            seeds = [request_seed(requests[place]) for place in places]
            with self.backbone.playing(self.adapter) as model:
                written = generate_ids(
                    model, [prompts[place] for place in places], self._template.end_of_turn, decoding, seeds
                )
            for place, ids in zip(places, written, strict=True):
                reply = read_reply(self.backbone.tokenizer, ids, self._template.end_of_turn)
                text = self._marked(reply.text, prompts[place], ids)
                yield place, ChatReply(text, reply.finish, Usage(len(prompts[place]), len(ids)))

    def _marked(self, text: str, prompt: Sequence[int], ids: list[int]) -> str:
        """A reply's text with all marks of its thought: one that the template wrote, and control tokens."""
        tokenizer = self.backbone.tokenizer
        opened = opened_thought(tokenizer.decode(prompt[-_TAIL:]))
        ended = ids[-1:] == [self._template.end_of_turn]
        thought, said = split_thought(opened + tokenizer.decode(ids[:-1] if ended else ids))
        if not thought:
            return text
        for token in tokenizer.all_special_tokens:
            said = said and said.replace(token, "")
        return thought + (said or "")

    async def close(self) -> None:
        """Nothing belongs to the event loop."""
