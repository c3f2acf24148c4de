"""Asking a baseline's questions, one after the other: each answer is in the ledger, so nothing is asked twice."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from esckit.chat_models.asker import BYTES_PER_TOKEN, Asker, ToAsk
from esckit.chat_models.ledger import Ledger, UsageSummary
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.files import write_jsonl
from esckit.measures import Prediction, add_context, prediction_to_json
from esckit.supporters.baselines import METHODS, BaselineOptions, BaselineTurn, Question, request_for, row_of

__all__ = ["BaselineRun", "QuestionUsage", "write_rows"]

_VERSION: Final = 1  # of how answers are read and passed on


class QuestionUsage(NamedTuple):
    """What a question cost."""

    question: str
    usage: UsageSummary


class BaselineRun:
    """One baseline over a corpus.

    Args:
        model: who is asked.
        ledger: open. Methods that share a question (every ``base``) and a ledger share its answers.
        options: which method, and how it asks.
        turns: see `baseline_turns`.
        seed: another one draws other answers.
        pace: patience and budgets; None is as the options say.
    """

    def __init__(
        self,
        model: ChatModel,
        ledger: Ledger,
        options: BaselineOptions,
        turns: Sequence[BaselineTurn],
        *,
        seed: int = 0,
        pace: Pace | None = None,
    ) -> None:
        self.name, self.method, self.prompts = options.method, METHODS[options.method], options.read_prompts()
        self.turns = turns
        self._model, self._ledger, self._pace = model, ledger, pace or options.pace
        self._decoding, self._seed = options.decoding, seed

    def estimate(self) -> ToAsk:
        """Count what is left to ask over all questions. An answer that is not there yet counts as the longest one."""
        stand_in = "x" * (BYTES_PER_TOKEN * self._decoding.max_new_tokens)
        said: list[dict[str, str]] = [{} for _ in self.turns]
        total = [0, 0, 0, 0]
        for question in self.method.questions:
            asker = self._asker(question)
            requests = [self._request(turn, question, known) for turn, known in zip(self.turns, said, strict=True)]
            total = [a + b for a, b in zip(total, asker.estimate(requests), strict=True)]
            for known, outcome in zip(said, asker.recorded(requests), strict=True):
                known[question.name] = outcome.text if outcome else stand_in
        return ToAsk(*total)

    def ask(self) -> Iterator[QuestionUsage]:
        """Ask one question after the other; yield what each cost.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; every answer so far is in the ledger.
        """
        for question in self.method.questions:
            asker = self._asker(question)
            asked = [turn for turn in self.turns if turn.is_open]
            said = [{name: answer.text for name, answer in turn.answers.items()} for turn in asked]
            requests = [self._request(turn, question, known) for turn, known in zip(asked, said, strict=True)]
            for turn, outcome in zip(asked, asker.ask(requests), strict=True):
                turn.answers[question.name] = outcome
            yield QuestionUsage(question.name, asker.usage)

    def rows(self) -> list[Prediction]:
        """The predictions, once every question is asked: where each turn stands, what was said before it."""
        rows = [row_of(turn, self.method, self.name, self.prompts) for turn in self.turns]
        return add_context(rows, list({turn.conversation.id: turn.conversation for turn in self.turns}.values()))

    def _asker(self, question: Question) -> Asker:
        return Asker(self._model, self._ledger, f"baseline/{question.name}/{_VERSION}", self._pace)

    def _request(self, turn: BaselineTurn, question: Question, said: dict[str, str]) -> ChatRequest:
        return request_for(turn, self.method, question, self._decoding, self._seed, said, self.prompts)


def write_rows(rows: Sequence[Prediction], out: Path) -> Counter[str]:
    """Write a predictions file, complete or not at all; return how many turns ended in which state.

    Raises:
        EsckitError: it cannot be written.
    """
    write_jsonl(out, map(prediction_to_json, rows))
    states = Counter(str(row.extra["state"]) for row in rows)
    states["no_strategy"] = sum(row.extra["state"] == "done" and row.predicted_strategy is None for row in rows)
    return states
