"""Miners grow conversation trees: they add siblings to turns, and preferences between siblings."""
