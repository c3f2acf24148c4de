"""Models of text and images are read as their text part; code that a model brings along is not run, nor asked about."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import torch

from esckit.chat_models.opening import ChatModelOptions, open_chat_model
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.hub import allows_code, code_allowed
from esckit.language_models.backbone import check_backbone, load_backbone
from esckit.language_models.generation import generate_ids
from esckit.measures.encoders import bertscore_figures
from esckit.planning.encoder import load_encoder
from esckit.recipes.check import check
from esckit.recipes.recipe_files import load_recipe
from tests.field import field
from tests.recipes.tiny import write_tiny
from tests.tiny import tiny_model, tiny_tokenizer, tokenizer_with

TEXT: Final[dict[str, Any]] = {
    "vocab_size": 620,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
WINDOWS: Final[dict[str, Any]] = {"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]}
TURNED: Final = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}}
SEEN: Final = {"depth": 1, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 32}


def nested(kind: str) -> Any:
    """A small config that nests its text part."""
    import transformers as library

    configs: dict[str, Callable[[], Any]] = {
        "gemma3": lambda: library.Gemma3Config(
            text_config={**TEXT, **WINDOWS, "head_dim": 8, "query_pre_attn_scalar": 8},
            vision_config=VISION,
            mm_tokens_per_image=4,
        ),
        "gemma4": lambda: library.Gemma4Config(
            text_config={
                **TEXT,
                **WINDOWS,
                "head_dim": 8,
                "global_head_dim": 8,
                "num_kv_shared_layers": 0,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 620,
            },
            vision_config=VISION,
            audio_config=None,
        ),
        "mistral3": lambda: library.Mistral3Config(
            text_config={"model_type": "mistral", **TEXT, "head_dim": 8, "sliding_window": 24},
            vision_config={"model_type": "pixtral", **VISION, "head_dim": 16},
        ),
        "llava": lambda: library.LlavaConfig(
            text_config={"model_type": "llama", **TEXT},
            vision_config={"model_type": "clip_vision_model", **VISION},
        ),
        "smolvlm": lambda: library.SmolVLMConfig(
            text_config={"model_type": "llama", **TEXT, "head_dim": 8}, vision_config=VISION
        ),
        "qwen2-vl": lambda: library.Qwen2VLConfig(
            text_config={**TEXT, **TURNED},
            vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2},
        ),
        "qwen2.5-vl": lambda: library.Qwen2_5_VLConfig(text_config={**TEXT, **TURNED}, vision_config=SEEN),
        "qwen3-vl": lambda: library.Qwen3VLConfig(
            text_config={**TEXT, **TURNED, "head_dim": 8},
            vision_config={**SEEN, "deepstack_visual_indexes": [0]},
        ),
        "llama4": lambda: library.Llama4Config(
            text_config={**TEXT, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 32},
            vision_config={**VISION, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
        ),
        "mllama": lambda: library.MllamaConfig(
            text_config={**TEXT, "cross_attention_layers": [1]}, vision_config={**VISION, "supported_aspect_ratios": []}
        ),
    }
    return configs[kind]()


def save_nested(kind: str, folder: Path) -> Any:
    """Write a random model of text and images with a tokenizer; return it."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(nested(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    tokenizer_with("alternating").save_pretrained(folder)
    return model


TEXT_PARTS: Final = ["gemma3", "gemma4", "mistral3", "llava", "smolvlm", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"]


@pytest.mark.parametrize("kind", TEXT_PARTS)
def test_the_text_part_says_what_the_whole_says(kind: str, tmp_path: Path) -> None:
    whole = save_nested(kind, tmp_path / kind)
    check_backbone(str(tmp_path / kind))
    backbone = load_backbone(str(tmp_path / kind))
    assert backbone.max_context == 2048
    assert not any("vision" in name or "visual" in name for name, _ in backbone.model.named_parameters())
    ids = torch.arange(60).mul(7).add(3).remainder(600)[None]
    with torch.no_grad():
        torch.testing.assert_close(backbone.model(ids).logits, whole(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_a_reply_is_that_of_the_whole_windows_included(tmp_path: Path) -> None:
    whole = save_nested("gemma3", tmp_path / "model")
    backbone = load_backbone(str(tmp_path / "model"))
    assert backbone.model.config.sliding_window == WINDOWS["sliding_window"]
    prompts = [[*range(3, 60)], [*range(3, 40), *range(100, 140)]]  # longer than the window, one beginning
    ours = generate_ids(backbone.model, prompts, 2, Decoding(greedy=True, max_new_tokens=8), [0, 0])
    for prompt, written in zip(prompts, ours, strict=True):
        found = whole.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        assert written == found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["llama4", "mllama"])
def test_others_are_refused_by_the_run_and_by_its_check(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    nested(kind).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    tiny_tokenizer().save_pretrained(folder)
    said = []
    for ask in (lambda: check_backbone(str(folder)), lambda: load_backbone(str(folder)), lambda: checked(folder)):
        with pytest.raises(ModelError) as error:
            ask()
        said.append(str(error.value))
    assert len(set(said)) == 1
    assert said[0].startswith(f"{folder} ")
    assert "use a Qwen2, Llama, Mistral or Gemma 2 architecture." in said[0]


def checked(folder: Path) -> list[str]:
    return check(load_recipe(str(write_tiny(folder.parent)), [f"model.path={folder}"]))


def test_a_nested_model_passes_the_check(tmp_path: Path) -> None:
    save_nested("gemma3", tmp_path / "model")
    assert any(line.startswith("model: ") for line in checked(tmp_path / "model"))


def test_windows_under_another_name_are_refused(tmp_path: Path) -> None:
    """A short trial could not show them: the window is longer than what is tried."""
    from transformers import AutoModelForCausalLM, GPTNeoConfig

    config = GPTNeoConfig(vocab_size=600, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["local"], 2]])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"has an attention window of another kind \(window_size\), which esckit cannot"
    ):
        load_backbone(str(tmp_path))


