"""Every writer, on a disk that is full or read-only: one sentence, and what stood there still stands."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from esckit.conversation import write_conversations
from esckit.corpora import corpus_statistics, load_corpus, write_corpus
from esckit.corpora.corpus_statistics import draw_sixths
from esckit.corpora.formats import write_list
from esckit.errors import EsckitError
from esckit.files import alone, atomic, remove_leftovers, resume_jsonl, write_json, write_jsonl, writing
from esckit.planning.calibration import Calibration
from esckit.planning.encoder import load_encoder
from esckit.planning.encoder_planner import PlannerCard, save_tensors, write_planner_folder
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.roles import RoleBank, read_bank, save_bank
from esckit.strategy import ESCONV
from esckit.supporters.retrieval import ReplyStore, StoredReply
from esckit.supporters.supporter_folder import read_card, save_supporter
from tests.cli.test_entry import call
from tests.mining.grown import grown
from tests.recipes.tiny import shorten
from tests.tiny import tiny_encoder, tiny_model, tiny_tokenizer, with_lora, write_supporter

Write = Callable[[Path, int, Path], None]
"""Writes the first or the second version of something into a folder, from the material that it is made of."""

STARTER: Final = load_corpus("starter")


def resumed(folder: Path, version: int, _: Path) -> None:
    with resume_jsonl(folder / "rows.jsonl", version, [1] * 300) as rows:
        for number in range(rows.done, 300):
            rows.append([{"version": version, "number": number}])


def planner(folder: Path, version: int, _: Path) -> None:
    none = Calibration.none(len(ESCONV.labels))
    card = PlannerCard("majority", "esconv", version, None, None, None, 0.0, {"shown": none, "hidden": none}, "key")
    write_planner_folder(folder, card, {"log_frequencies": torch.full((1000,), float(version))})


def store(folder: Path, version: int, material: Path) -> None:
    replies = [StoredReply("1", str(number), "Question", f"{version} why?") for number in range(50)]
    vectors = np.full((50, 16), version, np.float32)
    ReplyStore(replies, vectors, load_encoder(str(material / "encoder")), "starter", "CC0-1.0").save(folder)


def supporter(folder: Path, version: int, material: Path) -> None:
    parts = material / f"supporter-{version}"
    save_supporter(folder / "supporter", read_card(parts), {"coupled": parts / "coupled"}, parts / "base")


def roles(folder: Path, version: int, _: Path) -> None:
    save_bank(RoleBank(read_bank().roles[version:]), folder / "bank")


def picture(ending: str) -> Write:
    def draw(folder: Path, version: int, _: Path) -> None:
        draw_sixths({f"version {version}": corpus_statistics(STARTER.train[:4])}, folder / f"stages.{ending}")

    return draw


WRITERS: Final[dict[str, Write]] = {
    "json": lambda folder, version, _: write_json(folder / "a.json", [version] * 1000),
    "json lines": lambda folder, version, _: write_jsonl(folder / "a.jsonl", [version] * 1000),
    "trees": lambda folder, version, _: write_conversations(folder / "trees.jsonl", STARTER.train[version:]),
    "esconv": lambda folder, version, _: write_corpus(folder / "esconv.json", STARTER.train[version:], "esconv"),
    "a list": lambda folder, version, _: write_list(folder / "list.json", [version] * 1000),
    "predictions and mined trees": resumed,
    "tensors": lambda folder, version, _: save_tensors(folder / "a.safetensors", {"a": torch.full((999,), version)}),
    "a planner": planner,
    "a reply store": store,
    "a supporter": supporter,
    "a bank of roles": roles,
    "an svg": picture("svg"),
    "a png": picture("png"),
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    tiny_encoder(folder / "encoder")
    for version in (1, 2):
        write_supporter(folder / f"supporter-{version}", "coupled", seed=version)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, but for what `resume_jsonl` keeps to continue with."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".partial")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """The system itself refuses to make any file longer, whoever writes it in whatever language."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def refused(code: int) -> Iterator[None]:
    """Every opening of a file for writing fails with this errno."""
    plain = open

    def refuse(file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
        if set(mode) & set("wax+") and not isinstance(file, int):
            raise OSError(code, os.strerror(code), str(file))
        return plain(file, mode, *given, **more)

    def refuse_tensors(*_: object, **__: object) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("builtins.open", refuse)
        patched.setattr("io.open", refuse)
        patched.setattr("safetensors.torch.save_file", refuse_tensors)
        yield


FAULTS: Final[dict[str, Callable[[], Any]]] = {
    os.strerror(errno.ENOSPC): lambda: refused(errno.ENOSPC),
    os.strerror(errno.EROFS): lambda: refused(errno.EROFS),
    os.strerror(errno.EFBIG): lambda: file_limit(500),
}


@pytest.mark.parametrize("reason", FAULTS)
@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_is_said_and_what_stood_there_stands(
    name: str, reason: str, material: Path, tmp_path: Path
) -> None:
    write, folder = WRITERS[name], tmp_path / "made"
    write(folder, 1, material)
    before = contents(folder)
    with pytest.raises(EsckitError) as error, FAULTS[reason]():
        write(folder, 2, material)
    assert str(error.value).startswith(str(folder)), error.value
    assert f" cannot be written ({reason}" in str(error.value)
    assert str(error.value).endswith("): free space or choose another place, then run again.")
    assert contents(folder) == before
    write(folder, 2, material)
    assert contents(folder) != before
    assert list(folder.rglob(".*")) == []


@pytest.mark.parametrize("kind", ["model", "tokenizer", "adapter", "torch", "numpy"])
def test_a_librarys_own_writing_is_told_in_the_same_sentence(kind: str, tmp_path: Path) -> None:
    model = with_lora(tiny_model(), "planner", seed=0) if kind == "adapter" else tiny_model()
    write: dict[str, Callable[[], Any]] = {
        "model": lambda: model.save_pretrained(tmp_path),
        "tokenizer": lambda: tiny_tokenizer().save_pretrained(tmp_path),
        "adapter": lambda: model.save_pretrained(str(tmp_path), selected_adapters=["planner"]),
        "torch": lambda: torch.save(model.state_dict(), tmp_path / "a.pt"),
        "numpy": lambda: np.save(tmp_path / "a.npy", np.zeros(1000)),
    }
    said = r"cannot be written \([^()]+\): free space"
    with pytest.raises(EsckitError, match=said), file_limit(3000), writing(tmp_path):
        write[kind]()


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"), writing(tmp_path):
        raise RuntimeError("out of memory")


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "made/below").mkdir(parents=True)
    with atomic(tmp_path / "made") as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new", encoding="utf-8")
        assert (tmp_path / "made/below").exists()
    assert list(tmp_path.rglob("*")) == [tmp_path / "made", tmp_path / "made/new.txt"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    kept = ["a.txt", ".hidden", ".a.partial", ".b.tmp"]
    for name in kept:
        (tmp_path / name).write_text("", encoding="utf-8")

    def killed_while_writing() -> None:
        with atomic(tmp_path / "sub/made") as temporary:
            temporary.mkdir()
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("esckit.files._remove", lambda _: None)
        with pytest.raises(Killed):
            killed_while_writing()
    assert [path.name for path in (tmp_path / "sub").iterdir()] == [f".made.{os.getpid()}.esckit-new"]
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*kept, "sub"])


