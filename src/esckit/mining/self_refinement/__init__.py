"""Self-refinement: a draft, what the model then sees in the person, and the reply that it writes instead."""
