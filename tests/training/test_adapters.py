"""Policies and their references: what is aligned starts as the SFT model, and what is saved is what was trained."""

import json
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import torch
from torch import Tensor

from esckit.errors import EsckitError
from esckit.language_models.backbone import load_backbone
from esckit.training.adapters import Policy, fresh_adapter, load_policy, open_adapter, save_policy
from esckit.training.training_options import LoraOptions, PreferenceOptions
from tests.tiny import randomise_adapter, save_base, starter_dialogues, tiny_model, tiny_renderer, with_lora
from tests.tolerance import tolerance

Form = Literal["frozen", "merged", "stored"]
FORMS: Final[tuple[Form, ...]] = ("frozen", "merged", "stored")
LORA: Final = LoraOptions(r=3, alpha=6, dropout=0.5)
PART: Final = "planner"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an sft stage leaves it, with a random adapter of rank 4."""
    folder = tmp_path_factory.mktemp("sft")
    with_lora(tiny_model(), PART, seed=1, dropout=0.5).save_pretrained(str(folder))
    return folder


def logits(model: Any) -> Tensor:
    """(N, V) on a dialogue."""
    (conversation,) = starter_dialogues(1, 6)
    example = tiny_renderer().examples(conversation, "coupled", {})[-1]
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.tensor([example.context + example.scored])).logits[0]
    return found


def after_sft(base: Path, start: Path) -> Tensor:
    return logits(open_adapter(load_backbone(str(base)), start, PART))


def policy_of(base: Path, start: Path, form: Form) -> Policy:
    return load_policy(str(base), start, PART, form, LORA)[1]


def reference_logits(policy: Policy) -> Tensor:
    with policy.reference(policy.model) as frozen:
        return logits(frozen)


def trainable(policy: Policy) -> list[str]:
    return [name for name, parameter in policy.model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("form", FORMS)
def test_policy_and_reference_begin_as_the_model_after_sft(form: Form, base: Path, start: Path) -> None:
    policy = policy_of(base, start, form)
    wanted = after_sft(base, start)
    torch.testing.assert_close(logits(policy.model.eval()), wanted, atol=tolerance(), rtol=tolerance())
    torch.testing.assert_close(reference_logits(policy), wanted, atol=tolerance(), rtol=tolerance())
    assert (wanted - logits(tiny_model())).abs().max() > 0.1, "the bare base would be seen"


@pytest.mark.parametrize("form", FORMS)
def test_training_moves_the_policy_and_not_the_reference(form: Form, base: Path, start: Path) -> None:
    policy = policy_of(base, start, form)
    wanted = after_sft(base, start)
    before = trainable(policy)
    assert before
    assert all(f".{PART}." in name for name in before), "one adapter is trained, and nothing else"
    policy.model.train()
    randomise_adapter(policy.model, f".{PART}.")
    torch.testing.assert_close(reference_logits(policy), wanted, atol=tolerance(), rtol=tolerance())
    assert policy.model.training, "dropout is off in the reference alone"
    assert trainable(policy) == before, "asking the reference freezes nothing"
    assert (logits(policy.model.eval()) - wanted).abs().max() > 0.1


def plain(base: Path, folder: Path) -> Any:
    """The adapter as anyone loads it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder / PART).eval()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_saved_is_the_policy_as_one_adapter_on_the_base(
    form: Form, base: Path, start: Path, tmp_path: Path
) -> None:
    policy = policy_of(base, start, form)
    torch.manual_seed(5)
    randomise_adapter(policy.model, f".{PART}.")
    wanted = logits(policy.model.eval())
    save_policy(policy, str(base), start, tmp_path, PART, PreferenceOptions(reference=form))
    torch.testing.assert_close(logits(plain(base, tmp_path)), wanted, atol=tolerance(), rtol=tolerance())
    config = json.loads((tmp_path / PART / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == (4 + LORA.r if form == "merged" else 4), "ranks add up where SFT was merged"
    assert (wanted - after_sft(base, start)).abs().max() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_policy_starts_another_round(form: Form, base: Path, start: Path, tmp_path: Path) -> None:
    """Merged twice: three adapters' ranks stand side by side."""
    torch.manual_seed(6)
    place = start
    for number in range(2):
        policy = policy_of(base, place, form)
        torch.testing.assert_close(reference_logits(policy), after_sft(base, place), atol=tolerance(), rtol=tolerance())
        randomise_adapter(policy.model, f".{PART}.")
        save_policy(policy, str(base), place, tmp_path / str(number), PART, PreferenceOptions(reference=form))
        place = tmp_path / str(number)
    torch.testing.assert_close(
        logits(plain(base, place)), logits(policy.model.eval()), atol=2 * tolerance(), rtol=2 * tolerance()
    )


def test_the_last_layers_alone_are_adapted() -> None:
    model = fresh_adapter(tiny_model(), LoraOptions(layers=1), PART)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".layers.1." in name for name in trained)
    with pytest.raises(EsckitError, match=r"lora\.layers is 3, and the model has 2 layers: say at most 2, or none\."):
        fresh_adapter(tiny_model(), LoraOptions(layers=3), PART)
