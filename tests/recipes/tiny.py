"""A recipe that does everything that `starter` does, on a few turns and with a model of no ability, in seconds."""

from dataclasses import replace
from pathlib import Path

from esckit.conversation import Conversation, write_conversations
from esckit.corpora import load_corpus

RECIPE = """
format: 1
title: tiny
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
model: {{pocket: 2m, vocabulary: 400, max_context: 640}}
stages:
  - {{stage: pretrain, name: pretrain, epochs: 1, batch_size: 8, learning_rate: 1.0e-3}}
  - {{stage: sft, name: coupled-sft, part: coupled, past_strategies: gold, epochs: 1, batch_size: 4}}
  - {{stage: sft, name: planner-sft, part: planner, past_strategies: hidden, epochs: 1, batch_size: 4}}
  - {{stage: sft, name: generator-sft, part: generator, past_strategies: hidden, epochs: 1, batch_size: 4}}
  - {{stage: mine, name: mine-coupled, model: coupled-sft, max_new_tokens: 6}}
  - {{stage: mine, name: mine-planner, model: planner-sft, samples: 3}}
  - {{stage: mine, name: mine-generator, model: generator-sft, max_new_tokens: 6}}
  - {{stage: preference, name: coupled-dpo, start: coupled-sft, pairs: mine-coupled, batch_size: 4, reference: stored}}
  - {{stage: preference, name: planner-dpo, start: planner-sft, pairs: mine-planner, batch_size: 4}}
  - {{stage: preference, name: generator-dpo, start: generator-sft, pairs: mine-generator, batch_size: 4,
      reference: merged}}
  - {{stage: supporter, name: coupled, coupled: coupled-sft}}
  - {{stage: supporter, name: aligned, planner: planner-dpo, generator: generator-dpo}}
  - {{stage: supporter, name: decoupled, planner: planner-sft, generator: generator-sft}}
  - {{stage: predict, name: predict-coupled, supporter: coupled, wording: {{max_new_tokens: 6}}}}
  - {{stage: predict, name: predict-decoupled, supporter: decoupled, wording: {{max_new_tokens: 6}}}}
  - {{stage: predict, name: predict-aligned, supporter: aligned, wording: {{max_new_tokens: 6}}}}
  - {{stage: evaluate, name: evaluate, predictions: [predict-coupled, predict-decoupled, predict-aligned],
      resamples: 100}}
  - {{stage: report, name: report}}
"""


def shorten(conversation: Conversation, turns: int = 8) -> Conversation:
    """The first turns of a dialogue that never branches."""
    return replace(conversation, turns=conversation.turns[:turns])


def write_tiny(folder: Path) -> Path:
    """Write a tiny corpus and its recipe into a folder; return the recipe's path."""
    starter = load_corpus("starter")
    parts = {"train": starter.train[:3], "valid": starter.valid[:1], "test": starter.test[:2]}
    for name, conversations in parts.items():
        write_conversations(folder / f"{name}.jsonl", map(shorten, conversations))
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return path
