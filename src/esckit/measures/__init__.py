"""The field's measures, as pure functions: numbers from a predictions file, no model and no torch; no printing.

``evaluate`` measures a file and ``compare`` tests several against each other; ``agreement`` and ``bradley_terry`` are
for people's and judges' verdicts. docs/measures.md defines every figure. The modules, from parts to wholes:

    predictions, importers, context     the file; other programs' files; rows in their dialogues
    tables, record_files, replies       CSV and encodings; rows in any form; ``[Strategy] text`` taken apart
    matching                            rows of different files that stand for one turn
    intervals                           bootstrap over dialogues
    strategy_measures, preference_bias  counting, macro-F1, stages; B with its noise floor, interval and derivative
    scripts                             which script and language texts are in
    text, encoders                      BLEU, Distinct, F1, ROUGE-L, lengths, openings; BERTScore, relevance
    patterns, phrases                   patterns over a dialogue; frequent and overused phrases
    strategy_figures, text_figures      all of these by name, with subsets and calibration, and with METEOR
    evaluation, permutation, comparison one file; paired tests; several files
    results, judging_results            what these return, and what files of figures hold
    agreement, rating_files, ratings    kappas and alpha; people's ratings as they save them, and what they say
    bradley_terry                       strengths from pairwise verdicts
    judgements, length_control          a judge's scores and pairs; what length explains of them
    psychological_errors                shares of errors; how an annotator agrees with labels
"""

from esckit.measures.bradley_terry import Duel, bradley_terry
from esckit.measures.comparison import compare
from esckit.measures.context import add_context, add_predictions, predictions_in, predictions_of
from esckit.measures.evaluation import evaluate
from esckit.measures.importers import import_predictions
from esckit.measures.intervals import Interval
from esckit.measures.patterns import patterns_of
from esckit.measures.predictions import Prediction, prediction_from_json, prediction_to_json, read_predictions
from esckit.measures.ratings import agreement, read_ratings
from esckit.measures.results import Comparison, Evaluation

__all__ = [
    "Comparison",
    "Duel",
    "Evaluation",
    "Interval",
    "Prediction",
    "add_context",
    "add_predictions",
    "agreement",
    "bradley_terry",
    "compare",
    "evaluate",
    "import_predictions",
    "patterns_of",
    "prediction_from_json",
    "prediction_to_json",
    "predictions_in",
    "predictions_of",
    "read_predictions",
    "read_ratings",
]
