"""The Hugging Face Hub, asked once whether it has something: its own library tries for most of a minute a file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

__all__ = [
    "SMOLLM2",
    "allow_code",
    "allows_code",
    "ask_nothing",
    "code_allowed",
    "is_hub_id",
    "is_smollm2",
    "unreachable",
]

SMOLLM2: Final = "smollm2"
"""Short name of the language model that esckit can have without the Hub (`language_models.sources`)."""

_code_allowed = False
_ID: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SECONDS: Final = 10.0


def allows_code() -> bool:
    """True where the user has said that code which a model brings along may run."""
    return _code_allowed


def allow_code(allowed: bool = True) -> None:
    """Let code that models bring along run in this process, or not; at first it may not."""
    global _code_allowed
    _code_allowed = allowed


def ask_nothing() -> None:
    """Other libraries load models too, and transformers would ask on the terminal: with no time to wait it refuses."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


@contextmanager
def code_allowed(allowed: bool) -> Iterator[None]:
    """Let such code run meanwhile, where ``allowed``; else all stays as it is."""
    before = _code_allowed
    allow_code(before or allowed)
    try:
        yield
    finally:
        allow_code(before)


def is_smollm2(source: str) -> bool:
    """True for ``smollm2``, and for it with the source that it is to come from."""
    return source in (SMOLLM2, f"{SMOLLM2}:hub", f"{SMOLLM2}:embedded")


def is_hub_id(source: str) -> bool:
    """True where a source can only be a name on the Hub: ``name`` or ``owner/name``, and no folder here."""
    return _ID.fullmatch(source) is not None and source != SMOLLM2 and not Path(source).exists()


def unreachable(
    name: str,
    *,
    file: str = "config.json",
    kind: Literal["model", "dataset"] = "model",
    revision: str | None = None,
    seconds: float = _SECONDS,
) -> str | None:
    """Why a repository cannot be had from the Hub, for the middle of a sentence; None where it can, or was before.

    Args:
        name: ``owner/name``.
        file: one of its files; where the local cache has it, the Hub is not asked.
        kind: of repository.
        revision: a commit; None is the newest.
        seconds: the longest wait for an answer.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        hf_hub_download(name, file, repo_type=kind, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        try:
            HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=seconds)
        except RepositoryNotFoundError:
            return f"the Hugging Face Hub has no {kind} of this name that you may see"
        except (HTTPError, OSError) as error:
            return f"the Hugging Face Hub cannot be reached ({type(error).__name__})"
    return None
