"""Stage ``compare``: which way of mining pays, in one table."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from esckit.conversation import read_conversations
from esckit.errors import RunError
from esckit.files import write_json
from esckit.measures import Prediction, predictions_of
from esckit.measures.intervals import Draws, mean_intervals
from esckit.measures.permutation import holm
from esckit.measures.repeated import Advantage, compare_repeated, mean_advantage
from esckit.measures.ways import Kept, Way, Ways
from esckit.mining.pairs import lint_pairs
from esckit.recipes.mining_costs import Counting
from esckit.recipes.stage import Stage
from esckit.recipes.stages.predict import PredictStage
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.rejudge import REJUDGED, VERDICTS
from esckit.recipes.stages.supporter import SupporterStage
from esckit.recipes.trees import TREES
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["COMPARISON", "CompareStage"]

COMPARISON: Final = "comparison.json"
FORMAT: Final = 1
_ROUND: Final = re.compile(r"-\d+$")
_FEW: Final = 3  # repetitions
_FEW_DIALOGUES: Final = 10


class _Repetition(NamedTuple):
    """One training of a way."""

    predictions: str  # the predict stage
    pairs: str  # the stage that mined


class _Verdict(NamedTuple):
    kind: str
    stage: str
    turn: tuple[str, str]
    better: int


class CompareStage(Stage):
    """Puts ways of mining side by side: what they cost, what a second judge says of their pairs, what was learned.

    A way is what mined the pairs that a supporter was aligned on; ways whose stages differ in the number at their
    names' ends alone are repetitions of one (`rounds`).

    Attributes:
        predictions: names of predict stages of supporters with one part that a preference stage aligned.
        against: the predict stage of what they started from.
        rejudged: name of a rejudge stage of their pairs, and of these predictions.
        resamples, permutations: of intervals and tests.
    """

    stage: Literal["compare"]
    predictions: list[str] = Field(min_length=1)
    against: str
    rejudged: str | None = None
    resamples: int = Field(1000, ge=100)
    permutations: int = Field(10_000, ge=100)

    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "predictions": ("predictions",),
        "against": ("predictions",),
        "rejudged": ("verdicts",),
    }

    def check_recipe(self, recipe: "Recipe") -> None:
        self._ways(recipe)

    def _ways(self, recipe: "Recipe") -> dict[str, list[_Repetition]]:
        """The ways in order, each with its repetitions."""
        found: dict[tuple[str, str], list[_Repetition]] = {}
        for name in self.predictions:
            pairs = self._mined_by(recipe, name)
            stage = recipe.named(pairs)
            keys = stage.model_dump_json(exclude={"name", *stage.reads})
            found.setdefault((_ROUND.sub("", pairs), keys), []).append(_Repetition(name, pairs))
        once = Counter(short for short, _ in found)
        return {short if once[short] == 1 and len(own) > 1 else own[0].pairs: own for (short, _), own in found.items()}

    def _mined_by(self, recipe: "Recipe", predictions: str) -> str:
        """The stage whose pairs the supporter learned from."""
        predict = recipe.named(predictions)
        supporter = recipe.named(predict.supporter) if isinstance(predict, PredictStage) else None
        parts = [each.name for each in supporter.inputs] if isinstance(supporter, SupporterStage) else []
        aligned = [stage for stage in map(recipe.named, parts) if isinstance(stage, PreferenceStage)]
        if len(aligned) != 1:
            raise ValueError(
                f"stage {self.name!r} compares ways of mining, and {predictions!r} is of no supporter with one part "
                "that a preference stage aligned"
            )
        return aligned[0].pairs

    def skips(self, run: "RunFolder") -> str | None:
        return None  # a way without pairs is a result, too

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Write `COMPARISON`.

        Raises:
            RunError: what all started from was not predicted.
        """
        if run.was_skipped(self.against):
            raise RunError(f"stage {self.name!r} compares with {self.against!r}, which was skipped: name another one.")
        draws = Draws(run.seed(self), self.resamples, self.permutations)
        ways = self._ways(run.recipe)
        against = _rows(run, self.against)
        trained = {way: [e for e in own if not run.was_skipped(e.predictions)] for way, own in ways.items()}
        rows = {way: [_rows(run, each.predictions) for each in own] for way, own in trained.items() if own}
        figures = compare_repeated(rows, against, TAXONOMIES[run.taxonomy], draws)
        verdicts, counting = self._verdicts(run), Counting(run)
        wins = _corrected({way: _win_rate(own, verdicts, draws) for way, own in trained.items()})
        found = []
        for way, own in ways.items():
            mined = list(dict.fromkeys(each.pairs for each in own))  # one stage may serve several repetitions
            learned = {
                "kept": _kept(mined, verdicts, draws),
                "repetitions": len(own),
                "trained": len(trained[way]),
                "figures": figures.get(way, []),
                "win_rate": wins[way],
            }
            found.append(_way(way, mined, counting, learned))
        record = self._judge(run)
        dialogues = {row.conversation_id for row in against}
        whole = Ways(
            format=FORMAT,
            against=self.against,
            turns=len(against),
            dialogues=len(dialogues),
            judge=record.get("judge"),
            also_mined=record.get("also_mined", []),
            seed=draws.seed,
            resamples=draws.resamples,
            permutations=draws.permutations,
            ways=found,
            warnings=_warnings(found, len(dialogues), record),
        )
        write_json(run.folder / self.name / COMPARISON, whole.to_json())
        return {"ways": len(ways), "judge": whole.judge}

    def _verdicts(self, run: "RunFolder") -> list[_Verdict]:
        if self.rejudged is None:
            return []
        lines = (run.folder / self.rejudged / VERDICTS).read_text(encoding="utf-8").splitlines()
        rows = map(json.loads, lines)
        return [_Verdict(r["kind"], r["stage"], (r["conversation_id"], r["turn_id"]), r["better"]) for r in rows]

    def _judge(self, run: "RunFolder") -> dict[str, Any]:
        if self.rejudged is None:
            return {}
        return dict(json.loads((run.folder / self.rejudged / REJUDGED).read_text(encoding="utf-8")))


