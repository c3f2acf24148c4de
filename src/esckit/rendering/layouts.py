"""The layouts: what each part is told, how it sees the history, and where a strategy stands. Text only, no tokens.

``shared-prefix``, ours: one system text and one history for all parts, a reply is ``[Strategy] text``. The planner's
target is ``[Strategy]``, the generator's is `` text`` with its leading space, the coupled model's is both.

``paper``, after DecoupledESC (section 5.1 and its code): a system text a part. The planner sees the history as
speaker-marked lines in one user message and says the bare name of a strategy; the generator sees chat messages, its
system text names the strategy, and it says the text; the coupled model is as in ``shared-prefix``. The texts are ours.

An `OwnLayout` is a user's, for a model that was trained elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from esckit.conversation import Turn
from esckit.conversation.turn_rule import Message
from esckit.errors import TemplateError
from esckit.prompts import load_prompt
from esckit.strategy import Taxonomy

Layout = Literal["shared-prefix", "paper"]
Part = Literal["planner", "generator", "coupled"]

_SLOT: Final = re.compile(r"\{+(\w+)\}+")  # with one brace or two, as prompts have them
_SPEAKERS: Final = {"en": ("seeker: ", "supporter: "), "zh": ("求助者：", "支持者：")}  # English in any other language
_MARKS: Final = r" \t>*_#"  # blanks, and what makes text bold or a heading


class Written(NamedTuple):
    """A supporter message, taken apart; ``strategy`` is None where none of the taxonomy's is named."""

    strategy: str | None
    text: str


@dataclass(frozen=True)
class OwnLayout:
    """How a model that was trained elsewhere is told what to do, and writes a reply; the history is chat messages.

    Slots stand in braces, one or two; other braces are letters.

    Attributes:
        system: the system text; ``{strategies}`` is all labels, ``{strategy}`` that of the reply. Empty: none.
        reply: how a reply is written with its strategy, such as ``[{strategy}] {text}``. Empty: strategies are never
            written. Where the system text names the strategy, the reply is its text alone, and this is the history's.

    Raises:
        TemplateError: a slot is unknown, or stands where it cannot be used.
    """

    system: str
    reply: str = "[{strategy}] {text}"

    def __post_init__(self) -> None:
        for what, text, known in (
            ("system text", self.system, {"strategies", "strategy"}),
            ("form of a strategy", self.reply, {"strategy", "text"}),
        ):
            if unknown := sorted(set(_SLOT.findall(text)) - known):
                slots = " and ".join(f"{{{slot}}}" for slot in sorted(known))
                raise TemplateError(f"the {what} has the slot {{{unknown[0]}}}, which nothing fills: it has {slots}.")
        if self.reply and _SLOT.findall(self.reply) != ["strategy", "text"]:
            raise TemplateError(
                f"the form of a strategy {self.reply!r} must have {{strategy}} and then {{text}}, each once: "
                "write it such as '[{strategy}] {text}', or none where the model writes no strategies."
            )

    @property
    def names_strategy(self) -> bool:
        """Whether the system text names the reply's strategy."""
        return "strategy" in _SLOT.findall(self.system)

    def system_text(self, taxonomy: Taxonomy, strategy: str) -> str:
        """The system text before a reply under a strategy."""
        return _filled(self.system, {"strategies": ", ".join(taxonomy.labels), "strategy": strategy})

    @property
    def _pieces(self) -> tuple[str, str, str]:
        """What stands before a strategy, between it and the text, and behind the text."""
        if not self.reply:
            return "", "", ""
        before, between, after = _SLOT.split(self.reply.strip())[::2]
        return before, between, after

    def before_text(self, strategy: str) -> str:
        """What stands before a reply's text, its strategy included."""
        before, between, _ = self._pieces
        return f"{before}{strategy}{between}" if self.reply else ""

    def write(self, strategy: str, text: str) -> str:
        """A message of the history whose strategy is shown."""
        return f"{self.before_text(strategy)}{text.strip()}{self._pieces[2]}"

    def read(self, message: str, taxonomy: Taxonomy) -> Written:
        """Take a message apart at the first line that begins as a strategy does; without one it is all text."""
        before, between, _ = self._pieces
        labels = "|".join(map(re.escape, sorted(taxonomy.labels, key=len, reverse=True)))
        strategy = rf"[{_MARKS}]*(?P<strategy>{labels}|[^\n]{{1,60}}?)[{_MARKS}]*"
        head = rf"^[{_MARKS}]*{_loosely(before)}{strategy}{_loosely(between)}[{_MARKS}]*"
        for found in re.finditer(head, message, re.MULTILINE | re.IGNORECASE) if self.reply else ():
            if label := taxonomy.match(found["strategy"]):
                return Written(label, self.without_end(message[found.end() :]))
        return Written(None, self.without_end(message))

    def without_end(self, text: str) -> str:
        """A reply's text without what the form puts behind it."""
        return text.strip().removesuffix(self._pieces[2].strip()).strip()


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), text)


