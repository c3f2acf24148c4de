"""Rendered chats to token ids, cut at the tokenizer's own tokens, so that every piece is encoded once.

A tokenizer takes its added tokens (``<|im_end|>``, ``</s>``) out of a text before it does anything else. So the pieces
between them have the ids of the whole text, and a dialogue's pieces come back in each of its turns. A tokenizer for
which this does not hold is seen when its encoder is made; its texts are encoded whole.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, starmap
from typing import Any, Final

from esckit.errors import TemplateError

Ids = tuple[int, ...]
Tokenizer = Any  # a transformers PreTrainedTokenizerBase; its import would cost seconds here

_MASKS: Final = 0x10F000  # private code points from here on stand for control tokens that a person wrote
_THOUGHTS: Final = ("<think>", "</think>")  # templates cut texts at these, added tokens or not
_AWKWARD: Final = ("user\n  two\n\n and\t", " ", "\n", "I'm 23 é你好 :)...  ", "", "\r\n[Question] 'tis so.")


class PieceEncoder:
    """Encodes texts with one tokenizer; no BOS or anything else is added.

    What a person wrote goes through `masked` first: it stays letters, whatever it looks like.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = {token.content: (index, token) for index, token in tokenizer.added_tokens_decoder.items()}
        marks = sorted({*self._added, *_THOUGHTS}, key=len, reverse=True)
        self._mask_of = {mark: chr(_MASKS + place) for place, mark in enumerate(marks)}
        self._mark_of = {mask: mark for mark, mask in self._mask_of.items()}
        self._marks = re.compile("|".join(map(re.escape, marks)))
        self._masks = re.compile(f"[{chr(_MASKS)}-{chr(_MASKS + len(marks))}]")
        self._cuts = re.compile("|".join(re.escape(mark) for mark in marks if mark in self._added) or "(?!)")
        self._piece = lru_cache(maxsize=65536)(self._encode_piece)
        self._pieces = lru_cache(maxsize=64)(self._cut)
        self._without_marks = lru_cache(self._copy_without_marks)
        self.by_pieces = bool(getattr(tokenizer, "is_fast", False))
        self._prefixed = self.by_pieces and b'"first"' in _state(tokenizer.backend_tokenizer.pre_tokenizer)
        self.by_pieces = self.by_pieces and self._pieces_are_the_whole()

    def _pieces_are_the_whole(self) -> bool:
        used = {*self._tokenizer.all_special_tokens}
        marks = [mark for mark in self._added if mark in used or mark in str(self._tokenizer.chat_template)]
        texts = ["".join(f"{mark}{text}" for mark in marks) for text in _AWKWARD]
        texts += [text + "".join(texts) for text in _AWKWARD]
        return all(self.encode(text) == self._whole(text) for text in texts)

    def _whole(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def masked(self, text: str) -> str:
        """The text with whatever looks like a control token out of reach of templates and of the tokenizer."""
        return self._marks.sub(lambda found: self._mask_of[found.group()], text)

    def first_mark(self, text: str) -> re.Match[str] | None:
        """The first added token in a text."""
        return self._cuts.search(text)

    def encode(self, text: str) -> Ids:
        """Token ids of a text whose contents are masked.

        Raises:
            TemplateError: a content looks like a control token, and this tokenizer cannot keep it as letters.
        """
        return tuple(chain.from_iterable(starmap(self._piece, self._pieces(text))))

    def continued(self, text: str, parts: Sequence[str]) -> list[Ids]:
        """Token ids of each part as it follows the text and the parts before.

        Where a token of the whole would reach over a seam, the part is encoded apart: at inference, what stands before
        the seam has been read already.
        """
        mark, behind = self._pieces(text)[-1]
        before, ids = self._piece(mark, behind), []
        for part in parts:
            behind += part
            whole = self._piece(mark, behind)
            seamless = whole[: len(before)] == before
            ids.append(whole[len(before) :] if seamless else self._letters(part, inside=True))
            before += ids[-1]
        return ids

    def _cut(self, text: str) -> list[tuple[str, str]]:
        """Each added token with the text behind it; where the text begins without one, its beginning under ``""``."""
        if not self.by_pieces:
            return [("", text)]
        found = list(self._cuts.finditer(text))
        starts = [0, *(each.end() for each in found)]
        ends = [*(each.start() for each in found), len(text)]
        pieces = []
        for number, (mark, start, end) in enumerate(zip(["", *(m.group() for m in found)], starts, ends, strict=True)):
            behind = text[start:end]
            if mark and self._added[mark][1].rstrip:
                behind = behind.lstrip()
            if number < len(found) and self._added[found[number].group()][1].lstrip:
                behind = behind.rstrip()
            pieces.append((mark, behind))
        return pieces if pieces[0][1] or len(pieces) == 1 else pieces[1:]

    def _encode_piece(self, mark: str, behind: str) -> Ids:
        if not self.by_pieces:
            if self._masks.search(behind):
                raise TemplateError(
                    "a text looks like a control token of this tokenizer, which cannot keep it as letters: "
                    "choose a model with another tokenizer, or change that text."
                )
            return self._whole(behind)
        head = (self._added[mark][0],) if mark else ()
        return (*head, *self._letters(behind, inside=bool(mark)))

    def _letters(self, text: str, *, inside: bool) -> Ids:
        """Token ids of a text without control tokens; ``inside``: something stands before it."""
        if not text:
            return ()
        bare = inside and self._prefixed
        if self._masks.search(text):
            text = self._masks.sub(lambda found: self._mark_of[found.group()], text)
        elif not bare:
            return tuple(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
        return tuple(self._without_marks(bare).encode(text, add_special_tokens=False).ids)

    def _copy_without_marks(self, bare: bool) -> Any:
        """The tokenizer without added tokens, and where ``bare`` without the blank that it puts before a text."""
        from tokenizers import Tokenizer as Backend

        told = json.loads(self._tokenizer.backend_tokenizer.to_str())
        told["added_tokens"], told["post_processor"] = [], None
        text = json.dumps(told)
        return Backend.from_str(
            text.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"') if bare else text
        )


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many tokens two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _state(pre_tokenizer: Any) -> bytes:
    """A pre-tokenizer as JSON; ``"first"`` stands in it where a blank is put before a whole text only."""
    return pre_tokenizer.__getstate__() if pre_tokenizer is not None else b""
