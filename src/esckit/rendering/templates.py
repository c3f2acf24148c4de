"""Chat templates: taken apart into the glue between messages, and put together again in token ids.

The glue comes from rendering the tokenizer's template once with sentinels and splitting it; messages are tokenised
apart and concatenated, which must give the ids of the whole template (checked when a `Renderer` is made).
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from esckit.conversation.turn_rule import Message
from esckit.errors import TemplateError
from esckit.rendering.layouts import line_of

Ids = tuple[int, ...]
Tokenizer = Any  # a transformers PreTrainedTokenizerBase; its import would cost seconds here

_TODAY: Final = datetime(2025, 1, 1)  # templates that print a date would otherwise change with the day
_DATED: Final = "".join(f"|replace('%{code}', '{_TODAY.strftime('%' + code)}')" for code in "aAbBdHIjmMpSyY")
_FIXED_CLOCK: Final = f"{{% macro strftime_now(format) %}}{{{{ format{_DATED} }}}}{{% endmacro +%}}"


def render_chat(tokenizer: Tokenizer, system: str | None, messages: Sequence[Message], **options: Any) -> str:
    """Render messages to text; where the template has no system role, its text goes into the first user message.

    Raises:
        TemplateError: the template refuses alternating user and assistant messages.
    """
    from jinja2.exceptions import TemplateError as JinjaError

    def render(chat: list[dict[str, str]]) -> str:
        template = _FIXED_CLOCK + tokenizer.get_chat_template()
        date = _TODAY.strftime("%d %B %Y")
        told = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, date_string=date, **options)
        return str(told)

    chat = [{"role": message.role, "content": message.content} for message in messages]
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
        text, rest = render_chat(tokenizer, system, messages), []
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


@dataclass(frozen=True)
class Frame:
    """What stands around a history's messages in one layout and part, in token ids.

    ``glue`` is the template with the system text; with ``lines``, the history is lines in one user message.
    """

    system: str
    glue: ChatGlue
    encode: Callable[[str], Ids]
    lines: bool

    @cached_property
    def opening(self) -> Ids:
        """Everything before the first message's content."""
        return self.encode(self.glue.opening)

    @cached_property
    def to_assistant(self) -> Ids:
        """From a user's content to the reply."""
        return self.encode(self.glue.to_assistant)

    @cached_property
    def to_user(self) -> Ids:
        """From a reply to a user's content; its first token is the end of turn."""
        return self.encode(self.glue.to_user)

    def content(self, text: str) -> Ids:
        """A message's content, as the template shows it."""
        return self.encode(text.strip() if self.glue.trims else text)

    def exchange(self, user: Message, reply: Message) -> Ids:
        """A user message and the reply to it, up to where the next message begins."""
        if self.lines:  # a line ends with its line end: no tokenizer that is accepted joins that to the next line
            return (*self.encode(f"{line_of(user)}\n"), *self.encode(f"{line_of(reply)}\n"))
        return (*self.content(user.content), *self.to_assistant, *self.content(reply.content), *self.to_user)

    def last(self, user: Message) -> Ids:
        """The last user message, up to where the reply begins."""
        return (*self.content(line_of(user) if self.lines else user.content), *self.to_assistant)

    def check(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> None:
        """Check on these messages, of which the last is a user's, that pieces are the whole template's tokens.

        Raises:
            TemplateError: they are not.
        """
        pairs = zip(messages[:-1:2], messages[1::2], strict=True)
        pieces = (*self.opening, *(i for pair in pairs for i in self.exchange(*pair)), *self.last(messages[-1]))
        chat = [Message("user", "\n".join(map(line_of, messages)))] if self.lines else messages
        whole = self.encode(render_chat(tokenizer, self.system, [*chat, Message("assistant", "ok")]))
        if whole[: len(pieces)] != pieces:
            raise TemplateError(
                "messages tokenised apart differ from the whole chat template tokenised at once: "
                "esckit cannot train this tokenizer exactly, choose a model with a byte-level BPE tokenizer."
            )


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of chat messages up to where the assistant's reply begins.

    Template and contents are tokenised apart, and only the template's marks become control tokens: a dialogue that says
    ``<|im_end|>`` says it in letters. Contents are trimmed.

    The first message may be the system's; then user and assistant take turns, and the last is the user's.

    Raises:
        TemplateError: the template refuses these roles, or drops or repeats a message.
    """
    marks = [f"ESCKIT{place}SENTINEL" for place in range(len(messages))]
    chat = [Message(message.role, mark) for message, mark in zip(messages, marks, strict=True)]
    system = marks[0] if messages[0].role == "system" else None
    text = render_chat(tokenizer, system, chat[system is not None :], add_generation_prompt=True)
    pieces = re.split("|".join(marks), text)
    if re.findall("|".join(marks), text) != marks:
        raise TemplateError("the chat template drops, repeats or moves messages: esckit cannot use it, choose another.")
    ids = list(tokenizer(pieces[0], add_special_tokens=False)["input_ids"])
    for message, piece in zip(messages, pieces[1:], strict=True):
        ids += tokenizer(message.content.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return tuple(ids)
