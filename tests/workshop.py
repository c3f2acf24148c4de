"""A folder with all files that the documentation's commands name, small."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from esckit.conversation import Conversation, Preference, Turn, Verdict, write_conversations
from esckit.corpora import load_corpus, write_corpus
from esckit.files import write_json, write_jsonl
from esckit.measures import Prediction, add_context, add_predictions, prediction_to_json
from esckit.mining.export import to_predictions
from esckit.mining.pairs import pairs_of
from esckit.planning.fitting import train_planner
from esckit.prompts.own import write_prompts
from esckit.rendering import supporter_turns
from esckit.strategy import ESCONV
from esckit.supporters.supporter_folder import SupporterCard, save_supporter
from tests.conftest import ROOT
from tests.mining.tree_search.classifier import write_classifier
from tests.recipes.tiny import shorten
from tests.supporters.empath_folder import write_whole_empath
from tests.tiny import TINY_PLANNER, save_base, tiny_encoder, write_supporter

__all__ = ["make_workshop"]

BACKBONES: Final = (
    "models/my-model",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
)
ERRORS: Final = ("None", "Lack of Empathy", "Mismatched Strategy")


def make_workshop(folder: Path, work: Path) -> Path:
    """Fill ``folder``; ``work`` is for what is needed on the way."""
    starter = load_corpus("starter")
    write_parts(folder)
    write_corpus(folder / "ESConv.json", whole(starter.train), "esconv")
    write_corpus(folder / "esconv.jsonl", whole(starter.train)[:5])
    write_corpus(folder / "relabelled.json", whole(starter.train)[:5], "esconv")
    write_json(folder / "labels.yaml", {"Pertanyaan": "Question"})
    talks = [shorten(each, 14) for each in starter.test[:2]]
    for name in ("dialogues.jsonl", "dialogues.json"):
        write_conversations(folder / name, talks)
    grown = [with_pair(shorten(each)) for each in starter.train[:2]]
    for name in ("trees.jsonl", "runs/starter/planner-pairs/trees.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_conversations(folder / name, grown)
    sides = to_predictions(pairs_of(grown, "generator"))
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        write_jsonl(folder / f"pairs/{name}.jsonl", map(prediction_to_json, side))
    write_conversations(folder / "pairs/conversations.jsonl", grown)
    judged = [replace(tree, turns=[with_verdict(turn) for turn in tree.turns]) for tree in grown]
    write_conversations(folder / "annotated.jsonl", judged)
    write_supporter(folder / "runs/starter/decoupled")
    write_whole_empath(folder / "runs/starter-empath")
    write_cpsycoun(folder / "CPSYCOUN.jsonl")
    train_planner(starter.train[:4], tiny_encoder(work / "encoder"), ESCONV, TINY_PLANNER, work / "made")
    planner = SupporterCard("decoupled", "gold", planner="encoder", generator="none")
    save_supporter(folder / "runs/planner", planner, {"planner": work / "made"})
    begun = Conversation("chat-1", [Turn("1", None, "seeker", "I failed my exam.")])
    write_conversations(folder / "earlier.jsonl", [begun])
    write_predictions(folder, talks)
    write_labels(folder, starter.train[8:14])
    for source in BACKBONES:
        save_base(folder / source)
    write_classifier(folder / "models/toxic-bert", ("non-toxic", "toxic"))
    write_prompts(folder / "my-prompts")
    (folder / "prompt.txt").write_text("Be kind.", encoding="utf-8")
    (folder / "my-recipe.yaml").write_text((ROOT / "src/esckit/recipes/starter.yaml").read_text(encoding="utf-8"))
    return folder


def write_cpsycoun(path: Path) -> None:
    """Chinese dialogues in CPsyCoun's form: speakers and texts, no strategies."""
    names = {"seeker": "client", "supporter": "counselor"}
    corpus = load_corpus("starter-zh")
    records = [
        {"id": place, "dialog": [{"speaker": names[turn.speaker], "content": turn.text} for turn in tree.trunk]}
        for place, tree in enumerate([*corpus.train, *corpus.valid, *corpus.test])
    ]
    path.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records), encoding="utf-8")


