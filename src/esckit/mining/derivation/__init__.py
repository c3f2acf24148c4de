"""Derivation: a question with its answer, or a dialogue, becomes a talk with a supporter who speaks as a role."""
