"""esckit: build, align, measure and talk to emotional-support conversation models."""

__version__ = "0.1.0"

__all__ = ["__version__"]
