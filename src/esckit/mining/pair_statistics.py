"""What a file of mined pairs holds: how many, of which kind and reason, under which strategies, how long.

DecoupledESC, table 2 (pairs, mean characters), figure 9 (strategies of chosen and rejected), figure 10 (reasons).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from esckit.conversation import Conversation
from esckit.mining.pairs import Pair, kind_of

__all__ = ["pair_statistics"]


def pair_statistics(conversations: Iterable[Conversation]) -> dict[str, Any]:
    """Describe all preferences of some trees, JSON-ready.

    Returns:
        ``pairs``; ``aspects``, ``kinds`` (of pairs with texts, `kind_of`) and ``reasons`` with their counts, the most
        frequent first; ``strategies``: for each label that occurs its counts among chosen and rejected sides;
        ``mean_characters`` of the chosen and rejected replies as they are written, null where no pair has texts.
    """
    pairs = [Pair(tree, preference) for tree in conversations for preference in tree.preferences]
    worded = [pair for pair in pairs if pair.preference.aspect != "strategy"]
    chosen = Counter(pair.chosen.strategy or "none" for pair in pairs)
    rejected = Counter(pair.rejected.strategy or "none" for pair in pairs)
    labels = sorted(chosen | rejected, key=lambda label: (-chosen[label], label))
    return {
        "pairs": len(pairs),
        "aspects": _counted(pair.preference.aspect for pair in pairs),
        "kinds": _counted(kind_of(pair) for pair in worded),
        "reasons": _counted(pair.preference.reason for pair in pairs if pair.preference.reason),
        "strategies": {label: {"chosen": chosen[label], "rejected": rejected[label]} for label in labels},
        "mean_characters": {
            "chosen": _mean([pair.chosen.text for pair in worded]),
            "rejected": _mean([pair.rejected.text for pair in worded]),
        },
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _mean(texts: Sequence[str | None]) -> float | None:
    return fmean(len(text or "") for text in texts) if texts else None
