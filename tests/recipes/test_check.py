"""``esckit run --check``: what would stop a run is said, memory is estimated, and nothing is loaded or written."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from esckit import cli
from esckit.errors import CorpusError, EsckitError, ModelError, RecipeError, TemplateError
from esckit.language_models.backbone import load_backbone
from esckit.recipes import memory_estimate
from esckit.recipes import runner as runner_module
from esckit.recipes.check import check
from esckit.recipes.memory_estimate import Kept
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.sft import SftStage
from tests.recipes.tiny import write_tiny
from tests.tiny import save_base, tiny_model, tiny_tokenizer, tokenizer_with


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return str(write_tiny(tmp_path))


@pytest.fixture
def config_only(tmp_path: Path) -> Path:
    """A folder with a config.json and nothing else."""
    folder = tmp_path / "config-only"
    tiny_model().config.save_pretrained(folder)
    return folder


def figures(lines: list[str], stage: str) -> list[str]:
    """The cells of a stage's row."""
    (line,) = [line for line in lines if line.startswith(f"  {stage} ")]
    return line.split()[1:]


def test_a_pocket_recipe_is_checked_and_nothing_is_written(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner_module, "run", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setattr(sys, "argv", ["esckit", "run", recipe, "--check"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr().out
    assert stopped.value.code == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "recipe: tiny, 18 stages" in printed
    assert "corpus: tree: train 3 dialogues, " in printed
    assert "chat template: every context is the whole template up to the answer, layout shared-prefix" in printed
    for stage in ("pretrain", "coupled-sft", "generator-dpo"):
        assert len(figures(printed.splitlines(), stage)) == 9


@pytest.mark.parametrize("setting", ["max_tokens_per_row=600", "accumulation=2", "accumulation=9"])
def test_passes_are_those_of_training(
    setting: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate is for the largest forward pass that the run then makes."""
    asked: dict[str, Kept] = {}
    real = memory_estimate.MetaModel.memory

    def remember(self: memory_estimate.MetaModel, kept: Kept, **more: bool) -> memory_estimate.Memory:
        asked.setdefault(f"stage {len(asked) // 2}" if kept not in asked.values() else "again", kept)
        return real(self, kept, **more)

    monkeypatch.setattr(memory_estimate.MetaModel, "memory", remember)
    base = save_base(tmp_path / "base")
    path = Path(recipe)
    head = path.read_text(encoding="utf-8").split("stages:")[0]
    stage = "{stage: sft, name: planner-sft, part: planner, past_strategies: hidden, epochs: 2, batch_size: 5}"
    path.write_text(f"{head}stages:\n  - {stage}\n", encoding="utf-8")
    loaded = load_recipe(recipe, [f"model.path={base}", f"planner-sft.{setting}"])
    check(loaded)
    seen: list[Kept] = []
    from esckit.training import trainer

    losses = trainer.Likelihood.loss

    def watching(
        self: trainer.Likelihood, model: object, inputs: dict[str, torch.Tensor], units: torch.Tensor
    ) -> object:
        seen.append(Kept(inputs["input_ids"].numel(), int(inputs["keep"].sum())))
        return losses(self, model, inputs, units)

    monkeypatch.setattr(trainer.Likelihood, "loss", watching)
    run(loaded, tmp_path / "run")
    assert next(iter(asked.values())).tokens == max(kept.tokens for kept in seen)
    assert len({kept.tokens for kept in seen}) > 1, "passes differ"


def test_a_tokenizer_that_knows_no_word_is_none(recipe: str, tmp_path: Path) -> None:
    """Transformers makes one for Gemma out of nothing: four special tokens and the unknown word."""
    tiny_model("gemma2").config.save_pretrained(tmp_path / "gemma")
    lines = check(load_recipe(recipe, [f"model.path={tmp_path}/gemma"]))
    assert any("has no tokenizer that can be read here" in line for line in lines)


def test_a_config_is_enough(recipe: str, config_only: Path) -> None:
    lines = check(load_recipe(recipe, [f"model.path={config_only}", "planner-sft.max_tokens_per_row=128"]))
    assert any("chat template: not checked" in line and "upper bound" in line for line in lines)
    assert any(f"{tiny_model().num_parameters():,} parameters" in line for line in lines)
    assert figures(lines, "planner-sft")[:2] == ["128", "128"]
    assert figures(lines, "coupled-sft")[:2] == ["640", "640"], "max_context"
    assert not any(line.startswith("  pretrain") for line in lines), "model.path is used as it is"
    with pytest.raises(ModelError, match="has no weights"):
        run(load_recipe(recipe, [f"model.path={config_only}"]), config_only / "run")


def test_a_recipe_without_a_language_model_has_nothing_to_estimate(tmp_path: Path) -> None:
    lines = check(load_recipe("planner-encoder", ["corpus={name: starter}"]))
    assert lines[-1] == "model: no stage trains a language model, so there is no memory to estimate"


def test_a_hub_that_cannot_be_reached_is_said_with_the_way_out(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the Hub.\nCheck your connection.")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(ModelError) as error:
        check(load_recipe(recipe, ["model.path=owner/name"]))
    assert str(error.value) == (
        "the config of owner/name cannot be read (We couldn't connect to the Hub): where the Hub cannot be reached, "
        "copy the model's folder (its config.json is enough for --check) and give it with --set model.path=FOLDER."
    )


def test_a_bad_template_and_a_bad_corpus_stop_the_check(recipe: str, config_only: Path, tmp_path: Path) -> None:
    tokenizer_with("{{ raise_exception('no chat') }}").save_pretrained(config_only)
    with pytest.raises(TemplateError, match=r"refuses a chat \(no chat\)"):
        check(load_recipe(recipe, [f"model.path={config_only}"]))
    with pytest.raises(CorpusError, match=r"nowhere.jsonl does not exist"):
        check(load_recipe(recipe, ["corpus.train=nowhere.jsonl"]))
    shutil.rmtree(config_only)
    with pytest.raises(EsckitError):
        check(load_recipe(recipe, [f"model.path={config_only}"]))


def test_a_turn_that_does_not_fit_is_found_before_the_run(recipe: str, config_only: Path) -> None:
    tiny_tokenizer().save_pretrained(config_only)
    with pytest.raises(CorpusError, match="longer than max_context 256"):
        check(load_recipe(recipe, [f"model.path={config_only}", "model.max_context=256", "model.layout=paper"]))


# ---------------------------------------------------------------------------------------------------------- four bits


def test_four_bits_need_bitsandbytes_and_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = str(save_base(tmp_path / "base"))
    monkeypatch.setattr("esckit.language_models.backbone.find_spec", lambda _: None)
    with pytest.raises(ModelError) as error:
        load_backbone(base, quantisation="4bit")
    assert str(error.value) == (
        "model.quantisation: 4bit needs bitsandbytes, which is not installed: pip install bitsandbytes, "
        "or leave quantisation out."
    )
    monkeypatch.setattr("esckit.language_models.backbone.find_spec", lambda _: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match="needs a CUDA device, and there is none"):
        load_backbone(base, quantisation="4bit")


def test_a_run_asks_for_four_bits_where_its_recipe_does(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    monkeypatch.setattr("esckit.language_models.backbone.find_spec", lambda _: None)
    settings = [f"model.path={base}", "model.quantisation=4bit", "generator-dpo.reference=frozen"]
    with pytest.raises(ModelError, match="needs bitsandbytes"):
        run(load_recipe(recipe, settings), tmp_path / "run")
    lines = check(load_recipe(recipe, settings))
    assert any("4-bit weights" in line for line in lines)
    assert json.loads((tmp_path / "run/recipe.json").read_text())["model"]["quantisation"] == "4bit"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["model.quantisation=4bit"], "quantisation is for a backbone that is there: set model.path"),
        (["model.quantisation=2bit", "model.path=a/b"], "model.quantisation: input should be '4bit'"),
        (
            ["model.quantisation=4bit", "model.path=a/b"],
            "stage 'generator-dpo' cannot merge into 4-bit weights: set reference to frozen",
        ),
        (["model.layout=mine"], "model.layout: input should be 'shared-prefix' or 'paper'"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe: str, settings: list[str], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe, settings)
    assert sentence in str(error.value)


@pytest.mark.parametrize("name", ["decoupled-qwen2.5-7b", "decoupled-llama3.1-8b"])
def test_the_large_recipes_are_the_papers(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.layout == "paper"
    for stage in recipe.stages:
        if isinstance(stage, SftStage | PreferenceStage):
            assert (stage.batch_size, stage.epochs) == (32, 3 if stage.stage == "sft" else 1)
        if isinstance(stage, SftStage):
            assert (stage.learning_rate, stage.lora.r, stage.lora.alpha, stage.lora.dropout) == (1e-5, 16, 16, 0.05)
    rates = [(s.learning_rate, s.beta) for s in recipe.stages if isinstance(s, PreferenceStage)]
    published = {
        "decoupled-qwen2.5-7b": [(7e-7, 0.2), (5e-8, 0.5), (7e-7, 0.2)],
        "decoupled-llama3.1-8b": [(5e-7, 0.2), (8e-8, 0.5), (3e-7, 0.2)],
    }
    assert rates == published[name]
