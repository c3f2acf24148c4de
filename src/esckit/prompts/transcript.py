"""Dialogue text inside a prompt: always data, never an instruction.

A turn is one line of JSON, so that no text can end its line or its quotes, forge a turn or close the transcript. What
chat templates, prompt slots and fences are made of (``<|im_end|>``, ``[INST]``, ``{{slot}}``, three backticks) is
escaped too: no tokenizer finds a control token in it, no template a mark, and nothing of the text is lost.
"""

import json
import re
from collections.abc import Iterable
from typing import Final

from esckit.conversation import Turn

_MARKS: Final = re.compile(
    r"[<>{}\[\]|`\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\U000e0000-\U000e007f]|[\ud800-\udfff]"
)
"""Brackets and marks of templates; characters that end a line or that nobody sees."""


def quote(text: str) -> str:
    """A text as a JSON string that holds no mark and no line end; ``json.loads`` gives the text back."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _MARKS.sub(
        lambda match: json.dumps(match[0])[1:-1] if ord(match[0]) > 0xFFFF else f"\\u{ord(match[0]):04x}", quoted
    )


NOTHING_SAID: Final = {"en": "(nothing was said before)", "zh": "（此前没有说过话）"}
"""What stands in the place of a transcript of nothing, by language; English in any other."""


def talk_before(turns: Iterable[Turn], language: str = "en", *, strategies: bool = False) -> str:
    """`transcript`, or words that say that there is nothing."""
    return transcript(turns, strategies=strategies) or NOTHING_SAID.get(language, NOTHING_SAID["en"])


def transcript(turns: Iterable[Turn], *, strategies: bool = False) -> str:
    """Turns as lines of JSON, numbered from 1, for the slot of a prompt; ``strategies`` shows the supporter's."""
    lines = []
    for number, turn in enumerate(turns, 1):
        label = f', "strategy": {quote(turn.strategy)}' if strategies and turn.strategy else ""
        lines.append(f'"turn": {number}, "speaker": "{turn.speaker}"{label}, "text": {quote(turn.text or "")}')
    return "\n".join(f"{{{line}}}" for line in lines)
