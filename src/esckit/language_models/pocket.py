"""The pocket backbone: a Qwen2-architecture model and a byte-level BPE made from scratch, small enough for two cores.

It stands in for a pretrained backbone where none can be had, so that everything truly runs; it is no language model
that anyone should talk to. Plain ``AutoModelForCausalLM`` and ``AutoTokenizer`` load its folder.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

from esckit.conversation import Conversation
from esckit.conversation.turn_rule import reply_text

PocketSize = Literal["2m", "10m"]

SIZES: Final[dict[PocketSize, dict[str, int]]] = {
    "2m": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "10m": {"hidden_size": 320, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 5},
}
"""Millions of parameters, near enough: 2.2 with 2,048 tokens, 10.2 with 8,192 (embeddings are tied)."""

CHATML: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A ChatML-style template; the generation marks let assistant masks be computed."""

_MAX_POSITIONS = 4096
_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Words with at most one leading mark or space, single digits, runs of marks, line ends, spaces: the pre-tokenisation of
# GPT-4-style byte-level BPE. Line ends never merge with what follows, which keeps template and content apart.
_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _texts(conversations: Iterable[Conversation]) -> Iterator[str]:
    for conversation in conversations:
        for turn in conversation.trunk:
            yield reply_text(turn.strategy, turn.text or "")


def train_tokenizer(conversations: Iterable[Conversation], vocabulary: int) -> Any:
    """Train a byte-level BPE on the turns of a corpus, a supporter's with its label; return it with a ChatML template.

    The ``vocabulary`` is the most tokens, the three special ones and 256 bytes included.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(conversations), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        extra_special_tokens=[_START],
        chat_template=CHATML,
        model_max_length=_MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def make_pocket_model(size: PocketSize, tokenizer: Any) -> Any:
    """Make a Qwen2 model with random weights for a tokenizer; seed torch before."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        **SIZES[size],
        num_key_value_heads=SIZES[size]["num_attention_heads"],
        vocab_size=len(tokenizer),
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config)
