"""A run's folder with made-up results, as the runner would have left it."""

import math
import random
from pathlib import Path
from typing import Any

from esckit.conversation import Conversation, Turn, write_conversations
from esckit.corpora import Corpus, corpus_statistics, load_corpus
from esckit.files import write_json, write_jsonl
from esckit.measures import Prediction, add_context, add_predictions, compare, prediction_to_json
from esckit.strategy import ESCONV

HOSTILE = '<script>alert("x")</script> {{ 7 * 7 }} {% raw %} & $x^2$ </style>'
"""Text of a seeker and of a model that must arrive as text."""

RECIPE: dict[str, Any] = {
    "format": 1,
    "title": "The main job on the starter corpus",
    "seed": 0,
    "corpus": {"name": "starter", "train": None, "valid": None, "test": None, "file": None, "split": None},
    "model": {"path": None, "pocket": "2m", "vocabulary": 2048, "max_context": None},
    "stages": [
        {"stage": "pretrain", "name": "pretrain", "epochs": 20, "learning_rate": 2e-3},
        *(
            {"stage": "sft", "name": f"{part}-sft", "part": part, "epochs": 6, "past_strategies": past}
            for part, past in (("coupled", "gold"), ("planner", "hidden"), ("generator", "hidden"))
        ),
        {"stage": "mine", "name": "planner-pairs", "model": "planner-sft"},
        {"stage": "preference", "name": "planner-dpo", "start": "planner-sft", "pairs": "planner-pairs", "epochs": 1},
        {"stage": "supporter", "name": "coupled", "coupled": "coupled-sft", "planner": None, "generator": None},
        {"stage": "supporter", "name": "decoupled", "planner": "planner-sft", "generator": "generator-sft"},
        {"stage": "predict", "name": "predict-coupled", "supporter": "coupled", "split": None},
        {"stage": "predict", "name": "predict-decoupled", "supporter": "decoupled", "split": None},
        {"stage": "evaluate", "name": "evaluate", "predictions": ["predict-coupled", "predict-decoupled"]},
        {"stage": "report", "name": "report"},
    ],
}

ALIGNMENT: dict[str, Any] = {
    "pairs": 1000,
    "equal": 0,
    "duplicates": 3,
    "longer_chosen": 250,
    "length_ratio": 0.9,
    "choices_changed": 0.1234,
    "choice_kl": 0.0567,
}
PAIRS: dict[str, Any] = {
    "pairs": 1000,
    "aspects": {"turn": 1000},
    "kinds": {"NsNr": 800, "PsNr": 200},
    "reasons": {"lack_of_empathy": 600, "template_response": 400},
    "strategies": {"Question": {"chosen": 210, "rejected": 430}, "Others": {"chosen": 790, "rejected": 570}},
    "mean_characters": {"chosen": 124.89, "rejected": 83.82},
}
ALIGNMENT_POINT = {"loss": 0.65, "accuracy": 0.625}


def make_run(folder: Path, *, last: str = "evaluate") -> Path:
    """Write a run's folder in which all stages up to ``last`` are done and the next one is running."""
    corpus = load_corpus("starter")
    test = [_with_hostile_text(corpus.test[0]), *corpus.test[1:]]
    _describe(folder, corpus)
    names = [stage["name"] for stage in RECIPE["stages"]]
    for place, stage in enumerate(RECIPE["stages"]):
        if place <= names.index(last):
            facts = _carry_out(folder, stage, test)
            _record(folder, stage, "done", facts)
        elif place == names.index(last) + 1:
            _record(folder, stage, "running", {})
    return folder


def _describe(folder: Path, corpus: Corpus) -> None:
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    about = {"name": corpus.name, "licence": corpus.licence, "source": corpus.source, "hash": "5d" * 32}
    statistics = {name: corpus_statistics(part) for name, part in parts.items()}
    write_json(folder / "recipe.json", RECIPE)
    write_json(folder / "corpus.json", {**about, "parts": statistics})
    write_json(folder / "versions.json", {"esckit": "0.1.0", "python": "3.11.2", "torch": "2.13.0+cpu", "threads": 2})
    event = {"stage": "pretrain", "event": "targets whose context lost its oldest turns", "count": 1234}
    write_jsonl(folder / "events.jsonl", [event])


