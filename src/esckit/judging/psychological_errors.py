"""The embedded annotator of psychological errors: no download, no chat model, and reasons in words for each verdict."""

from collections.abc import Generator, Sequence
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from esckit.conversation import Verdict
from esckit.errors import ModelError
from esckit.files import write_json
from esckit.judging.annotator import RUBRIC
from esckit.judging.case_reading import CaseReader
from esckit.judging.cues import lists_text
from esckit.judging.error_model import FILE, NONE, Decision, ErrorModel, model_to_json, read_model
from esckit.judging.evidence import Case
from esckit.planning.encoder import EMBEDDED, Encoder, load_encoder

__all__ = ["EmbeddedAnnotator", "load_annotator", "save_annotator"]

_SHIPPED: Final = "embedded_annotator.json"


class EmbeddedAnnotator:
    """A linear model of evidence, and the encoder that some of the evidence needs.

    Attributes:
        judge: the name with the beginning of a hash of the model and the lists of words.

    Args:
        name: ``embedded``, or the folder's name.
        model: what decides.
        encoder: the one that the model was fitted with.
    """

    def __init__(self, name: str, model: ErrorModel, encoder: Encoder) -> None:
        self.model, self.encoder, self._reader = model, encoder, CaseReader(encoder)
        decides = f"{model_to_json(model)!r}{lists_text()}"
        self.judge = f"{name}@{sha256(decides.encode()).hexdigest()[:8]}"

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        """Judge groups of replies in order; every verdict is ``done``."""
        for cases in groups:
            yield [self._verdict(decision) for decision in self.decisions(cases)]

    def decisions(self, cases: Sequence[Case]) -> list[Decision]:
        """Decide on each reply."""
        if not cases:
            return []
        evidence, vectors = self._reader.read(cases)
        return [self.model.decide(found, vector) for found, vector in zip(evidence, vectors, strict=True)]

    def _verdict(self, decision: Decision) -> Verdict:
        error = None if decision.outcome == NONE else decision.outcome
        scores = {outcome: round(probability, 4) for outcome, probability in decision.probabilities.items()}
        return Verdict(self.judge, RUBRIC, error, scores, explain(decision))


def explain(decision: Decision) -> str:
    """What decided, in words: the strongest reasons with values, words, and effects on log odds."""
    reasons = "; ".join(f"{reason.text}, {reason.weight:+.1f}" for reason in decision.reasons)
    against = f"{decision.outcome} rather than {decision.runner_up}"
    return f"{against}: {reasons or 'no evidence in particular, only how often each occurs'}."


def load_annotator(source: str, encoder: str = EMBEDDED) -> EmbeddedAnnotator:
    """Load the shipped annotator, or one that was trained.

    Args:
        source: ``embedded``, or a folder with `FILE`.
        encoder: where the encoder of a trained one is now (`EMBEDDED`, a folder or a Hub id).

    Raises:
        ModelError: there is no such annotator, or it was trained with another encoder.
    """
    if source == EMBEDDED:
        with as_file(files("esckit.judging") / _SHIPPED) as path:
            model = read_model(path)
    else:
        model = read_model(Path(source) / FILE)
    loaded = load_encoder(encoder)
    if loaded.weights_hash != model.encoder_hash:
        raise ModelError(
            f"the annotator {source} was trained with the encoder {model.encoder} and {encoder} has other weights: "
            "give its own encoder, or train the annotator again."
        )
    return EmbeddedAnnotator(Path(source).resolve().name if source != EMBEDDED else EMBEDDED, model, loaded)


def save_annotator(folder: Path, model: ErrorModel) -> None:
    """Write an annotator's folder, atomically."""
    write_json(folder / FILE, model_to_json(model))
