"""The embedded annotator of psychological errors: no download, no chat model, and reasons in words for each verdict."""

from collections.abc import Generator, Sequence
from functools import cached_property
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Speaker, Verdict
from esckit.errors import ModelError
from esckit.files import write_json
from esckit.judging.annotation import RUBRIC
from esckit.judging.error_model import FILE, NONE, Array, Decision, ErrorModel, model_to_json, read_model
from esckit.judging.evidence import Case, Evidence, lexical_evidence, lists_text, recent_turns, stock_sentences
from esckit.planning.encoder import EMBEDDED, Encoder, load_encoder
from esckit.planning.turn_batches import TextVectors

_SHIPPED: Final = "embedded_annotator.json"
_BEFORE: Final = 0.5  # what a turn weighs in times the speaker's next one


class EmbeddedAnnotator:
    """A linear model of evidence, and the encoder that it was fitted with, which some of the evidence needs.

    ``judge`` is the name with the beginning of a hash of the model and the lists of words.
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
        read = zip(*self._reader.read(cases), strict=True) if cases else ()
        return [self.model.decide(found, vector) for found, vector in read]

    def _verdict(self, decision: Decision) -> Verdict:
        error = None if decision.outcome == NONE else decision.outcome
        scores = {outcome: round(probability, 4) for outcome, probability in decision.probabilities.items()}
        return Verdict(self.judge, RUBRIC, error, scores, explain(decision))


def explain(decision: Decision) -> str:
    """What decided, in words: the strongest reasons with values, words, and effects on log odds."""
    reasons = "; ".join(f"{reason.text}, {reason.weight:+.1f}" for reason in decision.reasons)
    against = f"{decision.outcome} rather than {decision.runner_up}"
    return f"{against}: {reasons or 'no evidence in particular, only how often each occurs'}."


def load_annotator(source: str) -> EmbeddedAnnotator:
    """Load the shipped annotator (``embedded``), or one that was trained, from its folder.

    Raises:
        ModelError: there is no such annotator, or it was trained with another encoder.
    """
    if source == EMBEDDED:
        with as_file(files("esckit.judging") / _SHIPPED) as path:
            model = read_model(path)
    else:
        model = read_model(Path(source) / FILE)
    encoder = load_encoder(EMBEDDED)
    if encoder.weights_hash != model.encoder_hash:
        raise ModelError(
            f"the annotator {source} was trained with the encoder {model.encoder}, which has other weights than the "
            "embedded one: train the annotator again."
        )
    return EmbeddedAnnotator(Path(source).resolve().name if source != EMBEDDED else EMBEDDED, model, encoder)


def save_annotator(folder: Path, model: ErrorModel) -> None:
    """Write an annotator's folder, atomically."""
    write_json(folder / FILE, model_to_json(model))


class CaseReader:
    """Reads cases with an encoder; what does not change from case to case is embedded once, and remembered."""

    def __init__(self, encoder: Encoder) -> None:
        self._embed = TextVectors(encoder)

    @cached_property
    def _stock(self) -> NDArray[np.float32]:
        """Vectors (S, D) of the stock sentences."""
        return self._embed(stock_sentences())

    def read(self, cases: Sequence[Case]) -> tuple[list[dict[str, Evidence]], Array]:
        """Return each case's evidence, and vectors (N, 3 D): `VECTORS` names the three parts.

        A text that stands in several cases, such as the turns that a dialogue's replies have before them, is embedded
        once, and not again where it comes back soon.
        """
        replies = [case.response for case in cases]
        speakers: tuple[Speaker, Speaker] = ("seeker", "supporter")
        seeker, supporter = (
            [[turn.text or "" for turn in recent_turns(case, speaker)] for case in cases] for speaker in speakers
        )
        texts = list(dict.fromkeys([*replies, *(text for said in (*seeker, *supporter) for text in said)]))
        vectors = dict(zip(texts, self._embed(texts).astype(np.float64), strict=True))
        reply = np.stack([vectors[text] for text in replies])  # (N, D)
        heard, earlier = (np.stack([_mean(said, vectors, reply[0]) for said in side]) for side in (seeker, supporter))
        likeness = np.maximum(0.0, reply @ self._stock.T)  # (N, S)
        relevance = np.maximum(0.0, (reply * heard).sum(1))
        evidence = [
            {
                **lexical_evidence(case),
                "stock_likeness": Evidence(float(near.max()), (stock_sentences()[int(near.argmax())],)),
                "relevance": Evidence(float(relevant)),
            }
            for case, near, relevant in zip(cases, likeness, relevance, strict=True)
        ]
        return evidence, np.hstack([reply, heard, earlier])


def _mean(said: Sequence[str], vectors: dict[str, Array], like: Array) -> Array:
    """The mean (D,) of texts' vectors at length 1, later texts weighing more; 0 where there is none."""
    mean = sum((vectors[text] * _BEFORE**age for age, text in enumerate(reversed(said))), np.zeros_like(like))
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9))
