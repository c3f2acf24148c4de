"""Preference learning on token tries against one row a reply: pairs a second, and peak memory.

    python benchmarks/preference.py [--dialogues N] [--rounds R] [--threads T] [--backbone 2m|10m] [--corpus starter]

Three contenders train the same DPO pairs on the same backbone under a fresh LoRA adapter, whose absence is the
reference: esckit's tries, TRL's DPOTrainer with its defaults, and the best rows that we can write. Each has a process
of its own for each part. benchmarks/README.md says what each number means; the last line is one JSON object of ratios.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor

import common
from common import OURS, Bench, Comparison, Contender, How, Trained
from esckit.conversation import Conversation, Preference, Turn, mined_id
from esckit.language_models.backbone import device_of
from esckit.mining.pairs import normalise, pairs_of, render_pairs
from esckit.rendering import PairExample, Part, PastStrategies, Renderer, past_strategies, supporter_turns
from esckit.strategy import ESCONV
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item
from esckit.training.references import adapter_off
from esckit.training.training_options import PreferenceOptions

PARTS: Final[tuple[Part, ...]] = ("planner", "generator")
PASTS: Final[tuple[PastStrategies, ...]] = ("gold", "hidden")
TRL, NAIVE = "trl", "best_naive"
TRL_PAIRS: Final = 8  # of a round, evenly spread over it: all of them would take its trainer minutes
BETA: Final = 0.1

Dialogue = list[PairExample]
"""The pairs of one conversation."""


# -------------------------------------------------------------------------------------------------------------- pairs


def with_pairs(conversations: Sequence[Conversation], part: Part) -> list[Conversation]:
    """Trees with one pair a supporter turn: another label, or another dialogue's reply of the nearest length."""
    replies = sorted(
        (len(turn.text or ""), turn.text or "", conversation.id)
        for conversation in conversations
        for turn in supporter_turns(conversation)
    )
    grown = []
    for conversation in conversations:
        golds = supporter_turns(conversation)
        if part == "planner":
            others = [_turn(gold, _other_label(gold, number), None) for number, gold in enumerate(golds)]
        else:
            others = [_turn(gold, str(gold.strategy), _other_text(gold, conversation.id, replies)) for gold in golds]
        aspect: Any = "strategy" if part == "planner" else "response"
        preferences = [Preference(gold.id, other.id, aspect) for gold, other in zip(golds, others, strict=True)]
        grown.append(conversation.grow(others, preferences))
    return grown


def _turn(gold: Turn, strategy: str, text: str | None) -> Turn:
    key = mined_id(gold.parent, "benchmark", strategy, text)
    return Turn(key, gold.parent, "supporter", text, strategy, "benchmark")


def _other_label(gold: Turn, number: int) -> str:
    labels = ESCONV.labels
    return labels[(labels.index(str(gold.strategy)) + 1 + number % (len(labels) - 1)) % len(labels)]


def _other_text(gold: Turn, owner: str, replies: Sequence[tuple[int, str, str]]) -> str:
    text = gold.text or ""
    start = bisect_left(replies, (len(text), text, owner))
    nearest = sorted(
        range(max(0, start - 200), min(len(replies), start + 200)), key=lambda i: (abs(replies[i][0] - len(text)), i)
    )
    return next(
        replies[i][1] for i in nearest if replies[i][2] != owner and normalise(replies[i][1]) != normalise(text)
    )


def spread(dialogues: Sequence[Dialogue], count: int) -> list[PairExample]:
    """At most ``count`` of a round's pairs, at even distances: as long and as short as all of them."""
    pairs = [pair for dialogue in dialogues for pair in dialogue]
    count = min(count, len(pairs))
    return [pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]


# --------------------------------------------------------------------------------------------------------- contenders


def train_pair_tries(model: Any, dialogues: Sequence[Dialogue], how: How) -> Trained:
    """esckit's way: a trie a dialogue, both sides of its pairs in it."""
    objective = PreferenceObjective(PreferenceOptions(beta=BETA), adapter_off)
    return common.train_tries(model, PairDataset(make_item(pairs) for pairs in dialogues), objective, how.bf16)


