"""Derivation: a question with its answer, or a dialogue, becomes the same talk with a supporter who speaks as a role."""
