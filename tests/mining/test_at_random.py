"""The control: any label but gold, and what was said elsewhere under it."""

from collections import Counter
from typing import Final

import torch

from esckit.conversation import Conversation
from esckit.mining.at_random import AtRandom
from esckit.rendering import supporter_turns
from esckit.strategy import ESCONV
from esckit.supporters.proposing import Candidate, TurnRequest
from tests.mining.grown import dialogue
from tests.tiny import starter_dialogues, talk

QUE: Final = "Question"


def said(name: str, *replies: str) -> Conversation:
    return talk(("seeker", "I panic"), *(("supporter", text, QUE) for text in replies), conversation_id=name)


def test_labels_are_drawn_evenly_each_once_and_never_an_excluded_one() -> None:
    control, drawn = AtRandom([], ESCONV), Counter[str | None]()
    for seed in range(700):
        (found,) = control.propose([TurnRequest(dialogue(), "1", seed, n=3, excluded=frozenset({QUE}), wording=None)])
        labels = [candidate.strategy for candidate in found]
        assert len(set(labels)) == len(labels) == 3
        drawn.update(labels)
        assert found[0] == Candidate(labels[0], strategy_probabilities=dict.fromkeys(set(ESCONV.labels) - {QUE}, 1 / 7))
    assert set(drawn) == set(ESCONV.labels) - {QUE}
    assert all(abs(count - 300) < 5 * (700 * 3 / 7 * 4 / 7) ** 0.5 for count in drawn.values()), drawn
    (every,) = control.propose([TurnRequest(dialogue(), "1", 0, n=99, excluded=frozenset({QUE}), wording=None)])
    assert {candidate.strategy for candidate in every} == set(drawn)


def test_replies_are_of_other_dialogues_under_the_label() -> None:
    dialogues = starter_dialogues(8, 12)
    said_by = {
        conversation.id: {(turn.strategy, turn.text) for turn in supporter_turns(conversation)}
        for conversation in dialogues
    }
    control = AtRandom(dialogues, ESCONV)
    for conversation in dialogues:
        others = set().union(*(said for name, said in said_by.items() if name != conversation.id))
        requests = [
            TurnRequest(conversation, turn.parent, seed, n=4) for seed, turn in enumerate(supporter_turns(conversation))
        ]
        found = [candidate for each in control.propose(requests) for candidate in each]
        worded = [(candidate.strategy, candidate.text) for candidate in found if candidate.text]
        assert len(worded) > 5
        assert set(worded) <= others


def test_a_given_strategy_draws_texts_of_its_own_and_none_stands_for_nothing() -> None:
    control = AtRandom([said("a", "Why?", "How?"), said("b", "Who?")], ESCONV)
    (found,) = control.propose([TurnRequest(said("c"), "0", 0, n=30, strategy=QUE)])
    assert {candidate.text for candidate in found} == {"Why?", "How?", "Who?"}
    assert {(candidate.strategy, candidate.strategy_probabilities) for candidate in found} == {(QUE, None)}
    (own,) = control.propose([TurnRequest(said("b"), "0", 0, n=30, strategy=QUE)])
    assert {candidate.text for candidate in own} == {"Why?", "How?"}
    assert [c.text for c in control.propose([TurnRequest(said("c"), "0", 0, strategy="Others")])[0]] == [""]


def test_a_text_that_must_be_new_is() -> None:
    control = AtRandom([said("a", "Why?", "How?")], ESCONV)
    wanted = TurnRequest(said("c"), "0", 0, n=20, strategy=QUE, unlike=frozenset({"Why?"}))
    assert {candidate.text for candidate in control.propose([wanted])[0]} == {"How?"}
    nothing = TurnRequest(said("c"), "0", 0, n=20, strategy=QUE, unlike=frozenset({"Why?", "How?"}))
    assert control.propose([nothing]) == [[]]


def test_draws_depend_on_the_request_s_seed_alone() -> None:
    control = AtRandom(starter_dialogues(8, 12), ESCONV)
    requests = [TurnRequest(dialogue(), "1", seed) for seed in range(40)]
    before = torch.get_rng_state()
    together = control.propose(requests)
    assert torch.equal(torch.get_rng_state(), before)
    assert control.propose(requests[::-1]) == together[::-1]
    assert [control.propose([request])[0] for request in requests] == together
    assert len({str(each) for each in together}) > 10


def test_its_identity_says_what_it_draws_from() -> None:
    one, other = AtRandom([said("a", "Why?")], ESCONV), AtRandom([said("a", "How?")], ESCONV)
    assert one.identity == AtRandom([said("a", "Why?")], ESCONV).identity != other.identity
