"""Chat templates, asked for whole texts: what stands before an answer, and what the template puts around one.

Nothing is taken apart. A context is what the template writes for the messages before the answer, with the answer's
header, as a server would give it to the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product
from typing import Any, Final

from esckit.conversation.thoughts import opened_thought
from esckit.conversation.turn_rule import BLANK_FILLER, Message
from esckit.errors import TemplateError
from esckit.rendering.pieces import Ids, PieceEncoder, Tokenizer

_TODAY: Final = datetime(2025, 1, 1)  # templates that print a date would otherwise change with the day
_DATED: Final = "".join(f"|replace('%{code}', '{_TODAY.strftime('%' + code)}')" for code in "aAbBdHIjmMpSyY")
_FIXED_CLOCK: Final = f"{{% macro strftime_now(format) %}}{{{{ format{_DATED} }}}}{{% endmacro +%}}"
_NO_THOUGHTS: Final = {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0}
_WAY_OUT: Final = "put a plain one into chat_template.jinja in the model's folder, or choose another model"
_ANSWER: Final = "Esckit9Probe"


@dataclass(frozen=True)
class _Form:
    """How messages are handed to a template: with a system role, contents as lists of parts, this as its tools."""

    system_role: bool
    in_parts: bool
    tools: tuple[str, ...] | None

    def chat(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the template takes them."""
        if messages[0].role == "system" and not self.system_role:
            system, first, *others = messages
            messages = [Message("user", f"{system.content}\n\n{first.content.lstrip()}"), *others]
        return [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if self.in_parts else m.content}
            for m in messages
        ]


# As most are used first. A template that goes through the tools without asking wants a list; one that asks whether
# there is a list announces tools that are not there, so None comes before.
_FORMS: Final = tuple(
    _Form(system_role, in_parts, tools)
    for in_parts, system_role, tools in product((False, True), (True, False), (None, ()))
)
_PLAINEST: Final = _Form(system_role=False, in_parts=False, tools=None)


class ChatTemplate:
    """A tokenizer's chat template, its messages handed over in the form that it takes.

    Attributes:
        encoder: texts to token ids.
        lead: what the template writes between the prompt for an answer and the answer: given, never scored. An empty
            thought, the name of a channel; a blank where the tokenizer joins it to the answer's first word belongs to
            ``blank``.
        blank: the blanks that an answer begins with.
        end: what stands between an answer and its last token.
        end_of_turn: the token that ends an answer.

    Raises:
        TemplateError: there is no template, it raises, or it leaves out what somebody said.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.chat_template:
            raise TemplateError(f"the tokenizer has no chat template: use a chat model; for a base model {_WAY_OUT}.")
        self.tokenizer = tokenizer
        self.encoder = PieceEncoder(tokenizer)
        self._jinja = _FIXED_CLOCK + tokenizer.get_chat_template()
        self._prompt = lru_cache(maxsize=4096)(self._render_prompt)
        self._form = self._find_form()
        self.lead, self.blank, self.end, self.end_of_turn = self._around_an_answer()

    def prompt(self, messages: Sequence[Message]) -> str:
        """The whole template up to where the assistant's answer begins, contents masked (`PieceEncoder.masked`).

        The first message may be the system's; the last is the user's.

        Raises:
            TemplateError: the template refuses these messages.
        """
        return self._prompt(tuple(messages))

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Token ids of `prompt`: what a server would give the model."""
        return self.encoder.encode(self.prompt(messages))

    def whole(self, messages: Sequence[Message]) -> str:
        """The template of messages of which the last was said, whoever said it."""
        return self._render(messages, self._form, add_generation_prompt=False)

    def _render_prompt(self, messages: tuple[Message, ...]) -> str:
        return self._render(messages, self._form, add_generation_prompt=True)

    def _render(self, messages: Sequence[Message], form: _Form, *, add_generation_prompt: bool) -> str:
        chat = form.chat([message._replace(content=self.encoder.masked(message.content)) for message in messages])
        try:
            text = self.tokenizer.apply_chat_template(
                chat,
                chat_template=self._jinja,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                date_string=_TODAY.strftime("%d %B %Y"),
                tools=None if form.tools is None else list(form.tools),
                **_NO_THOUGHTS,
            )
        except Exception as error:  # a template is a program, which may raise anything
            raise TemplateError(f"the chat template refuses a chat ({_first_line(error)}): {_WAY_OUT}.") from error
        return str(text)

    def _find_form(self) -> _Form:
        """The first form in which the template writes everything that is said, in order."""
        refusal = TemplateError(f"the chat template drops, repeats or rewrites messages: {_WAY_OUT}.")
        for form in _FORMS:
            try:
                texts = [(chat, self._render(chat, form, add_generation_prompt=True)) for chat in map(_probe, (0, 2))]
                self._render(_probe(2, BLANK_FILLER), form, add_generation_prompt=True)
            except TemplateError as error:
                refusal = error if form == _PLAINEST else refusal
                continue
            if all(_in_order(chat, text) and "'text'" not in text for chat, text in texts):  # no list is printed
                return form
        raise refusal

    def _around_an_answer(self) -> tuple[str, str, str, int]:
        """See the attributes: read off an answer that is the last message, or where that is refused, an earlier one."""
        answer, found = Message("assistant", _ANSWER), ""
        for chat in ([*_probe(2), answer], [*_probe(2), answer, Message("user", "Yes.")]):
            try:
                found = self.whole(chat)
                break
            except TemplateError as error:
                refusal = error
        else:
            raise refusal
        before, answered, after = found.partition(_ANSWER)
        if not answered:
            raise TemplateError(f"the chat template drops or rewrites what the assistant says: {_WAY_OUT}.")
        prompt = self._prompt(_probe(2))
        closing = "\n</think>\n\n" if opened_thought(prompt) == "<think>" else ""
        lead = before.removeprefix(prompt) if before.startswith(prompt) else closing
        mark = self.encoder.first_mark(after)
        if mark:
            end, end_of_turn = after[: mark.start()], int(self.tokenizer.convert_tokens_to_ids(mark.group()))
        elif self.tokenizer.eos_token_id is not None:  # a template for the middle of a text: the model ends it
            end, end_of_turn = "", int(self.tokenizer.eos_token_id)
        else:
            raise TemplateError(
                f"neither the chat template nor the tokenizer has a token that ends a reply: {_WAY_OUT}, "
                "or give the tokenizer an eos_token."
            )
        return lead.rstrip(" "), lead[len(lead.rstrip(" ")) :], end, end_of_turn


def _probe(exchanges: int, user: str | None = None) -> tuple[Message, ...]:
    """A chat that ends with the user: a system text, so many exchanges, and what the user says now (and always)."""

    def said() -> Iterator[Message]:
        yield Message("system", "Esckit0Probe")
        for number in range(1, 2 * exchanges + 2):
            word = f"Esckit{number}Probe"
            yield Message("user", user or word) if number % 2 else Message("assistant", word)

    return tuple(said())


def _in_order(chat: Sequence[Message], text: str) -> bool:
    """Whether a text has every content once, in the order in which they were said."""
    places = [text.find(message.content) for message in chat]
    return places == sorted(places) and all(text.count(message.content) == 1 for message in chat)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
