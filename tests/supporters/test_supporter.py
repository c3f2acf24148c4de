"""A supporter's folder: written, moved, loaded, and refused where it is not whole."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.files import hash_file
from esckit.language_models.attention import TRIE_ATTENTION
from esckit.language_models.backbone import Backbone, hash_weights, load_backbone
from esckit.language_models.generation import generate, score_strategies
from esckit.rendering import past_strategies, supporter_turns
from esckit.supporters import Supporter
from esckit.supporters.supporter_folder import FORMAT, Kind, read_card, save_supporter
from tests.answers import first_of, requests_at, texts
from tests.tiny import label_ids, starter_dialogues, tiny_model, tiny_renderer, tiny_tokenizer, with_lora

KINDS: Final[tuple[Kind, ...]] = ("coupled", "decoupled")
HOT: Final = Decoding(temperature=3.0, top_p=1.0, max_new_tokens=8)  # every difference of the logits shows
GREEDY: Final = Decoding(greedy=True, max_new_tokens=16)


def scores(supporter: Supporter) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the supporter thinks of the turns of one dialogue."""
    (conversation,) = starter_dialogues(1, 6)
    return supporter.score(conversation, supporter_turns(conversation), {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_supporter_is_the_one_that_was_saved(kind: Kind, supporters: dict[Kind, Supporter]) -> None:
    parts = {"coupled": ("coupled", "coupled"), "decoupled": ("planner", "generator")}[kind]
    planner = with_lora(tiny_model(), parts[0], seed=1)
    generator = with_lora(tiny_model(), parts[1], seed=1 if kind == "coupled" else 2)
    for model in (planner, generator):
        model.get_base_model().set_attn_implementation(TRIE_ATTENTION)  # as a backbone is loaded: equal to the last bit
    (conversation,) = starter_dialogues(1, 6)
    turns = supporter_turns(conversation)
    shown = past_strategies(conversation, "gold")
    wanted = score_strategies(planner, tiny_renderer(), conversation, turns, shown)
    np.testing.assert_array_equal(supporters[kind].score(conversation, turns, shown), wanted)
    prompts = [
        (*tiny_renderer().context(conversation.path(t.parent), shown, 50).ids, *label_ids(tiny_renderer(), "Question"))
        for t in turns
    ]
    asked = requests_at(conversation, turns, ["Question"] * len(turns), shown=shown, wording=GREEDY)
    end, seeds = tiny_renderer().end_of_turn, range(len(turns))
    replies = generate(generator, tiny_tokenizer(), prompts, end, GREEDY, seeds)
    assert [(found.text, found.finish) for found in first_of(supporters[kind], asked)] == replies
    again = supporters[kind].score(conversation, turns, shown)
    np.testing.assert_array_equal(again, wanted, "the planner's adapter plays again")


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_says_what_it_is(kind: Kind, folders: dict[Kind, Path]) -> None:
    folder = folders[kind]
    parts = {"coupled": ["coupled"], "decoupled": ["planner", "generator"]}[kind]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*parts, "base", "supporter.json"])
    assert json.loads((folder / "supporter.json").read_text(encoding="utf-8")) == {
        "format": FORMAT,
        "kind": kind,
        "past_strategies": {"coupled": "gold", "decoupled": "hidden"}[kind],
        "base": "./base",
        "base_hash": hash_weights(tiny_model(), rounded=True),
        "max_context": 2048,
        "layout": "shared-prefix",
        "taxonomy": "esconv",
        "planner": "language",
        "generator": "language",
        "calibrated": True,
        "quantisation": None,
        "ranker": None,
        "ranker_hash": None,
        "adapter_hashes": {part: hash_file(folder / part / "adapter_model.safetensors") for part in parts},
        "adapters": {part: part for part in parts},
    }


