"""Preference learning over token tries: pairs of a conversation share its prefix, for policy and reference alike."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from esckit.language_models.token_tree import (
    TokenTrie,
    TrieBatch,
    build_tries,
    collate,
    in_forwards,
    sum_targets,
    target_log_probabilities,
    token_log_probabilities,
)
from esckit.rendering import Example, PairExample
from esckit.training.losses import dpo, ipo, kto, orpo, simpo
from esckit.training.processes import total
from esckit.training.references import Reference, in_evaluation
from esckit.training.training_options import PreferenceOptions, TrainingOptions

__all__ = ["PairDataset", "PairItem", "PreferenceObjective", "make_item", "replay_item", "rows_of", "store_reference"]


class PairItem(NamedTuple):
    """The pairs of a conversation: its tries, and for each pair which of their targets are its sides.

    Or a replayed chat, which has no pairs.

    Attributes:
        tries: of all targets, each different one once.
        chosen, rejected: (P,) indices of targets.
        desirable, undesirable: those of chosen and of rejected replies, each reply once: what KTO counts.
        mismatched: indices of chosen replies rendered in the next pair's context, for KTO's estimate of the divergence.
        replayed: indices of the replies whose likelihood alone counts.
        reference: (T,) log-probabilities of the targets where they are stored.
    """

    tries: list[TokenTrie]
    chosen: list[int]
    rejected: list[int]
    desirable: list[int]
    undesirable: list[int]
    mismatched: list[int]
    replayed: Sequence[int] = ()
    reference: Tensor | None = None


_SIDES: Final = ("chosen", "rejected", "desirable", "undesirable", "mismatched", "replayed")


def make_item(pairs: Sequence[PairExample], max_tokens: int | None = None, *, mismatched: bool = False) -> PairItem:
    """Merge a conversation's pairs into tries, divided where one would exceed ``max_tokens`` nodes (exact).

    All pairs of a chosen reply are in one trie, hence in one forward pass, however long it is.

    Args:
        pairs: at least one.
        max_tokens: most tokens of a trie.
        mismatched: also render each chosen reply in the next pair's context.
    """
    units: dict[Example, list[tuple[PairExample, PairExample]]] = {}
    for pair, following in zip(pairs, [*pairs[1:], *pairs[:1]], strict=True):
        units.setdefault(pair.chosen, []).append((pair, following))
    examples: list[Example] = []
    numbers: list[int] = []
    chosen: list[int] = []
    rejected: list[int] = []
    crossed: list[int] = []
    for number, members in enumerate(units.values()):
        sides = [side for pair, _ in members for side in pair]
        wrong = [found for pair, following in members if (found := _mismatched(pair, following))] if mismatched else []
        own = {example: len(examples) + n for n, example in enumerate(dict.fromkeys([*sides, *wrong]))}
        examples += own
        numbers += [number] * len(own)
        chosen += (own[pair.chosen] for pair, _ in members)
        rejected += (own[pair.rejected] for pair, _ in members)
        crossed += (own[example] for example in wrong)
    desirable, undesirable, crossed = (_each_once(side, examples) for side in (chosen, rejected, crossed))
    return PairItem(build_tries(examples, max_tokens, numbers), chosen, rejected, desirable, undesirable, crossed)


def replay_item(examples: Sequence[Example], max_tokens: int | None = None) -> PairItem:
    """A chat whose replies add to the likelihood and to nothing else, divided as `make_item` divides."""
    return PairItem(build_tries(examples, max_tokens), [], [], [], [], [], range(len(examples)))


def _each_once(indices: Sequence[int], examples: Sequence[Example]) -> list[int]:
    """Of targets with the same tokens the first: one reply in several pairs, or two turns that say the same."""
    first: dict[tuple[tuple[int, ...], ...], int] = {}
    for index in indices:
        example = examples[index]
        first.setdefault((example.context, example.given, example.scored, example.pairs), index)
    return list(first.values())


def _mismatched(pair: PairExample, following: PairExample) -> Example | None:
    """The chosen reply in the next pair's context; None where that is its own."""
    reply, context = pair.chosen, following.chosen.context
    if context == reply.context:
        return None
    pairs = (*following.chosen.pairs[: len(context)], *reply.pairs[len(reply.context) :])
    return Example(reply.turn_id, context, reply.given, reply.scored, pairs=pairs)


def rows_of(item: PairItem) -> list[PairItem]:
    """An item as one a trie, each with the pairs whose sides are in it; a trie that counts for nothing is left out."""
    rows, first = [], 0
    for trie in item.tries:
        last = first + len(trie.targets)
        own: Any = {side: [i - first for i in getattr(item, side) if first <= i < last] for side in _SIDES}
        known = None if item.reference is None else item.reference[first:last]
        rows.append(item._replace(tries=[trie], reference=known, **own))
        first = last
    return [row for row in rows if row.chosen or row.replayed]


