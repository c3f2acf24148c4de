"""The field's measures, as pure functions: numbers from a predictions file, no model and no torch.

``evaluate`` gives everything; the modules give the parts: ``predictions`` (the file), ``strategy`` (macro-F1,
accuracy), ``preference_bias`` (B and its noise floor), ``calibration``, ``text`` (BLEU, Distinct, F1, ROUGE-L) and
``intervals`` (bootstrap over dialogues). docs/measures.md defines every figure.
"""

from esckit.measures.evaluation import evaluate
from esckit.measures.intervals import Interval
from esckit.measures.predictions import Prediction, prediction_from_json, prediction_to_json, read_predictions

__all__ = ["Interval", "Prediction", "evaluate", "prediction_from_json", "prediction_to_json", "read_predictions"]
