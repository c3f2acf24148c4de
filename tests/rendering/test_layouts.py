"""What each part reads and says in the layout ``paper``, and that training and inference read the same in both."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Final, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.conversation import Conversation, Preference, Turn
from esckit.conversation.turn_rule import reply_text, to_messages
from esckit.corpora import load_corpus, read_corpus
from esckit.prompts import load_prompt
from esckit.rendering import Layout, Message, OwnLayout, Part, PastStrategies, Renderer, supporter_turns
from esckit.rendering.layouts import reads_lines
from esckit.rendering.told import Told
from esckit.strategy import ESCONV
from tests.tiny import TEMPLATES, strategies_shown, talk, tokenizer_with

LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)
PARTS: Final[tuple[Part, ...]] = get_args(Part)
PLANNING: Final[tuple[Part, ...]] = ("planner", "coupled")
WORDING: Final[tuple[Part, ...]] = ("generator", "coupled")
MODES: Final[tuple[PastStrategies, ...]] = get_args(PastStrategies)
STRATEGIES: Final = ", ".join(ESCONV.labels)


@cache
def renderer_of(template: str, layout: Layout, max_context: int = 100_000) -> Renderer:
    """A renderer of the tiny tokenizer under one of the template families."""
    return Renderer(tokenizer_with(template), ESCONV, max_context=max_context, layout=layout)


def chat_of(
    layout: Layout | OwnLayout, part: Part, history: Sequence[Message], strategy: str, text: str
) -> list[Message]:
    """The whole chat, system message first, that a turn of a part is: by hand, message by message."""
    messages, reply = list(history), reply_text(strategy, text)
    system = load_prompt("support", "system", strategies=STRATEGIES)
    if layout == "paper":
        slots = {"strategy": strategy} if part == "generator" else {"strategies": STRATEGIES}
        system = load_prompt("decoupled_esc", part, **slots)
    if (layout, part) == ("paper", "planner"):
        marks = {"user": "seeker:", "assistant": "supporter:"}
        lines = [f"{marks[m.role]} {m.content.strip()}" if m.content.strip() else marks[m.role] for m in messages]
        messages, reply = [Message("user", "\n".join(lines))], strategy
    elif (layout, part) == ("paper", "generator"):
        reply = text.strip()
    return [Message("system", system), *messages, Message("assistant", reply)]


def in_chinese(conversation: Conversation) -> Conversation:
    """A dialogue that says it is Chinese, opened by the supporter, with two replies in a row."""
    said = [("supporter", "你好。", "Others"), ("supporter", "最近怎么样？", "Question"), ("seeker", "睡不好。", None)]
    said += [("supporter", "听起来很累。", "Reflection of feelings")]
    turns: list[Turn] = []
    for place, (speaker, text, strategy) in enumerate(said):
        turns.append(Turn(str(place), turns[-1].id if turns else None, speaker, text, strategy))  # type: ignore[arg-type]
    return replace(conversation, turns=turns, language="zh")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_chinese_dialogue_is_told_in_chinese_and_labels_stay(layout: Layout) -> None:
    conversation = in_chinese(load_corpus("starter").valid[0])
    renderer = renderer_of("chatml", layout)
    shown = {turn.id: str(turn.strategy) for turn in supporter_turns(conversation)}
    last = conversation.trunk[-1]
    both = "Question（提问）、Restatement or Paraphrasing（复述）、"
    for part in PARTS:
        example = renderer.example(conversation, last, part, shown)
        context, said = (renderer.tokenizer.decode(ids) for ids in (example.context, (*example.given, *example.scored)))
        text = renderer.context(conversation.trunk[:-1], shown, 0, part, last.strategy, Told(language="zh")).text
        assert example.context == renderer.template.encoder.encode(text)
        assert "你在陪伴" in text or "你替支持者作计划" in text
        assert not re.search("Listen|seeker", text)
        if (layout, part) == ("paper", "generator"):
            assert "你下一次回复的策略：Reflection of feelings（情感反映）。" in context
            assert said.startswith("听起来很累。")
        else:
            assert both in context
            assert said.startswith(
                "Reflection of feelings" if reads_lines(layout, part) else "[Reflection of feelings]"
            )
        if reads_lines(layout, part):
            assert (
                "求助者：你好\n支持者：[Others] 你好。\n求助者：\n支持者：[Question] 最近怎么样？\n求助者：睡不好。"
                in text
            )
        else:
            assert [m.content for m in to_messages(conversation.trunk[:2], {}, "zh")] == [
                "你好",
                "你好。",
                " ",
                "最近怎么样？",
                " ",
            ]


def test_what_is_read_in_english_is_what_it_was_before_there_was_chinese() -> None:
    """Old runs go on: the digest is of the texts before prompts had languages."""
    digest = sha256()
    for layout, part in product(LAYOUTS, PARTS):
        renderer = renderer_of("chatml", layout)
        for conversation in load_corpus("starter").test:
            shown = strategies_shown(conversation, "gold")
            for turn in supporter_turns(conversation):
                example = renderer.example(conversation, turn, part, shown)
                digest.update(repr((example.context, example.given, example.scored)).encode())
    assert digest.hexdigest() == "96b9398cba4b9e23220d13aef3ea8b1d0f8f271cc5da6d202a90b0201335dff8"


def whole_ids(renderer: Renderer, chat: Sequence[Message]) -> tuple[int, ...]:
    """What the tokenizer itself makes of it."""
    messages = [{"role": message.role, "content": message.content} for message in chat]
    if "System role not supported" in renderer.tokenizer.chat_template:
        system, first, *others = messages
        messages = [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *others]
    return tuple(renderer.tokenizer.apply_chat_template(messages, return_dict=False, date_string="01 January 2025"))


def assert_examples_are_the_whole(renderer: Renderer, conversation: Conversation, mode: PastStrategies) -> None:
    """Every target of every part is its chat, up to the end of its turn."""
    shown = strategies_shown(conversation, mode)
    for turn in supporter_turns(conversation):
        history, strategy = to_messages(conversation.path(turn.parent), shown), str(turn.strategy)
        for part in PARTS:
            example = renderer.example(conversation, turn, part, shown)
            ids = (*example.context, *example.given, *example.scored)
            whole = whole_ids(renderer, chat_of(renderer.layout, part, history, strategy, turn.text or ""))
            assert ids == whole[: len(ids)]
            if renderer.layout == "paper" or part != "planner":
                assert ids[-1] == renderer.end_of_turn
                assert renderer.end_of_turn not in whole[len(ids) :]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_target_is_the_whole_template_on_the_starter_corpus(template: str, layout: Layout) -> None:
    for conversation, mode in zip(load_corpus("starter").valid, MODES, strict=False):
        assert_examples_are_the_whole(renderer_of(template, layout), conversation, mode)


@pytest.mark.corpus
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_target_is_the_whole_template_on_esconv(template: str, layout: Layout, data_dir: Path) -> None:
    for index, conversation in enumerate(read_corpus(data_dir / "esconv/valid.json", "esconv")[::20]):
        assert_examples_are_the_whole(renderer_of(template, layout), conversation, MODES[index % 3])


said = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and "<" not in text)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(["seeker", "supporter"]), said), min_size=1, max_size=5),
    st.sampled_from([*TEMPLATES]),
)
def test_the_papers_targets_are_the_whole_template_whatever_is_said(
    lines: list[tuple[str, str]], template: str
) -> None:
    conversation = talk(*((who, text, "Question") if who == "supporter" else (who, text) for who, text in lines))
    for mode in MODES:
        assert_examples_are_the_whole(renderer_of(template, "paper"), conversation, mode)


def test_the_papers_layout_by_hand() -> None:
    conversation = talk(
        ("supporter", "Hello.", "Others"),
        ("seeker", "I failed."),
        ("seeker", "Again."),
        ("supporter", "At what?", "Question"),
        ("supporter", "Take your time.", "Others"),
    )
    renderer = renderer_of("chatml", "paper")
    decode, shown = renderer.tokenizer.decode, {"0": "Others", "3": "Question"}

    def shows(part: Part, known: dict[str, str]) -> tuple[str, str, str]:
        example = renderer.example(conversation, conversation.turns[-1], part, known)
        return decode(example.context).split("<|im_start|>", 2)[2], decode(example.given), decode(example.scored)

    assert shows("planner", {}) == (
        "user\nseeker: Hi\nsupporter: Hello.\nseeker: I failed.\nAgain.\nsupporter: At what?\nseeker:<|im_end|>\n"
        "<|im_start|>assistant\n",
        "",
        "Others<|im_end|>",
    )
    assert "supporter: [Question] At what?\n" in shows("planner", shown)[0]
    chat = (
        "user\nHi<|im_end|>\n<|im_start|>assistant\n{}Hello.<|im_end|>\n<|im_start|>user\nI failed.\nAgain.<|im_end|>\n"
        "<|im_start|>assistant\n{}At what?<|im_end|>\n<|im_start|>user\n <|im_end|>\n<|im_start|>assistant\n"
    )
    assert shows("generator", {}) == (chat.format("", ""), "", "Take your time.<|im_end|>")
    assert shows("coupled", shown) == (
        chat.format("[Others] ", "[Question] "),
        "",
        "[Others] Take your time.<|im_end|>",
    )
    assert renderer.system("generator", "Others").content.endswith("your next reply: Others.")
    assert "Others" not in renderer.system("generator", "Question").content
    assert renderer.system("planner", "Others") == renderer.system("planner", "Question")


@pytest.mark.parametrize("limit", [100_000, 420])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_training_and_inference_read_the_same(template: str, layout: Layout, limit: int) -> None:
    renderer, dropped = renderer_of(template, layout, limit), 0
    for conversation in load_corpus("starter").valid[:3]:
        shown = strategies_shown(conversation, "gold")
        for turn in supporter_turns(conversation):
            strategy = str(turn.strategy)
            for part in PLANNING:
                choices = renderer.choices(conversation, turn, part, shown)
                assert len({choice.context for choice in choices}) == 1
                example = renderer.example(conversation, turn, part, shown)
                gold = choices[ESCONV.labels.index(strategy)]
                assert example.scored[: len(gold.scored)] == gold.scored
                assert part == "coupled" or (example.context, example.dropped) == (gold.context, gold.dropped)
                dropped += gold.dropped
            for part in WORDING:
                example = renderer.example(conversation, turn, part, shown)
                context = renderer.context(conversation.path(turn.parent), shown, 0, part, strategy).text
                _, text = renderer.reply_ids(context, strategy, turn.text or "", part)
                prompt = renderer.prompt(conversation, turn, part, shown, len(text))
                assert (*prompt, *text) == (*example.context, *example.given, *example.scored)
    assert (dropped > 0) == (limit == 420)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pair_is_two_targets_on_one_context(layout: Layout, part: Part) -> None:
    conversation = talk(("seeker", "Hm."), ("supporter", "Go on.", "Question"))
    label, text = ("Question", "Stop.") if part == "generator" else ("Others", None if part == "planner" else "Stop.")
    aspects: dict[Part, Preference] = {
        "planner": Preference("1", "m", "strategy"),
        "generator": Preference("1", "m", "response"),
        "coupled": Preference("1", "m", "turn"),
    }
    rejected = Turn("m", "0", "supporter", text, label, source="model")
    tree = conversation.grow([rejected], [aspects[part]])
    renderer = renderer_of("headers", layout)
    pair = renderer.pair(tree, aspects[part], part, {})
    assert pair.chosen == renderer.example(tree, tree.turn("1"), part, {})
    assert pair.rejected == renderer.example(tree, rejected, part, {})
    assert pair.chosen.context == pair.rejected.context


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_label_of_a_part_begins_another(layout: Layout) -> None:
    """Else the probabilities of two labels would overlap."""
    renderer = renderer_of("chatml", layout)
    for part in PLANNING:
        context = renderer.context([], {}, 0, part).text
        labels = [renderer.label_ids(context, label, part) for label in ESCONV.labels]
        for one in labels:
            assert [other[: len(one)] for other in labels].count(one) == 1
