"""The recipes of Chain of Strategy Optimization: the paper's rates, equal calls, and that a dry run passes."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.recipes.check import check
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.search import SearchStage
from esckit.recipes.stages.sft import SftStage
from tests.recipes.searched import StandIn
from tests.tiny import save_base

Rates = tuple[int, int, float]
"""Epochs, batch, rate: a row of table 14."""

LARGE: Final = {
    "cso-llama3.1-8b": ((3, 32, 1e-6), (3, 32, 1e-6)),
    "cso-qwen2.5-7b": ((3, 32, 1e-6), (1, 128, 5e-7)),
    "cso-gemma2-9b": ((3, 32, 5e-7), (3, 8, 6e-7)),
}
"""Table 14, LoRA: SFT, and CSO."""

BETAS: Final = {  # table 15, LoRA: dpo, simpo and its gamma, ipo, kto and its weights, orpo
    "cso-llama3.1-8b": (0.01, (2.0, 0.5), 0.1, (0.01, 1.0, 1.0), 1.0),
    "cso-qwen2.5-7b": (0.1, (3.5, 3.0), 0.01, (0.05, 1.0, 0.5), 2.0),
    "cso-gemma2-9b": (0.1, (1.5, 2.0), 0.2, (0.5, 1.0, 0.3), 0.02),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_large_recipes_have_the_paper_s_rates(name: str) -> None:
    recipe = load_recipe(name)
    trained = [stage for stage in recipe.stages if isinstance(stage, SftStage | PreferenceStage)]
    for stage in trained:
        wanted = LARGE[name][isinstance(stage, PreferenceStage)]
        assert (stage.epochs, stage.batch_size, stage.learning_rate) == wanted, stage.name
        lora = stage.trained_lora(recipe)
        assert (lora.alpha, lora.dropout) == (8, 0)
    by_loss: dict[str, Any] = {stage.name: stage for stage in trained if isinstance(stage, PreferenceStage)}
    dpo, simpo, ipo, kto, orpo = (by_loss[loss] for loss in ("dpo", "simpo", "ipo", "kto", "orpo"))
    assert [by_loss[name].loss for name in by_loss] == ["dpo", "simpo", "ipo", "kto", "orpo", "dpo"]
    found = (
        dpo.beta,
        (simpo.beta, simpo.margin),
        ipo.beta,
        (kto.beta, kto.desirable_weight, kto.undesirable_weight),
        orpo.beta,
    )
    assert found == BETAS[name]
    assert by_loss["random-dpo"].beta == dpo.beta


def test_the_large_recipes_search_as_the_program_does() -> None:
    search = load_recipe("cso-qwen2.5-7b").named("search")
    assert isinstance(search, SearchStage)
    assert (search.mode, search.dialogues, search.keep, search.rollout) == ("as_coded", 100, "end", 4)
    roles = (search.seeker, search.supporter, search.strategy, search.reward)
    assert {role.model for role in roles} == {"remote:gpt-4o-mini"}


@pytest.mark.parametrize("name", ["starter-cso", "esconv-cso"])
def test_controls_are_at_equal_calls_from_the_same_dialogues(name: str) -> None:
    recipe = load_recipe(name)
    searches = [stage for stage in recipe.stages if isinstance(stage, SearchStage)]
    assert [stage.method for stage in searches] == ["search", "best_of", "random"]
    assert len({(stage.dialogues, stage.budget_calls, stage.planner) for stage in searches}) == 1
    assert searches[0].budget_calls
    aligned = {stage.pairs for stage in recipe.stages if isinstance(stage, PreferenceStage)}
    assert aligned == {stage.name for stage in searches}


def write_extes(folder: Path, dialogues: int = 12) -> Path:
    said = [{"User": "I failed."}, {"AI": "That must hurt.", "AI Strategy": "Empathetic Statements"}]
    rows = [
        {"scene": "Work", "description": f"A bad day, the {n}th.", "content": [*said, {"User": f"Yes, {n} times."}]}
        for n in range(dialogues)
    ]
    (folder / "ExTES.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "ExTES.json"


@pytest.mark.parametrize("name", [*LARGE, "esconv-cso", "starter-cso"])
def test_a_dry_run_passes(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in = StandIn(monkeypatch)
    settings = ["corpus.name=starter"]
    if name in LARGE:
        extes = ["corpus.split=8:1:1", f"corpus.file={write_extes(tmp_path)}"]
        settings = [*extes, f"model.path={save_base(tmp_path / 'base')}", "model.max_context=2048"]
    lines = check(load_recipe(name, settings))
    trained = [line for line in lines if line.startswith("model: ")]
    assert len(trained) == 1
    assert all(word in trained[0] for word in (("kto", "orpo") if name in LARGE else ("kept-sft", "search-dpo")))
    assert {each["taxonomy"] for each in stand_in.checked} == {"cso" if name in LARGE else "esconv"}
