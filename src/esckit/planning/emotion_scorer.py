"""Eight emotion scores of a text without a call: a ridge regression on what a reader sees, fitted on a role bank."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.planning.text_features import TextReader, likeness
from esckit.roles.emotions import EMOTIONS, HIGHEST, LOWEST

Array = NDArray[np.float64]

_RIDGES: Final = (0.1, 0.3, 1.0, 3.0, 10.0)
_WORDS: Final = (0.0, 0.3, 1.0)  # how much the lexicon's columns weigh beside the reader's
_FOLDS: Final = 10


@dataclass(frozen=True)
class EmotionScorer:
    """Linear in a reader's rows (N, F) and in the lexicon's (N, 8).

    Attributes:
        weights: (8, F + 8), in the order of `EMOTIONS`.
        bias: (8,).
    """

    weights: Array
    bias: Array

    def score(self, rows: Any, words: Array) -> Array:
        """Scores (N, 8), cut to 1..10."""
        reader = self.weights.shape[1] - words.shape[1]
        found = rows @ self.weights[:, :reader].T + words @ self.weights[:, reader:].T + self.bias
        return np.clip(np.asarray(found, dtype=np.float64), LOWEST, HIGHEST)


@cache
def _lexicon() -> dict[str, list[re.Pattern[str]]]:
    """By language a pattern an emotion, in the order of `EMOTIONS`."""
    import yaml

    body = yaml.safe_load((files("esckit.planning") / "feelings.yaml").read_text(encoding="utf-8"))
    start = {"en": r"\b"}  # of a word; Chinese has no blanks to find one by
    return {
        language: [re.compile(f"{start.get(language, '')}(?:{'|'.join(words[name])})", re.I) for name in EMOTIONS]
        for language, words in body.items()
    }


def feeling_words(texts: Sequence[str], language: str) -> Array:
    """How much texts speak of each emotion (N, 8): log(1 + words of the lexicon), 0 in a language that it lacks."""
    patterns = _lexicon().get(language)
    if not patterns:
        return np.zeros((len(texts), len(EMOTIONS)))
    counts = [[len(pattern.findall(text)) for pattern in patterns] for text in texts]
    return np.log1p(np.array(counts, dtype=np.float64).reshape(-1, len(EMOTIONS)))


def fit_scorer(
    reader: TextReader, texts: Sequence[str], scores: Array, language: str, *, seed: int
) -> tuple[EmotionScorer, dict[str, Any]]:
    """Fit a scorer on texts with their scores (N, 8); strengths are chosen by cross-validation over the texts.

    Returns:
        It, and facts: ``texts``, ``ridge``, ``words`` (the lexicon's weight), ``correlation`` (Pearson's by emotion,
        and their mean, of texts that the scorer was neither fitted to nor chosen by).
    """
    rows, words = reader.rows(texts), feeling_words(texts, language)
    kernels = likeness(rows, rows), words @ words.T
    fold = np.random.default_rng(seed).permutation(np.arange(len(texts)) % min(_FOLDS, len(texts)))
    unseen = np.zeros_like(scores)
    for held in np.unique(fold):
        seen, here = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        choice = _choose([kernel[np.ix_(seen, seen)] for kernel in kernels], scores[seen], fold[seen])
        unseen[here] = _predict(kernels, scores, seen, here, choice)
    choice = _choose(kernels, scores, fold)
    dual, level = _dual(_mixed(kernels, choice.words), scores, choice.ridge)
    weights = np.hstack([np.asarray(rows.T @ dual).T, choice.words**2 * dual.T @ words])
    facts = {"texts": len(texts), **choice._asdict(), "correlation": correlations(unseen, scores)}
    return EmotionScorer(weights, level), facts


def correlations(found: Array, gold: Array) -> dict[str, float]:
    """Pearson's correlation of scores (N, 8) by emotion, and their mean; 0 where one side does not vary."""
    found, gold = found - found.mean(0), gold - gold.mean(0)
    sizes = np.linalg.norm(found, axis=0) * np.linalg.norm(gold, axis=0)
    each = np.divide((found * gold).sum(0), sizes, out=np.zeros(len(EMOTIONS)), where=sizes > 1e-9)
    return {name: round(float(value), 3) for name, value in zip((*EMOTIONS, "mean"), (*each, each.mean()), strict=True)}


class _Choice(NamedTuple):
    """Strength of the ridge, and weight of the lexicon's columns."""

    ridge: float
    words: float


def _choose(kernels: Sequence[Array], scores: Array, fold: NDArray[np.int64]) -> _Choice:
    """The choice with the least squared error on folds that it has not seen."""
    choices = [_Choice(ridge, words) for words in _WORDS for ridge in _RIDGES]

    def error(choice: _Choice) -> float:
        total = 0.0
        for held in np.unique(fold):
            seen, here = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            total += float(((_predict(kernels, scores, seen, here, choice) - scores[here]) ** 2).sum())
        return total

    return min(choices, key=error)


def _predict(
    kernels: Sequence[Array], scores: Array, seen: NDArray[np.intp], here: NDArray[np.intp], choice: _Choice
) -> Array:
    """Scores of the texts ``here`` by a regression on those ``seen``, cut to their range."""
    kernel = _mixed(kernels, choice.words)
    dual, level = _dual(kernel[np.ix_(seen, seen)], scores[seen], choice.ridge)
    return np.clip(kernel[np.ix_(here, seen)] @ dual + level, LOWEST, HIGHEST)


def _mixed(kernels: Sequence[Array], words: float) -> Array:
    return np.asarray(kernels[0] + words**2 * kernels[1])


def _dual(kernel: Array, scores: Array, ridge: float) -> tuple[Array, Array]:
    """Ridge regression by the kernel (N, N) of its texts, of which there are fewer than columns.

    Returns:
        (N, 8) what each text counts, and (8,) the level: scores are kernel @ counts + level.
    """
    middle = np.eye(len(kernel)) - 1 / len(kernel)
    mean = scores.mean(0)
    dual = middle @ np.linalg.solve(middle @ kernel @ middle + ridge * np.eye(len(kernel)), scores - mean)
    return dual, mean - kernel.mean(0) @ dual
