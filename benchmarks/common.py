"""What the benchmarks of training share: dialogues, a pocket backbone, contenders in processes of their own, rounds.

A contender trains the units of some dialogues (preference pairs, or supporter turns) and says how long that took. All
get the same units as token ids, the same backbone under the same fresh LoRA adapter, and the same rounds, in turn.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from esckit.conversation import Conversation
from esckit.corpora import load_corpus, read_corpus
from esckit.language_models.backbone import load_backbone, seed_everything
from esckit.language_models.pocket import PocketSize, make_pocket_model, train_tokenizer
from esckit.language_models.precision import fast_precision
from esckit.rendering import supporter_turns
from esckit.training.adapters import fresh_adapter
from esckit.training.batches import plan_batches
from esckit.training.trainer import Objective, TrieTrainer
from esckit.training.training_options import LoraOptions

OURS: Final = "esckit"
OUR_BATCH: Final = 32  # pairs or turns a step: the default of a stage
WARM_UP_UNITS: Final = 8
VOCABULARY: Final = 8192


class How(NamedTuple):
    """Rows a batch (esckit's batches are its own), and whether to train under bfloat16 autocast."""

    batch_size: int
    bf16: bool


class Trained(NamedTuple):
    """Units trained, the seconds that took, and the mean loss in nats."""

    units: int
    seconds: float
    loss: float


class Contender(NamedTuple):
    """A way to train, in place, and the batch sizes among which the fastest is taken."""

    train: Callable[[Any, Sequence[list[Any]], How], Trained]
    batch_sizes: tuple[int, ...]


# ----------------------------------------------------------------------------------------------------------- dialogues


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


def choose_dialogues(conversations: Sequence[Conversation], count: int) -> list[Conversation]:
    """Dialogues of evenly spread lengths: the middles of ``count`` equal parts of the corpus, shortest first."""
    able = [conversation for conversation in conversations if len(supporter_turns(conversation)) > 1]
    by_length = sorted(able, key=lambda c: (sum(len(turn.text or "") for turn in c.trunk), c.id))
    return [by_length[(2 * index + 1) * len(by_length) // (2 * count)] for index in range(count)]


def round_of(dialogues: Sequence[list[Any]], number: int, rounds: int) -> list[list[Any]]:
    """A round's share: short ones together with as long ones, so that rounds are alike."""
    half = len(dialogues) // 2
    folded = [[dialogues[i], dialogues[-1 - i]] for i in range(half)] + (
        [[dialogues[half]]] if len(dialogues) % 2 else []
    )
    return [dialogue for both in folded[number::rounds] for dialogue in both]


def prepare(conversations: Sequence[Conversation], size: PocketSize, folder: str) -> Any:
    """Write a pocket backbone with random weights; return its tokenizer, which knows the most positions."""
    tokenizer = train_tokenizer(conversations, VOCABULARY)
    seed_everything(0)
    make_pocket_model(size, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


# ------------------------------------------------------------------------------------------------------------ training


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


def quiet(bf16: bool) -> dict[str, Any]:
    """What every Trainer is told: nothing is saved, reported or drawn."""
    return {
        "bf16": bf16,
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def run(trainer: Any, units: int) -> Trained:
    """Train, the clock running."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    loss = trainer.train().training_loss
    return Trained(units, clock.seconds, float(loss))


def train_tries(model: Any, dataset: Any, objective: Objective, bf16: bool) -> Trained:
    """esckit's way: whole dialogues, a trie each, until a step has its units."""
    (batches,) = plan_batches(dataset.counts(), OUR_BATCH, 1, seed=0)
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=len(batches),
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **quiet(bf16),
        )
        ours = fresh_adapter(model, LoraOptions(dropout=0.0), "default")  # the same adapter as `lora`, computed our way
        trainer = TrieTrainer(batches, objective, model=ours, args=arguments, train_dataset=dataset)
        return run(trainer, sum(dataset.counts()))


# ----------------------------------------------------------------------------------------------------------- measuring


class Measured(NamedTuple):
    """Units a second, and the process's peak memory so far in MiB."""

    rate: float
    peak: float


def measure(
    train: Callable[[Any, Sequence[list[Any]], How], Trained],
    folder: str,
    dialogues: Sequence[list[Any]],
    threads: int,
    how: How,
) -> Measured:
    """Train once over these dialogues, in the contender's own process."""
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    seed_everything(train.__name__)
    trained = train(load_backbone(folder).model, dialogues, how)
    return Measured(trained.units / trained.seconds, peak_memory())


def peak_memory() -> float:
    """The process's peak memory so far in MiB: resident, or allocated on the GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Comparison(NamedTuple):
    """Of one setting, by contender: units a second, one a round, and the peak memory of its process."""

    rates: dict[str, list[float]]
    peaks: dict[str, float]

    def ratios(self, peer: str) -> list[float]:
        """esckit's rate over a peer's, a round each."""
        return [ours / theirs for ours, theirs in zip(self.rates[OURS], self.rates[peer], strict=True)]

    def median(self, peer: str) -> float:
        """The median of those."""
        return statistics.median(self.ratios(peer))

    def say(self, title: str, unit: str) -> None:
        """Print what the setting gave."""
        print(title)
        for contender, rates in self.rates.items():
            line = f"  {contender:<13}{statistics.median(rates):8.2f} {unit}/s  ({min(rates):.2f}..{max(rates):.2f})"
            if contender != OURS:
                ratios = self.ratios(contender)
                line += f"   esckit is {self.median(contender):.1f}x ({min(ratios):.1f}..{max(ratios):.1f})"
            print(line, flush=True)


class Bench(NamedTuple):
    """What every measurement needs."""

    contenders: Mapping[str, Contender]
    pools: Mapping[str, ProcessPoolExecutor]
    folder: str
    given: argparse.Namespace

    def ask(self, name: str, dialogues: Sequence[list[Any]], batch_size: int) -> Measured:
        """Have a contender train, nothing else running."""
        how = How(batch_size, self.given.precision == "bfloat16")
        train = self.contenders[name].train
        return self.pools[name].submit(measure, train, self.folder, dialogues, self.given.threads, how).result()

    def warm_up(self, dialogues: Sequence[list[Any]], names: Sequence[str]) -> dict[str, int]:
        """Have contenders train once; return the batch size with which each is fastest."""
        middle = len(dialogues) // 2
        work = [own[-WARM_UP_UNITS // 2 :] for own in dialogues[max(0, middle - 1) : middle + 1]]
        fastest = {}
        for name in names:
            sizes = self.contenders[name].batch_sizes[: None if time.monotonic() < self.given.ends else 1]
            self.ask(name, work, sizes[0])
            rates = {size: self.ask(name, work, size).rate for size in sizes[1:] and sizes}
            fastest[name] = max(rates, key=rates.__getitem__, default=sizes[0])
        return fastest

    def compare(
        self, dialogues: Sequence[list[Any]], batch_sizes: Mapping[str, int], names: Sequence[str]
    ) -> Comparison:
        """Measure the contenders in turn, round after round."""
        found = Comparison({name: [] for name in names}, {})
        for number in range(self.given.rounds):
            if number and time.monotonic() > self.given.ends:
                print(f"rounds left out, as {self.given.minutes:g} minutes are over: {self.given.rounds - number}")
                break
            for name in names:
                measured = self.ask(name, round_of(dialogues, number, self.given.rounds), batch_sizes[name])
                found.rates[name].append(measured.rate)
                found.peaks[name] = measured.peak
        return found


@contextmanager
def in_processes(contenders: Mapping[str, Contender], folder: str, given: argparse.Namespace) -> Iterator[Bench]:
    """A process for each contender, until the context ends."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as esckit's commands do, for everyone
    with ExitStack() as stack:
        spawn = get_context("spawn")
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for name in contenders}
        yield Bench(contenders, pools, folder, given)


def say_peaks(title: str, peaks: Mapping[str, float]) -> None:
    """Print the contenders' memory."""
    kind = "allocated on the GPU" if torch.cuda.is_available() else "resident"
    print(f"peak memory, {title} ({kind}): " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items()))


def parse(doc: str | None, *, dialogues: int, rounds: int) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--dialogues", type=int, default=dialogues, help=f"over all rounds (default {dialogues})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"each contender once a round (default {rounds})")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    parser.add_argument("--backbone", choices=["2m", "10m"], help="(default 10m, 2m where bfloat16 is slow)")
    parser.add_argument("--minutes", type=float, default=3, help="then each setting has one round (default 3)")
    parser.add_argument("--corpus", choices=["esconv", "starter"], default="esconv")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], help="(default: the faster one of this device)")
    given = parser.parse_args()
    fast = fast_precision("cuda" if torch.cuda.is_available() else "cpu")
    given.precision = given.precision or fast
    given.backbone = given.backbone or ("10m" if fast == "bfloat16" else "2m")
    given.ends = time.monotonic() + 60 * given.minutes
    if given.rounds < 1 or given.dialogues < 2 * given.rounds - 1:
        parser.error("give at least one round, and two dialogues a round (one less in all will do).")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {given.threads} threads"
    print(
        f"{given.corpus}, {given.dialogues} dialogues, {given.rounds} rounds, backbone {given.backbone}, "
        f"{given.precision}, {device}",
        flush=True,
    )
    return given
