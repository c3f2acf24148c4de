"""The linter of dialogue files: everything that is wrong in one or more files, each with file, line and turn.

The files are taken as the parts of one corpus, so that near-duplicates are found within them and across.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final, NamedTuple

from esckit.conversation import Conversation, Problem, Turn
from esckit.corpora.duplicates import Retelling, Stories
from esckit.corpora.formats import FORMATS, find_format, has_own_id, read_records
from esckit.corpora.labels import LabelMap, as_label_map, several_labels

KINDS: Final = (
    "record",
    "tree",
    "id",
    "speaker",
    "one-sided",
    "role-order",
    "content",
    "label",
    "near-duplicate",
    "licence",
    "source",
)
LONGEST_RUN: Final = 6
"""More turns of one speaker in a row than this are a finding also where speakers need not take turns."""


class DialoguePlace(NamedTuple):
    """Where a dialogue stands."""

    file: str
    line: int
    dialogue: str

    def __str__(self) -> str:
        return f"{self.dialogue!r} ({self.file}:{self.line})"


class Finding(NamedTuple):
    """One thing to look at: in which file, on which line the dialogue begins, one of KINDS, what it is and what to do.

    ``dialogue`` is None where it could not be read, or where it is about the file; ``turn`` where it is about the whole
    dialogue. ``other`` is the other dialogue of a near-duplicate or of an id that occurs twice.
    """

    file: str
    line: int
    dialogue: str | None
    turn: str | None
    kind: str
    message: str
    other: DialoguePlace | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: [{self.kind}] {self.message}"


@dataclass
class CheckReport:
    """What was looked at and found: dialogues by file, findings in the order of files and lines.

    ``several`` counts the turns with more than one label, of which the first counts.
    """

    dialogues: dict[str, int] = field(default_factory=dict)
    several: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, in the order of KINDS; kinds without findings are left out."""
        counts = Counter(finding.kind for finding in self.findings)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    @property
    def across(self) -> int:
        """How many near-duplicates stand in two files."""
        pairs = [(finding.file, finding.other) for finding in self.findings if finding.kind == "near-duplicate"]
        return sum(other is not None and other.file != file for file, other in pairs)


def check_files(
    paths: Sequence[Path | str], format: str | None = None, *, labels: Path | str | LabelMap | None = None
) -> CheckReport:
    """Look at all dialogues of all files (the parts of one corpus), past every problem; ``labels`` as in `read_corpus`.

    Raises:
        CorpusError: a file cannot be read at all, or its format cannot be told.
    """
    report, stories, places = CheckReport(), Stories(), list[DialoguePlace]()
    seen: dict[str, DialoguePlace] = {}
    mapped = as_label_map(labels)
    for path in map(Path, paths):
        before = len(places)
        found = find_format(path, format)
        for place, conversation in _check_file(path, found, mapped, report.findings):
            report.several += several_labels([conversation])
            # A dialogue without an id of its own is called by its place: in another file that is another dialogue.
            named = place.dialogue if has_own_id(conversation, found) else f"{path} {place.dialogue}"
            if seen.setdefault(named, place) != place:
                place_of = seen[named]
                message = f"conversation {place.dialogue!r} has the id of {place_of}: make the ids unique."
                report.findings.append(Finding(*place, None, "id", message, place_of))
            stories.add(conversation)
            places.append(place)
        report.dialogues[str(path)] = len(places) - before
    report.findings += [_near_duplicate(pair, places[pair.first], places[pair.second]) for pair in stories.pairs()]
    order = {str(path): number for number, path in enumerate(paths)}
    report.findings.sort(key=lambda finding: (order[finding.file], finding.line))
    return report


