"""The control without a model: strategies and replies drawn at random, the replies from other dialogues."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from esckit.conversation import Conversation
from esckit.rendering import supporter_turns
from esckit.strategy import Taxonomy
from esckit.supporters.parts import OnText
from esckit.supporters.proposing import Candidate, TurnRequest


class AtRandom:
    """Proposes labels that are drawn evenly, each once, and gold replies of other dialogues under them."""

    about = "Replies of other dialogues, drawn at random."
    past_strategies: Literal["hidden"] = "hidden"
    past_in_chat: Literal["hidden"] = "hidden"
    strategies = None
    roles: ClassVar[dict[str, str]] = {}

    def __init__(self, conversations: Iterable[Conversation], taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._replies: dict[str, list[tuple[str, str]]] = {}  # by strategy: conversation id and text
        for conversation in conversations:
            for turn in supporter_turns(conversation):
                self._replies.setdefault(str(turn.strategy), []).append((conversation.id, turn.text or ""))

    @property
    def identity(self) -> list[Any]:
        """The labels, and every reply."""
        return ["random", self.taxonomy.name, self._replies]

    def propose(self, requests: Sequence[TurnRequest], on_text: OnText | None = None) -> list[list[Candidate]]:
        """See `Answers.propose`; a strategy without replies gets an empty text, unless it must be unlike others."""
        return [self._propose(request) for request in requests]

    def _propose(self, request: TurnRequest) -> list[Candidate]:
        random = np.random.default_rng(request.seed)
        if request.strategy is not None:
            planned = [Candidate(request.strategy)] * request.n
        else:
            others = [label for label in self.taxonomy.labels if label not in request.excluded]
            even = dict.fromkeys(others, 1 / len(others))
            drawn = random.choice(others, min(request.n, len(others)), replace=False)
            planned = [Candidate(str(label), strategy_probabilities=even) for label in drawn]
        if request.wording is None:
            return planned
        worded = [self._worded(each, request, random) for each in planned]
        return [each for each in worded if each.text or request.unlike is None]

    def _worded(self, planned: Candidate, request: TurnRequest, random: np.random.Generator) -> Candidate:
        said = self._replies.get(str(planned.strategy), ())
        unlike = request.unlike or ()
        texts = [text for owner, text in said if owner != request.conversation.id and text not in unlike]
        text = texts[random.integers(len(texts))] if texts else ""
        return Candidate(planned.strategy, text, planned.strategy_probabilities, "stop")
