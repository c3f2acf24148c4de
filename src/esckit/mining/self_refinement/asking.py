"""The one question of a refinement: who is this person, what is weak in the draft, what should be said instead."""

from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, create_model

from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.mining.tree_search.said import clean_reply, ends_a_sentence
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, transcript
from esckit.rendering import Part
from esckit.strategy import Taxonomy

__all__ = ["SEEN", "STEP", "Refined", "read_refined", "refine_request"]

STEP: Final = "refine/1"
"""Name and version of the question in ledgers."""

SEEN: Final = ("profile", "emotion", "personality", "intention")
"""What is written down about the person, in this order, before the draft is judged."""


class Refined(NamedTuple):
    """What came of a refinement.

    Attributes:
        state: done, unparsed, refused or failed; the rest is empty unless it is done.
        text: the reply.
        strategy: its label.
        seen: the person, by `SEEN`, and ``weakness`` and ``score`` (1 to 5) of the draft.
    """

    state: str
    text: str = ""
    strategy: str | None = None
    seen: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


def _no_boolean(score: Any) -> Any:
    """Python takes true for 1, and so would the literals of the scale."""
    if isinstance(score, bool):
        raise ValueError("a score is a number")
    return score


@cache
def _schema(labels: tuple[str, ...]) -> type[BaseModel]:
    """What has to be answered; what is seen comes first, so that the reply follows from it."""
    score: Any = Annotated[Literal[1, 2, 3, 4, 5], BeforeValidator(_no_boolean)]
    fields: dict[str, Any] = dict.fromkeys((*SEEN, "weakness"), (str, ...))
    fields["score"] = (score, ...)
    if labels:
        fields["strategy"] = (Literal[labels], ...)
    return create_model("Refinement", **fields, reply=(str, ...))


def _asked_labels(taxonomy: Taxonomy, part: Part) -> tuple[str, ...]:
    """The strategies to choose from; none where the strategy is given."""
    return taxonomy.labels if part == "coupled" else ()


def refine_request(
    tree: Conversation, draft: Turn, part: Part, taxonomy: Taxonomy, decoding: Decoding, prompts: Prompts, sample: int
) -> ChatRequest:
    """What the refiner is asked about a draft: equations 4 and 5 of self-evolution in one call, as in its figure E.1.

    Talk and draft stand in it as quoted data. A coupled part's strategy is chosen anew, a generator's stays.
    """
    labels, language = _asked_labels(taxonomy, part), tree.language
    if labels:
        strategy = prompts.fill("choose", language, guidelines=taxonomy.guidelines_in(language))
    else:
        label = str(draft.strategy)
        shown, definition = taxonomy.shown_in(label, language), taxonomy.definition_in(label, language)
        strategy = prompts.fill("given", language, strategy=shown, definition=definition)
    said = f'{{"strategy": {quote(draft.strategy or "none")}, "text": {quote(draft.text or "")}}}'
    asked = prompts.fill(
        "refine",
        language,
        transcript=transcript(tree.path(draft.parent), strategies=True),
        draft=said,
        strategy=strategy.strip(),
        schema=schema_text(_schema(labels)),
    )
    messages = Message("system", prompts.fill("system", language)), Message("user", asked)
    return ChatRequest(messages, decoding, _schema(labels), sample)


def read_refined(outcome: Outcome, draft: Turn, part: Part, taxonomy: Taxonomy) -> Refined:
    """What an outcome says; an answer whose reply has no words is unparsed, too.

    A reply that ends in the middle of a sentence, as where its share of the tokens was used up, loses that sentence if
    it has another one.
    """
    if outcome.state != "done":
        return Refined(outcome.state)
    labels = _asked_labels(taxonomy, part)
    found = outcome.value(_schema(labels)).model_dump()
    said, strategy = found.pop("reply"), found.pop("strategy", draft.strategy)
    text = clean_reply(said, taxonomy, cut=not ends_a_sentence(said))
    return Refined("done", text, strategy, found) if text else Refined("unparsed")
