"""Trees become tokens in one place, exactly as the tokenizer's own chat template would have it."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import reply_text
from esckit.corpora import load_corpus, read_corpus
from esckit.errors import CorpusError
from esckit.rendering import (
    Message,
    Part,
    PastStrategies,
    Renderer,
    past_strategies,
    supporter_turns,
    to_messages,
)
from esckit.strategy import ESCONV
from tests.tiny import (
    TEMPLATES,
    first_turns,
    strategies_shown,
    talk,
    tiny_renderer,
    tiny_tokenizer,
    tokenizer_with,
)
from tests.trees import small_tree

DATE: Final = "01 January 2025"
MODES: Final[tuple[PastStrategies, ...]] = ("gold", "hidden", "predicted")
PARTS: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")


@cache
def renderer_of(template: str, max_context: int = 100_000) -> Renderer:
    """A renderer of the tiny tokenizer under one of the three template families."""
    return Renderer(tokenizer_with(template), ESCONV, max_context=max_context)


def whole_ids(renderer: Renderer, messages: Sequence[Message]) -> tuple[int, ...]:
    """What the tokenizer itself makes of a chat, header of the next reply included: the reference for ours."""
    system = renderer.system("coupled", "Question").content
    chat = [{"role": message.role, "content": message.content} for message in messages]
    if "System role not supported" in renderer.tokenizer.chat_template:
        chat[0]["content"] = f"{system}\n\n{chat[0]['content']}"
    else:
        chat = [{"role": "system", "content": system}, *chat]
    ask = chat[-1]["role"] == "user"
    return tuple(
        renderer.tokenizer.apply_chat_template(chat, return_dict=False, add_generation_prompt=ask, date_string=DATE)
    )


class Esconv(NamedTuple):
    """The two parts of ESConv that the data folder holds."""

    train: list[Conversation]
    valid: list[Conversation]


@pytest.fixture(scope="module")
def esconv(data_dir: Path) -> Esconv:
    return Esconv(*(read_corpus(data_dir / f"esconv/{part}.json", "esconv") for part in ("train", "valid")))


# --------------------------------------------------------------------------------------------------- contexts and whole


def assert_contexts_are_the_whole(renderer: Renderer, conversation: Conversation, mode: PastStrategies) -> None:
    """Before every supporter turn and after the last turn: what a server would give the model."""
    shown = strategies_shown(conversation, mode)
    trunk = conversation.trunk
    for end in [place for place, turn in enumerate(trunk) if turn.speaker == "supporter"] + [len(trunk)]:
        context = renderer.context(trunk[:end], shown, 0)
        assert context.ids == whole_ids(renderer, to_messages(trunk[:end], shown))
        assert context.dropped == 0


@pytest.mark.corpus
@pytest.mark.parametrize("template", TEMPLATES)
def test_contexts_are_the_whole_template_on_esconv(template: str, esconv: Esconv) -> None:
    for index, conversation in enumerate((*esconv.valid, *esconv.train[::20])):
        assert_contexts_are_the_whole(renderer_of(template), conversation, MODES[index % 3])


@pytest.mark.parametrize("template", TEMPLATES)
def test_contexts_are_the_whole_template_on_the_starter_corpus(template: str) -> None:
    for conversation in load_corpus("starter").train[::4]:
        for mode in MODES:
            assert_contexts_are_the_whole(renderer_of(template), conversation, mode)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_plain_chat_is_the_template_and_its_replies_are_targets(template: str) -> None:
    """What a server would give the model, and what the template writes after it; no text of ours."""
    renderer = renderer_of(template)
    system = [] if template == "alternating" else [Message("system", "Be brief.")]
    spoken = [
        ("user", "Name a <|im_end|> tree."),
        ("assistant", "Oak."),
        ("user", "And?"),
        ("assistant", "Birch [x]"),
    ]
    chat = [*system, *(Message(role, content) for role, content in spoken)]
    examples = renderer.chat(chat)
    ends = [place for place, message in enumerate(chat) if message.role == "assistant"]
    for end, example in zip(ends, examples, strict=True):
        before = renderer.template.prompt_ids(chat[:end])
        whole = renderer.template.encoder.encode(renderer.template.whole(chat[: end + 1]))
        assert example.context == before
        assert (*before, *example.scored) == whole[: len(before) + len(example.scored)]
        assert example.scored[-1] == renderer.end_of_turn
    said = renderer.tokenizer.decode(examples[-1].context + examples[-1].scored)
    assert "Name a" in said
    assert "Question" not in said


said = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and "<" not in text)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(["seeker", "supporter"]), said), min_size=1, max_size=5),
    st.sampled_from([*TEMPLATES]),
)
def test_contexts_are_the_whole_template_whatever_is_said(lines: list[tuple[str, str]], template: str) -> None:
    conversation = talk(*((who, text, "Question") if who == "supporter" else (who, text) for who, text in lines))
    for mode in MODES:
        assert_contexts_are_the_whole(renderer_of(template), conversation, mode)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("mode", MODES)
def test_every_example_is_the_whole_template_up_to_its_reply(template: str, mode: PastStrategies) -> None:
    """Context, label and text, put together, are the chat whose last reply shows its strategy."""
    renderer = renderer_of(template)
    for conversation in load_corpus("starter").valid:
        shown = strategies_shown(conversation, mode)
        for turn in supporter_turns(conversation):
            assert turn.strategy is not None
            reply = Message("assistant", reply_text(turn.strategy, turn.text or ""))
            whole = whole_ids(renderer, [*to_messages(conversation.path(turn.parent), shown), reply])
            for part in PARTS:
                example = renderer.example(conversation, turn, part, shown)
                ids = (*example.context, *example.given, *example.scored)
                assert ids == whole[: len(ids)]
                assert part == "planner" or ids[-1] == renderer.end_of_turn == whole[len(ids) - 1]


@pytest.mark.parametrize("template", TEMPLATES)
def test_there_is_one_bos_at_most_and_the_system_text_stands_in_every_context(template: str) -> None:
    renderer = renderer_of(template)
    tokenizer = renderer.tokenizer
    plain = tokenizer("a")["input_ids"]
    assert (plain[0] == tokenizer.bos_token_id) == (tokenizer.bos_token is not None), "the template must not rely on it"
    system = renderer.system("coupled", "Question").content
    context = tokenizer.decode(renderer.context([], {}, 0).ids)
    assert context.count(system) == 1
    assert tokenizer.bos_token is None or context.count(tokenizer.bos_token) == 1
    assert all(label in system for label in ESCONV.labels)
    assert "helpful assistant" not in context, "the template's default system text gives way to ours"


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_end_of_turn_is_the_templates_own(template: str) -> None:
    ends = {"chatml": "<|im_end|>", "headers": "<|eot_id|>", "alternating": "<end_of_turn>"}
    renderer = renderer_of(template)
    assert renderer.tokenizer.convert_ids_to_tokens(renderer.end_of_turn) == ends[template]


# ------------------------------------------------------------------------------------------------- a reply's own tokens


def assert_label_and_text_are_the_reply(renderer: Renderer, turns: Sequence[Turn]) -> None:
    """What is trained is what the history shows later, token for token."""
    context = renderer.context([], {}, 0).text
    for turn in turns:
        label, text = renderer.reply_ids(context, str(turn.strategy), turn.text or "")
        assert text[-1] == renderer.end_of_turn
        assert label == renderer.label_ids(context, str(turn.strategy))
        said = renderer.template.encoder.masked(reply_text(turn.strategy, turn.text or ""))
        assert label + text[:-1] == renderer.template.encoder.continued(context, [said])[0]


@pytest.mark.corpus
@pytest.mark.parametrize("template", TEMPLATES)
def test_label_and_text_are_the_tokens_of_the_reply_in_esconv(template: str, esconv: Esconv) -> None:
    for conversation in (*esconv.valid, *esconv.train):
        assert_label_and_text_are_the_reply(
            renderer_of(template), supporter_turns(conversation)[:: 1 if template == "chatml" else 5]
        )


@settings(deadline=None)
@given(said, st.sampled_from(ESCONV.labels), st.sampled_from([*TEMPLATES]))
def test_label_and_text_are_the_tokens_of_any_reply(text: str, label: str, template: str) -> None:
    turns = supporter_turns(talk(("supporter", text, label)))
    assert_label_and_text_are_the_reply(renderer_of(template), turns)


# -------------------------------------------------------------------------------------------------------- the turn rule


@pytest.mark.corpus
def test_messages_are_those_of_decoupled_esc(esconv: Esconv, data_dir: Path) -> None:
    published = json.loads((data_dir / "esconv/valid_messages.json").read_text(encoding="utf-8"))
    assert len(published) == len(esconv.valid) == 130
    for theirs, conversation in zip(published, esconv.valid, strict=True):
        assert conversation.id == f"esconv-{theirs['id']}"
        trunk = conversation.trunk
        last = max(index for index, turn in enumerate(trunk) if turn.speaker == "supporter")
        ours = to_messages(trunk[: last + 1], past_strategies(conversation, "gold"))
        assert ours.pop() == Message("user", " ", filler=True), "room for one more reply"
        assert [message.role for message in ours] == [message["role"] for message in theirs["messages"][1:]]
        for message, other in zip(ours, theirs["messages"][1:], strict=True):
            assert message.content.strip() == other["content"].strip()
            assert not message.filler or message.content == other["content"], "fillers are theirs to the space"


def test_the_turn_rule_by_hand() -> None:
    conversation = talk(
        ("supporter", " Hello. ", "Others"),
        ("seeker", "One. "),
        ("seeker", " Two."),
        ("supporter", "Three?", "Question"),
        ("supporter", "Four."),
        ("seeker", "Five."),
    )
    assert to_messages(conversation.trunk, past_strategies(conversation, "gold")) == [
        Message("user", "Hi", filler=True),
        Message("assistant", "[Others] Hello."),
        Message("user", "One.\nTwo."),
        Message("assistant", "[Question] Three?"),
        Message("user", " ", filler=True),
        Message("assistant", "Four."),
        Message("user", "Five."),
    ]
    assert to_messages([], {}) == [Message("user", "Hi", filler=True)]
    assert to_messages(conversation.trunk[:1], {})[1:] == [
        Message("assistant", "Hello."),
        Message("user", " ", filler=True),
    ]


def test_past_strategies_are_gold_predicted_or_hidden() -> None:
    conversation = talk(
        ("seeker", "a"), ("supporter", "b", "Question"), ("supporter", "c"), ("supporter", "d", "Others")
    )
    assert past_strategies(conversation, "hidden", {"1": "Others"}) == {}
    assert past_strategies(conversation, "predicted", {"1": "Others"}) == {"1": "Others"}
    assert past_strategies(conversation, "predicted") == {}
    assert past_strategies(conversation, "gold", {"1": "Others"}) == {"1": "Question", "3": "Others"}
    assert [turn.id for turn in supporter_turns(conversation)] == ["1", "3"]


def test_rendering_leaves_the_tree_alone_and_marks_every_filler() -> None:
    for conversation in load_corpus("starter").train:
        turns = list(conversation.turns)
        messages = to_messages(conversation.trunk, past_strategies(conversation, "gold"))
        assert conversation.turns == turns
        spoken = {text for turn in turns for text in (turn.text or "").split("\n")}
        for message in messages:
            if message.filler:
                assert (message.role, message.content) in (("user", "Hi"), ("user", " "))
                assert message.content not in spoken
            elif message.role == "user":
                assert set(message.content.split("\n")) <= spoken


# ---------------------------------------------------------------------------------------------------------- truncation


def long_talk(exchanges: int) -> Conversation:
    """Seeker and supporter in turn; the lines differ in length."""
    lines: list[tuple[str, str] | tuple[str, str, str]] = []
    for number in range(exchanges):
        lines.append(("seeker", f"{number}: I do not know{' what to do' * (number % 3)}."))
        lines.append(("supporter", f"{number}: Tell me more{' about it' * (number % 4)}.", "Question"))
    return talk(*lines, ("seeker", "And now?"), ("supporter", "Rest.", "Others"))


def without_oldest(path: Sequence[Turn], exchanges: int) -> list[Turn]:
    """The path without its first exchanges (of one seeker and one supporter turn each)."""
    return list(path[2 * exchanges :])


def longest_label(renderer: Renderer) -> int:
    """Tokens of the longest label of the taxonomy."""
    context = renderer.context([], {}, 0).text
    return max(len(renderer.label_ids(context, label)) for label in ESCONV.labels)


def limited(renderer: Renderer, max_context: int) -> Renderer:
    """The same renderer with another limit."""
    other = copy.copy(renderer)
    other.max_context = max_context
    return other


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_context_loses_its_oldest_exchanges_and_nothing_else(template: str) -> None:
    conversation, renderer = long_talk(6), renderer_of(template)
    path, shown = conversation.trunk[:-1], past_strategies(conversation, "gold")
    whole = [renderer.context(without_oldest(path, dropped), shown, 0) for dropped in range(7)]
    assert [context.dropped for context in whole] == [0] * 7
    lengths = [len(context.ids) for context in whole]
    for limit in range(lengths[-1], lengths[0] + 2):
        context = limited(renderer, limit).context(path, shown, 0)
        fits = next(count for count, length in enumerate(lengths) if length <= limit)
        assert context == whole[fits]._replace(dropped=fits), "no more than needed goes; the newest exchanges stay"
        assert limited(renderer, limit + 7).context(path, shown, 7) == context, "what follows has room"
    with pytest.raises(CorpusError, match="1 tokens longer than max_context"):
        limited(renderer, lengths[-1] - 1).context(path, shown, 0)


def test_training_and_inference_drop_the_same() -> None:
    conversation = long_talk(8)
    shown = past_strategies(conversation, "gold")
    full = tiny_renderer().context(conversation.trunk, shown, 0)
    longest = longest_label(tiny_renderer())
    renderer = limited(tiny_renderer(), len(full.ids) - 60)
    dropped = []
    for turn in supporter_turns(conversation):
        text = renderer.reply_ids(full.text, str(turn.strategy), turn.text or "")[1]
        for part in PARTS:
            for label in ESCONV.labels:
                example = renderer.example(conversation, replace(turn, strategy=label), part, shown)
                reserve = longest + (0 if part == "planner" else len(text))
                context = renderer.context(conversation.path(turn.parent), shown, reserve)
                assert (example.context, example.dropped) == context[1:], "every label is scored on one context"
                assert len(example.context + example.given + example.scored) <= renderer.max_context
            dropped.append(example.dropped)
    assert dropped[0] == 0
    assert dropped[-1] > 1


def test_a_reply_that_cannot_fit_is_an_error_that_says_by_how_much() -> None:
    conversation = talk(("seeker", "Well. " * 80), ("supporter", "Go on.", "Question"))
    turn = conversation.turn("1")
    example = tiny_renderer().example(conversation, turn, "generator", {})
    reserved = longest_label(tiny_renderer()) + len(example.scored)
    needed = len(example.context) + reserved
    fits = limited(tiny_renderer(), needed)
    assert fits.example(conversation, turn, "generator", {}) == example
    with pytest.raises(CorpusError) as error:
        limited(tiny_renderer(), needed - 3).example(conversation, turn, "generator", {})
    assert str(error.value) == (
        "the reply after turn '0' and the message before it are 3 tokens longer than max_context "
        f"{needed - 3}: raise model.max_context or shorten that turn."
    )


# ---------------------------------------------------------------------------------------------------------- pretraining


def scored_messages(renderer: Renderer, conversation: Conversation) -> list[str]:
    return [renderer.tokenizer.decode(example.scored) for example in renderer.dialogue(conversation, {})]


def test_pretraining_scores_what_both_say_and_no_filler() -> None:
    conversation = talk(
        ("supporter", "Hello.", "Others"),
        ("supporter", "How are you?", "Question"),
        ("seeker", "Bad."),
        ("seeker", "Tired."),
        ("supporter", "I see."),
    )
    for template, end in (("chatml", "<|im_end|>"), ("headers", "<|eot_id|>"), ("alternating", "<end_of_turn>")):
        renderer = renderer_of(template)
        spoken = ["Hello.", "How are you?", "Bad.\nTired.", "I see."]
        assert scored_messages(renderer, conversation) == [text + end for text in spoken]
        after = first_turns(conversation, 4)
        assert scored_messages(renderer, after) == [text + end for text in spoken[:3]], "the seeker's last words count"
        for example in renderer.dialogue(conversation, {}):
            whole = whole_ids(renderer, to_messages(conversation.trunk, {})[:-1])
            ids = (*example.context, *example.given, *example.scored)
            assert ids == whole[: len(ids)]


def test_pretraining_shows_the_strategies_it_is_given() -> None:
    conversation = talk(("seeker", "Hm."), ("supporter", "Go on.", "Question"))
    examples = tiny_renderer().dialogue(conversation, past_strategies(conversation, "gold"))
    assert tiny_tokenizer().decode(examples[1].scored) == "[Question] Go on.<|im_end|>"


def test_pretraining_on_a_long_dialogue_loses_its_oldest_exchanges() -> None:
    conversation = long_talk(8)
    full = tiny_renderer().dialogue(conversation, {})
    limit = len(full[-1].context) - 50
    examples = limited(tiny_renderer(), limit).dialogue(conversation, {})
    assert [example.scored for example in examples] == [example.scored for example in full[len(full) - len(examples) :]]
    assert 0 < len(examples) < len(full)
    assert (len(full) - len(examples)) % 2 == 0, "whole exchanges are lost"
    assert max(len(example.context) + len(example.scored) for example in examples) <= limit
    opening = tiny_renderer().tokenizer.decode(examples[0].context)
    assert opening.endswith(".<|im_end|>\n<|im_start|>user\n")
    assert opening.count("<|im_start|>") == 2, "the system text stays"
    assert {example.dropped for example in examples} == {(len(full) - len(examples)) // 2}, "what is lost is counted"


def test_pretraining_on_an_exchange_that_cannot_fit_is_an_error() -> None:
    conversation = talk(("seeker", "Hm. " * 90), ("supporter", "Yes."), conversation_id="long")
    with pytest.raises(CorpusError) as error:
        limited(tiny_renderer(), 256).dialogue(conversation, {})
    sentence = "the last exchange of conversation 'long' is longer than max_context 256"
    assert str(error.value) == f"{sentence}: raise model.max_context or shorten that exchange."


def test_pretraining_reads_no_planned_turn() -> None:
    conversation = small_tree()
    grown = conversation.grow([Turn("q", "2", "supporter", None, "Question", source="model")])
    assert grown.trunk[-1].planned
    assert tiny_renderer().dialogue(grown, {}) == tiny_renderer().dialogue(conversation, {})


def test_nothing_said_gives_nothing_to_pretrain_on() -> None:
    assert tiny_renderer().dialogue(Conversation("empty", []), {}) == []