@pytest.mark.parametrize(
    ("kind", "part"), [("coupled", "coupled"), ("decoupled", "planner"), ("decoupled", "generator")]
)
def test_plain_peft_loads_every_adapter(kind: Kind, part: str, folders: dict[Kind, Path]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = folders[kind]
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / part).eval()
    wanted = with_lora(tiny_model(), part, seed=2 if part == "generator" else 1)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, wanted(input_ids=ids).logits)
        assert not torch.allclose(loaded(input_ids=ids).logits, tiny_model()(input_ids=ids).logits, atol=0.01)


def test_a_folder_can_be_moved(folders: dict[Kind, Path], decoupled: Supporter, tmp_path: Path) -> None:
    copy = shutil.copytree(folders["decoupled"], tmp_path / "first/copy")
    moved = shutil.move(copy, tmp_path / "second")
    np.testing.assert_array_equal(scores(Supporter.load(moved)), scores(decoupled))
    np.testing.assert_array_equal(scores(Supporter.load(str(moved))), scores(decoupled))
    (conversation,) = starter_dialogues(1, 6)
    asked = requests_at(conversation, supporter_turns(conversation), wording=HOT)
    assert texts(Supporter.load(moved), asked) == texts(decoupled, asked)


def test_saving_replaces_what_was_there(folders: dict[Kind, Path], tmp_path: Path) -> None:
    folder = tmp_path / "supporter"
    folder.mkdir()
    (folder / "old.txt").write_text("old", encoding="utf-8")
    card = read_card(folders["coupled"])
    save_supporter(folder, card, {"coupled": folders["coupled"] / "coupled"}, folders["coupled"] / "base")
    assert not (folder / "old.txt").exists()
    assert read_card(folder) == card


def test_a_folder_from_before_adapters_were_hashed_still_loads(folders: dict[Kind, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["decoupled"], tmp_path / "old"))
    drop_from_card(folder, "adapter_hashes")
    assert Supporter.load(folder).card.adapter_hashes is None


@pytest.mark.parametrize("where", ["beside", "absolute"])
def test_the_base_may_stand_elsewhere(
    where: str, folders: dict[Kind, Path], decoupled: Supporter, tmp_path: Path
) -> None:
    base = shutil.copytree(folders["decoupled"] / "base", tmp_path / "bases/tiny")
    source = {"beside": "../bases/tiny", "absolute": str(base)}[where]
    adapters = {part: folders["decoupled"] / part for part in ("planner", "generator")}
    save_supporter(tmp_path / "supporter", replace(decoupled.card, base=source), adapters)
    assert not (tmp_path / "supporter/base").exists()
    np.testing.assert_array_equal(scores(Supporter.load(tmp_path / "supporter")), scores(decoupled))


