"""Stages mine and preference in a run: folds that did not see what they mine, references, stops, faults, rounds."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from esckit.conversation import Conversation, Preference, Turn, read_conversations, write_conversations
from esckit.errors import CorpusError, EsckitError, RecipeError
from esckit.mining.inferential import Miner
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages import mine as mine_stage
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.sft import fine_tune as plain_fine_tune
from esckit.recipes.trees import TREES
from esckit.rendering import Part
from esckit.strategy import ESCONV
from esckit.supporters import Supporter
from esckit.training import trainer
from esckit.training.preferences import PreferenceObjective
from tests.recipes.tiny import shorten
from tests.tiny import save_base, starter_dialogues
from tests.tolerance import tolerance

NEAR: Final = tolerance(tokens=16)  # of two strategies' names
RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl}}
model: {{path: {folder}/base}}
stages:
  - {{stage: sft, name: sft, part: planner, past_strategies: hidden, epochs: 1, batch_size: 4, learning_rate: 1.0e-2,
      lora: {{r: 4, dropout: 0}}}}
  - {{stage: mine, name: mine, model: sft, samples: 4, max_new_tokens: 4}}
  - {{stage: preference, name: dpo, start: sft, pairs: mine, epochs: 3, batch_size: 4, learning_rate: 1.0e-2,
      warmup: 0, checkpoint_seconds: 0, lora: {{r: 4, dropout: 0}}}}
"""
AGAIN: Final = """
  - {stage: mine, name: mine-again, model: dpo, samples: 4}
  - {stage: preference, name: dpo-again, start: dpo, pairs: mine-again, batch_size: 4, learning_rate: 1.0e-2,
      warmup: 0, lora: {r: 4, dropout: 0}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus and base, the recipe, and in ``mined`` its run up to the preference stage."""
    folder = tmp_path_factory.mktemp("alignment")
    dialogues = [shorten(conversation, 6) for conversation in starter_dialogues(7, 6)]
    write_conversations(folder / "train.jsonl", dialogues[:5])
    write_conversations(folder / "valid.jsonl", dialogues[5:])
    save_base(folder / "base")
    (folder / "short.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    (folder / "long.yaml").write_text(RECIPE.format(folder=folder) + AGAIN, encoding="utf-8")
    recipe = load_recipe(str(folder / "short.yaml"))
    run(recipe.model_copy(update={"stages": recipe.stages[:2]}), folder / "mined")
    return folder


def recipe_of(place: Path, *settings: str, name: str = "short") -> Recipe:
    return load_recipe(str(place / f"{name}.yaml"), list(settings))


@pytest.fixture
def out(place: Path, tmp_path: Path) -> Path:
    """A run that is about to align."""
    shutil.copytree(place / "mined", tmp_path / "run")
    return tmp_path / "run"


def weights(out: Path, stage: str = "dpo") -> dict[str, Tensor]:
    return dict(load_file(out / stage / "planner" / "adapter_model.safetensors"))


def facts(out: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "stages" / f"{stage}.json").read_text(encoding="utf-8"))["facts"]
    return found


def curve(out: Path, stage: str = "dpo") -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / stage / "curve.jsonl").read_text(encoding="utf-8").splitlines()]


