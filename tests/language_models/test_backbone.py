"""Backbones load checked, are named by their weights, and play one adapter for one caller at a time."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, Final

import pytest
import torch

from esckit.errors import ModelError
from esckit.language_models.backbone import (
    Backbone,
    check_source,
    device_of,
    hash_weights,
    load_backbone,
    seed_everything,
)
from tests.tiny import POSITIONS, save_base, tiny_model, tiny_tokenizer, with_lora


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
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "has no weights (*.safetensors), but chat",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        "is no model's folder, it has no config.",
    ),
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
            f"{source} is no folder and no Hub id (owner/name): give one of the two as model.path, or smollm2."
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


# ------------------------------------------------------------------------------------------------------ taking turns


@pytest.fixture
def adapted() -> Backbone:
    model = with_lora(tiny_model(), "planner", seed=1)
    model.add_adapter("generator", model.peft_config["planner"])
    return Backbone(model, tiny_tokenizer(), "tiny")


def test_an_adapter_plays_for_its_caller_and_the_one_of_before_comes_back(adapted: Backbone) -> None:
    with adapted.playing("generator") as model:
        assert model.active_adapter == "generator"
        with adapted.playing("planner"):
            assert model.active_adapter == "planner"
        assert model.active_adapter == "generator"
    assert adapted.model.active_adapter == "planner"
    with pytest.raises(KeyboardInterrupt), adapted.playing("generator"):
        raise KeyboardInterrupt
    assert adapted.model.active_adapter == "planner", "also where it was stopped"


def test_nobody_else_plays_meanwhile(adapted: Backbone) -> None:
    waiting = Barrier(2)
    seen: list[str] = []

    def other() -> None:
        waiting.wait()
        with adapted.playing("planner") as model:
            seen.append(model.active_adapter)

    thread = Thread(target=other)
    thread.start()
    with adapted.playing("generator") as model:
        waiting.wait()
        thread.join(0.05)  # enough to switch, if it could
        seen.append(model.active_adapter)
    thread.join()
    assert seen == ["generator", "planner"]
