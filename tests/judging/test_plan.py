"""A judging from predictions to figures, with a scripted judge."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import CallFailure, ChatReply
from esckit.conversation import Conversation
from esckit.judging.judging_files import item_of, read_judgements, write_judging
from esckit.judging.plan import STEP, JudgeAnswers, JudgePlan, JudgingOptions, figures, make_plan
from esckit.judging.rubric import Rubric, load_rubrics
from esckit.judging.sampling import SampledTurns, sample_turns
from esckit.measures.intervals import Draws
from esckit.measures.judgements import Judgement
from esckit.measures.tables import from_sheet_cell
from esckit.prompts import shipped_prompts
from tests.chat_models.scripted import Script, ScriptedModel
from tests.judging.judged import EMPATHY, FLUENCY, dialogues, judge_by, part, predicted, quality
from tests.test_transcript import INJECTIONS

FAST = Pace(attempts=2, first_wait=0.001, longest_wait=0.002)


def sampled_of(talks: list[Conversation], **say: Callable[[str, str], str | None]) -> SampledTurns:
    return sample_turns({name: predicted(talks, own) for name, own in say.items()}, talks, 100, 0)


def plan_of(sampled: SampledTurns, rubrics: Sequence[Rubric], **options: Any) -> JudgePlan:
    return make_plan(sampled, rubrics, JudgingOptions(model="scripted", **options))


def ask(plan: JudgePlan, script: Script, folder: Path) -> tuple[JudgeAnswers, ScriptedModel]:
    model = ScriptedModel(script)
    with Ledger(folder / "ledger") as ledger:
        return plan.ask(Asker(model, ledger, STEP, FAST)), model


def measured(plan: JudgePlan, sampled: SampledTurns, script: Script, folder: Path, miners: Sequence[str] = ()) -> Any:
    judged, model = ask(plan, script, folder)
    draws = Draws(permutations=200, resamples=100)
    return figures(judged, plan, sampled, judge="scripted", identity=model.identity, miners=miners, draws=draws)


def two_systems() -> SampledTurns:
    return sampled_of(dialogues(), warm=lambda c, t: f"Warm to {c} {t}.", cold=lambda c, t: f"Cold to {c} {t}.")


def warmth(quality: str, reply: str) -> int:
    return 2 if reply.startswith("Warm") else 1


def test_scores_differences_and_references(tmp_path: Path) -> None:
    sampled = two_systems()
    plan = plan_of(sampled, [EMPATHY, FLUENCY])
    found = measured(plan, sampled, judge_by(warmth), tmp_path)
    means = {(row.system, row.rubric, row.reference): row.mean for row in found.scores}
    assert len(means) == 8
    assert {key[0]: mean for key, mean in means.items()} == {"warm": 2, "cold": 1}
    for test in found.differences:
        assert (test.a, test.b, test.turns, test.dialogues) == ("warm", "cold", 12, 6)
        assert test.difference == 1
        assert test.p <= test.p_holm <= 4 * test.p
    assert [(test.rubric, test.reference) for test in found.differences] == [
        ("empathy", False),
        ("fluency", False),
        ("empathy", True),
        ("fluency", True),
    ]


def test_caps_stand_in_prompts_keys_and_names_only_where_they_are_asked_for(tmp_path: Path) -> None:
    sampled = two_systems()
    plain, capped = (plan_of(sampled, load_rubrics("self-evolution", caps=caps)) for caps in (False, True))
    questions = [[request.messages[-1].content for request in plan.requests()] for plan in (plain, capped)]
    assert not any("40 words" in question or "Limits." in question for question in questions[0])
    assert sum("40 words" in question for question in questions[1]) == len(questions[1]) / 7
    assert all("+caps" not in question and "Limits." in question for question in questions[1])
    judged = [ask(plan, judge_by(lambda q, r: 3), tmp_path) for plan in (plain, capped)]
    assert [sum(model.batches) for _, model in judged] == [len(asked) for asked in questions], "no answer serves both"
    scores = [figures(each, capped, sampled, judge="x", identity=None).scores for each, _ in judged[1:]]
    assert all(row.rubric.endswith("+caps") for row in scores[0])
    items = [[item_of(each) for each in answers.judgements] for answers, _ in judged]
    assert items[0] == items[1], "people rate a reply without regard to a judge's caps"


def test_the_human_reply_stands_in_the_prompt_only_where_it_is_to_be_shown() -> None:
    sampled = two_systems()
    for shown, reference in ((True, "shown"), (False, "hidden")):
        plan = plan_of(sampled, [EMPATHY], reference=reference)
        for scoring, request in zip(plan.scorings, plan.requests(), strict=True):
            assert (scoring.turn.reference in request.messages[-1].content) is shown


def test_a_quality_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    """Every state is counted and shown, and none of them is a score."""
    bad: dict[str, ChatReply | CallFailure] = {
        "Cold to d0 h0.": ChatReply('{"explanation": "x", "score": 9}', "stop"),
        "Cold to d1 h0.": ChatReply("I cannot judge this.", "refused"),
        "Cold to d2 h0.": CallFailure("http_500", "broken", "retry"),
    }
    good = judge_by(warmth)

    def script(question: str, before: int) -> ChatReply | CallFailure:
        if question.startswith("Your reply cannot be used"):
            return ChatReply('{"explanation": "x", "score": 9}', "stop")
        reply = part(question, "The reply to score:")
        return bad[reply] if quality(question) == "empathy" and reply in bad else good(question, before)

    sampled = two_systems()
    found = measured(plan_of(sampled, [EMPATHY, FLUENCY], reference="hidden"), sampled, script, tmp_path)
    rows = {(row.system, row.rubric): row for row in found.scores}
    assert rows["cold", "empathy"].states.to_json() == {"done": 9, "unparsed": 1, "refused": 1, "failed": 1}
    assert (rows["cold", "empathy"].n, rows["cold", "empathy"].mean) == (9, 1)
    assert rows["cold", "fluency"].states.to_json() == {"done": 12, "unparsed": 0, "refused": 0, "failed": 0}
    turns = {test.rubric: test.turns for test in found.differences}
    assert turns == {"empathy": 9, "fluency": 12}
    assert any("Of 48 verdicts 1 unparsed, 1 refused, 1 failed" in warning for warning in found.warnings)


def test_pairs_are_asked_in_both_orders_and_flips_are_ties(tmp_path: Path) -> None:
    """At d0 the judge takes whatever stands first; elsewhere it takes the warm reply."""

    def better(a: str, b: str) -> str:
        return "A" if "d0" in a or a.startswith("Warm") else "B"

    sampled = two_systems()
    plan = plan_of(sampled, [EMPATHY], reference="hidden", pairs=True)
    found = measured(plan, sampled, judge_by(warmth, better), tmp_path)
    (pair,) = found.pairs
    assert (pair.a, pair.b, pair.turns) == ("warm", "cold", 12)
    assert (pair.wins, pair.ties, pair.losses) == (10, 2, 0)
    assert pair.flip_rate == pytest.approx(2 / 12)
    assert pair.win_rate == pytest.approx(11 / 12)
    assert pair.first_share == pytest.approx((10 + 4) / 24)
    assert found.strengths["ratings"][0]["name"] == "warm"


def test_equal_replies_are_a_tie_that_nobody_is_asked_about(tmp_path: Path) -> None:
    sampled = sampled_of(dialogues(2), one=lambda c, t: "Same.", two=lambda c, t: "Same. " if c == "d0" else "Other.")
    plan = plan_of(sampled, [EMPATHY], reference="hidden", pairs=True)
    assert len(plan.requests()) == 8 + 2 * 2
    (pair,) = measured(plan, sampled, judge_by(warmth, lambda a, b: "tie"), tmp_path).pairs
    assert (pair.equal, pair.ties, pair.turns) == (2, 4, 4)
    assert pair.states.done == 4


def knows(quality: str, reply: str) -> int:
    """A judge that knows human replies and stock ones, but sees only the reply."""
    return 2 if reply.startswith("Gold") else 0


def test_known_groups_come_out_in_order_before_a_judge_that_reads(tmp_path: Path) -> None:
    def script(question: str, before: int) -> ChatReply:
        reply = part(question, "The reply to score:")
        name = question.split("sad about ")[1].split(",")[0]
        score = 2 if f"Gold for {name}," in reply else 0 if reply.startswith("Gold") else 1
        return ChatReply(json.dumps({"explanation": "x", "score": score}), "stop")

    sampled = two_systems()
    plan = plan_of(sampled, [EMPATHY, FLUENCY], reference="shown", known_groups=True)
    known = measured(plan, sampled, script, tmp_path).known_groups
    assert known.in_order
    assert [(row.rubric, row.above, row.below) for row in known.orders] == [
        ("empathy", "gold", "shuffled"),
        ("empathy", "gold", "stock"),
    ]
    assert {row.reference for row in known.scores} == {False}
    assert {row.system for row in known.scores} == {"gold", "shuffled", "stock"}


def test_a_judge_that_does_not_read_the_talk_is_found_out(tmp_path: Path) -> None:
    """It tells stock replies and not foreign ones; and one that turns things round is told from one that guesses."""
    sampled = two_systems()
    plan = plan_of(sampled, [EMPATHY], known_groups=True)
    found = measured(plan, sampled, judge_by(knows), tmp_path)
    assert [row.found for row in found.known_groups.orders] == ["not told apart", "in order"]
    assert not found.known_groups.in_order
    assert any("did not come out in order" in warning for warning in found.warnings)
    reversed_ = measured(plan, sampled, judge_by(lambda q, r: 2 - knows(q, r)), tmp_path / "reversed")
    assert [row.found for row in reversed_.known_groups.orders] == ["not told apart", "reversed"]


def test_a_stopped_judging_asks_nothing_twice_and_ends_the_same(tmp_path: Path) -> None:
    sampled = two_systems()
    plan = plan_of(sampled, [EMPATHY, FLUENCY], pairs=True, known_groups=True)
    good = judge_by(warmth, lambda a, b: "A" if a.startswith("Warm") else "B")
    answered = 0

    def killed(question: str, before: int) -> ChatReply | CallFailure:
        nonlocal answered
        if answered == 40:
            raise KeyboardInterrupt
        answered += 1
        return good(question, before)

    with pytest.raises(KeyboardInterrupt):
        ask(plan, killed, tmp_path)
    judged, model = ask(plan, good, tmp_path)
    whole, all_of_it = ask(plan, good, tmp_path / "whole")
    assert judged == whole
    assert 0 < model.asked.total() <= all_of_it.asked.total() - 40 + model.concurrency
    again, nothing = ask(plan, good, tmp_path)
    assert again == whole
    assert nothing.asked.total() == 0


@pytest.mark.parametrize("text", INJECTIONS)
def test_nothing_that_a_dialogue_says_becomes_an_instruction(text: str) -> None:
    """Talk, replies and human reply each stay inside one JSON string; all other lines are those of a harmless talk."""

    def prompts(said: str) -> list[list[str]]:
        talks = [
            Conversation(
                id=talk.id,
                turns=[turn.__class__(turn.id, turn.parent, turn.speaker, said, turn.strategy) for turn in talk.turns],
            )
            for talk in dialogues(1, turns=1)
        ]
        sampled = sampled_of(talks, one=lambda c, t: said, two=lambda c, t: f"{said}!")
        plan = plan_of(sampled, [EMPATHY], pairs=True)
        return [request.messages[-1].content.splitlines() for request in plan.requests()]

    for hostile, plain in zip(prompts(text), prompts("plain"), strict=True):
        assert len(hostile) == len(plain)
        for shown, usual in zip(hostile, plain, strict=True):
            if shown != usual:
                value = json.loads(shown)
                assert (value["text"] if isinstance(value, dict) else value).rstrip("!") == text.rstrip("!")


def test_a_rubrics_braces_are_left_alone() -> None:
    rubric = Rubric(name="odd", version=1, question="{{reply}} and {x}?", scale={0: "{{talk}}", 1: "y"})
    request = plan_of(two_systems(), [rubric]).requests()[0]
    assert "{{reply}} and {x}?" in request.messages[-1].content
    assert "0: {{talk}}" in request.messages[-1].content


def test_warnings_name_blank_replies_missing_turns_and_a_judge_that_mined(tmp_path: Path) -> None:
    sampled = sampled_of(dialogues(), blank=lambda c, t: None if c == "d0" else "x")
    plan = plan_of(sampled, [EMPATHY], reference="hidden")
    found = measured(plan, sampled, judge_by(warmth), tmp_path, miners=["rule:unequal", "Scripted@1a2b3c4d"])
    told = " ".join(found.warnings)
    assert "blank has no text at 2 of the turns" in told
    assert found.also_mined == ["Scripted@1a2b3c4d"]
    assert "scripted also judged the preferences that were trained on (Scripted@1a2b3c4d)" in found.warnings[0]
    assert "Known groups were not judged" in told
    clean = measured(plan, sampled, judge_by(warmth), tmp_path, miners=["rule:unequal"])
    assert clean.also_mined == []
    assert "also judged" not in " ".join(clean.warnings)


def test_what_is_written_can_be_read_and_does_not_tell_raters_whose_reply_it_is(tmp_path: Path) -> None:
    sampled = two_systems()
    plan = plan_of(sampled, [EMPATHY], known_groups=True)
    judged, model = ask(plan, judge_by(warmth), tmp_path)
    draws = Draws(permutations=10, resamples=10)
    found = figures(judged, plan, sampled, judge="scripted", identity=model.identity, draws=draws)
    write_judging(tmp_path, judged, plan, found)
    read = read_judgements(tmp_path)
    assert sorted(each.length for own in read.values() for each, known in own if not known) == sorted(
        each.length for each in judged.judgements
    )
    assert len({item_of(each) for each in judged.judgements}) == 2 * 12
    first = judged.judgements[0]
    assert {each.reference for each, _ in read[item_of(first)]} == {True, False}
    sheet = (tmp_path / "sheet.csv").read_text(encoding="utf-8-sig")
    assert sheet.splitlines()[0] == "item,rater,rating,quality,question,scale,talk,reply"
    assert "warm" not in sheet.replace("Warm", "").replace("Is it warm?", "")
    assert all(sheet.count(item_of(each)) == 1 for each in judged.judgements)


def test_sheets_open_in_a_spreadsheet(tmp_path: Path) -> None:
    """A byte-order mark says UTF-8, no cell is a formula, no item a number; what stands there reads back equal."""
    sampled = two_systems()
    replies = {
        name: {key: f"=HYPERLINK({text!r})" for key, text in own.items()} for name, own in sampled.replies.items()
    }
    sampled = sampled._replace(replies=replies)
    plan = plan_of(sampled, [EMPATHY])
    judged, model = ask(plan, judge_by(warmth), tmp_path)
    draws = Draws(permutations=10, resamples=10)
    write_judging(
        tmp_path, judged, plan, figures(judged, plan, sampled, judge="s", identity=model.identity, draws=draws)
    )
    assert (tmp_path / "sheet.csv").read_bytes().startswith(b"\xef\xbb\xbfitem,rater,rating")
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["reply"][:2] for row in rows} == {"'="}
    written = sorted(text for own in replies.values() for text in own.values())
    assert sorted(from_sheet_cell(row["reply"]) for row in rows) == written


def test_an_item_that_looks_like_a_number_begins_with_a_letter() -> None:
    names = [item_of(Judgement("s", "d", str(turn), "r", False, "done", None, 0)) for turn in range(3000)]
    assert len(set(names)) == 3000
    assert not any(re.fullmatch(r"\d+(e\d+)?", name) for name in names)
    assert any(name.startswith("x") for name in names)


def test_every_question_is_in_the_users_words(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    for name, text in shipped_prompts("judge").items():
        (tmp_path / f"judge/{name}.txt").write_text(f"Mein {name}: {text}", encoding="utf-8")
    plan = plan_of(two_systems(), [EMPATHY], pairs=True, known_groups=True, prompts=str(tmp_path))
    chats = [[message.content for message in request.messages] for request in plan.requests()]
    assert all(system.startswith("Mein system: ") for system, _ in chats)
    assert {user[:12] for _, user in chats} == {"Mein score: ", "Mein duel: T"}
    assert len([user for _, user in chats if "\n\nMein reference: " in user]) == len(plan.scorings) / 2
