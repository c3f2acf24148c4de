"""Chain of Strategy Optimization: preferences from a tree search over strategies and replies (docs/mining.md)."""
