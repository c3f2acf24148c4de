"""A chat model that is prompted to answer as a supporter, by one of the methods in `baselines`.

Every answer is in the ledger, so nothing is asked twice.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import Any, Final, Literal

from esckit.chat_models.asker import BYTES_PER_TOKEN, Asker, ToAsk
from esckit.chat_models.ledger import Ledger, UsageSummary
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.conversation import Conversation
from esckit.decoding import Decoding, seed_of
from esckit.errors import CorpusError, ModelError
from esckit.files import write_jsonl
from esckit.measures import add_context, prediction_to_json
from esckit.prompts.transcript import transcript
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy
from esckit.supporters.baselines import METHODS, Asked, BaselineOptions, Question, candidate_of, request_for
from esckit.supporters.parts import OnText
from esckit.supporters.prediction import row_of
from esckit.supporters.proposing import Candidate, TurnRequest, expect_one

__all__ = ["PromptedSupporter", "corpus_requests", "predict_at_once"]

_VERSION: Final = 2  # of how answers are read and passed on
_TRIES: Final = 4  # samples drawn for a text that was not there before


class PromptedSupporter:
    """Answers turns by prompting a chat model; threads may share it, and take turns.

    All turns of one call are asked each question at once. An answer may be as long as the options say, whatever a
    request says: it holds more than the words.

    Args:
        model: who is asked.
        ledger: open. Methods that share a question (every ``base``) and a ledger share its answers.
        options: which method, and in whose words; its ``decoding`` is that of `corpus_requests`.
        examples: gives dialogues with strategies, of which one is drawn for each conversation and seed, never itself;
            called only where the method shows an example.
        taxonomy: of conversations that name none.
        pace: patience and budgets; None is as the options say.
        tell: is told what each question cost.
    """

    about = (
        "A chat model that was only prompted writes each reply: it is sent what you write, and may say what is untrue."
    )

    def __init__(
        self,
        model: ChatModel,
        ledger: Ledger,
        options: BaselineOptions,
        *,
        examples: Callable[[], Sequence[Conversation]] = tuple,
        taxonomy: Taxonomy = ESCONV,
        pace: Pace | None = None,
        tell: Callable[[str, UsageSummary], None] = lambda question, usage: None,
    ) -> None:
        self.name, self.method, self.prompts = options.method, METHODS[options.method], options.read_prompts()
        self.taxonomy = taxonomy
        self._model, self._ledger, self._pace = model, ledger, pace or options.pace
        self._longest, self._tell = options.decoding.max_new_tokens, tell
        self._read_examples = examples
        self._lock = RLock()

    @property
    def identity(self) -> Any:
        """Model, method, words and examples."""
        shown = [sha256(repr(each).encode("utf-8", "replace")).hexdigest() for each in self._examples]
        return [self._model.identity, self.name, _VERSION, self.prompts.digest, self._longest, shown]

    @property
    def past_strategies(self) -> Literal["gold", "hidden"]:
        """As the method's paper shows them."""
        return self.method.past

    @property
    def roles(self) -> dict[str, str]:
        """None: nobody but its model speaks."""
        return {}

    @property
    def past_in_chat(self) -> Literal["predicted", "hidden"]:
        """Its own, unless the method hides them."""
        return "hidden" if self.method.past == "hidden" else "predicted"

    @property
    def strategies(self) -> frozenset[str] | None:
        """All where the method plans; none can be given where it names its strategy as it words the reply."""
        return None if self.method.plans else frozenset()

    def propose(self, requests: Sequence[TurnRequest], on_text: OnText | None = None) -> list[list[Candidate]]:
        """See `proposing.Answers.propose`; the candidates of a free strategy have no probabilities.

        Strategy and text are drawn as ``wording`` says where the method asks for both at once. A candidate whose answer
        did not come has no text, and says why in ``extra``; one that must be unlike others is drawn again, up to four
        times in all. ``on_text`` is told the whole text.

        Raises:
            ModelError: what is asked cannot be heard by a prompted model.
            CorpusError: no example has the conversation's taxonomy.
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; every answer so far is in the ledger.
        """
        with self._lock:
            found: dict[tuple[int, int], Candidate] = {}
            wanted = [(place, rank) for place, request in enumerate(requests) for rank in range(request.n)]
            for attempt in range(_TRIES):
                left = [each for each in wanted if each not in found]
                asked = [self._begin(requests[place], rank, attempt) for place, rank in left]
                self._answer(asked)
                for each, turn in zip(left, asked, strict=True):
                    candidate = candidate_of(turn, self.method, self.name, self.prompts)
                    if _is_new(candidate, turn.request):
                        found[each] = candidate
                if len(found) == len(wanted):
                    break
        if on_text and len(wanted) == 1 and found and (text := found[wanted[0]].text):
            on_text(text)
        return [[found[p, k] for k in range(r.n) if (p, k) in found] for p, r in enumerate(requests)]

    def estimate(self, requests: Sequence[TurnRequest]) -> ToAsk:
        """Count what is left to ask over all questions. An answer that is not there yet counts as the longest one."""
        stand_in = "x" * (BYTES_PER_TOKEN * self._longest)
        turns = [self._begin(request, rank, 0) for request in requests for rank in range(request.n)]
        said = [turn.said for turn in turns]
        total = [0, 0, 0, 0]
        for question in self.method.questions:
            wanted = [(turn, known) for turn, known in zip(turns, said, strict=True) if turn.wants(question)]
            asked = [self._request(turn, question, known) for turn, known in wanted]
            asker = self._asker(question)
            total = [a + b for a, b in zip(total, asker.estimate(asked), strict=True)]
            for (_, known), outcome in zip(wanted, asker.recorded(asked), strict=True):
                known[question.name] = outcome.text if outcome else stand_in
        return ToAsk(*total)

    def _begin(self, request: TurnRequest, rank: int, attempt: int) -> Asked:
        """A turn of which nothing has been asked yet."""
        self._refuse_unheard(request)
        conversation = request.conversation
        taxonomy = TAXONOMIES[conversation.taxonomy] if conversation.taxonomy else self.taxonomy
        sample = seed_of(request.seed, "sample", rank, attempt) if rank or attempt else request.seed
        example = self._example(conversation, taxonomy, request.seed) if self.method.shows_example else ""
        long = replace(request, planning=self._lengthen(request.planning))
        long = replace(long, wording=self._lengthen(request.wording)) if request.wording else long
        return Asked(long, taxonomy, sample, example)

    def _lengthen(self, decoding: Decoding) -> Decoding:
        return replace(decoding, max_new_tokens=max(decoding.max_new_tokens, self._longest))

    def _refuse_unheard(self, request: TurnRequest) -> None:
        if request.excluded:
            raise ModelError("a prompted model cannot be kept from strategies: leave excluded empty.")
        if self.method.plans:
            if request.n > 1 and request.strategy is None and request.planning.greedy:
                raise ModelError("a prompted model does not rank strategies: draw them (planning that is not greedy).")
            return
        how = "use a method that plans first, base-decoupled."
        if request.strategy is not None:
            raise ModelError(f"the baseline {self.name} chooses its strategy itself, none can be given: {how}")
        if request.wording is None:
            raise ModelError(f"the baseline {self.name} names no strategy without a reply: {how}")

    def _answer(self, turns: Sequence[Asked]) -> None:
        """Ask one question after the other, each about all turns."""
        for question in self.method.questions:
            asked = [turn for turn in turns if turn.wants(question)]
            requests = [self._request(turn, question, turn.said) for turn in asked]
            asker = self._asker(question)
            alone = len(requests) == 1  # then there is no progress to show, and a chat may be on the screen
            answers = [outcome for _, outcome in asker.stream(requests)] if alone else asker.ask(requests)
            for turn, outcome in zip(asked, answers, strict=True):
                turn.answers[question.name] = outcome
            self._tell(question.name, asker.usage)

    def _asker(self, question: Question) -> Asker:
        return Asker(self._model, self._ledger, f"baseline/{question.name}/{_VERSION}", self._pace)

    def _request(self, turn: Asked, question: Question, said: dict[str, str]) -> ChatRequest:
        return request_for(turn, question, said, self.prompts)

    @cached_property
    def _examples(self) -> Sequence[Conversation]:
        some = self._read_examples() if self.method.shows_example else ()
        return [each for each in some if supporter_turns(each)]

    def _example(self, conversation: Conversation, taxonomy: Taxonomy, seed: int) -> str:
        fit = [each for each in self._examples if each.id != conversation.id and each.taxonomy == taxonomy.name]
        if not fit:
            raise CorpusError(
                f"no example dialogue has strategies of the taxonomy {taxonomy.name}: "
                "give a file of some with --examples."
            )
        return transcript(random.Random(f"{seed} {conversation.id}").choice(fit).trunk, strategies=True)


