"""Folders that are named as a model: the wrong kinds are told from each other, adapters are merged into their base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import torch

from esckit.chat_models.opening import ChatModelOptions
from esckit.errors import ModelError
from esckit.language_models.backbone import check_backbone, load_backbone
from esckit.language_models.folders import check_folder
from esckit.planning.encoder import load_encoder
from esckit.recipes.check import check
from esckit.recipes.identity import source_identity
from esckit.recipes.recipe_files import load_recipe
from tests.recipes.tiny import write_tiny
from tests.tiny import save_base, tiny_encoder, tiny_model, tiny_tokenizer, with_lora, write_supporter


def write(name: str, text: str = "{}") -> Callable[[Path], object]:
    def written(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    return written


NONE: Final = "is no model's folder, it has no config.json, but "
WRONG: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "empty": (lambda folder: None, f"{NONE}nothing: give a folder saved by save_pretrained."),
    "something else": (write("notes.txt"), f"{NONE}notes.txt: give a folder saved by save_pretrained."),
    "many files": (
        lambda folder: [write(f"{each}.txt")(folder) for each in "abcdefgh"],
        f"{NONE}a.txt, b.txt, c.txt, d.txt, e.txt, f.txt and 2 more: give a folder saved by save_pretrained.",
    ),
    "gguf": (write("x-Q4.gguf"), f"{NONE}a GGUF file (x-Q4.gguf): give the file itself, {{}}/x-Q4.gguf."),
    "run": (write("recipe.json"), f"{NONE}an esckit run (recipe.json): give the folder of one of its models or supp"),
    "diffusers": (
        lambda folder: (write("model_index.json")(folder), write("unet/config.json")(folder)),
        f"{NONE}a diffusers pipeline, which makes images (model_index.json, unet/): give a causal language model.",
    ),
    "onnx": (write("model.onnx"), f"{NONE}an ONNX model (model.onnx): give a folder saved by save_pretrained."),
    "publisher's form": (write("consolidated.safetensors"), f"{NONE}weights in their publisher's own form (consolida"),
    "weights alone": (
        write("model.safetensors"),
        f"{NONE}weights (model.safetensors): restore the config that fits th",
    ),
    "tokenizer": (write("tokenizer.json"), f"{NONE}a tokenizer (tokenizer.json): give the folder that holds the mode"),
    "folders of models": (
        lambda folder: [write(f"checkpoint-{each}/config.json")(folder) for each in (10, 20)],
        "is no model's folder, but holds some: give {}/checkpoint-10, or another.",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_kind_of_folder_is_told_what_is_in_it(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    make(folder)
    recipe = load_recipe(str(write_tiny(tmp_path)), [f"model.path={folder}"])
    chat = ChatModelOptions(model=str(folder)).check_askable
    said = set()
    for ask in (lambda: load_backbone(str(folder)), lambda: load_encoder(str(folder)), lambda: check(recipe), chat):
        with pytest.raises(ModelError) as error:
            ask()
        said.add(str(error.value))
    assert len(said) == 1
    assert said.pop().startswith(f"{folder} {message.format(folder)}")


def test_a_supporter_is_no_backbone(tmp_path: Path) -> None:
    write_supporter(folder := tmp_path / "supporter")
    with pytest.raises(
        ModelError, match=r"an esckit supporter \(base/, generator/, planner/, supporter.json\): give it t"
    ):
        load_backbone(str(folder))


def test_a_model_without_weights_says_what_is_there(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    write("training_args.bin")(tmp_path)
    with pytest.raises(ModelError) as error:
        load_backbone(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} has no weights (*.safetensors), but config.json, training_args.bin: give a folder saved by "
        "save_pretrained."
    )
    check_folder(tmp_path, weights=False)


def test_pytorch_s_own_weights_are_read(tmp_path: Path) -> None:
    model = tiny_model()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with torch.no_grad():
        ids = torch.arange(9)[None]
        assert torch.equal(load_backbone(str(tmp_path)).model(ids).logits, model(ids).logits)


def test_a_pointer_of_git_lfs_is_no_weights(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "base")
    write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")(folder)
    with pytest.raises(ModelError, match=r"safetensors is a Git LFS pointer and no weights: run `git lfs pull` in "):
        load_backbone(str(folder))


def test_an_encoder_writes_no_text(tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    for ask in (check_backbone, load_backbone):
        with pytest.raises(ModelError) as error:
            ask(str(tmp_path))
        assert str(error.value) == (
            f"{tmp_path} is an encoder (bert), which writes no text: give a causal language model."
        )


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    write("model.safetensors")(tmp_path)
    with pytest.raises(ModelError, match=r"is a file: give a model's folder, or a GGUF file \(\*.gguf\)\."):
        load_backbone(str(tmp_path / "model.safetensors"))


# ---------------------------------------------------------------------------------------------------------- adapters


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter as PEFT saves it, without a tokenizer."""
    save_base(tmp_path / "base")
    model = with_lora(tiny_model(), "default", seed=1)
    model.save_pretrained(tmp_path / "adapter")
    name_base(tmp_path / "adapter", str(tmp_path / "base"))
    return tmp_path / "adapter"


def name_base(adapter: Path, base: str | None) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))


def test_an_adapter_is_merged_into_its_base(adapter: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(adapter))
    assert backbone.source == str(adapter)
    assert not any("lora" in name for name, _ in backbone.model.named_parameters())
    with torch.no_grad():
        ids = torch.arange(30)[None]
        wanted = with_lora(tiny_model(), "default", seed=1)(ids).logits
        torch.testing.assert_close(backbone.model(ids).logits, wanted, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(tiny_model()(ids).logits, wanted, atol=1e-2)
    assert backbone.tokenizer("I see.")["input_ids"] == tiny_tokenizer()("I see.")["input_ids"]
    recipe = load_recipe(str(write_tiny(tmp_path)), [f"model.path={adapter}"])
    assert any(line.startswith("model: ") for line in check(recipe))
    ChatModelOptions(model=str(adapter)).check_askable()


def test_another_base_is_another_model(adapter: Path, tmp_path: Path) -> None:
    before = source_identity(str(adapter))
    save_base(tmp_path / "base", seed=1)
    assert source_identity(str(adapter)) != before


def test_an_adapter_s_own_tokenizer_counts(adapter: Path) -> None:
    own = tiny_tokenizer()
    own.save_pretrained(adapter)
    path = adapter / "chat_template.jinja"
    path.write_text("{{ 1 }}", encoding="utf-8")
    assert load_backbone(str(adapter)).tokenizer.chat_template == "{{ 1 }}"


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "is an adapter that names no base: write base_model_name_or_path into adapter_config.json."),
        ("", "is an adapter that names no base: write base_model_name_or_path into adapter_config.json."),
        ("/nowhere/base", "is an adapter on /nowhere/base, which is not here: correct adapter_config.json."),
    ],
)
def test_an_adapter_without_its_base_is_a_sentence(base: str | None, message: str, adapter: Path) -> None:
    name_base(adapter, base)
    with pytest.raises(ModelError) as error:
        load_backbone(str(adapter))
    assert str(error.value) == f"{adapter} {message}"
