"""A round over some dialogues, with a policy and a refiner by rule: trees, records, budgets, stops, faults."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.chat_models import opening
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatReply, Usage
from esckit.conversation import Conversation, Preference, mined_id, read_conversations
from esckit.errors import ChatError
from esckit.mining.self_refinement.filters import FILTERS
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.mining.self_refinement.pairing import REPLACEABLE
from esckit.mining.self_refinement.run import REFINEMENT, Models, refine_dialogues
from esckit.supporters.proposing import TurnRequest
from tests.chat_models.scripted import ScriptedModel
from tests.mining.self_refinement.players import SEEN, Drafts, draft_in, judge, refinement, refiner
from tests.server import CALL_FAULTS, FAULTY, KEY, MODEL, ChatServer
from tests.tiny import talk

BARE: Final = {"skip_first": 0, "skip_last": 0, "encoder": None}
NO_FAULT: Final = dict.fromkeys(FILTERS, 0)
NOT_REPLACED: Final = dict.fromkeys(REPLACEABLE, 0)


def exam(conversation_id: str = "exam") -> Conversation:
    """Three replies of people: 1, 3 and 5."""
    return talk(
        ("seeker", "I failed my exam."),
        ("supporter", "That must hurt.", "Reflection of feelings"),
        ("seeker", "It does, so much."),
        ("supporter", "What went wrong there?", "Question"),
        ("seeker", "I was ill."),
        ("supporter", "You can ask for another date.", "Providing Suggestions"),
        conversation_id=conversation_id,
    )


def advice(request: TurnRequest) -> tuple[str, str]:
    """The same advice, and where it is given."""
    return "Providing Suggestions", f"Study harder for it, number {request.parent}."


def kinder(draft: str) -> str:
    return f"It hurts now, and {draft[-9:].strip()}"


def refine(
    out: Path, dialogues: list[Conversation], drafts: Drafts, model: ChatModel | None, source: str = "sft", **how: Any
) -> dict[str, Any]:
    """A round; options are given by their names, and ``first``, ``acceptor``, ``part``, ``seed`` and ``key``."""
    part, seed, key = how.pop("part", "coupled"), how.pop("seed", 0), how.pop("key", "")
    first, acceptor = how.pop("first", None), how.pop("acceptor", None)
    options = RefinementOptions(**{**BARE, **how})
    models = Models(
        first.policy("first", part) if first else None,
        (lambda: model) if model else None,
        "by rule" if model else "people",
        (lambda: acceptor) if acceptor else None,
    )
    policy, ledger = drafts.policy(source, part), out / "ledger.sqlite"
    return refine_dialogues(dialogues, options, out, policy, models, ledger=ledger, seed=seed, key=key, number=2)


def test_a_dialogue_grows_by_drafts_and_refined_replies(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda question, before: ChatReply(refinement(kinder(draft_in(question)[1]), score=3), "stop", Usage(40, 7))
    )
    told = refine(tmp_path, [exam()], Drafts(advice), model, skip_last=1, encoder="embedded")
    assert json.loads((tmp_path / REFINEMENT).read_text()) == told
    assert told.pop("relevance")["chosen"] > 0
    assert told == {
        "refined_by": "policy",
        "refiner": "by rule",
        "mode": "ours",
        "round": 2,
        "drafted_by": "sft",
        "rejected_from": "current",
        "dialogues": 1,
        "swapped": 0,
        "merged": 0,
        "contexts": 2,
        "filters": {**NO_FAULT, "last turns": 1},
        "replaced": NOT_REPLACED,
        "pairs": 2,
        "from_people": 0,
        "scores": {"1": 0, "2": 0, "3": 2, "4": 0, "5": 0},
        "calls": {"draft": 2, "refine": 2, "accept": 0},
        "words": {"chosen": 6.0, "rejected": 6.0, "longer_chosen": 0.0},
        "tokens": {"prompt": 80, "completion": 14},
    }
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    assert [turn.id for turn in tree.trunk] == [turn.id for turn in exam().turns], "the dialogue is what it was"
    drafts = {turn.extra["draft_of"]: turn for turn in tree.turns if turn.source == "sft"}
    better = {turn.extra["refinement"]["draft"]: turn for turn in tree.turns if turn.source == "refined:by rule"}
    assert [*drafts] == ["1", "3"]
    assert len(tree.turns) == 6 + 2 + 2
    for place, parent in (("1", "0"), ("3", "2")):
        draft = drafts[place]
        assert (draft.parent, draft.strategy, draft.text) == (parent, *advice(TurnRequest(tree, parent, 0)))
        assert draft.extra == {"draft_of": place, "finish": "stop"}
        chosen = better[draft.id]
        assert (chosen.parent, chosen.strategy) == (parent, "Affirmation and Reassurance")
        assert chosen.text == kinder(str(draft.text))
        assert chosen.id == mined_id(parent, "refined:by rule", chosen.strategy, chosen.text)
        assert chosen.extra == {"refinement": {"draft": draft.id, **SEEN, "score": 3}}
        wanted = Preference(chosen.id, draft.id, "turn", "refined", "rule:policy", reasons="self-refinement")
        assert wanted in tree.preferences
    assert len(tree.preferences) == 2
    assert tree.provenance["drafted"] == {"sft": {"contexts": 2}}
    assert tree.provenance["refined"] == {"sft": {"left_out": {"last turns": 1}, "faults": {}}}


def test_what_a_filter_took_stands_in_the_tree(tmp_path: Path) -> None:
    """By the draft's id; the refined reply stands there, too, and is preferred to nothing."""
    model = refiner(lambda draft: f"I think: {draft}" if "0" in draft else kinder(draft))
    told = refine(tmp_path, [exam()], Drafts(advice), model)
    assert told["filters"] == {**NO_FAULT, "longer than the human reply": 1}
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    (draft,) = [turn.id for turn in tree.turns if turn.extra.get("draft_of") == "1"]
    assert tree.provenance["refined"]["sft"]["faults"] == {draft: "longer than the human reply"}
    refined = [turn for turn in tree.turns if turn.source == "refined:by rule"]
    assert len(refined) == 3
    assert len(tree.preferences) == told["pairs"] == 2
    assert all(preference.rejected != draft for preference in tree.preferences)


