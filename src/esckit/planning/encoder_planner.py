"""The strategy planner on an encoder, loaded from the folder that `planning.fitting` writes."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from esckit.conversation import Conversation, Turn
from esckit.errors import ModelError
from esckit.planning.calibration import LogProbabilities, log_normalise
from esckit.planning.encoder import Encoder, load_encoder
from esckit.planning.planner_folder import PlannerCard, ensemble, members_of, read_planner_folder
from esckit.planning.turn_batches import Embed, TextVectors, collate_turns, read_turns
from esckit.planning.unseen import apply_modes
from esckit.strategy import TAXONOMIES, Taxonomy

__all__ = ["EncoderPlanner"]


class EncoderPlanner:
    """Scores strategies on any path of a tree: networks and trees, or one of the planners beside them.

    Where supporter turns stand before a turn and none of them shows its strategy, the turn is planned as one whose past
    strategies are hidden.

    Args:
        card: what it is.
        tensors: its weights.
        encoder: the one that it was trained with; None where it needs none.

    Attributes:
        calibrated: its calibration is applied.
        embed: texts to vectors; remembers what it has embedded.
    """

    def __init__(self, card: PlannerCard, tensors: Mapping[str, Tensor], encoder: Encoder | None) -> None:
        self.card = card
        self.encoder = encoder
        self.calibrated = True
        self._tensors = tensors
        self._members = members_of(card, tensors)
        self.embed: Embed = TextVectors(encoder) if encoder else _no_vectors

    @classmethod
    def load(cls, folder: Path | str, encoder: Encoder | None = None) -> Self:
        """Load a planner's folder.

        Args:
            folder: from `planning.fitting.train_planner`, wherever it has been moved.
            encoder: its encoder, where that is loaded already, or is wanted in another precision.

        Raises:
            ModelError: the folder is not whole or of another format, or the encoder has other weights than those that
                the planner was trained with.
        """
        card, tensors = read_planner_folder(Path(folder))
        if card.encoder is None:
            return cls(card, tensors, None)
        encoder = encoder or load_encoder(card.encoder)
        if encoder.weights_hash != card.encoder_hash:
            raise ModelError(
                f"the encoder {encoder.source} is not the one that {folder} was trained with: restore its weights."
            )
        return cls(card, tensors, encoder)

    @property
    def taxonomy(self) -> Taxonomy:
        """Its labels."""
        return TAXONOMIES[self.card.taxonomy]

    @property
    def identity(self) -> str:
        """SHA-256 of what it was made from, its calibration, and its encoder's precision."""
        calibration = {mode: each.to_json() for mode, each in self.card.calibration.items()}
        precision = self.encoder.precision if self.encoder else None
        return hashlib.sha256(repr([self.card.key, calibration, self.calibrated, precision]).encode()).hexdigest()

    @property
    def uncalibrated(self) -> Self:
        """The same planner without its calibration."""
        plain = copy.copy(self)  # members and remembered vectors are shared
        plain.calibrated = False
        return plain

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]) -> LogProbabilities:
        """Log-probability of each label at each turn, calibrated and normalised (natural log); nothing is drawn.

        Calibrated probabilities are for choosing: their offsets trade likelihood for even use of the labels.

        Args:
            conversation: the tree.
            turns: turns on any of its branches; only what stands before each is read, so that one alone is scored as
                together with others, up to rounding.
            shown: strategies to show in the history, by turn id.

        Returns:
            Array (T, K): T turns in the order given, K labels in taxonomy order; each row's exponentials sum to 1.

        Raises:
            CorpusError: a strategy shown is no label of its taxonomy.
        """
        if not turns:
            return np.zeros((0, len(self.taxonomy.labels)))
        if not self._members:
            return np.repeat(log_normalise(self._tensors["log_frequencies"].numpy())[None], len(turns), axis=0)
        unlabelled = [replace(turn, strategy=None) for turn in turns]
        read = read_turns(conversation, unlabelled, shown, self.taxonomy, self.embed)
        batch = collate_turns([read], len(self.taxonomy.labels))
        plain = ensemble(self._members, batch, self.card.forest_weight).numpy()
        return apply_modes(self.card.calibration, plain, read.hidden) if self.calibrated else plain


def _no_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), 0), dtype=np.float32)
