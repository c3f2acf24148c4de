"""Empath's six scales: their wording in two languages, safety by quoted answers, and the card of a role."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.protocol import CallFailure, ChatReply
from esckit.conversation import Conversation
from esckit.errors import EsckitError, RoleError
from esckit.judging.judge_run import cards_of, check_options
from esckit.judging.plan import JudgingOptions, figures, in_language, make_plan
from esckit.judging.rubric import QUOTE, Rubric, load_rubrics, read_rubric
from esckit.judging.sampling import SampledTurns, sample_turns
from esckit.measures import Prediction
from esckit.measures.intervals import Draws
from esckit.roles.bank import read_bank
from tests.chat_models.scripted import Script
from tests.judging.judged import dialogues, part, predicted, quality
from tests.judging.test_plan import ask
from tests.judging.test_rubric import GOOD, written

SAFETY = next(rubric for rubric in load_rubrics("empath") if rubric.name == "safety")
ROLE = read_bank().names[0]
FAST = Draws(permutations=50, resamples=200)


def sampled(talks: list[Conversation], **say: Callable[[str, str], str | None]) -> SampledTurns:
    return sample_turns({name: predicted(talks, own) for name, own in say.items()}, talks, 100, 0)


def options(**told: Any) -> JudgingOptions:
    return JudgingOptions(model="scripted", reference="hidden", rubrics="empath", **told)


def checking(problems: Callable[[str], dict[str, str]]) -> Script:
    """A judge that answers yes to the problems that it finds in a reply, with these quotes, and scores 1 elsewhere."""

    def script(question: str, before: int) -> ChatReply | CallFailure:
        if "The reply to check:" not in question:
            return ChatReply('{"explanation": "x", "score": 1}', "stop")
        found = problems(part(question, "The reply to check:"))
        answers = {f"{name}{QUOTE}": found.get(name, "") for name in SAFETY.problems}
        answers |= {name: "yes" if name in found else "no" for name in SAFETY.problems}
        return ChatReply(json.dumps(answers), "stop")

    return script


def judged(found: SampledTurns, rubrics: Sequence[Rubric], script: Script, folder: Path, **told: Any) -> Any:
    plan = make_plan(found, rubrics, options(), **told)
    answers, model = ask(plan, script, folder)
    return answers, figures(answers, plan, found, judge="scripted", identity=model.identity, draws=FAST)


def test_six_scales_have_the_papers_points_in_two_languages() -> None:
    rubrics = {rubric.name: rubric for rubric in load_rubrics("empath")}
    assert {name: rubric.highest for name, rubric in rubrics.items()} == {
        **{"fluency": 3, "role_alignment": 5, "skillfulness": 5, "empathy": 5, "helpfulness": 3, "safety": 1}
    }
    for rubric in rubrics.values():
        assert (rubric.lowest, rubric.languages) == (0, ("en", "zh"))
        chinese = rubric.worded("zh")
        texts = [chinese.question, chinese.criteria, *chinese.scale.values(), *chinese.problems.values()]
        assert not [text for text in texts if text.isascii()]
        assert chinese.reply.model_json_schema() == rubric.reply.model_json_schema()
    assert len(SAFETY.problems) >= 8
    assert [name for name, rubric in rubrics.items() if rubric.needs] == ["role_alignment"]


def test_a_judge_is_asked_in_the_dialogues_language_where_all_rubrics_have_it() -> None:
    talks = dialogues(2)
    talks[1] = replace(talks[1], language="zh")
    found = sampled(talks, one=lambda c, t: "Yes.", two=lambda c, t: "No.")

    def languages(**told: Any) -> dict[str, set[bool]]:
        plan = make_plan(found, load_rubrics(told.pop("rubrics", "empath")), options(pairs=True, **told))
        chinese: dict[str, set[bool]] = {"d0": set(), "d1": set()}
        for request in plan.requests():
            system, user = (message.content for message in request.messages)
            assert ("你来评估" in system) == ("此前的对话" in user)
            chinese["d1" if "about d1" in user else "d0"].add("你来评估" in system)
        return chinese

    assert languages() == {"d0": {False}, "d1": {True}}
    assert languages(language="en") == {"d0": {False}, "d1": {False}}
    assert languages(rubrics="decoupled-esc") == {"d0": {False}, "d1": {False}}, "it has no Chinese"
    spanish = found.turns[0]._replace(language="es")
    assert {rubric.language for rubric in in_language(load_rubrics("empath"), spanish, None)} == {"en"}


def test_a_language_that_a_rubric_lacks_is_refused() -> None:
    with pytest.raises(EsckitError, match="the rubric empathy is not worded in 'fr', only in en, zh: write its"):
        check_options(options(language="fr"))


def test_a_yes_counts_with_words_of_the_reply_and_is_unparsed_without(tmp_path: Path) -> None:
    """d0: shown; d1: words that the reply does not hold, or none; d2: one shown and one not; elsewhere nothing."""
    said = {
        "d0": {"names_medicine": "take two pills"},
        "d1": {"gives_diagnosis": "You have a depression.", "blames_person": "  "},
        "d2": {"names_medicine": "take two  pills", "promises_secrecy": "nobody will know"},
    }

    def problems(reply: str) -> dict[str, str]:
        return next((found for name, found in said.items() if f"for {name}" in reply), {})

    found = sampled(dialogues(4), pills=lambda c, t: f"Just take\ntwo pills for {c}, {t}.")
    answers, figured = judged(found, [SAFETY], checking(problems), tmp_path)
    by_dialogue = {each.conversation_id: (each.state, each.score) for each in answers.judgements}
    assert by_dialogue == {"d0": ("done", 0), "d1": ("unparsed", None), "d2": ("done", 0), "d3": ("done", 1)}
    (score,) = figured.scores
    assert (score.n, score.mean, score.states.unparsed) == (6, pytest.approx(2 / 6), 2)
    shares = {row.rubric: row for row in figured.problems}
    assert set(shares) == set(SAFETY.problems)
    assert (shares["names_medicine"].n, shares["names_medicine"].mean) == (8, 0.5)
    assert 0 <= shares["names_medicine"].interval.low < 0.5 < shares["names_medicine"].interval.high <= 1
    assert (shares["gives_diagnosis"].n, shares["gives_diagnosis"].mean) == (6, 0)
    assert {name for name, row in shares.items() if row.states.unparsed == 2} == {
        *("gives_diagnosis", "blames_person", "promises_secrecy")
    }
    assert any(
        f"6 of {8 * len(SAFETY.problems)} answers about problems are unparsed" in told for told in figured.warnings
    )


def test_a_refusal_is_one_of_each_question(tmp_path: Path) -> None:
    found = sampled(dialogues(2), one=lambda c, t: "Yes.")
    _, figured = judged(found, [SAFETY], lambda question, before: ChatReply("I cannot.", "refused"), tmp_path)
    assert {(row.n, row.mean, row.states.refused) for row in figured.problems} == {(0, None, 4)}


def test_the_known_groups_problems_are_counted_too(tmp_path: Path) -> None:
    found = sampled(dialogues(3), one=lambda c, t: "Yes.")
    plan = make_plan(found, [SAFETY], options(known_groups=True))
    script = checking(lambda reply: {"blames_person": "Gold"} if reply.startswith("Gold") else {})
    answers, model = ask(plan, script, tmp_path)
    known = figures(answers, plan, found, judge="scripted", identity=model.identity, draws=FAST).known_groups
    assert known
    blamed = {row.system: row.mean for row in known.problems if row.rubric == "blames_person"}
    assert blamed == {"gold": 1, "shuffled": 1, "stock": 0}


def with_roles(talks: list[Conversation], roles: dict[str, str | None]) -> list[Prediction]:
    """Rows of a system that says in which role it spoke, dialogue by dialogue; of others it says nothing."""
    rows = predicted(talks, lambda c, t: "Yes.")
    return [
        replace(row, extra={"role": roles[str(row.conversation_id)]}) if row.conversation_id in roles else row
        for row in rows
    ]


def test_role_alignment_is_asked_with_the_card_of_the_role_that_spoke() -> None:
    """d0 has a role of its own; at d1 the reply has one; at d2 the reply is a counsellor's, at d3 nobody has any."""
    talks = dialogues(4)
    for place in (0, 2):
        talks[place] = replace(talks[place], labels={"role": ROLE})
    talks[1] = replace(talks[1], language="zh")
    rows = {"one": with_roles(talks, {"d1": ROLE, "d2": None})}
    plan = make_plan(sample_turns(rows, talks, 100, 0), load_rubrics("empath"), options(), card=cards_of(read_bank()))
    role = read_bank().role(ROLE)
    asked = [scoring for scoring in plan.scorings if scoring.rubric.name == "role_alignment"]
    assert [(each.turn.conversation_id, each.rubric.language) for each in asked] == [
        *[("d0", "en")] * 2,
        *[("d1", "zh")] * 2,
    ]
    assert [role.style[each.rubric.language] in each.card for each in asked] == [True] * 4
    assert sum(scoring.card != "" for scoring in plan.scorings) == 4, "only the scale that needs it is told the card"
    prompts = [request.messages[-1].content for request in plan.requests()]
    assert [quality(text) for text in prompts if "The card of the role" in text] == ["role_alignment"] * 2
    assert plan.without_role == {"one": 4}


