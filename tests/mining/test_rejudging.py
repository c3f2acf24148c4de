"""A judge that looks again: duels in both orders, digits one after the other, an annotator; and who also mined."""

from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.ledger import Ledger
from esckit.conversation import Turn
from esckit.mining import rejudging
from esckit.mining.pairs import Pair
from esckit.mining.rejudging import Looked, RejudgeOptions, look_again, looked_at, who_also_mined
from tests.chat_models.scripted import ScriptedModel
from tests.judging.judged import judge_by
from tests.mining.tree_search.searched import hand_made
from tests.tiny import save_base, talk


def looked(*replies: tuple[str, str]) -> list[Looked]:
    """Replies to one context, in pairs."""
    tree = talk(("seeker", "I failed my exam."), ("supporter", "Oh.", "Question"))
    return [
        Looked(
            tree,
            tree.path("0"),
            *(Turn(f"{place}{side}", "0", "supporter", text, "Question") for side, text in enumerate(both)),
        )
        for place, both in enumerate(replies)
    ]


def asked(
    better: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, *replies: tuple[str, str]
) -> tuple[list[int], ScriptedModel]:
    model = ScriptedModel(judge_by(lambda quality, reply: 3, better))
    monkeypatch.setattr(rejudging, "open_model", lambda options: model)
    with Ledger(folder / "ledger") as ledger:
        return look_again(looked(*replies), RejudgeOptions(model="smollm2"), ledger), model


def test_a_duel_is_fought_in_both_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = ("That must hurt.", "Well."), ("Yes.", "That is a hard day."), ("Same.", "Same.")
    signs, model = asked(lambda a, b: "A" if len(a) > len(b) else "B", monkeypatch, tmp_path, *replies)
    assert signs == [1, -1, 0]
    assert sum(model.batches) == 4, "equal replies are asked about by nobody"


def test_who_looks_at_the_place_alone_finds_nothing_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(lambda a, b: "A", monkeypatch, tmp_path, ("That must hurt.", "Well."))[0] == [0]


def test_digits_score_each_reply_alone_and_once(tmp_path: Path) -> None:
    options = RejudgeOptions(model=str(save_base(tmp_path / "base")), by="digits")
    pairs = [("That must hurt.", "Well."), ("Tell me more about the exam.", "I see."), ("No.", "No.")]
    with Ledger(tmp_path / "ledger") as ledger:
        signs = look_again(looked(*pairs), options, ledger)
        assert look_again(looked(*((b, a) for a, b in pairs)), options, ledger) == [-sign for sign in signs]
    assert signs[2] == 0
    assert 0 not in signs[:2]
    assert not options.both_orders


def test_a_pair_s_chosen_side_comes_first() -> None:
    tree = hand_made()
    pair = Pair(tree, tree.preferences[0])
    found = looked_at(pair)
    assert (found.first, found.second) == (pair.chosen, pair.rejected)
    assert [turn.id for turn in found.path] == [turn.id for turn in tree.path(pair.chosen.parent)]


def test_a_judge_who_mined_is_found_under_any_of_its_names() -> None:
    embedded = RejudgeOptions(model="embedded")
    assert who_also_mined(embedded, ["rule:unequal", "embedded@1234", "annotator:embedded"]) == [
        "embedded@1234",
        "annotator:embedded",
    ]
    remote = RejudgeOptions(model="remote:house/critic")
    assert who_also_mined(remote, ["other/critic@5", "critics", "rule:critic"]) == ["other/critic@5"]


@pytest.mark.parametrize("model", ["remote:critic", "embedded"])
def test_digits_need_a_model_on_this_machine(model: str) -> None:
    with pytest.raises(ValueError, match=f"a chat model on this machine, and {model} is none: leave by out"):
        RejudgeOptions(model=model, by="digits")