class PairDataset(Dataset[PairItem]):
    """An item is a conversation with at least one pair, or a replayed chat."""

    def __init__(self, items: Iterable[PairItem]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> PairItem:
        return self.items[index]

    def counts(self) -> list[int]:
        """What fills a batch, a conversation each: its pairs; what is replayed rides along."""
        return [len(item.chosen) for item in self.items]

    def tries(self) -> Iterator[TokenTrie]:
        """Every trie."""
        return (trie for item in self.items for trie in item.tries)

    @staticmethod
    def size(item: PairItem) -> int:
        """How many tokens the model reads for a conversation."""
        return sum(map(len, item.tries))

    @staticmethod
    def idle(inputs: dict[str, Any]) -> dict[str, Any]:
        """The same forward pass without pairs."""
        return {**inputs, **{side: inputs[side][:0] for side in _SIDES}}

    @staticmethod
    def forwards(items: Sequence[PairItem], max_tokens: int | None) -> list[dict[str, Any]]:
        """The tensors of a batch, divided into forward passes of at most ``max_tokens`` tokens where it is given."""
        if max_tokens is None:
            return [PairDataset.collate(items)]
        rows = [row for item in items for row in rows_of(item)]
        parts = in_forwards([len(row.tries[0]) for row in rows], max_tokens)
        return [PairDataset.collate(rows[part]) for part in parts]

    @staticmethod
    def collate(items: Sequence[PairItem]) -> dict[str, Any]:
        """The tensors of a batch by name: the trie's, the indices of each side, and ``stored`` (T,)."""
        batch = collate([trie for item in items for trie in item.tries])
        found: dict[str, list[int]] = {side: [] for side in _SIDES}
        first = 0
        for item in items:
            for name, indices in found.items():
                indices += [first + index for index in getattr(item, name)]
            first += sum(len(trie.targets) for trie in item.tries)
        sides = {name: torch.tensor(indices, dtype=torch.long) for name, indices in found.items()}
        known = [item.reference for item in items if item.reference is not None]
        return {**batch._asdict(), **sides, **({"stored": torch.cat(known)} if len(known) == len(items) else {})}


@torch.no_grad()
def store_reference(
    model: Any, dataset: PairDataset, options: TrainingOptions, advance: Callable[[], None] = lambda: None
) -> PairDataset:
    """The dataset with the log-probabilities that ``model`` gives now to its targets; ``advance`` after each item.

    They are computed in the precision in which ``options`` trains, or margins would start with its rounding.
    """
    device = next(model.parameters()).device
    items = []
    half = torch.autocast(device.type, torch.bfloat16, enabled=options.in_bfloat16(device.type))
    with in_evaluation(model), half:
        for item in dataset.items:
            each = [target_log_probabilities(model, collate([trie]).to(device)).cpu() for trie in item.tries]
            known = torch.cat(each)
            items.append(item._replace(reference=known))
            advance()
    return PairDataset(items)


# ------------------------------------------------------------------------------------------------------------ objective


class PreferenceObjective:
    """The mean loss of the step's pairs (KTO: of their replies), with a likelihood where it is weighted.

    The likelihood is the mean over the tokens of the chosen replies and of those that are replayed.

    Args:
        options: which loss.
        reference: the model after SFT; needed where the loss has one and its log-probabilities are not stored.
    """

    def __init__(self, options: PreferenceOptions, reference: Reference | None = None) -> None:
        self.options = options
        self.reference = reference
        self.sums: defaultdict[str, float] = defaultdict(float)

    def units(self, inputs: dict[str, Any]) -> Tensor:
        """(2,) the batch's pairs, or KTO's replies, and the tokens whose likelihood counts."""
        lengths = torch.bincount(inputs["target"], minlength=inputs["targets"])
        chosen, rejected = self._sides(inputs)
        counted = len(chosen) + len(rejected) if self.options.loss == "kto" else len(chosen)
        return torch.stack([chosen.new_tensor(counted), lengths[self._likely(inputs)].sum()])

    def _sides(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Targets that are chosen and rejected: those of each pair; for KTO, which knows no pairs, each reply once."""
        names = ("desirable", "undesirable") if self.options.loss == "kto" else ("chosen", "rejected")
        return inputs[names[0]], inputs[names[1]]

    def _likely(self, inputs: dict[str, Any]) -> Tensor:
        """Targets whose likelihood counts."""
        return torch.cat([self._sides(inputs)[0], inputs["replayed"]])

    def loss(self, model: Any, inputs: dict[str, Any], units: Tensor) -> Tensor:
        """Sum of the pass's losses over the step's units, plus the weighted likelihood over the step's tokens."""
        batch = TrieBatch(**{name: inputs[name] for name in TrieBatch._fields})
        reference = self._reference(model, batch, inputs)  # first: it may switch adapters, and with them gradients
        policy = sum_targets(token_log_probabilities(model, batch), batch)
        lengths = torch.bincount(batch.target, minlength=batch.targets)
        scores = policy / lengths if reference is None else policy - reference
        self._note(scores.detach(), inputs)
        if self.options.loss == "ipo" and self.options.length_normalised:
            scores = scores / lengths
        losses = self._losses(scores, inputs)
        if self.options.sft_weight:
            self.sums["counted"] += len(losses)
            self.sums["pair_loss"] += float(losses.detach().double().sum())
        likelihood = policy[self._likely(inputs)].sum() / units[1]
        return losses.sum() / units[0] - self.options.likelihood_weight * likelihood

    def measure(self, model: Any, dataset: PairDataset, options: TrainingOptions) -> float:
        """The loss of a whole dataset, as one step would have it, without dropout and in the precision of training."""
        device = next(model.parameters()).device
        forwards = [one for item in dataset.items for one in dataset.forwards([item], options.max_tokens_per_row)]
        units = torch.stack([self.units(one) for one in forwards]).sum(0).to(device)
        noted, self.sums = self.sums, defaultdict(float)  # the curve's figures are of what is trained on
        half = torch.autocast(device.type, torch.bfloat16, enabled=options.in_bfloat16(device.type))
        with in_evaluation(model), half, torch.no_grad():
            placed = ({name: _placed(value, device) for name, value in one.items()} for one in forwards)
            found = sum(float(self.loss(model, one, units)) for one in placed)
        self.sums = noted
        return found

    @torch.no_grad()
    def _reference(self, model: Any, batch: TrieBatch, inputs: dict[str, Any]) -> Tensor | None:
        """(T,) log-probabilities of the reference; None where the loss has none."""
        if not self.options.needs_reference:
            return None
        if "stored" in inputs:
            return inputs["stored"]  # type: ignore[no-any-return]
        assert self.reference is not None
        with self.reference(model) as frozen:
            return target_log_probabilities(frozen, batch)

    def _losses(self, scores: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Losses from a score (T,) a target: log ratios, or mean log-probabilities where there is no reference."""
        options = self.options
        chosen, rejected = (scores[side] for side in self._sides(inputs))
        match options.loss:
            case "dpo":
                return dpo(chosen, rejected, beta=options.beta)
            case "ipo":
                return ipo(chosen, rejected, beta=options.beta)
            case "simpo":
                return simpo(chosen, rejected, beta=options.beta, margin=options.margin)
            case "orpo":
                return orpo(chosen, rejected, beta=options.beta)
            case "kto":
                wrong = scores[inputs["mismatched"]].detach()
                divergence = wrong.mean().clamp(min=0) if len(wrong) else scores.new_zeros(())
                both = torch.cat([chosen, rejected])
                desirable = torch.arange(len(both), device=both.device) < len(chosen)
                return kto(
                    both,
                    desirable,
                    divergence=divergence,
                    beta=options.beta,
                    desirable_weight=options.desirable_weight,
                    undesirable_weight=options.undesirable_weight,
                )

    def _note(self, scores: Tensor, inputs: dict[str, Any]) -> None:
        chosen, rejected = (self.options.beta * scores[inputs[side]].double() for side in ("chosen", "rejected"))
        self.sums["pairs"] += len(chosen)
        self.sums["margin"] += float((chosen - rejected).sum())
        self.sums["accuracy"] += float((chosen > rejected).sum())
        self.sums["chosen_reward"] += float(chosen.sum())
        self.sums["rejected_reward"] += float(rejected.sum())

    def metrics(self) -> dict[str, float]:
        """Means over the pairs since the last call, those of all processes; a tie is not accurate.

        Rewards are beta times the log ratio of the whole reply, or times its mean log-probability where there is no
        reference; for IPO too, whatever its loss divides by. Where a likelihood is added, ``pair_loss`` is the mean
        loss without it, of pairs (KTO: of replies).
        """
        sums = total(self.sums)
        self.sums.clear()
        pairs, counted = sums.pop("pairs", 0), sums.pop("counted", 0)
        if not pairs:
            return {}
        return {name: value / (counted if name == "pair_loss" else pairs) for name, value in sums.items()}


def _placed(value: Any, device: Any) -> Any:
    """A tensor on a device; a number as it is."""
    return value.to(device) if isinstance(value, Tensor) else value
