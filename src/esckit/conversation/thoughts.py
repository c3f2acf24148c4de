"""What a model thinks before it answers is no part of what it says: one rule for every text that a model wrote."""

import json
import re
from typing import Final

__all__ = ["opened_thought", "split_thought", "without_thought"]

_NAME: Final = r"(?:\w+[:_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|scratchpad)"
_FINAL: Final = r"<\|channel\|>\s*final\b[^<\n]*(?:<\|constrain\|>\s*\w*\s*)?<\|message\|>"

_OPENS: Final = re.compile(
    "|".join(
        (
            rf"<\|?{_NAME}\|?\s*(?:>|\Z)",  # <think>, <thinking>, <seed:think>; its last sign may be cut off
            r"\[THINK\]|◁think▷",  # Magistral; Kimi-VL
            r"<\|(?:START_THINKING|begin_of_thought|inner_prefix)\|>",  # Command A; OpenThinker; Apertus
            r"<\|channel\|?>\s*(?:analysis|commentary|thought)\b",  # gpt-oss; Gemma 4
            r"\A\s*analysis(?=[A-Z][\w']* )",  # gpt-oss without its control tokens
            r"\A\s*(?-i:Here(?:'s| is) my thought process):",  # Granite
        )
    ),
    re.IGNORECASE,
)
_CLOSES: Final = re.compile(
    "|".join(
        (
            rf"<\|?/{_NAME}\|?\s*>",
            r"\[/THINK\]|◁/think▷",
            r"<\|(?:END_THINKING|end_of_thought|inner_suffix)\|>",
            rf"{_FINAL}|<channel\|>",
            r"assistantfinal(?:json(?=\s*\{))?",
            r"^\s*Here(?:'s| is) my response:",
        )
    ),
    re.IGNORECASE | re.MULTILINE,
)
_WRAPPED: Final = re.compile(
    r"\A(?:<(?P<name>answer|response)>|<\|(?:START_RESPONSE|START_TEXT|begin_of_solution)\|>)\s*(?P<text>.*?)\s*"
    r"(?:</(?P=name)>|<\|(?:END_RESPONSE|END_TEXT|end_of_solution)\|>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_ENDS: Final = re.compile(r"\s*<\|(?:return|end|call)\|>\s*\Z")


def without_thought(text: str, *, opened: bool = False) -> str | None:
    """A text that a model wrote, without the thought that stands before what it says; a text without one is unchanged.

    Everything up to the last mark that closes a thought goes, whether the mark that opens it is there or not: many chat
    templates write that one themselves. A text that is JSON as a whole is no thought, whatever its strings quote.

    Args:
        text: as it came.
        opened: whether the chat template had opened the thought already.

    Returns:
        What is left, without blanks before it; None where a thought never ended (a limit cut it): nothing was said.
    """
    return split_thought(text, opened=opened)[1]


def split_thought(text: str, *, opened: bool = False) -> tuple[str, str | None]:
    """The thought of a text with its marks, empty where there is none, and what `without_thought` leaves."""
    if _is_json(text):
        return "", text
    closes = list(_CLOSES.finditer(text))
    end = closes[-1].end() if closes else 0
    if _OPENS.search(text, end) or (opened and not closes):
        return text, None
    if not closes:
        return "", text
    said = _ENDS.sub("", text[end:].lstrip())
    wrapped = _WRAPPED.match(said)
    return text[:end], wrapped["text"] if wrapped else said


def opened_thought(prompt: str) -> str:
    """The mark with which a prompt opens the thought that its answer goes on with; empty where it opens none."""
    ends = prompt.rstrip()
    return next((mark[0] for mark in _OPENS.finditer(ends) if mark.end() == len(ends)), "")


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
