"""Everything about a predictions file, as one record."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from textwrap import shorten
from typing import Final, NamedTuple

from esckit.errors import EsckitError, PredictionsError
from esckit.measures.intervals import Draws, FloatArray, mean_intervals
from esckit.measures.patterns import pattern_figures
from esckit.measures.predictions import Prediction
from esckit.measures.replies import otherwise_labelled
from esckit.measures.results import Evaluation, Figures, Finish, Patterns, StrategyFigures, TextFigures
from esckit.measures.strategy_figures import strategy_figures
from esckit.measures.strategy_measures import Unparsed
from esckit.measures.text import TokenizerName, choose_tokenizer, make_tokenizer
from esckit.measures.text_figures import TEXT_METRICS, text_figures
from esckit.strategy import ESCONV, Taxonomy

FORMAT: Final = 1
METRICS: Final = ("strategy", *TEXT_METRICS, "patterns")
DEFAULT_METRICS: Final = ("strategy", "text", "meteor", "patterns")
_HIGH_FLOOR: Final = 0.15  # about what 600 turns give; DecoupledESC's differences in B are smaller
_FEW_TURNS: Final = 100  # that many give a share of 35%, such as accuracy, a 95% interval of nine points either way
# A paired test over D dialogues has no p below 2^(1 - D): up to 8 of them none of eight tests reaches 5% after Holm's
# correction. Simulated, 95% intervals of accuracy cover 82% with 5 dialogues, 88% with 10, 93% with 30.
_FEW_DIALOGUES: Final = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure: what `evaluate` is given.

    Raises:
        EsckitError: a metric's name is unknown.
    """

    taxonomy: Taxonomy
    seed: int
    resamples: int
    unparsed: Unparsed
    tokenizer: TokenizerName | None
    metrics: Sequence[str]
    encoder: str | None

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                nearest = get_close_matches(name, METRICS, n=1, cutoff=0)[0]
                raise EsckitError(f"the metric {name!r} is unknown: did you mean {nearest}? Use {', '.join(METRICS)}.")


class Measured(NamedTuple):
    """A file's figures, and what comparing it with another needs of its turns."""

    figures: Evaluation
    each: dict[str, FloatArray]  # text measure or pattern to (N,), in the order of the rows


def evaluate(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy = ESCONV,
    *,
    seed: int = 0,
    resamples: int = 1000,
    unparsed: Unparsed = "wrong",
    tokenizer: TokenizerName | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    encoder: str | None = None,
) -> Evaluation:
    """Measure predictions: strategy, text and patterns over a dialogue, and all again for each ``group``.

    Args:
        predictions: one supporter turn each.
        taxonomy: whose labels.
        seed: of the bootstrap, the noise floor and the permutations.
        resamples: bootstrap resamples of dialogues.
        unparsed: what becomes of a predicted strategy that names no label.
        tokenizer: for the text figures; None chooses by the language of the references.
        metrics: which of ``METRICS``.
        encoder: for ``bertscore`` and ``relevance``: a model's folder or its id on the Hub.

    Returns:
        The figures (docs/measures.md). ``strategy`` is None where it is not asked for or no row has a predicted
        strategy, ``text`` where it is not asked for or no row has a predicted text, ``patterns`` where it is not asked
        for or no dialogue has two predicted replies, ``groups`` where none has a group.

    Raises:
        PredictionsError: there are no predictions, a gold label is outside the taxonomy, or something is unparsed and
            ``unparsed`` is ``refuse``.
        EsckitError: a metric is unknown, or lacks its package, encoder, data or input.
    """
    settings = Settings(taxonomy, seed, resamples, unparsed, tokenizer, metrics, encoder)
    return measure(predictions, settings).figures


def measure(predictions: Sequence[Prediction], settings: Settings) -> Measured:
    """Do what ``evaluate`` does, and keep each turn's text scores."""
    if not predictions:
        raise PredictionsError("there are no predictions to evaluate: give at least one.")
    whole, each = _measure_rows(predictions, settings)
    _check_gold_texts(predictions, settings)
    names = sorted({row.group for row in predictions if row.group is not None})
    groups = {name: _measure_rows([row for row in predictions if row.group == name], settings)[0] for name in names}
    figures = Evaluation(
        **vars(whole),
        format=FORMAT,
        taxonomy=settings.taxonomy.name,
        seed=settings.seed,
        resamples=settings.resamples,
        unparsed=settings.unparsed,
        groups=groups or None,
    )
    return Measured(figures, each)