def test_without_a_bank_role_alignment_is_left_out_and_the_warning_says_so(tmp_path: Path) -> None:
    talks = [replace(talk, labels={"role": ROLE}) for talk in dialogues(2)]
    found = sampled(talks, one=lambda c, t: "Yes.")
    answers, figured = judged(found, load_rubrics("empath"), checking(lambda reply: {}), tmp_path)
    assert {each.rubric for each in answers.judgements} == {
        *("empathy", "fluency", "helpfulness", "safety", "skillfulness")
    }
    told = "role_alignment was not asked about replies without a role, or without a role bank (4 of one)."
    assert told in figured.warnings
    _, whole = judged(found, load_rubrics("empath"), checking(lambda reply: {}), tmp_path, card=cards_of(read_bank()))
    assert not any("role_alignment was not asked" in warning for warning in whole.warnings)
    assert {row.rubric for row in whole.scores} >= {"role_alignment"}


def test_pairs_are_never_weighed_by_a_quality_that_needs_a_card() -> None:
    found = sampled(dialogues(1), one=lambda c, t: "Yes.", two=lambda c, t: "No.")
    plan = make_plan(found, load_rubrics("empath"), options(pairs=True))
    duels = [text for r in plan.requests() if "Reply A:" in (text := r.messages[-1].content)]
    assert len(duels) == 4
    assert all("- empathy:" in text and "role_alignment" not in text for text in duels)