def write_parts(folder: Path) -> None:
    """Train, valid and test in ESConv's form, each dialogue with an id of its own."""
    starter = load_corpus("starter")
    parts = {"train": starter.train[:8], "valid": starter.valid[:3], "test": starter.test[:3]}
    for place, (name, conversations) in enumerate(parts.items()):
        for spelt in (name, name.upper(), f"parts/{name}"):
            path = folder / f"{spelt}.json"
            path.parent.mkdir(exist_ok=True)
            write_corpus(path, [shorten(each, 10) for each in conversations], "esconv")
            rows = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, [{"id": 10 * place + i, **row} for i, row in enumerate(rows)])


def whole(conversations: list[Conversation]) -> list[Conversation]:
    """As many dialogues as ESConv has, each two turns long."""
    short = [shorten(each, 2) for each in conversations]
    return [replace(short[i % len(short)], id=f"esconv-{i}") for i in range(1300)]


def with_pair(conversation: Conversation) -> Conversation:
    """The dialogue with a preference on its first reply."""
    gold = next(turn for turn in conversation.trunk if turn.strategy)
    worded = replace(gold, id="worded", text="Calm down.", source="model")
    pair = Preference(gold.id, worded.id, "response")
    return replace(conversation.grow([worded]), preferences=[pair])


def with_verdict(turn: Turn) -> Turn:
    """A supporter turn judged to be clean."""
    clean = Verdict("by hand", "psychological-errors/1")
    return replace(turn, verdicts=[clean]) if turn.speaker == "supporter" else turn


def write_predictions(folder: Path, talks: list[Conversation]) -> None:
    """Predictions in our form and in LLaMA-Factory's, and people's ratings."""
    turns = [(talk, turn) for talk in talks for turn in supporter_turns(talk)]
    rows = [
        Prediction(
            conversation_id=talk.id,
            turn_id=turn.id,
            gold_strategy=str(turn.strategy),
            predicted_strategy=ESCONV.labels[place % 8],
            gold_text=turn.text or "",
            predicted_text="I see.",
        )
        for place, (talk, turn) in enumerate(turns)
    ]
    for name in ("predictions", "coupled", "decoupled"):
        write_jsonl(folder / f"{name}.jsonl", map(prediction_to_json, add_context(rows, talks)))
    predicted = add_predictions(talks, add_context(rows, talks), "predict-coupled")
    write_conversations(folder / "runs/starter/predict-coupled/trees.jsonl", predicted)
    others = [{"label": f"[{row.gold_strategy}] Yes.", "predict": f"[{row.predicted_strategy}] No."} for row in rows]
    write_jsonl(folder / "generated_predictions.jsonl", others)
    write_ratings(folder / "ratings.csv", [str(place) for place in range(6)])


def write_ratings(path: Path, items: list[str]) -> None:
    """Two people's ratings of items."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("item", "rater", "rating"))
        writer.writerows(
            (item, rater, (place + (rater == "b")) % 3) for place, item in enumerate(items) for rater in "ab"
        )


def write_labels(folder: Path, conversations: list[Conversation]) -> None:
    """Dialogues that failed, and labels of their replies in the form of DecoupledESC's data."""
    short = [shorten(each, 12) for each in conversations]
    write_corpus(folder / "FailedESConv.json", short, "failed_esconv")
    rows: list[dict[str, str | None]] = []
    for talk in short:
        for turn in supporter_turns(talk):
            before = talk.path(turn.parent)
            error = ERRORS[len(rows) % len(ERRORS)]
            rows.append(
                {
                    "Contains Empathy Error": "No" if error == "None" else "Yes",
                    "Error Type": error,
                    "Brief Explanation": "",
                    "user_input": before[-1].text if before else "",
                    "strategy": turn.strategy,
                    "response": turn.text,
                }
            )
    write_json(folder / "labels.json", rows)
