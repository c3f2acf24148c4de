"""What experts cost: a mixture against one LoRA of its total rank, in steps of training, memory, and replies written.

    python benchmarks/experts.py [--models pocket smollm2] [--rank R] [--rounds N] [--threads T] [--corpus starter]

Eight experts of roles and eight of strategies with gates a token, esckit's LoRA, and PEFT's own LoRA, each in a process
of its own, in turn. The last line is one JSON object of ratios; benchmarks/README.md says what each number means.
"""

import argparse
import json
import os
import pickle
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch
import transformers

import common
import smollm2
from esckit.conversation import Conversation
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.language_models.backbone import Backbone, load_backbone, seed_everything
from esckit.language_models.generation import generate_ids
from esckit.language_models.token_tree import build_tries, collate
from esckit.rendering import Example, Renderer, past_strategies, supporter_turns
from esckit.rendering.gates import Gates
from esckit.strategy import ESCONV
from esckit.training.adapters import fresh_adapter, fresh_experts
from esckit.training.trainer import Likelihood
from esckit.training.training_options import ExpertsOptions, LoraOptions

EXPERTS, LORA, PEFT = "experts", "lora", "peft"
GROUPS: Final = {"role": 8, "strategy": 8}
ROLES: Final = tuple(f"role-{number}" for number in range(9))
BATCHES: Final = (1, 4, 16)
DROPOUT: Final = 0.05  # of a stage


class Work(NamedTuple):
    """What a contender is given.

    Attributes:
        folder: the backbone's, or a name.
        rank: of each group's experts together.
        conversations: dialogues of one step.
        new_tokens: of a reply, all of which are written.
    """

    folder: str
    rank: int
    conversations: tuple[Conversation, ...]
    turns: int
    new_tokens: int
    threads: int


class Made(NamedTuple):
    """A contender's model and optimiser, the targets of a step, and prompts with their pairs."""

    model: Any
    optimiser: Any
    examples: list[list[Example]]
    asked: list[Example]


def adapt(backbone: Backbone, contender: str, rank: int) -> Any:
    """The backbone under a fresh adapter of one total rank."""
    if contender == EXPERTS:
        options = ExpertsOptions(groups=GROUPS, rank="total")
        members = {"role": ROLES, "strategy": ESCONV.labels}
        return fresh_experts(backbone.model, LoraOptions(r=rank, dropout=DROPOUT), options, members, "generator")
    total = rank * len(GROUPS)
    if contender == LORA:
        return fresh_adapter(backbone.model, LoraOptions(r=total, dropout=DROPOUT), "generator")
    from peft import LoraConfig, get_peft_model

    sizes = {"r": total, "lora_alpha": total, "lora_dropout": DROPOUT}
    return get_peft_model(backbone.model, LoraConfig(**sizes, target_modules="all-linear", task_type="CAUSAL_LM"))


@cache
def make(contender: str, told: bytes) -> Made:
    """Load and render once a process; the work comes pickled, as nobody hashes dialogues."""
    work: Work = pickle.loads(told)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(work.threads)
    seed_everything("experts")
    backbone = load_backbone(work.folder)
    model = adapt(backbone, contender, work.rank)
    gates = Gates({"role": ROLES, "strategy": ESCONV.labels}) if contender == EXPERTS else None
    renderer = Renderer(backbone.tokenizer, ESCONV, max_context=backbone.max_context, gates=gates)
    examples, asked = [], []
    for number, plain in enumerate(work.conversations):
        conversation = replace(plain, labels={**plain.labels, "role": ROLES[number % len(ROLES)]})
        shown, turns = past_strategies(conversation, "gold"), supporter_turns(conversation)[: work.turns]
        examples.append(renderer.examples(conversation, "generator", shown, turns))
        asked += [renderer.asked(conversation, turn, "generator", shown, work.new_tokens) for turn in turns]
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
    return Made(model, optimiser, examples, asked)


class Step(NamedTuple):
    """Seconds of a step, how many nodes it read, and the process's peak memory so far in MiB."""

    seconds: float
    nodes: int
    peak: float


def _clock() -> float:
    """CPU seconds of this process, which others on the machine do not change; of the wall on CUDA."""
    return common.now() if torch.cuda.is_available() else time.process_time()


