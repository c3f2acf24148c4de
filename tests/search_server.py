"""A chat server that plays the four roles of a search, each answer decided by hashing what is asked.

python -m tests.search_server [--delay SECONDS] [--faults]      # as tests/server.py
"""

import json
from typing import Any

from tests.server import ChatServer, draw, main, reply_fault

_SCORES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_WORDS = ("rest", "talk", "exam", "sleep", "friends", "tomorrow", "work", "call", "walk", "listen", "week", "home")


class SearchServer(ChatServer):
    """Knows a role by what it is asked; its faults are the other server's."""

    def _reply(self, body: dict[str, Any]) -> tuple[str | None, str | None, str]:
        messages = body["messages"]
        fields = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties")
        question = json.dumps([messages[:2] if fields else messages, body.get("seed")])
        repairing = bool(fields) and len(messages) > 2
        good = _scores(question, fields, messages) if fields else _words(question, messages)
        fault = reply_fault(self.behaviour, question)
        if fault is not None:
            self.faults[fault] += 1
        match fault:
            case "refusal":
                return None, "I cannot do this.", "stop"
            case "filtered":
                return "", None, "content_filter"
            case "fenced" if fields:
                return f"```json\n{good}\n```", None, "stop"
            case "broken" | "wrong" | "broken_twice" | "wrong_twice" if fields and (
                not repairing or str(fault).endswith("twice")
            ):
                return good[: len(good) // 2], None, "stop"
            case _:
                return good, None, "stop"


def _scores(question: str, fields: dict[str, Any], messages: list[dict[str, str]]) -> str:
    if "scores" in fields:
        told = messages[0]["content"]
        labels = [line[2:].partition(":")[0] for line in told.splitlines() if line.startswith("- ") and ":" in line]
        scores = [{"strategy": label, "score": int(draw(label, question) * 11)} for label in labels]
        return json.dumps({"scores": scores})
    drawn = {name: _SCORES[int(draw(name, question) * len(_SCORES))] for name in fields if name != "explanation"}
    return json.dumps({"explanation": "It fits.", **drawn})


def _words(question: str, messages: list[dict[str, str]]) -> str:
    seeker = "[END]" in messages[0]["content"]
    if seeker and draw("end", question) < 0.04 * (len(messages) - 4):
        return "[END]"
    said = " ".join(_WORDS[int(draw(place, question) * len(_WORDS))] for place in range(8))
    return f"{'I think of' if seeker else 'You could think of'} {said}."


if __name__ == "__main__":
    main(kind=SearchServer)
