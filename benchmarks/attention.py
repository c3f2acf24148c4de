"""Attention that leaves out what a trie hides, against a dense mask: forward and backward of one dialogue's tries.

    python benchmarks/attention.py [--backbone 2m|10m] [--dialogues N] [--rounds R]

On the CPU `trie` (blocks of SDPA, float32), on CUDA `trie_flex` (flex_attention, bfloat16), each against `sdpa` with
the dense mask, in turns. The first round, which compiles, is left out. The last line is one JSON object: the median of
the ratios of seconds, dense over ours, and the largest difference of a log-probability.
"""

import argparse
import json
import statistics
import time
from typing import Any, NamedTuple

import torch

from esckit.corpora import load_corpus
from esckit.language_models.attention import attention_for
from esckit.language_models.backbone import default_device, seed_everything
from esckit.language_models.pocket import make_pocket_model, train_tokenizer
from esckit.language_models.token_tree import TokenTrie, TrieBatch, collate, token_log_probabilities
from esckit.rendering import Renderer
from esckit.strategy import ESCONV


class Reading(NamedTuple):
    """Seconds of a forward and a backward pass, and the log-probabilities (S,) that it gave."""

    seconds: float
    log_probabilities: torch.Tensor


def read(model: Any, batch: TrieBatch, attention: str) -> Reading:
    """Forward and backward."""
    model.set_attn_implementation(attention)
    model.zero_grad()
    cuda = batch.end.is_cuda
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    found = token_log_probabilities(model, batch)
    torch.autograd.backward(found.mean())
    if cuda:
        torch.cuda.synchronize()
    return Reading(time.perf_counter() - started, found.detach())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=["2m", "10m"], default="10m")
    parser.add_argument("--dialogues", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    corpus, device = load_corpus("starter").train, default_device()
    tokenizer = train_tokenizer(corpus, 2048)
    seed_everything(0)
    model = make_pocket_model(given.backbone, tokenizer)
    model = model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    ours = attention_for(model.config, device)
    renderer = Renderer(tokenizer, ESCONV, max_context=int(model.config.max_position_embeddings))
    dialogues = corpus[: given.dialogues]
    tries = [TokenTrie.merge(renderer.examples(dialogue, "generator", {})) for dialogue in dialogues]
    ratios, worst = [], 0.0
    for trie in tries:
        batch = collate([trie]).to(device)
        for number in range(given.rounds + 1):
            dense, found = (read(model, batch, name) for name in ("sdpa", ours))
            worst = max(worst, float((dense.log_probabilities - found.log_probabilities).abs().max()))
            if number:
                ratios.append(dense.seconds / found.seconds)
    print(f"{device}, {given.backbone}, tries of {min(map(len, tries))} to {max(map(len, tries))} tokens, {ours}")
    print(json.dumps({"device": str(device), "ratio": statistics.median(ratios), "largest_difference": worst}))


if __name__ == "__main__":
    main()
