"""Training on token tries (options, objectives, the trainer), and of encoder planners by cross-validation."""
