"""Networks and their input: the encoding of numbers, paths that share rows, and that no turn sees another's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.planning import network as module
from esckit.planning.encoder import Encoder
from esckit.planning.network import Binner, Sizes, new_network, train_network
from esckit.planning.planner_options import PlannerOptions
from esckit.planning.turn_batches import ReadTurns, TextVectors, TurnBatch, collate_turns, read_turns
from esckit.planning.turn_features import history_width
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import ESCONV
from tests.tiny import starter_dialogues, tiny_encoder

K = len(ESCONV.labels)
SIZES = Sizes(vectors=16, width=8, head=8, dropout=0.4)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def dialogues() -> list[Conversation]:
    return starter_dialogues(4, 24)


def read(encoder: Encoder, dialogue: Conversation, mode: str = "gold", *, themselves: bool = True) -> ReadTurns:
    shown = past_strategies(dialogue, "gold") if mode == "gold" else {}
    turns = supporter_turns(dialogue)
    return read_turns(dialogue, turns, shown, ESCONV, TextVectors(encoder), themselves=themselves)


def network(items: list[ReadTurns], sizes: Sizes | None) -> torch.nn.Module:
    torch.manual_seed(0)
    made = new_network(Binner.fit(np.concatenate([item.features for item in items])), ESCONV, sizes)
    with torch.no_grad():
        made.get_parameter("wide.weight").normal_(std=0.1)
    return made.eval()


def scores(made: torch.nn.Module, batch: TurnBatch) -> NDArray[np.float32]:
    with torch.no_grad():
        return made(batch).planned.numpy()  # type: ignore[no-any-return]


def test_a_number_becomes_ramps_between_quantiles() -> None:
    rows = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]], dtype=np.float32)
    binner = Binner.fit(rows, bins=2)
    assert binner.column.tolist() == [0, 0, 1]
    assert (binner.low.tolist(), binner.high.tolist()) == ([0, 2, 4.5], [2, 4, 5.5])
    ramps = binner(torch.tensor([[-9.0, 5.0], [1.0, 5.0], [3.0, 9.0]])) * binner.scale + binner.mean
    np.testing.assert_allclose(ramps, [[0, 0, 0.5], [0.5, 0, 0.5], [1, 0.5, 1]], atol=1e-6)
    encoded = binner(torch.from_numpy(rows))
    np.testing.assert_allclose(encoded.mean(0), 0, atol=1e-6)


@pytest.mark.parametrize("sizes", [SIZES, None], ids=["encoder", "linear"])
def test_a_turn_has_the_same_logits_in_any_batch(
    encoder: Encoder, dialogues: list[Conversation], sizes: Sizes | None
) -> None:
    items = [read(encoder, dialogue) for dialogue in dialogues]
    made = network(items, sizes)
    together = scores(made, collate_turns(items, K))
    one_by_one = np.concatenate([scores(made, collate_turns([item], K)) for item in items])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    inference = [read(encoder, dialogue, themselves=False) for dialogue in dialogues]
    np.testing.assert_allclose(together, scores(made, collate_turns(inference, K)), atol=1e-5)
    assert np.abs(together - together.mean(0)).max() > 0.01


@pytest.mark.parametrize("sizes", [SIZES, None], ids=["encoder", "linear"])
def test_hiding_in_a_batch_is_reading_with_nothing_shown(
    encoder: Encoder, dialogues: list[Conversation], sizes: Sizes | None
) -> None:
    shown = [read(encoder, dialogue) for dialogue in dialogues]
    hidden = [read(encoder, dialogue, "hidden") for dialogue in dialogues]
    made = network(shown, sizes)
    batch = collate_turns(shown, K)
    paths = torch.tensor([True, False, True, False])
    mixed = [hidden[0], shown[1], hidden[2], shown[3]]
    found = scores(made, batch.hide(paths, K))
    np.testing.assert_allclose(found, scores(made, collate_turns(mixed, K)), atol=1e-5)
    assert np.abs(found - scores(made, batch)).max() > 0.01


def test_training_names_strategies_from_texts_and_planning_does_not(
    encoder: Encoder, dialogues: list[Conversation]
) -> None:
    items = [read(encoder, dialogue) for dialogue in dialogues]
    made = network(items, SIZES)
    assert made(collate_turns(items, K)).said is None
    said = made.train()(collate_turns(items, K)).said
    assert said.shape == (sum(len(item.gold) for item in items), K)


def branching() -> Conversation:
    """a - b - c, and beside c: d - e."""
    turns = [
        Turn("a", None, "seeker", "I am sad"),
        Turn("b", "a", "supporter", "Why?", "Question"),
        Turn("c", "b", "seeker", "My job"),
        Turn("f", "c", "supporter", "Oh", "Others"),
        Turn("d", "b", "seeker", "He left me"),
        Turn("e", "d", "supporter", "Oh", "Others"),
    ]
    return Conversation("tree", turns)


def test_turns_on_one_path_share_it_and_branches_do_not_mix(encoder: Encoder) -> None:
    tree = branching()
    turns = [tree.turn(name) for name in "bef"]
    found = read_turns(tree, turns, past_strategies(tree, "gold"), ESCONV, TextVectors(encoder))
    assert len(found.vectors) == 2
    assert found.place.tolist() == [1, 3, 3]
    assert found.row[1] != found.row[2]
    made = network([found], SIZES)
    together = scores(made, collate_turns([found], K))
    for turn, row in zip(turns, together, strict=True):
        alone = Conversation("alone", [*tree.path(turn.parent), turn])
        item = read_turns(alone, [turn], past_strategies(alone, "gold"), ESCONV, TextVectors(encoder))
        np.testing.assert_allclose(row, scores(made, collate_turns([item], K))[0], atol=1e-5)


def test_a_turn_that_opens_a_dialogue_can_be_planned(encoder: Encoder) -> None:
    opening = Conversation("opening", [Turn("a", None, "supporter", "Hello", "Others")])
    item = read_turns(opening, opening.trunk, {}, ESCONV, TextVectors(encoder))
    assert scores(network([item], SIZES), collate_turns([item], K)).shape == (1, K)


def test_only_new_texts_are_embedded(tmp_path: Path) -> None:
    class Counting(Encoder):
        asked: list[str] = []  # noqa: RUF012

        def embed(self, texts, max_tokens=128):  # type: ignore[no-untyped-def]
            self.asked.extend(texts)
            return super().embed(texts, max_tokens)

    plain = tiny_encoder(tmp_path)
    vectors = TextVectors(Counting(plain.model, plain.tokenizer, plain.source), size=3)
    np.testing.assert_allclose(vectors(["a", "b", "a"]), plain.embed(["a", "b", "a"]), atol=1e-6)
    vectors(["a", "b", "c", "b"])
    assert Counting.asked == ["a", "b", "c"]
    vectors(["d"])
    vectors(["b", "a"])
    assert Counting.asked == ["a", "b", "c", "d", "a"], "the one unused longest was forgotten"
    assert vectors([]).shape == (0, 16)


def test_a_hidden_history_reads_as_an_average_one(encoder: Encoder, dialogues: list[Conversation]) -> None:
    """Encoded features have mean 0 over the training turns: 0 is the value that says nothing."""
    items = [read(encoder, dialogue) for dialogue in dialogues]
    batch = collate_turns(items, K)
    batch = batch.hide(torch.ones(len(batch.vectors), dtype=torch.bool), K)
    explicit = network(items, None).get_submodule("explicit")
    encoded = explicit(batch)  # (T, E + 1)
    history = explicit.get_buffer("binner.column") < history_width(ESCONV)
    assert (encoded[batch.hidden][:, :-1][:, history] == 0).all()
    assert (encoded[~batch.hidden][:, :-1][:, history] != 0).any()
    assert torch.equal(encoded[:, -1].bool(), batch.hidden)


def telling(encoder: Encoder) -> list[ReadTurns]:
    """Turns in an order that says nothing, whose own texts say all."""
    random, labels = np.random.default_rng(0), ESCONV.labels[:4]
    dialogues = []
    for number in range(24):
        turns = [Turn("0", None, "seeker", "I see")]
        for place, label in enumerate(random.choice(labels, size=6), start=1):
            turns.append(Turn(str(place), str(place - 1), "supporter", f"{label} {label} {label}", str(label)))
        dialogues.append(read(encoder, Conversation(str(number), turns)))
    return dialogues


def test_networks_learn_to_name_strategies_from_texts(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    items, options = telling(encoder), PlannerOptions(epochs=12, learning_rate=0.03, batch_size=4)
    sizes, named = Sizes(vectors=encoder.width, width=16, head=16, dropout=0.4), []
    for weight in (module._SAID_WEIGHT, 0.0):
        monkeypatch.setattr(module, "_SAID_WEIGHT", weight)
        made = train_network(items, ESCONV, sizes, options, 0).train()
        batch = collate_turns(items, K)
        with torch.no_grad():
            named.append((made(batch).said.argmax(1) == batch.gold).float().mean().item())
    assert named[0] > 0.6 > 0.4 > named[1], "by chance .25"


def test_weights_that_nothing_moves_decay(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector of padding, which no turn reads, shrinks by rate times decay at every step, and by nothing else."""
    items, options = telling(encoder), PlannerOptions(epochs=2, learning_rate=0.03, batch_size=8)
    sizes = Sizes(vectors=encoder.width, width=8, head=8, dropout=0.4)
    padding = []
    for decay in (module._WEIGHT_DECAY, 0.0):
        monkeypatch.setattr(module, "_WEIGHT_DECAY", decay)
        padding.append(train_network(items, ESCONV, sizes, options, 0).get_parameter("speaker.weight")[2].detach())
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, 6, pct_start=0.15)
    kept = 1.0
    for _ in range(6):
        kept *= 1 - 0.05 * optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    assert kept < 0.999
    torch.testing.assert_close(padding[0], kept * padding[1])