def test_sinks_are_computed(tmp_path: Path) -> None:
    """gpt-oss: PyTorch's fused attention does not know them, and would leave them out without a word."""
    from transformers import AutoModelForCausalLM, GptOssConfig

    torch.manual_seed(0)
    config = GptOssConfig(**TEXT, **WINDOWS, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=2.0 * ("sinks" in name), std=0.2)
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    ids = torch.arange(60)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_backbone(str(tmp_path)).model(ids).logits, model(ids).logits)


# ------------------------------------------------------------------------------------------------- code of its own

OWN: Final = (
    "brings code of its own, which esckit does not run: give a model of an architecture that transformers has, "
)
CODE: Final = """
import os
from pathlib import Path
from transformers import Qwen2Config, Qwen2ForCausalLM

Path(os.environ["CODE_RAN"]).write_text("it ran")

class OwnConfig(Qwen2Config):
    model_type = "own"

class OwnModel(Qwen2ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with code of its own, which leaves a file where it runs."""
    folder = tmp_path / "own"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    module = f"own_{uuid4().hex}"  # a module that was run once is not run again
    named = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnModel", "AutoModel": "OwnModel"}
    named = {kind: f"{module}.{name}" for kind, name in named.items()}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": named}))
    (folder / f"{module}.py").write_text(CODE)
    monkeypatch.setenv("CODE_RAN", str(tmp_path / "ran"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    return folder


ASKED: Final[dict[str, Callable[[str], object]]] = {
    "backbone": load_backbone,
    "config": check_backbone,
    "encoder": load_encoder,
    "chat model": lambda source: open_chat_model(ChatModelOptions(model=source)),
    "check": lambda source: checked(Path(source)),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED.keys())
def test_code_of_its_own_is_neither_run_nor_asked_about(ask: Callable[[str], object], own: Path) -> None:
    with pytest.raises(ModelError) as error:
        ask(str(own))
    assert str(error.value) == (
        f"{own} {OWN}or read that code and allow it, with model.trust_remote_code: true in a recipe or "
        "--trust-remote-code."
    )
    assert not own.with_name("ran").exists()


def test_a_measure_s_encoder_runs_no_code_either(own: Path) -> None:
    with pytest.raises(Exception, match="bertscore cannot load the encoder"):
        bertscore_figures(["a"], ["a"], str(own))
    assert not own.with_name("ran").exists()


def test_it_runs_where_the_user_allows_it(own: Path) -> None:
    with code_allowed(True):
        backbone = load_backbone(str(own))
    assert type(backbone.model).__name__ == "OwnModel"
    assert own.with_name("ran").exists()
    assert not allows_code(), "and only there"


def test_a_recipe_allows_it(own: Path) -> None:
    recipe = load_recipe(str(write_tiny(own.parent)), [f"model.path={own}", "model.trust_remote_code=true"])
    assert any(line.startswith("model: ") for line in check(recipe))
    assert own.with_name("ran").exists()


TALKS: Final = '{"role": "user"}'
COMMANDS: Final = {
    "run": ["run", "starter", "--check", "--set", "model.path={}"],
    "baseline": ["baseline", "base", "talks.json", "out.jsonl", "--model", "{}"],
}


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_field_case_is_one_sentence(command: list[str], terminal: bool, tmp_path: Path) -> None:
    folder = field("models/31-own-code")
    talks = field("talks.jsonl")
    given = [each.format(folder).replace("talks.json", str(talks)) for each in command]
    main, other = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "esckit", *given],
        stdin=other if terminal else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "FIELD_CODE_RAN": str(tmp_path / "ran"), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(main)
    os.close(other)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"esckit: {folder} {OWN}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()
