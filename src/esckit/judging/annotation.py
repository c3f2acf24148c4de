"""Verdicts of an annotator into conversation trees: each turn once, and a stopped annotation is continued."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from esckit.conversation import Conversation, GrowingTree, Turn, Verdict, conversation_to_json
from esckit.conversation.disk import iterate_conversations
from esckit.files import resume_jsonl
from esckit.judging.evidence import Case
from esckit.progress import progress

__all__ = [
    "RUBRIC",
    "Annotations",
    "Annotator",
    "annotate",
    "case_of",
    "judge_turns",
    "open_turns",
]

RUBRIC: Final = "psychological-errors/1"
"""Name of the rubric in verdicts: one error type of DecoupledESC, appendix A.2, or none."""


class Annotator(Protocol):
    """Finds at most one psychological error in a reply."""

    judge: str
    """Its name in verdicts; changes with anything that its verdicts depend on."""

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        """Judge groups of replies (a dialogue's each) in order; None where a reply could not be judged this time.

        Close it where not all of it is taken.

        Raises:
            EsckitError: the annotator cannot go on; what it has yielded stands.
        """


class Annotations(NamedTuple):
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


def case_of(conversation: Conversation, turn: Turn) -> Case:
    """A supporter turn with a text, after everything that stands before it on its path."""
    return Case(tuple(conversation.path(turn.parent)), turn.strategy, turn.text or "")


def open_turns(conversation: Conversation, judge: str) -> list[Turn]:
    """The supporter turns with a text that this judge has given no verdict under `RUBRIC`."""
    return [
        turn
        for turn in conversation.turns
        if turn.speaker == "supporter"
        and (turn.text or "").strip()
        and not any(verdict.judge == judge and verdict.rubric == RUBRIC for verdict in turn.verdicts)
    ]


def annotate(conversations: Sequence[Conversation], annotator: Annotator, out: Path | str) -> Annotations:
    """Write conversations with a verdict for every supporter turn that has a text.

    Turns that this judge has judged are left as they are; a stopped annotation goes on where it stopped.

    Args:
        conversations: trees; in English, unless the annotator reads other languages.
        annotator: who judges.
        out: the JSON Lines file of trees to write.

    Raises:
        EsckitError: the annotator cannot go on, or the file cannot be written; what was judged is kept.
    """
    out = Path(out)
    todo = [open_turns(conversation, annotator.judge) for conversation in conversations]
    texts = repr([conversation_to_json(conversation) for conversation in conversations])
    key = ["annotate/1", annotator.judge, sha256(texts.encode()).hexdigest()]
    judge_turns(conversations, todo, annotator, out, key=key, title="annotate")
    return _count(out, annotator.judge, sum(map(len, todo)))


def judge_turns(
    trees: Sequence[Conversation],
    todo: Sequence[Sequence[Turn]],
    annotator: Annotator,
    out: Path,
    *,
    key: Any,
    title: str,
    then: Callable[[Conversation], Conversation] = lambda tree: tree,
    note: Callable[[], str] = str,
) -> None:
    """Write trees with verdicts on some of their turns; the file appears when it is complete.

    A stopped call is continued by the same call, after its last whole tree; a chat model's answers until then are in
    its ledger.

    Args:
        trees: in the file's order.
        todo: of each, the turns to judge.
        annotator: who judges; open.
        out: the JSON Lines file.
        key: JSON-ready; all that the file depends on.
        title: for the progress bar.
        then: what becomes of a tree with its verdicts, before it is written.
        note: what the progress bar says besides.

    Raises:
        EsckitError: the annotator cannot go on, or the file cannot be written; what was judged is kept.
    """
    with resume_jsonl(out, key, [1] * len(trees)) as file:
        left = list(zip(trees, todo, strict=True))[file.done :]
        groups = [[case_of(tree, turn) for turn in turns] for tree, turns in left]
        with progress(title, len(trees), file.done) as bar, closing(annotator.verdicts(groups)) as judged:
            for (tree, turns), verdicts in zip(left, judged, strict=True):
                judging = GrowingTree(tree)
                for turn, verdict in zip(turns, verdicts, strict=True):
                    judging.update(turn.id, verdicts=[verdict] if verdict else [])
                file.append([conversation_to_json(then(judging.conversation))])
                bar.advance(note())


def _count(out: Path, judge: str, asked: int) -> Annotations:
    outcomes: Counter[str] = Counter()
    missed = 0
    for conversation in iterate_conversations(out):
        missed += len(open_turns(conversation, judge))
        for verdict in (verdict for turn in conversation.turns for verdict in turn.verdicts):
            if verdict.judge == judge and verdict.rubric == RUBRIC:
                outcomes[(verdict.error or "none") if verdict.state == "done" else verdict.state] += 1
    return Annotations(outcomes.total(), asked - missed, missed, outcomes)
