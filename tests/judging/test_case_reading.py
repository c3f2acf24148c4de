"""From cases to evidence and vectors: each text is embedded once, and vectors say who said what."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esckit.conversation import Turn
from esckit.judging.embedded_annotator import CaseReader
from esckit.judging.error_model import NONE, OUTCOMES, VECTORS, ErrorModel
from esckit.judging.evidence import EVIDENCE, Case, Evidence, stock_sentences
from tests.judging.tiny import LetterEncoder


class CountingEncoder(LetterEncoder):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def embed(self, texts: Sequence[str], max_tokens: int = 128) -> NDArray[np.float32]:
        self.given += texts
        return super().embed(texts, max_tokens)


TURNS = (
    Turn("0", None, "seeker", "aaa"),
    Turn("1", "0", "supporter", "eee"),
    Turn("2", "1", "seeker", "iii"),
    Turn("3", "2", "supporter", "ooo"),
)
CASES = [Case(TURNS[:1], None, "eee"), Case(TURNS[:3], None, "ooo"), Case(TURNS, None, "uuu")]


def reader() -> tuple[CaseReader, CountingEncoder]:
    encoder: Any = CountingEncoder()
    return CaseReader(encoder), encoder


def test_each_text_of_a_dialogue_is_embedded_once_and_stock_sentences_once_for_all() -> None:
    read, encoder = reader()
    read.read(CASES)
    assert sorted(encoder.given) == sorted([*stock_sentences(), "aaa", "eee", "iii", "ooo", "uuu"])
    read.read([Case((), None, "rrr")])
    assert encoder.given[-1] == "rrr"
    assert len(encoder.given) == len(stock_sentences()) + 6


def test_vectors_are_the_reply_the_seeker_and_the_earlier_replies_the_last_turn_weighing_most() -> None:
    read, encoder = reader()
    first, _, last = read.read(CASES)[1].reshape(3, len(VECTORS), -1)
    a, e, i, o, u = encoder.embed(["aaa", "eee", "iii", "ooo", "uuu"])
    np.testing.assert_allclose(last[0], u, atol=1e-6)
    for mean, early, late in ((last[1], a, i), (last[2], e, o)):
        assert np.linalg.norm(mean) == pytest.approx(1)
        assert mean @ late > mean @ early > 0.1
    np.testing.assert_allclose(first[1], a, atol=1e-6)
    assert not first[2].any()  # no reply stands before the first


def test_a_case_reads_the_same_alone() -> None:
    together, alone = (reader()[0].read(cases) for cases in (CASES, CASES[2:]))
    np.testing.assert_allclose(together[1][2], alone[1][0], atol=1e-6)
    assert together[0][2]["stock_likeness"].value == pytest.approx(alone[0][0]["stock_likeness"].value)


def test_a_decision_by_the_earlier_replies_says_so() -> None:
    weights = np.zeros((len(OUTCOMES), 3 * 2))
    weights[OUTCOMES.index("template_response"), 4] = 3.0
    k, e = len(OUTCOMES), len(EVIDENCE)
    model = ErrorModel("", "", "", np.zeros(k), np.zeros((k, e)), np.zeros(e), weights, np.zeros((k, 3)))
    nothing = dict.fromkeys(EVIDENCE, Evidence(0.0))
    decision = model.decide(nothing, np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
    assert (decision.outcome, decision.runner_up) == ("template_response", NONE)
    assert decision.reasons == [(3.0, VECTORS[2])]
