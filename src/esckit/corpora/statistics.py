"""What a corpus holds, counted along the trunk of each conversation: the dialogue as it was recorded."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, Final

from esckit.conversation import Conversation, Turn
from esckit.strategy import TAXONOMIES

__all__ = ["STAGES", "corpus_statistics", "stage"]

STAGES: Final = 6


def stage(position: int, length: int) -> int:
    """Return the stage, 0 to 5, of utterance ``position`` (from 1) of ``length``: floor(6k/N), capped at 5."""
    return min(STAGES * position // length, STAGES - 1)


def corpus_statistics(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Count dialogues, utterances, words, strategies and labels.

    Returns:
        Plain JSON values. Words are separated by white space. Shares are of the supporter utterances that carry a
        strategy (0 to 1), and for ``strategy_by_stage`` of those in the stage; means of nothing are None.
    """
    trunks = [[turn for turn in conversation.trunk if not turn.planned] for conversation in conversations]
    turns = [turn for trunk in trunks for turn in trunk]
    seeker = [turn for turn in turns if turn.speaker == "seeker"]
    supporter = [turn for turn in turns if turn.speaker == "supporter"]
    labels = _labels(conversations)
    counts = Counter(turn.strategy for turn in supporter)
    return {
        "dialogues": len(conversations),
        "utterances": len(turns),
        "seeker_utterances": len(seeker),
        "supporter_utterances": len(supporter),
        "supporter_utterances_without_strategy": counts[None],
        "supporter_utterances_after_another": sum(map(_after_another, trunks)),
        "dialogues_opened_by_supporter": sum(trunk[:1] != [] and trunk[0].speaker == "supporter" for trunk in trunks),
        "mean_utterances_per_dialogue": _mean(map(len, trunks)),
        "mean_words_per_utterance": _mean(map(_words, turns)),
        "mean_words_per_seeker_utterance": _mean(map(_words, seeker)),
        "mean_words_per_supporter_utterance": _mean(map(_words, supporter)),
        "strategy_counts": {label: counts[label] for label in labels},
        "strategy_shares": _shares(counts, labels),
        "strategy_by_stage": [_shares(stage_counts, labels) for stage_counts in _by_stage(trunks)],
        "emotion_types": _label_counts(conversations, "emotion_type"),
        "problem_types": _label_counts(conversations, "problem_type"),
    }


def _labels(conversations: Sequence[Conversation]) -> list[str]:
    """The labels of the taxonomies in use, in taxonomy order."""
    names = dict.fromkeys(conversation.taxonomy for conversation in conversations if conversation.taxonomy)
    return list(dict.fromkeys(label for name in names for label in TAXONOMIES[name].labels))


def _after_another(trunk: Sequence[Turn]) -> int:
    return sum(a.speaker == b.speaker == "supporter" for a, b in pairwise(trunk))


def _by_stage(trunks: Iterable[Sequence[Turn]]) -> list[Counter[str | None]]:
    counts: list[Counter[str | None]] = [Counter() for _ in range(STAGES)]
    for trunk in trunks:
        for position, turn in enumerate(trunk, 1):
            if turn.speaker == "supporter":
                counts[stage(position, len(trunk))][turn.strategy] += 1
    return counts


def _shares(counts: Counter[str | None], labels: Sequence[str]) -> dict[str, float]:
    total = sum(counts[label] for label in labels)
    return {label: counts[label] / total if total else 0.0 for label in labels}


def _label_counts(conversations: Iterable[Conversation], key: str) -> dict[str, int]:
    counts = Counter(conversation.labels[key] for conversation in conversations if key in conversation.labels)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _words(turn: Turn) -> int:
    return len((turn.text or "").split())


def _mean(values: Iterable[int]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None
