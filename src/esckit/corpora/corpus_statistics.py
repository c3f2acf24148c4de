"""What a corpus holds, counted along the trunk of each conversation: the dialogue as it was recorded."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import to_messages
from esckit.strategy import TAXONOMIES

__all__ = ["STAGES", "corpus_statistics", "stage"]

STAGES: Final = 6


def stage(position: int, length: int) -> int:
    """Return the stage, 0 to 5, of utterance ``position`` (from 1) of ``length``: floor(6k/N), capped at 5."""
    return min(STAGES * position // length, STAGES - 1)


def corpus_statistics(conversations: Iterable[Conversation]) -> dict[str, Any]:
    """Count dialogues, utterances, words, characters, strategies and labels; docs/corpora.md defines every figure.

    Returns:
        Plain JSON values. Words are separated by white space. Shares are of the supporter utterances that carry a
        strategy (0 to 1), and for ``strategy_by_stage`` of those in the stage; means of nothing are None.
        ``messages`` counts chat messages (`conversation.turn_rule`), each reply with its ``[Strategy]``, as
        DecoupledESC's table 2 does.
    """
    tally = _Tally()
    for conversation in conversations:
        tally.add(conversation)
    return tally.figures()


@dataclass
class _Texts:
    """How many texts, words and characters."""

    texts: int = 0
    words: int = 0
    characters: int = 0

    def add(self, text: str) -> None:
        self.texts += 1
        self.words += len(text.split())
        self.characters += len(text)

    def __add__(self, other: "_Texts") -> "_Texts":
        return _Texts(self.texts + other.texts, self.words + other.words, self.characters + other.characters)


@dataclass
class _Tally:
    """The running counts."""

    dialogues: int = 0
    opened_by_supporter: int = 0
    after_another: int = 0
    seeker: _Texts = field(default_factory=_Texts)
    supporter: _Texts = field(default_factory=_Texts)
    user: _Texts = field(default_factory=_Texts)
    assistant: _Texts = field(default_factory=_Texts)
    taxonomies: dict[str, None] = field(default_factory=dict)
    stages: list[Counter[str | None]] = field(default_factory=lambda: [Counter() for _ in range(STAGES)])
    emotions: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, conversation: Conversation) -> None:
        trunk = [turn for turn in conversation.trunk if not turn.planned]
        self.dialogues += 1
        self.opened_by_supporter += trunk[:1] != [] and trunk[0].speaker == "supporter"
        self.after_another += sum(a.speaker == b.speaker == "supporter" for a, b in pairwise(trunk))
        if conversation.taxonomy:
            self.taxonomies[conversation.taxonomy] = None
        for counts, key in ((self.emotions, "emotion_type"), (self.problems, "problem_type")):
            if key in conversation.labels:
                counts[conversation.labels[key]] += 1
        for position, turn in enumerate(trunk, 1):
            (self.seeker if turn.speaker == "seeker" else self.supporter).add(turn.text or "")
            if turn.speaker == "supporter":
                self.stages[stage(position, len(trunk))][turn.strategy] += 1
        self._add_messages(trunk)

    def _add_messages(self, trunk: Sequence[Turn]) -> None:
        for message in to_messages(trunk, {turn.id: turn.strategy for turn in trunk if turn.strategy})[:-1]:
            (self.user if message.role == "user" else self.assistant).add(message.content)

    def figures(self) -> dict[str, Any]:
        both = self.seeker + self.supporter
        labels = [label for name in self.taxonomies for label in TAXONOMIES[name].labels]
        counts = sum(self.stages, Counter[str | None]())
        return {
            "dialogues": self.dialogues,
            "utterances": both.texts,
            "seeker_utterances": self.seeker.texts,
            "supporter_utterances": self.supporter.texts,
            "supporter_utterances_without_strategy": counts[None],
            "supporter_utterances_after_another": self.after_another,
            "dialogues_opened_by_supporter": self.opened_by_supporter,
            "mean_utterances_per_dialogue": _mean(both.texts, self.dialogues),
            "mean_words_per_utterance": _mean(both.words, both.texts),
            "mean_words_per_seeker_utterance": _mean(self.seeker.words, self.seeker.texts),
            "mean_words_per_supporter_utterance": _mean(self.supporter.words, self.supporter.texts),
            "mean_characters_per_utterance": _mean(both.characters, both.texts),
            "mean_characters_per_seeker_utterance": _mean(self.seeker.characters, self.seeker.texts),
            "mean_characters_per_supporter_utterance": _mean(self.supporter.characters, self.supporter.texts),
            "messages": self._message_figures(),
            "strategy_counts": {label: counts[label] for label in labels},
            "strategy_shares": _shares(counts, labels),
            "strategy_by_stage": [_shares(stage_counts, labels) for stage_counts in self.stages],
            "emotion_types": _sorted(self.emotions),
            "problem_types": _sorted(self.problems),
        }

    def _message_figures(self) -> dict[str, int | float | None]:
        both = self.user + self.assistant
        return {
            "messages": both.texts,
            "user_messages": self.user.texts,
            "assistant_messages": self.assistant.texts,
            "mean_messages_per_dialogue": _mean(both.texts, self.dialogues),
            "mean_characters_per_message": _mean(both.characters, both.texts),
            "mean_characters_per_user_message": _mean(self.user.characters, self.user.texts),
            "mean_characters_per_assistant_message": _mean(self.assistant.characters, self.assistant.texts),
        }


def _shares(counts: Counter[str | None], labels: Sequence[str]) -> dict[str, float]:
    total = sum(counts[label] for label in labels)
    return {label: counts[label] / total if total else 0.0 for label in labels}


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None
