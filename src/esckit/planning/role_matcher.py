"""Which role of a bank suits a person: the matcher, and the folder that `matcher_fitting` writes and it is loaded from.

``matcher.json`` says what it is, ``weights.safetensors`` holds its numbers, ``bank/`` the roles that it knows.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from esckit.errors import ModelError
from esckit.files import hash_file, read_text, write_json
from esckit.planning.calibration import log_normalise
from esckit.planning.emotion_scorer import EmotionScorer, feeling_words
from esckit.planning.encoder import Encoder, load_encoder
from esckit.planning.encoder_planner import load_tensors, save_tensors
from esckit.planning.matcher_options import BANK
from esckit.planning.questions import question_text
from esckit.planning.text_features import GramReader, TextReader, VectorReader, likeness
from esckit.roles.bank import RoleBank, read_bank, save_bank

FORMAT: Final = 1
MATCHER: Final = "matcher.json"


class Matched(NamedTuple):
    """A role, or None where none is likely enough; probabilities 0..1 of all roles, the likeliest first."""

    role: str | None
    probabilities: dict[str, float]


@dataclass(frozen=True)
class RoleHead:
    """Multinomial logistic regression on a reader's rows: weights (K, F), bias (K,), roles in the bank's order.

    ``temperature`` divides its logits; below ``threshold`` (0..1) it abstains.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    temperature: float
    threshold: float

    def log_probabilities(self, rows: Any) -> NDArray[np.float64]:
        """(N, K) natural logarithms, calibrated and normalised."""
        return log_normalise(np.asarray(rows @ self.weights.T + self.bias, dtype=np.float64) / self.temperature)


@dataclass(frozen=True)
class LanguagePart:
    """What reads texts of one language; where an encoder does, ``rarity`` (F,) is None."""

    head: RoleHead
    scorer: EmotionScorer
    rarity: NDArray[np.float64] | None


@dataclass(frozen=True)
class MatcherCard:
    """What ``matcher.json`` says.

    Attributes:
        bank: digest of the roles.
        encoder, encoder_hash: what reads the languages without n-grams, None where none does.
        keywords: a corpus's keywords are read.
        majority: the most frequent gold role; topics: by topic, its most frequent one: the baselines.
        key: SHA-256 of all that it was made from.
        facts: figures of its training.
    """

    bank: str
    encoder: str | None
    encoder_hash: str | None
    keywords: bool
    majority: str | None
    topics: Mapping[str, str]
    key: str
    facts: Mapping[str, Any]


