"""Training on token tries: options (data), objectives (losses), and the trainer."""
