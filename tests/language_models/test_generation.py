"""Replies are written as the decoding says, each by a seed of its own."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from esckit.decoding import Decoding
from esckit.language_models import cohorts, generation
from esckit.language_models.attention import attention_for
from esckit.language_models.backbone import Backbone, load_backbone
from esckit.language_models.generation import Reply, draw, generate
from tests.tiny import Architecture, save_base, tiny_model, tiny_tokenizer, with_lora

NEVER: Final = 2  # the id of <|im_end|>, which random weights do not choose within a few steps
SEEDS: Final = range(6)  # greedy decoding reads none
PROMPTS: Final = ([40, 41, 42, 43, 44, 45, 46, 47, 48], [50, 51], [60, 61, 62, 63, 64])


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama", seed=2)


def argmax_loop(model: Any, prompt: Sequence[int], steps: int) -> list[int]:
    """The most likely continuation, every step read from the start."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


SHARING: Final = (
    [40, 41, 42, 43, 44],
    [40, 41, 42],
    [40, 41, 42, 43, 44, 45, 46],
    [40, 41, 50, 43],
    [40, 41, 42],
    [60, 41],
)
"""Prompts as those of one dialogue: prefixes of each other, branches, one twice; and one of another root."""


def text_of(ids: Sequence[int]) -> str:
    return str(tiny_tokenizer().decode(ids)).strip()


def greedy(limit: int) -> Decoding:
    return Decoding(greedy=True, max_new_tokens=limit)


LONG: Final = ([*range(40, 90)], [*range(40, 75), *range(200, 220)], [*range(300, 330)])
"""Longer than a sliding window, and parting beyond it."""


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen2-window", "mistral-window", "gemma2"])
@pytest.mark.parametrize("prompts", [PROMPTS, SHARING, LONG], ids=["apart", "sharing", "long"])
def test_greedy_is_the_step_by_step_argmax_whatever_the_padding(
    prompts: Sequence[Sequence[int]], architecture: Architecture
) -> None:
    model = tiny_model(architecture, seed=2)
    wanted = [argmax_loop(model, prompt, 12) for prompt in prompts]
    assert all(NEVER not in ids for ids in wanted)
    together = generate(model, tiny_tokenizer(), prompts, NEVER, greedy(12), SEEDS)
    assert together == [(text_of(ids), "length") for ids in wanted]
    assert together == [generate(model, tiny_tokenizer(), [prompt], NEVER, greedy(12), [0])[0] for prompt in prompts]
    assert len(set(together)) > 1


SIZES: Final = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "pad_token_id": 0,
}
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "GptOssConfig": {**SIZES, "num_local_experts": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "Gemma3TextConfig": {**SIZES, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "Qwen3Config": SIZES,
    "GPT2Config": {"vocab_size": 600, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "GPTJConfig": {"vocab_size": 600, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
}
"""Sinks, two kinds of layers, norms of keys, learned positions; and one that takes no attention but its own."""


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_write_what_they_write_alone(kind: str) -> None:
    import transformers

    config = getattr(transformers, kind)(**OTHERS[kind])
    how = attention_for(config, torch.device("cpu"))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=how).eval()
    weights = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2, generator=weights)
    wanted = [argmax_loop(model, prompt, 8) for prompt in LONG]
    assert generation.generate_ids(model, LONG, -1, greedy(8), SEEDS) == wanted
    assert model.config._attn_implementation == how, "left as it was"


def test_a_reply_ends_before_the_end_of_turn_and_says_how_it_ended(model: Any) -> None:
    wanted = [argmax_loop(model, prompt, 12) for prompt in PROMPTS]
    end = next(token for token in wanted[0] if wanted[0].index(token) >= 3)
    replies = generate(model, tiny_tokenizer(), PROMPTS, end, greedy(12), SEEDS)
    for reply, ids in zip(replies, wanted, strict=True):
        said = ids[: ids.index(end)] if end in ids else ids
        assert reply == (text_of(said), "stop" if end in ids else "length")
    assert replies[0].finish == "stop"
    (cut,) = generate(model, tiny_tokenizer(), PROMPTS[:1], end, greedy(2), [0])
    assert cut == (text_of(wanted[0][:2]), "length")


def test_nothing_is_written_once_every_reply_has_ended(model: Any) -> None:
    (first,) = argmax_loop(model, PROMPTS[0], 1)
    read = []
    hook = model.lm_head.register_forward_hook(lambda *_: read.append(1))
    at_once = generate(model, tiny_tokenizer(), PROMPTS[:1] * 2, first, greedy(12), [0, 0])
    hook.remove()
    assert at_once == [("", "stop")] * 2
    assert len(read) <= 2, "the prompts, and one token"


HOT: Final = Decoding(temperature=5.0, top_p=1.0, max_new_tokens=8)


def written(model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], decoding: Decoding = HOT) -> list[str]:
    return [reply.text for reply in generate(model, tiny_tokenizer(), prompts, NEVER, decoding, seeds)]


def test_a_reply_is_drawn_by_its_own_seed_whatever_stands_beside_it(model: Any) -> None:
    seeds = [7, 8, 7, 9, 10, 7]
    together = written(model, SHARING, seeds)
    assert together == [written(model, [prompt], [seed])[0] for prompt, seed in zip(SHARING, seeds, strict=True)]
    assert written(model, SHARING[::-1], seeds[::-1]) == together[::-1]
    assert all(one != other for one, other in zip(together, written(model, SHARING, range(20, 26)), strict=True))
    assert len(set(written(model, PROMPTS[:1] * 20, range(20)))) == 20, "one prompt, twenty seeds"
    assert len(set(written(model, PROMPTS[:1] * 20, [3] * 20))) == 1, "one prompt, one seed"


