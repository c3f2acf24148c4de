"""What a report shows of systems with roles: Empath's table 3, who spoke and told which stories, what gates chose."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from math import log2
from typing import Any, Final, NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from esckit.errors import RunError
from esckit.measures.judging_results import SystemScore
from esckit.report.report_tables import first_scores
from esckit.report.run import ReportedRun, System
from esckit.report.run_records import GateRecord

SCALES: Final = {
    **{"fluency": 3, "role_alignment": 5, "skillfulness": 5},
    **{"empathy": 5, "helpfulness": 3, "safety": 1},
}
"""As its table 3 has them, and the most points of each."""

FIGURES: Final = {"distinct1": "Distinct-1", "bleu1": "BLEU-1", "bleu4": "BLEU-4", "f1": "F1", "rouge_l": "ROUGE-L"}

_OPTIONAL: Final = {"role_alignment"}  # it is left out where no reply has a role


class Spoken(NamedTuple):
    """In which roles a system spoke and what it told.

    Attributes:
        system: None for the dialogues themselves.
        split: where it predicted.
        turns: supporter turns in all.
        roles: role to turns, the most frequent first.
        plain: turns without a role.
        told: turns with an experience.
        stories: different experiences among them.
        most: how often the one was told that was told most.
    """

    system: System | None
    split: str
    turns: int
    roles: dict[str, int]
    plain: int
    told: int
    stories: int
    most: int


class Gate(NamedTuple):
    """What the gates of a group of experts learned.

    Attributes:
        stage: who trained it.
        group: ``role`` or ``strategy``, or another.
        entropy_bits: by name of a role or strategy, the entropy of its weights over experts, 0 to ``most_bits``.
        most_bits: log2 of the number of experts: all weights are equal.
        use: each expert's share of all weights, 0 to 1.
    """

    stage: str
    group: str
    entropy_bits: dict[str, float]
    most_bits: float
    use: list[float]


_GATES: Final = TypeAdapter(dict[str, GateRecord])


def published_empath() -> tuple[str, list[list[Any]]]:
    """The source, and rows of a system's name, `FIGURES` and `SCALES`."""
    found = yaml.safe_load((resources.files("esckit.report") / "published_empath.yaml").read_text(encoding="utf-8"))
    return found["source"], found["rows"]


def judged_scales(run: ReportedRun) -> dict[str, dict[str, SystemScore]]:
    """By stage, the scores of the six scales by the run's first judge of them.

    The judge who does not see the human reply, as the paper's, where this one was asked so.
    """
    return first_scores(run, {*SCALES} - _OPTIONAL, sees_reference=False)


def spoken(systems: Sequence[System]) -> list[Spoken]:
    """A row a system whose predictions say a role or an experience, and one for the dialogues of a split that do."""
    rows = [_spoken(system, [row.extra for row in system.predictions]) for system in systems]
    gold = {system.split: _spoken(None, _gold(system), system.split) for system in systems}
    return [row for row in (*rows, *gold.values()) if row.roles or row.told]


def _gold(system: System) -> Iterable[Mapping[str, Any]]:
    for row in system.predictions:
        dialogue = system.dialogue(row)
        yield {"role": dialogue.labels.get("role"), **dialogue.turn(str(row.turn_id)).extra}


def _spoken(system: System | None, told: Iterable[Mapping[str, Any]], split: str = "") -> Spoken:
    turns = list(told)
    roles = Counter[str](extra["role"] for extra in turns if extra.get("role"))
    stories = Counter((extra.get("role"), extra["experience"]) for extra in turns if extra.get("experience"))
    return Spoken(
        system=system,
        split=system.split if system else split,
        turns=len(turns),
        roles=dict(roles.most_common()),
        plain=len(turns) - roles.total(),
        told=stories.total(),
        stories=len(stories),
        most=max(stories.values(), default=0),
    )


def gates(run: ReportedRun) -> list[Gate]:
    """What stages say of their gates, as the fact ``gates``.

    Raises:
        RunError: the fact is not what a training stage writes.
    """
    found = []
    for stage in run.stages:
        if "gates" in stage.facts:
            try:
                groups = _GATES.validate_python(stage.facts["gates"])
            except ValidationError as error:
                raise RunError(f"stage {stage.name!r} has unreadable gates in its record: run it again.") from error
            found += [_gate(stage.name, group, learned) for group, learned in groups.items() if learned.use]
    return found


def _gate(stage: str, group: str, learned: GateRecord) -> Gate:
    total = sum(learned.use) or 1.0
    return Gate(stage, group, learned.entropy_bits, log2(len(learned.use)), [weight / total for weight in learned.use])