def _rows(run: "RunFolder", name: str) -> list[Prediction]:
    return predictions_of(read_conversations(run.folder / name / TREES), name, TAXONOMIES[run.taxonomy])


def _way(name: str, mined: Sequence[str], counting: Counting, learned: Mapping[str, Any]) -> Way:
    """What a way's stages mined and cost, with what else is known of it."""
    costs = [counting.cost(stage) for stage in mined]
    report = lint_pairs([pair for cost in costs for pair in cost.pairs])
    return Way(
        way=name,
        method=counting.method(mined[0]),
        pairs=[len(cost.pairs) for cost in costs],
        calls=[cost.calls for cost in costs],
        tokens=[cost.tokens for cost in costs],
        longer_chosen=report.longer_chosen / report.pairs if report.pairs else None,
        length_ratio=report.length_ratio if report.pairs else None,
        **learned,
    )


def _kept(mined: Sequence[str], verdicts: Sequence[_Verdict], draws: Draws) -> Kept | None:
    """What the judge said of a way's pairs, of all repetitions together."""
    own = [each for each in verdicts if each.kind == "pair" and each.stage in mined]
    if not own:
        return None
    rates = np.array([(1 + each.better) / 2 for each in own])
    interval = mean_intervals({"kept": rates}, [each.turn[0] for each in own], draws)["kept"]
    assert interval is not None
    return Kept(looked_at=len(own), rate=float(rates.mean()), interval=interval)


def _win_rate(repetitions: Sequence[_Repetition], verdicts: Sequence[_Verdict], draws: Draws) -> Advantage | None:
    by_stage: dict[str, dict[tuple[str, str], float]] = {each.predictions: {} for each in repetitions}
    for each in verdicts:
        if each.kind == "prediction" and each.stage in by_stage:
            by_stage[each.stage][each.turn] = each.better
    return mean_advantage([own for own in by_stage.values() if own], draws)


def _corrected(wins: Mapping[str, Advantage | None]) -> dict[str, Advantage | None]:
    """Holm's correction over the ways."""
    known = {way: each for way, each in wins.items() if each is not None}
    corrected = holm([each.p for each in known.values()])
    return {**wins, **{w: replace(e, p_holm=p) for (w, e), p in zip(known.items(), corrected, strict=True)}}


def _warnings(ways: Sequence[Way], dialogues: int, record: Mapping[str, Any]) -> list[str]:
    told = []
    if also := record.get("also_mined"):
        told.append(
            f"{record['judge']} also judged pairs that were trained on ({', '.join(also)}): what it says of their ways "
            "favours what it taught, so take another model."
        )
    if not record:
        told.append("Nobody has looked at the pairs again: add a rejudge stage with a judge that did not mine.")
    lacking = [way for way in ways if way.trained < way.repetitions]
    if empty := [f"{way.way} in {way.repetitions - way.trained} of {way.repetitions}" for way in lacking]:
        told.append(f"Repetitions without a pair to train on: {', '.join(empty)}; figures are of the others.")
    if few := [way.way for way in ways if 0 < way.trained < _FEW]:
        told.append(f"Trained less than {_FEW} times: {', '.join(few)}; how far training again moves them is not seen.")
    if dialogues < _FEW_DIALOGUES:
        told.append(f"The turns are of {dialogues} dialogues: intervals are too narrow and tests find next to nothing.")
    return told
