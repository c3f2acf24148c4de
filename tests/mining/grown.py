"""Trees with preferences, made by hand."""

from esckit.conversation import Aspect, Conversation, Preference, Turn, mined_id
from esckit.rendering import Part
from tests.tiny import talk

GOLD = "Question"


def dialogue(conversation_id: str = "talk") -> Conversation:
    """Three supporter turns (2, 3 and 5), two of them in a row."""
    return talk(
        ("seeker", "I failed my exam."),
        ("seeker", "Again."),
        ("supporter", "That must hurt.", "Reflection of feelings"),
        ("supporter", "What happened?", GOLD),
        ("seeker", "I was ill that day."),
        ("supporter", "You could ask for another date.", "Providing Suggestions"),
        conversation_id=conversation_id,
    )


def prefer(
    conversation: Conversation, gold_id: str, strategy: str | None = None, text: str | None = None
) -> Conversation:
    """Grow a sibling beside a gold turn, and a preference for gold: its aspect follows from what is given."""
    gold = conversation.turn(gold_id)
    strategy = strategy or str(gold.strategy)
    aspect: Aspect = "strategy" if text is None else "response" if strategy == gold.strategy else "turn"
    turn = Turn(mined_id(gold.parent, "m", strategy, text), gold.parent, "supporter", text, strategy, "m")
    return conversation.grow([turn], [Preference(gold_id, turn.id, aspect)])


def grown(part: Part, conversation_id: str = "talk") -> Conversation:
    """The dialogue with three pairs of one part, two of them at one turn."""
    siblings: dict[Part, list[tuple[str, str | None, str | None]]] = {
        "planner": [("2", "Others", None), ("5", "Information", None), ("5", "Question", None)],
        "generator": [("2", None, "Well."), ("5", None, "Try it again, then."), ("5", None, "Ask them!")],
        "coupled": [("2", "Others", "Well."), ("5", None, "Try it again, then."), ("5", "Question", "Why is that so?")],
    }
    tree = dialogue(conversation_id)
    for gold, strategy, text in siblings[part]:
        tree = prefer(tree, gold, strategy, text)
    return tree