# ---------------------------------------------------------------------------------------------------------- power cuts


class Disk:
    """What a power cut leaves: of a file what was synced, of a folder the names that it had when it was synced."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.files: dict[int, tuple[int, int]] = {}
        self.folders: dict[int, dict[str, int]] = {}
        self.renamed: list[tuple[Path, Path]] = []
        self.before_removal: Callable[[Path], None] = lambda _: None
        fsync, remove = os.fsync, shutil.rmtree

        def synced(handle: int) -> None:
            fsync(handle)
            told = os.fstat(handle)
            if stat.S_ISDIR(told.st_mode):
                self.folders[told.st_ino] = {entry.name: entry.inode() for entry in os.scandir(handle)}
            else:
                self.files[told.st_ino] = (told.st_size, told.st_mtime_ns)

        def moving(plain: Callable[..., None]) -> Callable[..., None]:
            def move(source: Path, target: Path) -> None:
                if ".esckit-old" not in str(target):
                    self.check(source)
                    self.renamed.append((source, target))
                else:
                    self.before_removal(source)
                plain(source, target)

            return move

        def removed(path: Path, *given: Any, **more: Any) -> None:
            self.before_removal(path)
            remove(path, *given, **more)

        patched.setattr(os, "fsync", synced)
        patched.setattr(os, "replace", moving(os.replace))
        patched.setattr(os, "rename", moving(os.rename))
        patched.setattr(shutil, "rmtree", removed)

    def check(self, path: Path) -> None:
        """All that is in a file or a folder would be there after a power cut."""
        told = path.stat()
        if not path.is_dir():
            assert self.files.get(told.st_ino) == (told.st_size, told.st_mtime_ns), f"{path} is not on the disk"
            return
        for each in path.iterdir():
            self.check_named(each)

    def check_named(self, path: Path, below: Path | None = None) -> None:
        """The same, and its name in the folder above, and so on up to ``below``."""
        self.check(path)
        for each in [path, *path.parents][: 1 if below is None else len(path.relative_to(below).parts)]:
            names = self.folders.get(each.parent.stat().st_ino, {})
            assert names.get(each.name) == each.stat().st_ino, f"{each} is not on the disk in {each.parent}"


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_on_the_disk_before_it_gets_its_name_and_so_is_the_name(
    name: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, folder = Disk(monkeypatch), tmp_path / "new/made"
    for version in (1, 2):
        WRITERS[name](folder, version, material)
        assert disk.renamed, "it appears by being renamed"
        for each in folder.iterdir():
            disk.check_named(each, tmp_path)


TRAINING: Final = """
format: 1
corpus: {{name: tree, train: {folder}/talks.jsonl}}
model: {{pocket: 2m, vocabulary: 400}}
stages:
  - {{stage: pretrain, name: pretrain, epochs: 1, checkpoint_seconds: 0, batch_size: 1}}
  - {{stage: sft, name: sft, part: planner, past_strategies: hidden, epochs: 2, checkpoint_seconds: 0, batch_size: 1}}
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
def test_a_trained_model_is_on_the_disk_before_its_stage_is_done_and_the_record_before_checkpoints_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_conversations(tmp_path / "talks.jsonl", [shorten(talk, 4) for talk in STARTER.train[:2]])
    (tmp_path / "recipe.yaml").write_text(TRAINING.format(folder=tmp_path), encoding="utf-8")
    disk, out, removed = Disk(monkeypatch), tmp_path / "run", []

    def done(stage: str) -> bool:
        disk.check_named(out / f"stages/{stage}.json", tmp_path)
        return bool(json.loads((out / f"stages/{stage}.json").read_text(encoding="utf-8"))["state"] == "done")

    def removal(path: Path) -> None:
        if path.name == "checkpoints":
            stage = path.parent.name
            assert done(stage)
            disk.check_named(out / stage / {"pretrain": "model", "sft": "planner"}[stage], tmp_path)
            removed.append(stage)
        elif path.name.startswith("checkpoint-"):
            kept = sorted(path.parent.glob("checkpoint-*/complete"))[-1]
            disk.check_named(kept.parent, tmp_path)
            removed.append("one")

    disk.before_removal = removal
    replace = os.replace

    def named(source: Path, target: Path) -> None:
        if target.parent.name == "stages" and '"done"' in Path(source).read_text(encoding="utf-8"):
            made = {"pretrain": "model", "sft": "planner"}[target.stem]
            disk.check_named(out / target.stem / made, tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", named)
    run(load_recipe(str(tmp_path / "recipe.yaml")), out)
    assert removed == ["pretrain", "one", "sft"]


def test_a_partial_file_is_continued_from_its_last_whole_row(tmp_path: Path) -> None:
    """What a power cut leaves of rows that the system had not written yet: zeros, or a part of a row."""

    class Killed(BaseException):
        pass

    path, rows = tmp_path / "a.jsonl", [{"text": "one\u2028\x85 two"}, {"text": "three"}, {"text": "4"}, {"text": "5"}]

    def write(count: int) -> int:
        with resume_jsonl(path, "key", [1, 2, 1]) as out:
            done = out.done
            for first, last in [(0, 1), (1, 3), (3, 4)][done:count]:
                out.append(rows[first:last])
            if count < 3:
                raise Killed
        return done

    def cut(count: int) -> Path:
        with pytest.raises(Killed):
            write(count)
        (partial,) = tmp_path.glob(".*.partial")
        return partial

    spoils: list[tuple[Callable[[bytes], bytes], int]] = [
        (lambda whole: whole, 2),
        (lambda whole: whole + bytes(40), 2),
        (lambda whole: whole + bytes(40) + b"\n", 2),
        (lambda whole: whole[:-6] + bytes(5) + b"\n", 1),
        (lambda whole: whole[:-20] + b"\n" + whole[-19:], 1),
        (lambda whole: whole[:8] + bytes(3) + whole[11:], 0),
        (lambda whole: whole[:8] + b"\xff" + whole[9:], 0),
        (lambda whole: b"1\0\n" + whole, 0),
    ]
    wanted = None
    for spoil, kept in spoils:
        partial = cut(2)
        partial.write_bytes(spoil(partial.read_bytes()))
        assert write(3) == kept
        wanted = wanted or path.read_bytes()
        assert path.read_bytes() == wanted
        assert [json.loads(line) for line in wanted.decode().split("\n")[:-1]] == rows
        path.unlink()


# -------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "trees.jsonl", [grown("coupled")])
    return tmp_path / "trees.jsonl"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize(
    "command",
    [
        ["corpus", "convert", "{trees}", "{out}/a.jsonl"],
        ["corpus", "convert", "{trees}", "{out}/a.json", "--to", "messages"],
        ["corpus", "split", "{starter}", "{out}"],
        ["corpus", "stats", "{starter}", "--picture", "{out}/a.svg"],
        ["export", "preferences", "{trees}", "{out}/a.jsonl", "--to", "trl"],
        ["train", "planner", "{starter}", "{out}", "--model", "majority", "--encoder", "{encoder}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_commands_say_it_and_exit_with_2(
    command: Sequence[str],
    code: int,
    material: Path,
    trees: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    starter, out, encoder = tmp_path / "starter.jsonl", tmp_path / "out", material / "encoder"
    write_conversations(starter, STARTER.train[:10])
    capsys.readouterr()
    arguments = [word.format(trees=trees, starter=starter, out=out, encoder=encoder) for word in command]
    with refused(code):
        assert call(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"esckit: {tmp_path}"), errors
    assert errors.count("\n") == 1, errors
    assert f"cannot be written ({os.strerror(code)})" in errors
    assert not any(path.is_file() for path in out.rglob("*"))
    assert call(monkeypatch, *arguments) == 0


def test_what_no_writer_caught_is_a_sentence_too(
    trees: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")

    monkeypatch.setattr("esckit.corpora.read_corpus", full)
    assert call(monkeypatch, "corpus", "stats", trees) == 2
    assert capsys.readouterr().err == (
        "esckit: /somewhere cannot be written (No space left on device): free space or choose another place, "
        "then run again.\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_standard_output_on_a_full_disk_is_said(trees: Path) -> None:
    command = [sys.executable, "-c", "from esckit.cli import main; main()", "corpus", "stats", str(trees), "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == (
        "esckit: standard output cannot be written (No space left on device): free space or choose another place, "
        "then run again.\n"
    )
    assert done.returncode == 2


# -------------------------------------------------------------------------------------------------------------- locks


def test_a_place_is_worked_on_once_at_a_time(tmp_path: Path) -> None:
    place, lock = tmp_path / "place", tmp_path / "place/.lock"
    with alone(place, lock):
        with pytest.raises(EsckitError, match=r"another esckit is at work on .*place: wait"), alone(place, lock):
            pytest.fail("two at once")
        assert lock.exists(), "who was refused removes nothing"
    assert not lock.exists()
    with alone(place, lock):
        pass


def test_a_lock_whose_file_was_removed_before_it_was_got_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    flock, lock = fcntl.flock, tmp_path / ".lock"

    def after_the_owner_has_left(file: Any, how: int) -> None:
        if not calls:
            lock.unlink()
        calls.append(how)
        flock(file, how)

    calls: list[int] = []
    monkeypatch.setattr(fcntl, "flock", after_the_owner_has_left)
    with alone(tmp_path, lock):
        assert len(calls) == 2
        with pytest.raises(EsckitError, match="at work"), alone(tmp_path, lock):
            pass


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with alone(tmp_path, tmp_path / ".lock"):
        pass
    assert capsys.readouterr().err == (f"esckit: {tmp_path} cannot be locked here: let no second esckit work on it.\n")


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with resume_jsonl(tmp_path / "a.jsonl", "key", [1]) as rows:
        rows.append([1])
        with pytest.raises(EsckitError, match=r"at work on .*a\.jsonl"), resume_jsonl(tmp_path / "a.jsonl", "key", [1]):
            pytest.fail("two at once")
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_two_trainings_do_not_write_one_planner(
    trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(tmp_path / "planner", tmp_path / ".planner.lock"):
        assert call(monkeypatch, "train", "planner", trees, tmp_path / "planner", "--model", "majority") == 2
    assert "another esckit is at work on" in capsys.readouterr().err
