"""Verdicts of an annotator into conversation trees: each turn once, and a stopped annotation is continued."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from esckit.conversation import Conversation, Verdict, conversation_to_json
from esckit.conversation.disk import iterate_conversations
from esckit.files import resume_jsonl
from esckit.judging.annotator import RUBRIC, Annotator, case_of, open_turns
from esckit.progress import progress

__all__ = ["Annotated", "annotate", "with_verdicts"]


class Annotated(NamedTuple):
    """What an annotation found.

    Attributes:
        turns: with a verdict of this judge.
        new: of these, the ones judged now.
        open: supporter turns that could not be judged; the same annotation again tries them again.
        outcomes: error types, "none", and for verdicts that are not done their state, with their counts.
    """

    turns: int
    new: int
    open: int
    outcomes: Counter[str]


def annotate(conversations: Sequence[Conversation], annotator: Annotator, out: Path) -> Annotated:
    """Write conversations with a verdict for every supporter turn that has a text.

    Turns that this judge has judged are left as they are; a stopped annotation goes on where it stopped.

    Args:
        conversations: trees; in English, unless the annotator reads other languages.
        annotator: who judges.
        out: the JSON Lines file of trees to write.

    Raises:
        EsckitError: the annotator cannot go on, or the file cannot be written; what was judged is kept.
    """
    todo = [open_turns(conversation, annotator.judge) for conversation in conversations]
    texts = repr([conversation_to_json(conversation) for conversation in conversations])
    key = ["annotate/1", annotator.judge, sha256(texts.encode()).hexdigest()]
    with resume_jsonl(out, key, [1] * len(conversations)) as file:
        left = list(zip(conversations, todo, strict=True))[file.done :]
        groups = [[case_of(conversation, turn) for turn in turns] for conversation, turns in left]
        with (
            progress("annotate", len(conversations), file.done) as bar,
            closing(annotator.verdicts(groups)) as judged,
        ):
            for (conversation, turns), verdicts in zip(left, judged, strict=True):
                given = {turn.id: verdict for turn, verdict in zip(turns, verdicts, strict=True) if verdict}
                file.append([conversation_to_json(with_verdicts(conversation, given))])
                bar.advance()
    return _count(out, annotator.judge, sum(map(len, todo)))


def with_verdicts(conversation: Conversation, given: Mapping[str, Verdict]) -> Conversation:
    """The conversation with one more verdict on each of these turns, by id."""
    turns = [
        replace(turn, verdicts=[*turn.verdicts, given[turn.id]]) if turn.id in given else turn
        for turn in conversation.turns
    ]
    return replace(conversation, turns=turns)


def _count(out: Path, judge: str, asked: int) -> Annotated:
    outcomes: Counter[str] = Counter()
    missed = 0
    for conversation in iterate_conversations(out):
        missed += len(open_turns(conversation, judge))
        for verdict in (verdict for turn in conversation.turns for verdict in turn.verdicts):
            if verdict.judge == judge and verdict.rubric == RUBRIC:
                outcomes[(verdict.error or "none") if verdict.state == "done" else verdict.state] += 1
    return Annotated(outcomes.total(), asked - missed, missed, outcomes)
