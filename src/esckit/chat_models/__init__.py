"""Anything that can be asked in chat messages: local and remote models, asked so that no answer is lost."""
