"""The contenders of benchmarks/preference.py train the pairs that they are given, from the reference on."""

import math

import pytest

import preference
from common import How, choose_dialogues
from esckit.language_models.backbone import load_backbone
from esckit.rendering import PairExample, Part
from tests.tiny import starter_dialogues, tiny_renderer


def dialogues(part: Part) -> list[list[PairExample]]:
    """Three dialogues' pairs, past strategies hidden."""
    conversations = starter_dialogues(3, 9)
    grown = preference.with_pairs(conversations, part)
    chosen = [conversation.id for conversation in choose_dialogues(conversations, 3)]
    return preference.rendered(grown, chosen, tiny_renderer(), part)["hidden"]


@pytest.mark.parametrize("contender", preference.CONTENDERS)
def test_every_contender_starts_at_the_reference(contender: str, base: str) -> None:
    work = dialogues("generator")
    trained = preference.CONTENDERS[contender].train(load_backbone(base).model, work, How(8, bf16=False))
    assert trained.loss == pytest.approx(math.log(2), abs=2e-3), "the naive way takes several steps"
    pairs = sum(map(len, work))
    assert pairs > preference.TRL_PAIRS
    assert trained.units == (preference.TRL_PAIRS if contender == preference.TRL else pairs)


@pytest.mark.parametrize("part", preference.PARTS)
def test_a_pair_a_supporter_turn(part: Part) -> None:
    for pairs in dialogues(part):
        assert len(pairs) > 1
        for chosen, rejected in pairs:
            assert chosen.scored != rejected.scored
            assert (chosen.context, chosen.given) == (rejected.context, rejected.given)
