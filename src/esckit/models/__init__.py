"""Backbones, the token trie, and the small backbone that is made from scratch; encoders, and planners on them."""
