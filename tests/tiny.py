"""Tiny models for tests, made in milliseconds: a tokenizer of 600 tokens, backbones of two layers, LoRA adapters."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import torch

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus
from esckit.language_models.backbone import hash_weights
from esckit.language_models.pocket import train_tokenizer
from esckit.planning.encoder import Encoder, load_encoder
from esckit.planning.planner_options import PlannerOptions
from esckit.rendering import Layout, Part, PastStrategies, Renderer, past_strategies
from esckit.strategy import ESCONV
from esckit.supporters.supporter_folder import Kind, SupporterCard, save_supporter

Architecture = Literal["qwen2", "qwen2-window", "llama", "mistral", "mistral-window", "gemma2"]
POSITIONS: Final = 2048
WINDOW: Final = 24  # tokens that a sliding layer sees: fewer than a turn has, so that every path loses some

CHATML_DEFAULT: Final = (  # after Qwen2.5: a default system text, contents verbatim
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message['role'] != 'system' %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
HEADERS: Final = (  # after Llama 3: a BOS, a date in the system header, contents trimmed
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' }}"
    "{{- system_message + '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim }}"
    "{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
ALTERNATING: Final = (  # after Gemma 2: no system role, strict alternation, the assistant is the model
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEMPLATES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "chatml": (CHATML_DEFAULT, {}),
    "headers": (
        HEADERS,
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "extra_special_tokens": ["<|start_header_id|>", "<|end_header_id|>"],
        },
    ),
    "alternating": (
        ALTERNATING,
        {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "extra_special_tokens": ["<start_of_turn>"]},
    ),
}
"""Chat templates after three families, each with the special tokens that it needs."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where a core is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE of 600 tokens with the pocket template. Shared: take `tokenizer_with` to change it."""
    return train_tokenizer(load_corpus("starter").train[:6], 600)


def tokenizer_with(template: str, tokens: dict[str, Any] | None = None) -> Any:
    """A tokenizer of its own with this chat template (a name of `TEMPLATES`, or the text) and special tokens."""
    text, special = TEMPLATES.get(template, (template, tokens or {}))
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens(special)
    if tokenizer.bos_token:  # as the tokenizers of these families: a BOS before every text that is tokenised plainly
        from tokenizers.processors import TemplateProcessing

        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.chat_template = text
    return tokenizer


@cache
def tiny_renderer(max_context: int = POSITIONS, layout: Layout = "shared-prefix") -> Renderer:
    """A renderer of `tiny_tokenizer` for ESConv's labels."""
    return Renderer(tiny_tokenizer(), ESCONV, max_context=max_context, layout=layout)


def label_ids(renderer: Renderer, strategy: str, part: Part = "coupled") -> tuple[int, ...]:
    """Token ids of a strategy as a part says it, after any context of these templates."""
    return renderer.label_ids(renderer.context([], {}, 0, part).text, strategy, part)


def tiny_model(architecture: Architecture = "qwen2", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random model of two layers in eval mode, its weights large enough for sharp attention and uneven logits.

    The Qwen2s have a key for each head and a tied head, the others grouped-query attention and an untied one. Sliding
    windows: the second layer of ``qwen2-window``, both of ``mistral-window``, the first of ``gemma2``.
    """
    from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config

    torch.manual_seed(seed)
    family = architecture.split("-")[0]
    own: dict[str, dict[str, Any]] = {
        "qwen2-window": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        "mistral": {"sliding_window": None},
        "mistral-window": {"sliding_window": WINDOW},
        "gemma2": {
            "sliding_window": WINDOW,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "attn_implementation": "eager",
        },
    }
    kinds: dict[str, Any] = {
        "qwen2": Qwen2Config,
        "llama": LlamaConfig,
        "mistral": MistralConfig,
        "gemma2": Gemma2Config,
    }
    config = kinds[family](
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4 if family == "qwen2" else 2,
        vocab_size=len(tiny_tokenizer()),
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=family == "qwen2",
        initializer_range=0.15,
        pad_token_id=tiny_tokenizer().pad_token_id,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer().eos_token_id,
        **{"attn_implementation": "sdpa", **own.get(architecture, {})},
    )
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def with_lora(model: Any, part: str, *, seed: int, dropout: float = 0.0) -> Any:
    """The model under a LoRA adapter of this name whose B is random too, so that it changes every figure."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config, adapter_name=part)
    randomise_adapter(wrapped, part)
    return wrapped


def randomise_adapter(model: Any, part: str) -> None:
    """Draw the B matrices of an adapter anew."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and part in name:
                parameter.normal_(std=0.1)


def save_base(folder: Path, architecture: Architecture = "qwen2", *, seed: int = 0) -> Path:
    """Write a tiny backbone with its tokenizer."""
    tiny_model(architecture, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_supporter(
    folder: Path,
    kind: Kind = "decoupled",
    past_strategies: PastStrategies = "hidden",
    *,
    seed: int = 1,
    max_context: int = POSITIONS,
    layout: Layout = "shared-prefix",
) -> Path:
    """Write a supporter with random adapters; its base travels along."""
    base = save_base(folder.with_name(f"{folder.name}-base"))
    adapters = {}
    for offset, part in enumerate({"coupled": ["coupled"], "decoupled": ["planner", "generator"]}[kind]):
        model = with_lora(tiny_model(), part, seed=seed + offset)
        model.save_pretrained(str(folder.with_name(f"{folder.name}-adapters")))
        adapters[part] = folder.with_name(f"{folder.name}-adapters") / part
    card = SupporterCard(kind, past_strategies, "", hash_weights(tiny_model(), rounded=True), max_context, layout)
    save_supporter(folder, card, adapters, base)
    return folder


def talk(*lines: tuple[str, str] | tuple[str, str, str], conversation_id: str = "talk") -> Conversation:
    """A dialogue of (speaker, text) or (speaker, text, strategy); turn ids count from 0."""
    turns: list[Turn] = []
    for number, (speaker, text, *strategy) in enumerate(lines):
        assert speaker in ("seeker", "supporter")
        turns.append(
            Turn(
                id=str(number),
                parent=str(number - 1) if number else None,
                speaker="seeker" if speaker == "seeker" else "supporter",
                text=text,
                strategy=strategy[0] if strategy else None,
            )
        )
    return Conversation(id=conversation_id, turns=turns)


def first_turns(conversation: Conversation, count: int) -> Conversation:
    """The beginning of a plain dialogue."""
    return replace(conversation, turns=conversation.turns[:count])


def starter_dialogues(count: int, turns: int) -> list[Conversation]:
    """The beginnings of the first dialogues of the starter corpus."""
    return [first_turns(conversation, turns) for conversation in load_corpus("starter").train[:count]]


def random_strategies(conversation: Conversation) -> dict[str, str]:
    """A strategy for each supporter turn that has one, drawn without looking: as a bad planner would predict."""
    draw = random.Random(conversation.id)
    return {turn.id: draw.choice(ESCONV.labels) for turn in conversation.turns if turn.strategy}


def strategies_shown(conversation: Conversation, mode: PastStrategies) -> dict[str, str]:
    """What `rendering.past_strategies` gives, with random predictions."""
    return past_strategies(conversation, mode, random_strategies(conversation))


TINY_PLANNER: Final = PlannerOptions(folds=2, seeds=1, epochs=1, batch_size=4, width=8, head=8, trees=2)


def tiny_encoder(folder: Path, seed: int = 0) -> Encoder:
    """A random encoder of one layer, saved in ``folder``."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=len(tiny_tokenizer()),
        pad_token_id=tiny_tokenizer().pad_token_id,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load_encoder(str(folder))
