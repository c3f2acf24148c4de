"""A response generator without a language model: it says again what a person said in a similar place.

A reply is taken from a corpus's own supporter replies under the wanted strategy, where the context before it is most
similar; none is said twice in a dialogue, and none of the dialogue itself. None is about a life, a place, a person, a
payment or a danger: the rules for that are English (those of danger have more languages), err towards leaving out, and
are counted by reason. They are filters, not a guarantee.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.errors import CorpusError, ModelError
from esckit.files import atomic, read_lines, read_text, write_json, write_jsonl
from esckit.language_models.generation import Reply
from esckit.planning.encoder import Encoder, load_encoder
from esckit.rendering import supporter_turns
from esckit.safety import risk_of
from esckit.supporters.parts import OnText, Wording

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
    """N replies, and the vectors (N, D) of their contexts, of length 1, that the encoder made (`embed_contexts`).

    ``corpus`` and ``licence`` are where the replies come from, and under which terms.
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
        return self.choose(wanted, 1, lambda _, replies: replies[0].text, on_text)

    def choose(
        self,
        wanted: Sequence[Wording],
        count: int,
        best: Callable[[Wording, list[StoredReply]], str],
        on_text: OnText | None = None,
    ) -> list[Reply | None]:
        """What ``best`` makes of the nearest replies that have not been said, at most ``count``; None: none is."""
        paths = [each.conversation.path(each.parent) for each in wanted]
        said: dict[str, set[str]] = {}
        found: list[Reply | None] = []
        for each, path, vector in zip(wanted, paths, embed_contexts(self.encoder, paths), strict=True):
            given = said.setdefault(each.conversation.id, set())
            on_path = (turn.text or "" for turn in path if turn.speaker == "supporter")
            unlike = given | set(map(_plain, (*on_path, *(each.unlike or ()))))
            near = list(islice(self._nearest(vector, each.strategy, each.conversation.id, unlike), count))
            text = best(each, near).strip() if near else None
            found.append(None if text is None else Reply(text, "stop"))
            if text is not None:
                given.add(_plain(text))
                if on_text is not None and len(wanted) == 1:
                    on_text(text)
        return found

    def _nearest(
        self, vector: NDArray[np.float32], strategy: str, conversation_id: str, said: set[str]
    ) -> Iterator[StoredReply]:
        """Replies under a strategy that were not said yet, each text once, the nearest first."""
        places, passed = self.by_strategy.get(strategy, np.array([], dtype=np.intp)), set(said)
        for place in places[np.argsort(-(self.vectors[places] @ vector), kind="stable")]:
            reply: StoredReply = self.replies[int(place)]
            if reply.conversation_id != conversation_id and _plain(reply.text) not in passed:
                passed.add(_plain(reply.text))
                yield reply

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
    for conversation, turn in usable_replies(list(conversations), left_out):
        key = (turn.strategy, _plain(turn.text or ""), conversation.id)
        if key not in seen:
            seen.add(key)
            found.append((conversation, turn))
    if not found:
        raise CorpusError("no supporter reply of the corpus may be said again by a program: take another corpus.")
    replies = [StoredReply(tree.id, turn.id, str(turn.strategy), turn.text or "") for tree, turn in found]
    paths = [tree.path(turn.parent) for tree, turn in found]
    return ReplyStore(replies, embed_contexts(encoder, paths, advance), encoder, corpus, licence)


