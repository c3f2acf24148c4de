"""The field's measures, as pure functions: numbers from a predictions file, no model and no torch.

``evaluate`` measures a file and ``compare`` tests several against each other; ``agreement`` and ``bradley_terry`` are
for people's and judges' verdicts. docs/measures.md defines every figure. The modules, from parts to wholes:

    predictions, importers, context     the file; other programs' files; what its dialogues add
    intervals                           bootstrap over dialogues
    strategy, calibration               counting, macro-F1, stages; probabilities
    preference_bias, bias_inference     B and its noise floor; its interval and derivative
    text, responses, meteor, encoders   BLEU, Distinct, F1, ROUGE-L; lengths, openings; METEOR; BERTScore, relevance
    strategy_figures, text_figures      all of these by name
    evaluation, permutation, comparison one file; paired tests; several files
    tables                              figures on a terminal, in LaTeX, in Markdown
    agreement, ratings, bradley_terry   kappas and alpha; a CSV file of ratings; strengths from pairwise verdicts
    judgements, pairwise, length_control, people, judging_tables
                                        a judge's scores and pairs, what length explains, agreement with people
"""

from esckit.measures.bradley_terry import Duel, bradley_terry
from esckit.measures.comparison import compare
from esckit.measures.context import add_context
from esckit.measures.evaluation import evaluate
from esckit.measures.importers import import_predictions
from esckit.measures.intervals import Interval
from esckit.measures.predictions import Prediction, prediction_from_json, prediction_to_json, read_predictions
from esckit.measures.ratings import agreement, read_ratings

__all__ = [
    "Duel",
    "Interval",
    "Prediction",
    "add_context",
    "agreement",
    "bradley_terry",
    "compare",
    "evaluate",
    "import_predictions",
    "prediction_from_json",
    "prediction_to_json",
    "read_predictions",
    "read_ratings",
]
