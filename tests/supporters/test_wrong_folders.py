"""What is named as a supporter or a planner and is none: a sentence about what it is."""

from pathlib import Path

import pytest

from esckit.errors import ModelError
from esckit.strategy import ESCONV
from esckit.supporters.own_model import open_planner, open_supporter

CASES = {
    "run": (
        ["recipe.json", "coupled/supporter.json", "decoupled/supporter.json", "decoupled/base/config.json"],
        "is an esckit run; it holds coupled, decoupled: give {folder}/coupled, or another",
    ),
    "run of a backbone alone": (["recipe.json", "pretrain/model/config.json"], "give {folder}/pretrain/model"),
    "folder of runs": (["a/recipe.json", "a/coupled/supporter.json"], "it holds a/coupled: give {folder}/a/coupled"),
    "adapter's stage": (["curve.jsonl", "planner/adapter_config.json"], "it holds planner: give {folder}/planner"),
    "annotator": (["annotator.json", "weights.safetensors"], "is an annotator of psychological errors: give a supp"),
    "planner": (["planner.json", "weights.safetensors"], "is an encoder planner, which chooses strategies and writes"),
    "replies": (["store.json"], "is a store of replies, which belongs into a supporter"),
    "mined": (["trees.jsonl"], "is what a stage of a run wrote"),
    "something": (["notes.txt", "photo.png"], "is no supporter's folder, but holds notes.txt, photo.png: give"),
    "nothing": ([], "but holds nothing"),
}


@pytest.mark.parametrize(("files", "words"), CASES.values(), ids=CASES.keys())
def test_a_folder_is_told_by_what_is_in_it(files: list[str], words: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError) as error:
        open_supporter(tmp_path)
    assert words.format(folder=tmp_path) in str(error.value)
    assert str(error.value).startswith(str(tmp_path))


def test_files_and_names_are_told_too(tmp_path: Path) -> None:
    rows = tmp_path / "predictions.jsonl"
    rows.write_text("{}", encoding="utf-8")
    for name, words in (
        (
            rows,
            "is a file and no supporter's folder (dialogues and predictions are read by esckit evaluate",
        ),
        (tmp_path / "nobody", "is nothing here: give a supporter's folder, a model's, a Hub id (owner/name), smollm2"),
        ("smolm2", "smolm2 is nothing here"),
    ):
        with pytest.raises(ModelError) as error:
            open_supporter(name)
        assert words in str(error.value)


def test_a_planner_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "run/encoder").mkdir(parents=True)
    (tmp_path / "run/encoder/planner.json").write_text("{}", encoding="utf-8")
    for name, words in (
        (tmp_path / "run", f"is no planner's folder; it holds encoder: give {tmp_path}/run/encoder"),
        (tmp_path / "nobody", "is nothing here: give the folder of an encoder planner or of a supporter, or embedded"),
        (tmp_path / "run/encoder", "is no whole encoder planner"),
    ):
        with pytest.raises(ModelError) as error:
            open_planner(str(name), ESCONV)
        assert words in str(error.value)