def _check_gold_texts(rows: Sequence[Prediction], settings: Settings) -> None:
    """Refuse texts that could be compared with nothing."""
    compared = [name for name in settings.metrics if name in ("text", "meteor", "bertscore")]
    if compared and any(row.predicted_text for row in rows) and not any(row.gold_text.strip() for row in rows):
        raise PredictionsError(
            f"all {len(rows)} gold texts (gold_text) are empty: write the human replies there, or measure what needs "
            "none, such as --metrics strategy."
        )


def _measure_rows(rows: Sequence[Prediction], settings: Settings) -> tuple[Figures, dict[str, FloatArray]]:
    past = [row.extra.get("past_strategies") for row in rows]
    mixed = any(kind != past[0] for kind in past)
    text, each, notes = _text(rows, settings)
    patterns, shown = _patterns(rows, settings)
    figures = Figures(
        n=len(rows),
        dialogues=len({row.conversation_id for row in rows}),
        past_strategies=None if mixed else past[0],
        strategy=_strategy(rows, settings),
        text=text,
        patterns=patterns,
        warnings=[],
    )
    told = [*_warnings(figures, mixed), *_left_out(rows, figures, settings), *_about_texts(rows, figures, settings)]
    return replace(figures, warnings=[*told, *notes]), each | shown


def _strategy(rows: Sequence[Prediction], settings: Settings) -> StrategyFigures | None:
    labelled = _planned(rows, settings.taxonomy)
    if "strategy" not in settings.metrics or not labelled:
        return None
    if settings.unparsed == "drop" and not any(settings.taxonomy.match(row.predicted_strategy) for row in labelled):
        return None
    return strategy_figures(
        labelled, settings.taxonomy, seed=settings.seed, resamples=settings.resamples, unparsed=settings.unparsed
    )


def _planned(rows: Sequence[Prediction], taxonomy: Taxonomy) -> list[Prediction]:
    """Those whose strategy was to be predicted: all with a gold one that was not given to the model.

    None where no row shows that one was asked for: a predicted one, what the model wrote, or a text with a label.
    """
    labelled = [row for row in rows if row.gold_strategy is not None and "strategy_given" not in row.extra]
    asked = any(
        row.predicted_strategy is not None
        or row.raw is not None
        or otherwise_labelled(row.predicted_text or "", taxonomy)
        for row in labelled
    )
    return labelled if asked else []


def _text(
    rows: Sequence[Prediction], settings: Settings
) -> tuple[TextFigures | None, dict[str, FloatArray], list[str]]:
    """Figures, each turn's scores, and what must be known of them."""
    asked = [name for name in settings.metrics if name in TEXT_METRICS]
    if not asked or all(row.predicted_text is None for row in rows):
        return None, {}, []
    found = text_figures(
        [row.gold_text for row in rows],
        [row.predicted_text or "" for row in rows],
        tokenizer=settings.tokenizer,
        metrics=asked,
        encoder=settings.encoder,
        seeker_turns=[row.seeker_turns for row in rows],
    )
    finish = Counter(row.finish for row in rows)
    dialogues = [str(row.conversation_id) for row in rows]
    intervals = mean_intervals(found.each, dialogues, Draws(settings.seed, settings.resamples))
    named = {f"{name}_utterance_interval": ends for name, ends in intervals.items()}
    figures = TextFigures(
        **(found.figures | named),
        null_texts=sum(row.predicted_text is None for row in rows),
        finish=Finish(stop=finish["stop"], length=finish["length"]),
    )
    return figures, found.each, found.notes


