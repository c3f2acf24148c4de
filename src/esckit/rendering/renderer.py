"""Conversations become token ids: contexts, targets, pairs, prompts.

A dialogue becomes chat messages by the turn rule ``decoupled-esc`` (`conversation.turn_rule`); what a part reads
and says of them is its layout's (`rendering.layouts`); the tokens around them are the chat template's
(`rendering.templates`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from esckit.conversation import Conversation, Preference, Turn
from esckit.conversation.turn_rule import Message, to_messages
from esckit.errors import CorpusError, TemplateError
from esckit.rendering.layouts import Layout, Part, names_in_system, reads_lines, strategy_text, system_text
from esckit.rendering.templates import ChatGlue, Frame, Tokenizer
from esckit.strategy import Taxonomy

PastStrategies = Literal["gold", "predicted", "hidden"]


@dataclass(frozen=True, slots=True)
class Example:
    """One training or scoring target of a turn: ``context`` and ``given`` are read, ``scored`` is predicted.

    dropped: how many of the oldest exchanges the context lost to `max_context`.
    weights: of the scored tokens in the loss of SFT; none is 1 each.
    """

    turn_id: str
    context: tuple[int, ...]
    given: tuple[int, ...]
    scored: tuple[int, ...]
    dropped: int = 0
    weights: tuple[float, ...] = ()


class PairExample(NamedTuple):
    """The two sides of a preference, on the same context."""

    chosen: Example
    rejected: Example


def supporter_turns(conversation: Conversation) -> list[Turn]:
    """The trunk's supporter turns with a strategy and a text: what is trained on and predicted."""
    return [turn for turn in conversation.trunk if turn.speaker == "supporter" and turn.strategy and not turn.planned]


