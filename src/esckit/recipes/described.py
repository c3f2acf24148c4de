"""Embeddings of the members of groups of experts, made of what they are described by (as in Neeko's code)."""

from typing import TYPE_CHECKING, Any

from esckit.rendering.gates import AND, STRATEGY, Gates
from esckit.roles import RoleBank
from esckit.strategy import Taxonomy
from esckit.training.training_options import ExpertsOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["describe"]


def describe(experts: ExpertsOptions, gates: Gates, taxonomy: Taxonomy, bank: RoleBank | None) -> "Tensor | None":
    """Embeddings (M, d) of the members, groups in the order of the alphabet; None where they are learned."""
    if experts.embeddings == "learned":
        return None
    import torch

    from esckit.planning.encoder import load_encoder

    members = [(group, member) for group, known in gates.groups.items() for member in known]
    texts = [
        "\n".join(_about(*one, taxonomy, bank) for one in zip(group.split(AND), member.split(AND), strict=True))
        for group, member in members
    ]
    vectors: Any = load_encoder(experts.encoder).embed(texts)
    return torch.from_numpy(vectors)


def _about(name: str, member: str, taxonomy: Taxonomy, bank: RoleBank | None) -> str:
    """What is known of a member: a strategy's definition, a role's card, or its name."""
    if name == STRATEGY:
        return f"{member}: {taxonomy.definition_in(member, 'en')}"
    if name == "role" and bank:
        role = bank.role(member)
        language = role.languages[0]
        return f"{role.titles[language]}: {role.profile[language]} {role.style[language]}"
    return member
