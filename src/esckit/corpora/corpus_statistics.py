"""What a corpus holds, counted along each trunk (the dialogue as it was recorded); strategies by sixth as a picture."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from esckit.conversation import Conversation
from esckit.conversation.sixths import SIXTHS, sixth_of
from esckit.conversation.turn_rule import dialogue_messages
from esckit.errors import EsckitError
from esckit.files import atomic
from esckit.strategy import TAXONOMIES

# Eight colours that people with colour-blindness tell apart (Okabe and Ito), and which of them are dark.
_COLOURS: Final = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#BBBBBB")
_DARK: Final = ("#0072B2", "#D55E00")
_SMALLEST_FIGURE: Final = 0.06
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stages",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def corpus_statistics(conversations: Iterable[Conversation]) -> dict[str, Any]:
    """Count dialogues, utterances, words, characters, strategies and labels; docs/corpora.md defines every figure.

    Returns:
        Plain JSON values. Words are separated by white space. Shares are of the supporter utterances that carry a
        strategy (0 to 1), and for ``strategy_by_stage`` of those in each sixth (`sixth_of`); means of nothing are None.
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

    @property
    def mean_words(self) -> float | None:
        return _mean(self.words, self.texts)

    @property
    def mean_characters(self) -> float | None:
        return _mean(self.characters, self.texts)

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
    sixths: list[Counter[str | None]] = field(default_factory=lambda: [Counter() for _ in range(SIXTHS)])
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, conversation: Conversation) -> None:
        trunk = [turn for turn in conversation.trunk if not turn.planned]
        self.dialogues += 1
        self.opened_by_supporter += trunk[:1] != [] and trunk[0].speaker == "supporter"
        self.after_another += sum(a.speaker == b.speaker == "supporter" for a, b in pairwise(trunk))
        if conversation.taxonomy:
            self.taxonomies[conversation.taxonomy] = None
        self.labels.update(conversation.labels.items())
        for position, turn in enumerate(trunk, 1):
            (self.seeker if turn.speaker == "seeker" else self.supporter).add(turn.text or "")
            if turn.speaker == "supporter":
                self.sixths[sixth_of(position, len(trunk))][turn.strategy] += 1
        for message in dialogue_messages(conversation):
            (self.user if message.role == "user" else self.assistant).add(message.content)

    def figures(self) -> dict[str, Any]:
        both, messages = self.seeker + self.supporter, self.user + self.assistant
        labels = [label for name in self.taxonomies for label in TAXONOMIES[name].labels]
        counts = sum(self.sixths, Counter[str | None]())
        return {
            "dialogues": self.dialogues,
            "utterances": both.texts,
            "seeker_utterances": self.seeker.texts,
            "supporter_utterances": self.supporter.texts,
            "supporter_utterances_without_strategy": counts[None],
            "supporter_utterances_after_another": self.after_another,
            "dialogues_opened_by_supporter": self.opened_by_supporter,
            "mean_utterances_per_dialogue": _mean(both.texts, self.dialogues),
            "mean_characters_per_dialogue": _mean(both.characters, self.dialogues),
            "mean_words_per_utterance": both.mean_words,
            "mean_words_per_seeker_utterance": self.seeker.mean_words,
            "mean_words_per_supporter_utterance": self.supporter.mean_words,
            "mean_characters_per_utterance": both.mean_characters,
            "mean_characters_per_seeker_utterance": self.seeker.mean_characters,
            "mean_characters_per_supporter_utterance": self.supporter.mean_characters,
            "messages": {
                "messages": messages.texts,
                "user_messages": self.user.texts,
                "assistant_messages": self.assistant.texts,
                "mean_messages_per_dialogue": _mean(messages.texts, self.dialogues),
                "mean_characters_per_message": messages.mean_characters,
                "mean_characters_per_user_message": self.user.mean_characters,
                "mean_characters_per_assistant_message": self.assistant.mean_characters,
            },
            "strategy_counts": {label: counts[label] for label in labels},
            "strategy_shares": _shares(counts, labels),
            "strategy_by_stage": [_shares(sixth, labels) for sixth in self.sixths],
            "emotion_types": self._labels("emotion_type"),
            "problem_types": self._labels("problem_type"),
            "topics": self._labels("topic"),
            "roles": self._labels("role"),
        }

    def _labels(self, kind: str) -> dict[str, int]:
        counts = ((value, count) for (label, value), count in self.labels.items() if label == kind)
        return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def _shares(counts: Counter[str | None], labels: Sequence[str]) -> dict[str, float]:
    total = sum(counts[label] for label in labels)
    return {label: counts[label] / total if total else 0.0 for label in labels}


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None


def draw_sixths(statistics: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the shares of strategies in each sixth, a panel a corpus; the same figures give the same file.

    ``statistics`` are `corpus_statistics` by the corpus's name; the path ends in ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        EsckitError: no corpus has strategies, or the picture cannot be written.
    """
    labelled = {name: figures for name, figures in statistics.items() if any(figures["strategy_counts"].values())}
    if not labelled:
        raise EsckitError("there is no strategy to draw: give a corpus that is labelled with strategies.")
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise EsckitError(f"{path} has an ending that no picture has: write .svg, .png or .pdf.")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.5, 4.2 * len(labelled)), layout="constrained")
        panels = figure.subplots(len(labelled), squeeze=False)[:, 0]
        for panel, (name, figures) in zip(panels, labelled.items(), strict=True):
            _draw_panel(panel, name, figures["strategy_by_stage"])
        dates = {".svg": "Date", ".pdf": "CreationDate"}
        metadata = {dates[path.suffix]: None} if path.suffix in dates else None
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata=metadata, format=path.suffix[1:])


def _draw_panel(axes: Any, name: str, sixths: list[dict[str, float]]) -> None:
    floors = [0.0] * SIXTHS
    for number, strategy in enumerate(sixths[0]):
        shares = [shares[strategy] for shares in sixths]
        colour = _COLOURS[number % len(_COLOURS)]
        ink = "white" if colour in _DARK else "black"
        axes.bar(range(SIXTHS), shares, 0.82, bottom=floors, color=colour, label=strategy)
        for place, (floor, share) in enumerate(zip(floors, shares, strict=True)):
            if share >= _SMALLEST_FIGURE:
                axes.text(place, floor + share / 2, f"{share:.0%}", ha="center", va="center", fontsize=8, color=ink)
        floors = [floor + share for floor, share in zip(floors, shares, strict=True)]
    axes.set_title(f"{name}: strategy by stage", loc="left")
    axes.set_xticks(range(SIXTHS), [f"{place + 1}/{SIXTHS}" for place in range(SIXTHS)])
    axes.set_xlabel("sixth of the dialogue")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
