"""Retrieved replies, chosen among by a language model: which of them answers what was said.

The nearest stored replies under the wanted strategy are scored by how much likelier each is in its context than without
one: ``log p(reply | context) - log p(reply)`` (the maximum mutual information of Li et al. 2016, equation 2), divided
by the square root of its tokens, so that neither stock phrases nor long replies win (docs/chat.md has the comparison).
All replies of a turn are branches of one context, hence one forward pass.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from esckit.conversation import Conversation, Turn
from esckit.errors import ModelError
from esckit.language_models.backbone import Backbone, check_source, device_of, load_backbone
from esckit.language_models.generation import MAX_TOKENS_PER_ROW, Reply
from esckit.language_models.token_tree import build_tries, collate, target_log_probabilities
from esckit.rendering import Renderer
from esckit.supporters.parts import OnText, Wording
from esckit.supporters.retrieval import ReplyStore, StoredReply

if TYPE_CHECKING:
    from esckit.supporters.supporter import Supporter

__all__ = ["NO_FITTING_REPLY", "RerankedReplies", "ranked_by", "why_not_ranked"]

CANDIDATES: Final = 30
CONTEXT: Final = 1024
"""The most tokens of a path that are read: what was said last decides, and a person waits."""
THRESHOLD: Final = 0.6
"""Of 60 human replies in ESConv's training part, nine of ten gained more (SmolLM2)."""
NO_FITTING_REPLY: Final = (
    "I do not have a reply that fits what you wrote, and I would rather say so than say something beside it. "
    "Can you tell me more about it in other words?"
)


class RerankedReplies:
    """A reply store whose answers a language model chooses.

    Args:
        store: the replies.
        backbone: the language model; no adapter plays.
        renderer: of that model.
        candidates: how many of the nearest replies are scored, at least 1.
        threshold: where the best reply's gain (`gains`) is less, `NO_FITTING_REPLY` is said instead.
    """

    def __init__(
        self,
        store: ReplyStore,
        backbone: Backbone,
        renderer: Renderer,
        *,
        candidates: int = CANDIDATES,
        threshold: float = THRESHOLD,
    ) -> None:
        self.store = store
        self.backbone = backbone
        self.renderer = renderer
        self.candidates = candidates
        self.threshold = threshold
        self._alone: dict[tuple[str, str], float] = {}

    @cached_property
    def identity(self) -> str:
        """The store's, the model's, and how they are used."""
        return json.dumps([self.store.identity, self.backbone.weights_hash, self.candidates, self.threshold])

    @property
    def strategies(self) -> frozenset[str]:
        """The strategies under which there are replies."""
        return self.store.strategies

    @property
    def about(self) -> str:
        """What a person who talks to it must know."""
        return f"{self.store.about} A small language model chooses among them, and often chooses badly."

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> list[Reply | None]:
        """See `Generator.write`: of the nearest stored replies that have not been said, the one that fits best."""
        return self.store.choose(wanted, self.candidates, self._best, on_text)

    def _best(self, wanted: Wording, replies: list[StoredReply]) -> str:
        gains = self.gains(wanted, [reply.text for reply in replies])
        place = int(gains.argmax())
        return replies[place].text if float(gains[place]) >= self.threshold else NO_FITTING_REPLY

    def gains(self, wanted: Wording, texts: Sequence[str]) -> Tensor:
        """(R,) how much likelier each text is after its context than after none, in nats by the root of its tokens."""
        with self.backbone.lock:
            after, lengths = self._log_probabilities(wanted.conversation, wanted.parent, wanted.strategy, texts)
            new = [text for text in dict.fromkeys(texts) if (wanted.strategy, text) not in self._alone]
            if new:
                alone, _ = self._log_probabilities(Conversation("none", []), None, wanted.strategy, new)
                self._alone |= {(wanted.strategy, text): float(p) for text, p in zip(new, alone, strict=True)}
        before = torch.tensor([self._alone[wanted.strategy, text] for text in texts], dtype=after.dtype)
        return (after - before) / lengths.sqrt()

    @torch.no_grad()
    def _log_probabilities(
        self, conversation: Conversation, parent: str | None, strategy: str, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """(R,) log-probability of each text and its end after a context, and (R,) how many tokens that is."""
        turns = [Turn(f"next-{place}", parent, "supporter", text, strategy) for place, text in enumerate(texts)]
        examples = [self.renderer.example(conversation, turn, "generator", {}) for turn in turns]
        model, device = self.backbone.model, device_of(self.backbone.model)
        tries = build_tries(examples, MAX_TOKENS_PER_ROW)
        found = [target_log_probabilities(model, collate([trie]).to(device)).cpu() for trie in tries]
        return torch.cat(found).double(), torch.tensor([len(example.scored) for example in examples])


def ranked_by(supporter: "Supporter", source: str) -> "Supporter":
    """A supporter with a reply store, its replies chosen by a language model: a folder, a Hub id, ``smollm2``.

    Raises:
        ModelError: it has no reply store, or the model cannot be loaded.
    """
    from esckit.supporters.supporter import Supporter

    if not isinstance(supporter.generator, ReplyStore):
        raise ModelError("this supporter has no store of replies that a language model could choose among.")
    backbone = load_backbone(source)
    renderer = Renderer(backbone.tokenizer, supporter.taxonomy, max_context=min(backbone.max_context, CONTEXT))
    card = replace(supporter.card, ranker=backbone.source, ranker_hash=backbone.weights_hash)
    return Supporter(card, supporter.planner, RerankedReplies(supporter.generator, backbone, renderer))


def why_not_ranked(source: str) -> str | None:
    """Why a language model cannot be had for that, in a sentence; None where it can."""
    try:
        check_source(source)
    except ModelError as error:
        return str(error)
    return None
