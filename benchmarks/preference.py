"""Preference learning on token tries against one row a reply: pairs a second, and peak memory.

    python benchmarks/preference.py [--dialogues N] [--rounds R] [--threads T] [--backbone 2m|10m] [--corpus starter]

Three contenders train the same DPO pairs on the same backbone under a fresh LoRA adapter, whose absence is the
reference: esckit's tries, TRL's DPOTrainer with its defaults, and the best rows that we can write. Each has a process
of its own for each part. benchmarks/README.md says what each number means; the last line is one JSON object of ratios.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from esckit.conversation import Conversation, Preference, Turn, mined_id
from esckit.corpora import load_corpus, read_corpus
from esckit.mining.pairs import normalise, pairs_of, render_pairs
from esckit.models.backbone import device_of, load_backbone, seed_everything
from esckit.models.pocket import PocketSize, make_pocket_model, train_tokenizer
from esckit.rendering import PairExample, Part, PastStrategies, Renderer, past_strategies, supporter_turns
from esckit.strategy import ESCONV
from esckit.training.options import PreferenceOptions
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item
from esckit.training.references import adapter_off
from esckit.training.trainer import TrieTrainer, plan_batches

PARTS: Final[tuple[Part, ...]] = ("planner", "generator")
PASTS: Final[tuple[PastStrategies, ...]] = ("gold", "hidden")
OURS, TRL, NAIVE = "esckit", "trl", "best_naive"
NAIVE_BATCHES: Final = (2, 4, 8)
OUR_BATCH: Final = 32  # pairs a step: the default of a preference stage
TRL_BATCH: Final = 8
TRL_PAIRS: Final = 8  # of a round, evenly spread over it: all of them would take its trainer minutes
WARM_UP_PAIRS: Final = 8
BETA: Final = 0.1
VOCABULARY: Final = 8192

Dialogue = list[PairExample]
"""The pairs of one conversation."""


class Measured(NamedTuple):
    """Pairs trained, the seconds that took, and the process's peak memory so far in MiB."""

    pairs: int
    seconds: float
    peak: float

    @property
    def rate(self) -> float:
        """Pairs a second."""
        return self.pairs / self.seconds


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


