"""Reading a conversation as one trie equals reading each of its sequences alone, in value and in gradient.

The reference is as plain as can be: a forward pass a target, ordinary causal attention, no mask and no positions given.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import torch
from torch import Tensor

from esckit.conversation import Conversation
from esckit.corpora import read_corpus
from esckit.language_models.token_tree import TokenTrie, build_tries, collate, read_under, token_log_probabilities
from esckit.rendering import Example, Part, PastStrategies, Renderer, supporter_turns
from esckit.strategy import ESCONV
from tests.tiny import (
    POSITIONS,
    Architecture,
    first_turns,
    starter_dialogues,
    strategies_shown,
    tiny_model,
    tiny_renderer,
    tokenizer_with,
    with_lora,
)

ALIKE: Final[tuple[Architecture, ...]] = ("qwen2", "llama")
OTHERS: Final[tuple[Architecture, ...]] = ("qwen2-window", "mistral", "mistral-window", "gemma2")
ARCHITECTURES: Final = ALIKE + OTHERS
PARTS: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")
MODES: Final[tuple[PastStrategies, ...]] = ("gold", "hidden", "predicted")
CASES: Final[list[tuple[Architecture, Part, PastStrategies]]] = [
    *product(ALIKE, PARTS, MODES),
    *((other, *case) for other in OTHERS for case in zip(PARTS, MODES, strict=True)),
]
"""Every part in every mode where all layers attend alike; elsewhere each part and each mode once."""


class Tolerance(NamedTuple):
    """Largest difference of a log-probability in nats, and of a parameter's gradient relative to its norm."""

    log_probability: float
    gradient: float


# RMSNorm computes in float32 even in a float64 model: that sets the limit there.
TOLERANCES: Final = {torch.float64: Tolerance(1e-6, 1e-6), torch.float32: Tolerance(2e-4, 1e-4)}


def plain_log_probabilities(model: Any, example: Example) -> Tensor:
    """Log-probability (S,) of each of an example's scored tokens."""
    ids = torch.tensor([[*example.context, *example.given, *example.scored]])
    start = ids.shape[1] - len(example.scored)
    under = read_under(model, torch.tensor([example.pairs])) if example.pairs else {}
    predicted = model(input_ids=ids, **under).logits[0, start - 1 : -1].log_softmax(-1)
    chosen: Tensor = predicted.gather(-1, ids[0, start:, None])
    return chosen[:, 0]