def past_strategies(
    conversation: Conversation, mode: PastStrategies, predicted: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which strategy the history shows at which turn id: the gold ones, the model's own (``predicted``), or none."""
    if mode == "hidden":
        return {}
    if mode == "predicted":
        return dict(predicted or {})
    return {turn.id: turn.strategy for turn in conversation.turns if turn.strategy and not turn.planned}


_PROBES: Final = (
    ("Hi", "[Question] How are you?", " ", '... take "your" time :)', "I will."),
    ("I'm 23,\n and lost.\n\nReally", "That's hard!", "é 你好 ok", "ok", " "),
)


class Renderer:
    """Renders conversations for one tokenizer (of transformers, with a chat template), taxonomy and layout.

    A path has at most ``max_context`` tokens, its target included; a longer one loses its oldest exchanges. ``shown``
    are the strategies that the history shows, by turn id (`past_strategies`).

    Raises:
        TemplateError: the template cannot be taken apart, or pieces tokenise differently from the whole.
    """

    def __init__(
        self, tokenizer: Tokenizer, taxonomy: Taxonomy, *, max_context: int, layout: Layout = "shared-prefix"
    ) -> None:
        self.tokenizer = tokenizer
        self.taxonomy = taxonomy
        self.max_context = max_context
        self.layout: Layout = layout
        self.encode = lru_cache(maxsize=65536)(self._encode)
        self._frame_of = lru_cache(maxsize=64)(self._frame)
        self.chat = self.frame("coupled", taxonomy.labels[0])  # what pretraining reads
        self.end_of_turn = self.chat.to_user[0]
        if self.end_of_turn not in tokenizer.all_special_ids and self.end_of_turn not in tokenizer.added_tokens_decoder:
            raise TemplateError("the chat template ends replies with no special token: esckit cannot tell their end.")
        parts: tuple[Part, ...] = ("planner", "coupled")
        self.longest_label = max(len(self.label_ids(label, part)) for label in taxonomy.labels for part in parts)
        for part in ("planner", "generator", "coupled"):
            for probe in _PROBES:
                messages = [Message(("user", "assistant")[i % 2], content) for i, content in enumerate(probe)]
                self.frame(part, taxonomy.labels[0]).check(tokenizer, messages)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def frame(self, part: Part, strategy: str) -> Frame:
        """What stands around the history that a part reads before a reply under a strategy."""
        return self._frame_of(
            system_text(self.layout, part, self.taxonomy, strategy), lines=reads_lines(self.layout, part)
        )

    def _frame(self, system: str, *, lines: bool) -> Frame:
        return Frame(system, ChatGlue.from_tokenizer(self.tokenizer, system), self.encode, lines)

    def label_ids(self, strategy: str, part: Part = "coupled") -> tuple[int, ...]:
        """Token ids of a strategy as a part says it: ``[Strategy]``, or a bare name and the end of turn."""
        bare = reads_lines(self.layout, part)
        return self.encode(strategy_text(self.layout, part, strategy)) + (self.end_of_turn,) * bare

    def text_ids(self, text: str, part: Part = "coupled") -> tuple[int, ...]:
        """Token ids of a reply's text and the end of turn; it begins with a space where it follows a label."""
        space = "" if names_in_system(self.layout, part) else " "
        return (*self.encode(f"{space}{text.strip()}"), self.end_of_turn)

    def context(
        self, path: Sequence[Turn], shown: Mapping[str, str], reserve: int, frame: Frame | None = None
    ) -> tuple[tuple[int, ...], int]:
        """Token ids of everything before a reply, and how many of the oldest exchanges were dropped to fit.

        ``reserve`` is how many tokens must fit after the context; the frame is the coupled part's by default.

        Raises:
            CorpusError: even without any history it does not fit ``max_context``.
        """
        frame = frame or self.chat
        messages = to_messages(path, shown)
        exchanges = [frame.exchange(user, reply) for user, reply in zip(messages[0:-1:2], messages[1::2], strict=True)]
        last = frame.last(messages[-1])
        room = self.max_context - reserve - len(frame.opening) - len(last)
        if room < 0:
            raise CorpusError(
                f"the reply after turn {path[-1].id if path else None!r} and the message before it are {-room} tokens "
                f"longer than max_context {self.max_context}: raise model.max_context or shorten that turn."
            )
        kept = len(exchanges)
        while kept and sum(map(len, exchanges[-kept:])) > room:
            kept -= 1
        history = exchanges[len(exchanges) - kept :]
        return (*frame.opening, *(i for exchange in history for i in exchange), *last), len(exchanges) - kept

    # What is trained on.

    def example(self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str]) -> Example:
        """Render a supporter turn with a strategy (and a text, unless the part is the planner) as a target of one part.

        The planner scores the strategy, the generator the text under it, the coupled part both.
        """
        given, scored = self._target(turn, part)
        context, dropped = self._before(conversation, turn, part, shown, self._room(turn, part))
        return Example(turn.id, context, given, scored, dropped)

    def _before(
        self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str], reserve: int
    ) -> tuple[tuple[int, ...], int]:
        """`context` of a turn, as a part reads it."""
        frame = self.frame(part, str(turn.strategy))
        return self.context(conversation.path(turn.parent), shown, reserve, frame)

    def _target(self, turn: Turn, part: Part) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What a part is given of a supporter turn, and what it must predict."""
        if turn.strategy is None:
            raise CorpusError(f"turn {turn.id!r} has no strategy, and every part reads or predicts one: label it.")
        label = self.label_ids(turn.strategy, part)
        if part == "planner":
            return (), label
        text = self.text_ids(turn.text or "", part)
        return (self._given(turn.strategy, part), text) if part == "generator" else ((), label + text)

    def _given(self, strategy: str, part: Part) -> tuple[int, ...]:
        """What stands between a context and a reply's text."""
        return () if names_in_system(self.layout, part) else self.label_ids(strategy, part)

    def _room(self, turn: Turn, part: Part) -> int:
        """Tokens to keep free for a turn: for any label, so that all labels are scored on the same context."""
        return self.longest_label + (0 if part == "planner" else len(self.text_ids(turn.text or "", part)))

    def pair(
        self, conversation: Conversation, preference: Preference, part: Part, shown: Mapping[str, str]
    ) -> PairExample:
        """Render a preference for one part; where the context must be cut, it is cut alike for both sides."""
        sides = [conversation.turn(preference.chosen), conversation.turn(preference.rejected)]
        room = max(self._room(turn, part) for turn in sides)
        context, dropped = self._before(conversation, sides[0], part, shown, room)
        return PairExample(*(Example(turn.id, context, *self._target(turn, part), dropped) for turn in sides))

    def examples(
        self, conversation: Conversation, part: Part, shown: Mapping[str, str], *, label_weight: float = 1.0
    ) -> list[Example]:
        """Render every trunk supporter turn as a target of one part.

        ``label_weight`` is that of a label's tokens in the coupled part's loss, where the text's weigh 1.
        """
        found = []
        for turn in supporter_turns(conversation):
            example = self.example(conversation, turn, part, shown)
            label = len(self.label_ids(str(turn.strategy)))
            weights = (label_weight,) * label + (1.0,) * (len(example.scored) - label) if label_weight != 1 else ()
            found.append(replace(example, weights=weights))
        return found

    # What is asked at inference: token for token what was trained on.

    def choices(self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str]) -> list[Example]:
        """Every label of the taxonomy as a target at a turn, all on one context, in taxonomy order.

        Of the turn only what stands before it is read, of the coupled part's reply only the label is scored.
        """
        context, dropped = self._before(conversation, turn, part, shown, self.longest_label)
        labels = self.taxonomy.labels
        return [Example(turn.id, context, (), self.label_ids(label, part), dropped) for label in labels]

    def prompt(
        self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str], max_new_tokens: int
    ) -> tuple[int, ...]:
        """Token ids up to where the text of a reply under the turn's strategy begins; its own text is not read."""
        context, _ = self._before(conversation, turn, part, shown, self.longest_label + max_new_tokens)
        return (*context, *self._given(str(turn.strategy), part))

    # Pretraining.

    def dialogue(self, conversation: Conversation, shown: Mapping[str, str]) -> list[Example]:
        """Render a dialogue for pretraining: what both speakers said is scored, each with the token that ends it.

        Seeker turns after the last supporter turn count too. A dialogue longer than ``max_context`` loses its oldest
        exchanges.

        Raises:
            CorpusError: even the last exchange does not fit ``max_context``.
        """
        messages = to_messages([turn for turn in conversation.trunk if not turn.planned], shown)
        messages = messages[:-1] if messages[-1].filler else messages
        dropped = 0
        while messages and len(self.message_ids(messages)) > self.max_context:
            if len(messages) <= 2:
                raise CorpusError(
                    f"the last exchange of conversation {conversation.id!r} is longer than max_context "
                    f"{self.max_context}: raise model.max_context or shorten that exchange."
                )
            messages, dropped = messages[2:], dropped + 1
        examples: list[Example] = []
        context = self.chat.opening
        for message in messages:
            content = self.chat.content(message.content)
            glue = self._after(message)
            if not message.filler:
                examples.append(Example(conversation.id, context, (), (*content, glue[0]), dropped))
            context = (*context, *content, *glue)
        return examples

    def message_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the system part and chat messages, up to where the next content begins or a reply ends."""
        ids = list(self.chat.opening)
        for message in messages:
            ids += self.chat.content(message.content) + self._after(message)
        return tuple(ids[: len(ids) - len(self.chat.to_user) + 1] if messages[-1].role == "assistant" else ids)

    def _after(self, message: Message) -> tuple[int, ...]:
        return self.chat.to_assistant if message.role == "user" else self.chat.to_user
