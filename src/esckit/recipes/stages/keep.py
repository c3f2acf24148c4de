"""Stage ``keep``: a round's policy where it is better than the one before on held-out dialogues, else that one."""

import shutil
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.conversation import Conversation
from esckit.decoding import Decoding, completed
from esckit.errors import CorpusError
from esckit.files import atomic, write_json
from esckit.judging.better_reply import AcceptOptions, Sides, advantages, check_acceptor
from esckit.measures import Prediction, compare, read_predictions
from esckit.measures.comparison import TESTED_TEXT
from esckit.measures.intervals import Draws, Interval, mean_intervals
from esckit.measures.patterns import PATTERNS
from esckit.measures.permutation import FIGURES
from esckit.measures.results import Figures
from esckit.recipes.identity import answers_identity
from esckit.recipes.stage import Split, Stage
from esckit.recipes.stages.sft import sft_of
from esckit.rendering import supporter_turns
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["KEEP", "KeepStage", "stopped_at"]

KEEP: Final = "keep.json"
"""In the stage's folder: what was compared, and what is kept."""

_ENCODED: Final = {"bertscore_f1", "relevance"}  # need an encoder, which a keep stage names none of
_TEXT: Final = tuple(f"{name}_utterance" for name in TESTED_TEXT if name not in _ENCODED)
_METRICS: Final = (*FIGURES, *_TEXT, *PATTERNS)
_SIDES: Final = ("candidate", "before")
_LESS_IS_BETTER: Final = {"b", *PATTERNS}


class _Compared(NamedTuple):
    """Candidate against the policy before; a difference above 0 is better. ``values`` are theirs, in this order."""

    difference: float
    interval: Interval
    values: tuple[float, float] | None = None


