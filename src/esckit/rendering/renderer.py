"""Conversations become token ids: contexts, targets, pairs, prompts.

A dialogue becomes chat messages by a turn rule (`conversation.turn_rule`); what a part reads and says of them is its
layout's (`rendering.layouts`); the text around them is the chat template's (`rendering.templates`). A context is the
whole template up to where the answer begins, and the answer's ids are those that follow it. Whatever prefixes agree
between turns, the token trie merges; nothing is asked of a template.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from esckit.conversation import Conversation, Preference, Turn
from esckit.conversation.turn_rule import Message, to_messages
from esckit.errors import CorpusError, TemplateError
from esckit.rendering.examples import Example, PairExample, supporter_turns
from esckit.rendering.gates import STRATEGY, Gates, member_of
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
from esckit.rendering.pieces import Ids, Tokenizer, shared_length
from esckit.rendering.templates import ChatTemplate
from esckit.rendering.told import NOTHING, Told, told_of
from esckit.strategy import Taxonomy

if TYPE_CHECKING:
    from esckit.roles import RoleBank


class Context(NamedTuple):
    """Everything before a reply: as text (contents masked) and as token ids; how many exchanges were dropped to fit."""

    text: str
    ids: Ids
    dropped: int


class Renderer:
    """Renders conversations for one tokenizer (of transformers, with a chat template), taxonomy and layout.

    A path has at most ``max_context`` tokens, its target included; a longer one loses its oldest exchanges. ``shown``
    are the strategies that the history shows, by turn id (`past_strategies`). Under ``gates`` each token of the
    generator's has its pair; from a ``bank`` the system text takes the role, and a reply's context its experience.

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
        gates: Gates | None = None,
        bank: "RoleBank | None" = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.taxonomy = taxonomy
        self.max_context = max_context
        self.layout: Layout | OwnLayout = layout
        self.gates = gates
        self.bank = bank
        self.template = ChatTemplate(tokenizer)
        self.end_of_turn = self.template.end_of_turn
        self._longest_label = lru_cache(self._measure_labels)
        self.system = lru_cache(self._system)

    # What a part reads and says.

    def _system(self, part: Part, strategy: str, told: Told = NOTHING) -> Message:
        """The system message that a part reads before a reply under a strategy, in the dialogue's language."""
        own = system_text(self.layout, part, self.taxonomy, strategy, told.language)
        more = (told.role, told.experience if self.layout == "paper" else "")
        return Message("system", "\n\n".join(text for text in (own, *more) if text))

    def _text(self, messages: Sequence[Message], part: Part, strategy: str, told: Told = NOTHING) -> str:
        """The whole template before a reply; with lines, the history is lines in one user message."""
        history = messages
        if told.experience and self.layout != "paper":
            history = [*messages[:-1], told.after(messages[-1])]
        if reads_lines(self.layout, part):
            history = [Message("user", "\n".join(line_of(each, told.language) for each in history))]
        system = self.system(part, strategy, told)
        return self.template.prompt([*([system] if system.content else []), *history]) + self.template.lead

    def context(
        self,
        path: Sequence[Turn],
        shown: Mapping[str, str],
        reserve: int,
        part: Part = "coupled",
        strategy: str | None = None,
        told: Told = NOTHING,
    ) -> Context:
        """Everything before a reply, with room for ``reserve`` tokens after it; strategy and ``told`` are the reply's.

        Raises:
            CorpusError: even without any history it does not fit ``max_context``.
        """
        messages = to_messages(*as_written(self.layout, path, shown), told.language)
        limit = self.max_context - reserve

        def without(dropped: int) -> Context:
            text = self._text(messages[2 * dropped :], part, strategy or self.taxonomy.labels[0], told)
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
        told = self._told(conversation, turn) if part == "generator" else Told(language=conversation.language)
        return self.context(conversation.path(turn.parent), shown, label + text, part, str(turn.strategy), told)

    def _told(self, conversation: Conversation, turn: Turn) -> Told:
        """What the bank has of a turn's role and experience."""
        role = self.bank and member_of(conversation, turn, "role")
        if not self.bank or not role:
            return Told(language=conversation.language)
        return told_of(self.bank, role, turn.extra.get("experience"), conversation.language)

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
        return self._gated(self._example(context, turn, part, label_weight), conversation, turn, part, shown)

    def _gated(
        self, example: Example, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str]
    ) -> Example:
        """The generator's example with its tokens' pairs; as it is without gates."""
        if self.gates is None or part != "generator":
            return example
        own = self.gates.of_turn(conversation, turn)
        said = len(example.given) + len(example.scored)
        if self.gates.scope == "sequence":
            return replace(example, pairs=(own,) * (len(example.context) + said))
        pairs = [self.gates.of_turn(conversation, turn, **{STRATEGY: None})] * len(example.context)
        past = [one for one in conversation.path(turn.parent) if one.speaker == "supporter"][example.dropped :]
        for one, begins in zip(past, self._begins(example, conversation, turn, shown), strict=True):
            ends = example.context.index(self.end_of_turn, begins) + 1
            pair = self.gates.of_turn(conversation, one, **{STRATEGY: shown.get(one.id)})
            pairs[begins:ends] = [pair] * (ends - begins)
        return replace(example, pairs=(*pairs, *(own,) * said))

    def _begins(
        self, example: Example, conversation: Conversation, turn: Turn, shown: Mapping[str, str]
    ) -> Iterator[int]:
        """Where each past reply that the context still has begins, its label first: where its own context ends."""
        told = self._told(conversation, turn)
        path = conversation.path(turn.parent)
        messages = to_messages(*as_written(self.layout, path, shown), told.language)[2 * example.dropped :]
        told = told if self.layout == "paper" else told._replace(experience="")
        for place in range(1, len(messages), 2):
            before = self._text(messages[:place], "generator", str(turn.strategy), told)
            yield shared_length(example.context, self.template.encoder.encode(before))

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
        chosen, _ = sides = [conversation.turn(preference.chosen), conversation.turn(preference.rejected)]
        texts = [] if part == "planner" else [turn.text or "" for turn in sides]
        context = self._before(conversation, chosen, part, shown, texts)
        examples = (self._gated(self._example(context, side, part), conversation, side, part, shown) for side in sides)
        return PairExample(*examples)

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

    def asked(
        self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str], max_new_tokens: int
    ) -> Example:
        """What is read up to where the text of a reply under the turn's strategy begins; its own text is not read."""
        context = self._before(conversation, turn, part, shown, room=max_new_tokens)
        label = self.reply_ids(context.text, str(turn.strategy), "", part)[0]
        return self._gated(Example(turn.id, context.ids, label, (), context.dropped), conversation, turn, part, shown)

    def prompt(
        self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str], max_new_tokens: int
    ) -> Ids:
        """Token ids of `asked`."""
        asked = self.asked(conversation, turn, part, shown, max_new_tokens)
        return (*asked.context, *asked.given)

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
        chat = [self.system("coupled", self.taxonomy.labels[0], Told(language=conversation.language))]
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
