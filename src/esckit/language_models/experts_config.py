"""What a mixture of LoRA experts is made of, as PEFT saves it, and where each group's experts stand side by side."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple

import torch
from peft import PeftConfig
from peft.utils import PeftType
from torch import Tensor
from torch.nn.functional import linear

from esckit.errors import ModelError
from esckit.rendering.gates import Gates, GateScope

__all__ = ["NAME", "ExpertsConfig", "Group", "Layout"]

NAME: Final = "esckit_experts"
"""Of the tuner, as PEFT knows it."""


def _add_type(name: str) -> None:
    """Add a type to PEFT's, whose list is closed."""
    if name not in PeftType.__members__:
        kind = str.__new__(PeftType, name)
        kind._name_ = kind._value_ = name
        PeftType._member_map_[name] = PeftType._value2member_map_[name] = kind
        PeftType._member_names_.append(name)
        type.__setattr__(PeftType, name, kind)


_add_type(NAME.upper())


class Group(NamedTuple):
    """A group's members, by name, and how many experts they share."""

    members: tuple[str, ...]
    experts: int


@dataclass
class ExpertsConfig(PeftConfig):
    """What a mixture is made of.

    Attributes:
        r: rank of each expert, or of a group's experts together; see ``rank``.
        alpha: scale times rank.
        dropout: share of each layer's input that the experts do not see in a step.
        target_modules: names of linear layers, or ``all-linear``.
        groups: by name, ``{"members": [...], "experts": n}``.
        gates: ``shared``: one linear map for all layers (Empath's equations); ``per_module``: one a layer (Neeko).
        scaling: ``alpha/r`` (Empath, equation 6), or ``alpha/(r/n)`` where n experts share the rank r (Neeko's code).
        rank: ``per_expert``: each expert has rank r (equation 6); ``total``: a group's experts share it (Neeko's code).
        embeddings: ``learned``; ``described``: made of the members' descriptions, and frozen.
        embedding_size: length of an embedding.
        gate_scope: what is trained on: see `rendering.gates.Gates`.
        bank: digest of the bank of roles that the members are of.
    """

    r: int = 16
    alpha: float = 16
    dropout: float = 0.0
    target_modules: list[str] | str | None = "all-linear"
    exclude_modules: list[str] | str | None = None
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    gates: Literal["shared", "per_module"] = "shared"
    scaling: Literal["alpha/r", "alpha/(r/n)"] = "alpha/r"
    rank: Literal["per_expert", "total"] = "per_expert"
    embeddings: Literal["learned", "described"] = "learned"
    embedding_size: int = 64
    gate_scope: GateScope = "token"
    bank: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[NAME.upper()]
        if isinstance(self.target_modules, list):
            self.target_modules = sorted(self.target_modules)
        for name, group in self.as_groups.items():
            if not 1 <= group.experts <= len(group.members):
                raise ModelError(
                    f"the group {name} has {group.experts} experts for {len(group.members)} members, and some would be "
                    f"of no use: give it 1 to {len(group.members)}."
                )
            if self.rank == "total" and self.r % group.experts:
                raise ModelError(
                    f"the {group.experts} experts of {name} cannot share rank {self.r} evenly: take a multiple of "
                    f"{group.experts} as lora.r, or rank per_expert."
                )
        if not self.groups:
            raise ModelError("a mixture of experts has no group: name at least one, such as role or strategy.")

    @property
    def as_groups(self) -> dict[str, Group]:
        """The groups by name, in the order of the alphabet, as a saved configuration has them."""
        known = sorted(self.groups.items())
        return {name: Group(tuple(told["members"]), int(told["experts"])) for name, told in known}

    @property
    def as_gates(self) -> Gates:
        """Pairs of the groups' members."""
        return Gates({name: group.members for name, group in self.as_groups.items()}, self.gate_scope)

    @property
    def layout(self) -> "Layout":
        """Where each group's experts stand."""
        groups = list(self.as_groups.values())
        ranks = [self.r if self.rank == "per_expert" else self.r // group.experts for group in groups]
        scales = [
            self.alpha / self.r if self.scaling == "alpha/r" else self.alpha / (self.r / group.experts)
            for group in groups
        ]
        return Layout(groups, ranks, scales)


class Layout(NamedTuple):
    """Groups in order, with the rank of each one's experts and the scale of what they add."""

    groups: list[Group]
    ranks: list[int]
    scales: list[float]

    @property
    def rank(self) -> int:
        """R, of all experts together."""
        return sum(group.experts * rank for group, rank in zip(self.groups, self.ranks, strict=True))

    @property
    def experts(self) -> int:
        """E, of all groups."""
        return sum(group.experts for group in self.groups)

    @property
    def members(self) -> int:
        """M, of all groups."""
        return sum(len(group.members) for group in self.groups)

    def weights(self, embedding: Tensor, gate: Tensor) -> list[Tensor]:
        """Each group's gates (members, experts), rows that sum to 1, of embeddings (M, d) and gate weights (E, d)."""
        firsts = [0, *accumulate(len(group.members) for group in self.groups)]
        starts = [0, *accumulate(group.experts for group in self.groups)]
        return [
            linear(embedding[first : first + len(group.members)], gate[start : start + group.experts]).softmax(-1)
            for group, first, start in zip(self.groups, firsts, starts, strict=False)
        ]

    def table(self, embedding: Tensor, gate: Tensor) -> Tensor:
        """What each pair multiplies the low-rank side by, scales included: (P, R), pairs as `Gates` numbers them."""
        rows: Tensor = embedding.new_ones(1, 0)
        for own, rank, scale in zip(self.weights(embedding, gate), self.ranks, self.scales, strict=True):
            wide = scale * torch.cat([torch.zeros_like(own[:1]), own]).repeat_interleave(
                rank, -1
            )  # (members + 1, n rank)
            before, here = len(rows), len(wide)
            rows = torch.cat([rows.repeat_interleave(here, 0), wide.repeat(before, 1)], -1)
        return rows
