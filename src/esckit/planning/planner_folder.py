"""An encoder planner's folder: ``planner.json`` says what it is, ``weights.safetensors`` holds its members."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from esckit.errors import ModelError
from esckit.files import atomic, hash_file, read_text, write_json
from esckit.planning.calibration import Calibration
from esckit.planning.forest import StrategyForest
from esckit.planning.network import Binner, Sizes, new_network
from esckit.planning.turn_batches import TurnBatch
from esckit.planning.turn_features import feature_names, history_width
from esckit.strategy import TAXONOMIES

__all__ = [
    "FOREST_WEIGHT",
    "FORMAT",
    "MODES",
    "Mode",
    "PlannerCard",
    "PlannerModel",
    "ensemble",
    "load_tensors",
    "member_weights",
    "members_of",
    "read_planner_folder",
    "save_tensors",
    "write_planner_folder",
]

FORMAT: Final = 1
FOREST_WEIGHT: Final = 0.4
"""The forests' share in the average of log-probabilities."""

PlannerModel = Literal["encoder", "linear", "majority"]
Mode = Literal["shown", "hidden"]
"""Whether the history shows past strategies: gold or predicted ones, or none."""

MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True)
class PlannerCard:
    """What ``planner.json`` says.

    Attributes:
        model: what it is.
        taxonomy: its labels' name.
        seed: of its training.
        encoder, encoder_hash: what embeds utterances and the SHA-256 of its weights; None where nothing does.
        sizes: of its networks, where it is an encoder planner.
        forest_weight: its forests' share in the average, 0..1.
        calibration: by mode.
        key: SHA-256 of all that it was made from.
        facts: figures of its training, for a reader.
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

    Args:
        folder: made where it is not there.
        card: what it is.
        tensors: ``0.…``, ``1.…``: the members' weights; ``log_frequencies`` (K,) of planners that have none.
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
    """Read the fields of ``planner.json``."""
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
