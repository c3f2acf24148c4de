"""SmolLM2 on this machine: how near training comes to its matrix products, and how fast replies are written.

    python benchmarks/smollm2.py [--turns N] [--new-tokens N] [--rounds R] [--threads T] [--corpus starter]

One dialogue of about so many supporter turns. Training: its generator targets as a trie, forward and backward, against
the rate of large matrix products in the same precision, and against TRL's SFTTrainer on the same turns. Writing: greedy
replies at its turns by esckit and by transformers' generate. The last line is one JSON object of ratios;
benchmarks/README.md says what each number means.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as esckit's commands do; read when torch is loaded

import torch
import transformers

import common
import sft
from common import How, now
from esckit.conversation import Conversation
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.language_models.backbone import Backbone, load_backbone, seed_everything
from esckit.language_models.generation import generate_ids
from esckit.language_models.precision import fast_precision
from esckit.language_models.token_tree import TokenTrie, build_tries, collate
from esckit.rendering import Example, Renderer, past_strategies, supporter_turns
from esckit.strategy import ESCONV
from esckit.training.adapters import fresh_adapter
from esckit.training.trainer import Likelihood
from esckit.training.training_options import LoraOptions

BATCHES: Final = (1, 4, 16)
DROPOUT: Final = 0.05  # of a stage
ROWS: Final = 4  # that TRL gets where each turn has a row
SQUARE: Final = 2048


class Work(NamedTuple):
    """A dialogue as targets of the generator, as their trie, and as prompts."""

    examples: list[Example]
    trie: TokenTrie
    prompts: list[list[int]]
    end_of_turn: int


def prepare(backbone: Backbone, conversation: Conversation, turns: int, new_tokens: int) -> Work:
    """Render a dialogue's first so many supporter turns."""
    renderer = Renderer(backbone.tokenizer, ESCONV, max_context=backbone.max_context)
    shown = past_strategies(conversation, "gold")
    examples = renderer.examples(conversation, "generator", shown)[:turns]
    (trie,) = build_tries(examples)
    answered = supporter_turns(conversation)[:turns]
    prompts = [list(renderer.prompt(conversation, turn, "generator", shown, new_tokens)) for turn in answered]
    return Work(examples, trie, prompts, renderer.end_of_turn)


def choose(conversations: Sequence[Conversation], turns: int) -> Conversation:
    """The middle one, by its letters, of the dialogues whose number of supporter turns is nearest."""
    off = {conversation.id: abs(len(supporter_turns(conversation)) - turns) for conversation in conversations}
    nearest = [conversation for conversation in conversations if off[conversation.id] == min(off.values())]
    return sorted(nearest, key=lambda c: (sum(len(turn.text or "") for turn in c.trunk), c.id))[len(nearest) // 2]


# ------------------------------------------------------------------------------------------------------------ training


def peak(dtype: torch.dtype) -> float:
    """Operations a second of large matrix products, the fastest of five."""
    one = torch.randn(SQUARE, SQUARE).to(dtype)
    one @ one
    return 2 * SQUARE**3 / min(seconds(lambda: one @ one) for _ in range(5))


def seconds(act: Callable[[], Any]) -> float:
    """How long something takes."""
    start = now()
    act()
    return now() - start


def operations(model: Any, trie: TokenTrie) -> float:
    """Operations of the matrix products that forward and backward of a trie need, under an adapter of all layers.

    Frozen weights: forward, and the gradient of what they read. Adapter: its own gradients too. Attention: the pairs of
    nodes that see each other, once forward and twice backward. The head: on scored nodes only.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    frozen = sum(module.weight.numel() for module in linear if not module.weight.requires_grad)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    scored = int(collate([trie]).keep.sum())
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    pairs = sum(depth + 1 for depth in trie.depth)
    attention = 2 * 2 * width * pairs * config.num_hidden_layers
    layers = (4 * frozen + 6 * trained) * len(trie)
    return float(layers + 3 * attention + 4 * head.weight.numel() * scored)


def train_step(model: Any, trie: TokenTrie, bf16: bool) -> None:
    """Forward and backward of a dialogue's trie."""
    batch = collate([trie]).to(next(model.parameters()).device)
    with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=bf16):
        loss = Likelihood().loss(model, batch._asdict(), batch.weight.sum()[None])
    torch.autograd.backward(loss)
    model.zero_grad()


