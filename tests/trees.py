"""Conversations for tests: a small one by hand, and random ones that keep every rule."""

from typing import Any

from hypothesis import strategies as st

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation, Preference, Turn, Verdict
from esckit.strategy import TAXONOMIES


def small_tree(**changes: Any) -> Conversation:
    """Two openings, a gold reply with two alternatives (one only planned), and one preference."""
    turns = [
        Turn("0", None, "seeker", "I failed my exam."),
        Turn("1", "0", "supporter", "That must hurt.", "Reflection of feelings"),
        Turn("2", "1", "seeker", "It does."),
        Turn("m", "0", "supporter", "Study more.", "Providing Suggestions", source="model"),
        Turn("p", "0", "supporter", None, "Question", source="model"),
        Turn("alt", None, "supporter", "Hello!", "Others", source="model"),
    ]
    fields: dict[str, Any] = {"id": "c", "turns": turns, "preferences": [Preference("1", "m", "turn")], **changes}
    return Conversation(**fields)


texts = st.text(max_size=12)
names = st.text(min_size=1, max_size=6)
scores = st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=2)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
extras = st.dictionaries(names, json_values, max_size=2)


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    """A verdict in any state."""
    judge, rubric, explanation = draw(names), draw(names), draw(st.none() | texts)
    if draw(st.booleans()):
        return Verdict(judge, rubric, explanation=explanation, state=draw(st.sampled_from(["unparsed", "refused"])))
    return Verdict(judge, rubric, draw(st.none() | st.sampled_from(PSYCHOLOGICAL_ERRORS)), draw(scores), explanation)


@st.composite
def trees(draw: st.DrawFn) -> Conversation:
    """A conversation with branches, planned turns, verdicts, preferences and everything optional."""
    taxonomy = draw(st.none() | st.sampled_from([*TAXONOMIES]))
    turns: list[Turn] = []
    for number in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from([None, *(turn.id for turn in turns if not turn.planned)]))
        turns.append(draw(_turns(str(number), parent, TAXONOMIES[taxonomy].labels if taxonomy else ())))
    return Conversation(
        id=draw(names),
        turns=turns,
        language=draw(st.sampled_from(["en", "zh"])),
        taxonomy=taxonomy,
        situation=draw(st.none() | texts),
        labels=draw(st.dictionaries(names, texts, max_size=2)),
        preferences=[draw(_preferences(one, other)) for one, other in draw(_pairs(turns))],
        provenance=draw(extras),
        extra=draw(extras),
    )


@st.composite
def _turns(draw: st.DrawFn, turn_id: str, parent: str | None, labels: tuple[str, ...]) -> Turn:
    supporter = draw(st.booleans())
    strategy = draw(st.none() | st.sampled_from(labels)) if supporter and labels else None
    text = None if strategy and draw(st.booleans()) else draw(texts)
    return Turn(
        id=turn_id,
        parent=parent,
        speaker="supporter" if supporter else "seeker",
        text=text,
        strategy=strategy,
        source=draw(st.sampled_from(["human", "a-model"])),
        scores=draw(scores),
        verdicts=draw(st.lists(verdicts(), max_size=2)),
        extra=draw(extras),
    )


def _pairs(turns: list[Turn]) -> st.SearchStrategy[list[tuple[Turn, Turn]]]:
    supporter = [turn for turn in turns if turn.speaker == "supporter"]
    pairs = [(a, b) for a in supporter for b in supporter if a.id != b.id and a.parent == b.parent and _aspects(a, b)]
    return st.lists(st.sampled_from(pairs), max_size=2) if pairs else st.just([])


def _aspects(one: Turn, other: Turn) -> list[Any]:
    """The aspects under which two siblings can be preferred."""
    spoken = not one.planned and not other.planned
    rules = {
        "strategy": None not in (one.strategy, other.strategy) and one.strategy != other.strategy,
        "response": spoken and one.strategy == other.strategy,
        "turn": spoken,
    }
    return [aspect for aspect, holds in rules.items() if holds]


@st.composite
def _preferences(draw: st.DrawFn, chosen: Turn, rejected: Turn) -> Preference:
    return Preference(
        chosen.id,
        rejected.id,
        draw(st.sampled_from(_aspects(chosen, rejected))),
        reason=draw(st.none() | st.sampled_from(PSYCHOLOGICAL_ERRORS)),
        judge=draw(st.none() | names),
        explanation=draw(st.none() | texts),
    )