def test_sides_under_one_strategy_differ_in_the_reply_alone(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda question, before: ChatReply(refinement("It hurts.", strategy="Providing Suggestions"), "stop")
    )
    refine(tmp_path, [exam()], Drafts(advice), model)
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    assert {preference.aspect for preference in tree.preferences} == {"response"}


def test_a_generator_drafts_and_is_refined_under_people_s_strategies(tmp_path: Path) -> None:
    asked: list[str] = []

    def script(question: str, before: int) -> ChatReply:
        asked.append(question)
        return ChatReply(refinement("It hurts.", strategy=None), "stop")

    drafts = Drafts(lambda request: (None, "Study harder."))
    told = refine(tmp_path, [exam()], drafts, ScriptedModel(script), part="generator")
    assert told["pairs"] == 3
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    sides = [(tree.turn(each.chosen), tree.turn(each.rejected), each.aspect) for each in tree.preferences]
    gold = ["Reflection of feelings", "Question", "Providing Suggestions"]
    assert [(one.strategy, other.strategy) for one, other, _ in sides] == [(label, label) for label in gold]
    assert {aspect for *_, aspect in sides} == {"response"}
    assert all('"strategy": {' not in question for question in asked), "the schema asks for none"
    assert sorted(label for label in gold if any(f"support strategy: {label}." in each for each in asked)) == sorted(
        gold
    )


def test_people_s_replies_are_chosen_and_nobody_is_asked(tmp_path: Path) -> None:
    told = refine(tmp_path, [exam()], Drafts(advice), None, refined_by="people")
    assert (told["pairs"], told["from_people"], told["refiner"]) == (3, 3, "people")
    assert told["calls"] == {"draft": 3, "refine": 0, "accept": 0}
    assert told["scores"] == dict.fromkeys("12345", 0)
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    assert [(each.chosen, each.reason, each.judge) for each in tree.preferences] == [
        (place, "human", "rule:people") for place in "135"
    ]
    assert [each.aspect for each in tree.preferences] == ["turn", "turn", "response"]


