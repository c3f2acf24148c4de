"""An exported model is what the supporter plays: transformers loads it, weights, tokenizer and template."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from esckit import cli
from esckit.errors import ModelError
from esckit.supporters import Supporter
from esckit.supporters.export_model import export_model
from esckit.supporters.language_parts import LanguageParts
from tests.language_models.test_pretrained import save_nested
from tests.tiny import save_base, write_supporter

IDS = torch.arange(40)[None]


@pytest.fixture(scope="module")
def supporter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supporter") / "decoupled"
    write_supporter(folder)
    return folder


def logits(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits


@pytest.mark.parametrize(("part", "played"), [(None, "generator"), ("generator", "generator"), ("planner", "planner")])
def test_it_is_what_the_supporter_plays(part: Any, played: str, supporter: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    written = export_model(supporter, tmp_path / "out", part)
    assert written.part == played
    loaded = Supporter.load(supporter)
    assert isinstance(loaded.generator, LanguageParts)
    backbone = loaded.generator.backbone
    with backbone.playing(played) as model, torch.no_grad():
        torch.testing.assert_close(logits(tmp_path / "out"), model(IDS).logits, atol=1e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == backbone.tokenizer.chat_template
    assert tokenizer("<|im_start|>a")["input_ids"] == backbone.tokenizer("<|im_start|>a")["input_ids"]
    record = json.loads((tmp_path / "out/esckit.json").read_text())
    assert record["part"] == played
    assert record["system"].startswith("You support people who")
    assert record["base_hash"] == loaded.card.base_hash
    ends = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert ends["eos_token_id"] == tokenizer.eos_token_id
    assert "trie" not in (tmp_path / "out/config.json").read_text(), "others do not know our attention"


def test_a_coupled_one_has_one_part(tmp_path: Path) -> None:
    write_supporter(tmp_path / "coupled", "coupled")
    assert export_model(tmp_path / "coupled", tmp_path / "out").part == "coupled"
    with pytest.raises(ModelError, match=r"has no adapter of the part planner: choose coupled\."):
        export_model(tmp_path / "coupled", tmp_path / "other", "planner")
    assert not (tmp_path / "other").exists()


def test_weights_may_be_stored_in_half(supporter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export_model(supporter, tmp_path / "out", stored="bfloat16")
    assert {weights.dtype for weights in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}
    assert (logits(tmp_path / "out") - logits_of(supporter, tmp_path)).abs().max() < 0.3


def logits_of(supporter: Path, tmp_path: Path) -> Any:
    export_model(supporter, tmp_path / "exact")
    return logits(tmp_path / "exact")


def test_a_text_part_is_written_as_the_plain_model_that_it_is(tmp_path: Path) -> None:
    whole = save_nested("gemma3", tmp_path / "whole")
    assert export_model(tmp_path / "whole", tmp_path / "out").part is None
    with torch.no_grad():
        torch.testing.assert_close(logits(tmp_path / "out"), whole(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match=r"is no supporter and has no parts: leave out --part\."):
        export_model(tmp_path / "whole", tmp_path / "other", "planner")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["esckit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_the_command(
    supporter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # it is written anew
        assert call(monkeypatch, "export", "model", supporter, out, "--stored", "float16") == 0
        assert capsys.readouterr().out.startswith("the generator on ")
    base = save_base(tmp_path / "base")
    assert call(monkeypatch, "export", "model", supporter, base) == 2
    assert "base holds something else than an exported model: choose another folder." in capsys.readouterr().err
    assert call(monkeypatch, "export", "model", out, out) == 2
    assert "is the folder that is read" in capsys.readouterr().err
    assert call(monkeypatch, "export", "model", supporter, out, "--stored", "int8") == 2
    assert "--stored 'int8' is unknown: use float32, bfloat16 or float16." in capsys.readouterr().err
    assert call(monkeypatch, "export", "model", tmp_path / "nothing", tmp_path / "there") == 2
    assert "is no folder and no Hub id" in capsys.readouterr().err
