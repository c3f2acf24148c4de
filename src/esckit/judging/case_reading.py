"""From replies to what the embedded annotator decides on: evidence and sentence vectors."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Speaker
from esckit.corpora.error_labels import LabelledReply
from esckit.judging.cues import stock_sentences
from esckit.judging.error_model import Array, evidence_row
from esckit.judging.evidence import Case, Evidence, lexical_evidence, recent_turns
from esckit.planning.encoder import Encoder

__all__ = ["CaseReader", "ReadReplies", "read_replies"]

_BEFORE: Final = 0.5  # what a turn weighs in times the speaker's next one


class ReadReplies(NamedTuple):
    """Evidence (N, E) and vectors (N, 3 D)."""

    evidence: Array
    vectors: Array

    def only(self, rows: Array) -> "ReadReplies":
        """Some of them, by a mask (N,)."""
        return ReadReplies(self.evidence[rows], self.vectors[rows])


class CaseReader:
    """Reads cases with an encoder; what does not change from case to case is embedded once.

    Args:
        encoder: embeds replies, turns and stock sentences.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @cached_property
    def _stock(self) -> NDArray[np.float32]:
        """Vectors (S, D) of the stock sentences."""
        return self.encoder.embed(stock_sentences())

    def read(self, cases: Sequence[Case]) -> tuple[list[dict[str, Evidence]], Array]:
        """Return each case's evidence, and vectors (N, 3 D): `VECTORS` names the three parts.

        A text that stands in several cases, such as the turns that a dialogue's replies have before them, is embedded
        once.
        """
        replies = [case.response for case in cases]
        seeker, supporter = ([_last(case, speaker) for case in cases] for speaker in ("seeker", "supporter"))
        texts = list(dict.fromkeys([*replies, *(text for said in (*seeker, *supporter) for text in said)]))
        vectors = dict(zip(texts, self.encoder.embed(texts).astype(np.float64), strict=True))
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


def _last(case: Case, speaker: Speaker) -> list[str]:
    return [turn.text or "" for turn in recent_turns(case, speaker)]


def _mean(said: Sequence[str], vectors: dict[str, Array], like: Array) -> Array:
    """The mean (D,) of texts' vectors at length 1, later texts weighing more; 0 where there is none."""
    mean = sum((vectors[text] * _BEFORE**age for age, text in enumerate(reversed(said))), np.zeros_like(like))
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9))


def read_replies(replies: Sequence[LabelledReply], encoder: Encoder) -> ReadReplies:
    """Read labelled replies; their labels are not looked at."""
    evidence, vectors = CaseReader(encoder).read([Case(r.context, r.strategy, r.response) for r in replies])
    return ReadReplies(np.stack([evidence_row(each) for each in evidence]), vectors)