def _check_file(
    path: Path, format: str, labels: LabelMap, findings: list[Finding]
) -> Iterator[tuple[DialoguePlace, Conversation]]:
    """Add what is wrong with a file to ``findings``; yield its dialogues, as far as they could be read."""
    unlicensed, unsourced = list[DialoguePlace](), list[DialoguePlace]()
    line = 0
    for line, reading in read_records(path, format, labels):
        name = reading.conversation.id if reading.conversation else None
        findings += [Finding(str(path), line, name, turn, kind, text) for kind, text, turn in reading.problems]
        findings += [Finding(str(path), line, name, turn, "label", text) for _, text, turn in reading.dropped]
        if reading.conversation is None:
            continue
        place = DialoguePlace(str(path), line, reading.conversation.id)
        known = {(problem.kind, problem.turn) for problem in reading.problems}
        unsure = any(problem.kind == "speaker" for problem in reading.problems)
        known_form = FORMATS[format]
        for kind, text, turn in conversation_findings(
            reading.conversation, known_form.alternates, known_form.all_labelled
        ):
            if (kind, turn) not in known and not (unsure and kind in ("one-sided", "role-order")):
                findings.append(Finding(*place, turn, kind, text))
        if not reading.conversation.provenance.get("licence"):
            unlicensed.append(place)
        if not {"corpus", "source"} & reading.conversation.provenance.keys():
            unsourced.append(place)
        yield place, reading.conversation
    if not line:
        findings.append(Finding(str(path), 1, None, None, "record", "the file holds no dialogue: give another."))
    for kind, key, places in (("licence", "licence", unlicensed), ("source", "corpus", unsourced)):
        if places:
            message = f"{len(places)} conversations state no {kind}, the first {places[0]}: set provenance.{key}."
            findings.append(Finding(*places[0], None, kind, message))


def conversation_findings(conversation: Conversation, alternates: bool, all_labelled: bool = True) -> Iterator[Problem]:
    """Yield what is odd about a conversation that breaks no rule; speakers and labels are looked at along its trunk.

    Where it ``alternates``, the corpus promises that seeker and supporter take turns, the seeker first; where it is
    ``all_labelled``, a strategy for every reply.
    """
    where = f"conversation {conversation.id!r}"
    trunk = [turn for turn in conversation.trunk if not turn.planned]
    speakers = {turn.speaker for turn in trunk}
    if len(speakers) < 2:
        who = f"only turns of the {speakers.pop()}" if speakers else "no turns"
        yield Problem("one-sided", f"{where} has {who}: take it out, or add what the other one said.")
    else:
        for turn, text in _order_findings(trunk, alternates):
            yield Problem("role-order", f"{where}, turn {turn.id!r} {text}", turn.id)
    for turn in conversation.turns:
        if not turn.planned and not (turn.text or "").strip():
            yield Problem("content", f"{where}, turn {turn.id!r} has an empty text: write it, or remove it.", turn.id)
    for turn in trunk:
        if all_labelled and conversation.taxonomy and turn.speaker == "supporter" and turn.strategy is None:
            text = "has no strategy: label it, or set the taxonomy to null."
            yield Problem("label", f"{where}, turn {turn.id!r} {text}", turn.id)


def _order_findings(trunk: Sequence[Turn], alternates: bool) -> Iterable[tuple[Turn, str]]:
    if not alternates:
        runs = [list(run) for _, run in groupby(trunk, key=lambda turn: turn.speaker)]
        return [
            (run[LONGEST_RUN], f"is one of {len(run)} turns of the {run[0].speaker} in a row: are the speakers right?")
            for run in runs
            if len(run) > LONGEST_RUN
        ]
    doubled = [
        (turn, f"is the {turn.speaker}'s, and so is the turn before: join them, or mend the speaker.")
        for before, turn in pairwise(trunk)
        if before.speaker == turn.speaker
    ]
    opening = [(turn, "opens the dialogue and is the supporter's: the seeker begins here.") for turn in trunk[:1]]
    return [*(opening if trunk[0].speaker == "supporter" else []), *doubled]


def _near_duplicate(pair: Retelling, first: DialoguePlace, second: DialoguePlace) -> Finding:
    shared = f', such as "{pair.words}" in turns {pair.second_turn!r} and {pair.first_turn!r}' if pair.words else ""
    advice = "keep both in one part" if first.file == second.file else "take one of them out"
    message = f"conversations {second.dialogue!r} and {first} {pair.reason}{shared}: {advice}."
    return Finding(*second, pair.second_turn, "near-duplicate", message, first)
