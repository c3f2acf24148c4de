"""The filters of a round: replies by hand, and what becomes of each; and how long and how alike two replies are.

Each case is one dialogue of one context, taken through the whole round.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from esckit.chat_models.protocol import CallFailure, ChatReply
from esckit.conversation import read_conversations
from esckit.mining.self_refinement.filters import FILTERS, count_words, in_common, pair_fault, too_long
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.mining.self_refinement.run import REFINEMENT, Models, refine_dialogues
from esckit.rendering import Part
from tests.chat_models.scripted import Script, ScriptedModel
from tests.mining.self_refinement.players import Drafts, judge, refinement
from tests.tiny import talk

PAPER: Final = {"mode": "paper"}
PEOPLE: Final = {"refined_by": "people"}
JUDGED: Final = {"accept": {"model": "remote:judge"}}
FIRST: Final = {"rejected_from": "first"}

Side = tuple[str | None, str | None]
"""Strategy and text."""


def words(count: int, kind: str) -> str:
    """So many words that no other kind has."""
    return " ".join(f"{kind}{number}" for number in range(count))


def signs(count: int, begin: int = 0) -> str:
    """So many Chinese characters from a place of their own on."""
    return "".join(chr(0x4E00 + begin + number) for number in range(count))


def human(count: int, strategy: str | None = "Question") -> Side:
    return strategy, words(count, "h")


def draft(count: int) -> Side:
    return "Information", words(count, "d")


def refined(count: int) -> str:
    return f"{words(count, 'r')}."


def one(result: ChatReply | CallFailure) -> Script:
    return lambda question, before: result


REFUSED: Final = one(ChatReply("I cannot help with this.", "refused"))
FAILED: Final = one(CallFailure("too_long", "the prompt is too long", "give_up"))
BABBLE: Final = one(ChatReply("You could say: take your time.", "stop"))
A_TRUTH: Final = one(ChatReply(refinement(refined(8), score=True), "stop"))
SIX: Final = one(ChatReply(refinement(refined(8), score=6), "stop"))
OTHER_LABEL: Final = one(ChatReply(refinement(refined(8), strategy="Comfort"), "stop"))
MARK: Final = one(ChatReply(refinement("[Question]"), "stop"))


def mended(question: str, before: int) -> ChatReply:
    """The first answer breaks off; asked again, the refiner gives a whole one."""
    return ChatReply(refinement(refined(8))[: None if "cannot be used" in question else 20], "stop")


class Case(NamedTuple):
    """A human reply and a draft at one place, and what a refiner answers: the refined reply, or how it goes wrong.

    ``made`` is refined or human where there is a pair, by its chosen side; else the filter. ``replaced`` is why a human
    reply has taken the refined one's place.
    """

    human: Side
    draft: Side
    said: str | Script
    options: dict[str, Any]
    made: str
    replaced: str | None = None
    part: Part = "coupled"


CASES: Final = {
    # twice the words and no more, of the draft and of the human reply
    "twice the draft": Case(human(20), draft(10), refined(20), {}, "refined"),
    "a word more": Case(human(20), draft(10), refined(21), {}, "longer than the draft"),
    "twice people's": Case(human(8), draft(10), refined(16), {}, "refined"),
    "a word more than twice people's": Case(human(8), draft(10), refined(17), {}, "longer than the human reply"),
    "longer than both": Case(human(5), draft(5), refined(11), {}, "longer than the draft"),
    "a word more, paper": Case(human(20), draft(10), refined(21), PAPER, "human", "longer than the draft"),
    "than people's, paper": Case(human(8), draft(10), refined(17), PAPER, "human", "longer than the human reply"),
    "any length": Case(human(8), draft(10), refined(50), {"longest": None}, "refined"),
    "thrice": Case(human(10), draft(10), refined(30), {"longest": 3}, "refined"),
    "more than thrice": Case(human(10), draft(10), refined(31), {"longest": 3}, "longer than the draft"),
    # what ends in the middle of a sentence loses it, or is left out
    "half a sentence": Case(human(9), draft(9), words(8, "r"), {}, "cut"),
    "half a sentence, paper": Case(human(9), draft(9), words(8, "r"), PAPER, "refined"),
    "half a sentence, as it is": Case(human(9), draft(9), words(8, "r"), {"whole": False}, "refined"),
    "a whole one before it": Case(human(6), draft(6), f"{refined(6)} {words(40, 'x')}", {}, "refined"),
    "a picture": Case(human(6), draft(6), "Take your time, I am here 🙂", {}, "refined"),
    "marks are no words": Case(human(2), ("Others", "Oh - so!"), "It's - not - all, lost!", {}, "refined"),
    "people's length is no matter of theirs": Case(human(50), draft(10), "", PEOPLE, "human"),
    # of a script without blanks, characters
    "Chinese, twice": Case(
        ("Question", signs(10, 100)), ("Others", signs(10, 200)), signs(20) + "。", {}, "refined"
    ),
    "Chinese, one more": Case(
        ("Question", signs(20, 100)), ("Others", signs(10, 200)), signs(21) + "。", {}, "longer than the draft"
    ),
    "Chinese, than people's": Case(
        ("Question", signs(8, 100)), ("Others", signs(10, 200)), signs(17) + "。", {}, "longer than the human reply"
    ),
    # what cannot be read, and what did not come
    "unparsed": Case(human(8), draft(8), BABBLE, {}, "unparsed"),
    "unparsed, paper": Case(human(8), draft(8), BABBLE, PAPER, "human", "unparsed"),
    "true is no score": Case(human(8), draft(8), A_TRUTH, {}, "unparsed"),
    "six is no score": Case(human(8), draft(8), SIX, {}, "unparsed"),
    "no strategy of the taxonomy": Case(human(8), draft(8), OTHER_LABEL, {}, "unparsed"),
    "a reply without words": Case(human(8), draft(8), "  ", {}, "unparsed"),
    "a strategy and no words": Case(human(8), draft(8), MARK, {}, "unparsed"),
    "a reply without words, paper": Case(human(8), draft(8), "  ", PAPER, "human", "unparsed"),
    "mended": Case(human(8), draft(8), mended, {}, "refined"),
    "refused": Case(human(8), draft(8), REFUSED, {}, "refused"),
    "refused, paper": Case(human(8), draft(8), REFUSED, PAPER, "human", "refused"),
    "failed": Case(human(8), draft(8), FAILED, {}, "failed"),
    "failed, paper": Case(human(8), draft(8), FAILED, PAPER, "human", "failed"),
    # a human reply without strategy can be no side of a pair
    "unlabelled": Case(human(8, None), draft(8), refined(8), {}, "refined"),
    "unlabelled, paper": Case(human(8, None), draft(8), BABBLE, PAPER, "no human reply"),
    "unlabelled, people": Case(human(8, None), draft(8), "", PEOPLE, "no human reply"),
    "unlabelled, generator": Case(human(8, None), draft(8), refined(8), {}, "no strategy", part="generator"),
    "generator": Case(human(8), draft(8), refined(8), {}, "refined", part="generator"),
    # sides that are alike
    "said again": Case(human(10), draft(10), " D0 d1 d2 d3 d4 d5 d6 d7 d8 D9", PAPER, "near-equal"),
    "a word in ten": Case(human(10), draft(10), f"{words(9, 'd')} other.", {}, "near-equal"),
    "a word in ten, paper": Case(human(10), draft(10), f"{words(9, 'd')} other.", PAPER, "refined"),
    "two words in ten": Case(human(10), draft(10), f"{words(8, 'd')} other words.", {}, "refined"),
    "people said the draft": Case(draft(10), draft(10), "", PEOPLE, "near-equal"),
    "people's in its place": Case(draft(10), draft(10), BABBLE, PAPER, "near-equal"),
    # sides of unlike length
    "half as long again": Case(human(10), draft(10), refined(15), {"length_ratio": 1.5}, "refined"),
    "longer than that": Case(human(10), draft(10), refined(16), {"length_ratio": 1.5}, "length ratio"),
    "shorter than that": Case(human(10), draft(10), refined(6), {"length_ratio": 1.5}, "length ratio"),
    # no draft
    "nothing": Case(human(8), ("Others", " \n"), refined(8), {}, "empty draft"),
    "no text": Case(human(8), ("Others", None), refined(8), {}, "empty draft"),
    "no strategy of the draft": Case(human(8), (None, "Well."), refined(8), {}, "no strategy"),
    # a second judge (`liked`)
    "both orders": Case(human(8), draft(8), refined(8), JUDGED, "refined"),
    "neither order": Case(human(8), ("Others", words(8, "c")), refined(8), JUDGED, "not accepted"),
    "one order": Case(human(8), ("Others", words(8, "a")), refined(8), JUDGED, "not accepted"),
    "people's, both orders": Case(human(8), draft(8), "", {**PEOPLE, **JUDGED}, "human"),
}  # fmt: skip


def liked(one: str, other: str) -> str:
    """Rather c than anything, rather anything than d; beside a, whatever stands first."""
    kinds = (one[0], other[0])
    return "A" if "a" in kinds or kinds.index(max(kinds, key="dhrc".index)) == 0 else "B"


def test_there_are_forty_cases() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_a_reply(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    strategy, text = case.human
    dialogue = talk(("seeker", "I failed my exam."), ("supporter", str(text)))
    dialogue = replace(dialogue, turns=[dialogue.turns[0], replace(dialogue.turns[1], strategy=strategy)])
    options = RefinementOptions(skip_first=0, skip_last=0, encoder=None, **case.options)
    said = case.said if callable(case.said) else one(ChatReply(refinement(case.said), "stop"))
    models = Models(
        refiner=None if options.refined_by == "people" else lambda: ScriptedModel(said),
        refiner_name="by rule",
        acceptor=(lambda: judge(liked)) if options.accept else None,
    )
    policy = Drafts(lambda request: case.draft).policy(part=case.part)
    told = refine_dialogues(
        [dialogue], options, tmp_path, policy, models, ledger=tmp_path / "ledger.sqlite", seed=0, key=name
    )
    paired = case.made in ("refined", "human")
    assert told["pairs"] == paired
    assert {name: n for name, n in told["filters"].items() if n} == ({} if paired else {case.made: 1})
    assert [*told["filters"]] == [*FILTERS], "zeros too"
    assert told["from_people"] == (case.made == "human")
    assert {name: n for name, n in told["replaced"].items() if n} == ({case.replaced: 1} if case.replaced else {})
    assert json.loads((tmp_path / REFINEMENT).read_text()) == told
    (tree,) = read_conversations(tmp_path / "trees.jsonl")
    assert len(tree.preferences) == paired
    if paired:
        (preference,) = tree.preferences
        chosen, rejected = tree.turn(preference.chosen), tree.turn(preference.rejected)
        assert (rejected.text, rejected.source) == (case.draft[1], "sft")
        assert chosen.source == ("human" if case.made == "human" else "refined:by rule")
        assert preference.reason == case.made


@pytest.mark.parametrize(
    ("before", "reply", "made"),
    [
        (("What happened?", "And then?"), "How are you now?", "pattern"),
        (("What happened?", "And then."), "How are you now?", "refined"),
        (("I'm sorry to hear that. You should rest.", "I see."), "I'm sorry to hear that, so much.", "pattern"),
        (("I see.", "I'm sorry that it hurts. You should rest."), "I am sorry. Maybe try to sleep.", "pattern"),
        (("You should rest.", "I'm sorry that it hurts."), "I am sorry. Maybe try to sleep.", "refined"),
    ],
)
@pytest.mark.parametrize("heeded", [True, False])
def test_a_reply_that_completes_a_pattern(
    before: tuple[str, str], reply: str, made: str, *, heeded: bool, tmp_path: Path
) -> None:
    """What the dialogue's supporter said before counts, not the drafts beside it."""
    lines = [("seeker", "Yes."), ("supporter", "?")] * 3
    dialogue = talk(*((who, (*before, "Go on.")[n // 2] if n % 2 else text) for n, (who, text) in enumerate(lines)))
    options = RefinementOptions(skip_first=2, skip_last=0, encoder=None, patterns=heeded, longest=None)
    models = Models(None, lambda: ScriptedModel(one(ChatReply(refinement(reply), "stop"))))
    policy, ledger = Drafts(lambda request: ("Others", "Hm, well.")).policy(), tmp_path / "ledger.sqlite"
    told = refine_dialogues([dialogue], options, tmp_path, policy, models, ledger=ledger, seed=0, key="")
    taken = {"pattern": 1} if made == "pattern" and heeded else {}
    assert {name: n for name, n in told["filters"].items() if n} == {"first turn": 2, **taken}
    assert told["pairs"] == (not taken)


def test_a_first_policy_without_a_draft(tmp_path: Path) -> None:
    dialogue = talk(
        ("seeker", "I failed."), ("supporter", "Oh."), ("seeker", "Yes."), ("supporter", "Why?", "Question")
    )
    drafts = Drafts(lambda request: ("Others", "Well, well."))
    first = Drafts(lambda request: ("Others", "" if request.parent == "0" else "Hm, hm."))
    models = Models(first.policy("sft"), lambda: ScriptedModel(one(ChatReply(refinement("It hurts."), "stop"))))
    told = refine_dialogues(
        [dialogue],
        RefinementOptions(skip_first=0, skip_last=0, **FIRST),
        tmp_path,
        drafts.policy("dpo-1"),
        models,
        ledger=tmp_path / "ledger.sqlite",
        seed=0,
        key="",
    )
    assert (told["contexts"], told["filters"]["empty draft"], told["pairs"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("...", 0),
        ("Don't worry, it’s OK.", 4),
        ("well-known", 2),
        ("Ｔｗｏ ｗｏｒｄｓ", 2),
        ("你好，世界！", 4),
        ("你好吗 OK", 5),
        ("你好 OK", 2),
        ("I said 你好 to them", 5),
        ("Ça va très bien", 4),
    ],
)
def test_words_are_counted_and_of_chinese_characters(text: str, number: int) -> None:
    assert count_words(text) == number


def test_an_empty_human_reply_bounds_nothing() -> None:
    assert too_long("one two three", "one two", "", 2) is None
    assert too_long("one two three", "one two", "one", 2) == "longer than the human reply"
    assert too_long("one", "...", "one", 2) == "longer than the draft", "which says nothing"


def test_the_share_of_words_in_common_heeds_their_order() -> None:
    assert in_common("one two three four", "ONE  two three, four!") == 1
    assert in_common("one two three four", "one two") == pytest.approx(2 * 2 / 6)
    assert in_common("one two", "two one") == pytest.approx(2 * 1 / 4)
    assert in_common("one", "two") == 0


def test_a_ratio_is_that_of_the_longer_to_the_shorter_side() -> None:
    options = RefinementOptions(length_ratio=2)
    assert pair_fault("a b c d", "e f", options) is None
    assert pair_fault("e f", "a b c d", options) is None
    assert pair_fault("e", "a b c d", options) == "length ratio"
    assert pair_fault("!", "a", options) == "length ratio"
    assert pair_fault("a b c d e f g h", "i", RefinementOptions()) is None
