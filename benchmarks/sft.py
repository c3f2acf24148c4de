"""Supervised fine-tuning on token tries against TRL's rows: supporter turns a second, and peak memory.

    python benchmarks/sft.py [--dialogues N] [--rounds R] [--threads T] [--backbone 2m|10m] [--corpus starter]

esckit's tries, TRL's SFTTrainer with a row for each supporter turn, and, where that is the same objective, TRL's
SFTTrainer with a row for each dialogue. All score the same tokens under a fresh LoRA adapter, each contender in a
process of its own. benchmarks/README.md says what each number means; the last line is one JSON object of ratios.
"""

import json
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import common
from common import OUR_BATCH, OURS, Bench, Comparison, Contender, How, Trained
from esckit.conversation import Conversation
from esckit.language_models.token_tree import build_tries
from esckit.rendering import Example, Layout, Part, PastStrategies, Renderer, past_strategies
from esckit.strategy import ESCONV
from esckit.training.batches import TrieDataset
from esckit.training.trainer import Likelihood

PER_TURN, DIALOGUE = "trl_per_turn", "trl_dialogue"
STEP_DIALOGUES: Final = 2  # about as many turns as a step of the others has
IGNORED: Final = -100  # the label of a token that is not scored

Dialogue = list[Example]
"""The targets of one conversation."""


class Setting(NamedTuple):
    """What is trained, how the history is laid out, what it shows of past strategies, and by whom."""

    layout: Layout
    part: Part
    past: PastStrategies
    peers: tuple[str, ...]


SETTINGS: Final = (
    Setting("shared-prefix", "planner", "gold", (PER_TURN, DIALOGUE)),
    Setting("shared-prefix", "planner", "hidden", (PER_TURN,)),
    Setting("shared-prefix", "generator", "gold", (PER_TURN, DIALOGUE)),
    Setting("shared-prefix", "generator", "hidden", (PER_TURN,)),
    Setting("shared-prefix", "coupled", "gold", (DIALOGUE,)),
    Setting("paper", "planner", "hidden", (PER_TURN,)),
    Setting("paper", "generator", "hidden", (PER_TURN,)),
)
"""A dialogue's row shows past strategies, because it scores them: where they are hidden there is none."""


class Row(NamedTuple):
    """Token ids, and for each its own id where it is scored, else `IGNORED`."""

    input_ids: list[int]
    labels: list[int]


def turn_row(example: Example) -> Row:
    """A row of one supporter turn: everything before it, and the turn."""
    read = [*example.context, *example.given]
    return Row([*read, *example.scored], [IGNORED] * len(read) + list(example.scored))


def dialogue_row(examples: Dialogue) -> Row:
    """A row of a whole dialogue, in which every turn's scored tokens are.

    Raises:
        ValueError: a turn does not read what the row has before it, so this would be another objective.
    """
    rows = [turn_row(example) for example in examples]
    whole = max(rows, key=lambda row: len(row.input_ids)).input_ids
    labels = [IGNORED] * len(whole)
    for row in rows:
        if row.input_ids != whole[: len(row.input_ids)]:
            raise ValueError("a turn's context is no part of the dialogue's row: past strategies are hidden, or cut.")
        for place, label in enumerate(row.labels):
            labels[place] = label if label != IGNORED else labels[place]
    return Row(whole, labels)


# --------------------------------------------------------------------------------------------------------- contenders


def train_turn_tries(model: Any, dialogues: Sequence[Dialogue], how: How) -> Trained:
    """esckit's way: a trie a dialogue."""
    return common.train_tries(model, TrieDataset(map(build_tries, dialogues)), Likelihood(), how.bf16)


def train_turns_with_trl(model: Any, dialogues: Sequence[Dialogue], how: How) -> Trained:
    """TRL's way: a row a turn."""
    rows = [turn_row(example) for examples in dialogues for example in examples]
    return _train_with_trl(model, rows, how, OUR_BATCH)


def train_dialogues_with_trl(model: Any, dialogues: Sequence[Dialogue], how: How) -> Trained:
    """TRL's way with chats: a row a dialogue."""
    rows = [dialogue_row(examples) for examples in dialogues]
    return _train_with_trl(model, rows, how, STEP_DIALOGUES)._replace(units=sum(map(len, dialogues)))


