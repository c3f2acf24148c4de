"""A derivation whole: what is kept, left out and counted; files that do not depend on when it was stopped."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.chat_models.protocol import ChatReply
from esckit.conversation import Conversation, check_conversation, read_conversations
from esckit.corpora import load_corpus
from esckit.errors import BudgetSpent, CorpusError, EsckitError, RoleError
from esckit.mining.derivation.by_name import derive_corpus
from esckit.mining.derivation.options import DerivationOptions
from esckit.mining.derivation.run import DERIVATION, Deriver, derive_parts
from esckit.rendering import supporter_turns
from esckit.roles.bank import RoleBank, save_bank
from tests.chat_models.scripted import ScriptedModel
from tests.mining.derivation.talks import bank, question, talk, tree

THREE: Final = bank()
DIALOGUES: Final = [question(name="q-1"), tree(talk(), name="t-1"), tree(talk("zh"), "zh", "t-2")]


def derive(
    out: Path, trees: Sequence[Conversation] = DIALOGUES, deriver: Deriver | None = None, **given: Any
) -> dict[str, Any]:
    options = DerivationOptions(**given)
    return derive_parts({"trees.jsonl": trees}, options, out, THREE, deriver or Deriver(), seed=0)


def test_rules_give_dialogues_that_say_what_they_are(tmp_path: Path) -> None:
    record = derive(tmp_path, roles="all", filters={"near_duplicate": None})
    found = read_conversations(tmp_path / "trees.jsonl")
    assert [each.id for each in found][:3] == ["q-1--mole", "q-1--otter", "q-1--wren"]
    for each in found:
        check_conversation(each)
        assert each.provenance["derived_from"] == each.id.split("--")[0]
        assert each.provenance["derived_by"] == "rules"
        assert each.provenance["derivation"]["bank"] == THREE.digest
        assert each.labels["role"] == each.id.split("--")[1]
        replies = [turn for turn in each.turns if turn.speaker == "supporter"]
        assert supporter_turns(each) == replies, "every one has a strategy"
        told = [turn.extra["experience"] for turn in replies if "experience" in turn.extra]
        assert [one.split("-")[0] for one in told] == [each.labels["role"]]
        stock = [turn.source for turn in each.turns if turn.extra.get("stock")]
        assert {*stock} <= {"rules"}
        assert bool(stock) == each.id.startswith("q-1")
    assert (record["sources"], record["versions"], record["dialogues"]) == (3, 9, {"trees.jsonl": 9})
    assert record["roles"] == {"mole": 3, "otter": 3, "wren": 3}
    assert record == json.loads((tmp_path / DERIVATION).read_text("utf-8"))


def test_the_same_again_and_another_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        derive_parts({"trees.jsonl": DIALOGUES}, DerivationOptions(), tmp_path / name, THREE, Deriver(), seed=seed)
    one, two, three = ((tmp_path / name / "trees.jsonl").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_sources_in_danger_and_without_words_are_left_out_and_counted(tmp_path: Path) -> None:
    danger = question("Why should I go on?\nI want to kill myself.", name="q-2")
    mute = question(" ", name="q-3")
    unanswered = question(answer=" ", name="q-4")
    trees = [*DIALOGUES, danger, mute, unanswered]
    record = derive(tmp_path, trees, language="en")
    assert record["left_out"] == {"other language": 1, "danger": 1, "no question": 1, "no answer": 1}
    assert record["sources"] == 2
    assert "q-2" not in (tmp_path / "trees.jsonl").read_text("utf-8")


def test_near_duplicates_of_a_source_are_left_out_the_later_ones(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"roles": "all", "steps": ("dialogue", "style")}
    assert derive(tmp_path, **plain, filters={"near_duplicate": 0.99})["faults"]["end"] == {"near-duplicate": 6}
    assert {each.labels["role"] for each in read_conversations(tmp_path / "trees.jsonl")} == {"mole"}
    assert "end" not in derive(tmp_path, **plain, filters={"near_duplicate": None})["faults"]


def test_perplexity_leaves_out_what_is_above_its_limit(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(texts: Sequence[str]) -> list[float]:
        asked.extend(texts)
        return [1501.0 if "姐姐" in text else 1500.0 for text in texts]

    limit = {"perplexity": {"model": "named", "most": 1500}}
    record = derive(tmp_path, deriver=Deriver(perplexity=measure), filters=limit)
    assert record["faults"]["end"] == {"perplexity": 1}
    assert record["perplexity"] == {"model": "named", "most": 1500.0}
    assert len(asked) == 3
    assert str(DIALOGUES[1].turns[0].text) in asked[1]


def test_parts_have_a_file_each_and_an_empty_one_is_none(tmp_path: Path) -> None:
    parts = {
        "trees.jsonl": DIALOGUES[:1],
        "valid.jsonl": DIALOGUES[1:2],
        "test.jsonl": [],
        "other.jsonl": DIALOGUES[2:],
    }
    record = derive_parts(parts, DerivationOptions(), tmp_path, THREE, Deriver())
    assert record["dialogues"] == {"trees.jsonl": 1, "valid.jsonl": 1, "test.jsonl": 0, "other.jsonl": 1}
    assert [each.provenance["derived_from"] for each in read_conversations(tmp_path / "valid.jsonl")] == ["t-1"]
    assert (tmp_path / "test.jsonl").read_bytes() == b""


def test_every_state_of_a_call_is_counted_and_asked_as_little_as_it_takes(tmp_path: Path) -> None:
    """The dialogue with strategies needs no first step; a version that is left out is asked about no more."""
    replies = {"q-1": ChatReply("", "refused"), "t": ChatReply("no JSON at all", "stop")}
    model = ScriptedModel(lambda asked, before: replies["q-1" if "sentence number" in asked else "t"])
    options = DerivationOptions(derived_by="model", deriver={"model": "smollm2"})
    record = derive_parts({"trees.jsonl": DIALOGUES}, options, tmp_path, THREE, Deriver("scripted", lambda: model))
    assert record["faults"] == {"dialogue": {"refused": 1}, "experiences": {"unparsed": 2}, "style": {}}
    assert record["calls"] == {"dialogue": 1, "experiences": 2, "style": 0}
    assert record["dialogues"] == {"trees.jsonl": 0}


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    from tests.derivation_server import DerivationServer

    pytest.importorskip("openai", reason="needs esckit[remote]")
    from tests.server import KEY, MODEL

    with pytest.MonkeyPatch.context() as patch, DerivationServer() as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        save_bank(THREE, tmp_path / "bank")
        asked = {"model": f"remote:{MODEL}", "base_url": server.url}
        told: dict[str, Any] = {"bank": str(tmp_path / "bank"), "derived_by": "model", "roles": "all"}
        told["filters"] = {"near_duplicate": None}  # the server's words hardly differ from role to role
        whole = derive_corpus(DIALOGUES, tmp_path / "whole", DerivationOptions(**told, deriver=asked))
        calls = server.calls
        assert calls == sum(whole["calls"].values()) == 1 + 9 + 9
        with pytest.raises(BudgetSpent):
            derive_corpus(DIALOGUES, tmp_path / "cut", DerivationOptions(**told, deriver={**asked, "budget_calls": 6}))
        assert not (tmp_path / "cut/trees.jsonl").exists()
        assert derive_corpus(DIALOGUES, tmp_path / "cut", DerivationOptions(**told, deriver=asked)) == whole
        assert server.calls == 2 * calls
    for name in ("trees.jsonl", DERIVATION):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = read_conversations(tmp_path / "whole/trees.jsonl")
    assert len(found) == 9
    rewritten = {turn.source for each in found for turn in each.turns if turn.speaker == "seeker"}
    assert rewritten == {MODEL, "human"}, "a seeker's words of a dialogue stay a person's"


@pytest.mark.parametrize(
    ("trees", "given", "error", "sentence"),
    [
        ([question(" ")], {}, CorpusError, r"no source is left to derive from \(1 no question\)"),
        ([], {}, CorpusError, r"no source is left to derive from \(there is no dialogue\)"),
        (DIALOGUES[:1], {"language": "zh"}, CorpusError, "1 other language"),
        ([question(language="fr")], {}, EsckitError, "no rules of derivation in 'fr'"),
        (
            [question(language="fr")],
            {"derived_by": "model", "deriver": {"model": "m"}},
            EsckitError,
            "no prompts in 'fr'",
        ),
        (DIALOGUES, {"roles": ("badger",)}, EsckitError, "no role 'badger': take one of mole, otter, wren"),
        (DIALOGUES, {"roles": 4}, EsckitError, "4 roles are asked for, and the bank has 3"),
        (DIALOGUES, {"filters": {"perplexity": {"most": 1500}}}, EsckitError, "means nothing without its model"),
    ],
)
def test_bad_input_gets_one_sentence(
    trees: list[Conversation], given: dict[str, Any], error: type[EsckitError], sentence: str, tmp_path: Path
) -> None:
    save_bank(THREE, tmp_path / "bank")
    options = DerivationOptions(bank=str(tmp_path / "bank"), **given)
    with pytest.raises(error, match=sentence) as told:
        derive_corpus(trees, tmp_path / "out", options)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_bank_without_the_language_is_refused(tmp_path: Path) -> None:
    mole = THREE.roles[0]
    only: dict[str, Any] = {name: {"en": getattr(mole, name)["en"]} for name in ("titles", "profile", "guide")}
    with pytest.raises(RoleError, match="no texts in 'zh' for mole"):
        derive_parts(
            {"trees.jsonl": DIALOGUES}, DerivationOptions(), tmp_path, RoleBank((replace(mole, **only),)), Deriver()
        )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"derived_by": "model"}, "set deriver.model"),
        ({"deriver": {"model": "smollm2"}}, "set derived_by to model"),
        ({"steps": ("style", "dialogue")}, "in this order"),
        ({"steps": ()}, "steps has to be some of"),
        ({"roles": ("mole", "mole")}, "name each once"),
        ({"filters": {"fewest": 9, "most": 8}}, "fewest 9 is above most 8"),
    ],
)
def test_options_that_do_not_fit(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DerivationOptions(**given)


def test_the_starter_corpus_gives_a_dialogue_of_each_source(tmp_path: Path) -> None:
    train = load_corpus("starter").train
    record = derive_corpus(train, tmp_path)
    assert record["faults"] == {"dialogue": {}, "experiences": {}, "style": {}}
    assert record["dialogues"]["trees.jsonl"] == record["sources"] == len(train) - record["left_out"]["danger"]
