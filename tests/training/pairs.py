"""Preference pairs for tests: of every part's kind, one or several a turn, on the starter corpus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from esckit.conversation import Aspect, Conversation, Preference, Turn
from esckit.language_models.token_tree import TrieBatch
from esckit.mining.pairs import pairs_of, render_pairs
from esckit.rendering import Example, PairExample, Part
from esckit.strategy import ESCONV
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item
from esckit.training.references import Reference, in_evaluation
from esckit.training.training_options import PreferenceOptions
from tests.tiny import starter_dialogues, tiny_renderer


def frozen_model(model: Any) -> Reference:
    """A reference that is another model, for policies whose every weight is trained."""
    return lambda _: in_evaluation(model)


OTHER_TEXTS = ("That sounds hard.", "What would help you tonight, do you think?", "I see.")


def rejected_turns(gold: Turn, part: Part, each: int) -> list[tuple[Aspect, Turn]]:
    """What stands beside a gold turn: labels, texts, or both by turns as the coupled miner finds them."""
    labels = [label for label in ESCONV.labels if label != gold.strategy]
    found: list[tuple[Aspect, Turn]] = []
    for number in range(each):
        label = str(gold.strategy) if part == "generator" else labels[(int(gold.id) + number) % len(labels)]
        if part == "coupled" and number % 2:
            label = str(gold.strategy)
        text = None if part == "planner" else OTHER_TEXTS[(int(gold.id) + number) % 3]
        aspect: Aspect = "strategy" if part == "planner" else "response" if label == gold.strategy else "turn"
        found.append((aspect, Turn(f"{gold.id}-{number}", gold.parent, "supporter", text, label, "model")))
    return found


def grown(part: Part, count: int, turns: int, each: int) -> list[Conversation]:
    """The first dialogues of the starter corpus with ``each`` pairs a labelled supporter turn."""
    trees = []
    for conversation in starter_dialogues(count, turns):
        golds = [turn for turn in conversation.turns if turn.strategy]
        beside = [(gold, *found) for gold in golds for found in rejected_turns(gold, part, each)]
        preferences = [Preference(gold.id, turn.id, aspect) for gold, aspect, turn in beside]
        trees.append(conversation.grow([turn for _, _, turn in beside], preferences))
    return trees


def rendered_pairs(part: Part, *, count: int = 2, turns: int = 6, each: int = 1) -> list[list[PairExample]]:
    """The pairs of each dialogue, rendered with past strategies hidden."""
    return render_pairs(pairs_of(grown(part, count, turns, each), part), tiny_renderer(), part, lambda _: {})


def flat(pairs: Iterable[Sequence[PairExample]]) -> list[PairExample]:
    """All pairs, in order."""
    return [pair for members in pairs for pair in members]


@dataclass
class Outcome:
    """A loss, the mean rewards, and the gradient of every trained parameter."""

    loss: float
    chosen_reward: float
    rejected_reward: float
    accuracy: float
    gradients: dict[str, Tensor]

    @property
    def gradient(self) -> Tensor:
        """All of them in one row."""
        return torch.cat([self.gradients[name].flatten() for name in sorted(self.gradients)])


def gradients(model: Any) -> dict[str, Tensor]:
    """The gradients as they are now, by a name that does not tell how an adapter is called."""
    found = ((name, p.grad) for name, p in model.named_parameters() if p.requires_grad)
    return {_plain(name): grad.clone() for name, grad in found if grad is not None}


def _plain(name: str) -> str:
    for adapter in (".default.", ".planner.", ".coupled.", ".generator."):
        name = name.replace(adapter, ".")
    return name


def tries(
    model: Any, pairs: Sequence[Sequence[PairExample]], reference: Reference | None = None, **options: Any
) -> Outcome:
    """One batch on the trie; ``stored`` log-probabilities come with `trie_outcome` instead."""
    mismatched = options.get("loss") == "kto"
    return trie_outcome(model, PairDataset(make_item(p, mismatched=mismatched) for p in pairs), reference, **options)


def trie_outcome(model: Any, dataset: PairDataset, reference: Reference | None = None, **options: Any) -> Outcome:
    """One batch that holds a whole dataset."""
    objective = PreferenceObjective(PreferenceOptions(**options), reference)
    inputs = dataset.collate(dataset.items)
    model.zero_grad()
    loss = objective.loss(model, inputs, objective.units(inputs))
    torch.autograd.backward(loss)
    metrics = objective.metrics()
    chosen, rejected, accuracy = (metrics[name] for name in ("chosen_reward", "rejected_reward", "accuracy"))
    return Outcome(float(loss.detach()), chosen, rejected, accuracy, gradients(model))


def batch_of(dataset: PairDataset) -> TrieBatch:
    """The trie batch of a whole dataset."""
    inputs = dataset.collate(dataset.items)
    return TrieBatch(**{name: inputs[name] for name in TrieBatch._fields})


def sequence(example: Example) -> tuple[list[int], list[int]]:
    """Prompt and completion ids, as a trainer of separate rows reads them."""
    return [*example.context, *example.given], list(example.scored)