class KeepStage(Stage):
    """The stop rule of rounds: a candidate that is not above the policy before it is not kept, and rounds end.

    Attributes:
        start: name of the stage whose adapter is the candidate (M_t+1).
        before: name of the stage whose adapter it has to beat (M_t).
        split: the held-out part; what is decided on it may not be measured on it.
        dialogues: so many of it, drawn by the recipe's seed.
        metric: a figure of evaluate by which they are compared (``rouge_l_utterance``, ``q``, ...); of a generator, one
            of text.
        judge: who compares their replies instead, turn by turn.
        bar: ``lower``: the lower end of the difference's 95% interval has to be above 0; ``point``: the difference.
        stops: false keeps the candidate in any case, and only tells.
        wording: how replies are drawn; greedy, so that chance has no part in it.
    """

    stage: Literal["keep"]
    start: str
    before: str
    split: Split = "valid"
    dialogues: int | None = Field(None, ge=1)
    metric: str | None = None
    judge: AcceptOptions | None = None
    bar: Literal["lower", "point"] = "lower"
    stops: bool = True
    wording: Decoding = Decoding(greedy=True)

    elsewhere: ClassVar[frozenset[str]] = frozenset({"judge"})
    makes: ClassVar[str] = "adapter"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"start": ("adapter",), "before": ("adapter",)}

    @model_validator(mode="before")
    @classmethod
    def _rest_of_wording(cls, given: Any) -> Any:
        """Keys that are left out are the default's."""
        if not isinstance(given, dict) or "wording" not in given:
            return given
        return {**given, "wording": completed(given["wording"], cls.model_fields["wording"].default)}

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.metric is None) == (self.judge is None):
            raise ValueError("needs one of metric (a figure of evaluate) and judge (a chat model, or embedded)")
        if self.metric is not None and self.metric not in _METRICS:
            raise ValueError(f"there is no figure {self.metric!r} that is tested: use one of {', '.join(_METRICS)}")
        return self

    def check_recipe(self, recipe: "Recipe") -> None:
        if sft_of(recipe, self.start).name != sft_of(recipe, self.before).name:
            raise ValueError(f"stage {self.name!r} compares policies that began with different sft stages")
        if sft_of(recipe, self.start).part == "planner":
            raise ValueError(f"stage {self.name!r} compares replies, and a planner has none")
        if sft_of(recipe, self.start).part == "generator" and self.metric not in (None, *_TEXT):
            told = f"stage {self.name!r} compares generators, which choose no strategies"
            raise ValueError(f"{told}: take a figure of text ({', '.join(_TEXT)})")
        if self.start == self.before:
            raise ValueError(f"stage {self.name!r} compares {self.start!r} with itself: name two stages")

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        if not getattr(corpus, self.split):
            raise CorpusError(f"stage {self.name!r} decides on {self.split}, which the corpus lacks: give it a file.")
        if self.judge is not None:
            check_acceptor(self.judge, getattr(corpus, self.split))

    def fitted_to(self, corpus: "Corpus") -> tuple[Split, ...]:
        return (self.split,) if self.stops and self.split != "train" else ()

    def depends_on(self, run: "RunFolder") -> Any:
        return self.judge and [run.source(self.judge.model), answers_identity(self.judge, run.languages)]

    def skips(self, run: "RunFolder") -> str | None:
        return None  # where there is no candidate, the policy before is kept

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Compare the two, and copy the adapter of the one that is kept.

        Raises:
            BudgetSpent, ChatError, LedgerError: the judge cannot go on; every answer so far is in the ledger.
        """
        earlier = stopped_at(run, self.before)
        if run.was_skipped(self.start):
            return self._keep(run, self.before, {"stopped": True, "why": earlier or run.facts(self.start)["why"]})
        held_out = self._held_out(run)
        compared = self._compare(run, held_out)
        better = (compared.interval.low if self.bar == "lower" else compared.difference) > 0
        stopped = self.stops and not better
        kept = self.before if stopped else self.start
        told = self._told(compared, better)
        record = {
            "candidate": self.start,
            "before": self.before,
            "measure": self._measure,
            "bar": self.bar,
            "dialogues": len(held_out),
            "contexts": sum(len(supporter_turns(each)) for each in held_out),
            "values": compared.values
            and {name: round(value, 6) for name, value in zip(_SIDES, compared.values, strict=True)},
            "difference": round(compared.difference, 6),
            "interval": [round(end, 6) for end in compared.interval],
            **{"better": better, "stops": self.stops, "stopped": stopped, "kept": kept},
        }
        write_json(run.folder / self.name / KEEP, record)
        return self._keep(run, kept, {"stopped": stopped, "why": told})

    @property
    def _asked(self) -> str:
        """The metric of ``compare`` to which the figure belongs."""
        groups = {"strategy": FIGURES, "patterns": PATTERNS, "meteor": ["meteor_utterance"]}
        return next((name for name, figures in groups.items() if self.metric in figures), "text")

    @property
    def _measure(self) -> str:
        if self.metric is not None:
            return self.metric
        assert self.judge is not None
        return f"win rate by {self.judge.model}" if self.judge.asks else f"no error, by annotator {self.judge.model}"

    def _told(self, compared: _Compared, better: bool) -> str:
        low, high = compared.interval
        said = "is" if better else "is not"
        of = "the lower end of the difference" if self.bar == "lower" else "the difference"
        figures = f"difference {compared.difference:+.4f}, 95% interval {low:+.4f} to {high:+.4f}"
        return f"{self.start} {said} above {self.before} by {self._measure} ({figures}; {of} has to be above 0)"

    def _keep(self, run: "RunFolder", kept: str, facts: dict[str, Any]) -> dict[str, Any]:
        part = sft_of(run.recipe, self.start).part
        target = run.folder / self.name / part
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as temporary:
            shutil.copytree(run.folder / kept / part, temporary)
        return {"kept": kept, **facts}

    def _held_out(self, run: "RunFolder") -> list[Conversation]:
        from esckit.mining.inferential import draw_dialogues

        return draw_dialogues(getattr(run.corpus, self.split), self.dialogues, run.recipe.seed)

    def _compare(self, run: "RunFolder", held_out: list[Conversation]) -> _Compared:
        rows = [self._predict(run, held_out, name) for name in (self.start, self.before)]
        if self.metric is None:
            return self._judged(run, held_out, rows)
        sides, seed = dict(zip(_SIDES, rows, strict=True)), run.seed(self)
        found = compare(sides, TAXONOMIES[run.taxonomy], permutations=1, seed=seed, metrics=[self._asked])
        test = next((each for each in found.comparisons if each.metric == self.metric), None)
        if test is None:
            raise CorpusError(f"stage {self.name!r}: these replies have no {self.metric}; take another metric.")
        candidate, before = (_figure(found.files[side], test.metric) for side in _SIDES)
        if self.metric in _LESS_IS_BETTER:
            low, high = test.interval
            return _Compared(-test.difference, Interval(-high, -low), (candidate, before))
        return _Compared(test.difference, test.interval, (candidate, before))

    def _predict(self, run: "RunFolder", held_out: list[Conversation], name: str) -> list[Prediction]:
        from esckit.recipes.stages.refine import open_policy
        from esckit.supporters import predict

        sft, out = sft_of(run.recipe, self.start), run.folder / self.name / f"by-{name}.jsonl"
        if not out.exists():
            supporter = open_policy(run, name, sft)
            seed, title, given = run.seed(self), f"{self.name} {name}", sft.part == "generator"
            predict(supporter, held_out, out, seed=seed, wording=self.wording, given_gold=given, title=title)
        return read_predictions(out, TAXONOMIES[run.taxonomy])

    def _judged(self, run: "RunFolder", held_out: list[Conversation], rows: list[list[Prediction]]) -> _Compared:
        from esckit.supporters.open_model import open_model

        assert self.judge is not None
        trees = {tree.id: tree for tree in held_out}
        sides = []
        for one, other in zip(*rows, strict=True):
            tree, turn = trees[str(one.conversation_id)], str(one.turn_id)
            first, second = ((each.predicted_strategy, each.predicted_text or "") for each in (one, other))
            before = tuple(tree.path(tree.turn(turn).parent))
            sides.append(Sides((tree.id, turn), before, first, second, tree.language))
        with Ledger(run.folder / LEDGER) as ledger:
            ledger.forget_failed()
            model = open_model(self.judge) if self.judge.asks else None
            better, _ = advantages(sides, self.judge, model, ledger)
        import numpy as np

        names = [str(row.conversation_id) for row in rows[0]]
        interval = mean_intervals({"better": np.array(better)}, names, Draws(seed=run.seed(self)))["better"]
        assert interval is not None
        values = (fmean(each > 0 for each in better), fmean(each < 0 for each in better)) if self.judge.asks else None
        return _Compared(fmean(better), interval, values)


def _figure(figures: Figures, metric: str) -> float:
    """A figure by its name; of a pattern, the share of replies that complete it."""
    if metric in PATTERNS:
        pattern = figures.patterns and figures.patterns.predicted[metric]
        assert pattern
        return pattern.share
    return float(getattr(figures.strategy if metric in FIGURES else figures.text, metric))


def stopped_at(run: "RunFolder", name: str) -> str | None:
    """Why rounds ended at a keep stage; None where they go on, or the stage is another one."""
    facts = run.facts(name) if isinstance(run.recipe.named(name), KeepStage) else {}
    return str(facts["why"]) if facts.get("stopped") else None
