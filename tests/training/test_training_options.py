"""What may be said about training, checked before anything runs."""

import pytest
from pydantic import BaseModel, ValidationError

from esckit.training.training_options import LoraOptions, TrainingOptions


def test_the_defaults_of_lora_are_the_papers() -> None:
    lora = LoraOptions()
    assert (lora.r, lora.alpha, lora.dropout) == (16, 16, 0.05)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (TrainingOptions, {"epochs": 0}),
        (TrainingOptions, {"batch_size": 0}),
        (TrainingOptions, {"accumulation": 0}),
        (TrainingOptions, {"learning_rate": 0}),
        (TrainingOptions, {"schedule": "polynomial"}),
        (TrainingOptions, {"warmup": 1}),
        (TrainingOptions, {"weight_decay": -1}),
        (TrainingOptions, {"max_grad_norm": 0}),
        (TrainingOptions, {"max_tokens_per_row": 10}),
        (TrainingOptions, {"precision": "float16"}),
        (TrainingOptions, {"checkpoint_seconds": -1}),
        (TrainingOptions, {"steps": 3}),
        (LoraOptions, {"r": 0}),
        (LoraOptions, {"alpha": 0}),
        (LoraOptions, {"dropout": 1}),
        (LoraOptions, {"rank": 8}),
    ],
)
def test_an_option_out_of_range_or_unknown_is_refused(options: type[BaseModel], wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        options.model_validate(wrong)
    assert [problem["loc"] for problem in error.value.errors()] == [tuple(wrong)]


def test_options_do_not_change_once_they_are_made() -> None:
    with pytest.raises(ValidationError):
        TrainingOptions().epochs = 4  # type: ignore[misc]
