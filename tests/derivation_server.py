"""A chat server that plays a deriver, for tests and benchmarks: what it writes is made by rule from what it is asked.

python -m tests.derivation_server [--delay SECONDS] [--faults]      # as tests/server.py
"""

import json
import re
from typing import Any, Final

from esckit.roles.telling import TELLING
from tests.server import ChatServer, draw, main, reply_fault

_LINE: Final = re.compile(r'^\{"exchange": .*\}$', re.MULTILINE)
_MARK: Final = re.compile(r'(?:words "|写出“|有“)([^"”]+)["”]')
_PHASES: Final = ("exploration", "exploration", "exploration", *("comforting",) * 3, "action", "action")
_EN: Final = (
    "There is one more thing, number {0} of {1}, that I have to tell.",
    "I hear it, {1} times and more, number {0}.",
)
_ZH: Final = ("还有一件事我想说出来，是第{0}件，编号{1}。", "我听到了，你说的第{0}件事，我记着，编号{1}。")


class DerivationServer(ChatServer):
    """Knows a step by the schema that it is asked for; its faults are the other server's."""

    def _reply(self, body: dict[str, Any]) -> tuple[str | None, str | None, str]:
        messages = body["messages"]
        question = messages[1]["content"]
        good = json.dumps({"exchanges": _exchanges(question, _fields(body))})
        fault = reply_fault(self.behaviour, question)
        if fault is not None:
            self.faults[fault] += 1
        match fault:
            case "refusal":
                return None, "I cannot do this.", "stop"
            case "filtered":
                return "", None, "content_filter"
            case "fenced":
                return f"```json\n{good}\n```", None, "stop"
            case "broken" | "wrong" | "broken_twice" | "wrong_twice" if len(messages) == 2 or str(fault).endswith(
                "twice"
            ):
                return good[: len(good) // 2], None, "stop"
            case _:
                return good, None, "stop"


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    """What the schema wants of an exchange."""
    schema = body["response_format"]["json_schema"]["schema"]
    found: dict[str, Any] = schema["$defs"]["Exchange"]["properties"]
    return found


def _exchanges(question: str, fields: dict[str, Any]) -> list[dict[str, str]]:
    chinese = "求助者" in question
    labels = fields["strategy"]["enum"]
    if "phase" in fields:
        return [_made(question, labels, place, phase, _ZH if chinese else _EN) for place, phase in enumerate(_PHASES)]
    lines = [json.loads(line) for line in _LINE.findall(question)]
    told = [{name: line.get(name, "") for name in fields} for line in lines]
    if "experience" in fields:
        _tell(told, fields["experience"]["enum"][1], _MARK.findall(question)[0], chinese)
    for place, each in enumerate(told):
        if not lines[place].get("strategy"):
            each["strategy"] = labels[place % len(labels)]
        elif "experience" not in fields:
            each["supporter"] = f"{'嗯，' if chinese else 'Well now, '}{each['supporter']}"
    return told


def _made(question: str, labels: list[str], place: int, phase: str, texts: tuple[str, str]) -> dict[str, str]:
    seeker, supporter = (text.format(place, int(draw(question, place) * 1e9)) for text in texts)
    return {"phase": phase, "seeker": seeker, "strategy": labels[place % len(labels)], "supporter": supporter}


def _tell(told: list[dict[str, str]], experience: str, mark: str, chinese: bool) -> None:
    """In the first turn of the second half whose strategy allows it."""
    for each in told[len(told) // 2 :]:
        if each["strategy"] in TELLING["esconv"]:
            each["experience"] = experience
            each["supporter"] += (
                f"在{mark}里，也有过这样的一天。" if chinese else f" In {mark} there was a day like it."
            )
            return


if __name__ == "__main__":
    main(kind=DerivationServer)
