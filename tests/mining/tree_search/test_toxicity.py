"""Toxicity by a text classifier, made here: random weights, but labels that are known by their names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esckit.errors import ModelError
from esckit.measures.intervals import Draws
from esckit.mining.tree_search.toxicity import load_classifier, toxicity
from tests.mining.tree_search.classifier import write_classifier
from tests.mining.tree_search.searched import hand_made
from tests.tiny import save_base, tiny_tokenizer

TEXTS = ["I failed my exam.", "Hi.", "You could try to rest and talk about it with somebody whom you trust."]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("two"), ("non-toxic", "toxic"))


def logits_of(folder: Path, text: str) -> Any:
    """The classifier asked by itself, a text at a time."""
    from transformers import AutoModelForSequenceClassification

    ids = tiny_tokenizer()(text, return_tensors="pt")
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()(**ids).logits[0].double()


def test_one_choice_of_two_labels_is_a_softmax(two: Path) -> None:
    found, cut = load_classifier(str(two)).probabilities(TEXTS)
    assert cut == 0
    assert found == pytest.approx([float(logits_of(two, text).softmax(0)[1]) for text in TEXTS], abs=1e-5)
    assert len(set(found.round(4))) == 3


def test_labels_of_their_own_are_sigmoids_of_which_the_greatest_counts(tmp_path: Path) -> None:
    labels = ("toxic", "insult", "severe_toxic")
    folder = write_classifier(tmp_path, labels, problem_type="multi_label_classification")
    found, _ = load_classifier(str(folder)).probabilities(TEXTS)
    assert found == pytest.approx([float(logits_of(folder, text).sigmoid()[[0, 2]].max()) for text in TEXTS], abs=1e-5)
    named, _ = load_classifier(str(folder), ["insult"]).probabilities(TEXTS)
    assert named == pytest.approx([float(logits_of(folder, text).sigmoid()[1]) for text in TEXTS], abs=1e-5)


def test_several_toxic_labels_of_one_choice_add_up(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path, ("neutral", "Toxicity", "very toxic", "not_toxic"))
    found, _ = load_classifier(str(folder)).probabilities(TEXTS)
    assert found == pytest.approx([float(logits_of(folder, text).softmax(0)[1:3].sum()) for text in TEXTS], abs=1e-5)


def test_a_single_label_is_a_sigmoid(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path, ("toxic",))
    found, _ = load_classifier(str(folder)).probabilities(TEXTS)
    assert found == pytest.approx([float(logits_of(folder, text).sigmoid()[0]) for text in TEXTS], abs=1e-5)


def test_a_long_text_is_cut_and_counted(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path, ("clean", "toxic"), max_position_embeddings=16)
    found, cut = load_classifier(str(folder)).probabilities(["rest " * 100, "Hi."])
    assert cut == 1
    assert np.isfinite(found).all()


def test_each_part_has_its_mean_and_interval(two: Path) -> None:
    classifier = load_classifier(str(two))
    figures, _ = toxicity([hand_made("a"), hand_made("b")], classifier, Draws(seed=1, resamples=50))
    kept, _ = classifier.probabilities(["That must hurt a lot.", "What did you try so far?", "Good luck!"])
    assert figures["kept"].turns == 6
    assert figures["kept"].mean == pytest.approx(kept.mean())
    assert figures["kept"].interval == pytest.approx((kept.mean(), kept.mean()))  # both dialogues are the same
    nothing, _ = toxicity([], classifier)
    assert nothing["kept"] == (0, None, None)


@pytest.mark.parametrize(
    ("labels", "wanted", "sentence"),
    [
        (("LABEL_0", "LABEL_1"), (), "names no label toxic, its labels are LABEL_0, LABEL_1: say by --label"),
        (("non-toxic", "Nontoxic"), (), "names no label toxic"),
        (("clean", "toxic"), ("rude",), "has no label 'rude': its labels are clean, toxic"),
    ],
)
def test_a_label_that_is_not_there_is_one_sentence(
    labels: tuple[str, ...], wanted: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    folder = write_classifier(tmp_path, labels)
    with pytest.raises(ModelError, match=sentence):
        load_classifier(str(folder), wanted)


def test_what_is_no_classifier_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no text classifier \(Qwen2ForCausalLM\): give a model saved as one"):
        load_classifier(str(save_base(tmp_path / "lm")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"is no model's folder"):
        load_classifier(str(tmp_path / "empty"))
    with pytest.raises(ModelError) as caught:
        load_classifier(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)
    folder = write_classifier(tmp_path / "broken", ("clean", "toxic"))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded as a text classifier"):
        load_classifier(str(folder))