def test_more_prompts_than_a_batch_holds_are_written_alike(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(model, SHARING, range(6))
    monkeypatch.setattr(generation, "_ROWS", 4)
    for rows in (1, 2, 3):
        monkeypatch.setattr(cohorts, "COHORT_ROWS", rows)
        assert written(model, SHARING, range(6)) == whole


def test_the_process_s_random_state_is_neither_read_nor_changed(model: Any) -> None:
    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), str(np.random.get_state())
    drawn = written(model, PROMPTS, range(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert str(np.random.get_state()) == numpy_before
    torch.manual_seed(2)
    assert written(model, PROMPTS, range(3)) == drawn


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.95), (2.5, 0.6), (1.0, 0.05)])
def test_draws_follow_temperature_and_nucleus(temperature: float, top_p: float) -> None:
    """20,000 rows with a seed each, against the exact probabilities of the smallest nucleus."""
    logits = torch.linspace(3, -4, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(4))]
    rows = 20_000
    uniform = torch.cat([torch.rand(1, 1, generator=torch.Generator().manual_seed(seed)) for seed in range(rows)])
    drawn = draw(logits.expand(rows, -1), Decoding(temperature=temperature, top_p=top_p), uniform)
    shares = np.bincount(drawn.numpy(), minlength=12) / rows
    tempered = np.exp(logits.double().numpy() / temperature)
    tempered /= tempered.sum()
    order = np.argsort(-tempered)
    size = next(count for count in range(1, 13) if count == 12 or tempered[order[:count]].sum() >= top_p)
    wanted = np.zeros(12)
    wanted[order[:size]] = tempered[order[:size]] / tempered[order[:size]].sum()
    assert shares[wanted == 0].sum() == 0
    possible = wanted > 0
    chi_square = rows * ((shares - wanted)[possible] ** 2 / wanted[possible]).sum()
    freedom = size - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5 + 1e-9, "five standard deviations above what is expected"


@pytest.mark.parametrize("few", [1, 3, 12])
def test_a_nucleus_is_the_same_wherever_it_is_looked_for(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(500, 12, generator=torch.Generator().manual_seed(3)) * 2
    uniform = torch.rand(500, 1, generator=torch.Generator().manual_seed(4))
    decoding = Decoding(temperature=0.9, top_p=0.8)
    wanted = draw(logits, decoding, uniform)
    monkeypatch.setattr(generation, "_LIKELIEST", few)
    assert torch.equal(draw(logits, decoding, uniform), wanted)


def test_a_row_s_draws_go_on_from_token_to_token() -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    scores, decoding = torch.zeros(2, 1000), Decoding(temperature=1.0, top_p=1.0)
    one, other = zip(*(generation._next_tokens(scores, decoding, generators).tolist() for _ in range(20)), strict=True)
    assert len(set(one)) > 15
    assert one != other


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_nucleus_are_not_overstepped(uniform: float) -> None:
    """The nucleus adds up to a little more or less than 1 in floats; the generator's largest number is 1 - 2^-24."""
    for size in range(2, 200):
        scores = torch.zeros(1, size + 1)
        scores[0, -1] = -200.0  # its probability is 0 in floats
        drawn = draw(scores, Decoding(temperature=1.0, top_p=1.0), torch.tensor([[uniform]]))
        assert int(drawn) < size


def test_a_draw_is_not_limited_to_the_likeliest_tokens(model: Any) -> None:
    """The library draws from the likeliest 50 unless it is told not to."""
    hot = Decoding(temperature=1000.0, top_p=1.0, max_new_tokens=1)
    assert len(set(written(model, [PROMPTS[0]] * 200, range(200), hot))) > 100


@pytest.mark.parametrize("decoding", [Decoding(temperature=1e-4), Decoding(temperature=5.0, top_p=1e-6)])
def test_a_cold_or_narrow_draw_is_greedy(decoding: Decoding, model: Any) -> None:
    drawn = generate(model, tiny_tokenizer(), PROMPTS, NEVER, replace(decoding, max_new_tokens=6), range(3))
    assert drawn == generate(model, tiny_tokenizer(), PROMPTS, NEVER, greedy(6), SEEDS)


def test_the_checkpoints_own_generation_settings_are_left_out(tmp_path: Path) -> None:
    """Published chat models carry a repetition penalty; only what `Decoding` says may steer a reply."""
    saved = save_base(tmp_path / "plain")
    folder = Path(shutil.copytree(saved, tmp_path / "opinionated"))
    settings = {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "min_new_tokens": 30, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    plain, opinionated = (load_backbone(str(path)) for path in (saved, folder))
    prompt = [7] * 9 + [8]

    def write(backbone: Backbone) -> list[Reply]:
        adapted = with_lora(backbone.model, "generator", seed=1)
        return generate(adapted, backbone.tokenizer, [prompt], NEVER, greedy(9), [0])

    written = write(plain)
    assert write(opinionated) == written
    assert written[0].text == text_of(argmax_loop(with_lora(tiny_model(), "generator", seed=1), prompt, 9))
