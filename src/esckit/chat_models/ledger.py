"""The ledger: every call to a chat model and every item's final state, in one SQLite file.

An item's row is committed in the transaction of the call that settles it, so a process that is killed loses the calls
in flight and nothing else. (WAL with ``synchronous=NORMAL``: a power cut may lose the last rows, never the file.) One
process has a ledger at a time; the operating system lets go of it when the process ends, however it ends.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel

from esckit.chat_models.json_replies import parse_reply
from esckit.chat_models.protocol import Usage
from esckit.errors import LedgerError

LEDGER: Final = "ledger.sqlite"
"""Its name in a run's folder, and beside a command's output."""

FORMAT: Final = 2
State = Literal["done", "unparsed", "refused", "failed"]
REPLY: Final = "reply"
DRAFT: Final = "draft"
"""What became of a call: a reply that settled its item, a reply that is to be repaired, or a failure's kind."""

Schema = TypeVar("Schema", bound=BaseModel)
_AT_ONCE: Final = 500  # keys of a query
_APPLICATION: Final = 0x4553434C  # in the file's header, so that no other database is taken for a ledger
_TABLES: Final = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, step TEXT NOT NULL, model TEXT NOT NULL, items INTEGER NOT NULL,
    started TEXT NOT NULL, ended TEXT, stopped TEXT, usage TEXT);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, key TEXT NOT NULL, result TEXT NOT NULL,
    text TEXT NOT NULL, prompt INTEGER, completion INTEGER, cached INTEGER,
    charged INTEGER NOT NULL, seconds REAL NOT NULL, at TEXT NOT NULL);
CREATE TABLE items (
    key TEXT PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, state TEXT NOT NULL,
    text TEXT NOT NULL, finish TEXT, failure TEXT, detail TEXT NOT NULL,
    left_out TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX drafts ON calls (key) WHERE result = 'draft';
"""
_FROM_1: Final = "ALTER TABLE items ADD COLUMN left_out TEXT NOT NULL DEFAULT ''"


@dataclass(frozen=True)
class Outcome:
    """An item's final state."""

    # ``done``; ``unparsed`` where the reply is not what was asked for, after one repair turn; ``refused``; ``failed``
    # where no reply could be had
    state: State
    text: str = ""  # the last reply as it came
    finish: str | None = None  # how it ended, stop or length; None without a reply
    failure: str | None = None  # of a failed item, its class ("timeout")
    detail: str = ""  # what was wrong
    left_out: str = ""  # settings that the model was not told, with commas between them

    def value(self, schema: type[Schema]) -> Schema:
        """The object of a done item that was asked with this schema.

        Raises:
            ReplyError: the item is not done, or was asked with another schema.
        """
        return parse_reply(self.text if self.state == "done" else "", schema)


class Call(NamedTuple):
    """One call, as it is recorded."""

    key: str  # its item's
    result: str  # `REPLY`, `DRAFT`, or a failure's kind
    text: str  # the reply, or what was seen of the failure
    usage: Usage | None  # None where the model did not say
    charged: int  # tokens that count against a budget; where a reply was lost, the most that it can have cost
    seconds: float  # from request to result


class Spent(NamedTuple):
    """Calls, and their tokens as a budget counts them."""

    calls: int
    tokens: int


@dataclass
class UsageSummary:
    """What asking cost: items by state, calls, tokens, wall time."""

    items: int = 0  # different ones; those that were on record before are ``recorded``
    recorded: int = 0
    calls: int = 0  # all; of them ``retries`` after a failure and ``repairs`` of broken replies
    retries: int = 0
    repairs: int = 0
    prompt: int = 0  # tokens as the model counted them
    completion: int = 0
    cached: int = 0
    cut: int = 0  # items without a usable reply because the limit of tokens came first
    states: Counter[str] = field(default_factory=Counter)  # items settled by this run
    failures: Counter[str] = field(default_factory=Counter)  # calls without a reply, by kind
    seconds: float = 0.0  # wall time

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items())) or "none asked"
        failures = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
        return (
            f"{self.items} items ({self.recorded} on record; {states}); {self.calls} calls ({self.retries} retries, "
            f"{self.repairs} repairs{'; ' if failures else ''}{failures}); {self.prompt} prompt tokens "
            f"({self.cached} cached) and {self.completion} completion tokens; {self.seconds:.1f} s{self._advice}"
        )

    @property
    def _advice(self) -> str:
        if not self.cut:
            return ""
        return (
            f"; {self.cut} replies were cut at the limit, a thought counts, before they said what was asked: raise "
            "--max-new-tokens (in a recipe decoding.max_new_tokens)"
        )