def train(name: str, work: Work, given: argparse.Namespace) -> dict[str, float]:
    """Shares of the peak, ours and TRL's, and TRL's seconds a turn over ours."""
    bf16 = given.precision == "bfloat16"
    model = fresh_adapter(load_backbone(name).model, LoraOptions(dropout=DROPOUT), "generator").train()
    train_step(model, work.trie, bf16)
    shares, rates = [], []
    for _ in range(given.rounds):
        rates.append(peak(torch.bfloat16 if bf16 else torch.float32))
        taken = seconds(partial(train_step, model, work.trie, bf16))
        shares.append(operations(model, work.trie) / taken / rates[-1])
        print(f"  {rates[-1] / 1e9:.0f} GFLOP/s at most; forward and backward of the trie: {taken:.1f} s", flush=True)
    few = work.examples[:: max(1, len(work.examples) // ROWS)]  # a row each is long: all would take minutes
    needed = {
        sft.DIALOGUE: operations(model, work.trie),
        sft.PER_TURN: sum(operations(model, build_tries([example])[0]) for example in few),
    }
    del model
    ours = sft.CONTENDERS[common.OURS].train(load_backbone(name).model, [work.examples], How(1, bf16))
    found = {"share_of_peak": statistics.median(shares)}
    for peer, operated in needed.items():
        examples = few if peer == sft.PER_TURN else work.examples
        theirs = sft.CONTENDERS[peer].train(load_backbone(name).model, [examples], How(1, bf16))
        found[peer] = (theirs.seconds / theirs.units) / (ours.seconds / ours.units)
        found[f"share_of_peak_{peer}"] = operated / theirs.seconds / statistics.median(rates)
    return found


# ------------------------------------------------------------------------------------------------------------- writing


def write_ours(model: Any, work: Work, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """esckit's replies."""
    decoding = Decoding(greedy=True, max_new_tokens=new_tokens)
    return generate_ids(model, prompts, work.end_of_turn, decoding, range(len(prompts)))


@torch.no_grad()
def write_theirs(model: Any, work: Work, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """transformers' replies, the prompts padded on the left."""
    width, end = max(map(len, prompts)), work.end_of_turn
    device = next(model.parameters()).device
    ids = torch.tensor([[end] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    settings = {"do_sample": False, "max_new_tokens": new_tokens, "eos_token_id": end, "pad_token_id": end}
    rows = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, width:].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def write(backbone: Backbone, work: Work, batch: int, given: argparse.Namespace) -> tuple[float, float]:
    """transformers' seconds for the same replies over ours, and the share of replies that are the same.

    The replies are those at the dialogue's last turns; where they are fewer than the batch, some are written twice.
    """
    prompts = (work.prompts * batch)[-batch:]
    ratios, same = [], []
    for _ in range(given.rounds):
        start = now()
        ours = write_ours(backbone.model, work, prompts, given.new_tokens)
        between = now()
        theirs = write_theirs(backbone.model, work, prompts, given.new_tokens)
        taken = (between - start, now() - between)
        ratios.append(taken[1] / taken[0])
        same.append(sum(one == other for one, other in zip(ours, theirs, strict=True)) / batch)
        rates = [sum(map(len, ours)) / each for each in taken]
        print(f"  batch {batch}: {rates[0]:.1f} and {rates[1]:.1f} new tokens/s, prompts included", flush=True)
    return statistics.median(ratios), min(same)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2", help="a folder, or a name (default smollm2)")
    parser.add_argument("--turns", type=int, default=14, help="supporter turns of the dialogue (default 14)")
    parser.add_argument("--new-tokens", type=int, default=32, help="of a reply, at most (default 32)")
    parser.add_argument("--rounds", type=int, default=1, help="(default 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    parser.add_argument("--corpus", choices=["esconv", "starter"], default="esconv")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="float32", help="of training")
    given = parser.parse_args()
    if min(given.turns, given.new_tokens, given.rounds) < 1:
        parser.error("--turns, --new-tokens and --rounds are at least 1.")
    return given


def main() -> None:
    """Measure and print."""
    given = parse()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    seed_everything("smollm2")
    conversations = common.load(given.corpus)
    try:
        backbone = load_backbone(given.model)
    except ModelError as error:
        print(f"Skipped: {error}")
        return
    work = prepare(backbone, choose(conversations, given.turns), given.turns, given.new_tokens)
    fast = fast_precision("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{given.model}, {len(work.trie)} tokens, {given.threads} threads, {given.precision}; {fast} is fast here")
    found: dict[str, float] = {}
    for batch in BATCHES:
        found[f"generate_{batch}"], found[f"same_text_{batch}"] = write(backbone, work, batch, given)
    del backbone
    found |= train(given.model, work, given)
    print(json.dumps({key: round(value, 2) for key, value in found.items()}))


if __name__ == "__main__":
    main()