def _is_new(candidate: Candidate, request: TurnRequest) -> bool:
    if request.unlike is None or request.wording is None:
        return True
    return bool((candidate.text or "").strip()) and candidate.text not in request.unlike


def corpus_requests(conversations: Sequence[Conversation], options: BaselineOptions, seed: int) -> list[TurnRequest]:
    """A request for every labelled supporter turn of the trunks, each from the gold history before it.

    Raises:
        CorpusError: there is nothing to predict.
    """
    past, how = METHODS[options.method].past, options.decoding
    shown = {conversation.id: past_strategies(conversation, past) for conversation in conversations}
    requests = [
        TurnRequest(conversation, turn.parent, seed, shown[conversation.id], planning=how, wording=how)
        for conversation in conversations
        for turn in supporter_turns(conversation)
    ]
    if not requests:
        raise CorpusError("the corpus has no supporter turn with a strategy: nothing can be predicted, give another.")
    return requests


def predict_at_once(
    supporter: PromptedSupporter, conversations: Sequence[Conversation], requests: Sequence[TurnRequest], out: Path
) -> Counter[str]:
    """Predict a corpus into a predictions file, complete or not at all; return how many turns ended in which state.

    Each question is asked about all turns before the next one, so that as many calls as allowed are under way.

    Args:
        supporter: who answers.
        conversations: the corpus.
        requests: its `corpus_requests`.
        out: the predictions file.

    Raises:
        EsckitError: see `PromptedSupporter.propose`, or the file cannot be written.
    """
    turns = [turn for conversation in conversations for turn in supporter_turns(conversation)]
    past = {"past_strategies": supporter.past_strategies}
    rows = [
        row_of(request.conversation, turn, expect_one(found, request), past)
        for turn, request, found in zip(turns, requests, supporter.propose(requests), strict=True)
    ]
    rows = add_context(rows, conversations)
    write_jsonl(out, map(prediction_to_json, rows))
    states = Counter(str(row.extra["state"]) for row in rows)
    states["no_strategy"] = sum(row.extra["state"] == "done" and row.predicted_strategy is None for row in rows)
    return states
