"""A supporter of which everything is known."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.language_models.generation import Reply
from esckit.strategy import ESCONV
from esckit.supporters import Supporter
from esckit.supporters.parts import OnText, Wording
from esckit.supporters.supporter_folder import SupporterCard

SHARES: Final = (0.05, 0.3, 0.02, 0.4, 0.1, 0.06, 0.04, 0.03)
RANKED: Final = [ESCONV.labels[place] for place in np.argsort(-np.array(SHARES))]


class Known:
    """A planner of known probabilities and a generator that says which seed it got."""

    identity = about = "known"

    def __init__(self, strategies: frozenset[str] | None = None) -> None:
        self.strategies = strategies
        self.scored: list[tuple[str, list[str | None], dict[str, str]]] = []

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]) -> NDArray[np.float64]:
        self.scored.append((conversation.id, [turn.parent for turn in turns], dict(shown)))
        scores: NDArray[np.float64] = np.log(np.tile(np.array(SHARES), (len(turns), 1)))
        return scores

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> list[Reply | None]:
        found = [Reply(f"{each.strategy} {each.seed}", "length") for each in wanted]
        if on_text and len(found) == 1:
            on_text(found[0].text)
        return list(found)


def known(strategies: frozenset[str] | None = None) -> tuple[Known, Supporter]:
    parts = Known(strategies)
    return parts, Supporter(SupporterCard("decoupled", "hidden"), parts, parts)
