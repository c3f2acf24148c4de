"""The embedded annotator's decision: a linear model of named evidence, and where it is fitted, of sentence vectors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import PSYCHOLOGICAL_ERRORS
from esckit.errors import ModelError
from esckit.files import decode_json, read_text
from esckit.judging.evidence import EVIDENCE, Evidence

FILE: Final = "annotator.json"
"""In a trained annotator's folder."""

FORMAT: Final = 2
NONE: Final = "none"
OUTCOMES: Final = (NONE, *PSYCHOLOGICAL_ERRORS)
"""What a reply can be found to be; no error comes first."""

VECTORS: Final = (
    "the wording of the reply as a whole",
    "what the seeker said as a whole",
    "the earlier replies as a whole",
)
"""What the three parts of a vector are, for explanations."""

Array = NDArray[np.float64]
_LEAST: Final = 0.05  # of log odds; a reason that moves less is none
_REASONS: Final = 3


class Reason(NamedTuple):
    """What moved a decision: by how much (in log odds against the next outcome), and why in words."""

    weight: float
    text: str


class Decision(NamedTuple):
    """An outcome with the probability of each, and the reasons for it against the next one, strongest first."""

    outcome: str
    probabilities: dict[str, float]
    runner_up: str
    reasons: list[Reason]


@dataclass(frozen=True)
class ErrorModel:
    """Log odds = bias + weights x evidence (+ vector weights x vectors)."""

    encoder: str  # where the encoder came from
    encoder_hash: str  # of its weights
    origin: str  # what it was fitted on, in words
    bias: Array  # (K,) for each of `OUTCOMES`
    weights: Array  # (K, E) for each of `EVIDENCE`, in their order
    usual: Array  # (E,) the mean evidence where it was fitted; explanations say what is unusual
    vector_weights: Array | None = None  # (K, 3 D) for each of `VECTORS`; None: vectors are not read
    vector_usual: Array | None = None  # (K, 3) their mean effects; None likewise

    def logits(self, evidence: Array, vectors: Array) -> Array:
        """Log odds (N, K) of evidence (N, E) and vectors (N, 3 D)."""
        logits = evidence @ self.weights.T + self.bias
        return logits if self.vector_weights is None else np.asarray(logits + vectors @ self.vector_weights.T)

    def decide(self, evidence: Mapping[str, Evidence], vector: Array) -> Decision:
        """Decide on one reply from its evidence and its vector (3 D,)."""
        values = evidence_row(evidence)
        logits = self.logits(values[None], vector[None])[0]
        odds = np.exp(logits - logits.max())
        order = np.argsort(-odds, kind="stable")
        probabilities = dict(zip(OUTCOMES, (odds / odds.sum()).tolist(), strict=True))
        reasons = self._reasons(int(order[0]), int(order[1]), evidence, values, vector)
        return Decision(OUTCOMES[order[0]], probabilities, OUTCOMES[order[1]], reasons)

    def _reasons(
        self, best: int, other: int, evidence: Mapping[str, Evidence], values: Array, vector: Array
    ) -> list[Reason]:
        moved = (self.weights[best] - self.weights[other]) * (values - self.usual)
        reasons = [
            Reason(float(weight), _sentence(name, evidence[name], usual))
            for name, weight, usual in zip(EVIDENCE, moved, self.usual, strict=True)
        ]
        if self.vector_weights is not None and self.vector_usual is not None:
            effects = (self.vector_weights[best] - self.vector_weights[other]) * vector
            moved = effects.reshape(len(VECTORS), -1).sum(1) - (self.vector_usual[best] - self.vector_usual[other])
            reasons += [Reason(float(weight), text) for weight, text in zip(moved, VECTORS, strict=True)]
        strong = sorted((reason for reason in reasons if reason.weight > _LEAST), reverse=True)
        return strong[:_REASONS]


def evidence_row(evidence: Mapping[str, Evidence]) -> Array:
    """The values (E,) in the order of `EVIDENCE`."""
    return np.array([evidence[name].value for name in EVIDENCE])


def _sentence(name: str, evidence: Evidence, usual: float) -> str:
    words = ", ".join(f"“{word}”" for word in evidence.words[:3])
    return f"{EVIDENCE[name]}: {evidence.value:.2f} (usual {usual:.2f}){f', {words}' if words else ''}"


# ------------------------------------------------------------------------------------------------------------- on disk


def model_to_json(model: ErrorModel) -> dict[str, Any]:
    """A model as JSON, its weights by name, so that a person can read them; numbers are rounded to four decimals."""
    named: Sequence[dict[str, float]] = [
        dict(zip(EVIDENCE, _rounded(row), strict=True)) for row in (*model.weights, model.usual)
    ]
    body = {
        **{key: value for key, value in vars(model).items() if isinstance(value, str)},
        "bias": dict(zip(OUTCOMES, _rounded(model.bias), strict=True)),
        "weights": dict(zip(OUTCOMES, named[:-1], strict=True)),
        "usual": named[-1],
        "vector_weights": None if model.vector_weights is None else [_rounded(row) for row in model.vector_weights],
        "vector_usual": None if model.vector_usual is None else [_rounded(row) for row in model.vector_usual],
    }
    return {"format": FORMAT, **body}


def _rounded(values: Array) -> list[float]:
    return [round(float(value), 4) for value in values]


def read_model(path: Path) -> ErrorModel:
    """Read a model.

    Raises:
        ModelError: it is missing, of another format, or not what `model_to_json` gives.
    """
    text = read_text(path, what="an annotator (annotator.json)", error=ModelError)
    try:
        body = decode_json(text)
        if body["format"] != FORMAT:
            raise ModelError(
                f"{path} has format {body['format']!r}, this esckit reads format {FORMAT}: train the annotator again."
            )
        model = _parse(body)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} is no annotator of this esckit ({type(error).__name__}: {error}): train it again."
        ) from error
    return model


def _parse(body: dict[str, Any]) -> ErrorModel:
    vectors, usual = body["vector_weights"], body["vector_usual"]
    return ErrorModel(
        encoder=str(body["encoder"]),
        encoder_hash=str(body["encoder_hash"]),
        origin=str(body["origin"]),
        bias=_row(body["bias"], OUTCOMES),
        weights=np.stack([_row(body["weights"][outcome], EVIDENCE) for outcome in OUTCOMES]),
        usual=_row(body["usual"], EVIDENCE),
        vector_weights=None if vectors is None else np.array(vectors, dtype=np.float64).reshape(len(OUTCOMES), -1),
        vector_usual=None if usual is None else np.array(usual, dtype=np.float64).reshape(len(OUTCOMES), len(VECTORS)),
    )


def _row(named: Mapping[str, float], names: Sequence[str] | Mapping[str, str]) -> Array:
    if set(named) != set(names):
        raise ValueError(f"it disagrees on {', '.join(sorted(set(named) ^ set(names)))}")
    return np.array([float(named[name]) for name in names])
