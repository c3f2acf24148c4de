"""A response generator without a language model: it says again what a person said in a similar place.

A reply is taken from a corpus's own supporter replies (`usable_replies`) under the wanted strategy, where the context
before it is most similar; none is said twice in a dialogue, and none of the dialogue itself.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.errors import CorpusError, ModelError
from esckit.files import atomic, read_lines, read_text, write_json, write_jsonl
from esckit.language_models.generation import Reply
from esckit.planning.encoder import Encoder, load_encoder
from esckit.supporters.parts import OnText, Wording
from esckit.supporters.usable_replies import usable_replies

__all__ = ["ReplyStore", "StoredReply", "build_store", "context_texts"]

FORMAT: Final = 1
_BLOCK: Final = 512  # contexts embedded between two signs of progress


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply and where a person said it."""

    conversation_id: str
    turn_id: str
    strategy: str
    text: str


def context_texts(path: Sequence[Turn]) -> tuple[str, str]:
    """What a reply answers, and what led there: the seeker's last words, and the two utterances before them."""
    last = len(path)
    while last and path[last - 1].speaker == "seeker":
        last -= 1
    answered = " ".join((turn.text or "").strip() for turn in path[last:])
    before = " ".join((turn.text or "").strip() for turn in path[max(0, last - 2) : last])
    return answered or before, before