def _record(folder: Path, stage: dict[str, Any], state: str, facts: dict[str, Any]) -> None:
    value = {"name": stage["name"], "stage": stage["stage"], "state": state, "fingerprint": "0" * 64}
    write_json(folder / f"stages/{stage['name']}.json", {**value, "seconds": 83.4, "events": {}, "facts": facts})


def _carry_out(folder: Path, stage: dict[str, Any], test: list[Conversation]) -> dict[str, Any]:
    match stage["stage"]:
        case "pretrain" | "sft":
            write_jsonl(folder / stage["name"] / "curve.jsonl", _curve(stage["epochs"]))
            return {"steps": 40 * stage["epochs"], "scored_tokens": 12345}
        case "preference":
            points = [{"step": n, "epoch": n / 20, **ALIGNMENT_POINT, "margin": n / 100} for n in range(1, 21)]
            write_jsonl(folder / stage["name"] / "curve.jsonl", points)
            return {"steps": 20, **ALIGNMENT}
        case "mine":
            write_json(folder / stage["name"] / "pairs.json", PAIRS)
        case "predict":
            rows = _predictions(test, stage["name"], past="gold" if stage["supporter"] == "coupled" else "hidden")
            write_jsonl(folder / stage["name"] / "predictions.jsonl", map(prediction_to_json, rows))
            write_conversations(folder / stage["name"] / "trees.jsonl", add_predictions(test, rows, stage["name"]))
            return {"split": "test", "turns": len(rows), "dialogues": len(test)}
        case "evaluate":
            past = {"predict-coupled": "gold", "predict-decoupled": "hidden"}
            rows_of = {name: _predictions(test, name, past=past[name]) for name in stage["predictions"]}
            evaluation = compare(rows_of, resamples=100, permutations=200)
            write_json(folder / stage["name"] / "evaluation.json", evaluation.to_json())
    return {}


def _curve(epochs: int) -> list[dict[str, float]]:
    rng = random.Random(epochs)
    rows: list[dict[str, float]] = []
    for step in range(1, 40 * epochs + 1, 8):
        epoch = step / 40
        rows.append({"step": step, "epoch": epoch, "loss": 2.5 + 4 * math.exp(-epoch / 3) + rng.gauss(0, 0.1)})
    rows += [
        {"step": 40 * e, "epoch": e, "valid_loss": 2.9 + 3.5 * math.exp(-e / 3) + 0.01 * e}
        for e in range(1, epochs + 1)
    ]
    return rows


def _predictions(conversations: list[Conversation], name: str, past: str) -> list[Prediction]:
    rng = random.Random(name)
    turns = [
        (conversation, turn)
        for conversation in conversations
        for turn in conversation.trunk
        if turn.strategy is not None
    ]
    rows = [_prediction(rng, conversation, turn, past, n) for n, (conversation, turn) in enumerate(turns)]
    return add_context(rows, conversations)


def _prediction(rng: random.Random, conversation: Conversation, turn: Turn, past: str, n: int) -> Prediction:
    weights = [rng.random() ** 3 for _ in ESCONV.labels]
    weights[ESCONV.labels.index(turn.strategy or "")] += 0.5
    probabilities = {label: weight / sum(weights) for label, weight in zip(ESCONV.labels, weights, strict=True)}
    elsewhere = rng.choice([other.text or "" for other in conversation.trunk])
    return Prediction(
        conversation_id=conversation.id,
        turn_id=turn.id,
        gold_strategy=turn.strategy or "",
        predicted_strategy="Confrontation" if n == 3 else max(probabilities, key=lambda label: probabilities[label]),
        gold_text=turn.text or "",
        predicted_text=HOSTILE if n == 1 else None if n == 4 else elsewhere,
        strategy_probabilities={label: round(value, 4) for label, value in probabilities.items()},
        finish="length" if n % 7 == 6 else "stop",
        extra={"past_strategies": past},
    )


def _with_hostile_text(conversation: Conversation) -> Conversation:
    turns = [
        Turn(turn.id, turn.parent, turn.speaker, HOSTILE if n == 0 else turn.text, turn.strategy)
        for n, turn in enumerate(conversation.turns)
    ]
    return Conversation(id=conversation.id, turns=turns, situation=conversation.situation, labels=conversation.labels)