def test_the_first_policy_s_drafts_are_rejected_and_the_current_one_s_refined(tmp_path: Path) -> None:
    seen: list[str] = []

    def says(draft: str) -> str:
        seen.append(draft)
        return kinder(draft)

    first = Drafts(lambda request: ("Question", f"Why so, number {request.parent}?"))
    told = refine(tmp_path, [exam()], Drafts(advice), refiner(says), "dpo-1", rejected_from="first", first=first)
    assert (told["rejected_from"], told["drafted_by"], told["pairs"]) == ("first", "dpo-1", 3)
    assert told["calls"] == {"draft": 6, "refine": 3, "accept": 0}
    assert sorted(seen) == [f"Study harder for it, number {parent}." for parent in "024"]
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    rejected = [tree.turn(each.rejected) for each in tree.preferences]
    assert [(turn.source, turn.text) for turn in rejected] == [
        ("first", f"Why so, number {parent}?") for parent in "024"
    ]
    current = {turn.id: turn for turn in tree.turns if turn.source == "dpo-1"}
    assert len(current) == 3
    for each in tree.preferences:
        draft = current[tree.turn(each.chosen).extra["refinement"]["draft"]]
        assert tree.turn(each.chosen).text == kinder(str(draft.text))


def test_a_second_judge_is_asked_in_both_orders(tmp_path: Path) -> None:
    acceptor = judge(lambda one, other: "A" if one.startswith("It hurts") else "B")
    accept = {"model": "remote:a-judge"}
    told = refine(tmp_path, [exam()], Drafts(advice), refiner(kinder), accept=accept, acceptor=acceptor)
    assert (told["pairs"], told["calls"]) == (3, {"draft": 3, "refine": 3, "accept": 6})
    assert acceptor.asked.total() == 6
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    assert {each.judge for each in tree.preferences} == {"a-judge"}


def test_a_second_judge_is_not_opened_for_nothing(tmp_path: Path) -> None:
    same = refiner(lambda draft: draft)
    told = refine(tmp_path, [exam()], Drafts(advice), same, accept={"model": "embedded"}, longest=None)
    assert (told["pairs"], told["filters"]["near-equal"], told["calls"]["accept"], told["words"]) == (0, 3, 0, None)