class ReplyStore:
    """The replies, and the vectors of their contexts.

    Args:
        replies: N of them.
        vectors: (N, D) of their contexts, of length 1, from `embed_contexts`.
        encoder: the one that made them.
        corpus, licence: where the replies come from, and under which terms.
    """

    def __init__(
        self, replies: Sequence[StoredReply], vectors: NDArray[np.float32], encoder: Encoder, corpus: str, licence: str
    ) -> None:
        self.replies = list(replies)
        self.vectors = vectors
        self.encoder = encoder
        self.corpus = corpus
        self.licence = licence

    @cached_property
    def by_strategy(self) -> dict[str, NDArray[np.intp]]:
        """Places of the replies of each strategy."""
        strategies = np.array([reply.strategy for reply in self.replies])
        return {str(strategy): np.flatnonzero(strategies == strategy) for strategy in np.unique(strategies)}

    @property
    def strategies(self) -> frozenset[str]:
        """The strategies under which it has replies."""
        return frozenset(self.by_strategy)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the replies and their contexts."""
        digest = hashlib.sha256(json.dumps([asdict(reply) for reply in self.replies]).encode())
        digest.update(self.vectors.astype(np.float16).tobytes())
        return digest.hexdigest()

    @property
    def about(self) -> str:
        """What a person who talks to it must know."""
        return (
            f"A program, not a person and not therapy: no reply is written for you, each was written for someone else "
            f"and comes from the corpus {self.corpus} (licence: {self.licence})."
        )

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> list[Reply | None]:
        """See `Generator.write`: the nearest stored reply that has not been said, whole and at once.

        What the history shows, decoding and seed change nothing; no conversation gets the same text twice here.
        """
        paths = [each.conversation.path(each.parent) for each in wanted]
        said: dict[str, set[str]] = {}
        found: list[Reply | None] = []
        for each, path, vector in zip(wanted, paths, embed_contexts(self.encoder, paths), strict=True):
            given = said.setdefault(each.conversation.id, set())
            unlike = given | _said_on(path) | set(map(_plain, each.unlike or ()))
            reply = self._nearest(vector, each.strategy, each.conversation.id, unlike)
            found.append(None if reply is None else Reply(reply.text.strip(), "stop"))
            if reply is not None:
                given.add(_plain(reply.text))
                if on_text is not None and len(wanted) == 1:
                    on_text(reply.text.strip())
        return found

    def _nearest(
        self, vector: NDArray[np.float32], strategy: str, conversation_id: str, said: set[str]
    ) -> StoredReply | None:
        places = self.by_strategy.get(strategy, np.array([], dtype=np.intp))
        for place in places[np.argsort(-(self.vectors[places] @ vector), kind="stable")]:
            reply: StoredReply = self.replies[int(place)]
            if reply.conversation_id != conversation_id and _plain(reply.text) not in said:
                return reply
        return None

    def save(self, folder: Path) -> None:
        """Write ``store.json``, ``replies.jsonl`` and ``contexts.npy`` (float16) into a folder."""
        contexts = BytesIO()  # into a file, NumPy would not notice that the disk is too full for its last bytes
        np.save(contexts, self.vectors.astype(np.float16))
        with atomic(folder / "contexts.npy") as temporary:
            temporary.write_bytes(contexts.getbuffer())
        write_jsonl(folder / "replies.jsonl", map(asdict, self.replies))
        card = {"corpus": self.corpus, "licence": self.licence, "encoder": self.encoder.source}
        write_json(folder / "store.json", {"format": FORMAT, **card, "encoder_hash": self.encoder.weights_hash})

    @classmethod
    def load(cls, folder: Path) -> "ReplyStore":
        """Load a store's folder.

        Raises:
            ModelError: it is not whole, or its encoder has other weights now.
        """
        try:
            card = json.loads(read_text(folder / "store.json", what="a reply store's card", error=ModelError))
            lines = read_lines(folder / "replies.jsonl", what="a store's replies", error=ModelError)
            replies = [StoredReply(**json.loads(line)) for _, line in lines]
            vectors = np.load(folder / "contexts.npy").astype(np.float32)
            encoder = load_encoder(card["encoder"])
            if card["format"] != FORMAT or len(vectors) != len(replies):
                raise ModelError(f"{folder} is no reply store of this version: make it again.")
        except (json.JSONDecodeError, KeyError, TypeError, OSError, ValueError) as error:
            raise ModelError(f"{folder} is no whole reply store ({error}): make it again.") from error
        if encoder.weights_hash != card["encoder_hash"]:
            raise ModelError(f"the encoder {card['encoder']} is not the one that {folder} was made with: restore it.")
        return cls(replies, vectors, encoder, card["corpus"], card["licence"])


def embed_contexts(
    encoder: Encoder, paths: Sequence[Sequence[Turn]], advance: Callable[[int], None] = lambda _: None
) -> NDArray[np.float32]:
    """Vectors (N, D) of contexts: the seeker's last words, and half of what led there."""
    rows = []
    for start in range(0, len(paths), _BLOCK):
        texts = [context_texts(path) for path in paths[start : start + _BLOCK]]
        answered, before = (encoder.embed([pair[side] for pair in texts]) for side in (0, 1))
        vectors = answered + 0.5 * before
        rows.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
        advance(len(texts))
    return np.concatenate(rows) if rows else np.zeros((0, encoder.width), dtype=np.float32)


def build_store(
    conversations: Sequence[Conversation],
    encoder: Encoder,
    corpus: str,
    licence: str,
    left_out: Counter[str],
    advance: Callable[[int], None] = lambda _: None,
) -> ReplyStore:
    """Make a store of a corpus's usable replies, each text once; count in ``left_out`` what is not usable.

    Raises:
        CorpusError: there is none.
    """
    found, seen = [], set()
    for usable in usable_replies(list(conversations), left_out):
        key = (usable.turn.strategy, _plain(usable.turn.text or ""), usable.conversation.id)
        if key not in seen:
            seen.add(key)
            found.append(usable)
    if not found:
        raise CorpusError("no supporter reply of the corpus may be said again by a program: take another corpus.")
    replies = [
        StoredReply(use.conversation.id, use.turn.id, str(use.turn.strategy), use.turn.text or "") for use in found
    ]
    paths = [use.conversation.path(use.turn.parent) for use in found]
    return ReplyStore(replies, embed_contexts(encoder, paths, advance), encoder, corpus, licence)


def _said_on(path: Sequence[Turn]) -> set[str]:
    return {_plain(turn.text or "") for turn in path if turn.speaker == "supporter"}


def _plain(text: str) -> str:
    """The form in which two replies are the same reply: words alone, in lower case."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
