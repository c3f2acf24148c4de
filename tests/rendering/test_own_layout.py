"""A user's layout: what a model that was trained elsewhere is told, and how it writes its strategies."""

from collections.abc import Sequence

import pytest

from esckit.errors import TemplateError
from esckit.rendering import Message, OwnLayout, Part, Renderer, supporter_turns, to_messages
from esckit.strategy import ESCONV
from tests.tiny import POSITIONS, TEMPLATES, starter_dialogues, strategies_shown, tokenizer_with

BRACKETS = "[{strategy}] {text}"
FORMS = {
    BRACKETS: "[Question] How so?",
    "{strategy}: {text}": "Question: How so?",
    "{strategy}\n{text}": "Question\nHow so?",
    "Strategy: {strategy}\nResponse: {text}": "Strategy: Question\nResponse: How so?",
    "<s>{{strategy}}</s><r>{{text}}</r>": "<s>Question</s><r>How so?</r>",
}


@pytest.mark.parametrize(("form", "message"), FORMS.items())
def test_a_message_is_written_and_read_in_its_form(form: str, message: str) -> None:
    layout = OwnLayout("", form)
    assert layout.write("Question", " How so? ") == message
    assert layout.read(message, ESCONV) == ("Question", "How so?")
    assert layout.read(f"\n {message}\n", ESCONV) == ("Question", "How so?")


@pytest.mark.parametrize(
    ("form", "message", "read"),
    [
        (BRACKETS, "[question] Hi", ("Question", "Hi")),
        (BRACKETS, "**[Question]** Hi", ("Question", "Hi")),
        (BRACKETS, "Here is my turn:\n[Others] Hi [you]", ("Others", "Hi [you]")),
        (BRACKETS, "[Kindness] Hi", (None, "[Kindness] Hi")),
        (BRACKETS, "Hi there", (None, "Hi there")),
        ("{strategy}: {text}", "Well: it is so.", (None, "Well: it is so.")),
        ("{strategy}: {text}", "Providing Suggestions: Try: rest.", ("Providing Suggestions", "Try: rest.")),
        ("Strategy: {strategy}\nResponse: {text}", "**Strategy:** Others\n\n**Response:** Hi", ("Others", "Hi")),
        ("", "[Question] Hi", (None, "[Question] Hi")),
    ],
)
def test_what_models_make_of_a_form_is_read(form: str, message: str, read: tuple[str | None, str]) -> None:
    assert OwnLayout("", form).read(message, ESCONV) == read


@pytest.mark.parametrize(
    ("system", "form", "words"),
    [
        ("Hello {situation}", BRACKETS, "the system text has the slot {situation}, which nothing fills"),
        ("", "[{label}] {text}", "has the slot {label}, which nothing fills: it has {strategy} and {text}"),
        ("", "{text} ({strategy})", "must have {strategy} and then {text}, each once"),
        ("", "[{strategy}]", "must have {strategy} and then {text}, each once"),
        ("", "{strategy} {text} {text}", "must have {strategy} and then {text}, each once"),
    ],
)
def test_slots_that_nothing_fills_are_a_sentence(system: str, form: str, words: str) -> None:
    with pytest.raises(TemplateError) as error:
        OwnLayout(system, form)
    assert words in str(error.value)


def test_the_system_text_is_filled_and_other_braces_are_letters() -> None:
    layout = OwnLayout('Answer {"as": "json"}. One of {{strategies}}; now {strategy}.')
    text = layout.system_text(ESCONV, "Question")
    assert text == f'Answer {{"as": "json"}}. One of {", ".join(ESCONV.labels)}; now Question.'
    assert layout.names_strategy
    assert not OwnLayout("{strategies}").names_strategy


def chat_ids(renderer: Renderer, messages: Sequence[Message]) -> tuple[int, ...]:
    if renderer.tokenizer.chat_template == TEMPLATES["alternating"][0] and messages[0].role == "system":
        system, first, *others = messages
        messages = [Message("user", f"{system.content}\n\n{first.content}"), *others]
    chat = [{"role": m.role, "content": m.content} for m in messages]
    how = {"return_dict": False, "date_string": "01 January 2025"}
    return tuple(renderer.tokenizer.apply_chat_template(chat, **how))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("form", [*FORMS, ""])
@pytest.mark.parametrize("system", ["Pick one: {strategies}.", "Now {strategy}.", ""])
def test_targets_are_the_chat_that_the_model_was_trained_on(system: str, form: str, template: str) -> None:
    layout = OwnLayout(system, form)
    renderer = Renderer(tokenizer_with(template), ESCONV, max_context=POSITIONS, layout=layout)
    (conversation,) = starter_dialogues(1, 7)
    for mode in ("gold", "hidden"):
        shown = strategies_shown(conversation, mode)
        for turn in supporter_turns(conversation)[1:]:
            said, strategy = turn.text or "", str(turn.strategy)
            part: Part = "generator" if layout.names_strategy or not form else "coupled"
            history = to_messages(conversation.path(turn.parent), {})
            path = iter([t for t in conversation.path(turn.parent) if t.speaker == "supporter"])
            history = [
                m._replace(content=layout.write(shown[past.id], m.content))
                if m.role == "assistant" and (past := next(path)).id in shown and form
                else m
                for m in history
            ]
            reply = said if part == "generator" else layout.write(strategy, said)
            start = [Message("system", layout.system_text(ESCONV, strategy))] if system else []
            whole = chat_ids(renderer, [*start, *history, Message("assistant", reply)])
            example = renderer.example(conversation, turn, part, shown)
            ids = (*example.context, *example.given, *example.scored)
            assert ids == whole[: len(ids)]
            assert ids[-1] == renderer.end_of_turn
            prompt = renderer.prompt(conversation, turn, part, shown, 8)
            assert prompt == whole[: len(prompt)]
            assert len(example.context) <= len(prompt) < len(ids)
