"""Judging replies: annotators of psychological errors, how they decide, and how they are measured."""
