"""The house keeps its shape: who may import whom, and where heavy libraries may be imported.

A room is a module or a folder directly under ``esckit``. The rules are the table below; rooms that do not exist yet
are in it, and a new room has to be entered before its imports pass.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import pytest

SOURCE: Final = Path(__file__).parents[1] / "src/esckit"

EVERYWHERE: Final = {"__init__", "cache", "errors", "files", "hub", "memory", "progress", "quiet"}
"""Rooms that anyone may import and that import only each other."""

TREE: Final = {"conversation", "strategy"}

MAY_IMPORT: Final[dict[str, set[str]]] = {
    **{room: set() for room in EVERYWHERE},
    "strategy": set(),
    "decoding": set(),
    "safety": set(),
    "conversation": {"strategy"},
    "roles": TREE,
    "corpora": TREE,
    "measures": TREE,
    "prompts": {"conversation"},
    "rendering": TREE | {"prompts", "roles"},
    "language_models": {"conversation", "decoding", "rendering"},
    "chat_models": {"conversation", "decoding", "language_models", "prompts", "rendering"},
    "planning": TREE | {"language_models", "measures", "rendering", "roles"},
    "training": {"language_models", "rendering"},
    "supporters": TREE
    | {
        "chat_models",
        "corpora",
        "decoding",
        "language_models",
        "measures",
        "planning",
        "prompts",
        "rendering",
        "roles",
        "safety",
    },
    "judging": TREE | {"chat_models", "corpora", "decoding", "measures", "planning", "prompts", "supporters"},
    "mining": TREE
    | {"chat_models", "decoding", "judging", "language_models", "measures", "planning", "prompts"}
    | {"rendering", "roles", "safety", "supporters"},
    "report": TREE | {"measures"},
    "recipes": TREE
    | {"chat_models", "corpora", "decoding", "judging", "language_models", "measures", "mining", "planning", "prompts"}
    | {"rendering", "report", "roles", "supporters", "training"},
    "cli": TREE
    | {"chat_models", "corpora", "decoding", "judging", "measures", "mining", "planning", "prompts", "recipes"}
    | {"rendering", "report", "roles", "safety", "supporters", "training"},
    "__main__": {"cli"},
}
"""What a room imports: no other room, and each of these."""

LONGEST_FUNCTION: Final = 60
LONGEST_FILE: Final = 400
MEDIAN_FUNCTION: Final = 8

HEAVY: Final = {"torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "datasets", "openai"}
HUB: Final = {"huggingface_hub"}
LIGHT_TO_IMPORT: Final = (
    *(
        "cache",
        "errors",
        "files",
        "hub",
        "memory",
        "progress",
        "quiet",
        "strategy",
        "decoding",
        "conversation",
        "corpora",
        "roles",
    ),
    *("measures", "prompts", "report", "cli", "safety"),
    *(
        "chat_models/asker.py",
        "chat_models/live.py",
        "chat_models/protocol.py",
        "chat_models/ledger.py",
        "chat_models/pacing.py",
        "chat_models/remote.py",
        "chat_models/base_url.py",
        "chat_models/completions.py",
        "chat_models/dialect.py",
        "chat_models/probe.py",
        "chat_models/server_errors.py",
    ),
    *("supporters/__init__.py", "supporters/baselines.py", "supporters/prompted.py", "supporters/open_model.py"),
    *("chat_models/json_replies.py", "mining/export.py", "mining/mining_options.py", "mining/pairs.py"),
    *(path.relative_to(SOURCE).as_posix() for path in sorted(SOURCE.glob("mining/derivation/*.py"))),
    *(
        f"mining/tree_search/{name}.py"
        for name in ("options", "roles", "said", "asked_roles", "open_roles", "statistics")
    ),
    *("recipes/stage.py", "recipes/recipe.py", "recipes/recipe_files.py", "recipes/rounds.py", "recipes/identity.py"),
    *(path.relative_to(SOURCE).as_posix() for path in sorted(SOURCE.glob("recipes/stages/*.py"))),
)
"""What works, or at least begins, without esckit[train]: heavy imports stand inside functions there."""

NEVER_HEAVY: Final = (
    "errors",
    "files",
    "progress",
    "strategy",
    "decoding",
    "conversation",
    "corpora",
    "measures",
    "roles",
    "safety",
)
HUB_ALLOWED_IN: Final = "corpora/esconv.py"


class Import(NamedTuple):
    """One imported module: where, its full name, and whether importing the file runs it."""

    file: str
    line: int
    module: str
    at_once: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_of(path: Path, root: Path = SOURCE) -> Iterator[Import]:
    """Every import in a file, those inside functions and for type checkers too."""
    package = ["esckit", *path.relative_to(root).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {id(node) for scope in ast.walk(tree) if _runs_later(scope) for node in ast.walk(scope)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in _modules(node, package):
                yield Import(path.relative_to(root).as_posix(), node.lineno, module, id(node) not in later)


def _runs_later(node: ast.AST) -> bool:
    is_type_checking = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return is_type_checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _modules(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else []
    parent = ".".join([*base, *filter(None, [node.module])])
    return [f"{parent}.{alias.name}" for alias in node.names] if parent == "esckit" else [parent]


def room_of(module: str) -> str | None:
    """The room of one of our modules; None for a library."""
    package, _, rest = module.partition(".")
    if package != "esckit":
        return None
    room = rest.split(".")[0]
    return room if (SOURCE / room).is_dir() or (SOURCE / f"{room}.py").exists() else "__init__"


def room_at(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def files_of(rooms: tuple[str, ...]) -> list[Path]:
    return [
        path
        for path in sorted(SOURCE.rglob("*.py"))
        if room_at(path.relative_to(SOURCE).as_posix()) in rooms or path.relative_to(SOURCE).as_posix() in rooms
    ]


ALL: Final = [found for path in sorted(SOURCE.rglob("*.py")) for found in imports_of(path)]


def test_every_room_is_in_the_table() -> None:
    rooms = {room_at(path.relative_to(SOURCE).as_posix()) for path in SOURCE.rglob("*.py")}
    assert rooms - MAY_IMPORT.keys() == set(), "enter new rooms into MAY_IMPORT, with what they may import"


def test_the_table_has_no_cycle() -> None:
    """So that a room can always be read after, and never before, those that it builds on."""
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        ready = [room for room, imported in MAY_IMPORT.items() if room not in order and imported <= set(order)]
        assert ready, f"the rooms {MAY_IMPORT.keys() - set(order)} wait for each other"
        order += ready


def test_rooms_import_only_what_they_may() -> None:
    wrong = []
    for found in ALL:
        room, imported = room_at(found.file), room_of(found.module)
        if imported not in (None, room, *EVERYWHERE, *MAY_IMPORT.get(room, ())):
            wrong.append(f"{found}: {room} may import {', '.join(sorted(MAY_IMPORT[room])) or 'nothing'}")
    assert wrong == []


def test_every_arrow_of_the_table_is_there() -> None:
    used = {(room_at(found.file), room_of(found.module)) for found in ALL}
    gone = [(room, other) for room, others in MAY_IMPORT.items() for other in others if (room, other) not in used]
    assert gone == [], "take these out of MAY_IMPORT"


def test_files_and_functions_are_short() -> None:
    long, lengths = [], []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > LONGEST_FILE:
            long.append(f"{path.name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append((node.end_lineno or node.lineno) - node.lineno + 1)
                if lengths[-1] > LONGEST_FUNCTION:
                    long.append(f"{path.name}, {node.name}: {lengths[-1]} lines")
    assert long == []
    assert median(lengths) <= MEDIAN_FUNCTION


def test_heavy_libraries_are_imported_inside_functions_where_a_room_must_stay_light() -> None:
    files = {path.relative_to(SOURCE).as_posix() for path in files_of(LIGHT_TO_IMPORT)}
    heavy = HEAVY | HUB
    assert [str(i) for i in ALL if i.file in files and i.at_once and i.module.split(".")[0] in heavy] == []


def test_the_core_never_imports_heavy_libraries() -> None:
    core = [found for found in ALL if room_at(found.file) in NEVER_HEAVY]
    assert [str(found) for found in core if found.module.split(".")[0] in HEAVY] == []
    hub = [found for found in core if found.module.split(".")[0] in HUB]
    assert [str(found) for found in hub if found.file != HUB_ALLOWED_IN] == []


WITHOUT_HEAVY: Final = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
for name in sys.argv[2:]:
    __import__(name)
"""