@pytest.mark.parametrize("budget", [2, 3, 7, 8, 9, 100])
def test_a_budget_is_spent_in_order_and_never_exceeded(budget: int, tmp_path: Path) -> None:
    drafts, model = Drafts(advice), refiner(kinder)
    dialogues = [exam(name) for name in ("c", "a", "b")]
    told = refine(tmp_path, dialogues, drafts, model, budget_calls=budget)
    everything = [(name, parent) for name in ("c", "a", "b") for parent in "024"]
    assert drafts.asked == everything[: budget // 2]
    assert sum(told["calls"].values()) == len(drafts.asked) + model.asked.total() <= budget
    trees = read_conversations(tmp_path / "trees.jsonl")
    assert [tree.id for tree in trees] == [*dict.fromkeys(name for name, _ in drafts.asked)]
    assert told["dialogues"] == len(trees)


def test_a_draft_depends_on_its_own_place_alone(tmp_path: Path) -> None:
    def seeded(request: TurnRequest) -> tuple[str, str]:
        return "Others", f"Well, {request.seed}."

    found = {}
    for order in ("ab", "ba", "b"):
        refine(tmp_path / order, [exam(name) for name in order], Drafts(seeded), refiner(kinder))
        found[order] = {tree.id: tree for tree in read_conversations(tmp_path / order / "trees.jsonl")}
    assert found["ab"] == found["ba"]
    assert found["b"]["b"] == found["ab"]["b"]
    texts = [turn.text for tree in found["ab"].values() for turn in tree.turns if turn.source == "sft"]
    assert len(set(texts)) == len(texts) == 6
    refine(tmp_path / "seed", [exam("a")], Drafts(seeded), refiner(kinder), seed=1)
    (other,) = read_conversations(tmp_path / "seed/trees.jsonl")
    assert not {turn.text for turn in other.turns if turn.source == "sft"} & set(texts)


def test_a_round_that_stops_while_it_asks_draws_and_asks_nothing_again(tmp_path: Path) -> None:
    calls = iter(range(100))

    def breaks(draft: str) -> str:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return kinder(draft)

    drafts, model = Drafts(advice), refiner(breaks)
    model.concurrency = 1
    with pytest.raises(KeyboardInterrupt):
        refine(tmp_path, [exam("a"), exam("b")], drafts, model)
    assert len(drafts.asked) == 6
    assert not (tmp_path / "trees.jsonl").exists()
    again = refiner(kinder)
    told = refine(tmp_path, [exam("a"), exam("b")], drafts, again)
    assert (drafts.opened, len(drafts.asked)) == (1, 6), "drafts are on the disk"
    assert again.asked.total() == 4, "answers in the ledger"
    assert told == refine(tmp_path / "whole", [exam("a"), exam("b")], Drafts(advice), refiner(kinder))
    assert (tmp_path / "trees.jsonl").read_bytes() == (tmp_path / "whole/trees.jsonl").read_bytes()


@pytest.mark.parametrize("other", [{"key": "2"}, {"seed": 2}, {"source": "dpo"}, {"skip_last": 1}], ids=str)
def test_drafts_of_something_else_are_not_taken(other: dict[str, Any], tmp_path: Path) -> None:
    refine(tmp_path, [exam()], Drafts(advice), refiner(kinder))
    drafts = Drafts(lambda request: ("Others", "Something else."))
    refine(tmp_path, [exam()], drafts, refiner(kinder), **other)
    assert drafts.opened == 1
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    assert {turn.text for turn in tree.turns if "draft_of" in turn.extra} == {"Something else."}


# ------------------------------------------------------------------------------------------------- a server with faults


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ChatServer, ChatModel]]:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    from esckit.chat_models.remote import RemoteChatModel

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(opening, "Pace", lambda **given: Pace(first_wait=0.01, longest_wait=0.05, **given))
    with ChatServer(replace(FAULTY, hang=0.1)) as server:
        yield server, RemoteChatModel(MODEL, server.url, concurrency=8)


@pytest.mark.parametrize("mode", ["ours", "paper"])
def test_no_item_is_lost_on_a_server_with_faults(
    mode: str, remote: tuple[ChatServer, ChatModel], tmp_path: Path
) -> None:
    """A fifth of all calls goes wrong; every context ends as a pair or under one filter."""
    server, model = remote
    dialogues = [exam(f"exam-{number}") for number in range(50)]

    def long(request: TurnRequest) -> tuple[str, str]:
        return "Others", f"Well, {request.conversation.id} is how it is, as I say to {request.parent}."

    told = refine(tmp_path, dialogues, Drafts(long), model, mode=mode, longest=None)
    assert sum(server.faults.values()) > 0.1 * server.calls
    assert told["contexts"] == told["calls"]["refine"] == 150
    assert told["contexts"] == told["pairs"] + sum(told["filters"].values())
    states = Counter(state for _, state in items(tmp_path / "ledger.sqlite"))
    assert states.total() == 150
    assert states.keys() == {"done", "unparsed", "refused"}
    for state in ("unparsed", "refused"):
        found = {"ours": told["filters"][state], "paper": told["replaced"][state]}
        assert found == {"ours": 0, "paper": 0, mode: states[state]}
    assert sum(told["scores"].values()) == states["done"]
    with_tokens = server.calls - sum(server.faults[fault] for fault in CALL_FAULTS)
    assert told["tokens"] == {"prompt": 20 * with_tokens, "completion": 10 * with_tokens}


def items(path: Path) -> list[tuple[str, str]]:
    database = sqlite3.connect(path)
    try:
        return [*database.execute("SELECT key, state FROM items")]
    finally:
        database.close()


def test_a_refiner_that_is_gone_stops_the_round_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    from esckit.chat_models.remote import RemoteChatModel

    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with ChatServer() as server, pytest.raises(ChatError, match="key"):
        refine(tmp_path, [exam()], Drafts(advice), RemoteChatModel(MODEL, server.url))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.used([]) == Usage(0, 0)
    assert not (tmp_path / "trees.jsonl").exists()
