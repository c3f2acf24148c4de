"""Eight emotion scores of a text without a call: a ridge regression on what a reader sees, fitted on a role bank."""

import itertools
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

_RIDGES: Final = (0.03, 0.3, 1.0, 3.0)
_WORDS: Final = (0.1, 0.3, 1.0)  # how much the lexicon's columns weigh beside the reader's
_SENTENCES: Final = (0.3, 1.0)  # how much a sentence of our own weighs beside a text of the bank
_FOLDS: Final = 5
_STRONG, _WEAK = 9.0, 2.0  # scores of a sentence: of its emotion, and of all others


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
def _shipped() -> dict[str, dict[str, dict[str, list[str]]]]:
    """``words`` and ``sentences`` by language and emotion."""
    import yaml

    text = (files("esckit.planning") / "feelings.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, dict[str, list[str]]]] = yaml.safe_load(text)
    return found


@cache
def _lexicon(language: str) -> list[re.Pattern[str]]:
    """A pattern an emotion, in the order of `EMOTIONS`; none in a language that it lacks."""
    words = _shipped()["words"].get(language, {})
    start = r"\b" if language == "en" else ""  # Chinese has no blanks to find the beginning of a word by
    return [re.compile(f"{start}(?:{'|'.join(words[name])})", re.I) for name in EMOTIONS if words]


def feeling_words(texts: Sequence[str], language: str) -> Array:
    """How much texts speak of each emotion (N, 8): log(1 + words of the lexicon), 0 in a language that it lacks."""
    counts = np.zeros((len(texts), len(EMOTIONS)))
    for column, pattern in enumerate(_lexicon(language)):
        counts[:, column] = [len(pattern.findall(text)) for text in texts]
    return np.log1p(counts)


def fit_scorer(
    reader: TextReader, texts: Sequence[str], scores: Array, language: str, *, seed: int
) -> tuple[EmotionScorer, dict[str, Any]]:
    """Fit a scorer on texts with their scores (N, 8), and on sentences of our own, each with one strong emotion.

    How strongly, and what words and sentences count, is chosen by cross-validation over the texts.

    Returns:
        It, and facts: ``texts``, ``ridge``, ``words``, ``sentences`` and ``correlation`` (Pearson's by emotion, and
        their mean, of texts that the scorer was neither fitted to nor chosen by).
    """
    ours = _shipped()["sentences"].get(language, {})
    own = [(text, place) for place, name in enumerate(EMOTIONS) for text in ours.get(name, [])]
    strong = np.where(np.eye(len(EMOTIONS), dtype=bool), _STRONG, _WEAK)[[place for _, place in own]]
    everything = [*texts, *(text for text, _ in own)]
    rows, words = reader.rows(everything), feeling_words(everything, language)
    known = _Known(likeness(rows, rows), words @ words.T, np.vstack([scores, strong]), len(texts))
    fold = np.random.default_rng(seed).permutation(np.arange(len(texts)) % min(_FOLDS, len(texts)))
    unseen = np.zeros_like(scores)
    for held in np.unique(fold):
        here = np.flatnonzero(fold == held)
        choice = _choose(known, np.where(fold == held, -1, fold))
        unseen[here] = known.predict(np.flatnonzero(fold != held), here, choice)
    choice = _choose(known, fold)
    dual, level = known.fit(np.arange(len(texts)), choice)
    weights = np.hstack([np.asarray(rows.T @ dual).T, choice.words**2 * dual.T @ words])
    facts = {"texts": len(texts), **choice._asdict(), "correlation": correlations(unseen, scores)}
    return EmotionScorer(weights, level), facts


class _Choice(NamedTuple):
    """Strength of the ridge; weights of the lexicon's columns, and of our own sentences."""

    ridge: float
    words: float
    sentences: float


class _Known(NamedTuple):
    """N texts of a bank and M sentences of our own: kernels (N + M, N + M) of rows and words, scores (N + M, 8)."""

    rows: Array
    words: Array
    scores: Array
    texts: int  # N

    def fit(self, seen: NDArray[np.intp], choice: _Choice) -> tuple[Array, Array]:
        """Weighted ridge regression in its dual form: there are fewer texts than columns.

        Returns:
            (N + M, 8) what each text counts, 0 where it is not seen, and (8,) the level: scores are kernel @ counts +
            level.
        """
        places = np.concatenate([seen, np.arange(self.texts, len(self.scores))])
        if not len(places):  # one experience, in a language without sentences of ours
            return np.zeros_like(self.scores), np.full(len(EMOTIONS), (LOWEST + HIGHEST) / 2)
        share = np.where(places < self.texts, 1.0, choice.sentences)
        mean = share / share.sum()
        kernel = self._kernel(choice)[np.ix_(places, places)]
        middle = np.eye(len(places)) - mean  # takes away the weighted mean
        centred, level = middle @ kernel @ middle.T, mean @ self.scores[places]
        left = np.linalg.solve(centred + choice.ridge * np.diag(1 / share), self.scores[places] - level)
        dual = np.zeros_like(self.scores)
        dual[places] = middle.T @ left
        return dual, level - mean @ kernel @ dual[places]

    def predict(self, seen: NDArray[np.intp], here: NDArray[np.intp], choice: _Choice) -> Array:
        """Scores of the texts ``here`` by a regression on those ``seen``, cut to their range."""
        dual, level = self.fit(seen, choice)
        return np.clip(self._kernel(choice)[here] @ dual + level, LOWEST, HIGHEST)

    def _kernel(self, choice: _Choice) -> Array:
        return np.asarray(self.rows + choice.words**2 * self.words)


def _choose(known: _Known, fold: NDArray[np.int64]) -> _Choice:
    """The choice with the highest mean correlation on folds that it has not seen; texts of fold -1 take no part."""

    def correlation(choice: _Choice) -> float:
        found = np.zeros((known.texts, len(EMOTIONS)))
        for held in np.unique(fold[fold >= 0]):
            here = np.flatnonzero(fold == held)
            found[here] = known.predict(np.flatnonzero((fold != held) & (fold >= 0)), here, choice)
        return correlations(found[fold >= 0], known.scores[: known.texts][fold >= 0])["mean"]

    choices = [_Choice(*each) for each in itertools.product(_RIDGES, _WORDS, _SENTENCES)]
    return max(choices, key=correlation) if (fold >= 0).sum() > 1 else choices[-1]


def correlations(found: Array, gold: Array) -> dict[str, float]:
    """Pearson's correlation of scores (N, 8) by emotion, and their mean; 0 where one side does not vary."""
    found, gold = found - found.mean(0), gold - gold.mean(0)
    sizes = np.linalg.norm(found, axis=0) * np.linalg.norm(gold, axis=0)
    each = np.divide((found * gold).sum(0), sizes, out=np.zeros(len(EMOTIONS)), where=sizes > 1e-9)
    return {name: round(float(value), 3) for name, value in zip((*EMOTIONS, "mean"), (*each, each.mean()), strict=True)}
