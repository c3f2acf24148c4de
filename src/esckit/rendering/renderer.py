"""Conversations become token ids: contexts, targets, pairs, prompts.

A dialogue becomes chat messages by a turn rule (`conversation.turn_rule`); what a part reads and says of them is its
layout's (`rendering.layouts`); the text around them is the chat template's (`rendering.templates`). A context is the
whole template up to where the answer begins, and the answer's ids are those that follow it. Whatever prefixes agree
between turns, the token trie merges; nothing is asked of a template.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from esckit.conversation import Conversation, Preference, Turn
from esckit.conversation.turn_rule import Message, to_messages
from esckit.errors import CorpusError, TemplateError
from esckit.rendering.layouts import (
    Layout,
    OwnLayout,
    Part,
    as_written,
    line_of,
    reads_lines,
    strategy_text,
    system_text,
    text_after_strategy,
    text_alone,
)
from esckit.rendering.pieces import Ids, Tokenizer
from esckit.rendering.templates import ChatTemplate
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


def kept_turns(conversation: Conversation) -> list[Turn]:
    """The labelled supporter turns that a tree search kept, on any of its paths, in the tree's order."""
    return [turn for turn in conversation.turns if turn.scores.get("kept") and turn.strategy and not turn.planned]


def past_strategies(
    conversation: Conversation, mode: PastStrategies, predicted: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which strategy the history shows at which turn id: the gold ones, the model's own (``predicted``), or none."""
    if mode == "hidden":
        return {}
    if mode == "predicted":
        return dict(predicted or {})
    return {turn.id: turn.strategy for turn in conversation.turns if turn.strategy and not turn.planned}


class Context(NamedTuple):
    """Everything before a reply: as text (contents masked) and as token ids; how many exchanges were dropped to fit."""

    text: str
    ids: Ids
    dropped: int


class Renderer:
    """Renders conversations for one tokenizer (of transformers, with a chat template), taxonomy and layout.

    A path has at most ``max_context`` tokens, its target included; a longer one loses its oldest exchanges. ``shown``
    are the strategies that the history shows, by turn id (`past_strategies`).

    Raises:
        TemplateError: the chat template cannot be used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        taxonomy: Taxonomy,
        *,
        max_context: int,
        layout: Layout | OwnLayout = "shared-prefix",
    ) -> None:
        self.tokenizer = tokenizer
        self.taxonomy = taxonomy
        self.max_context = max_context
        self.layout: Layout | OwnLayout = layout
        self.template = ChatTemplate(tokenizer)
        self.end_of_turn = self.template.end_of_turn
        self._longest_label = lru_cache(self._measure_labels)
        self.system = lru_cache(self._system)

    # What a part reads and says.

    def _system(self, part: Part, strategy: str, language: str = "en") -> Message:
        """The system message that a part reads before a reply under a strategy, in the dialogue's language."""
        return Message("system", system_text(self.layout, part, self.taxonomy, strategy, language))

    def _text(self, messages: Sequence[Message], part: Part, strategy: str, language: str) -> str:
        """The whole template before a reply; with lines, the history is lines in one user message."""
        history = messages
        if reads_lines(self.layout, part):
            history = [Message("user", "\n".join(line_of(each, language) for each in messages))]
        system = self.system(part, strategy, language)
        return self.template.prompt([*([system] if system.content else []), *history]) + self.template.lead

    def context(
        self,
        path: Sequence[Turn],
        shown: Mapping[str, str],
        reserve: int,
        part: Part = "coupled",
        strategy: str | None = None,
        language: str = "en",
    ) -> Context:
        """Everything before a reply, with room for ``reserve`` tokens after it; the strategy is the reply's.

        Raises:
            CorpusError: even without any history it does not fit ``max_context``.
        """
        messages = to_messages(*as_written(self.layout, path, shown), language)
        limit = self.max_context - reserve

        def without(dropped: int) -> Context:
            text = self._text(messages[2 * dropped :], part, strategy or self.taxonomy.labels[0], language)
            return Context(text, self.template.encoder.encode(text), dropped)

        found = without(0)
        if len(found.ids) > limit:
            exchanges = len(messages) // 2
            last = without(exchanges)
            if (over := len(last.ids) - limit) > 0:
                raise CorpusError(
                    f"the reply after turn {path[-1].id if path else None!r} and the message before it are {over} "
                    f"tokens longer than max_context {self.max_context}: raise model.max_context or shorten that turn."
                )
            counts = range(1, exchanges)
            found = without(1 + bisect_left(counts, True, key=lambda dropped: len(without(dropped).ids) <= limit))
        return found

    def _before(
        self,
        conversation: Conversation,
        turn: Turn,
        part: Part,
        shown: Mapping[str, str],
        texts: Sequence[str] = (),
        room: int = 0,
    ) -> Context:
        """`context` of a turn as a part reads it, with room for any label and the longest of the texts (or ``room``).

        All labels of a turn are so scored on one context, and the sides of a pair are.
        """
        label, probe = self._longest_label(part)
        text = max((len(self.reply_ids(probe, str(turn.strategy), text, part)[1]) for text in texts), default=room)
        path, reserve = conversation.path(turn.parent), label + text
        return self.context(path, shown, reserve, part, str(turn.strategy), conversation.language)

    def _measure_labels(self, part: Part) -> tuple[int, str]:
        """Tokens of the longest label, and the short context after which they were counted."""
        probe = self.context([], {}, 0, part).text
        return max(len(self.label_ids(probe, label, part)) for label in self.taxonomy.labels), probe

    def label_ids(self, context: str, strategy: str, part: Part = "coupled") -> Ids:
        """Token ids, after a context, of a strategy as a part says it: ``[Strategy]``, or a bare name and its end."""
        said = self.template.blank + strategy_text(self.layout, part, strategy)
        if reads_lines(self.layout, part):
            return (*self.template.encoder.continued(context, [said + self.template.end])[0], self.end_of_turn)
        return self.template.encoder.continued(context, [said])[0]

    def reply_ids(self, context: str, strategy: str, text: str, part: Part = "coupled") -> tuple[Ids, Ids]:
        """Token ids, after a context, of a reply's label (none where it stands in the system text) and of its text.

        The text begins with its space where it follows a label, and ends with the end of turn.
        """
        template, said = self.template, self.template.encoder.masked(text.strip())
        if text_alone(self.layout, part):
            (ids,) = template.encoder.continued(context, [template.blank + said + template.end])
            return (), (*ids, self.end_of_turn)
        label = template.blank + strategy_text(self.layout, part, strategy)
        said = text_after_strategy(self.layout, said)
        first, rest = template.encoder.continued(context, [label, f"{said}{template.end}"])
        return first, (*rest, self.end_of_turn)

    # What is trained on.

    def example(
        self,
        conversation: Conversation,
        turn: Turn,
        part: Part,
        shown: Mapping[str, str],
        *,
        label_weight: float = 1.0,
    ) -> Example:
        """Render a supporter turn with a strategy (and a text, unless the part is the planner) as a target of one part.

        The planner scores the strategy, the generator the text under it, the coupled part both; ``label_weight`` is
        that of a label's tokens in the coupled part's loss, where the text's weigh 1.

        Raises:
            CorpusError: the turn has no strategy, or does not fit ``max_context``.
        """
        context = self._before(conversation, turn, part, shown, [] if part == "planner" else [turn.text or ""])
        return self._example(context, turn, part, label_weight)

    def _example(self, context: Context, turn: Turn, part: Part, label_weight: float = 1.0) -> Example:
        if turn.strategy is None:
            raise CorpusError(f"turn {turn.id!r} has no strategy, and every part reads or predicts one: label it.")
        if part == "planner":
            label = self.label_ids(context.text, turn.strategy, part)
            return Example(turn.id, context.ids, (), label, context.dropped)
        label, text = self.reply_ids(context.text, turn.strategy, turn.text or "", part)
        if part == "generator":
            return Example(turn.id, context.ids, label, text, context.dropped)
        weights = (label_weight,) * len(label) + (1.0,) * len(text) if label_weight != 1 else ()
        return Example(turn.id, context.ids, (), label + text, context.dropped, weights)

    def pair(
        self, conversation: Conversation, preference: Preference, part: Part, shown: Mapping[str, str]
    ) -> PairExample:
        """Render a preference for one part; where the context must be cut, it is cut alike for both sides."""
        chosen, rejected = sides = [conversation.turn(preference.chosen), conversation.turn(preference.rejected)]
        texts = [] if part == "planner" else [turn.text or "" for turn in sides]
        context = self._before(conversation, chosen, part, shown, texts)
        return PairExample(self._example(context, chosen, part), self._example(context, rejected, part))

    def examples(
        self,
        conversation: Conversation,
        part: Part,
        shown: Mapping[str, str],
        turns: Sequence[Turn] | None = None,
        *,
        label_weight: float = 1.0,
    ) -> list[Example]:
        """Render supporter turns, by default those of the trunk, as targets of one part (`example`)."""
        targets = supporter_turns(conversation) if turns is None else turns
        return [self.example(conversation, turn, part, shown, label_weight=label_weight) for turn in targets]

    def chat(self, messages: Sequence[Message]) -> list[Example]:
        """A target an assistant message of a plain chat, in no layout: its own system text or none, and nothing is cut.

        Each assistant message stands after a user's, without blanks at its ends.
        """
        template, examples = self.template, []
        for place, message in enumerate(messages):
            if message.role == "assistant":
                before = template.prompt(messages[:place]) + template.lead
                said = template.blank + template.encoder.masked(message.content) + template.end
                (ids,) = template.encoder.continued(before, [said])
                examples.append(Example(str(place), template.encoder.encode(before), (), (*ids, self.end_of_turn)))
        return examples

    # What is asked at inference: token for token what was trained on.

    def choices(self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str]) -> list[Example]:
        """Every label of the taxonomy as a target at a turn, all on one context, in taxonomy order.

        Of the turn only what stands before it is read, of the coupled part's reply only the label is scored.
        """
        text, ids, dropped = self._before(conversation, turn, part, shown)
        labels = self.taxonomy.labels
        return [Example(turn.id, ids, (), self.label_ids(text, label, part), dropped) for label in labels]

    def prompt(
        self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str], max_new_tokens: int
    ) -> Ids:
        """Token ids up to where the text of a reply under the turn's strategy begins; its own text is not read."""
        context = self._before(conversation, turn, part, shown, room=max_new_tokens)
        return (*context.ids, *self.reply_ids(context.text, str(turn.strategy), "", part)[0])

    # Pretraining.

    def dialogue(self, conversation: Conversation, shown: Mapping[str, str]) -> list[Example]:
        """Render a dialogue for pretraining: what both speakers said is scored, each with the token that ends it.

        Seeker turns after the last supporter turn count too. A dialogue longer than ``max_context`` loses its oldest
        exchanges.

        Raises:
            CorpusError: even the last exchange does not fit ``max_context``.
            TemplateError: the template writes a message otherwise once another one follows.
        """
        messages = to_messages([turn for turn in conversation.trunk if not turn.planned], shown, conversation.language)
        messages = messages[:-1] if messages[-1].filler else messages
        dropped = 0
        while messages:
            examples = self._messages_scored(conversation, messages, dropped)
            if max((len(example.context) + len(example.scored) for example in examples), default=0) <= self.max_context:
                return examples
            if len(messages) <= 2:
                raise CorpusError(
                    f"the last exchange of conversation {conversation.id!r} is longer than max_context "
                    f"{self.max_context}: raise model.max_context or shorten that exchange."
                )
            messages, dropped = messages[2:], dropped + 1
        return []

    def _messages_scored(self, conversation: Conversation, messages: Sequence[Message], dropped: int) -> list[Example]:
        """A target a message that somebody said: its content and the token that ends it, after all before it."""
        encoder, examples = self.template.encoder, []
        chat = [self.system("coupled", self.taxonomy.labels[0], conversation.language)]
        before = None
        for message in messages:
            chat.append(message)
            whole = self.template.whole(chat)
            if before is not None and not whole.startswith(before):
                raise TemplateError(
                    "the chat template writes a message otherwise once another follows, and pretraining scores each "
                    "where it stands: pretrain with a plain template."
                )
            content = encoder.masked(message.content.strip())
            place = whole.rindex(content)
            end = encoder.first_mark(whole[place + len(content) :])
            before = whole
            if message.filler or end is None:
                continue
            (ids,) = encoder.continued(whole[:place], [content + end.string[: end.start()]])
            context = encoder.encode(whole[:place])
            examples.append(Example(conversation.id, context, (), (*ids, *encoder.encode(end.group())), dropped))
        return examples
