"""Where trees become tokens; nothing else in esckit knows chat templates.

A dialogue becomes chat messages by the turn rule ``decoupled-esc`` (`esckit.turns`).

A supporter reply is ``[Strategy] text``. The planner's target is ``[Strategy]``, the generator's is `` text`` with its
leading space plus the end-of-turn token, the coupled model's is both. The glue between messages comes from rendering
the tokenizer's template once with sentinels and splitting it; messages are tokenised apart and concatenated, which must
give the ids of the whole template (checked when a `Renderer` is made).
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from esckit.conversation import Conversation, Preference, Turn
from esckit.errors import CorpusError, TemplateError
from esckit.prompts import load_prompt
from esckit.strategy import Taxonomy
from esckit.turns import Message, to_messages

__all__ = [
    "ChatGlue",
    "Example",
    "Layout",
    "Message",
    "PairExample",
    "Part",
    "PastStrategies",
    "Renderer",
    "chat_prompt",
    "past_strategies",
    "supporter_turns",
    "to_messages",
]

Layout = Literal["shared-prefix"]
Part = Literal["planner", "generator", "coupled"]
PastStrategies = Literal["gold", "predicted", "hidden"]
Tokenizer = Any  # a transformers PreTrainedTokenizerBase; its import would cost seconds here

_FIXED_DATE = "01 January 2025"  # templates that print a date would otherwise change with the day
_FIXED_CLOCK = f"{{% macro strftime_now(format) %}}{_FIXED_DATE}{{% endmacro +%}}"
_PROBES = (
    [("user", "Hi"), ("assistant", "[Question] How are you?"), ("user", " "), ("assistant", '... take "your" time :)')],
    [
        ("user", "I'm 23,\n and lost.\n\nReally"),
        ("assistant", "That's hard!"),
        ("user", "é 你好 ok"),
        ("assistant", "ok"),
    ],
)


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


@dataclass(frozen=True)
class ChatGlue:
    """A chat template taken apart.

    Attributes:
        opening: text up to the first user message's content, the system text included.
        to_assistant: text between a user's content and the assistant's.
        to_user: text between an assistant's content and the user's; it starts with the end-of-turn token.
        trims: the template strips contents, so a blank message is empty.
    """

    opening: str
    to_assistant: str
    to_user: str
    trims: bool

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, system: str) -> "ChatGlue":
        """Render the tokenizer's template once with sentinels and split it.

        Raises:
            TemplateError: there is no template, or it is not prefix-stable: a message changes how others are rendered.
        """
        if not tokenizer.chat_template:
            raise TemplateError("the tokenizer has no chat template: use a chat model, or set tokenizer.chat_template.")
        contents = [f"ESCKIT{i}SENTINEL" for i in range(6)]
        messages = [Message(("user", "assistant")[i % 2], f" {content} ") for i, content in enumerate(contents)]
        text, rest = _apply(tokenizer, system, messages), []
        for content in contents:
            head, found, text = text.partition(content)
            if not found:
                raise TemplateError(
                    "the chat template drops or rewrites messages: esckit cannot use it, choose another."
                )
            rest.append(head)
        trims = not rest[1].startswith(" ")
        if not trims:  # the spaces around each sentinel are the content's, not the template's
            rest = [head.removesuffix(" ").removeprefix(" " if i else "") for i, head in enumerate(rest)]
            text = text.removeprefix(" ")
        opening, to_assistant, to_user = rest[:3]
        if rest[3::2] != [to_assistant] * 2 or rest[4] != to_user or not to_user.startswith(text):
            raise TemplateError(
                "the chat template renders the same message differently by its place (it is not prefix-stable): "
                "use a model whose template does not, or set tokenizer.chat_template to a plain one."
            )
        return cls(opening, to_assistant, to_user, trims)


def _apply(tokenizer: Tokenizer, system: str, messages: Sequence[Message]) -> str:
    """Render messages to text; where the template has no system role, its text goes into the first user message."""
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return _render(tokenizer, system, chat)


def _render(tokenizer: Tokenizer, system: str | None, chat: list[dict[str, str]], **options: Any) -> str:
    from jinja2.exceptions import TemplateError as JinjaError

    def render(chat: list[dict[str, str]]) -> str:
        template = _FIXED_CLOCK + tokenizer.get_chat_template()
        return str(
            tokenizer.apply_chat_template(
                chat, chat_template=template, tokenize=False, date_string=_FIXED_DATE, **options
            )
        )

    if system is not None:
        with suppress(JinjaError):
            text = render([{"role": "system", "content": system}, *chat])
            if system in text:  # some templates leave a system message out in silence
                return text
        chat = [{"role": "user", "content": f"{system}\n\n{chat[0]['content'].lstrip()}"}, *chat[1:]]
    try:
        return render(chat)
    except JinjaError as error:
        raise TemplateError(
            f"the chat template refuses alternating user and assistant messages ({error}): choose another model."
        ) from error


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of chat messages up to where the assistant's reply begins.

    Template and contents are tokenised apart, and only the template's marks become control tokens: a dialogue that says
    ``<|im_end|>`` says it in letters. Contents are trimmed.

    Args:
        tokenizer: has a chat template.
        messages: the first may be the system's; then user and assistant, the last is the user's.

    Raises:
        TemplateError: the template refuses these roles, or drops or repeats a message.
    """
    marks = [f"ESCKIT{place}SENTINEL" for place in range(len(messages))]
    chat = [{"role": message.role, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    system = marks[0] if messages[0].role == "system" else None
    text = _render(tokenizer, system, chat[system is not None :], add_generation_prompt=True)
    pieces = re.split("|".join(marks), text)
    if re.findall("|".join(marks), text) != marks:
        raise TemplateError("the chat template drops, repeats or moves messages: esckit cannot use it, choose another.")
    ids = list(tokenizer(pieces[0], add_special_tokens=False)["input_ids"])
    for message, piece in zip(messages, pieces[1:], strict=True):
        ids += tokenizer(message.content.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return tuple(ids)


class Renderer:
    """Renders conversations for one tokenizer and taxonomy.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        taxonomy: the closed list of strategies.
        max_context: the most tokens a path may have, its target included; longer paths lose their oldest exchanges.

    Raises:
        TemplateError: the template cannot be taken apart, or pieces tokenise differently from the whole.
    """

    def __init__(self, tokenizer: Tokenizer, taxonomy: Taxonomy, *, max_context: int) -> None:
        self.tokenizer = tokenizer
        self.taxonomy = taxonomy
        self.max_context = max_context
        self.system = load_prompt("support", "system", strategies=", ".join(taxonomy.labels))
        self.glue = ChatGlue.from_tokenizer(tokenizer, self.system)
        self.encode = lru_cache(maxsize=65536)(self._encode)
        self.opening = self.encode(self.glue.opening)
        self.to_assistant = self.encode(self.glue.to_assistant)
        self.to_user = self.encode(self.glue.to_user)
        self.end_of_turn = self.to_user[0]
        if self.end_of_turn not in tokenizer.all_special_ids and self.end_of_turn not in tokenizer.added_tokens_decoder:
            raise TemplateError("the chat template ends replies with no special token: esckit cannot tell their end.")
        self.longest_label = max(len(self.label_ids(label)) for label in taxonomy.labels)
        for probe in _PROBES:
            self._check_pieces([Message(*message) for message in probe])

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _check_pieces(self, messages: list[Message]) -> None:
        whole = self._encode(_apply(self.tokenizer, self.system, messages))
        pieces = self.message_ids(messages)
        if whole[: len(pieces)] != pieces:
            raise TemplateError(
                "messages tokenised apart differ from the whole chat template tokenised at once: "
                "esckit cannot train this tokenizer exactly, choose a model with a byte-level BPE tokenizer."
            )

    def content_ids(self, content: str) -> tuple[int, ...]:
        """Token ids of a message's content, as the template shows it."""
        return self.encode(content.strip() if self.glue.trims else content)

    def message_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the system part and messages, up to where the next content begins or a reply ends."""
        ids = list(self.opening)
        for message in messages:
            ids += self.content_ids(message.content)
            ids += self.to_assistant if message.role == "user" else self.to_user
        return tuple(ids[: len(ids) - len(self.to_user) + 1] if messages[-1].role == "assistant" else ids)

    def label_ids(self, strategy: str) -> tuple[int, ...]:
        """Token ids of ``[Strategy]``."""
        return self.encode(f"[{strategy}]")

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a reply's text after its label: a leading space, the text, the end of turn."""
        return (*self.encode(f" {text.strip()}"), self.end_of_turn)

    def context(self, path: Sequence[Turn], shown: Mapping[str, str], reserve: int) -> tuple[tuple[int, ...], int]:
        """Token ids of everything before a reply, and how many of the oldest exchanges were dropped to fit.

        Args:
            path: the turns before the reply.
            shown: strategies to show in the history, by turn id.
            reserve: tokens that must fit after the context.

        Raises:
            CorpusError: even without any history it does not fit ``max_context``.
        """
        messages = to_messages(path, shown)
        exchanges = [
            (*self.content_ids(user.content), *self.to_assistant, *self.content_ids(reply.content), *self.to_user)
            for user, reply in zip(messages[0:-1:2], messages[1::2], strict=True)
        ]
        last = (*self.content_ids(messages[-1].content), *self.to_assistant)
        room = self.max_context - reserve - len(self.opening) - len(last)
        if room < 0:
            raise CorpusError(
                f"the reply after turn {path[-1].id if path else None!r} and the message before it are {-room} tokens "
                f"longer than max_context {self.max_context}: raise model.max_context or shorten that turn."
            )
        kept = len(exchanges)
        while kept and sum(map(len, exchanges[-kept:])) > room:
            kept -= 1
        history = exchanges[len(exchanges) - kept :]
        return (*self.opening, *(i for exchange in history for i in exchange), *last), len(exchanges) - kept

    def example(self, conversation: Conversation, turn: Turn, part: Part, shown: Mapping[str, str]) -> Example:
        """Render one supporter turn as a target of one part.

        Args:
            conversation: the tree.
            turn: a supporter turn with a strategy (and a text, unless the part is the planner).
            part: planner scores the label, generator the text after the label, coupled both.
            shown: strategies to show in the history, by turn id (`past_strategies`).
        """
        given, scored = self._target(turn, part)
        context, dropped = self.context(conversation.path(turn.parent), shown, self._room(turn, part))
        return Example(turn.id, context, given, scored, dropped)

    def _target(self, turn: Turn, part: Part) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What a part is given of a supporter turn, and what it must predict."""
        if turn.strategy is None:
            raise CorpusError(f"turn {turn.id!r} has no strategy, and every part reads or predicts one: label it.")
        label = self.label_ids(turn.strategy)
        text = () if part == "planner" else self.text_ids(turn.text or "")
        return (label, text) if part == "generator" else ((), label + text)

    def _room(self, turn: Turn, part: Part) -> int:
        """Tokens to keep free for a turn: for any label, so that all labels are scored on the same context."""
        return self.longest_label + (0 if part == "planner" else len(self.text_ids(turn.text or "")))

    def pair(
        self, conversation: Conversation, preference: Preference, part: Part, shown: Mapping[str, str]
    ) -> PairExample:
        """Render a preference for one part; where the context must be cut, it is cut alike for both sides."""
        sides = [conversation.turn(preference.chosen), conversation.turn(preference.rejected)]
        room = max(self._room(turn, part) for turn in sides)
        context, dropped = self.context(conversation.path(sides[0].parent), shown, room)
        return PairExample(*(Example(turn.id, context, *self._target(turn, part), dropped) for turn in sides))

    def examples(
        self, conversation: Conversation, part: Part, shown: Mapping[str, str], *, label_weight: float = 1.0
    ) -> list[Example]:
        """Render every trunk supporter turn as a target of one part.

        ``label_weight`` is that of a label's tokens in the loss, where the text's weigh 1.
        """
        found = []
        for turn in supporter_turns(conversation):
            example = self.example(conversation, turn, part, shown)
            label = len(example.scored) - len(self.text_ids(turn.text or ""))
            weights = (label_weight,) * label + (1.0,) * (len(example.scored) - label) if label_weight != 1 else ()
            found.append(replace(example, weights=weights))
        return found

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
        context = self.opening
        for message in messages:
            content = self.content_ids(message.content)
            glue = self.to_assistant if message.role == "user" else self.to_user
            if not message.filler:
                examples.append(Example(conversation.id, context, (), (*content, glue[0]), dropped))
            context = (*context, *content, *glue)
        return examples