def _loosely(text: str) -> str:
    """A pattern for a text, whatever blanks and marks stand in it; one of blanks alone ends a line, or a word."""
    words = [re.escape(word) for word in text.split()]
    if text and not words:
        return r"(?:\n|\Z)" if "\n" in text else r"(?:\s|\Z)"
    return "".join(rf"[{_MARKS}\n]*{word}" for word in words)


def as_written(
    layout: Layout | OwnLayout, path: Sequence[Turn], shown: Mapping[str, str]
) -> tuple[Sequence[Turn], Mapping[str, str]]:
    """A path and the strategies that the turn rule still has to write into it."""
    if not isinstance(layout, OwnLayout):
        return path, shown
    turns = [
        replace(turn, text=layout.write(shown[turn.id], turn.text or "")) if layout.reply and turn.id in shown else turn
        for turn in path
    ]
    return turns, {}


def system_text(layout: Layout | OwnLayout, part: Part, taxonomy: Taxonomy, strategy: str, language: str = "en") -> str:
    """The system text of a part in a language; the strategy matters where `text_alone`. A user's own has one language.

    Raises:
        EsckitError: ours is not written in this language.
    """
    if isinstance(layout, OwnLayout):
        return layout.system_text(taxonomy, strategy)
    strategies = taxonomy.listed_in(language)
    if layout == "shared-prefix":
        return load_prompt("support", "system", language, strategies=strategies)
    if text_alone(layout, part):
        return load_prompt("decoupled_esc", part, language, strategy=taxonomy.shown_in(strategy, language))
    return load_prompt("decoupled_esc", part, language, strategies=strategies)


def text_alone(layout: Layout | OwnLayout, part: Part) -> bool:
    """Whether the part says the text alone: it reads the strategy in its system text, or knows of none."""
    if isinstance(layout, OwnLayout):
        return part == "generator" and (layout.names_strategy or not layout.reply)
    return layout == "paper" and part == "generator"


def reads_lines(layout: Layout | OwnLayout, part: Part) -> bool:
    """Whether the part sees the history as lines in one user message, and not as chat messages."""
    return layout == "paper" and part == "planner"


def line_of(message: Message, language: str = "en") -> str:
    """A message as a line that says who speaks; a filler that is blank leaves the mark alone."""
    seeker, supporter = _SPEAKERS.get(language, _SPEAKERS["en"])
    return f"{seeker if message.role == 'user' else supporter}{message.content}".strip()


def strategy_text(layout: Layout | OwnLayout, part: Part, strategy: str) -> str:
    """How a part says, or is given, a strategy in a reply."""
    if isinstance(layout, OwnLayout):
        return layout.before_text(strategy).rstrip()
    return strategy if reads_lines(layout, part) else f"[{strategy}]"


def text_after_strategy(layout: Layout | OwnLayout, text: str) -> str:
    """A reply's text as it follows its strategy, with the blank between them and what the layout puts behind it."""
    if not isinstance(layout, OwnLayout):
        return f" {text}"
    before = layout.before_text("")
    return f"{before[len(before.rstrip()) :]}{layout.write('', text).removeprefix(before)}"
