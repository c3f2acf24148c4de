"""From replies to what the embedded annotator decides on: evidence and sentence vectors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from esckit.corpora.error_labels import LabelledReply
from esckit.judging.cues import stock_sentences
from esckit.judging.error_model import Array, evidence_row
from esckit.judging.evidence import Case, Evidence, lexical_evidence, recent_seeker_text
from esckit.models.encoder import Encoder

__all__ = ["ReadReplies", "read_cases", "read_replies"]


class ReadReplies(NamedTuple):
    """Evidence (N, E) and vectors (N, 2 D)."""

    evidence: Array
    vectors: Array

    def only(self, rows: Array) -> "ReadReplies":
        """Some of them, by a mask (N,)."""
        return ReadReplies(self.evidence[rows], self.vectors[rows])


def read_cases(cases: Sequence[Case], encoder: Encoder) -> tuple[list[dict[str, Evidence]], Array]:
    """Return each case's evidence, and vectors (N, 2 D): the reply's, then that of what the seeker said last."""
    stock = encoder.embed(stock_sentences())
    reply = encoder.embed([case.response for case in cases]).astype(np.float64)
    said = encoder.embed([recent_seeker_text(case)[-600:] for case in cases]).astype(np.float64)
    likeness = np.maximum(0.0, reply @ stock.T)  # (N, S)
    relevance = np.maximum(0.0, (reply * said).sum(1))
    evidence = [
        {
            **lexical_evidence(case),
            "stock_likeness": Evidence(float(near.max()), (stock_sentences()[int(near.argmax())],)),
            "relevance": Evidence(float(relevant) if case.context else 0.0),
        }
        for case, near, relevant in zip(cases, likeness, relevance, strict=True)
    ]
    return evidence, np.hstack([reply, said])


def read_replies(replies: Sequence[LabelledReply], encoder: Encoder) -> ReadReplies:
    """Read labelled replies; their labels are not looked at."""
    evidence, vectors = read_cases([Case(r.context, r.strategy, r.response) for r in replies], encoder)
    return ReadReplies(np.stack([evidence_row(each) for each in evidence]), vectors)