def gradients(model: Any, log_probabilities: Tensor) -> dict[str, Tensor]:
    """Gradient of every trained parameter; each token has a weight of its own, so that none can be mistaken."""
    weights = torch.randn(len(log_probabilities), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    model.zero_grad()
    torch.autograd.backward((log_probabilities * weights.to(log_probabilities.dtype)).sum())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_trie_is_exact(model: Any, examples: Sequence[Example], tries: Sequence[TokenTrie]) -> None:
    """Compare one batch of tries with every example alone."""
    tolerance, batch = TOLERANCES[model.dtype], collate(tries)
    in_order = batch.target.argsort(stable=True)  # the rows of a batch are packed: other than the examples' order
    together = token_log_probabilities(model, batch)[in_order]
    gradient_together = gradients(model, together)
    apart = torch.cat([plain_log_probabilities(model, example) for example in examples])
    gradient_apart = gradients(model, apart)
    assert float((together - apart).detach().abs().max()) <= tolerance.log_probability
    for name, wanted in gradient_apart.items():
        assert float(wanted.norm()) > 0, f"{name} is not tried"
        assert float((gradient_together[name] - wanted).norm() / wanted.norm()) <= tolerance.gradient, name


def render(conversations: Sequence[Conversation], part: Part, mode: PastStrategies) -> list[list[Example]]:
    """The examples of each conversation."""
    renderer = tiny_renderer()
    return [renderer.examples(c, part, strategies_shown(c, mode)) for c in conversations]


def check(model: Any, rendered: Sequence[list[Example]], most: int | None = None) -> None:
    """Compare one batch that holds all conversations, in float64 and in float32."""
    examples = [example for examples in rendered for example in examples]
    tries = [trie for examples in rendered for trie in build_tries(examples, most)]
    read_alone = sum(len(e.context) + len(e.given) + len(e.scored) for e in examples)
    assert sum(map(len, tries)) < read_alone, "there is something shared"
    for dtype in (torch.float64, torch.float32):
        assert_trie_is_exact(model.to(dtype), examples, tries)


@pytest.fixture(scope="module")
def esconv(data_dir: Path) -> list[Conversation]:
    """Beginnings of three dialogues; the supporter opens one, and has three turns in a row in another."""
    valid = read_corpus(data_dir / "esconv/valid.json", "esconv")
    openers = [c for c in valid if c.trunk[0].speaker == "supporter"][:1]
    chains = [c for c in valid if [t.speaker for t in c.trunk[2:5]].count("supporter") == 3][:1]
    others = [c for c in valid if c not in (*openers, *chains)][:1]
    return [first_turns(conversation, 11) for conversation in (*openers, *chains, *others)]


@pytest.mark.corpus
@pytest.mark.parametrize(("architecture", "part", "mode"), CASES)
def test_tries_of_esconv_are_exact(
    architecture: Architecture, part: Part, mode: PastStrategies, esconv: list[Conversation]
) -> None:
    check(tiny_model(architecture), render(esconv, part, mode))


@pytest.mark.parametrize("architecture", ALIKE)
def test_a_template_that_writes_its_last_reply_otherwise_is_exact(architecture: Architecture) -> None:
    """Prefixes agree up to the last reply alone, so each reply stands in the trie as a target and as history."""
    thought = "'<think>\n\n</think>\n\n'"
    template = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}"
        f"{{%- if loop.last and m.role == 'assistant' -%}}{{{{- {thought} -}}}}{{%- endif -%}}"
        "{{- m.content + '<|im_end|>\n' -}}{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- '<|im_start|>assistant\n' + {thought} -}}}}{{%- endif -%}}"
    )
    renderer = Renderer(tokenizer_with(template), ESCONV, max_context=POSITIONS)
    rows = [renderer.examples(c, "coupled", strategies_shown(c, "gold")) for c in starter_dialogues(2, 6)]
    plain = tiny_renderer().examples(
        starter_dialogues(1, 6)[0], "coupled", strategies_shown(starter_dialogues(1, 6)[0], "gold")
    )
    assert len(TokenTrie.merge(rows[0])) > 1.1 * len(TokenTrie.merge(plain)), "or nothing is forked here"
    check(tiny_model(architecture), rows)


@pytest.mark.parametrize(("architecture", "part", "mode"), CASES)
def test_tries_of_the_starter_corpus_are_exact(architecture: Architecture, part: Part, mode: PastStrategies) -> None:
    check(tiny_model(architecture), render(starter_dialogues(2, 6), part, mode))


@pytest.mark.parametrize(("architecture", "part"), [*product(ALIKE, PARTS), *((other, PARTS[1]) for other in OTHERS)])
def test_tries_divided_over_rows_are_exact(architecture: Architecture, part: Part) -> None:
    rendered = render(starter_dialogues(2, 9), part, "hidden")
    most = max(len(e.context) + len(e.given) + len(e.scored) for examples in rendered for e in examples) - 50
    assert all(len(build_tries(examples, most)) > 1 for examples in rendered)
    check(tiny_model(architecture), rendered, most)


@pytest.mark.parametrize("mode", ["gold", "hidden"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tries_are_exact_under_an_adapter(architecture: Architecture, mode: PastStrategies) -> None:
    model = with_lora(tiny_model(architecture), "planner", seed=3)
    check(model, render(starter_dialogues(2, 6), "planner", mode))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pretraining_rows_are_exact(architecture: Architecture) -> None:
    renderer = tiny_renderer()
    check(tiny_model(architecture), [renderer.dialogue(c, {}) for c in starter_dialogues(2, 6)])


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2-window", "mistral-window", "gemma2"])
def test_all_labels_of_a_turn_are_exact_branches(architecture: Architecture) -> None:
    """What the planner does at inference: every label of every turn beside the gold one.

    Here what is scored stands within a sliding window of where its branch begins.
    """
    (conversation,) = starter_dialogues(1, 7)
    examples = [
        tiny_renderer().example(conversation, replace(turn, strategy=label), "planner", {})
        for turn in supporter_turns(conversation)
        for label in ESCONV.labels
    ]
    check(tiny_model(architecture), [examples])
