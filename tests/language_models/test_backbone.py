"""Backbones load checked, are named by their weights, and write what they are told to."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.language_models.backbone import (
    Backbone,
    Reply,
    check_source,
    device_of,
    generate,
    hash_weights,
    load_backbone,
    seed_everything,
)
from tests.tiny import POSITIONS, Architecture, save_base, tiny_model, tiny_tokenizer, with_lora


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny backbone. Shared: copy it to change it."""
    return save_base(tmp_path_factory.mktemp("backbone") / "tiny")


# ------------------------------------------------------------------------------------------------------------- loading


def test_a_folder_is_loaded_ready_to_use(saved: Path) -> None:
    backbone = load_backbone(str(saved))
    assert backbone.source == str(saved)
    assert backbone.max_context == POSITIONS
    assert not backbone.model.training
    assert backbone.tokenizer("[Question] I see.")["input_ids"] == tiny_tokenizer()("[Question] I see.")["input_ids"]
    assert backbone.weights_hash == hash_weights(tiny_model(), rounded=True)
    if device_of(backbone.model).type == "cpu":
        assert backbone.model.dtype == torch.float32


BROKEN: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights (*.safetensors): give a"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded as a causal language model (Unr"),
    "a config that is no JSON": (
        lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"),
        "cannot be loaded as a causal language model (It looks like the config file",
    ),
    "an unknown architecture": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "nope"}', encoding="utf-8"),
        "cannot be loaded as a causal language model (The checkpoint you are trying to load has model type `nope`",
    ),
    "weights that were cut off": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        "cannot be loaded as a causal language model (Error while deserializing header: incomplete metadata",
    ),
    "weights of another size": (
        lambda folder: change_config(folder, intermediate_size=48),
        "cannot be loaded as a causal language model (",
    ),
    "a layer without weights": (
        lambda folder: change_config(folder, num_hidden_layers=3, layer_types=["full_attention"] * 3),
        "lack model.layers.2.input_layernorm.weight: restore the weights, or the config that fits them.",
    ),
    "no tokenizer": (
        lambda folder: remove(folder / "tokenizer.json", folder / "tokenizer_config.json"),
        "has no tokenizer: save one there with save_pretrained.",
    ),
    "a tokenizer that is no JSON": (
        lambda folder: (folder / "tokenizer.json").write_text("{", encoding="utf-8"),
        "cannot be loaded as a causal language model (Expecting property name",
    ),
}


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_folder_that_cannot_be_used_is_named_with_the_reason(
    damage: Callable[[Path], object], message: str, saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "broken"))
    damage(folder)
    with pytest.raises(ModelError) as error:
        load_backbone(str(folder))
    assert str(folder) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["missing", "./missing", "../a/b", "~/model", "a/b/c", "/missing/model"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_before_anything_is_loaded(source: str) -> None:
    for check in (check_source, load_backbone):
        with pytest.raises(ModelError) as error:
            check(source)
        assert str(error.value) == (
            f"{source} is no folder and no Hub id (owner/name): give one of the two as model.path."
        )


@pytest.mark.parametrize("reason", ["We couldn't connect to the Hub.\nCheck your connection.", ""])
def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError(reason)

    monkeypatch.setattr("esckit.language_models.backbone.unreachable", lambda _: None)  # away after it was asked
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", offline)
    with pytest.raises(ModelError) as error:
        load_backbone("owner/name")
    first_line = "We couldn't connect to the Hub" if reason else "OSError"
    assert str(error.value) == (
        f"owner/name cannot be loaded as a causal language model ({first_line}): "
        "give a folder with weights, config and tokenizer, or a Hub id where the Hub can be reached."
    )


def deaf_to(argument: str) -> Any:
    """A tiny model that ignores the trie's mask (and is plainly causal) or its positions."""
    model = tiny_model()
    hear = model.forward

    def forward(**given: Any) -> Any:
        if argument not in given:
            return hear(**given)
        nodes = given["input_ids"].shape[1]
        causal = torch.ones(nodes, nodes, dtype=torch.bool).tril()[None, None]
        given[argument] = {"attention_mask": causal, "position_ids": torch.arange(nodes)[None]}[argument]
        return hear(**given)

    model.forward = forward
    return model


@pytest.mark.parametrize("argument", ["attention_mask", "position_ids"])
def test_a_model_that_does_not_follow_a_trie_is_refused(
    argument: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> tuple[Any, dict[str, list[str]]]:
        return deaf_to(argument), {"missing_keys": []}

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    with pytest.raises(ModelError) as error:
        load_backbone(str(saved))
    assert str(error.value).startswith(f"{saved} reads a token trie otherwise than its sequences (a log-prob")
    assert str(error.value).endswith("use a Qwen2, Llama, Mistral or Gemma 2 architecture.")


# --------------------------------------------------------------------------------------------------- hashes and seeds


def test_the_hash_names_the_weights() -> None:
    model = tiny_model()
    assert hash_weights(model) == hash_weights(tiny_model())
    assert len(hash_weights(model)) == 64
    half = tiny_model().bfloat16()
    assert hash_weights(half) != hash_weights(model)
    assert hash_weights(half, rounded=True) == hash_weights(model, rounded=True), "one supporter for CPU and CUDA"
    assert hash_weights(tiny_model(seed=1), rounded=True) != hash_weights(model, rounded=True)
    assert hash_weights(tiny_model(seed=1)) != hash_weights(model)
    before = hash_weights(model)
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-7
    assert hash_weights(model) != before


def test_a_part_of_the_weights_can_be_hashed_alone() -> None:
    one, other = with_lora(tiny_model(), "planner", seed=1), with_lora(tiny_model(seed=1), "planner", seed=1)
    assert hash_weights(one, "lora_") == hash_weights(other, "lora_")
    assert hash_weights(one) != hash_weights(other)
    assert hash_weights(with_lora(tiny_model(), "planner", seed=2), "lora_") != hash_weights(one, "lora_")


def test_seeds_come_from_all_parts() -> None:
    seed = seed_everything(3, "esconv-1", "planner")
    assert seed == int.from_bytes(hashlib.sha256(b"3\x1fesconv-1\x1fplanner").digest()[:4], "big")
    first = torch.rand(3)
    assert seed_everything(3, "esconv-1", "generator") != seed
    assert not torch.equal(torch.rand(3), first)
    seed_everything(3, "esconv-1", "planner")
    assert torch.equal(torch.rand(3), first)


# ------------------------------------------------------------------------------------------------------------- writing

NEVER: Final = 2  # the id of <|im_end|>, which random weights do not choose within a few steps
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
    together = generate(model, tiny_tokenizer(), prompts, NEVER, greedy(12))
    assert together == [(text_of(ids), "length") for ids in wanted]
    assert together == [generate(model, tiny_tokenizer(), [prompt], NEVER, greedy(12))[0] for prompt in prompts]
    assert len(set(together)) > 1


def test_a_reply_ends_before_the_end_of_turn_and_says_how_it_ended(model: Any) -> None:
    wanted = [argmax_loop(model, prompt, 12) for prompt in PROMPTS]
    end = next(token for token in wanted[0] if wanted[0].index(token) >= 3)
    replies = generate(model, tiny_tokenizer(), PROMPTS, end, greedy(12))
    for reply, ids in zip(replies, wanted, strict=True):
        said = ids[: ids.index(end)] if end in ids else ids
        assert reply == (text_of(said), "stop" if end in ids else "length")
    assert replies[0].finish == "stop"
    (cut,) = generate(model, tiny_tokenizer(), PROMPTS[:1], end, greedy(2))
    assert cut == (text_of(wanted[0][:2]), "length")


def test_nothing_is_written_once_every_reply_has_ended(model: Any) -> None:
    (first,) = argmax_loop(model, PROMPTS[0], 1)
    read = []
    hook = model.lm_head.register_forward_hook(lambda *_: read.append(1))
    at_once = generate(model, tiny_tokenizer(), PROMPTS[:1] * 2, first, greedy(12))
    hook.remove()
    assert at_once == [("", "stop")] * 2
    assert len(read) <= 2, "the prompts, and one token"


def test_sampling_follows_the_seed(model: Any) -> None:
    def draw(seed: int) -> list[str]:
        seed_everything(seed, "test")
        decoding = Decoding(temperature=5.0, top_p=1.0, max_new_tokens=8)
        return [reply.text for reply in generate(model, tiny_tokenizer(), PROMPTS, NEVER, decoding)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_draw_is_not_limited_to_the_likeliest_tokens(model: Any) -> None:
    """The library draws from the likeliest 50 unless it is told not to."""
    seed_everything(0)
    hot = Decoding(temperature=1000.0, top_p=1.0, max_new_tokens=1)
    drawn = {reply.text for reply in generate(model, tiny_tokenizer(), [PROMPTS[0]] * 200, NEVER, hot)}
    assert len(drawn) > 100


@pytest.mark.parametrize("decoding", [Decoding(temperature=1e-4), Decoding(temperature=5.0, top_p=1e-6)])
def test_a_cold_or_narrow_draw_is_greedy(decoding: Decoding, model: Any) -> None:
    drawn = generate(model, tiny_tokenizer(), PROMPTS, NEVER, Decoding(False, decoding.temperature, decoding.top_p, 6))
    assert drawn == generate(model, tiny_tokenizer(), PROMPTS, NEVER, greedy(6))


def test_the_checkpoints_own_generation_settings_are_left_out(saved: Path, tmp_path: Path) -> None:
    """Published chat models carry a repetition penalty; only what `Decoding` says may steer a reply."""
    folder = Path(shutil.copytree(saved, tmp_path / "opinionated"))
    settings = {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "min_new_tokens": 30, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    plain, opinionated = (load_backbone(str(path)) for path in (saved, folder))
    prompt = [7] * 9 + [8]

    def write(backbone: Backbone) -> list[Reply]:
        adapted = with_lora(backbone.model, "generator", seed=1)
        return generate(adapted, backbone.tokenizer, [prompt], NEVER, greedy(9))

    written = write(plain)
    assert write(opinionated) == written
    assert written[0].text == text_of(argmax_loop(with_lora(tiny_model(), "generator", seed=1), prompt, 9))
