"""Roles that a supporter can speak as: who they are, how they talk, what they can tell. docs/roles.md tells how."""

from esckit.roles.bank import Experience, Role, RoleBank, read_bank, save_bank
from esckit.roles.emotions import EMOTIONS, centred_cosine

__all__ = ["EMOTIONS", "Experience", "Role", "RoleBank", "centred_cosine", "read_bank", "save_bank"]