def test_a_role_or_a_language_that_the_bank_lacks_is_one_sentence() -> None:
    card = cards_of(read_bank())
    with pytest.raises(RoleError, match="no role 'nobody': take one of"):
        card("nobody", "en")
    with pytest.raises(RoleError, match="no texts in 'fr'"):
        card(ROLE, "fr")
    with pytest.raises(EsckitError, match="no rubric of decoupled-esc needs a role: leave bank out"):
        check_options(options(bank="shipped").model_copy(update={"rubrics": "decoupled-esc"}))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("problems: {rude: 'Is it rude?'}\n", "a rubric with problems has the scale 0 (a problem is there) and 1"),
        ("caps: [x]\ntranslations: {zh: {question: 吗, scale: {1: a, 2: b, 3: c}}}\n", "has no caps: leave them out"),
        ("translations: {zh: {question: 吗, scale: {1: a, 2: b}}}\n", "translation 'zh' has other points or problems"),
        ("translations: {zh: {scale: {1: 一, 2: 二, 3: 三}}}\n", "translations.zh.question: field required"),
        ("needs: rolle\n", "needs: input should be 'role'"),
    ],
)
def test_a_broken_rubric_is_one_sentence(more: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(EsckitError) as caught:
        read_rubric(written(tmp_path, GOOD + more))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
