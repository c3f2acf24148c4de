"""From a supporter and a corpus to a predictions file; the unit is one conversation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from esckit.conversation import Conversation, Turn, conversation_to_json
from esckit.decoding import Decoding, seed_of
from esckit.errors import CorpusError, ModelError
from esckit.files import resume_jsonl
from esckit.measures import Prediction, add_context, prediction_to_json
from esckit.progress import progress
from esckit.rendering import PastStrategies, past_strategies, supporter_turns
from esckit.safety import Stop, stop_after
from esckit.supporters.proposing import GREEDY, Answers, Candidate, TurnRequest, expect_one

__all__ = ["predict", "predict_conversation", "row_of", "stopped_turns"]


def predict_conversation(
    supporter: Answers,
    conversation: Conversation,
    *,
    seed: int,
    planning: Decoding = GREEDY,
    wording: Decoding = Decoding(),  # noqa: B008 - it is frozen
    past: PastStrategies | None = None,
    given_gold: bool = False,
    stop_at_danger: bool = False,
) -> list[Prediction]:
    """Predict every labelled supporter turn of a conversation's trunk, each from the gold history before it.

    Each row says where its turn stands and what the seeker had said, so that it can be measured without the corpus.

    Args:
        supporter: who answers.
        conversation: the tree.
        seed: a turn's draws depend on it and on the ids of conversation and turn, on nothing else.
        planning: how the strategy is chosen.
        wording: how the text is chosen.
        past: which strategies the history shows; the supporter's own training setting by default. ``predicted`` shows
            the model's own choices at the turns before.
        given_gold: the generator gets each turn's gold strategy (DecoupledESC, table 6), and nothing is planned: rows
            have no predicted strategy, and say so.
        stop_at_danger: replies to a seeker who speaks of danger are the fixed text of `esckit.safety`, and
            ``extra.danger`` says so; their strategies stay as they were planned.

    Raises:
        ModelError: gold strategies are given to a supporter without a generator, or there is no reply under one.
    """
    mode: PastStrategies = past or supporter.past_strategies
    talks = supporter.about is not None
    if given_gold and not talks:
        raise ModelError("this supporter only plans: give it a generator.")
    shown, turns = past_strategies(conversation, mode), supporter_turns(conversation)
    requests = [
        TurnRequest(
            conversation,
            turn.parent,
            seed_of(seed, conversation.id, turn.id),
            shown,
            strategy=turn.strategy if given_gold else None,
            planning=planning,
            wording=wording if talks else None,
        )
        for turn in turns
    ]
    if mode == "predicted" and not given_gold:
        found = _one_after_the_other(supporter, turns, requests)
    else:
        found = [expect_one(each, request) for each, request in zip(supporter.propose(requests), requests, strict=True)]
    given = {"strategy_given": "gold"} if given_gold else {}
    rows = [
        row_of(conversation, turn, candidate, {"past_strategies": mode, **given})
        for turn, candidate in zip(turns, found, strict=True)
    ]
    return add_context(_with_stops(rows, conversation) if stop_at_danger else rows, [conversation])


def stopped_turns(conversation: Conversation) -> dict[str, Stop]:
    """The turns that would be predicted and that a stop would answer, by id: the seeker spoke of danger before them."""
    stops = {}
    for turn in supporter_turns(conversation):
        path = conversation.path(turn.parent)
        if stop := stop_after([said.text or "" for said in path if said.speaker == "seeker"]):
            stops[turn.id] = stop
    return stops


def _with_stops(rows: Sequence[Prediction], conversation: Conversation) -> list[Prediction]:
    """The rows, with the fixed text in place of replies to danger."""
    stops = stopped_turns(conversation)
    return [
        replace(row, predicted_text=stop.text, finish="stop", extra={**row.extra, "danger": stop.danger})
        if (stop := stops.get(str(row.turn_id)))
        else row
        for row in rows
    ]


def _one_after_the_other(supporter: Answers, turns: Sequence[Turn], requests: Sequence[TurnRequest]) -> list[Candidate]:
    """Strategies in order, each seeing those chosen before it; then all the texts, whose history shows all of them."""
    shown: dict[str, str] = {}
    planned = []
    can = supporter.strategies
    for turn, request in zip(turns, requests, strict=True):
        silent = frozenset() if can is None else frozenset(supporter.taxonomy.labels) - can
        plan = replace(request, shown=dict(shown), wording=None, excluded=silent)
        planned.append(expect_one(supporter.propose([plan])[0], plan))
        shown[turn.id] = str(planned[-1].strategy)
    if not requests or requests[0].wording is None:
        return planned
    words = [replace(r, shown=shown, strategy=p.strategy) for r, p in zip(requests, planned, strict=True)]
    worded = [expect_one(each, request) for each, request in zip(supporter.propose(words), words, strict=True)]
    return [replace(p, text=w.text, finish=w.finish, extra=w.extra) for p, w in zip(planned, worded, strict=True)]


def row_of(conversation: Conversation, turn: Turn, said: Candidate, extra: dict[str, Any]) -> Prediction:
    """A turn's row of the predictions file: what a supporter said in its place, and what ``extra`` knows of it."""
    probabilities, known = said.strategy_probabilities or {}, {**extra, **said.extra}
    finish: Any = said.finish
    return Prediction(
        conversation_id=conversation.id,
        turn_id=turn.id,
        gold_strategy=str(turn.strategy),
        predicted_strategy=None if "strategy_given" in extra else said.strategy,
        gold_text=turn.text or "",
        predicted_text=said.text,
        strategy_probabilities={label: round(p, 6) for label, p in probabilities.items()} or None,
        raw=known.pop("raw", None),
        finish=finish,
        extra=known,
    )


