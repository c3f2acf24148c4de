"""A run in the layout ``paper``: every stage reads and says what the layout has."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import read_conversations
from esckit.language_models.generation import generate
from esckit.language_models.token_tree import build_tries
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.rendering import Example, supporter_turns
from esckit.supporters import Supporter
from tests.recipes.tiny import write_tiny
from tests.tiny import save_base, tiny_tokenizer

STAGES = """
  - {stage: sft, name: planner-sft, part: planner, past_strategies: hidden, epochs: 1, batch_size: 4}
  - {stage: sft, name: generator-sft, part: generator, past_strategies: hidden, epochs: 1, batch_size: 4}
  - {stage: mine, name: mine-planner, model: planner-sft}
  - {stage: mine, name: mine-generator, model: generator-sft, max_new_tokens: 4}
  - {stage: preference, name: planner-dpo, start: planner-sft, pairs: mine-planner, batch_size: 8}
  - {stage: supporter, name: decoupled, planner: planner-dpo, generator: generator-sft}
  - {stage: predict, name: predict, supporter: decoupled, wording: {max_new_tokens: 4}}
"""


class Read:
    """What was made into tries for training, and what replies were generated from, in text."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.contexts: list[str] = []
        self.prompts: list[str] = []
        patch.setattr("esckit.recipes.training_work.build_tries", self.build)
        patch.setattr("esckit.supporters.language_parts.generate", self.generate)

    def build(self, examples: Sequence[Example], *more: Any) -> Any:
        self.contexts += [tiny_tokenizer().decode(example.context) for example in examples]
        return build_tries(examples, *more)

    def generate(self, model: Any, tokenizer: Any, prompts: Sequence[tuple[int, ...]], *more: Any) -> Any:
        self.prompts += [tiny_tokenizer().decode(prompt) for prompt in prompts]
        return generate(model, tokenizer, prompts, *more)


def test_every_stage_of_a_run_keeps_to_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path)
    head = path.read_text(encoding="utf-8").split("stages:")[0]
    path.write_text(f"{head}stages:{STAGES}", encoding="utf-8")
    base = save_base(tmp_path / "base")
    read = Read(monkeypatch)
    settings = ["model.layout=paper", f"model.path={base}", "model.max_context=2048"]
    run(load_recipe(str(path), settings), tmp_path / "run")

    planned = [context for context in read.contexts if "Answer with the name alone" in context]
    worded = [context for context in read.contexts if "The strategy of your next reply: " in context]
    assert planned
    assert worded
    assert len(planned) + len(worded) == len(read.contexts)
    assert all("<|im_start|>user\nseeker: " in context for context in planned)
    mined = sum(len(supporter_turns(tree)) for tree in read_conversations(tmp_path / "train.jsonl"))
    assert set(worded[:mined]) <= set(read.prompts), "mining asks what training taught"
    assert all(prompt.endswith("<|im_start|>assistant\n") for prompt in read.prompts)
    assert json.loads((tmp_path / "run/decoupled/supporter.json").read_text())["layout"] == "paper"
    assert Supporter.load(tmp_path / "run/decoupled").card.layout == "paper"
    assert any(tree.preferences for tree in read_conversations(tmp_path / "run/mine-planner/trees.jsonl"))
