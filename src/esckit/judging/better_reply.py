"""Which of two replies somebody finds better who did not write them: for pairs of a round, and for whole policies."""

from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import PromptedOptions, chat_model_name
from esckit.chat_models.protocol import ChatModel
from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.judging.error_model import NONE
from esckit.judging.evidence import Case
from esckit.judging.judge_questions import Pairing, contest_of, duel_requests
from esckit.judging.open_annotator import AnnotatorOptions, check_annotator
from esckit.judging.rubric import load_rubrics
from esckit.judging.sampling import JudgedTurn
from esckit.supporters.open_model import check_model

__all__ = ["AcceptOptions", "Sides", "acceptor_name", "advantages", "check_acceptor"]

_STEP: Final = "accept/1"
_FIRST: Final = "first"
_SECOND: Final = "second"


class AcceptOptions(PromptedOptions):
    """Who has to find the chosen side better, or there is no pair.

    Attributes:
        model: a chat model, asked in both orders; or ``embedded`` or a trained annotator's folder, which must give the
            chosen side the higher probability of no psychological error.
        rubrics: the qualities that a chat model weighs (`judging.rubric.load_rubrics`).
    """

    asks_with: ClassVar[str] = "judge"

    model: str
    rubrics: str = "decoupled-esc"
    decoding: Decoding = Decoding(greedy=True, max_new_tokens=300)

    @property
    def asks(self) -> bool:
        """True for a chat model."""
        return AnnotatorOptions(model=self.model).asks


class Sides(NamedTuple):
    """Two replies to one context.

    Attributes:
        names: of conversation and turn.
        context: what was said before.
        first, second: the replies, each with its strategy.
        language: of the dialogue.
    """

    names: tuple[str, str]
    context: tuple[Turn, ...]
    first: tuple[str | None, str]
    second: tuple[str | None, str]
    language: str = "en"


def check_acceptor(options: AcceptOptions, conversations: Sequence[Conversation]) -> None:
    """Refuse at once whom asking would fail with later.

    Raises:
        EsckitError: there is no such model, annotator or rubrics, or an annotator does not read these dialogues.
    """
    load_rubrics(options.rubrics)
    if options.asks:
        check_model(options)
    else:
        check_annotator(AnnotatorOptions(model=options.model), conversations)


def acceptor_name(options: AcceptOptions) -> str:
    """For records: who is asked."""
    return chat_model_name(options.model) if options.asks else f"annotator:{options.model}"


def advantages(
    sides: Sequence[Sides], options: AcceptOptions, model: ChatModel | None, ledger: Ledger
) -> tuple[list[float], list[str]]:
    """How much better the first reply is found, -1 to 1.

    A chat model is asked in both orders: 1 where both name the first, -1 where both name the second, else 0. Of an
    annotator it is the difference of the probabilities of no psychological error.

    Args:
        sides: the replies.
        options: who is asked.
        model: the chat model that they name, open; None for an annotator.
        ledger: open.

    Returns:
        A value for each, and the keys of the questions in the ledger.

    Raises:
        BudgetSpent, ChatError, LedgerError: see `Asker.answers`.
    """
    if model is None:
        return _by_annotator(sides, options), []
    rubrics, prompts = load_rubrics(options.rubrics), options.read_prompts()
    pairings = [_pairing(each) for each in sides]
    asked = [duel_requests(each, rubrics, options.decoding, prompts) for each in pairings]
    outcomes = iter(Asker(model, ledger, _STEP, options.pace).ask([request for own in asked for request in own]))
    contests = [contest_of(each, [next(outcomes) for _ in own]) for each, own in zip(pairings, asked, strict=True)]
    keys = [request.key(_STEP, model.identity) for own in asked for request in own]
    return [(each.winner == _FIRST) - float(each.winner == _SECOND) for each in contests], keys


def _pairing(sides: Sides) -> Pairing:
    turn = JudgedTurn(*sides.names, sides.context, "", sides.language)
    return Pairing(_FIRST, _SECOND, turn, (sides.first[1], sides.second[1]))


def _by_annotator(sides: Sequence[Sides], options: AcceptOptions) -> list[float]:
    from esckit.judging.embedded_annotator import load_annotator

    annotator = load_annotator(options.model)

    def free_of_errors(replies: Sequence[tuple[str | None, str]]) -> list[float]:
        cases = [Case(each.context, *reply) for each, reply in zip(sides, replies, strict=True)]
        return [decision.probabilities[NONE] for decision in annotator.decisions(cases)]

    first, second = free_of_errors([s.first for s in sides]), free_of_errors([s.second for s in sides])
    return [one - other for one, other in zip(first, second, strict=True)]
