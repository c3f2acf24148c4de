"""Agreement with labels of psychological errors."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from esckit.errors import EsckitError
from esckit.measures.agreement import cohen_kappa
from esckit.measures.intervals import Draws
from esckit.measures.psychological_errors import error_agreement, label_noise
from esckit.report.judging_tables import confusion_table, types_table

NAMES = [None, "strategy_mismatch", "lack_of_empathy", "template_response"]
RNG = np.random.default_rng(0)
LABELS = [NAMES[i] for i in RNG.integers(4, size=200)]
FOUND = [label if RNG.random() < 0.5 else NAMES[int(RNG.integers(4))] for label in LABELS]
GROUPS = [i // 10 for i in range(200)]


def test_figures_are_those_of_scikit_learn() -> None:
    figures = error_agreement(LABELS, FOUND, GROUPS, draws=Draws(resamples=50))
    one, other = ([label or "none" for label in side] for side in (LABELS, FOUND))
    assert figures["kappa"] == pytest.approx(cohen_kappa_score(one, other))
    names = list(figures["types"])
    expected = precision_recall_fscore_support(one, other, labels=names, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "labels"), expected, strict=True):
        assert [figures["types"][name][key] for name in names] == pytest.approx(list(values))
    assert figures["confusion"]["none"]["strategy_mismatch"] == sum(
        pair == ("none", "strategy_mismatch") for pair in zip(one, other, strict=True)
    )
    assert figures["dialogues"] == 20
    assert "kappa" in types_table(figures, "t").notes[0]
    assert confusion_table(figures).rows[0][0] == "none"


def test_intervals_are_over_dialogues() -> None:
    """Dialogues that are right or wrong as a whole leave much more doubt than as many single replies."""
    found = [label if group % 2 else "other" for label, group in zip(LABELS, GROUPS, strict=True)]
    alone = cohen_kappa([str(x) for x in LABELS], [str(x) for x in found])
    whole = cohen_kappa([str(x) for x in LABELS], [str(x) for x in found], clusters=GROUPS)
    assert whole.value == alone.value
    assert whole.interval.high - whole.interval.low > 1.5 * (alone.interval.high - alone.interval.low)


def test_noise_is_over_pairs_of_equal_replies() -> None:
    noise = label_noise(["a", "a", "a", "b", "c"], ["other", "other", None, None, None])
    assert noise is not None
    assert (noise["pairs"], noise["replies"], noise["agree"]) == (3, 3, pytest.approx(1 / 3))
    assert noise["by_chance"] == pytest.approx((4 / 6) ** 2 + (2 / 6) ** 2)
    assert label_noise(["a", "b"], [None, None]) is None


def test_nothing_to_compare_is_one_sentence() -> None:
    with pytest.raises(EsckitError, match="needs labelled replies"):
        error_agreement([], [], [])
