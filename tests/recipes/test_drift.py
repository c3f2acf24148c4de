"""How far alignment moved a part: nothing where nothing moved, and else what separate sequences say."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor

from esckit.conversation import Conversation
from esckit.language_models.backbone import load_backbone
from esckit.language_models.generation import score_strategies
from esckit.language_models.token_tree import build_tries
from esckit.recipes.stages.preference import moved
from esckit.recipes.stages.sft import SftStage
from esckit.rendering import Part, past_strategies, supporter_turns
from esckit.strategy import ESCONV
from esckit.training.adapters import Policy, load_policy, open_adapter
from esckit.training.batches import TrieDataset
from esckit.training.references import drift
from esckit.training.training_options import LoraOptions
from tests.tiny import randomise_adapter, save_base, starter_dialogues, tiny_model, tiny_renderer, with_lora
from tests.tolerance import tolerance
from tests.training.pairs import frozen_model

NEAR: Final = tolerance(tokens=8)  # of a strategy's name
PARTS: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and an adapter of each part over it."""
    folder = tmp_path_factory.mktemp("drift")
    save_base(folder / "base")
    for part in PARTS:
        with_lora(tiny_model(), part, seed=1).save_pretrained(str(folder / "sft"))
    return folder


@pytest.fixture(scope="module")
def dialogues() -> list[Conversation]:
    return starter_dialogues(2, 6)


def sft_of(part: Part) -> SftStage:
    return SftStage(stage="sft", name="sft", part=part, past_strategies="gold" if part == "coupled" else "hidden")


def policy_of(folder: Path, part: Part) -> Policy:
    return load_policy(str(folder / "base"), folder / "sft", part, "frozen", LoraOptions())[1]


@pytest.mark.parametrize("part", PARTS)
def test_an_unchanged_policy_moved_nowhere(part: Part, folder: Path, dialogues: list[Conversation]) -> None:
    found = moved(policy_of(folder, part), tiny_renderer(), sft_of(part), dialogues)
    wanted = {"planner": ["choice"], "generator": ["token"], "coupled": ["token", "choice"]}[part]
    assert sorted(found) == sorted(f"{what}{end}" for what in wanted for end in ("s_changed", "_kl"))
    assert set(found.values()) == {0.0}


def test_nothing_to_compare_at(folder: Path, dialogues: list[Conversation]) -> None:
    silent = [Conversation("silent", dialogues[0].turns[:1])]
    for nothing in ([], silent):
        assert moved(policy_of(folder, "coupled"), tiny_renderer(), sft_of("coupled"), nothing) == {}


def separate(model: Any, part: Part, conversations: list[Conversation]) -> Tensor:
    """(M, V) log-probabilities where a gold token is predicted, each reply read alone."""
    rows = []
    for conversation in conversations:
        shown = past_strategies(conversation, sft_of(part).past_strategies)
        for example in tiny_renderer().examples(conversation, part, shown):
            ids = torch.tensor([example.context + example.given + example.scored])
            with torch.no_grad():
                rows.append(model(input_ids=ids).logits[0, -len(example.scored) - 1 : -1].double().log_softmax(-1))
    return torch.cat(rows)


@pytest.mark.parametrize("part", ["generator", "coupled"])
def test_tokens_that_changed_and_their_divergence(part: Part, folder: Path, dialogues: list[Conversation]) -> None:
    policy = policy_of(folder, part)
    torch.manual_seed(3)
    randomise_adapter(policy.model, f".{part}.")
    found = moved(policy, tiny_renderer(), sft_of(part), dialogues)
    now = separate(policy.model.eval(), part, dialogues)
    before = separate(open_adapter(load_backbone(str(folder / "base")), folder / "sft", part), part, dialogues)
    assert found["token_kl"] == pytest.approx(float((now.exp() * (now - before)).sum(-1).mean()), abs=tolerance())
    assert found["tokens_changed"] == pytest.approx(
        float((now.argmax(-1) != before.argmax(-1)).double().mean()), abs=1e-4
    )
    assert found["token_kl"] > 0.01
    assert 0 < found["tokens_changed"] < 1


def test_choices_that_changed_and_their_divergence(folder: Path, dialogues: list[Conversation]) -> None:
    policy = policy_of(folder, "planner")
    torch.manual_seed(3)
    randomise_adapter(policy.model, ".planner.")
    found = moved(policy, tiny_renderer(), sft_of("planner"), dialogues)
    sft = open_adapter(load_backbone(str(folder / "base")), folder / "sft", "planner")

    def scores(model: Any) -> Any:
        rows = [score_strategies(model, tiny_renderer(), c, supporter_turns(c), {}) for c in dialogues]
        return np.concatenate(rows)

    now, before = scores(policy.model.eval()), scores(sft)
    assert found["choice_kl"] == pytest.approx((np.exp(now) * (now - before)).sum(1).mean(), abs=NEAR)
    assert found["choices_changed"] == pytest.approx((now.argmax(1) != before.argmax(1)).mean(), abs=1e-4)
    assert found["choice_kl"] > 0.01


def test_a_case_by_hand(folder: Path, dialogues: list[Conversation], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four turns one is now planned otherwise, at odds of 7 to 1 where it was 1 to 7."""
    four = [Conversation("four", dialogues[0].turns[:3]), dialogues[1]]
    turns = [len(supporter_turns(conversation)) for conversation in four]
    likely, unlikely = 7 / 8, 1 / 8
    calls = []

    def scripted(_: Any, __: Any, conversation: Conversation, own: Any, ___: Any, part: Part) -> Any:
        row = np.full(len(ESCONV.labels), 1e-12)
        row[:2] = likely, unlikely
        rows = np.tile(row, (len(own), 1))
        calls.append(conversation.id)
        if len(calls) == 1:  # the policy, at the first dialogue's first turn
            rows[0, :2] = unlikely, likely
        return np.log(rows)

    monkeypatch.setattr("esckit.language_models.generation.score_strategies", scripted)
    found = moved(policy_of(folder, "planner"), tiny_renderer(), sft_of("planner"), four)
    assert found["choices_changed"] == pytest.approx(1 / sum(turns), abs=1e-4)
    assert found["choice_kl"] == pytest.approx((likely - unlikely) * np.log(7) / sum(turns), abs=1e-6)


def test_positions_of_two_models(dialogues: list[Conversation]) -> None:
    """The drift from itself is 0 and from another model is not, and every position counts once."""
    one, other = tiny_model(seed=0), tiny_model(seed=1)
    examples = [tiny_renderer().examples(c, "generator", {}) for c in dialogues]
    dataset = TrieDataset(map(build_tries, examples))
    same = drift(one, frozen_model(one), dataset)
    assert (same.positions, same.changed) == (sum(len(e.scored) for own in examples for e in own), 0)
    assert same.divergence == pytest.approx(0, abs=tolerance())
    forth, back = drift(one, frozen_model(other), dataset), drift(other, frozen_model(one), dataset)
    assert forth.changed == back.changed > 0.5
    assert 0 < forth.divergence != back.divergence > 0
