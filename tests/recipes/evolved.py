"""A recipe of two rounds of self-evolution on a few turns, in seconds.

Its supporters say one sentence, which a tiny model learns at once: what spoils it shows. Drafts are hot, so unlike it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from esckit.conversation import Conversation, write_conversations
from esckit.corpora import load_corpus
from tests.recipes.tiny import shorten
from tests.tiny import save_base

RECIPE: Final = """
format: 1
title: tiny evolution
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
model: {{path: {folder}/base}}
stages:
  - {{stage: sft, name: sft, part: coupled, past_strategies: gold, epochs: 8, batch_size: 2, learning_rate: 5.0e-2}}
  - repeat:
      name: rounds
      times: 2
      start: {{kept: sft, refined: null}}
      stages:
        - {{stage: refine, name: refined, model: kept, trees: refined, dialogues: 2, refined_by: people,
            wording: {{temperature: 9, top_p: 1, max_new_tokens: 6}}, skip_last: 0,
            encoder: null}}
        - {{stage: preference, name: dpo, start: kept, pairs: refined, batch_size: 4, sft_weight: 1,
            learning_rate: 1.0e-4, checkpoint_seconds: 0}}
        - {{stage: keep, name: kept, start: dpo, before: kept, metric: f1_utterance, wording: {{max_new_tokens: 12}}}}
        - {{stage: supporter, name: evolved, coupled: dpo}}
        - {{stage: predict, name: predict-evolved, supporter: evolved, wording: {{max_new_tokens: 6}}}}
  - {{stage: supporter, name: first, coupled: sft}}
  - {{stage: predict, name: predict, supporter: first, wording: {{max_new_tokens: 6}}}}
  - {{stage: supporter, name: last, coupled: kept}}
  - {{stage: evaluate, name: evaluate, predictions: [predict, predict-evolved-1, predict-evolved], resamples: 100}}
"""

SAID: Final = "I hear you, and it is hard."

GOES_ON: Final = ["kept.stops=false"]
"""Keeps every candidate, and goes on."""


def write_evolution(folder: Path) -> Path:
    """Write a tiny corpus and its recipe into a folder; return the recipe's path."""
    starter = load_corpus("starter")
    parts = {"train": starter.train[:4], "valid": starter.valid[:2], "test": starter.test[:1]}
    for name, conversations in parts.items():
        write_conversations(folder / f"{name}.jsonl", map(_monotonous, conversations))
    save_base(folder / "base")
    path = folder / "evolution.yaml"
    path.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return path


def _monotonous(conversation: Conversation) -> Conversation:
    short = shorten(conversation)
    turns = [replace(turn, text=SAID) if turn.speaker == "supporter" else turn for turn in short.turns]
    return replace(short, turns=turns)
