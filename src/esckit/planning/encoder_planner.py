"""The strategy planner on an encoder, and the folder that `planning.fitting` writes and it is loaded from.

``planner.json`` says what it is, ``weights.safetensors`` holds its members: networks and trees.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esckit.conversation import Conversation, Turn
from esckit.errors import ModelError
from esckit.files import atomic, hash_file, read_text, write_json
from esckit.planning.calibration import MODES, Calibration, LogProbabilities, Mode, apply_modes, log_normalise
from esckit.planning.encoder import Encoder, load_encoder
from esckit.planning.forest import StrategyForest
from esckit.planning.network import Binner, Sizes, new_network
from esckit.planning.turn_batches import Embed, TextVectors, TurnBatch, collate_turns, read_turns
from esckit.planning.turn_features import feature_names, history_width
from esckit.strategy import TAXONOMIES, Taxonomy

FORMAT: Final = 1
FOREST_WEIGHT: Final = 0.4
"""The forests' share in the average of log-probabilities."""

PlannerModel = Literal["encoder", "linear", "majority"]


@dataclass(frozen=True)
class PlannerCard:
    """What ``planner.json`` says.

    Attributes:
        encoder, encoder_hash: what embeds utterances and the SHA-256 of its weights; None where nothing does.
        sizes: of its networks, where it is an encoder planner.
        forest_weight: its forests' share in the average, 0..1.
        key: SHA-256 of all that it was made from.
        facts: figures of its training, for a reader.
        roles: those that it was trained on, where there were several; a feature each, after the others.
    """

    model: PlannerModel
    taxonomy: str
    seed: int
    encoder: str | None
    encoder_hash: str | None
    sizes: Sizes | None
    forest_weight: float
    calibration: Mapping[Mode, Calibration]
    key: str
    facts: dict[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file that appears complete or not at all."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote."""
    from safetensors.torch import load_file

    return dict(load_file(path))


def write_planner_folder(folder: Path, card: PlannerCard, tensors: Mapping[str, Tensor]) -> None:
    """Write a planner; ``planner.json`` is written last, so a folder that has it is whole.

    The tensors are the members' weights, ``0.…``, ``1.…``, or ``log_frequencies`` (K,) of planners that have none.
    """
    with atomic(folder / "weights.safetensors") as temporary:
        save_tensors(temporary, tensors)
        (folder / "planner.json").unlink(missing_ok=True)  # it names the weights that are replaced now
    taxonomy = TAXONOMIES[card.taxonomy]
    fields = {
        "format": FORMAT,
        "model": card.model,
        "taxonomy": card.taxonomy,
        "labels": list(taxonomy.labels),
        "seed": card.seed,
        "encoder": card.encoder and {"source": card.encoder, "weights_hash": card.encoder_hash},
        "sizes": card.sizes and vars(card.sizes),
        "forest_weight": card.forest_weight,
        "features": list(feature_names(taxonomy)),
        "calibration": {mode: calibration.to_json() for mode, calibration in card.calibration.items()},
        "weights_hash": hash_file(folder / "weights.safetensors"),
        "key": card.key,
        "facts": card.facts,
        **({"roles": list(card.roles)} if card.roles else {}),
    }
    write_json(folder / "planner.json", fields)


def read_planner_folder(folder: Path) -> tuple[PlannerCard, dict[str, Tensor]]:
    """Read and check a planner's folder.

    Raises:
        ModelError: it is no whole planner of this version.
    """
    from safetensors import SafetensorError

    path = folder / "planner.json"
    try:
        fields = json.loads(read_text(path, what="an encoder planner's planner.json", error=ModelError))
        if fields["format"] != FORMAT:
            raise ModelError(f"{path} has another format than {FORMAT}: install the esckit that wrote it.")
        card = _card(fields)
        if hash_file(folder / "weights.safetensors") != fields["weights_hash"]:
            raise ModelError(f"{folder / 'weights.safetensors'} is not the one that {path} names: train it again.")
        return card, load_tensors(folder / "weights.safetensors")
    except (OSError, SafetensorError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is no whole encoder planner ({error}): train it again.") from error


def members_of(card: PlannerCard, tensors: Mapping[str, Tensor]) -> list[nn.Module]:
    """Build a planner's networks and forests, ready to score.

    Raises:
        ModelError: the weights are not those of such members.
    """
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        if rest:
            states.setdefault(int(number), {})[rest] = tensor
    try:
        return [_member(card, states[number]).eval() for number in sorted(states)]
    except (KeyError, RuntimeError) as error:
        raise ModelError("the planner's weights do not fit its planner.json: train it again.") from error


def _member(card: PlannerCard, state: Mapping[str, Tensor]) -> nn.Module:
    taxonomy = TAXONOMIES[card.taxonomy]
    if "shown.roots" in state:
        return StrategyForest.from_state(state, history_width(taxonomy))
    binner = Binner(*(state[f"explicit.binner.{part}"] for part in ("column", "low", "high", "mean", "scale")))
    network = new_network(binner, taxonomy, card.sizes)
    network.load_state_dict(dict(state))
    return network


def _card(fields: Mapping[str, Any]) -> PlannerCard:
    if fields["model"] not in get_args(PlannerModel):
        raise ValueError(f"unknown model {fields['model']!r}")
    taxonomy = TAXONOMIES[fields["taxonomy"]]
    if list(taxonomy.labels) != fields["labels"] or list(feature_names(taxonomy)) != fields["features"]:
        raise ValueError("its labels or features are not this version's")
    calibration = {mode: Calibration.from_json(fields["calibration"][mode]) for mode in MODES}
    if any(len(each.offsets) != len(taxonomy.labels) for each in calibration.values()):
        raise ValueError("a calibration has not one offset a label")
    encoder = fields["encoder"] or {"source": None, "weights_hash": None}
    return PlannerCard(
        model=fields["model"],
        taxonomy=taxonomy.name,
        seed=int(fields["seed"]),
        encoder=encoder["source"],
        encoder_hash=encoder["weights_hash"],
        sizes=Sizes(**fields["sizes"]) if fields["sizes"] else None,
        forest_weight=float(fields["forest_weight"]),
        calibration=calibration,
        key=str(fields["key"]),
        facts=dict(fields["facts"]),
        roles=tuple(fields.get("roles", ())),
    )


def member_weights(forests: list[bool], forest_weight: float) -> list[float]:
    """What each member counts in the average, by whether it is a forest; where both kinds are, forests together count
    ``forest_weight``; the weights sum to 1."""
    share = {True: forest_weight, False: 1 - forest_weight}
    each = [share[forest] / forests.count(forest) for forest in forests]
    return [weight / sum(each) for weight in each]


def ensemble(members: Sequence[nn.Module], batch: TurnBatch, forest_weight: float) -> Tensor:
    """Weighted mean of the members' log-probabilities, (T, K) float64, normalised."""
    forests = [isinstance(member, StrategyForest) for member in members]
    weights = torch.tensor(member_weights(forests, forest_weight), dtype=torch.float64)
    with torch.no_grad():
        each = [member(batch).planned.double().log_softmax(-1) for member in members]
    return torch.einsum("m,mtk->tk", weights, torch.stack(each)).log_softmax(-1)


class EncoderPlanner:
    """Scores strategies on any path of a tree: networks and trees, or one of the planners beside them.

    Where supporter turns stand before a turn and none of them shows its strategy, the turn is planned as one whose past
    strategies are hidden.

    Its encoder is None where it needs none. ``calibrated`` says that its calibration is applied, and ``embed``
    remembers what it has embedded.
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
        """Load a planner's folder; ``encoder`` is its own, where that is loaded already or wanted in another precision.

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

        The turns stand on any of the tree's branches. Only what stands before each is read, so that one alone is scored
        as together with others, up to rounding. ``shown`` are strategies to show in the history, by turn id.

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
        read = read_turns(conversation, unlabelled, shown, self.taxonomy, self.embed, roles=self.card.roles)
        batch = collate_turns([read], len(self.taxonomy.labels))
        plain = ensemble(self._members, batch, self.card.forest_weight).numpy()
        return apply_modes(self.card.calibration, plain, read.hidden) if self.calibrated else plain


def _no_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), 0), dtype=np.float32)