class Ledger:
    """An open ledger, made where there is none; close it, or use it in a ``with`` block.

    Raises:
        LedgerError: another process has it, a newer esckit wrote it, it is no ledger, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Threads that share it take turns: whoever asks in their name holds a lock.
            self._database = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        with self._told():
            # With exclusive locking this connection keeps the lock until it closes or its process is gone.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            found = self._pragma("application_id"), self._pragma("user_version")
            empty = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if not empty:
                self._check_format(*found)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                if empty:
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._database.execute(statement)
                elif found[1] == 1:
                    self._database.execute(_FROM_1)
                self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._database.execute(f"PRAGMA user_version = {FORMAT}")

    def _check_format(self, application: int, version: int) -> None:
        if application != _APPLICATION:
            raise LedgerError(f"{self.path} is another program's database: give the path of a ledger or of a new file.")
        if version > FORMAT:
            raise LedgerError(
                f"{self.path} is a ledger of format {version} and this esckit reads {FORMAT}: "
                "install the esckit that wrote it."
            )

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:  # a full disk has ended it already
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as one sentence each."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                message = f"another process is using the ledger {self.path}: wait until it ends, or give another file."
            elif name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
                message = f"{self.path} is no ledger, or a broken one: give the path of a ledger or of a new file."
            else:
                message = (
                    f"the ledger {self.path} cannot be used ({error}): free space or mend its folder, then run again."
                )
            raise LedgerError(message) from error
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be made ({error.strerror}): give another place.") from error

    def begin(self, step: str, model: Any, items: int) -> int:
        """Record that asking begins, with so many items at first; return the run's number."""
        with self._told(), self._transaction():
            row = (step, json.dumps(model, sort_keys=True), items, _now())
            cursor = self._database.execute("INSERT INTO runs (step, model, items, started) VALUES (?, ?, ?, ?)", row)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def end(self, run: int, stopped: str | None, usage: UsageSummary) -> None:
        """Record how a run ended: None where every item is settled, else why not."""
        row = (_now(), stopped, usage.items - usage.recorded, json.dumps(vars(usage)), run)
        with self._told(), self._transaction():
            self._database.execute("UPDATE runs SET ended = ?, stopped = ?, items = ?, usage = ? WHERE id = ?", row)

    def record(self, run: int, call: Call, outcome: Outcome | None) -> None:
        """Commit one call, and with it the final state of its item where it has one now."""
        usage = call.usage or (None, None, None)
        row = (run, call.key, call.result, call.text, *usage, call.charged, round(call.seconds, 4), _now())
        with self._told(), self._transaction():
            self._database.execute(f"INSERT INTO calls VALUES (NULL{', ?' * len(row)})", row)
            if outcome is not None:
                settled = (call.key, run, *astuple(outcome))
                self._database.execute(f"INSERT INTO items VALUES (?{', ?' * (len(settled) - 1)})", settled)

    def outcomes(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """The final states of those items that have one, by key."""
        columns = "key, state, text, finish, failure, detail, left_out"
        return {key: Outcome(*rest) for key, *rest in self._rows(f"SELECT {columns} FROM items WHERE key IN", keys)}

    def drafts(self, keys: Iterable[str]) -> dict[str, str]:
        """Broken replies that wait for their repair turn, by key."""
        rows = self._rows(f"SELECT key, text FROM calls WHERE result = '{DRAFT}' AND key IN", keys)
        return {key: text for key, text in rows}  # noqa: C416

    def _rows(self, select: str, keys: Iterable[str]) -> Iterator[Sequence[Any]]:
        every = list(keys)
        with self._told():
            for some in (every[start : start + _AT_ONCE] for start in range(0, len(every), _AT_ONCE)):
                yield from self._database.execute(f"{select} ({', '.join('?' * len(some))})", some)

    def spent(self, step: str) -> Spent:
        """What all runs of a step's role have used: of all steps whose names begin alike, up to the first ``/``."""
        role = f"{step.split('/')[0]}/"
        whose = "FROM calls JOIN runs ON runs.id = calls.run WHERE substr(runs.step || '/', 1, ?) = ?"
        with self._told():
            found = self._database.execute(f"SELECT count(*), coalesce(sum(charged), 0) {whose}", (len(role), role))
            return Spent(*found.fetchone())

    def used(self, keys: Iterable[str]) -> Usage:
        """The tokens of all calls about these items, as the model counted them."""
        rows = self._rows("SELECT prompt, completion, cached FROM calls WHERE key IN", keys)
        sums = [sum(filter(None, column)) for column in zip(*rows, strict=True)]
        return Usage(*sums) if sums else Usage(0, 0)

    def forget_failed(self) -> int:
        """Let failed items be asked again; return how many. Their calls stay on record."""
        with self._told(), self._transaction():
            return self._database.execute("DELETE FROM items WHERE state = 'failed'").rowcount

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
