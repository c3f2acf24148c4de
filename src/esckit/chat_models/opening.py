"""Which chat model is wanted, whether it can be had, and opening it: one behind a URL, or one on this machine."""

from pathlib import Path
from typing import Final

from esckit.chat_models.protocol import ChatModel
from esckit.errors import ChatError, ModelError
from esckit.hub import is_hub_id
from esckit.quiet import quiet

__all__ = ["REMOTE", "chat_model_name", "check_chat_model", "is_chat_model", "open_chat_model"]

REMOTE: Final = "remote:"
"""Begins the source of a model behind a URL: ``remote:MODEL``."""


def is_chat_model(source: str) -> bool:
    """True for ``remote:MODEL``, the folder of a model, and what can only be ``owner/name`` on the Hub."""
    on_hub = "/" in source and is_hub_id(source)
    return source.startswith(REMOTE) or on_hub or (Path(source) / "config.json").exists()


def chat_model_name(source: str) -> str:
    """The model's name for records: without ``remote:``, and of a folder the last part."""
    name = source.removeprefix(REMOTE)
    return name if source.startswith(REMOTE) or is_hub_id(source) else Path(source).resolve().name


def check_chat_model(source: str, base_url: str | None = None) -> None:
    """Refuse at once what asking would fail with later.

    Raises:
        ChatError: the source names no model, or a URL is given for one on this machine; a model behind a URL has no
            key or its URL is none, or the package openai is missing.
        ModelError: the folder holds no chat model.
    """
    if source.startswith(REMOTE):
        _remote(source, base_url, None)
    elif base_url is not None:
        raise ChatError(f"a base URL is for a model behind a URL: write {REMOTE}{source} as the model.")
    elif (Path(source) / "supporter.json").exists():
        raise ModelError(f"{source} is a supporter: give a chat model's folder, or {REMOTE}MODEL.")
    elif not is_chat_model(source):
        raise ModelError(f"{source} is no chat model: give the folder or the Hub id of one, or {REMOTE}MODEL.")


def open_chat_model(source: str, base_url: str | None = None, *, at_once: int | None = None) -> ChatModel:
    """Open a chat model.

    Args:
        source: ``remote:MODEL``, or a folder or a Hub id.
        base_url: of ``remote:MODEL``, up to and including ``/v1``; None is OpenAI's.
        at_once: the most calls at once; of a model here, prompts a batch. None is the model's own default.

    Raises:
        ChatError, ModelError: see `check_chat_model`; ModelError also where a model cannot be loaded.
    """
    check_chat_model(source, base_url)
    if source.startswith(REMOTE):
        return _remote(source, base_url, at_once)
    quiet()
    from esckit.chat_models.local import LocalChatModel
    from esckit.language_models.backbone import load_backbone

    backbone = load_backbone(source)
    return LocalChatModel(backbone) if at_once is None else LocalChatModel(backbone, batch_size=at_once)


def _remote(source: str, base_url: str | None, at_once: int | None) -> ChatModel:
    from esckit.chat_models.remote import OPENAI_URL, RemoteChatModel

    name, url = source.removeprefix(REMOTE), base_url or OPENAI_URL
    if not name:
        raise ChatError(f"{source!r} names no model: write {REMOTE}MODEL.")
    return RemoteChatModel(name, url) if at_once is None else RemoteChatModel(name, url, concurrency=at_once)
