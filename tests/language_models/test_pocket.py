"""The pocket backbone: a tokenizer and a model from scratch, which plain transformers classes load."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.corpora import load_corpus
from esckit.language_models.pocket import SIZES, PocketSize, make_pocket_model, train_tokenizer
from esckit.strategy import ESCONV
from tests.tiny import talk, tiny_tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["don't  stop .", " two  spaces ", "a\r\n\n b\t", "[Question] Why ?", "ﬁ e\u0301 👩‍👧", ""]
)
def test_white_space_and_marks_survive_the_tokenizer(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("vocabulary", [300, 600])
def test_the_vocabulary_keeps_its_limit_and_holds_every_byte(vocabulary: int) -> None:
    tokenizer = train_tokenizer(load_corpus("starter").train[:3], vocabulary)
    assert len(tokenizer) == vocabulary
    assert sorted(tokenizer.convert_tokens_to_ids(SPECIAL)) == [0, 1, 2]
    assert len(tokenizer(bytes(range(128)).decode())["input_ids"]) > 0


def test_a_small_corpus_gives_a_smaller_vocabulary() -> None:
    assert len(train_tokenizer([talk(("seeker", "hello hello"))], 5000)) < 300


def test_labels_are_ordinary_tokens_that_training_has_seen() -> None:
    tokenizer = tiny_tokenizer()
    for label in ESCONV.labels:
        ids = tokenizer(f"[{label}]")["input_ids"]
        assert not set(ids) & {0, 1, 2}
        assert len(ids) < len(label)


def test_the_template_is_chatml_and_marks_what_the_assistant_says() -> None:
    tokenizer = tiny_tokenizer()
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "[Question] Why?"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Question] Why?<|im_end|>\n<|im_start|>assistant\n"
    )
    marked = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True)
    said = [i for i, mine in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mine]
    assert tokenizer.decode(said) == "[Question] Why?<|im_end|>"


def test_plain_transformers_classes_load_the_folder(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = make_pocket_model("2m", tokenizer).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, its_tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nI can't  sleep,  nowhere é 👋\n\n<|im_end|>"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert torch.equal(its_tokenizer(text, return_tensors="pt")["input_ids"], ids)
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert its_tokenizer.all_special_ids == tokenizer.all_special_ids
    assert its_tokenizer.decode(ids[0]) == text
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("size", get_args(PocketSize))
def test_sizes_are_what_they_are_called(size: PocketSize) -> None:
    assert set(SIZES) == set(get_args(PocketSize))
    tokenizer: Any = [None] * {"2m": 2048, "10m": 8192}[size]

    class Vocabulary(list[None]):
        pad_token_id, eos_token_id = 0, 2

    with torch.device("meta"):
        model = make_pocket_model(size, Vocabulary(tokenizer))
    assert abs(model.num_parameters() / 1e6 / {"2m": 2.2, "10m": 10.2}[size] - 1) < 0.05
