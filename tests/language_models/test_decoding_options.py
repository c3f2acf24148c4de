"""top_k and repetition_penalty are transformers' own, in its order; and nothing moves where they are not set."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from esckit.chat_models.protocol import ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding, choose_strategies
from esckit.language_models import cohorts, generation
from esckit.language_models.generation import draw, generate_ids, penalised
from tests.tiny import tiny_model

VOCABULARY: Final = 60
NUMBERS: Final = 20_000
EVERY: Final = (torch.arange(NUMBERS).float()[:, None] + 0.5) / NUMBERS  # (NUMBERS, 1) between 0 and 1, evenly

OPTIONS: Final = [
    Decoding(temperature=0.9, top_p=0.8, top_k=50, repetition_penalty=1.2),
    Decoding(temperature=1.0, top_p=1.0, top_k=5),
    Decoding(temperature=0.7, top_p=0.95, top_k=1),
    Decoding(temperature=1.5, top_p=0.6, top_k=7, repetition_penalty=0.8),
    Decoding(temperature=1.0, top_p=1.0, repetition_penalty=1.7),
    Decoding(temperature=2.0, top_p=0.9, top_k=1000, repetition_penalty=1.2),
    Decoding(temperature=0.7, top_p=0.95),
]


def of_transformers(logits: torch.Tensor, ids: Sequence[int], how: Decoding) -> Any:
    """The probabilities (V,) that `model.generate` draws from."""
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(how.repetition_penalty)])
    steps.append(TemperatureLogitsWarper(how.temperature))
    steps += [] if how.top_k is None else [TopKLogitsWarper(how.top_k)]
    steps.append(TopPLogitsWarper(how.top_p))
    return steps(torch.tensor([list(ids)]), logits[None].clone()).softmax(-1)[0]


@pytest.mark.parametrize("how", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_draws_have_the_probabilities_of_transformers(how: Decoding, seed: int) -> None:
    """Our draw, by evenly spread numbers, gives a token as often as it is likely there."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(VOCABULARY, generator=random) * 2
    ids = torch.randint(VOCABULARY, (25,), generator=random).tolist()
    wanted = of_transformers(logits, ids, how)
    shaped = penalised(logits[None], how.repetition_penalty, [ids])
    found = draw(shaped.expand(NUMBERS, -1), how, EVERY).bincount(minlength=VOCABULARY) / NUMBERS
    np.testing.assert_allclose(found, wanted, atol=1.5 / NUMBERS)


def test_tokens_as_likely_as_the_last_stay_as_there() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0])
    how = Decoding(temperature=1.0, top_p=1.0, top_k=2)
    drawn = draw(logits.expand(NUMBERS, -1), how, EVERY)
    assert set(drawn.tolist()) == set(of_transformers(logits, [0], how).nonzero()[:, 0].tolist()) == {0, 2, 3}


def test_the_options_stand_in_generate_s_own_order() -> None:
    """Should transformers change it, the probabilities above would be compared with the wrong ones."""
    config = GenerationConfig(do_sample=True, temperature=0.9, top_k=50, top_p=0.8, repetition_penalty=1.2)
    model = tiny_model("llama", seed=2)
    model.generation_config = config
    kinds = [type(step).__name__ for step in model._get_logits_processor(config, input_ids_seq_length=3)]
    assert kinds == list(_ORDER)


_ORDER: Final = (
    "RepetitionPenaltyLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
)

PROMPTS: Final = ([40, 41, 42, 43, 44], [40, 41, 42], [40, 41, 50, 43], [40, 41, 42], [60, 41])
END: Final = 2


@pytest.mark.parametrize("penalty", [1.2, 0.9, 3.0])
@pytest.mark.parametrize("read_again", [False, True])
def test_greedy_text_is_generate_s(penalty: float, read_again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", seed=2)
    wanted = []
    for prompt in PROMPTS:
        config = GenerationConfig(
            do_sample=False, repetition_penalty=penalty, max_new_tokens=20, eos_token_id=END, pad_token_id=0
        )
        asked = torch.tensor([prompt])
        written = model.generate(asked, attention_mask=torch.ones_like(asked), generation_config=config)
        wanted.append(written[0, len(prompt) :].tolist())
    if read_again:
        monkeypatch.setattr(generation, "takes_steps", lambda _: False)
    monkeypatch.setattr(cohorts, "COHORT_ROWS", 2)
    how = Decoding(greedy=True, max_new_tokens=20, repetition_penalty=penalty)
    assert generate_ids(model, PROMPTS, END, how, range(5)) == wanted
    plain = generate_ids(model, PROMPTS, END, replace(how, repetition_penalty=1.0), range(5))
    assert plain != wanted, "the penalty changes something"


# ------------------------------------------------------------------------------------------------------------- labels


def test_top_k_keeps_the_likeliest_labels_before_the_nucleus() -> None:
    row = np.log([0.4, 0.3, 0.2, 0.1])
    how = Decoding(temperature=1.0, top_p=1.0, top_k=2)
    drawn = choose_strategies(row, how, 4000, 1)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, [4 / 7, 3 / 7, 0, 0], atol=0.03)
    assert set(choose_strategies(row, replace(how, top_k=1), 50, 1)) == {0}
    assert set(choose_strategies(row, replace(how, top_p=0.55), 200, 1)) == {0}, ".57 of what top_k leaves"
    assert set(choose_strategies(row, replace(how, top_p=0.55, top_k=None), 200, 1)) == {0, 1}
    possible = np.array([-np.inf, -1.0, -np.inf, -3.0])
    assert set(choose_strategies(possible, replace(how, top_k=3), 200, 1)) == {1, 3}


def test_a_penalty_changes_no_label() -> None:
    row = np.log([0.4, 0.3, 0.2, 0.1])
    how = Decoding(temperature=1.0, top_p=1.0)
    assert choose_strategies(row, how, 50, 1) == choose_strategies(row, replace(how, repetition_penalty=9.0), 50, 1)


# --------------------------------------------------------------------------------------------------------------- keys


class Block(BaseModel):
    """As a recipe's."""

    decoding: Decoding = Decoding()


def test_what_is_not_set_is_in_no_record_and_no_key() -> None:
    plain = {"greedy": False, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 128}
    assert Decoding().record() == Block().model_dump()["decoding"] == plain
    assert Block().model_dump(mode="json") == {"decoding": plain}
    assert repr(Decoding()) == "Decoding(greedy=False, temperature=0.7, top_p=0.95, max_new_tokens=128)"
    asked = ChatRequest((Message("user", "Hello?"),))
    set_ones = Decoding(top_k=50), Decoding(repetition_penalty=1.2), Decoding(top_k=50, repetition_penalty=1.2)
    keys = {replace(asked, decoding=how).key("s", "m") for how in (Decoding(), *set_ones)}
    assert len(keys) == len({repr(how) for how in (Decoding(), *set_ones)}) == 4
    for how in set_ones:
        assert Decoding(**Block(decoding=how).model_dump()["decoding"]) == how
        assert Block.model_validate(Block(decoding=how).model_dump(mode="json")).decoding == how


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"top_k": 1.5}, {"repetition_penalty": 0}, {"penalty": 1.2}])
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Block.model_validate({"decoding": wrong})
