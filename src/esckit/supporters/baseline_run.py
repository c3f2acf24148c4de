"""Asking a baseline's questions, stage by stage: each answer is in the ledger, so nothing is asked twice."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from esckit.chat_models.asker import Asker, ToAsk
from esckit.chat_models.ledger import Ledger, Outcome, UsageSummary
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.decoding import Decoding
from esckit.files import write_jsonl
from esckit.measures import Prediction, prediction_to_json
from esckit.prompts.own import Prompts
from esckit.supporters.baselines import METHODS, SHIPPED, Place, Stage, request_for, rows_of

__all__ = ["BaselineRun", "StageUsage", "write_rows"]

_VERSION: Final = 1  # of how answers are read and passed on
_BYTES_PER_TOKEN: Final = 4  # of English text, for estimates


class StageUsage(NamedTuple):
    """What a stage cost."""

    stage: str
    usage: UsageSummary


class BaselineRun:
    """One baseline over a corpus.

    Args:
        model: who is asked.
        ledger: open. Methods that share a stage (every ``base``) and a ledger share its answers.
        method: a name of `METHODS`.
        places: the turns (`places_of`).
        decoding: how every answer is drawn.
        pace: patience and budgets.
        seed: another one draws other answers.
        prompts: in whose words.
    """

    def __init__(
        self,
        model: ChatModel,
        ledger: Ledger,
        method: str,
        places: Sequence[Place],
        *,
        decoding: Decoding,
        pace: Pace | None = None,
        seed: int = 0,
        prompts: Prompts = SHIPPED,
    ) -> None:
        self.name, self.method = method, METHODS[method]
        self.places = places
        self._model, self._ledger, self._pace = model, ledger, pace
        self._decoding, self._seed, self._prompts = decoding, seed, prompts

    def estimate(self) -> ToAsk:
        """Count what is left to ask over all stages. An answer that is not there yet counts as the longest one."""
        stand_in = "x" * (_BYTES_PER_TOKEN * self._decoding.max_new_tokens)
        said: list[dict[str, str]] = [{} for _ in self.places]
        total = [0, 0, 0, 0]
        for stage in self.method.stages:
            asker = self._asker(stage)
            requests = [self._request(p, stage, known) for p, known in zip(self.places, said, strict=True)]
            total = [a + b for a, b in zip(total, asker.estimate(requests), strict=True)]
            for known, outcome in zip(said, self._recorded(asker, requests), strict=True):
                known[stage.name] = outcome.text if outcome else stand_in
        return ToAsk(*total)

    def ask(self) -> Iterator[StageUsage]:
        """Ask one stage after the other; yield what each cost.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; every answer so far is in the ledger.
        """
        for stage in self.method.stages:
            asker = self._asker(stage)
            asked = [place for place in self.places if place.is_open]
            said = [{name: answer.text for name, answer in place.answers.items()} for place in asked]
            requests = [self._request(place, stage, known) for place, known in zip(asked, said, strict=True)]
            for place, outcome in zip(asked, asker.ask(requests), strict=True):
                place.answers[stage.name] = outcome
            yield StageUsage(stage.name, asker.usage)

    def rows(self) -> list[Prediction]:
        """The predictions, once every stage is asked."""
        return rows_of(self.places, self.method, self.name, self._prompts)

    def _asker(self, stage: Stage) -> Asker:
        return Asker(self._model, self._ledger, f"baseline/{stage.name}/{_VERSION}", self._pace)

    def _recorded(self, asker: Asker, requests: Sequence[ChatRequest]) -> list[Outcome | None]:
        identity = self._model.identity
        keys = [request.key(asker.step, identity) for request in requests]
        known = self._ledger.outcomes(set(keys))
        return [known.get(key) for key in keys]

    def _request(self, place: Place, stage: Stage, said: dict[str, str]) -> ChatRequest:
        return request_for(place, self.method, stage, self._decoding, self._seed, said, self._prompts)


def write_rows(rows: Sequence[Prediction], out: Path) -> Counter[str]:
    """Write a predictions file, complete or not at all; return how many turns ended in which state.

    Raises:
        EsckitError: it cannot be written.
    """
    write_jsonl(out, map(prediction_to_json, rows))
    states = Counter(str(row.extra["state"]) for row in rows)
    states["without a strategy"] = sum(row.extra["state"] == "done" and row.predicted_strategy is None for row in rows)
    return states
