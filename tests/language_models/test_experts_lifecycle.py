"""A mixture's life, after PEFT's own list: saved, loaded, switched, merged, unmerged, trained on, deleted, unloaded."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor

from esckit.errors import ModelError
from esckit.language_models.backbone import load_backbone
from esckit.language_models.experts import ExpertsConfig, experts_of
from esckit.training.adapters import open_adapter
from tests.mixtures import ROLES, layers_of, randomise_experts, tuner_of, with_experts
from tests.tiny import save_base, tiny_model, with_lora

IDS: Final = torch.arange(3 * 14).mul(7).add(3).remainder(600).view(3, 14)
PAIR: Final = {"role": "doctor", "strategy": "Question"}
OTHER: Final = {"role": "weaver", "strategy": "Others"}
DESCRIBED: Final = torch.randn(len(ROLES) + 8, 7, generator=torch.Generator().manual_seed(3))
SWITCHES: Final[dict[str, dict[str, Any]]] = {
    "shared gates": {},
    "a gate a layer": {"gates": "per_module", "rank": "total", "r": 6, "scaling": "alpha/(r/n)"},
    "described": {"embeddings": "described", "described": DESCRIBED},
    "eight experts for nine roles": {"groups": {"role": 8, "strategy": 8}},
    "one group": {"groups": {"strategy": 4}},
    "three groups": {"groups": {"language": 2, "role": 3, "strategy": 2}},
    "no groups but one of both": {"groups": {"role+strategy": 3}},
}


def members_of(model: Any, members: dict[str, str]) -> dict[str, str]:
    """Those of them that the model has experts for."""
    known = tuner_of(model).gates_of(model.active_adapter).groups
    both = {"role": "baker", "strategy": "Question"} if "role+strategy" in known else members
    names = {name for group in known for name in group.split("+")}
    return {name: member for name, member in {**both, "language": "zh"}.items() if name in names}


@torch.no_grad()
def logits(model: Any, members: dict[str, str] | None = PAIR) -> Tensor:
    """(3, 14, V), all read under a pair, or told none."""
    told = {}
    if members is not None:
        pair = tuner_of(model).gates_of(model.active_adapter).pair(members_of(model, members))
        told = {"pairs": torch.full_like(IDS, pair)}
    found: Tensor = model(input_ids=IDS, **told).logits
    return found


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.fixture(params=[*SWITCHES.values()], ids=[*SWITCHES])
def mixture(request: pytest.FixtureRequest) -> Any:
    return with_experts(tiny_model(), seed=1, **request.param)


# ----------------------------------------------------------------------------------------------------- saved and loaded


def test_what_is_saved_is_loaded(mixture: Any, tmp_path: Path) -> None:
    mixture.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path / "generator", adapter_name="generator").eval()
    assert torch.equal(logits(loaded), logits(mixture))
    assert not torch.allclose(logits(loaded), logits(loaded, None), atol=1e-3)
    assert loaded.peft_config["generator"].groups == mixture.peft_config["generator"].groups


def test_described_embeddings_are_saved_and_stay_as_they_are(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = with_experts(tiny_model(), **SWITCHES["described"])
    model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "generator/adapter_model.safetensors")
    (name,) = [name for name in saved if "embedding" in name]
    assert torch.equal(saved[name], DESCRIBED)
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path / "generator", is_trainable=True)
    for made in (model, loaded):
        made.set_adapter(made.active_adapter)
        trained = [name for name, p in made.named_parameters() if p.requires_grad]
        assert trained
        assert not any("embedding" in name for name in trained)


def test_chosen_adapters_are_saved(tmp_path: Path) -> None:
    model = with_experts(tiny_model(), seed=1)
    model.add_adapter("other", copy.deepcopy(model.peft_config["generator"]))
    model.save_pretrained(str(tmp_path), selected_adapters=["other"])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["other"]


def test_a_mixture_learns_on_from_a_folder(tmp_path: Path) -> None:
    model = with_experts(tiny_model(), seed=1)
    model.save_pretrained(str(tmp_path))
    frozen = PeftModel.from_pretrained(tiny_model(), tmp_path / "generator")
    assert not [p for p in frozen.parameters() if p.requires_grad]
    again = PeftModel.from_pretrained(tiny_model(), tmp_path / "generator", is_trainable=True)
    assert len([p for p in again.parameters() if p.requires_grad]) == len(
        [p for p in model.parameters() if p.requires_grad]
    )


def test_a_fresh_process_reads_the_kind_back(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    with_experts(tiny_model(), seed=1).save_pretrained(str(tmp_path))
    code = (
        "import sys, esckit.language_models.experts\nfrom peft import PeftConfig, PeftModel\n"
        "from transformers import AutoModelForCausalLM\n"
        "config = PeftConfig.from_pretrained(sys.argv[1])\n"
        "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[2]), sys.argv[1])\n"
        "print(type(config).__name__, config.peft_type.value, type(model.base_model).__name__, config.groups['role'])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "generator"), str(base)], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("ExpertsConfig ESCKIT_EXPERTS ExpertsModel {'experts': 3, 'members': ['baker'")


def test_a_configuration_survives_copies_pickles_and_json(tmp_path: Path) -> None:
    config = with_experts(tiny_model(), **SWITCHES["a gate a layer"]).peft_config["generator"]
    config.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (told["peft_type"], told["gates"], told["rank"]) == ("ESCKIT_EXPERTS", "per_module", "total")
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), PeftConfig.from_pretrained(tmp_path)):
        assert isinstance(other, ExpertsConfig)
        assert other.peft_type == config.peft_type
        assert other.layout == config.layout
        assert other.as_gates == config.as_gates


def test_a_copied_model_is_one_of_its_own() -> None:
    model = with_experts(tiny_model(), seed=1)
    other, before = copy.deepcopy(model), logits(model)
    randomise_experts(other)
    tuner_of(other).fix(**OTHER)
    assert torch.equal(logits(model), before)
    assert tuner_of(model).reading.fixed == 0
    assert not torch.allclose(logits(other), before, atol=1e-3)
    close(logits(other, None), logits(other, OTHER))


# -------------------------------------------------------------------------------------------------- several, on and off


def two(**switches: Any) -> Any:
    """A model under two mixtures of the same members."""
    model = with_experts(tiny_model(), seed=1, **switches)
    model.add_adapter("other", copy.deepcopy(model.peft_config["generator"]))
    torch.manual_seed(8)
    randomise_experts(model, "other")
    return model.eval()


def test_several_adapters_each_say_their_own() -> None:
    model = two()
    first = logits(model)
    model.set_adapter("other")
    second = logits(model)
    assert not torch.allclose(first, second, atol=1e-2)
    trained = {name.split(".")[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"other"}
    model.set_adapter("generator")
    assert torch.equal(logits(model), first)
    alone = with_experts(tiny_model(), seed=1)
    assert torch.equal(first, logits(alone)), "a second one changes nothing"


def test_a_second_adapter_of_other_groups_is_loaded_beside_the_first(tmp_path: Path) -> None:
    one, other = with_experts(tiny_model(), seed=1), with_experts(tiny_model(), seed=2, **SWITCHES["one group"])
    other.save_pretrained(str(tmp_path))
    wanted = logits(other)
    one.load_adapter(tmp_path / "generator", adapter_name="second")
    before = logits(one)
    one.set_adapter("second")
    assert torch.equal(logits(one), wanted)
    one.set_adapter("generator")
    assert torch.equal(logits(one), before)


def test_two_active_at_once_add_up_in_each_layer() -> None:
    model = two()
    (layer, *_) = layers_of(model)
    x = torch.randn(1, 5, 32)
    layer._reading.pairs = torch.full((1, 5), 12)
    base, added = layer.base_layer(x), []
    for name in ("generator", "other"):
        layer.set_adapter(name)
        added.append(layer(x) - base)
    layer.set_adapter(["generator", "other"])
    close(layer(x), base + added[0] + added[1])


def test_disabled_it_is_the_base(mixture: Any) -> None:
    with mixture.disable_adapter():
        assert torch.equal(logits(mixture), tiny_model()(input_ids=IDS).logits)
    assert not torch.allclose(logits(mixture), tiny_model()(input_ids=IDS).logits, atol=1e-3)


def test_rows_under_different_pairs_are_read_as_alone(mixture: Any) -> None:
    gates = tuner_of(mixture).gates_of("generator")
    chosen = [0, 1, gates.count - 1]  # the first reads the base
    pairs = torch.tensor([[pair] * IDS.shape[1] for pair in chosen])
    with torch.no_grad():
        together = mixture(input_ids=IDS, pairs=pairs).logits
        for row in range(3):
            alone = mixture(input_ids=IDS[row : row + 1], pairs=pairs[row : row + 1]).logits[0]
            close(together[row], alone)
    assert not torch.allclose(together[0], logits(mixture)[0], atol=1e-3)


@pytest.mark.parametrize("switches", [SWITCHES["shared gates"], SWITCHES["a gate a layer"]])
def test_deleted_adapters_leave_nothing(switches: dict[str, Any]) -> None:
    model = two(**switches)
    model.set_adapter("other")
    wanted = logits(model)
    model.delete_adapter("generator")
    assert not [name for name, _ in model.named_parameters() if "generator" in name]
    assert torch.equal(logits(model), wanted)
    model.add_adapter("generator", copy.deepcopy(model.peft_config["other"]))
    assert torch.equal(logits(model), wanted), "the name can be used again"
    model.set_adapter("generator")
    assert torch.equal(logits(model), tiny_model()(input_ids=IDS).logits)


def test_unloaded_it_is_the_base_and_takes_no_pairs() -> None:
    model = with_experts(tiny_model(), seed=1)
    base = model.unload()
    assert not layers_of(base)
    assert torch.equal(base(input_ids=IDS).logits, tiny_model()(input_ids=IDS).logits)
    assert not base._forward_pre_hooks


# --------------------------------------------------------------------------------------------------------------- merged


def test_merged_and_unmerged_it_says_the_same(mixture: Any) -> None:
    wanted = logits(mixture)
    before = {name: p.detach().clone() for name, p in mixture.named_parameters()}
    tuner_of(mixture).fix(**members_of(mixture, PAIR))
    mixture.merge_adapter()
    assert not torch.equal(
        layers_of(mixture)[0].weight, before["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"]
    )
    close(logits(mixture, None), wanted)
    mixture.unmerge_adapter()
    for name, p in mixture.named_parameters():
        torch.testing.assert_close(p, before[name], rtol=0, atol=1e-6)
    close(logits(mixture), wanted)


def test_merging_twice_merges_once(mixture: Any) -> None:
    tuner_of(mixture).fix(**members_of(mixture, PAIR))
    mixture.merge_adapter()
    once = logits(mixture, None)
    with pytest.warns(UserWarning, match="already merged"):
        mixture.merge_adapter()
    assert torch.equal(logits(mixture, None), once)


def test_what_was_merged_under_one_pair_comes_out_whatever_is_fixed_then() -> None:
    model = with_experts(tiny_model(), seed=1)
    wanted, other = logits(model, None), logits(model, OTHER)
    tuner_of(model).fix(**PAIR)
    model.merge_adapter()
    tuner_of(model).fix(**OTHER)
    model.unmerge_adapter()
    close(logits(model, OTHER), other)
    tuner_of(model).fix()
    close(logits(model, None), wanted)


def test_merged_into_the_base_for_good(mixture: Any) -> None:
    wanted = logits(mixture)
    tuner_of(mixture).fix(**members_of(mixture, PAIR))
    whole = mixture.merge_and_unload(safe_merge=True)
    assert not layers_of(whole)
    assert not whole._forward_pre_hooks
    close(whole(input_ids=IDS).logits, wanted)


@pytest.mark.parametrize("switches", [SWITCHES["shared gates"], SWITCHES["a gate a layer"]])
def test_two_adapters_are_merged_together(switches: dict[str, Any]) -> None:
    model = two(**switches)
    tuner_of(model).fix(**PAIR)
    deltas = [layers_of(model)[0].get_delta_weight(name) for name in ("generator", "other")]
    before = layers_of(model)[0].weight.clone()
    model.merge_adapter(["generator", "other"])
    close(layers_of(model)[0].weight, before + deltas[0] + deltas[1])
    model.unmerge_adapter()
    torch.testing.assert_close(layers_of(model)[0].weight, before, rtol=0, atol=1e-6)


def test_a_broken_weight_is_not_merged_safely() -> None:
    model = with_experts(tiny_model(), seed=1)
    tuner_of(model).fix(**PAIR)
    broken = layers_of(model)[3]
    with torch.no_grad():
        broken.experts_B["generator"][0, 0] = float("nan")
    before = broken.weight.clone()
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        model.merge_and_unload(safe_merge=True)
    assert torch.equal(broken.weight, before)
    with torch.no_grad():
        broken.experts_B["generator"][0, 0] = 0.0
    assert float((logits(model) - logits(model, OTHER)).abs().max()) > 1e-3, "it still takes pairs"


def test_without_a_fixed_pair_nothing_is_merged() -> None:
    model = with_experts(tiny_model(), seed=1)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ModelError, match=r"merged under one pair: say a role, a strategy or both first"):
            merge()
    assert not torch.allclose(logits(model), logits(model, OTHER), atol=1e-3), "it is as it was"


# ----------------------------------------------------------------------------------- other layers, other number formats


def gpt2() -> Any:
    """A model whose linear layers are Conv1D."""
    from transformers import AutoModelForCausalLM, GPT2Config

    torch.manual_seed(4)
    config = GPT2Config(vocab_size=600, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.15)
    return AutoModelForCausalLM.from_config(config).eval()


def test_layers_that_stand_on_their_side_are_adapted_too(tmp_path: Path) -> None:
    base = gpt2()
    plain = base(input_ids=IDS).logits
    model = with_experts(base, seed=1)
    assert {type(layer.base_layer).__name__ for layer in layers_of(model)} == {"Conv1D"}
    wanted = logits(model)
    assert not torch.allclose(wanted, plain, atol=1e-2)
    model.save_pretrained(str(tmp_path))
    close(logits(PeftModel.from_pretrained(gpt2(), tmp_path / "generator").eval()), wanted)
    tuner_of(model).fix(**PAIR)
    model.merge_adapter()
    close(logits(model, None), wanted)
    model.unmerge_adapter()
    close(logits(model), wanted)
    close(model.merge_and_unload()(input_ids=IDS).logits, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_experts_stand_on_a_base_in_half(dtype: torch.dtype) -> None:
    wanted = logits(with_experts(tiny_model(), seed=1))
    model = with_experts(tiny_model().to(dtype), seed=1)
    kinds = {name.split(".")[-2]: p.dtype for name, p in model.named_parameters() if p.requires_grad}
    assert set(kinds.values()) == {torch.float32}
    found = logits(model)
    assert found.dtype == dtype
    assert float((found.float() - wanted).abs().max()) < 64 * torch.finfo(dtype).eps * float(wanted.abs().max())
    tuner_of(model).fix(**PAIR)
    model.merge_adapter()
    assert layers_of(model)[0].weight.dtype == dtype
    assert float((logits(model, None).float() - wanted).abs().max()) < 64 * torch.finfo(dtype).eps * float(
        wanted.abs().max()
    )


def test_cast_as_a_whole_it_computes_in_the_new_format() -> None:
    model = with_experts(tiny_model(), seed=1)
    wanted = logits(model)
    found = logits(model.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=1e-4)
    tables = {layer.table("generator").dtype for layer in layers_of(model)}
    assert tables == {torch.float64}


def test_under_autocast_it_trains() -> None:
    model = with_experts(tiny_model("llama"), seed=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=IDS, labels=IDS, pairs=torch.full_like(IDS, 12)).loss
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in trained)


# ---------------------------------------------------------------------------------------------------------- checkpoints


def gradients(model: Any, pairs: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS, pairs=pairs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("switches", [SWITCHES["shared gates"], SWITCHES["a gate a layer"]])
def test_gradient_checkpointing_changes_no_gradient(switches: dict[str, Any], reentrant: bool) -> None:
    model = with_experts(tiny_model("llama"), seed=1, **switches).train()
    pairs = torch.arange(IDS.numel()).remainder(tuner_of(model).gates_of("generator").count).view_as(IDS)
    wanted = gradients(model, pairs)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    found = gradients(model, pairs)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_what_is_kept_for_writing_follows_the_weights() -> None:
    """Without gradients a layer keeps its table of gates: a step of the optimiser, or other weights, make a new one."""
    model = with_experts(tiny_model(), seed=1)
    before = logits(model)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    model(input_ids=IDS, labels=IDS, pairs=torch.full_like(IDS, 12)).loss.backward()
    optimiser.step()
    after = logits(model)
    assert not torch.allclose(before, after, atol=1e-2)
    fresh = with_experts(tiny_model(), seed=1)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(logits(fresh), after)
    assert torch.equal(logits(copy.deepcopy(model)), after)


def test_a_lora_beside_it_is_no_mixture() -> None:
    assert experts_of(with_lora(tiny_model(), "planner", seed=1)) is None
    assert experts_of(tiny_model()) is None


def test_esckit_opens_it_from_a_folder(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    model = with_experts(tiny_model(), seed=1)
    model.save_pretrained(str(tmp_path))
    opened = open_adapter(load_backbone(str(base)), tmp_path, "generator")
    close(logits(opened), logits(model))