def _plain(text: str) -> str:
    """The form in which two replies are the same reply: words alone, in lower case."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


# Which human replies a program may say again.

_CONTACT: Final = re.compile(
    r"(?:\+?\d[\d\s().-]{5,}\d)|\b\d{3}[- ]\d{4}\b|https?://|www\.|\b\w+\.(?:com|org|net|gov|edu|co\.uk)\b|\S+@\S+\.\w+"
    r"|\b(?:hot|help|crisis)[- ]?line\b|\b(?:911|988|999|112|741741)\b",
    re.IGNORECASE,
)
_CROWD_WORK: Final = re.compile(
    r"\b(?:survey|mturk|turker\w*|turk|hits?\s+(?:id|code|is|was)|requester|bonus|qualif\w+|questionnaire|rating|worker|"
    r"task|experiment|researchers?|timer?\s+(?:is\s+)?up|button|click\w*|quit|exit|log\s*(?:off|out)|disconnect\w*|"
    r"(?:end|finish|close|leave)\w*\s+(?:the|this|our)\s+(?:chat|conversation|session|talk)|chat\s*(?:box|room|window)|"
    r"(?:number|amount)\s+of\s+(?:turns|messages|responses)|\d+\s+(?:turns|messages|minutes?\s+left)|typo|"
    r"(?:next|other)\s+person|peer\s+support\w*|supporter)\b",
    re.IGNORECASE,
)
_LIVED: Final = re.compile(
    r"\b(?:my|mine|myself|me\s+too|same\s+(?:here|thing|situation|boat)|we|us|our|ours|been\s+(?:there|through)|"
    r"happened\s+to\s+me|like\s+me|as\s+me|for\s+me|than\s+me)\b",
    re.IGNORECASE,
)
_FIRST_PERSON: Final = re.compile(
    r"\bi(?:'?m|'?ll|'?d|'?ve)?\b(?:[\s,]+(?:really|also|just|do|don'?t|can|can'?t|cannot|could|would|will|truly|totally|"
    r"definitely|completely|certainly|so|only|very|much|am|fully|deeply|not|be|do|have|been|of|course|may|might|must|"
    r"too|always|genuinely|actually|still|even|should|if|to|a|bit)\b)*[\s,]*([a-z']*)",
    re.IGNORECASE,
)
_LISTENING: Final = frozenset(
    {
        *("", "see", "hear", "understand", "imagine", "hope", "wonder", "wondering", "appreciate", "sense", "think"),
        *("believe", "suggest", "recommend", "sorry", "glad", "happy", "here", "help", "ask", "asking", "say", "tell"),
        *("mean", "guess", "agree", "wish", "want", "listen", "listening", "like", "offer", "proud", "sure", "curious"),
        *("thank", "apologize", "apologise", "add", "encourage", "empathize", "empathise", "sympathize", "admire"),
        *("respect", "acknowledge", "bet", "gather", "pleased", "impressed", "interested", "saying"),
        *("hearing", "suggesting", "recommending", "hoping", "concerned", "assume", "commend"),
    }
)
"""What a program may say of itself: that it listens, supposes, wishes, offers. Anything else may be a life's."""
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z']*")
_SENTENCE: Final = re.compile(r"[.!?]+\s+|\n+")
_NO_NAMES: Final = frozenset({"i", "i'm", "i've", "i'd", "i'll", "im", "ive", "ok", "okay", "tv", "id", "ill"})


def explicit_risk(conversation: Conversation) -> bool:
    """True where someone in the dialogue, or its situation, speaks of a danger (`esckit.safety.risk_of`)."""
    said = [turn.text for turn in conversation.turns]
    return any(risk_of(text) for text in (*said, conversation.situation) if text)


def names_of(conversations: Iterable[Conversation]) -> frozenset[str]:
    """Words, in lower case, that these dialogues mostly write with a capital inside a sentence: names and places."""
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for conversation in conversations:
        for turn in conversation.turns:
            for sentence in _SENTENCE.split(turn.text or ""):
                if sentence.isupper():
                    continue
                for word in _WORD.findall(sentence)[1:]:
                    (capital if word[0].isupper() else small)[word.lower()] += 1
    return frozenset(word for word, count in capital.items() if count > small[word] and word not in _NO_NAMES)


def unusable(text: str, names: frozenset[str]) -> str | None:
    """Why a reply must not be said again; None where nothing speaks against it."""
    if risk_of(text):
        return "risk"
    if _CONTACT.search(text):
        return "phone numbers, links and helplines"
    if _CROWD_WORK.search(text):
        return "talk of the survey or the chat"
    if _LIVED.search(text) or any(word.lower() not in _LISTENING for word in _FIRST_PERSON.findall(text)):
        return "self-disclosure of lived experience"
    if any(word.lower() in names for word in _WORD.findall(text)):
        return "names and places"
    return None if any(character.isalpha() for character in text) else "no words"


def usable_replies(conversations: list[Conversation], left_out: Counter[str]) -> Iterator[tuple[Conversation, Turn]]:
    """Yield the labelled supporter turns whose replies may be said again; count the others by reason."""
    names = names_of(conversations)
    for conversation in conversations:
        turns = supporter_turns(conversation)
        if explicit_risk(conversation):
            left_out["dialogues with explicit risk"] += len(turns)
            continue
        for turn in turns:
            reason = unusable(turn.text or "", names)
            if turn.strategy == "Self-disclosure":  # a program has no life to disclose
                reason = "self-disclosure of lived experience"
            if reason:
                left_out[reason] += 1
            else:
                yield conversation, turn
