"""A thought, in whatever marks, is taken off; what never ended is no reply."""

import pytest

from esckit.conversation.thoughts import opened_thought, split_thought, without_thought

SAID = "[Question] What happened then?"
THOUGHT = 'They sound alone.\n[Reflection of feelings] might fit. Draft: {"score": 1}. No.'

PAIRS = [
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think|>", "<|/think|>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("analysis", "assistantfinal"),
    ("Here is my thought process:", "\nHere is my response:"),
]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
@pytest.mark.parametrize("before", ["", "\n", "Okay.\n"])
@pytest.mark.parametrize("between", ["", "\n", "\n\n", " "])
def test_a_thought_is_taken_off(opening: str, closing: str, before: str, between: str) -> None:
    if before.strip() and opening in ("analysis", "Here is my thought process:"):
        pytest.skip("these are words, and marks only where a text begins with them")
    assert without_thought(f"{before}{opening}{THOUGHT}{closing}{between}{SAID}") == SAID


@pytest.mark.parametrize("thought", ["", "\n\n", "\n", THOUGHT])
def test_an_empty_thought_is_one(thought: str) -> None:
    assert without_thought(f"<think>{thought}</think>\n\n{SAID}") == SAID


@pytest.mark.parametrize("closing", [closing for _, closing in PAIRS])
def test_a_template_may_have_opened_the_thought(closing: str) -> None:
    text = f"{THOUGHT}{closing}\n\n{SAID}"
    assert without_thought(text) == SAID
    assert without_thought(text, opened=True) == SAID


@pytest.mark.parametrize("opening", [opening for opening, _ in PAIRS])
def test_a_thought_that_never_ended_leaves_no_reply(opening: str) -> None:
    assert without_thought(opening + THOUGHT) is None
    assert without_thought(f"\n {opening}{THOUGHT}") is None


@pytest.mark.parametrize("text", ["<think", "<think>", "Sure!\n<think>\nThey", "<think>a</think>\n<think>They sound"])
def test_wherever_it_was_cut(text: str) -> None:
    assert without_thought(text) is None


def test_what_a_template_opened_and_nobody_closed_is_all_thought() -> None:
    assert without_thought(f"{THOUGHT}\n{SAID}", opened=True) is None
    assert without_thought(f"{THOUGHT}\n{SAID}") == f"{THOUGHT}\n{SAID}"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>One.\n<think>Two.</think>\n{SAID}",
        f"<think>One.</think>{SAID[:4]}\n<think>Two.</think>\n{SAID}",
        f"One, as </think> says.</think>{SAID}",
        f"<think>One.</think>\n<answer>\n{SAID}\n</answer>",
        f"<think>One.</think>\n<response>\n{SAID}",
        f"<|START_THINKING|>One.<|END_THINKING|><|START_RESPONSE|>{SAID}<|END_RESPONSE|>",
        f"<|begin_of_thought|>One.<|end_of_thought|>\n\n<|begin_of_solution|>\n{SAID}\n<|end_of_solution|>",
        f"<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>final<|message|>{SAID}<|return|>",
    ],
)
def test_everything_up_to_the_last_mark_goes(text: str) -> None:
    assert without_thought(text) == SAID


@pytest.mark.parametrize(
    "text",
    [
        "",
        SAID,
        f"  {SAID}\n",
        "I think > you < think so. Analysis of it [thinking aloud] is hard.",
        "analysis is not what you need now.",
        "A <thinker> might say so; <b>think</b>.",
        '{"explanation": "it has a stray </think> and a <think>", "score": 1}',
        '[{"score": 1, "note": "<think>"}]',
    ],
)
def test_a_text_without_a_thought_stays_as_it_is(text: str) -> None:
    assert without_thought(text) == text


def test_nothing_may_be_left() -> None:
    assert without_thought("<think>They sound alone.</think>\n") == ""


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("[/INST][THINK]", "[THINK]"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("I <think> so.\n<|im_start|>assistant\n", ""),
        ("", ""),
    ],
)
def test_what_a_prompt_opens(prompt: str, mark: str) -> None:
    assert opened_thought(prompt) == mark


@pytest.mark.parametrize("text", [SAID, f"<think>One.</think>\n{SAID}", "<think>One.", f"One.</think>{SAID}"])
def test_nothing_is_lost_between_thought_and_reply(text: str) -> None:
    thought, said = split_thought(text)
    assert "".join(f"{thought}{said or ''}".split()) == "".join(text.split())
    assert said == without_thought(text)
