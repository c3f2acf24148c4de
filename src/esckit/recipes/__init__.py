"""A recipe is the experiment: a YAML file, its schema, and the runner that carries it out."""