def events_of(out: Path) -> dict[tuple[str, str], int]:
    rows = map(json.loads, (out / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return {(row["stage"], row["event"]): row["count"] for row in rows}


# -------------------------------------------------------------------------------------------------------------- mining


def test_the_mined_trees_are_the_training_part_grown(place: Path) -> None:
    trees = read_conversations(place / "mined/mine" / TREES)
    train = read_conversations(place / "train.jsonl")
    assert [tree.id for tree in trees] == [conversation.id for conversation in train]
    for tree, conversation in zip(trees, train, strict=True):
        assert tree.trunk == conversation.trunk
        assert set(tree.provenance) == {*conversation.provenance, "mined"}
    found = facts(place / "mined", "mine")
    counted = [tree.provenance["mined"]["sft"] for tree in trees]
    for name in ("turns", "sampled", "pairs"):
        assert found[name] == sum(own.get(name, 0) for own in counted)
    assert found["pairs"] == sum(len(tree.preferences) for tree in trees) > 0
    assert found["kept"] == pytest.approx(found["pairs"] / found["sampled"], abs=1e-4)
    events = events_of(place / "mined")
    for name, event in {"equal_to_gold": "equal to gold", "sampled_twice": "sampled twice"}.items():
        assert events["mine", event] == sum(own.get(name, 0) for own in counted) > 0


def test_a_stop_between_the_trees_and_the_record_loses_no_count(place: Path, out: Path) -> None:
    before = facts(out, "mine"), (out / "events.jsonl").read_bytes()
    path = out / "stages/mine.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"done"', '"running"'), encoding="utf-8")
    recipe = recipe_of(place)
    run(recipe.model_copy(update={"stages": recipe.stages[:2]}), out)
    assert (facts(out, "mine"), (out / "events.jsonl").read_bytes()) == before


def test_random_pairs_name_no_model(place: Path, out: Path) -> None:
    recipe = recipe_of(place, "mine.rule=random", "mine.samples=1")
    run(recipe.model_copy(update={"stages": recipe.stages[:2]}), out, fresh=True)
    mined = [turn for tree in read_conversations(out / "mine" / TREES) for turn in tree.turns if turn.scores]
    assert {turn.source for turn in mined} == {"random"}
    assert facts(out, "mine")["pairs"] == len(mined) == facts(out, "mine")["turns"]


def test_each_fold_is_mined_by_a_model_that_did_not_see_it(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, opened, mined = _watch_folds(monkeypatch)
    recipe = recipe_of(place, "mine.folds=2")
    run(recipe.model_copy(update={"stages": recipe.stages[:2]}), out, fresh=True)
    ids = [conversation.id for conversation in read_conversations(place / "train.jsonl")]
    assert trained == {"fold-0": ids[3:], "fold-1": ids[:3]}, "each on the others"
    assert opened == ["fold-0", "fold-1"]
    assert mined == {"fold-0": ids[:3], "fold-1": ids[3:]}
    assert len(read_conversations(out / "mine" / TREES)) == len(ids)
    first, second = (load_file(out / "mine" / fold / "planner/adapter_model.safetensors") for fold in sorted(trained))
    assert any((first[name] != second[name]).any() for name in first)


def test_some_dialogues_are_mined_and_folds_train_on_all_others(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, _, mined = _watch_folds(monkeypatch)
    recipe = recipe_of(place, "mine.dialogues=3", "mine.folds=2")
    run(recipe.model_copy(update={"stages": recipe.stages[:2]}), out, fresh=True)
    ids = [conversation.id for conversation in read_conversations(place / "train.jsonl")]
    drawn = [tree.id for tree in read_conversations(out / "mine" / TREES)]
    assert len(drawn) == 3 < len(ids)
    assert mined == {"fold-0": drawn[:2], "fold-1": drawn[2:]}
    assert trained == {fold: [each for each in ids if each not in own] for fold, own in mined.items()}
    with pytest.raises(EsckitError, match="3 dialogues cannot be divided into 4 folds"):
        recipe_of(place, "mine.dialogues=3", "mine.folds=4")


def test_folds_that_were_stopped_are_not_trained_again(place: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(place, "mine.folds=2")
    recipe = recipe.model_copy(update={"stages": recipe.stages[:2]})
    run(recipe, out.with_name("whole"))
    plain = Miner.mine
    with monkeypatch.context() as patch:
        patch.setattr(Miner, "mine", _stop_after(4, plain))
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out, fresh=True)
    trained, _, mined = _watch_folds(monkeypatch)
    run(recipe, out)
    assert trained == {}
    assert [len(own) for own in mined.values()] == [1]
    assert (out / "mine" / TREES).read_bytes() == (out.with_name("whole") / "mine" / TREES).read_bytes()


def _watch_folds(patch: pytest.MonkeyPatch) -> tuple[dict[str, list[str]], list[str], dict[str, list[str]]]:
    """Which dialogues each fold's model was trained on; which folds' adapters were opened; what they mined."""
    trained: dict[str, list[str]] = {}
    opened: list[str] = []
    mined: dict[str, list[str]] = {}
    tune, opens, mines = plain_fine_tune, Supporter.of_adapters, Miner.mine

    def fine_tune(this: Any, stage: Any, sft: Any, conversations: list[Conversation], folder: Path) -> Any:
        trained[folder.name] = [conversation.id for conversation in conversations]
        return tune(this, stage, sft, conversations, folder)

    def opening(backbone: Any, renderer: Any, folders: dict[Part, Path], past_strategies: Any) -> Supporter:
        opened.extend(folder.parent.name for folder in folders.values())
        return opens(backbone, renderer, folders, past_strategies)

    def mining(self: Miner, conversation: Conversation, *how: Any) -> Conversation:
        mined.setdefault(opened[-1], []).append(conversation.id)
        return mines(self, conversation, *how)

    patch.setattr(mine_stage, "fine_tune", fine_tune)
    patch.setattr(Supporter, "of_adapters", opening)
    patch.setattr(Miner, "mine", mining)
    return trained, opened, mined


def _stop_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    left = [calls]

    def stopping(*arguments: Any, **more: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return function(*arguments, **more)

    return stopping


# ----------------------------------------------------------------------------------------------------------- alignment


def test_alignment_says_what_it_did(place: Path, out: Path) -> None:
    run(recipe_of(place), out)
    found, points = facts(out, "dpo"), curve(out)
    assert found["pairs"] == facts(out, "mine")["pairs"]
    assert points[0]["loss"] == pytest.approx(math.log(2), abs=NEAR), "the reference is where training starts"
    assert points[0]["margin"] == pytest.approx(0, abs=NEAR)
    assert points[-1]["margin"] > 0
    assert points[-1]["accuracy"] > 0.5
    assert found["choice_kl"] > 0, "a rate like this moves something"
    assert any((weights(out)[name] != weights(out, "sft")[name]).any() for name in weights(out))


def test_frozen_and_stored_references_train_the_same_weights(place: Path, out: Path) -> None:
    """But for rounding, which AdamW makes larger where a gradient is nearly 0."""
    shutil.copytree(out, out.with_name("stored"))
    run(recipe_of(place), out)
    run(recipe_of(place, "dpo.reference=stored"), out.with_name("stored"))
    start, one, other = weights(out, "sft"), weights(out), weights(out.with_name("stored"))
    assert one.keys() == other.keys()
    moved, apart = (torch.cat([(one[name] - far[name]).flatten() for name in one]).norm() for far in (start, other))
    assert apart <= 1e-2 * moved


@pytest.mark.parametrize(
    "reference", ["frozen", *(pytest.param(name, marks=pytest.mark.slow) for name in ("merged", "stored"))]
)
def test_a_stage_that_was_killed_after_a_checkpoint_continues_exactly(
    reference: str, place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(place, f"dpo.reference={reference}")
    shutil.copytree(out, out.with_name("whole"))
    run(recipe, out.with_name("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer._Watch, "on_save", _killing(2, trainer._Watch.on_save))
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out)
    assert not (out / "dpo/planner").exists()
    steps = _count_steps(monkeypatch)
    run(recipe, out)
    assert len(steps) == len(curve(out)) - 2, "it goes on after the second step"
    one, other = weights(out), weights(out.with_name("whole"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=0)
    for point, wanted in zip(curve(out), curve(out.with_name("whole")), strict=True):
        assert point == pytest.approx(wanted, abs=1e-5)


def _killing(saves: int, on_save: Callable[..., None]) -> Callable[..., None]:
    made = []

    def save(*arguments: Any, **more: Any) -> None:
        on_save(*arguments, **more)
        made.append(1)
        if len(made) == saves:
            raise KeyboardInterrupt

    return save


def _count_steps(patch: pytest.MonkeyPatch) -> list[int]:
    steps: list[int] = []
    plain = PreferenceObjective.loss

    def loss(*arguments: Any) -> Tensor:
        steps.append(1)
        return plain(*arguments)

    patch.setattr(PreferenceObjective, "loss", loss)
    return steps


def test_pairs_that_stand_there_twice_can_be_left_out(place: Path, out: Path) -> None:
    path = out / "mine" / TREES
    first, *others = read_conversations(path)
    write_conversations(path, [first.grow((), [replace(first.preferences[0], judge="another")]), *others])
    run(recipe_of(place, "dpo.drop_faulty=true"), out)
    assert facts(out, "dpo")["pairs"] == facts(out, "mine")["pairs"]
    assert events_of(out)["dpo", "pairs left out"] == 1


def test_pairs_without_a_difference_are_refused(place: Path, out: Path) -> None:
    path = out / "mine" / TREES
    equal = [_with_equal_texts(tree) for tree in read_conversations(path)]
    text = (place / "short.yaml").read_text(encoding="utf-8").replace("part: planner", "part: generator")
    (out.parent / "generator.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(str(out.parent / "generator.yaml"))
    run(recipe.model_copy(update={"stages": recipe.stages[:2]}), out, fresh=True)
    write_conversations(path, equal)
    with pytest.raises(
        CorpusError, match=r"5 of 5 preference pairs must not be trained on, as their sides are equal"
    ) as error:
        run(recipe, out)
    assert "\n" not in str(error.value)
    assert not (out / "dpo").exists()


def _with_equal_texts(tree: Conversation) -> Conversation:
    gold = next(turn for turn in tree.trunk if turn.strategy)
    twin = Turn("twin", gold.parent, "supporter", f"{gold.text} ", gold.strategy, "m")
    bare = replace(tree, turns=tree.trunk, preferences=[])
    return bare.grow([twin], [Preference(gold.id, "twin", "response")])


@pytest.mark.parametrize("reference", ["frozen", "merged"])
def test_a_second_round_starts_from_the_first(reference: str, place: Path, out: Path) -> None:
    run(recipe_of(place, f"dpo.reference={reference}", f"dpo-again.reference={reference}", name="long"), out)
    first = curve(out, "dpo-again")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=NEAR), "the reference is the first round's model"
    trees = read_conversations(out / "mine-again" / TREES)
    mined = [tree.turn(preference.rejected) for tree in trees for preference in tree.preferences]
    assert {turn.source for turn in mined} == {"dpo"}, "its own mistakes"
    one, other = weights(out), weights(out, "dpo-again")
    assert any(one[name].shape != other[name].shape or (one[name] != other[name]).any() for name in one)


@pytest.mark.parametrize("reference", ["frozen", "stored", pytest.param("merged", marks=pytest.mark.slow)])
def test_the_first_loss_of_the_pairs_is_ln_2_in_every_round(reference: str, place: Path, out: Path) -> None:
    """Whatever the likelihood adds: self-evolution's DPO + SFT, gamma 1. A merge rounds."""
    keys = {"sft_weight": 1, "beta": 0.1, "reference": reference, "replay": "own", "replay_examples": 3}
    settings = [f"{stage}.{key}={value}" for stage in ("dpo", "dpo-again") for key, value in keys.items()]
    run(recipe_of(place, *settings, name="long"), out)
    for stage in ("dpo", "dpo-again"):
        first, *_, last = [point for point in curve(out, stage) if "pair_loss" in point]
        assert first["pair_loss"] == pytest.approx(math.log(2), abs=NEAR if reference == "merged" else 1e-6)
        assert first["loss"] > first["pair_loss"] + 0.1, "the likelihood is added"
        assert last["pair_loss"] != first["pair_loss"]
        assert facts(out, stage)["replayed"] == 3


# ------------------------------------------------------------------------------------- earlier, held-out, replayed


@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_a_share_of_the_pairs_of_earlier_rounds_is_trained_on_too(share: float, place: Path, out: Path) -> None:
    settings = ["mine-again.trees=mine", "dpo-again.preferences=accumulated", f"dpo-again.earlier={share}"]
    run(recipe_of(place, *settings, name="long"), out)
    first, second = (facts(out, name)["pairs"] for name in ("mine", "mine-again"))
    found, kept = facts(out, "dpo-again"), round(share * first)
    assert (found["pairs"], found["earlier_pairs"]) == (second + kept, kept)
    assert events_of(out).get(("dpo-again", "pairs of earlier stages left out"), 0) == first - kept
    assert events_of(out).get(("dpo-again", "pairs left out"), 0) == 0


@pytest.mark.parametrize("reference", ["frozen", "stored"])
def test_held_out_pairs_are_measured_and_never_trained_on(
    reference: str, place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided: list[tuple[list[Any], list[Any]]] = []
    plain = PreferenceStage._divided

    def keep(*arguments: Any) -> Any:
        divided.append(plain(*arguments))
        return divided[-1]

    monkeypatch.setattr(PreferenceStage, "_divided", keep)
    settings = ("dpo.held_out=0.4", "dpo.evaluations=2", "dpo.patience=2", "dpo.learning_rate=0.3", "dpo.epochs=8")
    run(recipe_of(place, *settings, f"dpo.reference={reference}"), out)
    ((trained, held_out),) = divided
    found = facts(out, "dpo")
    assert (found["pairs"], found["held_out_pairs"]) == (len(trained), len(held_out))
    assert len(trained) + len(held_out) == facts(out, "mine")["pairs"]
    names, other = ({pair.conversation.id for pair in side} for side in (trained, held_out))
    assert names.isdisjoint(other)
    assert len(other) == 2
    losses = {point["step"]: point["valid_loss"] for point in curve(out) if "valid_loss" in point}
    assert found["best_step"] == min(losses, key=lambda step: losses[step])
    assert found["steps"] == max(losses) < found["planned_steps"], "a rate like this spoils what it does not train"


def test_an_sft_stage_replays_chats_and_says_what_it_left_out(
    place: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("Name a tree.", "Oak."), ("Say nothing.", ""), ("Count.", "1 " * 3000), ("Name a bird.", "Owl.")]
    path = out.parent / "replay.json"
    path.write_text(json.dumps([{"instruction": asked, "output": said} for asked, said in rows]), encoding="utf-8")
    recipe = recipe_of(place, f"sft.replay={path}", "sft.replay_examples=5")
    before = facts(out, "sft")
    run(recipe.model_copy(update={"stages": recipe.stages[:1]}), out, fresh=True)
    assert facts(out, "sft")["replayed"] == 2
    assert facts(out, "sft")["scored_tokens"] > before["scored_tokens"]
    counted = {
        event.removeprefix("chats to replay "): n for (stage, event), n in events_of(out).items() if stage == "sft"
    }
    assert counted == {
        "without a reply, or with speakers out of turn": 1,
        "longer than max_context": 1,
        "that the file does not have": 2,
    }
    assert f"esckit: sft replays 3 chats, all that {path} has." in capsys.readouterr().err


def test_what_is_replayed_belongs_to_a_run_and_not_where_it_stands(place: Path, tmp_path: Path) -> None:
    def identity(*settings: str) -> str:
        recipe = recipe_of(place, *settings)
        return RunFolder(recipe, tmp_path / "run", recipe.corpus.load()).identity(recipe.named("sft"))

    chat = json.dumps([{"instruction": "Name a tree.", "output": "Oak."}])
    for name, text in (("one", chat), ("two", chat), ("three", chat.replace("Oak", "Elm"))):
        (tmp_path / name).write_text(text, encoding="utf-8")
    same, moved, other = (identity(f"sft.replay={tmp_path / name}") for name in ("one", "two", "three"))
    assert same == moved
    assert len({identity(), same, other, identity("sft.replay=own")}) == 4
    assert identity("sft.replay=own", "sft.replay_examples=9") != identity("sft.replay=own")
    assert identity("sft.patience=2") != identity() != identity("sft.evaluations=2")


def test_younger_keys_do_not_count_at_their_defaults(place: Path) -> None:
    """So that runs that were made before them stay as they are."""
    recipe = recipe_of(place)
    younger = {"patience", "evaluations", "held_out", "earlier", "replay_examples", "replay"}
    assert younger.isdisjoint(recipe.named("dpo").counting_keys)
    assert younger & recipe_of(place, "dpo.held_out=0.2").named("dpo").counting_keys.keys() == {"held_out"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["dpo.patience=3"], "patience waits for a lower loss on pairs that are held out: set held_out, such as 0.1"),
        (
            ["dpo.earlier=0.1"],
            "earlier is a share of the pairs that earlier stages mined: set preferences: accumulated",
        ),
        (["dpo.replay=own"], "replay adds to the likelihood, which weighs nothing here: set sft_weight, such as 1"),
        (["sft.replay_examples=3"], "replay_examples is how many are drawn from replay: give replay, a file or own"),
        (["sft.patience=0"], "sft.patience: input should be greater than or equal to 1"),
        (["dpo.held_out=1"], "dpo.held_out: input should be less than 1"),
    ],
)
def test_keys_that_need_others_are_refused(settings: list[str], sentence: str, place: Path) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of(place, *settings)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_orpo_replays_without_a_weight(place: Path) -> None:
    stage = recipe_of(place, "dpo.replay=own", "dpo.loss=orpo").named("dpo")
    assert isinstance(stage, PreferenceStage)
    assert stage.replay == "own"


def test_a_replay_file_without_messages_and_patience_without_valid_are_refused_before_anything_is_written(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.json").write_text('[{"text": "Once"}]', encoding="utf-8")
    for settings, sentence in (
        (
            ["sft.patience=1", "corpus.valid=null"],
            "stage 'sft' stops early by the loss on the validation part, and there",
        ),
        (
            [f"sft.replay={tmp_path}/texts.json"],
            "texts.json:1: there are no messages to replay; it has text: give mess",
        ),
    ):
        with pytest.raises(CorpusError) as error:
            run(recipe_of(place, *settings), tmp_path / "run")
        assert sentence in str(error.value)
        assert not (tmp_path / "run").exists()


def test_pairs_of_one_dialogue_cannot_be_held_out(place: Path, out: Path) -> None:
    with pytest.raises(
        CorpusError, match="stage 'dpo' holds out the pairs of whole dialogues, and all of its pairs are"
    ):
        run(recipe_of(place, "dpo.held_out=0.1", "dpo.dialogues=1"), out)


# ------------------------------------------------------------------------------------------------- whose preferences


def test_a_stage_trains_on_what_its_mine_stage_mined_unless_told_otherwise(place: Path, out: Path) -> None:
    """The corpus's trees bring preferences, and the second mine stage grows the trees of the first."""
    trees = [_with_a_preference(tree) for tree in read_conversations(place / "train.jsonl")]
    write_conversations(out.parent / "brought.jsonl", trees)
    settings = [f"corpus.train={out.parent}/brought.jsonl", "mine-again.trees=mine", "dpo-again.loss=orpo"]
    mined = {}
    for whose in ("mined", "accumulated", "all"):
        run(recipe_of(place, *settings, f"dpo-again.preferences={whose}", name="long"), out, fresh=True)
        mined[whose] = facts(out, "dpo-again")["pairs"]
        assert facts(out, "dpo-again")["preferences"] == whose
    first, second = (facts(out, name)["pairs"] for name in ("mine", "mine-again"))
    assert facts(out, "dpo")["pairs"] == first, "nor on what the corpus brought"
    assert mined == {"mined": second, "accumulated": first + second, "all": first + second + len(trees)}
    grown = read_conversations(out / "mine-again" / TREES)
    assert sum(len(tree.preferences) for tree in grown) == mined["all"]


def _with_a_preference(tree: Conversation) -> Conversation:
    gold = next(turn for turn in tree.trunk if turn.strategy)
    other = next(label for label in ESCONV.labels if label != gold.strategy)
    planned = Turn("brought", gold.parent, "supporter", None, other, "somebody")
    return tree.grow([planned], [Preference(gold.id, "brought", "strategy")])


def test_trees_in_which_its_own_turns_cannot_be_told_are_refused(place: Path, out: Path) -> None:
    with pytest.raises(CorpusError, match="hold turns by 'sft' already, and stage 'mine' could not tell"):
        run(recipe_of(place, f"corpus.train={out}/mine/{TREES}"), out.with_name("again"))
    assert not out.with_name("again").exists()
    with pytest.raises(RecipeError, match="'mine-again' grows the trees of 'mine', which mined with sft too"):
        recipe_of(place, "mine-again.trees=mine", "mine-again.model=sft", name="long")


def test_memory_of_later_rounds_is_that_of_the_adapter_that_is_trained(place: Path) -> None:
    merged = ["dpo.reference=merged", "dpo-again.reference=merged"]
    recipe = recipe_of(place, *merged, "dpo.lora.r=3", "dpo-again.lora.r=5", name="long")
    first, second = recipe.named("dpo"), recipe.named("dpo-again")
    assert isinstance(first, PreferenceStage)
    assert isinstance(second, PreferenceStage)
    assert [stage.trained_lora(recipe).r for stage in (first, second)] == [3, 4 + 3]
    assert [stage.frozen_copy(recipe) for stage in (first, second)] == [False, True]
