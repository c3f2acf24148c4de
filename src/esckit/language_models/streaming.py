"""Text as it is generated: tokens come one by one, pieces of text go out."""

from collections.abc import Callable
from typing import Any

__all__ = ["TextStreamer"]


class TextStreamer:
    """A streamer for transformers' ``generate`` on one prompt; its pieces add up to the reply's text.

    Characters whose bytes are not complete yet, and white space that may turn out to be the reply's end, wait for the
    next token. Where a tokenizer decodes what came before differently once more tokens follow, nothing more goes out:
    the reply's text counts.

    Args:
        decode: the reply's text from its tokens so far.
        on_text: is told each piece.
    """

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], None]) -> None:
        self._decode = decode
        self._on_text = on_text
        self._ids: list[int] | None = None
        self._told = ""

    def put(self, ids: Any) -> None:
        """Take the prompt (1, W), which comes first, or the next token (1,)."""
        if self._ids is None:
            self._ids = []
            return
        self._ids += ids.tolist()
        self._tell(self._decode(self._ids).rstrip("\ufffd").rstrip())

    def end(self) -> None:
        """The reply is complete."""
        self._tell(self._decode(self._ids or []))

    def _tell(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            piece, self._told = text[len(self._told) :], text
            self._on_text(piece)
