"""What asking about a corpus would cost: calls and tokens of each of esckit's ways to use a chat model."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from esckit.chat_models.asker import Asker, ToAsk
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.conversation import Conversation
from esckit.corpora.error_labels import read_error_examples
from esckit.judging.annotation import case_of
from esckit.judging.asked_errors import STEP as ANNOTATE
from esckit.judging.asked_errors import annotation_request, choose_examples, criteria
from esckit.judging.plan import STEP as JUDGE
from esckit.judging.plan import JudgingOptions, make_plan
from esckit.judging.rubric import load_rubrics
from esckit.judging.sampling import sample_turns
from esckit.measures import Prediction
from esckit.supporters.baselines import BaselineOptions
from esckit.supporters.prompted import PromptedSupporter, corpus_requests

__all__ = ["RunCost", "run_costs"]


class RunCost(NamedTuple):
    """What one command would ask at most."""

    command: str
    cost: ToAsk


def run_costs(model: ChatModel, conversations: Sequence[Conversation]) -> list[RunCost]:
    """Estimate, for a corpus with strategies: baselines, an annotation, and a judging of one predictions file.

    Raises:
        CorpusError: the corpus has no supporter turn with a strategy.
    """
    with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger") as ledger:
        costs = [_baseline(model, ledger, conversations, method) for method in ("base", "base-decoupled")]
        asked = {
            "annotate": (ANNOTATE, _annotation(conversations)),
            "judge (one file, 100 turns at most)": (JUDGE, _judging(conversations)),
        }
        for command, (step, requests) in asked.items():
            costs.append(RunCost(command, Asker(model, ledger, step).estimate(requests)))
    return costs


def _baseline(model: ChatModel, ledger: Ledger, conversations: Sequence[Conversation], method: str) -> RunCost:
    options = BaselineOptions(method=method)
    supporter = PromptedSupporter(model, ledger, options)
    return RunCost(f"baseline {method}", supporter.estimate(corpus_requests(conversations, options, 0)))


def _annotation(conversations: Sequence[Conversation]) -> list[ChatRequest]:
    system = criteria(choose_examples(read_error_examples()))
    turns = [(talk, turn) for talk in conversations for turn in talk.trunk if turn.speaker == "supporter"]
    return [annotation_request(case_of(talk, turn), system) for talk, turn in turns if (turn.text or "").strip()]


def _judging(conversations: Sequence[Conversation]) -> list[ChatRequest]:
    """Of the human replies, in the place of a system's."""
    rows = [
        Prediction(
            conversation_id=talk.id,
            turn_id=turn.id,
            gold_strategy=turn.strategy,
            predicted_strategy=turn.strategy,
            gold_text=turn.text or "",
            predicted_text=turn.text,
        )
        for talk in conversations
        for turn in talk.trunk
        if turn.speaker == "supporter" and turn.strategy
    ]
    options = JudgingOptions(model="remote:any")
    sampled = sample_turns({"replies": rows}, conversations, options.turns, 0)
    return make_plan(sampled, load_rubrics(options.rubrics, caps=options.caps), options).requests()
