"""What may be said about training, checked before anything runs."""

from pathlib import Path

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


def test_a_rate_that_nobody_gives_is_the_usual_one_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from esckit.language_models.token_tree import build_tries
    from esckit.training.batches import TrieDataset
    from esckit.training.trainer import train
    from tests.tiny import starter_dialogues, tiny_model, tiny_renderer, with_lora

    (talk,) = starter_dialogues(1, 4)
    rows = TrieDataset([build_tries(tiny_renderer().examples(talk, "coupled", {}), None)])
    for model, rate in ((tiny_model(), 2e-3), (with_lora(tiny_model(), "coupled", seed=1), 1e-3)):
        told = f"test trains at {rate:g}, the usual rate on a pocket backbone"
        options = TrainingOptions(epochs=1, warmup=0, schedule="constant_with_warmup")
        trained = train(model, rows, options, folder=tmp_path / str(rate), title="test", seed=0)
        assert trained.curve[0]["learning_rate"] == pytest.approx(rate)
        assert told in capsys.readouterr().err