def test_the_core_can_be_imported_where_heavy_libraries_are_not_installed() -> None:
    """The ast tests see direct imports alone; this one sees what they pull in."""
    present = [room for room in NEVER_HEAVY if files_of((room,))]
    modules = [f"esckit.{room}" for room in present]
    command = [sys.executable, "-c", WITHOUT_HEAVY, ",".join(sorted(HEAVY | HUB)), *modules]
    done = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "text", "module", "at_once"),
    [
        ("corpora/x.py", "import torch.nn as nn", "torch.nn", True),
        ("corpora/x.py", "def f():\n    import torch", "torch", False),
        ("corpora/x.py", "class A:\n    import torch", "torch", True),
        ("corpora/x.py", "if TYPE_CHECKING:\n    from torch import Tensor", "torch", False),
        ("corpora/x.py", "try:\n    import torch\nexcept ImportError:\n    pass", "torch", True),
        ("corpora/x.py", "from esckit import judging", "esckit.judging", True),
        ("corpora/x.py", "from esckit.chat_models.protocol import ask", "esckit.chat_models.protocol", True),
        ("corpora/x.py", "from . import esconv", "esckit.corpora", True),
        ("corpora/x.py", "from .. import judging", "esckit.judging", True),
        ("corpora/starter/x.py", "from ...judging import chat", "esckit.judging", True),
        ("cli.py", "from .judging import chat", "esckit.judging", True),
    ],
)
def test_the_reader_of_imports_reads(file: str, text: str, module: str, at_once: bool, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert [(found.module, found.at_once) for found in imports_of(path, tmp_path)] == [(module, at_once)]
