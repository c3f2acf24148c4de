"""Silence for other libraries: a command's own words are what a user should see."""

__all__ = ["quiet"]


def quiet() -> None:
    """Our own progress and errors speak; the libraries' bars and advice do not. Call it before torch is imported."""
    import os
    import warnings

    # Threads that wait for each other spin by default: where a core is busy, training took up to four times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module="(?!esckit)")
    from transformers.utils import logging

    logging.disable_progress_bar()
