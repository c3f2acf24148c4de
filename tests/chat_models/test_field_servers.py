"""Commands against servers as they are met in the field (`tests.field_server`), with our talks and the field's."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

pytest.importorskip("openai", reason="needs esckit[remote]")

from esckit.chat_models.ledger import LEDGER
from esckit.chat_models.pacing import Pace
from esckit.conversation import Conversation, Turn, read_conversations, write_conversations
from esckit.files import write_jsonl
from esckit.measures import Prediction, prediction_to_json, read_predictions
from tests import field_server as field
from tests.cli.test_entry import call
from tests.field import field as field_case
from tests.field_server import FieldServer, Server, refused
from tests.judging.judged import predicted

Command = Literal["J", "B", "D", "A"]
Output = pytest.CaptureFixture[str]


class Material(NamedTuple):
    """Dialogues, two files of predicted replies, and how many turns they have; of how many a filter sees its word."""

    talks: Path
    replies: tuple[Path, Path]
    turns: int
    filtered: Mapping[Command, int]


def _ours(folder: Path) -> Material:
    """Three short talks; the last turn of the second has the word that filters know."""
    texts = ["my cat is gone", "since monday", "i looked at the harbour"]
    talks = []
    for name, last in (("a", "under the bridge"), ("b", texts[2]), ("c", "in the yard")):
        turns: list[Turn] = []
        for place, text in enumerate((f"{texts[0]}, {name}", texts[1], last)):
            parent = turns[-1].id if turns else None
            turns.append(Turn(f"{2 * place}", parent, "seeker", text, source="human"))
            said: Any = {"strategy": "Question", "source": "human"}
            turns.append(Turn(f"{2 * place + 1}", turns[-1].id, "supporter", f"How is {place} of {name}?", **said))
        talks.append(Conversation(id=f"talk-{name}", turns=turns, taxonomy="esconv"))
    write_conversations(folder / "talks.jsonl", talks)
    paths = folder / "replies-a.jsonl", folder / "replies-b.jsonl"
    for path, text in zip(paths, ("How do you feel?", "You could write it down."), strict=True):
        rows = predicted(talks, lambda conversation, turn, text=text: text)  # type: ignore[misc]
        write_jsonl(path, map(prediction_to_json, rows))
    return Material(folder / "talks.jsonl", paths, 9, {"B": 1, "D": 1, "A": 1})


@pytest.fixture(params=["ours", pytest.param("the field's", marks=pytest.mark.slow)])
def material(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    quick = Pace(first_wait=0.01, longest_wait=0.05)
    monkeypatch.setattr("esckit.chat_models.opening.Pace", lambda **given: Pace(**{**vars(quick), **given}))
    if request.param == "ours":
        return _ours(tmp_path)
    folder = field_case("talks.jsonl").parent
    replies = folder / "replies-a.jsonl", folder / "replies-b.jsonl"
    return Material(folder / "talks.jsonl", replies, 20, {"B": 4, "D": 4, "A": 5, "J": 8})


class Asked(NamedTuple):
    """What came of a command."""

    states: dict[str, int]
    calls: int
    new: int  # calls of this command
    code: int


def run(
    command: Command, server: FieldServer, material: Material, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> Asked:
    """Run a command with a ledger of its own below ``out``."""
    place = out / command
    place.mkdir(parents=True, exist_ok=True)
    where = ["--base-url", server.url, *more]
    talks = material.talks
    arguments: dict[Command, list[Any]] = {
        "J": ["judge", *material.replies, place, "--conversations", talks, "--turns", "4", "--reference", "hidden"],
        "B": ["baseline", "base", talks, place / "out.jsonl"],
        "D": ["baseline", "base-decoupled", talks, place / "out.jsonl"],
        "A": ["annotate", talks, place / "out.jsonl"],
    }
    before = server.calls
    code = call(monkeypatch, *arguments[command], "--model", "remote:m", *where)
    with closing(sqlite3.connect(place / LEDGER)) as database:
        states = dict(database.execute("SELECT state, count(*) FROM items GROUP BY state").fetchall())
        (calls,) = database.execute("SELECT count(*) FROM calls").fetchone()
    return Asked(states, calls, server.calls - before, code)


def questions(command: Command, material: Material) -> int:
    return {"J": 32, "B": material.turns, "D": 2 * material.turns, "A": material.turns}[command]


def rows(command: Command, out: Path) -> list[Prediction]:
    return read_predictions(out / command / "out.jsonl")


# -------------------------------------------------------------------------------------------- settings that are refused

REFUSALS: list[tuple[Server, Command, set[str]]] = [
    (field.limit, "J", set()),
    (field.limit, "B", set()),
    (field.limit, "A", set()),
    (field.limit_no_param, "J", set()),
    (field.limit_no_param, "B", set()),
    (field.limit_no_param, "A", set()),
    (field.fixed_temperature, "J", {"temperature"}),
    (field.fixed_temperature, "B", {"temperature"}),
    (field.fixed_temperature, "A", {"temperature"}),
    (field.fixed_all, "J", {"temperature"}),
    (field.fixed_all, "B", {"temperature", "top_p"}),
    (field.fixed_all, "A", {"temperature"}),
    (field.fixed_temperature_words, "J", {"temperature"}),
    (field.fixed_temperature_words, "B", {"temperature"}),
    (field.fixed_temperature_words, "A", {"temperature"}),
    (field.no_json_schema, "J", {"json_schema"}),
    (field.no_json_schema, "A", {"json_schema"}),
    (field.no_json_schema, "B", set()),
    (field.no_json_at_all, "J", {"response_format"}),
    (field.no_json_at_all, "A", {"response_format"}),
    (field.either_or, "B", {"top_p"}),
    (field.either_or, "J", set()),
    (field.string_enums, "J", {"json_schema"}),
    (field.string_enums, "A", set()),
    (field.no_system, "J", {"system"}),
    (field.no_system, "D", {"system"}),
]


@pytest.mark.parametrize(
    ("server", "command", "left_out"), REFUSALS, ids=[f"{each[0].__name__}-{each[1]}" for each in REFUSALS]
)
def test_a_setting_that_is_refused_is_said_in_another_way(
    server: Server,
    command: Command,
    left_out: set[str],
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    with FieldServer(server) as running:
        found = run(command, running, material, tmp_path, monkeypatch)
        told = capsys.readouterr().err
        again = run(command, running, material, tmp_path, monkeypatch)
    assert (found.code, found.states) == (0, {"done": questions(command, material)})
    assert running.well == questions(command, material)
    assert (again.new, again.states) == (0, found.states)
    refusals = [line for line in told.splitlines() if "refused a setting" in line]
    assert len(refusals) == len(set(refusals)), "each is told once"
    assert len(refusals) >= len(left_out - {"response_format"})
    recorded = (
        json.loads((tmp_path / "J/judging.json").read_text(encoding="utf-8"))["left_out"]
        if command == "J"
        else sorted(left_out)
        if command == "A"
        else sorted({name for row in rows(command, tmp_path) for name in row.extra.get("left_out", [])})
    )
    assert recorded == sorted(left_out)


@pytest.mark.parametrize("server", [field.limit, field.limit_no_param])
def test_one_call_at_a_time_pays_for_one_refusal(
    server: Server, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FieldServer(server) as running:
        found = run("B", running, material, tmp_path, monkeypatch, "--concurrency", "1")
    assert (found.states, found.new) == ({"done": material.turns}, material.turns + 1)


def test_refusals_that_come_late_cost_nothing(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FieldServer(field.LimitLate()) as running:
        found = run("B", running, material, tmp_path, monkeypatch)
    assert (found.code, found.states) == (0, {"done": material.turns})
    assert found.new < 2 * material.turns + 1


@pytest.mark.parametrize("command", ["B", "J"])
def test_a_bad_request_that_names_no_setting_stays_one(
    command: Command, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    with FieldServer(lambda body, before: refused({"message": "The body is not to our liking."})) as running:
        found = run(command, running, material, tmp_path, monkeypatch)
    assert found.code == 2
    assert "every request was refused (HTTP 400: The body is not to our liking)" in capsys.readouterr().err
    assert found.new <= 64


def test_a_server_that_refuses_without_end_is_given_up(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """It goes on naming what is not there any more."""
    complaint = "temperature, top_p, max_tokens and max_completion_tokens are not supported"
    with FieldServer(lambda body, before: refused({"message": complaint})) as running:
        found = run("B", running, material, tmp_path, monkeypatch, "--concurrency", "1")
    assert found.code == 2
    assert found.new < 20
    assert "every request was refused" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize("name", field.FILTERS)
@pytest.mark.parametrize("command", ["J", "B", "A"])
def test_what_a_filter_keeps_back_is_refused_for_good(
    name: str, command: Command, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FieldServer(field.filter_of(field.FILTERS[name])) as running:
        found = run(command, running, material, tmp_path, monkeypatch)
        again = run(command, running, material, tmp_path, monkeypatch)
    whole = questions(command, material)
    refusals = material.filtered.get(command, found.states.get("refused", 0))
    assert found.code == 0
    assert Counter(found.states) == Counter(done=whole - refusals, refused=refusals)
    assert (again.new, again.states) == (0, found.states)


# ------------------------------------------------------------------------------------------------------------- thoughts


@pytest.mark.parametrize("server", [field.thought_closed_only, field.thought_apart, field.thought_in_parts])
@pytest.mark.parametrize("command", ["J", "B", "D", "A"])
def test_a_thought_is_no_part_of_a_reply(
    server: Server, command: Command, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FieldServer(server) as running:
        found = run(command, running, material, tmp_path, monkeypatch)
    assert (found.states, found.new) == ({"done": questions(command, material)}, questions(command, material))
    if command in ("B", "D"):
        said = {(row.predicted_strategy, row.predicted_text) for row in rows(command, tmp_path)}
        assert said == {("Question", field.SAID)}
    if command == "J":
        lines = (tmp_path / "J/judgements.jsonl").read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["explanation"] for line in lines} == {"It says so."}


@pytest.mark.parametrize("server", [field.thought_cut, field.thought_apart_cut])
@pytest.mark.parametrize("command", ["J", "B", "D", "A"])
def test_a_thought_that_was_cut_is_no_reply(
    server: Server,
    command: Command,
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    with FieldServer(server) as running:
        found = run(command, running, material, tmp_path, monkeypatch, "--max-new-tokens", "900")
    whole = material.turns if command == "D" else questions(command, material)  # of a plan that is cut no words follow
    assert (found.states, found.new) == ({"unparsed": whole}, whole)
    assert {body["max_tokens"] for body in running.bodies} == {900}
    said = capsys.readouterr()
    assert f"{whole} replies were cut at the limit" in said.out + said.err
    assert "raise --max-new-tokens" in said.out + said.err
    if command in ("B", "D"):
        assert {(row.predicted_strategy, row.predicted_text) for row in rows(command, tmp_path)} == {(None, None)}
        assert {row.extra["state"] for row in rows(command, tmp_path)} == {"unparsed"}


# ------------------------------------------------------------------------------------------------- errors of status 200


@pytest.mark.parametrize("code", [429, "429", "rate_limit_exceeded"])
def test_an_error_of_status_200_is_that_error(
    code: Any, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FieldServer(field.error_in_200(code)) as running:
        found = run("B", running, material, tmp_path, monkeypatch)
    assert (found.states, found.new) == ({"failed": material.turns}, 6 * material.turns)
    with closing(sqlite3.connect(tmp_path / "B" / LEDGER)) as database:
        calls = database.execute("SELECT DISTINCT result, text, charged FROM calls").fetchall()
    assert calls == [("http_429", "HTTP 429: Provider returned error; rate-limited upstream", 0)]


@pytest.mark.parametrize("command", ["J", "B", "A"])
def test_an_error_of_status_200_that_passes(
    command: Command, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FieldServer(field.error_in_200_passing) as running:
        found = run(command, running, material, tmp_path, monkeypatch)
    whole = questions(command, material)
    assert (found.states, found.new) == ({"done": whole}, 3 * whole)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (402, "the quota at"),
        ("insufficient_quota", "the quota at"),
        (401, "refused the key"),
        ("invalid_api_key", "refused the key"),
        (403, "refused the key"),
        (404, "has no model 'm'"),
        ("model_not_found", "has no model 'm'"),
        (400, "every request was refused (HTTP 400: Provider returned error; rate-limited upstream)"),
    ],
)
def test_an_error_of_status_200_stops_a_run_as_its_status_would(
    code: Any, sentence: str, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    with FieldServer(field.error_in_200(code)) as running:
        found = run("B", running, material, tmp_path, monkeypatch)
    assert found.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "shown"),
    [(field.web_page, "a web page, 'Welcome to the console'"), (field.other_json, '{"result": "Hello!", "took": 3}')],
)
def test_what_will_never_be_a_reply_is_not_paid_for_six_times(
    server: Server, shown: str, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    with FieldServer(server) as running:
        found = run("B", running, material, tmp_path, monkeypatch)
    told = capsys.readouterr().err.splitlines()[-1]
    assert (found.code, found.states) == (2, {})
    assert found.new <= 2 * material.turns
    assert shown in told
    assert "base URL should end in /v1" in told
    assert read_conversations(material.talks)
