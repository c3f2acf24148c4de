"""Any causal model as a supporter, as it is: whole, a LoRA folder, behind a URL; under a planner, or none."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from esckit.chat_models.ledger import Ledger
from esckit.conversation import Turn
from esckit.decoding import Decoding
from esckit.errors import EsckitError, ModelError
from esckit.language_models.backbone import hash_weights, load_backbone
from esckit.language_models.generation import generate, score_strategies
from esckit.measures import read_predictions
from esckit.planning.fitting import train_planner
from esckit.rendering import OwnLayout, Renderer, supporter_turns, to_messages
from esckit.strategy import ESCONV
from esckit.supporters import Supporter, predict
from esckit.supporters.chat import Chat
from esckit.supporters.export_model import export_model
from esckit.supporters.own_model import OwnOptions, open_supporter
from esckit.supporters.proposing import TurnRequest
from esckit.supporters.supporter_folder import save_supporter
from tests.server import KEY, MODEL, Behaviour, ChatServer
from tests.tiny import TINY_PLANNER, save_base, starter_dialogues, tiny_encoder, tiny_model, with_lora

TALKS = starter_dialogues(2, 6)
SHORT = Decoding(greedy=True, max_new_tokens=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("own") / "base")


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planner")
    train_planner(starter_dialogues(4, 8), tiny_encoder(folder / "encoder"), ESCONV, TINY_PLANNER, folder / "planner")
    return folder / "planner"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer() as running:
        yield running


def wanted(**more: Any) -> list[TurnRequest]:
    (talk, *_) = TALKS
    return [TurnRequest(talk, turn.parent, seed=3, wording=SHORT, **more) for turn in supporter_turns(talk)]


def test_a_whole_model_chooses_by_the_probabilities_of_its_labels_and_writes_on(base: Path) -> None:
    form = "{strategy}: {text}"
    supporter = open_supporter(base, system="One of {strategies}.", strategy_form=form)
    backbone = load_backbone(str(base))
    layout = OwnLayout("One of {strategies}.", form)
    renderer = Renderer(backbone.tokenizer, ESCONV, max_context=backbone.max_context, layout=layout)
    turns = supporter_turns(TALKS[0])
    scores = score_strategies(backbone.model, renderer, TALKS[0], turns, {}, "coupled")
    for request, turn, row, (found,) in zip(wanted(), turns, scores, supporter.propose(wanted()), strict=True):
        assert found.strategy == ESCONV.labels[int(np.argmax(row))]
        assert found.strategy_probabilities is not None
        assert list(found.strategy_probabilities.values()) == pytest.approx(list(np.exp(row)), abs=1e-6)
        chosen = asked_at(turn, found.strategy)
        prompt = renderer.prompt(TALKS[0], chosen, "coupled", request.shown, SHORT.max_new_tokens)
        (reply,) = generate(backbone.model, backbone.tokenizer, [prompt], renderer.end_of_turn, SHORT, [0])
        assert found.text == reply.text
    assert (supporter.past_strategies, supporter.past_in_chat, supporter.strategies) == ("gold", "predicted", None)
    (given,) = supporter.propose([wanted(strategy="Others")[0]])[0]
    assert given.strategy == "Others"


def asked_at(turn: Turn, strategy: str | None) -> Turn:
    """The place of a turn, with the strategy of a reply that is wanted there."""
    return replace(turn, id="next", text=None, strategy=strategy)


def test_a_model_that_knows_of_no_strategies_only_answers(base: Path, tmp_path: Path) -> None:
    supporter = open_supporter(base, strategy_form="none")
    for (found,) in supporter.propose(wanted()):
        assert (found.strategy, found.strategy_probabilities) == (None, None)
        assert found.text
    assert supporter.propose(wanted(n=2))[0][1].strategy is None
    for refused in (wanted(strategy="Others"), wanted(excluded=frozenset({"Others"}))):
        with pytest.raises(ModelError, match=r"names no strategy before it words a reply.*give it a planner"):
            supporter.propose(refused)
    with pytest.raises(ModelError, match="give it a planner"):
        supporter.plan("Hello")
    chat = Chat(supporter, "own", wording=SHORT)
    chat.say("I failed my exam.")
    assert chat.reply().turn.strategy is None
    assert predict(supporter, TALKS, tmp_path / "out.jsonl", wording=SHORT) == 6
    assert {row.predicted_strategy for row in read_predictions(tmp_path / "out.jsonl")} == {None}


@pytest.mark.parametrize("how", [{}, {"strategy_form": "[{strategy}] {text}"}, {"system": "Use {strategy}."}])
def test_a_planner_chooses_and_the_model_is_told(base: Path, planner: Path, how: dict[str, Any]) -> None:
    from esckit.planning.encoder_planner import EncoderPlanner

    supporter = open_supporter(base, planner=str(planner), **how)
    turns = supporter_turns(TALKS[0])
    scores = EncoderPlanner.load(planner).score(TALKS[0], turns, {})
    found = [each for (each,) in supporter.propose(wanted())]
    assert [each.strategy for each in found] == [ESCONV.labels[int(place)] for place in scores.argmax(-1)]
    prompts = [
        supporter.generator.renderer.tokenizer.decode(  # type: ignore[union-attr]
            supporter.generator.renderer.prompt(TALKS[0], asked_at(turn, "Information"), "generator", {}, 4)  # type: ignore[union-attr]
        )
        for turn in turns
    ]
    assert all(prompt.endswith("[Information]") == ("strategy_form" in how) for prompt in prompts)
    assert all(("Information." in prompt.split("user")[0]) == ("strategy_form" not in how) for prompt in prompts)
    assert supporter.past_in_chat == "hidden"


def test_the_planner_of_a_supporter_is_taken_too(base: Path, folders: dict[str, Path]) -> None:
    supporter = open_supporter(base, planner=str(folders["decoupled"]))
    theirs = Supporter.load(folders["decoupled"])
    assert [c.strategy for (c,) in supporter.propose(wanted())] == [c.strategy for (c,) in theirs.propose(wanted())]


@pytest.mark.parametrize("given", [False, True])
def test_a_lora_folder_stands_on_the_base_that_it_names_or_that_is_given(
    base: Path, tmp_path: Path, *, given: bool
) -> None:
    adapted = with_lora(tiny_model(), "own", seed=5)
    adapted.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "own/adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "somebody/else" if given else str(base)
    (tmp_path / "own/adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    supporter = open_supporter(tmp_path / "own", base=str(base) if given else None)
    merged = adapted.merge_and_unload()
    assert supporter.card.base_hash == hash_weights(merged, rounded=True)
    plain = open_supporter(base)
    assert supporter.identity != plain.identity
    assert [c.text for (c,) in supporter.propose(wanted())] != [c.text for (c,) in plain.propose(wanted())]


def test_what_esckit_exported_is_told_what_it_was_trained_on(
    folders: dict[str, Path], planner: Path, tmp_path: Path
) -> None:
    export_model(folders["decoupled"], tmp_path / "generator")
    export_model(folders["decoupled"], tmp_path / "planner", "planner")
    export_model(folders["coupled"], tmp_path / "coupled")
    theirs = Supporter.load(folders["decoupled"]).propose(wanted(strategy="Others"))
    ours = open_supporter(tmp_path / "generator", planner=str(planner)).propose(wanted(strategy="Others"))
    assert [each.text for (each,) in ours] == [each.text for (each,) in theirs]
    assert [each.strategy for (each,) in open_supporter(tmp_path / "coupled").propose(wanted())] == [
        each.strategy for (each,) in Supporter.load(folders["coupled"]).propose(wanted())
    ]
    for part, words in (("planner", "was a planner, which writes no replies"), ("generator", "give a planner")):
        with pytest.raises(ModelError, match=words):
            open_supporter(tmp_path / part)


def test_a_base_for_what_is_no_lora_folder_is_refused(base: Path) -> None:
    with pytest.raises(ModelError, match="is no adapter's folder, so it stands on no base: leave the base out"):
        open_supporter(base, base=str(base))


def test_a_model_behind_a_url_is_sent_chat_messages_and_its_text_is_read(server: ChatServer, tmp_path: Path) -> None:
    said = [to_messages(TALKS[0].path(turn.parent), {})[-1].content for turn in supporter_turns(TALKS[0])]
    answers = dict.fromkeys(said, "Strategy: Question\nResponse: And then?")
    server.behaviour = Behaviour(answers=answers)
    how: dict[str, Any] = {"system": "Pick {strategies}.", "strategy_form": "Strategy: {strategy}\nResponse: {text}"}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        supporter = open_supporter(f"remote:{MODEL}", base_url=server.url, ledger=ledger, **how)
        assert predict(supporter, TALKS[:1], tmp_path / "out.jsonl", wording=SHORT) == server.calls
        calls = server.calls
        assert predict(supporter, TALKS[:1], tmp_path / "again.jsonl", wording=SHORT) == calls == server.calls
    rows = read_predictions(tmp_path / "out.jsonl")
    assert {(row.predicted_strategy, row.predicted_text) for row in rows} == {("Question", "And then?")}
    assert {row.raw for row in rows} == {"Strategy: Question\nResponse: And then?"}
    longest = max(server.bodies, key=lambda body: len(body["messages"]))["messages"]
    assert longest[0] == {"role": "system", "content": f"Pick {', '.join(ESCONV.labels)}."}
    assert [message["role"] for message in longest[1:]] == ["user", "assistant"] * (len(longest) // 2 - 1) + ["user"]
    past = next(turn for turn in TALKS[0].trunk if turn.speaker == "supporter")
    assert longest[2]["content"] == f"Strategy: {past.strategy}\nResponse: {past.text}"


def test_a_model_behind_a_url_is_told_the_planned_strategy(server: ChatServer, planner: Path) -> None:
    supporter = open_supporter(f"remote:{MODEL}", base_url=server.url, planner=str(planner))
    (found,) = supporter.propose(wanted()[:1])[0]
    assert found.strategy
    assert found.strategy_probabilities
    assert found.text
    (body,) = server.bodies
    assert f"The strategy of your next reply: {found.strategy}." in body["messages"][0]["content"]
    (given,) = supporter.propose([wanted(strategy="Others")[0]])[0]
    assert given.strategy == "Others"
    assert "next reply: Others." in server.bodies[-1]["messages"][0]["content"]


def test_a_notebook_s_running_loop_is_no_obstacle(server: ChatServer) -> None:
    supporter = open_supporter(f"remote:{MODEL}", base_url=server.url, strategy_form="none")

    async def cell() -> list[str | None]:
        return [supporter.reply("Hello").text, supporter.propose(wanted()[:1])[0][0].text]

    assert all(str(text).startswith("I hear you") for text in asyncio.run(cell()))


def test_a_reply_that_does_not_come_is_recorded_and_a_person_is_told(server: ChatServer) -> None:
    server.behaviour = Behaviour(always=(400, {"message": "no", "code": "content_filter", "type": "x"}))
    supporter = open_supporter(f"remote:{MODEL}", base_url=server.url, strategy_form="none", system="")
    (found,) = supporter.propose(wanted()[:1])[0]
    assert found.text is None
    assert found.extra["state"] in ("refused", "failed")
    assert found.extra["why"]
    assert server.bodies[0]["messages"][0]["role"] == "user"
    chat = Chat(supporter, "own", wording=SHORT)
    chat.say("Hello")
    with pytest.raises(EsckitError, match="gave no reply"):
        chat.reply()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"system": "Use {strategy}."}, "nobody chooses it before: give a planner, or write {strategies}"),
        ({"planner": "p", "system": "Hi", "strategy_form": "none"}, "has to stand in the system text, as {strategy}"),
        ({"model": "remote:m", "planner": "p", "system": "Hi"}, "a model behind a URL is told it in no other way"),
        ({"model": "remote:m", "base": "b"}, "base is of a LoRA folder"),
        ({"base_url": "http://x/v1"}, "base_url is for a model behind a URL"),
        ({"system": "{situation}"}, "the system text has the slot {situation}, which nothing fills"),
        ({"strategy_form": "{text}"}, "must have {strategy} and then {text}"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(options: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        OwnOptions(**{"model": "smollm2", **options})
    assert words in str(error.value)


def test_a_folder_keeps_a_model_as_it_is_with_its_planner(base: Path, planner: Path, tmp_path: Path) -> None:
    made = open_supporter(base, planner=str(planner), system="Use {strategy}.")
    save_supporter(tmp_path / "kept", made.card, {"planner": planner})
    kept = Supporter.load(tmp_path / "kept")
    assert kept.identity == made.identity
    assert kept.propose(wanted()) == made.propose(wanted())
    moved = shutil.copytree(base, tmp_path / "base")
    other = open_supporter(moved, system="Hi {strategies}")
    save_supporter(tmp_path / "other", other.card, {})
    save_base(moved, seed=9)
    with pytest.raises(ModelError, match=r"are not those that .* was made with: restore them"):
        Supporter.load(tmp_path / "other")


def test_other_words_are_another_identity(base: Path) -> None:
    some = [open_supporter(base, system=text).identity for text in ("", "Hi", "Ho {strategies}")]
    assert len({json.dumps(each) for each in some}) == 3


def test_a_planner_of_other_strategies_is_refused(base: Path, planner: Path) -> None:
    with pytest.raises(ModelError, match="knows the strategies esconv and the dialogues have cso"):
        open_supporter(base, planner=str(planner), taxonomy="cso")


def test_a_supporter_takes_no_words_of_others(folders: dict[str, Path]) -> None:
    assert open_supporter(folders["coupled"]).card.kind == "coupled"
    with pytest.raises(ModelError, match=r"is a supporter, whose parts and words .*: leave out system"):
        open_supporter(folders["coupled"], system="Hi")
