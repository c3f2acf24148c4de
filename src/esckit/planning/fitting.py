"""Training an encoder planner: members by cross-validation, their average, and a calibration from what none has seen.

The training dialogues are divided into folds. Each member, a network or a forest, leaves one fold out; what it
predicts there is a prediction for dialogues that it has not seen. On all of these predictions together the calibration
is fitted, once for a history that shows past strategies and once for one that hides them, so it costs no data and sees
no file that is evaluated. The planner is the average of all members.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esckit.conversation import Conversation, conversation_to_json
from esckit.errors import CorpusError, ModelError
from esckit.planning.calibration import (
    MODES,
    Calibration,
    LogProbabilities,
    Mode,
    Unseen,
    fit_modes,
    log_normalise,
    unseen_figures,
)
from esckit.planning.encoder import Encoder
from esckit.planning.encoder_planner import (
    FOREST_WEIGHT,
    PlannerCard,
    load_tensors,
    member_weights,
    read_planner_folder,
    save_tensors,
    write_planner_folder,
)
from esckit.planning.forest import grow_forest
from esckit.planning.network import DROPOUT, Sizes, check_finite, predict_turns, train_network
from esckit.planning.planner_options import PlannerOptions
from esckit.planning.turn_batches import Embed, ReadTurns, plain_text, read_turns
from esckit.progress import progress
from esckit.rendering import past_strategies, supporter_turns
from esckit.rendering.gates import member_of
from esckit.strategy import Taxonomy

_BLOCK: Final = 2048  # texts embedded between two savings
_PREFIX: Final = "member."


@dataclass(frozen=True)
class _Making:
    """A planner being made: `train_planner`'s arguments, and SHA-256 of all that it depends on."""

    encoder: Encoder | None
    taxonomy: Taxonomy
    options: PlannerOptions
    folder: Path
    seed: int
    title: str
    key: str
    roles: tuple[str, ...] = ()

    @property
    def work(self) -> Path:
        """What is done so far; another corpus, encoder or option continues nothing of it."""
        return self.folder / f".training-{self.key[:12]}"

    @property
    def sizes(self) -> Sizes | None:
        """Of its networks; None of linear ones."""
        return Sizes(self.encoder.width, self.options.width, self.options.head, DROPOUT) if self.encoder else None

    def write(self, calibration: Mapping[Mode, Calibration], facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        source, weights = (self.encoder.source, self.encoder.weights_hash) if self.encoder else (None, None)
        model, name = self.options.model, self.taxonomy.name
        share = FOREST_WEIGHT if self.options.forests else 0.0
        about = (self.sizes, share, calibration, self.key, facts, self.roles)
        card = PlannerCard(model, name, self.seed, source, weights, *about)
        write_planner_folder(self.folder, card, tensors)


def train_planner(
    conversations: Sequence[Conversation],
    encoder: Encoder | None,
    taxonomy: Taxonomy,
    options: PlannerOptions,
    folder: Path,
    *,
    seed: int = 0,
    title: str = "planner",
) -> dict[str, Any]:
    """Make a planner's folder; the same call continues after a stop, to the same result, and does nothing twice.

    Args:
        conversations: the training part; trunk turns with a strategy are learnt from.
        encoder: embeds utterances; only the model ``encoder`` needs one.
        folder: receives ``planner.json`` and ``weights.safetensors``, and while training what is done so far.
        seed: of the folds and the members.

    Returns:
        JSON-ready facts: ``dialogues``, ``turns``, ``members``, ``frequencies`` (label to share, 0..1), ``options``
        and, where there are members, ``out_of_fold``: by mode (``shown``, ``hidden``) and treatment (``plain``,
        ``calibrated``, the latter fitted to other dialogues) n, q, q_w, accuracy (0..1), b, b_interval
        (`calibration.unseen_figures`) and nll (nats).

    Raises:
        CorpusError: there are fewer dialogues than folds, or a label is outside the taxonomy.
        ModelError: the model needs an encoder and none is given.
    """
    wanted = [conversation for conversation in conversations if supporter_turns(conversation)]
    _check(wanted, encoder, options)
    encoder = encoder if options.model == "encoder" else None
    roles = () if options.model == "majority" else _roles(wanted)
    key = _key(wanted, encoder, taxonomy, options, seed, roles)
    making = _Making(encoder, taxonomy, options, folder, seed, title, key, roles)
    if done := _finished(folder, key):
        return done
    facts = {**_counts(wanted, taxonomy), "options": options.model_dump()}
    none = dict.fromkeys(MODES, Calibration.none(len(taxonomy.labels)))
    if options.model == "majority":
        making.write(none, facts, _frequencies(facts, taxonomy))
        return facts
    dialogues = _read(making, wanted)
    members, unseen = _train_all(making, dialogues)
    match = options.calibration == "match"
    figures = unseen_figures(unseen, cross_fitted=match)
    facts |= {"members": options.folds * (options.seeds + options.forests), "out_of_fold": figures}
    making.write(fit_modes(unseen) if match else none, facts, members)
    shutil.rmtree(making.work)
    return facts


def _check(conversations: Sequence[Conversation], encoder: Encoder | None, options: PlannerOptions) -> None:
    if len(conversations) < options.folds:
        raise CorpusError(
            f"{len(conversations)} dialogues have supporter turns with a strategy, fewer than the planner's "
            f"{options.folds} folds: give a larger corpus, or set folds lower."
        )
    if options.model == "encoder" and encoder is None:
        raise ModelError("an encoder planner needs an encoder: give one, or train the linear planner.")


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The facts of a whole planner that was made of the same; anything else in its place is made again."""
    with suppress(ModelError):
        card, _ = read_planner_folder(folder)
        return card.facts if card.key == key else None
    return None


def _key(
    conversations: Sequence[Conversation],
    encoder: Encoder | None,
    taxonomy: Taxonomy,
    options: PlannerOptions,
    seed: int,
    roles: Sequence[str],
) -> str:
    parts = [
        [conversation_to_json(conversation) for conversation in conversations],
        [encoder.weights_hash, encoder.precision] if encoder else None,
        taxonomy.name,
        options.model_dump(),
        seed,
        *roles,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _roles(conversations: Sequence[Conversation]) -> tuple[str, ...]:
    """The roles of the dialogues' replies; none where all are in the same one, which then says nothing."""
    members = {member_of(each, turn, "role") for each in conversations for turn in supporter_turns(each)}
    return tuple(sorted(filter(None, members))) if len(members) > 1 else ()


def _counts(conversations: Sequence[Conversation], taxonomy: Taxonomy) -> dict[str, Any]:
    """How much is learnt from, and how often each strategy occurs in it."""
    strategies = [turn.strategy for conversation in conversations for turn in supporter_turns(conversation)]
    foreign = sorted({str(strategy) for strategy in strategies} - set(taxonomy.labels))
    if foreign:
        raise CorpusError(
            f"the corpus has the strategy {foreign[0]!r}, no label of the taxonomy {taxonomy.name}: train with the "
            "corpus's own taxonomy."
        )
    shares = {label: strategies.count(label) / len(strategies) for label in taxonomy.labels}
    return {"dialogues": len(conversations), "turns": len(strategies), "members": 0, "frequencies": shares}


def _frequencies(facts: Mapping[str, Any], taxonomy: Taxonomy) -> dict[str, Tensor]:
    """All that a planner which reads nothing knows; half a turn is added to each strategy's count."""
    k, turns = len(taxonomy.labels), facts["turns"]
    shares = [(facts["frequencies"][label] * turns + 0.5) / (turns + 0.5 * k) for label in taxonomy.labels]
    return {"log_frequencies": torch.tensor(shares, dtype=torch.float64).log()}


def _read(making: _Making, conversations: Sequence[Conversation]) -> list[ReadTurns]:
    """Read every dialogue once, its gold strategies shown; batches hide them again."""
    texts = list(dict.fromkeys(plain_text(turn) for conversation in conversations for turn in conversation.trunk))
    embed = _embedded(texts, making.encoder, making.work, f"{making.title}: texts")
    return [
        read_turns(
            conversation,
            supporter_turns(conversation),
            past_strategies(conversation, "gold"),
            making.taxonomy,
            embed,
            themselves=True,
            roles=making.roles,
        )
        for conversation in conversations
    ]


def _embedded(texts: list[str], encoder: Encoder | None, work: Path, title: str) -> Embed:
    """Embed texts in blocks, each kept in a file."""
    if encoder is None:
        return lambda asked: np.zeros((len(asked), 0), dtype=np.float32)
    starts = range(0, len(texts), _BLOCK)
    paths = [work / f"texts-{number:04}.safetensors" for number in range(len(starts))]
    with progress(title, len(starts), sum(path.exists() for path in paths)) as bar:
        for start, path in zip(starts, paths, strict=True):
            if not path.exists():
                block = torch.from_numpy(encoder.embed(texts[start : start + _BLOCK]))
                save_tensors(path, {"vectors": block})
                bar.advance()
    vectors = torch.cat([load_tensors(path)["vectors"] for path in paths]).numpy()
    place = {text: index for index, text in enumerate(texts)}
    return lambda asked: vectors[[place[text] for text in asked]]


def _train_all(making: _Making, dialogues: Sequence[ReadTurns]) -> tuple[dict[str, Tensor], Unseen]:
    """Train what is not trained yet; return all weights and the predictions for unseen dialogues."""
    options = making.options
    folds = np.random.default_rng(making.seed).permutation(np.arange(len(dialogues)) % options.folds)
    names = [*range(options.seeds), *(["forest"] if options.forests else [])]
    jobs = [(fold, name) for fold in range(options.folds) for name in names]
    paths = [making.work / f"member-{fold}-{name}.safetensors" for fold, name in jobs]
    with progress(making.title, len(jobs), sum(path.exists() for path in paths)) as bar:
        for (fold, name), path in zip(jobs, paths, strict=True):
            if not path.exists():
                seen = [each for each, own in zip(dialogues, folds, strict=True) if own != fold]
                unseen = [each for each, own in zip(dialogues, folds, strict=True) if own == fold]
                seed = _member_seed(making.seed, fold, name)
                save_tensors(path, _train_one(making, seen, unseen, seed, forest=name == "forest"))
                bar.advance()
    saved = [load_tensors(path) for path in paths]
    weights = {
        f"{number}.{name.removeprefix(_PREFIX)}": tensor
        for number, tensors in enumerate(saved)
        for name, tensor in tensors.items()
        if name.startswith(_PREFIX)
    }
    counted = member_weights([name == "forest" for name in names], FOREST_WEIGHT) * options.folds
    return weights, _gather(dialogues, folds, [fold for fold, _ in jobs], counted, saved)


def _train_one(
    making: _Making, seen: Sequence[ReadTurns], unseen: Sequence[ReadTurns], seed: int, *, forest: bool
) -> dict[str, Tensor]:
    """A member's weights, and by mode its log-probabilities for dialogues that it has not seen."""
    member: nn.Module
    if forest:
        member = grow_forest(seen, making.taxonomy, making.options.trees, seed)
    else:
        member = train_network(seen, making.taxonomy, making.sizes, making.options, seed, making.title)
    k = len(making.taxonomy.labels)
    made = {_PREFIX + name: tensor for name, tensor in member.state_dict().items()}
    for mode in MODES:
        made[mode] = torch.from_numpy(predict_turns(member, unseen, k, hidden=mode == "hidden"))
        check_finite(made[mode], "predictions after the last step", making.title)
    return made


def _member_seed(*parts: int | str) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _gather(
    dialogues: Sequence[ReadTurns],
    folds: NDArray[np.intp],
    left_out: Sequence[int],
    weights: Sequence[float],
    saved: Sequence[Mapping[str, Tensor]],
) -> Unseen:
    """Average, turn by turn, the log-probabilities of the members that have not seen it.

    ``left_out`` is each member's own fold, ``saved`` its predictions by mode; the weights of a fold's members sum to 1.
    """
    dialogue = np.repeat(np.arange(len(dialogues)), [len(each.gold) for each in dialogues])
    fold = folds[dialogue]
    averaged: dict[Mode, LogProbabilities] = {}
    for mode in MODES:
        total = np.zeros((len(fold), saved[0][mode].shape[1]))
        for own, weight, tensors in zip(left_out, weights, saved, strict=True):
            total[fold == own] += weight * tensors[mode].numpy()
        averaged[mode] = log_normalise(total)
    gold = np.concatenate([each.gold for each in dialogues])
    return Unseen(averaged, gold, np.concatenate([each.follows for each in dialogues]), dialogue)