class RoleMatcher:
    """Matches roles, scores emotions, and compares texts; nothing is drawn, and no text depends on the others."""

    def __init__(
        self, bank: RoleBank, card: MatcherCard, parts: Mapping[str, LanguagePart], encoder: Encoder | None = None
    ) -> None:
        self.bank, self.card, self._parts, self._given = bank, card, parts, encoder
        self._readers: dict[str, TextReader] = {}

    @classmethod
    def load(cls, folder: Path | str, encoder: Encoder | None = None, bank: RoleBank | None = None) -> Self:
        """Load a matcher's folder. Its encoder, unless it is given, is loaded when a text is read that needs it.

        Raises:
            ModelError: the folder is not whole or of another format, or it is a matcher of other roles than those in it
                or than ``bank``'s.
        """
        folder = Path(folder)
        card, parts = _read_folder(folder)
        own = read_bank(folder / BANK)
        for other, where in ((own, folder / BANK), (bank, bank and bank.source)):
            if other and other.digest != card.bank:
                raise ModelError(
                    f"the matcher {folder} was trained for another role bank than {where}: train it again with that "
                    "bank, or restore the bank that it was trained with."
                )
        return cls(own, card, parts, encoder)

    @property
    def identity(self) -> str:
        """SHA-256 of what it was made from, and its encoder's precision."""
        precision = self._given.precision if self._given else None
        thresholds = [part.head.threshold for part in self._parts.values()]
        return hashlib.sha256(repr([self.card.key, thresholds, precision]).encode()).hexdigest()

    @property
    def languages(self) -> tuple[str, ...]:
        """Those of its bank."""
        return tuple(self._parts)

    def match(self, situation: str | None, said: Sequence[str], language: str, keywords: Sequence[str] = ()) -> Matched:
        """Match a person, by what stands before the first supporter reply.

        Args:
            situation: written before the talk, or a question with its description.
            said: the seeker's turns before the first reply.
            language: theirs.
            keywords: the corpus's; read where the matcher was trained with them.

        Raises:
            CorpusError: there is no text.
            RoleError: the bank does not speak the language.
        """
        text = question_text(situation, said, keywords if self.card.keywords else ())
        part = self._part(language)
        found = np.exp(part.head.log_probabilities(self._reader(language).rows([text])))[0]
        order = np.argsort(-found, kind="stable")
        probabilities = {self.bank.names[place]: float(found[place]) for place in order}
        role, likeliest = next(iter(probabilities.items()))
        return Matched(role if likeliest >= part.head.threshold else None, probabilities)

    def feelings(self, texts: Sequence[str], language: str) -> NDArray[np.float64]:
        """Scores (N, 8), 1..10, of texts by emotion (`roles.EMOTIONS`). Raises RoleError as `match`."""
        part = self._part(language)
        return part.scorer.score(self._reader(language).rows(texts), feeling_words(texts, language))

    def likeness(self, text: str, others: Sequence[str], language: str) -> NDArray[np.float64]:
        """Cosines (N,) of a text with others, -1..1. Raises RoleError as `match`."""
        self._part(language)
        reader = self._reader(language)
        found: NDArray[np.float64] = likeness(reader.rows([text]), reader.rows(others))[0]
        return found

    def _part(self, language: str) -> LanguagePart:
        self.bank.refuse_language(language)
        return self._parts[language]

    def _reader(self, language: str) -> TextReader:
        if language not in self._readers:
            rarity = self._parts[language].rarity
            self._readers[language] = VectorReader(self._encoder) if rarity is None else GramReader(rarity)
        return self._readers[language]

    @cached_property
    def _encoder(self) -> Encoder:
        assert self.card.encoder is not None
        encoder = self._given or load_encoder(self.card.encoder)
        if encoder.weights_hash != self.card.encoder_hash:
            raise ModelError(
                f"the encoder {encoder.source} is not the one that the role matcher was trained with: restore its "
                "weights, or train the matcher again."
            )
        return encoder

    def save(self, folder: Path) -> None:
        """Write its folder; ``matcher.json`` is written last, so a folder that has it is whole."""
        (folder / MATCHER).unlink(missing_ok=True)
        save_bank(self.bank, folder / BANK)
        save_tensors(folder / "weights.safetensors", _tensors(self._parts))
        fields = {
            "format": FORMAT,
            "bank": self.card.bank,
            "roles": list(self.bank.names),
            "encoder": self.card.encoder and {"source": self.card.encoder, "weights_hash": self.card.encoder_hash},
            "keywords": self.card.keywords,
            "heads": {
                language: {"temperature": part.head.temperature, "threshold": part.head.threshold}
                for language, part in self._parts.items()
            },
            "majority": self.card.majority,
            "topics": dict(self.card.topics),
            "weights_hash": hash_file(folder / "weights.safetensors"),
            "key": self.card.key,
            "facts": dict(self.card.facts),
        }
        write_json(folder / MATCHER, fields)


_NUMBERS: Final = ("head.weights", "head.bias", "scorer.weights", "scorer.bias", "rarity")


def _tensors(parts: Mapping[str, LanguagePart]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for language, part in parts.items():
        arrays = (part.head.weights, part.head.bias, part.scorer.weights, part.scorer.bias, part.rarity)
        found |= {
            f"{language}.{name}": torch.from_numpy(np.asarray(array, dtype=np.float32))
            for name, array in zip(_NUMBERS, arrays, strict=True)
            if array is not None
        }
    return found


def _read_folder(folder: Path) -> tuple[MatcherCard, dict[str, LanguagePart]]:
    from safetensors import SafetensorError

    path = folder / MATCHER
    try:
        fields = json.loads(read_text(path, what="a role matcher's matcher.json", error=ModelError))
        if fields["format"] != FORMAT:
            raise ModelError(f"{path} has another format than {FORMAT}: install the esckit that wrote it.")
        if hash_file(folder / "weights.safetensors") != fields["weights_hash"]:
            raise ModelError(f"{folder / 'weights.safetensors'} is not the one that {path} names: train it again.")
        tensors = load_tensors(folder / "weights.safetensors")
        parts = {language: _part_of(language, head, tensors) for language, head in fields["heads"].items()}
        encoder = fields["encoder"] or {"source": None, "weights_hash": None}
        card = MatcherCard(
            bank=str(fields["bank"]),
            encoder=encoder["source"],
            encoder_hash=encoder["weights_hash"],
            keywords=bool(fields["keywords"]),
            majority=fields["majority"],
            topics=dict(fields["topics"]),
            key=str(fields["key"]),
            facts=dict(fields["facts"]),
        )
    except (OSError, SafetensorError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is no whole role matcher ({error}): train it again.") from error
    return card, parts


def _part_of(language: str, head: Mapping[str, float], tensors: Mapping[str, torch.Tensor]) -> LanguagePart:
    own = [tensors.get(f"{language}.{name}") for name in _NUMBERS]
    weights, bias, scoring, level, rarity = (None if each is None else each.double().numpy() for each in own)
    if weights is None or bias is None or scoring is None or level is None:
        raise ValueError(f"weights for {language!r} are missing")
    role_head = RoleHead(weights, bias, float(head["temperature"]), float(head["threshold"]))
    return LanguagePart(role_head, EmotionScorer(scoring, level), rarity)