def predict(
    supporter: Answers,
    conversations: Sequence[Conversation],
    out: Path | str,
    *,
    seed: int = 0,
    planning: Decoding = GREEDY,
    wording: Decoding = Decoding(),  # noqa: B008 - it is frozen
    past: PastStrategies | None = None,
    given_gold: bool = False,
    stop_at_danger: bool = False,
    title: str = "predict",
) -> int:
    """Predict a corpus into a predictions file, which appears when it is complete; return its number of rows.

    Rows are kept in a partial file beside it, a conversation at a time, so that the same call continues after a stop.
    The strategy is chosen greedily by default, the text sampled at .7 / .95; for the rest see `predict_conversation`.

    Raises:
        CorpusError: there is nothing to predict.
        ModelError: replies are to stop at danger and the supporter only plans.
        EsckitError: the file cannot be written.
    """
    out = Path(out)
    wanted = [conversation for conversation in conversations if supporter_turns(conversation)]
    if not wanted:
        raise CorpusError("the corpus has no supporter turn with a strategy: nothing can be predicted, give another.")
    how: dict[str, Any] = {"planning": planning, "wording": wording, "past": past, "given_gold": given_gold}
    sizes = [len(supporter_turns(conversation)) for conversation in wanted]
    if stop_at_danger:
        if supporter.about is None:
            raise ModelError("the supporter only plans: it has no replies that could stop at danger.")
        how["stop_at_danger"] = True  # else not in the key, so that predictions begun earlier continue
    key = _key(supporter, wanted, seed, how)
    with resume_jsonl(out, key, sizes) as rows, progress(title, len(wanted), rows.done) as bar:
        for conversation in wanted[rows.done :]:
            rows.append(map(prediction_to_json, predict_conversation(supporter, conversation, seed=seed, **how)))
            bar.advance()
    return sum(sizes)


def _key(supporter: Answers, conversations: Sequence[Conversation], *settings: Any) -> list[Any]:
    """All that predictions depend on: another supporter, corpus or setting continues nothing."""
    return [
        supporter.identity,
        [conversation_to_json(conversation) for conversation in conversations],
        *map(repr, settings),
    ]
