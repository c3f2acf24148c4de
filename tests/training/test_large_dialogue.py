"""A dialogue of 200 turns with a pair on every supporter turn trains in little memory: its rows are divided."""

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import pytest

LIMIT: Final = 6 * 2**30  # bytes


def _train_on_200_turns() -> tuple[int, int, float]:
    """Pairs, forward passes and the first step's loss of a pocket backbone; runs in a process of its own."""
    import torch

    from esckit.conversation import Preference, Turn
    from esckit.corpora import load_corpus
    from esckit.language_models.pocket import make_pocket_model, train_tokenizer
    from esckit.rendering import Renderer, supporter_turns
    from esckit.strategy import ESCONV
    from esckit.training.preferences import PairDataset, PreferenceObjective, make_item
    from esckit.training.training_options import PreferenceOptions
    from tests.tiny import talk
    from tests.training.pairs import frozen_model

    torch.set_num_threads(1)
    train = load_corpus("starter").train
    texts = [(turn.text or "")[:80] for conversation in train for turn in conversation.trunk]  # about ESConv's length
    lines = [("seeker", text) if n % 2 else ("supporter", text, "Question") for n, text in enumerate(texts[:200])]
    dialogue = talk(*lines)
    golds = supporter_turns(dialogue)
    others = [Turn(f"r{t.id}", t.parent, "supporter", texts[200 + n], t.strategy) for n, t in enumerate(golds)]
    preferences = [Preference(t.id, f"r{t.id}", "response") for t in golds]
    tree = dialogue.grow(others, preferences)
    tokenizer = train_tokenizer(train, 2048)
    model = make_pocket_model("2m", tokenizer)
    model.config.max_position_embeddings = 16384
    renderer = Renderer(tokenizer, ESCONV, max_context=16384)
    item = make_item([renderer.pair(tree, preference, "generator", {}) for preference in preferences], 8192)
    forwards = PairDataset.forwards([item], 8192)
    objective = PreferenceObjective(PreferenceOptions(), frozen_model(model))
    units = torch.stack([objective.units(inputs) for inputs in forwards]).sum(0)
    total = 0.0
    for inputs in forwards:
        loss = objective.loss(model, inputs, units)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    return len(item.chosen), len(forwards), total


def _measured() -> tuple[tuple[int, int, float], int]:
    found = _train_on_200_turns()
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_a_dialogue_of_200_turns_with_a_pair_each_trains_within_6_gb() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        (pairs, forwards, loss), peak = pool.submit(_measured).result()
    assert pairs == 100
    assert forwards > 1, "the rows are divided"
    assert loss == pytest.approx(0.693147, abs=1e-5)
    assert peak < LIMIT, f"{peak / 2**30:.1f} GiB"
