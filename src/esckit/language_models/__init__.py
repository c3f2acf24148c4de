"""Causal language models: loading, the token trie, generation, and the pocket backbone made from scratch."""
