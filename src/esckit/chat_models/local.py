"""A causal language model on this machine as a chat model."""

from collections.abc import AsyncIterator, Sequence
from functools import cache, cached_property
from hashlib import sha256
from typing import Any, Final

from esckit.chat_models.json_replies import strict_schema
from esckit.chat_models.protocol import OF_JSON, CallFailure, ChatReply, ChatRequest, Usage
from esckit.conversation.thoughts import opened_thought, split_thought
from esckit.decoding import Decoding
from esckit.language_models.backbone import Backbone
from esckit.language_models.generation import generate_ids, read_reply
from esckit.language_models.guided import VERSION, Guide, JsonGuides, UnguidedError
from esckit.progress import tell
from esckit.rendering import ChatTemplate

_TAIL: Final = 24  # tokens at a prompt's end in which a template may open a thought


def request_seed(request: ChatRequest) -> int:
    """The seed that a request's reply is drawn with: by what it asks and its ``sample``, in 0..2^32-1."""
    return int(request.key("", "")[:8], 16)


_tell_once: Final = cache(tell)


class LocalChatModel:
    """Any backbone, asked by its tokenizer's chat template in padded batches.

    A reply is drawn by its request's own seed, so it does not depend on the batch (but for the last bits of floats).
    The reply to a request with a schema is one JSON object that fits it (`guided`); ask for it in the prompt too
    (`json_replies.schema_text`). A thought that the chat template has opened is free, and the object begins behind it.
    Where llguidance cannot read the tokenizer, the prompt alone asks, and a line on standard error says so.

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
        """`unguided`, and how replies are guided where there is a schema, which keys of other requests leave out."""
        return self.unguided | ({} if isinstance(self._guides, UnguidedError) else {OF_JSON: f"guided/{VERSION}"})

    @property
    def unguided(self) -> dict[str, Any]:
        """Hashes of the weights and of the chat template, and the precision that it reads in."""
        template = sha256(self.backbone.tokenizer.get_chat_template().encode()).hexdigest()
        return {
            "weights": self.backbone.weights_hash,
            "dtype": str(self.backbone.model.dtype),
            "template": template,
        } | ({"adapter": self.adapter} if self.adapter else {})

    @cached_property
    def _guides(self) -> JsonGuides | UnguidedError:
        """Guides of replies, or why there are none."""
        try:
            return JsonGuides(self.backbone.tokenizer, self._template.end_of_turn)
        except UnguidedError as error:
            return error

    def _guide(self, request: ChatRequest, prompt: Sequence[int]) -> Guide | None:
        if request.schema is None:
            return None
        if isinstance(self._guides, UnguidedError):
            _tell_once(f"{self.backbone.source}: JSON is asked for by the prompt alone: {self._guides}.")
            return None
        return self._guides.guide(strict_schema(request.schema), request.decoding.max_new_tokens, self._opened(prompt))

    def _opened(self, prompt: Sequence[int]) -> str:
        """The mark of the thought that a prompt ends with, if it does."""
        return opened_thought(self.backbone.tokenizer.decode(prompt[-_TAIL:]))

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
            asked = [prompts[place] for place in places]
            seeds = [request_seed(requests[place]) for place in places]
            guides = [self._guide(requests[place], prompts[place]) for place in places]
            with self.backbone.playing(self.adapter) as model:
                written = generate_ids(model, asked, self._template.end_of_turn, decoding, seeds, guides=guides)
            for place, ids in zip(places, written, strict=True):
                reply = read_reply(self.backbone.tokenizer, ids, self._template.end_of_turn)
                text = self._marked(reply.text, prompts[place], ids)
                yield place, ChatReply(text, reply.finish, Usage(len(prompts[place]), len(ids)))

    def _marked(self, text: str, prompt: Sequence[int], ids: list[int]) -> str:
        """A reply's text with all marks of its thought: one that the template wrote, and control tokens."""
        tokenizer = self.backbone.tokenizer
        ended = ids[-1:] == [self._template.end_of_turn]
        thought, said = split_thought(self._opened(prompt) + tokenizer.decode(ids[:-1] if ended else ids))
        if not thought:
            return text
        for token in tokenizer.all_special_tokens:
            said = said and said.replace(token, "")
        return thought + (said or "")

    async def close(self) -> None:
        """Nothing belongs to the event loop."""
