"""Tokenizers of each kind that chat models have, trained in a moment on lines of the starter corpus."""

from functools import cache
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from esckit.corpora import load_corpus
from esckit.language_models.pocket import CHATML, _texts

INST: Final = (  # after Mistral's: no system role, a blank before the answer
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('only user and assistant') }}{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
INST_SPACED: Final = INST.replace("'[/INST]'", "' [/INST]'").replace("+ eos_token", "+ ' ' + eos_token")
"""After Llama 2's: a blank before the token that ends an answer, too."""
NAMES: Final = (  # after Vicuna's: names in letters, and a system text in front of all
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}"
    "{% set messages = messages[1:] %}{% endif %}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + message['content'] + ' ' }}{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SHARED_END: Final = (  # after Phi-3's, whose control tokens swallow the blanks behind them
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
INDENTED: Final = ("pier:\n  steps: 9\n  lamp: on\n", "boat:\n  oars: 2\n  sail:  none\n\n\n  mast: 1\n")
PATTERN: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # after GPT-4's
LETTERS: Final = [chr(code) for code in range(32, 127)] + list("\n▁é你好")

KINDS: Final = (
    "byte-level",
    "byte-level-joining",
    "sentencepiece",
    "sentencepiece-letters",
    "prefix-always",
    "swallowing",
)
"""What `tokenizer_of` makes, with ``byte-level-unsplit``, which joins anything with anything."""


@cache
def lines() -> list[str]:
    """What the tokenizers learn from."""
    return [*_texts(load_corpus("starter").train[:12]), *INDENTED * 40]


@cache
def tokenizer_of(kind: str, template: str | None = None) -> Any:
    """A tokenizer of a kind with the template of its family, or another."""
    make = _byte_level if kind.startswith("byte") or kind == "swallowing" else _sentence_piece
    made, own = make(kind)
    made.chat_template = template or own
    return made


def _byte_level(kind: str) -> tuple[Any, str]:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    regex = kind == "byte-level-joining"  # GPT-2's pattern: a line end and the blanks behind it are one word
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True)]
        + ([] if regex or kind == "byte-level-unsplit" else [split])
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)]
    )
    backend.decoder = decoders.ByteLevel()
    swallows = kind == "swallowing"
    names = ["<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    special = ["<|endoftext|>", *(AddedToken(name, special=True, rstrip=swallows) for name in names)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(lines(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    return tokenizer, SHARED_END if swallows else CHATML


def _sentence_piece(kind: str) -> tuple[Any, str]:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(["[INST]", "[/INST]"] if kind == "sentencepiece" else [])]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=LETTERS, show_progress=False)
    backend.train_from_iterator(lines(), trainer)
    if kind == "prefix-always":  # as the first converters wrote it: a blank before every piece, by rewriting the text
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    return tokenizer, INST if kind == "sentencepiece" else INST_SPACED