def choose_dialogues(conversations: Sequence[Conversation], count: int) -> list[Conversation]:
    """Dialogues of evenly spread lengths: the middles of ``count`` equal parts of the corpus, shortest first."""
    able = [conversation for conversation in conversations if len(supporter_turns(conversation)) > 1]
    by_length = sorted(able, key=lambda c: (sum(len(turn.text or "") for turn in c.trunk), c.id))
    return [by_length[(2 * index + 1) * len(by_length) // (2 * count)] for index in range(count)]


def round_of(dialogues: Sequence[Dialogue], number: int, rounds: int) -> list[Dialogue]:
    """A round's share: short ones together with as long ones, so that rounds are alike."""
    half = len(dialogues) // 2
    folded = [[dialogues[i], dialogues[-1 - i]] for i in range(half)] + (
        [[dialogues[half]]] if len(dialogues) % 2 else []
    )
    return [dialogue for both in folded[number::rounds] for dialogue in both]


def spread(dialogues: Sequence[Dialogue], count: int) -> list[Dialogue]:
    """At most ``count`` of a round's pairs, at even distances: as long and as short as all of them."""
    pairs = [pair for dialogue in dialogues for pair in dialogue]
    count = min(count, len(pairs))
    return [[pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]]


# --------------------------------------------------------------------------------------------------------- contenders


class Clock(TrainerCallback):
    """Seconds from the start of training to the end of the last step."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == state.max_steps:
            self.seconds = now() - self.started


def now() -> float:
    """Seconds on a clock, what was sent to a GPU being done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def lora() -> Any:
    """The adapter that every contender trains."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def adapted(model: Any) -> Any:
    """The model under a fresh adapter."""
    from peft import get_peft_model

    return get_peft_model(model, lora())


def train_tries(model: Any, dialogues: Sequence[Dialogue], _: int) -> float:
    """esckit's way: a trie a dialogue."""
    dataset = PairDataset(make_item(pairs) for pairs in dialogues)
    (batches,) = plan_batches(dataset.counts(), OUR_BATCH, 1, seed=0)
    clock = Clock()
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=len(batches),
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        objective = PreferenceObjective(PreferenceOptions(beta=BETA), adapter_off)
        trainer = TrieTrainer(
            batches, objective, model=adapted(model), args=arguments, train_dataset=dataset, callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.seconds


def train_with_trl(model: Any, dialogues: Sequence[Dialogue], _: int) -> float:
    """TRL's way: its defaults (bfloat16, gradient checkpointing, shuffled rows), batches of 8, nothing cut."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # it has token ids already

    rows = [
        {
            "prompt_ids": [*pair.chosen.context, *pair.chosen.given],
            "chosen_ids": list(pair.chosen.scored),
            "rejected_ids": list(pair.rejected.scored),
        }
        for pairs in dialogues
        for pair in pairs
    ]
    clock = Clock()
    with TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            num_train_epochs=1,
            use_cpu=not torch.cuda.is_available(),
            per_device_train_batch_size=TRL_BATCH,
            beta=BETA,
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path)
        trainer = Tokenised(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora(),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.seconds


def train_rows(model: Any, dialogues: Sequence[Dialogue], batch_size: int) -> float:
    """The best rows: sorted by length so that little is padding, no mask, the head on scored tokens only."""
    policy = adapted(model).train()
    pairs = sorted((p for pairs in dialogues for p in pairs), key=lambda p: -max(len(_ids(side)[0]) for side in p))
    optimizer = torch.optim.AdamW((p for p in policy.parameters() if p.requires_grad), lr=1e-5, fused=True)
    started = now()
    for start in range(0, len(pairs), batch_size):
        some = pairs[start : start + batch_size]
        rows = _Rows.of([side for pair in some for side in pair], device_of(policy))
        with torch.autocast(rows.input_ids.device.type, torch.bfloat16):
            with torch.no_grad(), policy.disable_adapter():
                reference = rows.log_probabilities(policy)
            ratios = (rows.log_probabilities(policy) - reference).view(-1, 2)
            loss = -torch.nn.functional.logsigmoid(BETA * (ratios[:, 0] - ratios[:, 1])).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return now() - started


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


CONTENDERS: Final[dict[str, Callable[[Any, Sequence[Dialogue], int], float]]] = {
    OURS: train_tries,
    TRL: train_with_trl,
    NAIVE: train_rows,
}


def measure(contender: str, folder: str, dialogues: Sequence[Dialogue], threads: int, batch_size: int = 0) -> Measured:
    """Train once over these pairs, in the contender's own process."""
    torch.set_num_threads(threads)
    seed_everything(contender)
    model = load_backbone(folder).model
    if contender != OURS:
        model.set_attn_implementation("sdpa")  # what transformers gives rows; blocks are made for tries
        dialogues = spread(dialogues, TRL_PAIRS) if contender == TRL else dialogues
    seconds = CONTENDERS[contender](model, dialogues, batch_size)
    return Measured(sum(map(len, dialogues)), seconds, _peak())


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# ---------------------------------------------------------------------------------------------------------------- run


class Figures(NamedTuple):
    """Of one part: rates by contender and past strategies, one a round; peak memory by contender."""

    rates: dict[tuple[str, str], list[float]]
    peaks: dict[str, float]

    def ratios(self, peer: str, past: str) -> list[float]:
        """esckit's rate over a peer's, a round each."""
        return [a / b for a, b in zip(self.rates[OURS, past], self.rates[peer, past], strict=True)]


class Bench(NamedTuple):
    """What every measurement needs."""

    folder: str
    threads: int
    rounds: int
    pools: dict[str, ProcessPoolExecutor]

    def ask(self, contender: str, dialogues: Sequence[Dialogue], batch_size: int = 0) -> Measured:
        """Have a contender train, nothing else running."""
        pool = self.pools[contender]
        return pool.submit(measure, contender, self.folder, dialogues, self.threads, batch_size).result()

    def best_batch(self, warm_up: Sequence[Dialogue]) -> int:
        """The batch size with which the naive way is fastest."""
        self.ask(NAIVE, warm_up, NAIVE_BATCHES[0])
        return max(NAIVE_BATCHES, key=lambda size: self.ask(NAIVE, warm_up, size).rate)


def compare(part: Part, bench: Bench, by_past: dict[str, list[Dialogue]]) -> Figures:
    """Measure all contenders in turn, round after round."""
    figures = Figures({}, {})
    for past, dialogues in by_past.items():
        warm_up = [[*dialogues[len(dialogues) // 2][-WARM_UP_PAIRS:]]]
        batch_size = bench.best_batch(warm_up)
        for contender in (OURS, TRL):
            bench.ask(contender, warm_up)
        for number in range(bench.rounds):
            for contender in CONTENDERS:
                found = bench.ask(contender, round_of(dialogues, number, bench.rounds), batch_size)
                figures.rates.setdefault((contender, past), []).append(found.rate)
                figures.peaks[contender] = found.peak
        say(f"{part}, past strategies {past} (best rows: {batch_size} pairs a batch)", figures, past)
    return figures


def say(title: str, figures: Figures, past: str) -> None:
    """Print what one setting gave."""
    print(title)
    for contender in CONTENDERS:
        rates = figures.rates[contender, past]
        line = f"  {contender:<11}{statistics.median(rates):8.2f} pairs/s  ({min(rates):.2f}..{max(rates):.2f})"
        if contender != OURS:
            ratios = figures.ratios(contender, past)
            line += f"   esckit is {statistics.median(ratios):.1f}x ({min(ratios):.1f}..{max(ratios):.1f})"
        print(line, flush=True)


def summary(figures: dict[Part, Figures]) -> dict[str, dict[str, float]]:
    """The median ratio over rounds, of the past strategies where it is smaller."""
    return {
        peer: {
            part: round(min(statistics.median(found.ratios(peer, past)) for past in PASTS), 2)
            for part, found in figures.items()
        }
        for peer in (TRL, NAIVE)
    }


def load(corpus: str) -> list[Conversation]:
    """ESConv's train dialogues from the data folder, or the starter corpus where it is named."""
    if corpus == "starter":
        return list(load_corpus("starter").train)
    path = Path(os.environ.get("ESCKIT_DATA", Path(__file__).parents[1] / "../shared/data")) / "esconv/train.json"
    if not path.exists():
        sys.exit(
            f"{path} is missing: set ESCKIT_DATA to the folder that holds esconv/train.json, or say --corpus starter."
        )
    return list(read_corpus(path, "esconv"))


def prepare(conversations: Sequence[Conversation], size: PocketSize, folder: str) -> Renderer:
    """Write a pocket backbone with random weights; return the renderer of its tokenizer."""
    tokenizer = train_tokenizer(conversations, VOCABULARY)
    seed_everything(0)
    model = make_pocket_model(size, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Renderer(tokenizer, ESCONV, max_context=model.config.max_position_embeddings)


def rendered(
    grown: Sequence[Conversation], chosen: Sequence[str], renderer: Renderer, part: Part
) -> dict[str, list[Dialogue]]:
    """The chosen dialogues' pairs for a part, by what the history shows."""
    of_id = {conversation.id: conversation for conversation in grown}
    pairs = pairs_of([of_id[key] for key in chosen], part)
    return {past: render_pairs(pairs, renderer, part, partial(past_strategies, mode=past)) for past in PASTS}


def own_processes() -> Iterator[tuple[str, ProcessPoolExecutor]]:
    """A process for each contender, which lives through all rounds of a part."""
    for contender in CONTENDERS:
        yield contender, ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dialogues", type=int, default=6, help="how many, over all rounds (default 6)")
    parser.add_argument("--rounds", type=int, default=3, help="each contender once a round (default 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    parser.add_argument("--backbone", choices=["2m", "10m"], default="10m")
    parser.add_argument("--corpus", choices=["esconv", "starter"], default="esconv")
    given = parser.parse_args()
    if given.rounds < 1 or given.dialogues < 2 * given.rounds - 1:
        parser.error("give at least one round, and two dialogues a round (one less in all will do).")
    return given


def main() -> None:
    """Prepare, measure, print."""
    given = parse()
    conversations = load(given.corpus)
    chosen = [conversation.id for conversation in choose_dialogues(conversations, given.dialogues)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {given.threads} threads"
    print(f"{given.corpus}, {len(chosen)} dialogues, backbone {given.backbone}, bfloat16, {device}", flush=True)
    figures: dict[Part, Figures] = {}
    with TemporaryDirectory() as folder:
        renderer = prepare(conversations, given.backbone, folder)
        for part in PARTS:
            by_past = rendered(with_pairs(conversations, part), chosen, renderer, part)
            pools = dict(own_processes())
            figures[part] = compare(part, Bench(folder, given.threads, given.rounds, pools), by_past)
            for pool in pools.values():
                pool.shutdown()
    kind = "allocated on the GPU" if torch.cuda.is_available() else "resident"
    for part, found in figures.items():
        peaks = ", ".join(f"{contender} {peak:.0f} MiB" for contender, peak in found.peaks.items())
        print(f"peak memory, {part} ({kind}): {peaks}")
    print(json.dumps(summary(figures)))


if __name__ == "__main__":
    main()