def train_with_trl(model: Any, dialogues: Sequence[Dialogue], how: How) -> Trained:
    """TRL's way: its defaults (gradient checkpointing, shuffled rows, batches of 8), nothing cut."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # it has token ids already

    model.set_attn_implementation("sdpa")  # what transformers gives rows; blocks are made for tries
    rows = [
        {
            "prompt_ids": [*pair.chosen.context, *pair.chosen.given],
            "chosen_ids": list(pair.chosen.scored),
            "rejected_ids": list(pair.rejected.scored),
        }
        for pair in spread(dialogues, TRL_PAIRS)
    ]
    with TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=how.batch_size,
            beta=BETA,
            max_length=None,
            **common.quiet(how.bf16),
        )
        trainer = Tokenised(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model.name_or_path),
            peft_config=common.lora(),
        )
        return common.run(trainer, len(rows))


def train_rows(model: Any, dialogues: Sequence[Dialogue], how: How) -> Trained:
    """The best rows: sorted by length so that little is padding, no mask, the head on scored tokens only."""
    model.set_attn_implementation("sdpa")
    policy = common.adapted(model).train()
    pairs = sorted((p for pairs in dialogues for p in pairs), key=lambda p: -max(len(_ids(side)[0]) for side in p))
    optimizer = torch.optim.AdamW((p for p in policy.parameters() if p.requires_grad), lr=1e-5, fused=True)
    total = torch.zeros((), device=device_of(policy))
    started = common.now()
    for start in range(0, len(pairs), how.batch_size):
        some = pairs[start : start + how.batch_size]
        rows = _Rows.of([side for pair in some for side in pair], device_of(policy))
        with torch.autocast(rows.input_ids.device.type, torch.bfloat16, enabled=how.bf16):
            with torch.no_grad(), policy.disable_adapter():
                reference = rows.log_probabilities(policy)
            ratios = (rows.log_probabilities(policy) - reference).view(-1, 2)
            losses = -torch.nn.functional.logsigmoid(BETA * (ratios[:, 0] - ratios[:, 1]))
        torch.autograd.backward(losses.mean())
        total += losses.detach().sum()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return Trained(len(pairs), common.now() - started, float(total) / len(pairs))


def _ids(side: Any) -> tuple[list[int], int]:
    """The row of a reply, and where its scored tokens begin."""
    prompt = [*side.context, *side.given]
    return [*prompt, *side.scored], len(prompt)


@dataclass
class _Rows:
    """Rows padded on the right (R, W); ``keep`` is true where the next token is scored, ``token`` (S,) says which."""

    input_ids: Tensor
    keep: Tensor
    token: Tensor
    row: Tensor

    @classmethod
    def of(cls, sides: Sequence[Any], device: Any) -> "_Rows":
        rows = [_ids(side) for side in sides]
        input_ids = torch.zeros(len(rows), max(len(ids) for ids, _ in rows), dtype=torch.long)
        keep = torch.zeros_like(input_ids, dtype=torch.bool)
        for index, (ids, start) in enumerate(rows):
            input_ids[index, : len(ids)] = torch.tensor(ids)
            keep[index, start - 1 : len(ids) - 1] = True
        token = torch.cat([torch.tensor(ids[start:]) for ids, start in rows])
        return cls(*(tensor.to(device) for tensor in (input_ids, keep, token, keep.nonzero()[:, 0])))

    def log_probabilities(self, model: Any) -> Tensor:
        """(R,) of each row's scored tokens. Causal attention alone hides what stands to the right."""
        logits = model(input_ids=self.input_ids, logits_to_keep=self.keep, use_cache=False).logits.float()  # (S, V)
        per_token = logits.gather(-1, self.token[:, None])[:, 0] - logits.logsumexp(-1)
        total: Tensor = per_token.new_zeros(len(self.input_ids)).index_add(0, self.row, per_token)
        return total


CONTENDERS: Final = {
    OURS: Contender(train_pair_tries, (0,)),
    TRL: Contender(train_with_trl, (8,)),
    NAIVE: Contender(train_rows, (2, 4, 8)),
}


# ---------------------------------------------------------------------------------------------------------------- run


def rendered(
    grown: Sequence[Conversation], chosen: Sequence[str], renderer: Renderer, part: Part
) -> dict[PastStrategies, list[Dialogue]]:
    """The chosen dialogues' pairs for a part, by what the history shows."""
    of_id = {conversation.id: conversation for conversation in grown}
    pairs = pairs_of([of_id[key] for key in chosen], part)
    return {past: render_pairs(pairs, renderer, part, partial(past_strategies, mode=past)) for past in PASTS}


def compare(part: Part, bench: Bench, by_past: dict[PastStrategies, list[Dialogue]]) -> list[Comparison]:
    """Measure all contenders with past strategies shown, then hidden."""
    sizes = bench.warm_up(by_past[PASTS[0]], list(CONTENDERS))
    found = []
    for past, dialogues in by_past.items():
        found.append(bench.compare(dialogues, sizes, list(CONTENDERS)))
        found[-1].say(f"{part}, past strategies {past} (best rows: {sizes[NAIVE]} pairs a batch)", "pairs")
    return found


def main() -> None:
    """Prepare, measure, print."""
    given = common.parse(__doc__, dialogues=4, rounds=2)
    conversations = common.load(given.corpus)
    chosen = [conversation.id for conversation in common.choose_dialogues(conversations, given.dialogues)]
    found: dict[Part, list[Comparison]] = {}
    with TemporaryDirectory() as folder:
        tokenizer = common.prepare(conversations, given.backbone, folder)
        renderer = Renderer(tokenizer, ESCONV, max_context=tokenizer.model_max_length)
        for part in PARTS:
            by_past = rendered(with_pairs(conversations, part), chosen, renderer, part)
            with common.in_processes(CONTENDERS, folder, given) as bench:
                found[part] = compare(part, bench, by_past)
    for part, comparisons in found.items():
        common.say_peaks(part, comparisons[-1].peaks)
    ratios = {
        peer: {part: round(min(each.median(peer) for each in own), 2) for part, own in found.items()}
        for peer in (TRL, NAIVE)
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