def _patterns(rows: Sequence[Prediction], settings: Settings) -> tuple[Patterns | None, dict[str, FloatArray]]:
    """Figures, and each turn's part in them; None where no dialogue has two rows, or nothing was predicted."""
    longest = max(Counter(str(row.conversation_id) for row in rows).values())
    said = any(row.predicted_text or row.predicted_strategy for row in rows)
    if "patterns" not in settings.metrics or longest == 1 or not said:
        return None, {}
    tokenizer = make_tokenizer(settings.tokenizer or choose_tokenizer([row.gold_text for row in rows]))
    return pattern_figures(rows, settings.taxonomy, tokenizer, Draws(settings.seed, settings.resamples))


def _warnings(figures: Figures, mixed: bool) -> list[str]:
    """Say in sentences what a reader of the figures must know."""
    strategy, text, n = figures.strategy, figures.text, figures.n
    warnings = []
    if n < _FEW_TURNS or figures.dialogues < _FEW_DIALOGUES:
        warnings.append(
            f"Only {_counted(n, 'turn')} of {_counted(figures.dialogues, 'dialogue')}: under {_FEW_TURNS} turns "
            f"chance moves a share by ten points, and under {_FEW_DIALOGUES} dialogues intervals are too narrow and "
            "tests find next to nothing."
        )
    if mixed:
        warnings.append("The rows differ in past_strategies: evaluate each kind alone, their figures do not compare.")
    if 1 < n == figures.dialogues:
        warnings.append(
            "Every turn has a conversation_id of its own: intervals and tests take turns for independent, which "
            "promises too much where turns share dialogues."
        )
    if strategy and strategy.parse_rate < 1:
        warnings.append(f"{strategy.n - strategy.b_n} of {strategy.n} predicted strategies are unparsed.")
    if strategy and strategy.b_predictions_without_gold:
        foreign = _counted(strategy.b_predictions_without_gold, "prediction")
        warnings.append(f"{foreign} of strategies that are gold nowhere here: B knows no contest for them.")
    if strategy and strategy.b_floor is not None and strategy.b_floor > _HIGH_FLOOR:
        warnings.append(
            f"The noise floor of B is {strategy.b_floor:.2f}: {strategy.b_n} turns are too few to tell planners "
            "apart by B."
        )
    if text and text.null_texts:
        warnings.append(f"{text.null_texts} of {n} predicted texts are null and score as empty text.")
    if text and text.finish.length:
        warnings.append(f"{text.finish.length} of {n} responses were cut at the length limit.")
    return warnings


def _left_out(rows: Sequence[Prediction], figures: Figures, settings: Settings) -> list[str]:
    """Say why figures that were asked for are null."""
    told = []
    if "strategy" in settings.metrics and figures.strategy is None:
        if n := len(_planned(rows, settings.taxonomy)):
            told.append(
                f"{n} of {n} predicted strategies are unparsed: drop leaves none, and strategy figures are null."
            )
        elif any("strategy_given" in row.extra for row in rows):
            told.append("Strategy figures are null: the strategies were given to the model.")
        else:
            side = "predicted" if any(row.gold_strategy is not None for row in rows) else "gold"
            told.append(f"Strategy figures are null: no row has a {side} strategy.")
    if figures.text is None and any(name in TEXT_METRICS for name in settings.metrics):
        told.append("Text figures are null: no row has a predicted text.")
    if "patterns" in settings.metrics and figures.patterns is None and figures.n > 1:
        told.append("Patterns are null: no dialogue has two predicted replies.")
    return told


def _about_texts(rows: Sequence[Prediction], figures: Figures, settings: Settings) -> list[str]:
    """Say what is odd about texts: gold ones that are empty, and labels that stand in the predicted ones."""
    told = []
    empty = sum(not row.gold_text.strip() for row in rows)
    if figures.text and empty:
        told.append(f"{empty} of {len(rows)} gold texts are empty: what is compared with them is 0.")
    unread = [
        row for row in _planned(rows, settings.taxonomy) if settings.taxonomy.match(row.predicted_strategy) is None
    ]
    written = [row.predicted_strategy or row.predicted_text or row.raw or "" for row in unread]
    if labelled := [text for text in written if otherwise_labelled(text, settings.taxonomy)]:
        told.append(
            f"{len(labelled)} of these begin with a label in another form than [Question], such as "
            f"{shorten(labelled[0], 50, placeholder=' ...')!r}: write them in that one."
        )
    return told


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
