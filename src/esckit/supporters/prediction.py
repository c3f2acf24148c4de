"""From a supporter and a corpus to a predictions file; the unit is one conversation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from esckit.conversation import Conversation, conversation_to_json
from esckit.errors import CorpusError, ModelError
from esckit.files import resume_jsonl
from esckit.measures import Prediction, add_context, prediction_to_json
from esckit.models.backbone import Decoding, Reply, seed_everything
from esckit.models.strategy_calibration import Calibration
from esckit.progress import progress
from esckit.rendering import PastStrategies, past_strategies, supporter_turns
from esckit.safety import Stop, stop_after
from esckit.supporters.planner import choose_strategy
from esckit.supporters.supporter import Supporter

__all__ = ["predict", "predict_conversation", "stopped_turns"]


def predict_conversation(
    supporter: Supporter,
    conversation: Conversation,
    *,
    seed: int,
    planning: Decoding,
    wording: Decoding,
    past: PastStrategies | None = None,
    calibration: Calibration | None = None,
    given_gold: bool = False,
    stop_at_danger: bool = False,
) -> list[Prediction]:
    """Predict every labelled supporter turn of a conversation's trunk, each from the gold history before it.

    Each row says where its turn stands and what the seeker had said, so that it can be measured without the corpus.

    Args:
        supporter: who answers.
        conversation: the tree.
        seed: sampling draws from sha256(seed, conversation id, part), so a conversation's rows depend on nothing else.
        planning: how the strategy is chosen.
        wording: how the text is chosen.
        past: which strategies the history shows; the supporter's own training setting by default. ``predicted`` shows
            the model's own choices at the turns before.
        calibration: of the planner's scores.
        given_gold: the generator gets each turn's gold strategy (DecoupledESC, table 6), and nothing is planned: rows
            have no predicted strategy, and say so.
        stop_at_danger: replies to a seeker who speaks of danger are the fixed text of `esckit.safety`, and
            ``extra.danger`` says so; their strategies stay as they were planned.

    Raises:
        ModelError: gold strategies are given to a supporter without a generator, or to one that cannot word them.
    """
    mode: PastStrategies = past or supporter.card.past_strategies
    turns = supporter_turns(conversation)
    random = np.random.default_rng(seed_everything(seed, conversation.id, "planner"))
    labels = supporter.taxonomy.labels
    shown = past_strategies(conversation, mode)
    can = supporter.generator.strategies if supporter.generator is not None else None
    if given_gold:
        told = _worded(supporter, conversation, shown, wording, seed, mode)
        return add_context(_with_stops(told, conversation) if stop_at_danger else told, [conversation])
    fitted = calibration or Calibration.none(len(labels))
    allowed = np.array([0.0 if can is None or label in can else -np.inf for label in labels])
    if mode == "predicted":
        each = []
        for turn in turns:
            each.append(fitted.apply(supporter.score(conversation, [turn], shown))[0])
            shown[turn.id] = labels[choose_strategy(each[-1] + allowed, planning, random)]
        scores, chosen = np.stack(each), [shown[turn.id] for turn in turns]
    else:
        scores = fitted.apply(supporter.score(conversation, turns, shown))
        chosen = [labels[choose_strategy(row + allowed, planning, random)] for row in scores]
    seed_everything(seed, conversation.id, "generator")
    replies: Sequence[Reply | None] = [None] * len(turns)
    if supporter.generator is not None:
        replies = supporter.reply(conversation, turns, chosen, shown, wording)
    rows = [
        Prediction(
            conversation_id=conversation.id,
            turn_id=turn.id,
            gold_strategy=str(turn.strategy),
            predicted_strategy=strategy,
            gold_text=turn.text or "",
            predicted_text=reply.text if reply else None,
            strategy_probabilities={label: round(float(p), 6) for label, p in zip(labels, np.exp(row), strict=True)},
            finish=reply.finish if reply else None,
            extra={"past_strategies": mode},
        )
        for turn, row, strategy, reply in zip(turns, scores, chosen, replies, strict=True)
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


def _worded(
    supporter: Supporter, conversation: Conversation, shown: dict[str, str], how: Decoding, seed: int, past: str
) -> list[Prediction]:
    """The rows of a generator that is told the gold strategies."""
    turns = supporter_turns(conversation)
    gold = [str(turn.strategy) for turn in turns]
    can = supporter.generator.strategies if supporter.generator is not None else None
    if can is not None and (others := sorted(set(gold) - set(can))):
        raise ModelError(
            f"the supporter's replies are of other strategies than {', '.join(others)}: it cannot be given these."
        )
    seed_everything(seed, conversation.id, "generator")
    return [
        Prediction(
            conversation_id=conversation.id,
            turn_id=turn.id,
            gold_strategy=strategy,
            predicted_strategy=None,
            gold_text=turn.text or "",
            predicted_text=reply.text,
            finish=reply.finish,
            extra={"past_strategies": past, "strategy_given": "gold"},
        )
        for turn, strategy, reply in zip(
            turns, gold, supporter.reply(conversation, turns, gold, shown, how), strict=True
        )
    ]


def predict(
    supporter: Supporter,
    conversations: Sequence[Conversation],
    out: Path,
    *,
    seed: int = 0,
    planning: Decoding | None = None,
    wording: Decoding | None = None,
    past: PastStrategies | None = None,
    calibration: Calibration | None = None,
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
    wanted = [conversation for conversation in conversations if supporter_turns(conversation)]
    if not wanted:
        raise CorpusError("the corpus has no supporter turn with a strategy: nothing can be predicted, give another.")
    settings: dict[str, Any] = {"planning": planning or Decoding(greedy=True), "wording": wording or Decoding()}
    sizes = [len(supporter_turns(conversation)) for conversation in wanted]
    settings["calibration"] = calibration
    if stop_at_danger and supporter.generator is None:
        raise ModelError("the supporter only plans: it has no replies that could stop at danger.")
    for name, wanted_so in (("given_gold", given_gold), ("stop_at_danger", stop_at_danger)):
        if wanted_so:  # else not in the key, so that predictions begun earlier continue
            settings[name] = True
    key = _key(supporter, wanted, seed, past, settings)
    with resume_jsonl(out, key, sizes) as rows, progress(title, len(wanted), rows.done) as bar:
        for conversation in wanted[rows.done :]:
            predicted = predict_conversation(supporter, conversation, seed=seed, past=past, **settings)
            rows.append(map(prediction_to_json, predicted))
            bar.advance()
    return sum(sizes)


def _key(supporter: Supporter, conversations: Sequence[Conversation], *settings: Any) -> list[Any]:
    """All that predictions depend on: another supporter, corpus or setting continues nothing."""
    return [
        supporter.identity,
        [conversation_to_json(conversation) for conversation in conversations],
        *map(repr, settings),
    ]