def test_a_base_on_the_hub_is_asked_for_by_its_name(
    folders: dict[Kind, Path], decoupled: Supporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(source: str, *, quantisation: None) -> Backbone:
        asked.append(source)
        return load_backbone(str(folders["decoupled"] / "base"))

    monkeypatch.setattr("esckit.supporters.supporter_folder.load_backbone", load)
    adapters = {part: folders["decoupled"] / part for part in ("planner", "generator")}
    save_supporter(tmp_path / "supporter", replace(decoupled.card, base="owner/name"), adapters)
    np.testing.assert_array_equal(scores(Supporter.load(tmp_path / "supporter")), scores(decoupled))
    assert asked == ["owner/name"]


# ------------------------------------------------------------------------------------------------------------ refusals


def change_card(folder: Path, **changes: object) -> None:
    path = folder / "supporter.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, **changes}), encoding="utf-8")


def drop_from_card(folder: Path, name: str) -> None:
    path = folder / "supporter.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields[name]
    path.write_text(json.dumps(fields), encoding="utf-8")


def change_base(folder: Path) -> None:
    """Another weight by a hair, as after one more step of training."""
    weights = load_file(folder / "base/model.safetensors")
    name = min(weights)
    weights[name] = weights[name] + 1e-3
    save_file(weights, folder / "base/model.safetensors", metadata={"format": "pt"})


def adapter_of_another_size(folder: Path) -> None:
    path = folder / "planner/adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "r": 8}), encoding="utf-8")


def adapter_of_another_base(folder: Path) -> None:
    """It fits, as the bases are of one size, and would say anything."""
    trained = with_lora(tiny_model(seed=5), "planner", seed=9)
    trained.save_pretrained(str(folder), selected_adapters=["planner"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


NOT_THOSE: Final = "are not those that {folder} was trained on: restore them."
BROKEN_ADAPTER: Final = "an adapter of {folder} is missing or broken: make the supporter again."
NO_CARD: Final = "{folder}/supporter.json is not a supporter.json ("
UNKNOWN: Final = "{folder}/supporter.json names an unknown "
BROKEN: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "the base has other weights": (change_base, NOT_THOSE),
    "the base is missing": (lambda folder: shutil.rmtree(folder / "base"), "is no folder and no Hub id (owner/name)"),
    "the planner is missing": (lambda folder: shutil.rmtree(folder / "planner"), BROKEN_ADAPTER),
    "the generator is missing": (lambda folder: shutil.rmtree(folder / "generator"), BROKEN_ADAPTER),
    "the planner's weights are missing": (
        lambda folder: (folder / "planner/adapter_model.safetensors").unlink(),
        BROKEN_ADAPTER,
    ),
    "the planner's weights are cut off": (
        lambda folder: cut(folder / "planner/adapter_model.safetensors"),
        BROKEN_ADAPTER,
    ),
    "the generator's weights are cut off": (
        lambda folder: cut(folder / "generator/adapter_model.safetensors"),
        BROKEN_ADAPTER,
    ),
    "the planner's config is no JSON": (
        lambda folder: cut(folder / "planner/adapter_config.json"),
        BROKEN_ADAPTER,
    ),
    "the planner is an adapter of another base": (
        adapter_of_another_base,
        "{folder}/planner is not the adapter that {folder} was made with and may belong to another base: restore",
    ),
    "the planner has another size": (adapter_of_another_size, BROKEN_ADAPTER),
    "there is no supporter.json": (
        lambda folder: (folder / "supporter.json").unlink(),
        "{folder}/supporter.json does not exist: give the path of a supporter folder's supporter.json.",
    ),
    "supporter.json is no JSON": (lambda folder: cut(folder / "supporter.json"), NO_CARD),
    "supporter.json is a list": (
        lambda folder: (folder / "supporter.json").write_text("[]", encoding="utf-8"),
        NO_CARD,
    ),
    "a field is missing": (lambda folder: drop_from_card(folder, "kind"), NO_CARD),
    "the base is not named": (
        lambda folder: drop_from_card(folder, "base_hash"),
        "{folder}/supporter.json names no base for its adapters: make the supporter again.",
    ),
    "an unknown planner": (lambda folder: change_card(folder, planner="oracle"), UNKNOWN),
    "the format is missing": (lambda folder: drop_from_card(folder, "format"), NO_CARD),
    "a field is unknown": (lambda folder: change_card(folder, mood="low"), NO_CARD),
    "another format": (
        lambda folder: change_card(folder, format=FORMAT + 1),
        "{folder}/supporter.json has another format than 1: install the esckit that wrote it.",
    ),
    "a kind that is a list": (lambda folder: change_card(folder, kind=["coupled"]), UNKNOWN),
    "an unknown kind": (lambda folder: change_card(folder, kind="triple"), UNKNOWN),
    "unknown past strategies": (lambda folder: change_card(folder, past_strategies="some"), UNKNOWN),
    "an unknown taxonomy": (lambda folder: change_card(folder, taxonomy="mine"), UNKNOWN),
    "an unknown quantisation": (lambda folder: change_card(folder, quantisation="1bit"), UNKNOWN),
    "an unknown layout": (lambda folder: change_card(folder, layout="mine"), UNKNOWN),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_folder_that_is_not_whole_is_refused_in_a_sentence(
    damage: Callable[[Path], object], message: str, folders: dict[Kind, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["decoupled"], tmp_path / "broken"))
    damage(folder)
    with pytest.raises(ModelError) as error:
        Supporter.load(folder)
    assert message.format(folder=folder) in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
