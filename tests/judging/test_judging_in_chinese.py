"""A judge, a refiner and a baseline are asked in the dialogue's language."""

import re

from esckit.conversation import Conversation
from esckit.corpora import load_corpus
from esckit.decoding import Decoding
from esckit.judging.judge_questions import Pairing, Scoring, duel_requests, score_request
from esckit.judging.plan import in_language
from esckit.judging.rubric import load_rubrics
from esckit.judging.sampling import sample_written
from esckit.mining.self_refinement.asking import refine_request
from esckit.prompts.own import Prompts
from esckit.rendering import supporter_turns
from esckit.strategy import ESCONV
from esckit.supporters.baselines import METHODS, Asked, request_for
from esckit.supporters.proposing import TurnRequest

GREEDY = Decoding(greedy=True)


def dialogues(name: str) -> list[Conversation]:
    return load_corpus(name).test


def test_scores_and_duels_are_asked_in_the_language_of_the_dialogue_where_rubrics_have_it() -> None:
    for name, source, says, opening in (
        ("starter", "empath", "You assess replies", "The talk so far:"),
        ("starter-zh", "empath", "由陌生人写成", "此前的对话："),
        ("starter-zh", "decoupled-esc", "You assess replies", "The talk so far:"),
    ):
        turns, texts = sample_written(dialogues(name), 3, 0)
        for turn in turns:
            rubrics = in_language(load_rubrics(source), turn, None)
            scoring = score_request(Scoring("s", turn, texts[turn.key], rubrics[0], True), GREEDY)
            duels = duel_requests(Pairing("s", "t", turn, (texts[turn.key], "？")), rubrics, GREEDY)
            for request in (scoring, *duels):
                assert says in request.messages[0].content
                assert request.messages[1].content.startswith(opening)


def test_a_refiner_is_told_strategies_with_both_names() -> None:
    tree = dialogues("starter-zh")[0]
    draft = supporter_turns(tree)[1]
    asked = {
        part: refine_request(tree, draft, part, ESCONV, GREEDY, Prompts("self_refinement"), 0).messages
        for part in ("coupled", "generator")
    }
    assert "- Question（提问）：询问情况" in asked["coupled"][1].content
    label = str(draft.strategy)
    assert (
        f"回复的支持策略：{ESCONV.shown_in(label, 'zh')}。{ESCONV.definition_in(label, 'zh')}"
        in asked["generator"][1].content
    )
    assert asked["coupled"][0].content.startswith("你帮助一位支持者")


def test_every_question_of_every_baseline_is_asked_in_chinese() -> None:
    tree = dialogues("starter-zh")[0]
    turn = supporter_turns(tree)[2]
    for parent in (turn.parent, None):
        asked = Asked(TurnRequest(tree, parent, 0), ESCONV, 0, "例子")
        for question in {question for method in METHODS.values() for question in method.questions}:
            system, talk = request_for(
                asked, question, dict.fromkeys(question.shows, "答"), Prompts("baselines")
            ).messages
            assert re.match("你|一位支持者", system.content)
            assert talk.content.startswith("到目前为止的对话。")
            assert ("（还没有人说话" in talk.content) == (parent is None)
            if "strategies" in question.slots:
                assert "Question（提问）、" in system.content
