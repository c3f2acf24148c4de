"""Training on token tries (options, preferences, the trainer)."""
