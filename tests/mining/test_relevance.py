"""How near the sides of pairs are to the seeker's words, with vectors made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from esckit.conversation import Conversation, Preference, Turn
from esckit.measures.encoders import relevance_of
from esckit.mining.pairs import pairs_of
from esckit.mining.relevance import pair_relevance

VECTORS = {
    "I lost my job.": (1.0, 0.0),
    "It hurts.": (0.0, 1.0),
    "Your job is gone.": (0.6, 0.8),
    "Nice weather.": (0.8, -0.6),
    "And it hurts.": (0.0, 1.0),
}


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    assert len(set(texts)) == len(texts)
    return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def tree(name: str, seeker: Sequence[str], chosen: str | None, rejected: str | None, aspect: str) -> Conversation:
    """Seeker's turns with a reply in between, and two replies to the last one."""
    turns: list[Turn] = []
    for number, text in enumerate(seeker):
        turns.append(Turn(f"s{number}", turns[-1].id if turns else None, "seeker", text))
        turns.append(Turn(f"r{number}", turns[-1].id, "supporter", "Said before and not read.", "Question"))
    parent = turns.pop().parent if turns else None
    for place, side in (("one", chosen), ("two", rejected)):
        turns.append(Turn(place, parent, "supporter", side, "Question" if place == "one" else "Others", source=place))
    return Conversation(name, turns, preferences=[Preference("one", "two", aspect)], taxonomy="esconv")  # type: ignore[arg-type]


def test_means_are_over_the_seekers_turns_and_the_pairs() -> None:
    near = tree("a", ["I lost my job.", "It hurts."], "Your job is gone.", "Nice weather.", "turn")
    far = tree("b", ["It hurts."], "And it hurts.", "Nice weather.", "turn")
    found = pair_relevance(pairs_of([near, far], "coupled"), embed)
    assert found is not None
    assert found["pairs"] == 2
    assert found["chosen"] == pytest.approx(((0.6 + 0.8) / 2 + 1) / 2)
    assert found["rejected"] == pytest.approx(((0.8 - 0.6) / 2 - 0.6) / 2)
    assert found["difference"] == pytest.approx(found["chosen"] - found["rejected"])
    assert found["likeness"] == pytest.approx((0.0 - 0.6) / 2, abs=1e-6)
    for name in ("chosen", "rejected", "difference", "likeness"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high


def test_intervals_are_drawn_over_dialogues() -> None:
    alike = [tree(name, ["It hurts."], "Your job is gone.", "Nice weather.", "turn") for name in "abc"]
    found = pair_relevance(pairs_of(alike, "coupled"), embed)
    assert found is not None
    assert found["chosen_interval"] == pytest.approx([0.8, 0.8])
    assert found["difference_interval"] == pytest.approx([1.4, 1.4])  # a difference may be above 1


def test_what_has_no_words_is_left_out() -> None:
    labels = tree("a", ["It hurts."], None, None, "strategy")
    silent = tree("b", [], "Your job is gone.", "Nice weather.", "turn")
    blank = tree("c", ["It hurts."], "Your job is gone.", " ", "turn")
    assert pair_relevance(pairs_of([labels], "planner"), embed) is None
    assert pair_relevance(pairs_of([silent, blank], "coupled"), embed) is None
    assert pair_relevance([], embed) is None


def test_it_is_the_relevance_of_predictions() -> None:
    unit = {text: np.array(vector) for text, vector in VECTORS.items()}
    (pair,) = pairs_of(
        [tree("a", ["I lost my job.", "It hurts."], "Your job is gone.", "Nice weather.", "turn")], "coupled"
    )
    found = pair_relevance([pair], embed)
    assert found is not None
    assert found["chosen"] == pytest.approx(relevance_of(unit, ["I lost my job.", "It hurts."], "Your job is gone."))
