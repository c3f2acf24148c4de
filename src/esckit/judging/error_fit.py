"""Fitting the embedded annotator: penalised maximum likelihood around weights that are set by hand.

The shipped model is fitted on the examples of psychological errors that esckit's authors wrote, and on nothing else.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import numpy as np

from esckit.corpora.error_labels import LabelledReply, example_reply, read_chat_examples, read_error_examples
from esckit.errors import CorpusError
from esckit.judging.embedded_annotator import CaseReader
from esckit.judging.error_model import NONE, OUTCOMES, VECTORS, Array, ErrorModel, evidence_row
from esckit.judging.evidence import EVIDENCE, Case
from esckit.planning.encoder import Encoder
from esckit.progress import progress

_FOLDS: Final = 5
_TEMPER: Final = 0.25  # how far frequent outcomes are held back: log odds lose this share of the log frequency
_SHIPPED_PENALTY: Final = 3.0  # of 1, 3 and 10 the best on our own examples, by cross-validation


class _Read(NamedTuple):
    """Evidence (N, E) and vectors (N, 3 D)."""

    evidence: Array
    vectors: Array

    def only(self, rows: Array) -> "_Read":
        """Some of them, by a mask (N,)."""
        return _Read(self.evidence[rows], self.vectors[rows])


class Penalty(NamedTuple):
    """How strongly weights are held: those of evidence at what is set by hand, those of vectors at 0 (None: unused)."""

    evidence: float  # of named evidence
    vectors: tuple[float, float, float] | None  # of each of `VECTORS`


_PENALTIES: Final = (Penalty(4.0, None), Penalty(4.0, (1.5, 4.0, 6.0)), Penalty(4.0, (4.0, 10.0, 15.0)))


@cache
def _by_hand() -> tuple[dict[str, float], Array]:
    import yaml

    body = yaml.safe_load((files("esckit.judging") / "weights_by_hand.yaml").read_text(encoding="utf-8"))
    unknown = {name for row in body["weights"].values() for name in row} - set(EVIDENCE)
    assert not unknown, unknown
    assert list(body["shares"]) == list(OUTCOMES)
    rows = [[body["weights"].get(outcome, {}).get(name, 0.0) for name in EVIDENCE] for outcome in OUTCOMES]
    return body["shares"], np.array(rows, dtype=np.float64)


def hand_weights() -> Array:
    """The weights (K, E) that fitting starts from; they follow from what the error types mean."""
    return _by_hand()[1].copy()


# ------------------------------------------------------------------------------------------------------------- fitting


def fit_annotator(replies: Sequence[LabelledReply], encoder: Encoder, origin: str) -> ErrorModel:
    """Fit on labelled replies; how strongly, and whether vectors are read, is chosen by cross-validation over groups.

    Raises:
        CorpusError: there are fewer than two groups or two outcomes.
    """
    return _fit_chosen(_read(replies, encoder), _outcomes(replies), _groups(replies), encoder, origin)


def cross_validate(replies: Sequence[LabelledReply], encoder: Encoder) -> Array:
    """Probabilities (N, K) of each reply by a model that saw no reply of its group; choices are made inside each fold.

    Raises:
        CorpusError: there are fewer than two groups or two outcomes.
    """
    read, outcomes, groups = _read(replies, encoder), _outcomes(replies), _groups(replies)
    with progress("cross-validation", int(_folds(groups).max()) + 1) as bar:

        def fit(seen: Array) -> ErrorModel:
            model = _fit_chosen(read.only(seen), outcomes[seen], groups[seen], encoder, "")
            bar.advance()
            return model

        return _unseen(read, _folds(groups), fit)


def fit_shipped(encoder: Encoder) -> ErrorModel:
    """Fit the model that the package ships, from author-written texts alone."""
    replies = [example_reply(example) for example in (*read_error_examples(), *read_chat_examples())]
    outcomes = _outcomes(replies)
    # The examples hold each error about equally often and replies do not: all of an outcome weighs as its share.
    shares = np.array(list(_by_hand()[0].values()))
    counts = (shares / np.bincount(outcomes, minlength=len(OUTCOMES)) * len(replies))[outcomes]
    model = _fit(_read(replies, encoder), outcomes, counts, Penalty(_SHIPPED_PENALTY, None))
    return _named(model, model.bias, encoder, f"{len(replies)} author-written examples")


def _fit_chosen(read: _Read, outcomes: Array, groups: Array, encoder: Encoder, origin: str) -> ErrorModel:
    fold = _folds(groups)
    if len(set(outcomes.tolist())) < 2:
        raise CorpusError("an annotator needs replies with at least two different outcomes: label more replies.")
    losses = [_held_out_loss(read, outcomes, fold, penalty) for penalty in _PENALTIES]
    model = _fit(read, outcomes, np.ones(len(outcomes)), _PENALTIES[int(np.argmin(losses))])
    frequent = np.bincount(outcomes.astype(np.int64), minlength=len(OUTCOMES)) + 1
    return _named(model, model.bias - _TEMPER * np.log(frequent / frequent.sum()), encoder, origin)


def _held_out_loss(read: _Read, outcomes: Array, fold: Array, penalty: Penalty) -> float:
    """Negative log-likelihood of each fold under a model of the others, summed."""
    likely = _unseen(read, fold, lambda seen: _fit(read.only(seen), outcomes[seen], np.ones(int(seen.sum())), penalty))
    return -float(np.log(likely[np.arange(len(likely)), outcomes]).sum())


def _unseen(read: _Read, fold: Array, fit: Callable[[Array], ErrorModel]) -> Array:
    """Probabilities (N, K) of each fold by a model that is fitted on the others, which a mask (N,) tells."""
    likely = np.zeros((len(fold), len(OUTCOMES)))
    for held in range(int(fold.max()) + 1):
        unseen = read.only(fold == held)
        likely[fold == held] = _softmax(fit(fold != held).logits(unseen.evidence, unseen.vectors))
    return likely


def _fit(read: _Read, outcomes: Array, counts: Array, penalty: Penalty) -> ErrorModel:
    """Minimise -sum of counts x log-likelihood + penalties / 2 x squared distances of weights from where they are held.

    A pseudo-count of one for each outcome keeps the bias of one that does not occur finite.
    """
    from scipy.optimize import minimize

    held, k = hand_weights(), len(OUTCOMES)
    features = read.evidence if penalty.vectors is None else np.hstack([read.evidence, read.vectors])
    width, named = features.shape[1], held.shape[1]
    centre = np.hstack([held, np.zeros((k, width - named))])
    wordings = np.repeat(penalty.vectors or (), (width - named) // len(VECTORS))
    strength = np.concatenate([np.full(named, penalty.evidence), wordings])
    target = np.eye(k)[outcomes]
    usual = np.average(features, axis=0, weights=counts)

    def objective(flat: Array) -> tuple[float, Array]:
        bias, weights = flat[:k], flat[k:].reshape(k, width)
        likely = _softmax(features @ weights.T + bias)
        average = _softmax((weights @ usual + bias)[None])[0]
        away = weights - centre
        loss = (
            -(counts * np.log((likely * target).sum(1))).sum() - np.log(average).sum() + (strength * away**2).sum() / 2
        )
        error, pseudo = counts[:, None] * (likely - target), k * average - 1
        slope = error.T @ features + np.outer(pseudo, usual) + strength * away
        return float(loss), np.concatenate([error.sum(0) + pseudo, slope.ravel()])

    start = np.concatenate([np.zeros(k), centre.ravel()])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    bias, weights = found[:k], found[k:].reshape(k, width)
    vectors = None if penalty.vectors is None else weights[:, named:]
    usual_effect = None if vectors is None else (vectors * usual[named:]).reshape(k, len(VECTORS), -1).sum(2)
    return ErrorModel("", "", "", bias, weights[:, :named], usual[:named], vectors, usual_effect)


def _named(model: ErrorModel, bias: Array, encoder: Encoder, origin: str) -> ErrorModel:
    return replace(model, encoder=encoder.source, encoder_hash=encoder.weights_hash, origin=origin, bias=bias)


def _softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def _read(replies: Sequence[LabelledReply], encoder: Encoder) -> _Read:
    """Read labelled replies; their labels are not looked at."""
    evidence, vectors = CaseReader(encoder).read([Case(r.context, r.strategy, r.response) for r in replies])
    return _Read(np.stack([evidence_row(each) for each in evidence]), vectors)


def _outcomes(replies: Sequence[LabelledReply]) -> Array:
    return np.array([OUTCOMES.index(reply.error or NONE) for reply in replies])


def _groups(replies: Sequence[LabelledReply]) -> Array:
    places = {group: place for place, group in enumerate(dict.fromkeys(reply.group for reply in replies))}
    return np.array([places[reply.group] for reply in replies])


def _folds(groups: Array) -> Array:
    """A fold for each reply: groups go whole, the largest first, each into the fold that holds least."""
    sizes = Counter(groups.tolist())
    if len(sizes) < 2:
        raise CorpusError("an annotator is fitted over dialogues and needs at least two of them: label more replies.")
    room = [0] * min(_FOLDS, len(sizes))
    fold_of: dict[int, int] = {}
    for group, size in sizes.most_common():
        fold_of[group] = room.index(min(room))
        room[fold_of[group]] += size
    return np.array([fold_of[group] for group in groups.tolist()])
