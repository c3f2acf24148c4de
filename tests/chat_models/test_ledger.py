"""The ledger's file: who may open it, what it holds, what it says when it cannot be used."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from esckit.chat_models.json_replies import ReplyError
from esckit.chat_models.ledger import DRAFT, FORMAT, REPLY, Call, Ledger, Outcome, Spent, UsageSummary
from esckit.chat_models.protocol import Usage
from esckit.errors import LedgerError
from tests.chat_models.questions import Judgement

GOOD = '{"score": 2, "reason": "x"}'


def call(key: str, result: str = REPLY, text: str = "t", charged: int = 30) -> Call:
    return Call(key, result, text, Usage(20, 10), charged, 0.5)


def test_what_is_recorded_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    outcomes = {
        "a": Outcome("done", GOOD, "stop"),
        "b": Outcome("unparsed", "three", "length", detail="it holds no JSON object"),
        "c": Outcome("refused", "no", "refused"),
        "d": Outcome("failed", failure="timeout", detail="no reply within 1 s"),
    }
    with Ledger(tmp_path / "deep/ledger.sqlite") as ledger:
        run = ledger.begin("judge/1", {"url": "u"}, 5)
        for key, outcome in outcomes.items():
            ledger.record(run, call(key), outcome)
        ledger.record(run, call("e", DRAFT, "broken"), None)
    with Ledger(tmp_path / "deep/ledger.sqlite") as ledger:
        assert ledger.outcomes([*"abcdef"]) == outcomes
        assert ledger.outcomes(["b"]) == {"b": outcomes["b"]}
        assert ledger.drafts([*"abcdef"]) == {"e": "broken"}
        assert ledger.spent("judge/1") == Spent(5, 150)


def test_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    keys = [f"{number:05}" for number in range(1700)]
    with Ledger(tmp_path / "ledger") as ledger:
        run = ledger.begin("s", "m", 1)
        for key in keys[::17]:
            ledger.record(run, call(key), Outcome("done"))
        assert list(ledger.outcomes(keys)) == keys[::17]


def test_only_a_done_item_has_a_value() -> None:
    assert Outcome("done", GOOD).value(Judgement) == Judgement(score=2, reason="x")
    with pytest.raises(ReplyError):
        Outcome("unparsed", GOOD).value(Judgement)


def test_a_call_and_its_items_state_are_one_transaction(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        run = ledger.begin("s", "m", 1)
        ledger.record(run, call("a"), Outcome("done"))
        with pytest.raises(LedgerError):
            ledger.record(run, call("a"), Outcome("done"))  # an item is settled once
        assert ledger.spent("s").calls == 1


def test_runs_say_how_they_ended(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        for stopped in (None, "budget_calls"):
            usage = UsageSummary(items=1)
            usage.states["done"] += 1
            ledger.end(ledger.begin("s", {"weights": "0"}, 1), stopped, usage)
        ledger.begin("s", {"weights": "0"}, 1)
    with closing(sqlite3.connect(tmp_path / "ledger")) as database:
        rows = database.execute("SELECT model, stopped, ended IS NULL, usage FROM runs").fetchall()
    assert [row[:3] for row in rows] == [
        ('{"weights": "0"}', None, 0),
        ('{"weights": "0"}', "budget_calls", 0),
        ('{"weights": "0"}', None, 1),
    ]
    assert '"states": {"done": 1}' in rows[0][3]


def test_failed_items_can_be_asked_again_and_only_they(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        run = ledger.begin("s", "m", 2)
        ledger.record(run, call("a"), Outcome("failed", failure="timeout"))
        ledger.record(run, call("b"), Outcome("refused"))
        assert ledger.forget_failed() == 1
        assert list(ledger.outcomes("ab")) == ["b"]
        assert ledger.spent("s").calls == 2


HOLD = """
import sys, time
from pathlib import Path
from esckit.chat_models.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("open", flush=True)
time.sleep(60)
"""


def test_the_second_process_is_told_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(LedgerError) as error:
            Ledger(path)
        os.kill(holder.pid, signal.SIGKILL)
    assert str(error.value) == (
        f"another process is using the ledger {path}: wait until it ends, or give another file."
    )
    Ledger(path).close()


def test_two_in_one_process_are_told_apart_too(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"), pytest.raises(LedgerError, match="another process is using"):
        Ledger(tmp_path / "ledger")


def test_a_newer_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = path.read_bytes()
    with pytest.raises(LedgerError) as error:
        Ledger(path)
    assert str(error.value) == (
        f"{path} is a ledger of format {FORMAT + 1} and this esckit reads {FORMAT}: install the esckit that wrote it."
    )
    assert path.read_bytes() == before


def test_a_ledger_of_format_1_is_read_and_goes_on(tmp_path: Path) -> None:
    """It had no column for settings that were left out."""
    path = tmp_path / "ledger"
    call = Call("one", REPLY, "Yes.", None, 3, 0.1)
    with Ledger(path) as ledger:
        ledger.record(ledger.begin("judge/1", "m", 1), call, Outcome("done", "Yes.", "stop"))
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE items DROP COLUMN left_out")
        database.execute("PRAGMA user_version = 1")
        database.commit()
    for _ in range(2):
        with Ledger(path) as ledger:
            assert ledger.outcomes(["one"]) == {"one": Outcome("done", "Yes.", "stop")}
    with Ledger(path) as ledger:
        found = Outcome("done", "No.", "stop", left_out="top_p")
        ledger.record(ledger.begin("judge/1", "m", 1), call._replace(key="two"), found)
        assert ledger.outcomes(["one", "two"])["two"] == found


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE cookies (name)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"is another program's database: give the path of a ledger or of a new file"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and they are long enough to be taken for a header of sqlite" * 20)
    with pytest.raises(LedgerError, match="is no ledger, or a broken one"):
        Ledger(path)
    assert path.read_text().startswith("these")


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/ledger", tmp_path):
        with pytest.raises(LedgerError) as error:
            Ledger(path)
        assert str(path) in str(error.value)


def test_a_full_disk_is_told_and_what_was_recorded_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        run = ledger.begin("s", "m", 2)
        ledger.record(run, call("a"), Outcome("done", "kept"))
        pages = ledger._pragma("page_count")
        ledger._database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says that the disk is full
        with pytest.raises(LedgerError, match=r"cannot be used \(database or disk is full\): free space"):
            ledger.record(run, call("b", text="x" * 1_000_000), Outcome("done"))
    with Ledger(tmp_path / "ledger") as ledger:
        assert ledger.outcomes("ab") == {"a": Outcome("done", "kept")}
