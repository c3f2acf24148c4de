"""The stages of planners without a language model, of stored replies, and of calibration."""

import json
from collections import Counter
from typing import Any

import numpy as np

from esckit.files import write_json
from esckit.planning.calibration import Calibration, fit_calibration
from esckit.planning.encoder import load_encoder
from esckit.planning.fitting import train_planner
from esckit.planning.planner_options import PlannerOptions
from esckit.progress import progress
from esckit.recipes.folder import Run
from esckit.recipes.stages import CalibrateStage, PlannerStage, PredictStage, RepliesStage
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import TAXONOMIES
from esckit.supporters import Supporter
from esckit.supporters.retrieval import build_store

__all__ = ["calibrate", "read_calibration", "store_replies", "train_encoder_planner"]


def train_encoder_planner(this: Run, stage: PlannerStage) -> dict[str, Any]:
    """Train a planner on an encoder's vectors and explicit features; no language model takes part."""
    conversations = [*this.corpus.train, *(this.corpus.valid if stage.with_valid and this.corpus.test else [])]
    encoder, taxonomy = load_encoder(stage.encoder), TAXONOMIES[this.taxonomy]
    folder = this.folder / stage.name
    options = PlannerOptions.model_validate(stage.model_dump(include=set(PlannerOptions.model_fields)))
    facts = train_planner(conversations, encoder, taxonomy, options, folder, seed=this.seed(stage), title=stage.name)
    unseen = {
        f"{figure}_unseen_{mode}": round(figures["calibrated"][figure], 4)
        for mode, figures in facts.get("out_of_fold", {}).items()
        for figure in ("q", "q_w", "b")
        if figures["calibrated"][figure] is not None
    }
    return {"dialogues": facts["dialogues"], "turns": facts["turns"], **unseen}


def calibrate(this: Run, stage: CalibrateStage) -> dict[str, Any]:
    """Fit temperature and class offsets of a supporter's planner on a part that it was not trained on."""
    conversations = [c for c in getattr(this.corpus, stage.split) if supporter_turns(c)]
    supporter = Supporter.load(this.folder / stage.supporter)
    with progress(stage.name, len(conversations)) as bar:
        scores, gold = [], []
        for conversation in conversations:
            turns = supporter_turns(conversation)
            shown = past_strategies(conversation, stage.past_strategies or supporter.card.past_strategies)
            scores.append(supporter.score(conversation, turns, shown))
            gold += [supporter.taxonomy.labels.index(str(turn.strategy)) for turn in turns]
            bar.advance()
    fitted = fit_calibration(np.concatenate(scores), np.array(gold))
    write_json(this.folder / stage.name / "calibration.json", fitted.to_json())
    return {"turns": len(gold), "temperature": round(fitted.temperature, 4)}


def store_replies(this: Run, stage: RepliesStage) -> dict[str, Any]:
    """Store what the training part's supporters said, where a program may say it again."""
    left_out: Counter[str] = Counter()
    turns = sum(len(supporter_turns(conversation)) for conversation in this.corpus.train)
    with progress(stage.name, turns) as bar:
        store = build_store(
            this.corpus.train,
            load_encoder(stage.encoder),
            this.corpus.name,
            this.corpus.licence,
            left_out,
            lambda done: bar.advance(steps=done),
        )
        bar.advance("left out what must not be said again", steps=bar.total - bar.done)
    store.save(this.folder / stage.name)
    for reason, count in left_out.items():
        this.count(stage, f"replies left out: {reason}", count)
    return {"turns": turns, "replies": len(store.replies)}


def read_calibration(this: Run, stage: PredictStage) -> Calibration | None:
    if stage.calibration is None:
        return None
    text = (this.folder / stage.calibration / "calibration.json").read_text(encoding="utf-8")
    return Calibration.from_json(json.loads(text))
