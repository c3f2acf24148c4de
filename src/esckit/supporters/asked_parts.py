"""A generator that asks a chat model behind the protocol, in chat messages as the model was trained."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger, Outcome
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.conversation.turn_rule import Message, to_messages
from esckit.decoding import seed_of
from esckit.errors import ModelError
from esckit.rendering.layouts import OwnLayout, as_written
from esckit.strategy import Taxonomy
from esckit.supporters.baselines import spoken
from esckit.supporters.parts import AskedReply, OnText, Wording

__all__ = ["AskedGenerator"]

_VERSION: Final = 1  # of how answers are read
_TRIES: Final = 4  # samples drawn for a text that was not there before


class AskedGenerator:
    """Asks for each reply through a ledger. Without a planner, the strategy is the one that the answer names.

    Args:
        model: who is asked.
        ledger: open; nothing is asked twice.
        layout: the system text, and how a strategy is written.
        taxonomy: of the strategies.
        pace: patience and budgets.
    """

    about = "A chat model writes each reply: it is sent what you write, and may say what is untrue."

    def __init__(self, model: ChatModel, ledger: Ledger, layout: OwnLayout, taxonomy: Taxonomy, pace: Pace) -> None:
        self.layout = layout
        self.taxonomy = taxonomy
        self._model, self._ledger, self._pace = model, ledger, pace

    @property
    def identity(self) -> str:
        """The model's, and the layout."""
        return json.dumps([self._model.identity, asdict(self.layout), _VERSION], sort_keys=True)

    @property
    def strategies(self) -> frozenset[str] | None:
        """All where the system text names one; else none can be given."""
        return None if self.layout.names_strategy else frozenset()

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> list[AskedReply | None]:
        """See `Generator.write`. An answer that did not come is a reply without a text, which says why.

        Raises:
            ModelError: somebody waits for the one reply (``on_text``), and it did not come.
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`.
        """
        written: list[AskedReply | None] = [None] * len(wanted)
        left = list(range(len(wanted)))
        for attempt in range(_TRIES):
            replies = self._ask([wanted[place] for place in left], attempt)
            for place, reply in zip(left, replies, strict=True):
                unlike = wanted[place].unlike
                if unlike is None or (reply.text and reply.text not in unlike):
                    written[place] = reply
                elif on_text and reply.text is None:
                    raise ModelError(f"the model gave no reply ({reply.extra['why']}): say it in other words.")
            left = [place for place in left if written[place] is None]
            if not left:
                break
        if on_text and len(wanted) == 1 and written[0] and written[0].text:
            on_text(written[0].text)
        return written

    def _ask(self, wanted: Sequence[Wording], attempt: int) -> list[AskedReply]:
        asker = Asker(self._model, self._ledger, f"reply/{_VERSION}", self._pace)
        outcomes = dict(asker.stream([self._request(each, attempt) for each in wanted]))
        return [self._read(outcomes[place]) for place in range(len(wanted))]

    def _request(self, wanted: Wording, attempt: int) -> ChatRequest:
        path = wanted.conversation.path(wanted.parent)
        system = Message("system", self.layout.system_text(self.taxonomy, wanted.strategy or ""))
        history = to_messages(*as_written(self.layout, path, wanted.shown), wanted.conversation.language)
        sample = seed_of(wanted.seed, attempt) if attempt else wanted.seed
        return ChatRequest(tuple([system, *history] if system.content else history), wanted.decoding, sample=sample)

    def _read(self, outcome: Outcome) -> AskedReply:
        extra: dict[str, Any] = {"state": outcome.state, "raw": outcome.text}
        if outcome.state != "done":
            why = ": ".join(filter(None, (outcome.failure or outcome.state, outcome.detail)))
            return AskedReply(None, None, extra={**extra, "why": why})
        strategy, text = self.layout.read(spoken(outcome.text), self.taxonomy)
        return AskedReply(text, outcome.finish if outcome.finish in ("stop", "length") else None, strategy, extra)