def _train_with_trl(model: Any, rows: Sequence[Row], how: How, step: int) -> Trained:
    """SFTTrainer, ``step`` rows an optimiser step: rows of a length together, nothing computed twice, nothing cut."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model.set_attn_implementation("sdpa")  # what transformers gives rows; blocks are made for tries
    with TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=how.batch_size,
            gradient_accumulation_steps=step // how.batch_size,
            train_sampling_strategy="group_by_length",
            gradient_checkpointing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},  # rows have token ids and labels already
            **common.quiet(how.bf16),
        )
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list([row._asdict() for row in rows]),
            processing_class=AutoTokenizer.from_pretrained(model.name_or_path),
            peft_config=common.lora(),
        )
        return common.run(trainer, len(rows))


CONTENDERS: Final = {
    OURS: Contender(train_turn_tries, (0,)),
    PER_TURN: Contender(train_turns_with_trl, (2, 8)),
    DIALOGUE: Contender(train_dialogues_with_trl, (1, 2)),
}


# ---------------------------------------------------------------------------------------------------------------- run


def rendered(conversations: Sequence[Conversation], tokenizer: Any, setting: Setting) -> list[Dialogue]:
    """The targets of each dialogue."""
    renderer = Renderer(tokenizer, ESCONV, max_context=tokenizer.model_max_length, layout=setting.layout)
    return [
        renderer.examples(conversation, setting.part, past_strategies(conversation, setting.past))
        for conversation in conversations
    ]


def say_tokens(dialogues: Sequence[Dialogue]) -> None:
    """Print how many tokens are read: what no busy machine changes."""
    tries = sum(len(trie) for examples in dialogues for trie in build_tries(examples))
    rows = sum(len(turn_row(example).input_ids) for examples in dialogues for example in examples)
    turns = sum(map(len, dialogues))
    print(f"  {turns} turns: {tries} tokens in tries, {rows} in a row a turn ({rows / tries:.1f}x)")


def compare(bench: Bench, conversations: Sequence[Conversation], tokenizer: Any) -> dict[Setting, Comparison]:
    """Measure every setting; batch sizes are chosen once for each layout and part."""
    found: dict[Setting, Comparison] = {}
    sizes: dict[tuple[Layout, Part], dict[str, int]] = {}
    for setting in SETTINGS:
        dialogues = rendered(conversations, tokenizer, setting)
        key = (setting.layout, setting.part)
        sizes[key] = sizes.get(key) or bench.warm_up(dialogues, (OURS, *setting.peers))
        found[setting] = bench.compare(dialogues, sizes[key], (OURS, *setting.peers))
        batches = ", ".join(f"{peer}: {sizes[key][peer]}" for peer in setting.peers)
        title = f"{setting.part}, past strategies {setting.past}, layout {setting.layout} (rows a batch: {batches})"
        found[setting].say(title, "turns")
        say_tokens(dialogues)
    return found


def ratios(found: dict[Setting, Comparison], layout: Layout, peer: str) -> dict[str, float]:
    """The median ratio of each part, of past strategies where it is smaller."""
    smallest: dict[str, float] = {}
    for setting, comparison in found.items():
        if setting.layout == layout and peer in setting.peers:
            median = round(comparison.median(peer), 2)
            smallest[setting.part] = min(median, smallest.get(setting.part, median))
    return smallest


def main() -> None:
    """Prepare, measure, print."""
    given = common.parse(__doc__, dialogues=4, rounds=2)
    conversations = common.load(given.corpus)
    with TemporaryDirectory() as folder:
        tokenizer = common.prepare(conversations, given.backbone, folder)
        with common.in_processes(CONTENDERS, folder, given) as bench:
            found = compare(bench, common.choose_dialogues(conversations, given.dialogues), tokenizer)
    common.say_peaks("all settings", {name: peak for each in found.values() for name, peak in each.peaks.items()})
    shared = {peer: ratios(found, "shared-prefix", peer) for peer in (PER_TURN, DIALOGUE)}
    print(json.dumps({**shared, "paper_layout": ratios(found, "paper", PER_TURN)}))


if __name__ == "__main__":
    main()