def train_step(contender: str, told: bytes) -> Step:
    """Forward, backward and AdamW of all dialogues' tries in one pass."""
    made = make(contender, told)
    tries = [trie for own in made.examples for trie in build_tries(own)]
    start = _clock()
    batch = collate(tries).to(next(made.model.parameters()).device)
    loss = Likelihood().loss(made.model.train(), batch._asdict(), batch.weight.sum()[None])
    torch.autograd.backward(loss)
    made.optimiser.step()
    made.optimiser.zero_grad()
    return Step(_clock() - start, sum(map(len, tries)), common.peak_memory())


def write(contender: str, told: bytes, batch: int, new_tokens: int) -> float:
    """Seconds to write the last so many replies, as long as allowed; where there are fewer, some twice."""
    made = make(contender, told)
    asked = (made.asked * batch)[-batch:]
    prompts = [[*one.context, *one.given] for one in asked]
    pairs = [list(one.pairs) for one in asked] if contender == EXPERTS else None
    decoding = Decoding(greedy=True, max_new_tokens=new_tokens)
    start = _clock()
    generate_ids(made.model.eval(), prompts, -1, decoding, range(batch), pairs=pairs)
    return _clock() - start


def compare(name: str, work: Work, rounds: int) -> dict[str, float]:
    """Ratios of the contenders, each in a process of its own, in turn; the first round of each is not counted."""
    found: dict[str, float] = {}
    told = pickle.dumps(work)
    with ExitStack() as stack:
        spawn = get_context("spawn")
        pools = {
            contender: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
            for contender in (EXPERTS, LORA, PEFT)
        }
        rows = [
            {contender: pool.submit(train_step, contender, told).result() for contender, pool in pools.items()}
            for _ in range(rounds + 1)
        ]
        assert len({step.nodes for step in rows[0].values()}) == 1, "all read the same"
        for row in rows[1:]:
            line = ", ".join(
                f"{contender} {step.seconds:.2f} s, {step.peak:.0f} MiB" for contender, step in row.items()
            )
            print(f"  {name}, a step of {row[EXPERTS].nodes} nodes: {line}", flush=True)
        for peer in (LORA, PEFT):
            speeds = [row[peer].seconds / row[EXPERTS].seconds for row in rows[1:]]
            found[f"{name}_step_over_{peer}"] = statistics.median(speeds)
            found[f"{name}_memory_over_{peer}"] = rows[-1][EXPERTS].peak / rows[-1][peer].peak
        for batch in BATCHES:
            taken = [
                {name: pool.submit(write, name, told, batch, work.new_tokens).result() for name, pool in pools.items()}
                for _ in range(rounds + 1)
            ][1:]
            found |= _written(name, batch, taken, work)
    return found


def _written(name: str, batch: int, taken: Sequence[Mapping[str, float]], work: Work) -> dict[str, float]:
    for row in taken:
        rates = ", ".join(f"{contender} {batch * work.new_tokens / each:.1f}" for contender, each in row.items())
        print(f"  {name}, batch {batch}, new tokens/s: {rates}", flush=True)
    return {
        f"{name}_write_{batch}_over_{peer}": statistics.median(row[peer] / row[EXPERTS] for row in taken)
        for peer in (LORA, PEFT)
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["pocket", "smollm2"], help="pocket, a folder, or a name")
    parser.add_argument("--rank", type=int, default=32, help="of each group's experts together (default 32)")
    parser.add_argument("--dialogues", type=int, default=4, help="of a step on the pocket model (default 4)")
    parser.add_argument("--turns", type=int, default=14, help="supporter turns of a dialogue, at most (default 14)")
    parser.add_argument("--new-tokens", type=int, default=24, help="of a reply (default 24)")
    parser.add_argument("--rounds", type=int, default=2, help="(default 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    parser.add_argument("--corpus", choices=["esconv", "starter"], default="esconv")
    return parser.parse_args()


def main() -> None:
    """Compare on each model."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as esckit's commands do, for everyone
    given = parse()
    conversations, found = common.load(given.corpus), dict[str, float]()
    for name in given.models:
        with TemporaryDirectory() as folder:
            if name == "pocket":
                common.prepare(conversations, "2m", folder)
                chosen = common.choose_dialogues(conversations, given.dialogues)
            else:
                chosen = [smollm2.choose(conversations, given.turns)]
            source = folder if name == "pocket" else name
            work = Work(source, given.rank, tuple(chosen), given.turns, given.new_tokens, given.threads)
            try:
                found |= compare(Path(name).name, work, given.rounds)
            except ModelError as error:
                print(f"Skipped: {error}")
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


if __name__ == "__main__":
    main()
