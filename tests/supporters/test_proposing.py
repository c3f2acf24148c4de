"""What a supporter proposes: how many, of which strategies, with which texts, each by its own seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
import torch

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.planning.calibration import Calibration
from esckit.rendering import supporter_turns
from esckit.strategy import ESCONV
from esckit.supporters import Supporter
from esckit.supporters.proposing import Candidate, TurnRequest
from esckit.supporters.supporter_folder import Kind, SupporterCard
from tests.supporters.known import RANKED, SHARES, Known, known
from tests.tiny import starter_dialogues, talk

KINDS: Final[tuple[Kind, ...]] = ("coupled", "decoupled")
HOT: Final = Decoding(temperature=3.0, top_p=1.0, max_new_tokens=8)
ANY: Final = Decoding(temperature=1.0, top_p=1.0)
HELLO: Final = talk(("seeker", "Hello"), ("supporter", "Hi", "Others"), ("seeker", "I panic"), conversation_id="hello")


def labels_of(candidates: Sequence[Candidate]) -> list[str | None]:
    return [candidate.strategy for candidate in candidates]


# ---------------------------------------------------------------------------------------------------------- strategies


def test_greedy_planning_takes_the_likeliest_each_once() -> None:
    _, supporter = known()
    (found,) = supporter.propose([TurnRequest(HELLO, "0", 0, n=3, wording=None)])
    assert labels_of(found) == RANKED[:3]
    assert [candidate.text for candidate in found] == [None] * 3
    for candidate in found:
        assert dict(candidate.strategy_probabilities or {}) == pytest.approx(
            dict(zip(ESCONV.labels, SHARES, strict=True))
        )
    (all_of_them,) = supporter.propose([TurnRequest(HELLO, "0", 0, n=99, wording=None)])
    assert labels_of(all_of_them) == RANKED


def test_other_planning_draws_each_on_its_own() -> None:
    _, supporter = known()
    (found,) = supporter.propose([TurnRequest(HELLO, "0", 0, n=4000, planning=ANY, wording=None)])
    counts = Counter(labels_of(found))
    for label, share in zip(ESCONV.labels, SHARES, strict=True):
        assert abs(counts[label] / 4000 - share) < 5 * (share * (1 - share) / 4000) ** 0.5
    pairs = Counter(zip(labels_of(found)[::2], labels_of(found)[1::2], strict=True))
    best = RANKED[0]
    assert abs(pairs[best, best] / 2000 - 0.16) < 5 * (0.16 * 0.84 / 2000) ** 0.5, "the same label may come twice"
    by_seed = Counter(
        supporter.propose([TurnRequest(HELLO, "0", seed, planning=ANY, wording=None)])[0][0].strategy
        for seed in range(1000)
    )
    assert abs(by_seed[best] / 1000 - 0.4) < 5 * (0.24 / 1000) ** 0.5


@pytest.mark.parametrize("planning", [Decoding(greedy=True), ANY])
@pytest.mark.parametrize("wording", [None, Decoding()])
def test_what_is_excluded_never_comes(planning: Decoding, wording: Decoding | None) -> None:
    _, supporter = known()
    out = frozenset(RANKED[:2])
    request = TurnRequest(HELLO, "0", 0, n=500, planning=planning, wording=wording, excluded=out)
    found = labels_of(supporter.propose([request])[0])
    assert set(found) == set(RANKED[2:])
    assert supporter.propose([replace(request, excluded=frozenset(ESCONV.labels))]) == [[]]


@pytest.mark.parametrize("planning", [Decoding(greedy=True), ANY])
def test_strategies_without_replies_come_only_where_no_text_is_wanted(planning: Decoding) -> None:
    _, supporter = known(frozenset(RANKED[1:3]))
    request = TurnRequest(HELLO, "0", 0, n=500, planning=planning)
    assert set(labels_of(supporter.propose([request])[0])) == set(RANKED[1:3])
    assert set(labels_of(supporter.propose([replace(request, wording=None)])[0])) == set(RANKED)
    with pytest.raises(ModelError, match=f"no replies under the strategy '{RANKED[0]}'"):
        supporter.propose([replace(request, strategy=RANKED[0])])


def test_a_calibration_moves_the_choice() -> None:
    _, supporter = known()
    offsets = tuple(5.0 if label == RANKED[-1] else 0.0 for label in ESCONV.labels)
    moved = supporter.calibrated(Calibration(1.0, offsets))
    assert labels_of(moved.propose([TurnRequest(HELLO, "0", 0)])[0]) == [RANKED[-1]]
    assert labels_of(supporter.propose([TurnRequest(HELLO, "0", 0)])[0]) == [RANKED[0]]
    assert moved.identity != supporter.identity


# --------------------------------------------------------------------------------------------------------------- texts


def test_a_given_strategy_draws_so_many_texts_and_plans_nothing() -> None:
    parts, supporter = known()
    (found,) = supporter.propose([TurnRequest(HELLO, "0", 0, n=5, strategy="Others")])
    assert labels_of(found) == ["Others"] * 5
    assert len({candidate.text for candidate in found}) == 5, "each by a seed of its own"
    assert [(c.strategy_probabilities, c.finish) for c in found] == [(None, "length")] * 5
    assert parts.scored == []


def test_a_text_does_not_depend_on_how_many_are_wanted() -> None:
    _, supporter = known()
    few, many = (supporter.propose([TurnRequest(HELLO, "0", 0, n=n)])[0] for n in (2, 6))
    assert many[:2] == few
    (given,) = supporter.propose([TurnRequest(HELLO, "0", 0, strategy=RANKED[0])])
    assert given[0].text == few[0].text, "nor on who chose the strategy"
    assert supporter.propose([TurnRequest(HELLO, "0", 1)])[0][0].text != few[0].text


def test_a_planner_alone_proposes_no_text() -> None:
    planner = Supporter(SupporterCard("decoupled", "hidden", generator="none"), Known(), None)
    assert labels_of(planner.propose([TurnRequest(HELLO, "0", 0, wording=None)])[0]) == RANKED[:1]
    for strategy in (None, "Others"):
        with pytest.raises(ModelError, match="only plans: give it a generator"):
            planner.propose([TurnRequest(HELLO, "0", 0, strategy=strategy)])


def test_requests_of_all_kinds_mix_and_contexts_are_read_together() -> None:
    parts, supporter = known()
    other, shown = talk(("seeker", "Hey"), conversation_id="other"), {"1": "Others"}
    requests = [
        TurnRequest(HELLO, "0", 0, n=2),
        TurnRequest(other, "0", 1, wording=None),
        TurnRequest(HELLO, "2", 2),
        TurnRequest(HELLO, "2", 3, shown),
        TurnRequest(HELLO, "2", 4, strategy="Others"),
    ]
    together = supporter.propose(requests)
    assert parts.scored == [("hello", ["0", "2"], {}), ("other", ["0"], {}), ("hello", ["2"], shown)]
    assert together == [supporter.propose([request])[0] for request in requests]
    assert [len(each) for each in together] == [2, 1, 1, 1, 1]
    assert [each[0].text is None for each in together] == [False, True, False, False, False]
    assert supporter.propose([]) == []


def test_a_candidate_is_a_turn_that_says_how_it_came_about() -> None:
    told = Candidate("Others", "Hm.", {"Others": 0.1234567, "Question": 0.8765433}, "stop", {"forced": True})
    assert told.turn("7", "6", "me") == Turn(
        "7",
        "6",
        "supporter",
        "Hm.",
        "Others",
        source="me",
        extra={"forced": True, "strategy_probabilities": {"Others": 0.123457, "Question": 0.876543}, "finish": "stop"},
    )
    assert Candidate("Others").turn("7", None, "me").extra == {}


# ------------------------------------------------------------------------------------------------------ real supporters


def mixed(conversations: Sequence[Conversation]) -> list[TurnRequest]:
    """Free, given and several, greedy and drawn, about every turn of the dialogues."""
    places = [(c, turn.parent) for c in conversations for turn in supporter_turns(c)]
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"strategy": "Question", "n": 3},
        {"planning": HOT, "n": 2},
        {"planning": HOT, "wording": None},
        {"wording": Decoding(greedy=True, max_new_tokens=6)},
    )
    return [
        TurnRequest(c, parent, seed, **{"wording": HOT, **kinds[seed % len(kinds)]})
        for seed, (c, parent) in enumerate(places)
    ]


def untold(found: Sequence[Sequence[Candidate]]) -> list[list[tuple[str | None, str | None, str | None]]]:
    """Without probabilities, whose last bits depend on the batch."""
    return [[(c.strategy, c.text, c.finish) for c in candidates] for candidates in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_about_several_dialogues_equals_one_by_one(kind: Kind, supporters: dict[Kind, Supporter]) -> None:
    supporter, requests = supporters[kind], mixed(starter_dialogues(3, 10))
    torch.manual_seed(1)
    state, adapter = torch.get_rng_state(), active(supporter)
    together = supporter.propose(requests)
    assert torch.equal(torch.get_rng_state(), state)
    assert active(supporter) == adapter
    torch.manual_seed(2)
    one_by_one = [supporter.propose([request])[0] for request in requests]
    assert untold(one_by_one) == untold(together)
    assert untold(supporter.propose(requests[::-1])[::-1]) == untold(together)
    for one, other in zip(one_by_one, together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert dict(a.strategy_probabilities or {}) == pytest.approx(dict(b.strategy_probabilities or {}), abs=1e-5)
    assert len({c.text for candidates in together for c in candidates}) > len(requests) // 2


def active(supporter: Supporter) -> str:
    return str(supporter.planner.backbone.model.active_adapter)  # type: ignore[attr-defined]


@pytest.mark.parametrize("left", ["planner", "generator"])
def test_the_adapter_that_was_active_is_active_again(left: str, decoupled: Supporter) -> None:
    model: Any = decoupled.planner.backbone.model  # type: ignore[attr-defined]
    before = model.active_adapter
    wanted = untold(decoupled.propose(mixed(starter_dialogues(1, 8))))
    try:
        model.set_adapter(left)
        assert untold(decoupled.propose(mixed(starter_dialogues(1, 8)))) == wanted, "whoever left which adapter active"
        assert model.active_adapter == left
        decoupled.score(HELLO, [HELLO.turns[1]], {})
        assert model.active_adapter == left

        def stop(_: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            decoupled.propose([TurnRequest(HELLO, "2", 0)], stop)
        assert model.active_adapter == left, "also where a reply was interrupted"
    finally:
        model.set_adapter(before)


def test_stored_replies_of_different_dialogues_in_one_batch_equal_one_by_one(retrieval: Supporter) -> None:
    places = [(c, turns[-1].parent) for c in starter_dialogues(10, 10) if (turns := supporter_turns(c))]
    requests = [TurnRequest(c, parent, 0, n=2, strategy="Question") for c, parent in places]
    together = retrieval.propose(requests)
    assert together == [retrieval.propose([request])[0] for request in requests]
    assert all(len({candidate.text for candidate in each}) == 2 for each in together)


@pytest.mark.parametrize("kind", [*KINDS, "retrieval"])
def test_a_text_is_unlike_what_it_must_not_be(
    kind: Any, supporters: dict[str, Supporter], retrieval: Supporter
) -> None:
    supporter = {**supporters, "retrieval": retrieval}[kind]
    request = TurnRequest(HELLO, "2", 0, strategy="Question", wording=HOT, unlike=frozenset())
    said: list[str] = []
    for _ in range(4):
        told: list[str] = []
        ((found,),) = supporter.propose([replace(request, unlike=frozenset(said))], told.append)
        assert found.text
        assert found.text not in said
        assert "".join(told) == found.text
        said.append(found.text)
    greedy = replace(request, wording=Decoding(greedy=True, max_new_tokens=4))
    ((first,),) = supporter.propose([greedy])
    left = supporter.propose([replace(greedy, unlike=frozenset({str(first.text)}))])[0]
    assert str(first.text) not in {candidate.text for candidate in left}
    assert (left == []) is (kind in KINDS), "a model can greedily say one thing alone"
