"""Training an encoder planner: networks by cross-validation, their average, and a calibration from what none has seen.

The training dialogues are divided into folds. Each network leaves one fold out; what it predicts there is a prediction
for dialogues that it has not seen. On all of these predictions together the calibration is fitted, once for a history
that shows past strategies and once for one that hides them, so it costs no data and sees no file that is evaluated.
The planner is the average of all networks.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esckit.conversation import Conversation, conversation_to_json
from esckit.errors import CorpusError, ModelError
from esckit.measures.preference_bias import noise_floor, preference_bias
from esckit.measures.strategy import score
from esckit.models.encoder import Encoder
from esckit.models.planner_folder import (
    Mode,
    PlannerCard,
    Sizes,
    load_tensors,
    read_planner_folder,
    save_tensors,
    write_planner_folder,
)
from esckit.models.strategy_calibration import Calibration, fit_calibration, log_normalise
from esckit.models.turn_batches import Embed, ReadTurns, plain_text, read_turns
from esckit.progress import progress
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import Taxonomy
from esckit.training.options import PlannerOptions
from esckit.training.strategy_networks import predict_turns, train_network

__all__ = ["train_planner"]

_BLOCK: Final = 2048  # texts embedded between two savings
_PREFIX: Final = "network."
_MODES: Final[tuple[Mode, ...]] = ("shown", "hidden")

Scores = NDArray[np.float64]


class Unseen(NamedTuple):
    """Predictions for N turns by networks that have not seen their dialogues."""

    scores: dict[Mode, Scores]  # (N, K) log-probabilities
    gold: NDArray[np.intp]  # (N,)
    follows: NDArray[np.bool_]  # (N,) a supporter turn stands before: only there past strategies can be hidden
    fold: NDArray[np.intp]  # (N,)


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
        taxonomy: the labels.
        options: how.
        folder: receives ``planner.json`` and ``weights.safetensors``, and while training what is done so far.
        seed: of the folds and the networks.
        title: for the progress bar.

    Returns:
        JSON-ready facts: ``dialogues``, ``turns``, ``networks``, ``frequencies`` (label to share, 0..1) and
        ``out_of_fold``: by mode (``shown``, ``hidden``) and treatment (``plain``, ``calibrated``, the latter fitted to
        the other folds) n, q, q_w, accuracy (0..1), b, b_floor and nll (nats).

    Raises:
        CorpusError: there are fewer dialogues than folds, or a label is outside the taxonomy.
        ModelError: the model needs an encoder and none is given.
    """
    wanted = [conversation for conversation in conversations if supporter_turns(conversation)]
    if len(wanted) < options.folds:
        raise CorpusError(
            f"{len(wanted)} dialogues have supporter turns with a strategy, fewer than the planner's {options.folds} "
            "folds: give a larger corpus, or set folds lower."
        )
    if options.model == "encoder" and encoder is None:
        raise ModelError("an encoder planner needs an encoder: give one, or train the linear planner.")
    encoder = encoder if options.model == "encoder" else None
    key = _key(wanted, encoder, taxonomy, options, seed)
    if (folder / "planner.json").exists():
        card, _ = read_planner_folder(folder)
        if card.key == key:
            return card.facts
    facts = {**_counts(wanted, taxonomy), "options": options.model_dump()}
    if options.model in ("majority", "chance"):
        return _write_trivial(facts, taxonomy, options, folder, seed, key)
    work = folder / f".training-{key[:12]}"
    sizes = Sizes(encoder.width, options.width, options.head, options.dropout) if encoder else None
    dialogues = _read(wanted, encoder, taxonomy, work, title)
    folds = np.random.default_rng(seed).permutation(np.arange(len(wanted)) % options.folds)
    networks, unseen = _train_all(dialogues, folds, taxonomy, sizes, options, work, seed, title)
    match = options.calibration == "match"
    calibration = fit_modes(unseen) if match else dict.fromkeys(_MODES, Calibration.none(len(taxonomy.labels)))
    facts |= {"networks": options.folds * options.seeds, "out_of_fold": _figures(unseen, cross_fitted=match)}
    source, weights = (encoder.source, encoder.weights_hash) if encoder else (None, None)
    card = PlannerCard(options.model, taxonomy.name, seed, source, weights, sizes, calibration, key, facts)
    write_planner_folder(folder, card, networks)
    shutil.rmtree(work)
    return facts


def fit_modes(unseen: Unseen) -> dict[Mode, Calibration]:
    """Fit a calibration for each mode.

    A turn that opens the supporter's part is the same in both modes. Its calibration is that of ``shown``; ``hidden``
    makes up, on all other turns, for what is said too often there.
    """
    k = unseen.scores["shown"].shape[1]
    shown = fit_calibration(unseen.scores["shown"], unseen.gold)
    opening = shown.apply(unseen.scores["shown"][~unseen.follows]).argmax(1)
    wanted = np.bincount(unseen.gold, minlength=k) - np.bincount(opening, minlength=k)
    later = unseen.follows
    hidden = fit_calibration(unseen.scores["hidden"][later], unseen.gold[later], np.maximum(wanted, 0.0))
    return {"shown": shown, "hidden": hidden}


def _apply_modes(calibration: Mapping[Mode, Calibration], scores: Scores, hidden: NDArray[np.bool_]) -> Scores:
    """Calibrate (N, K) log-probabilities, each turn by its own mode."""
    return np.where(hidden[:, None], calibration["hidden"].apply(scores), calibration["shown"].apply(scores))


def _key(
    conversations: Sequence[Conversation],
    encoder: Encoder | None,
    taxonomy: Taxonomy,
    options: PlannerOptions,
    seed: int,
) -> str:
    """SHA-256 of all that a planner depends on."""
    parts = [
        [conversation_to_json(conversation) for conversation in conversations],
        encoder.weights_hash if encoder else None,
        taxonomy.name,
        options.model_dump(),
        seed,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
    return {"dialogues": len(conversations), "turns": len(strategies), "networks": 0, "frequencies": shares}


def _write_trivial(
    facts: dict[str, Any], taxonomy: Taxonomy, options: PlannerOptions, folder: Path, seed: int, key: str
) -> dict[str, Any]:
    """Write a planner that reads nothing but how often each strategy occurs (half a turn is added to each count)."""
    k, turns = len(taxonomy.labels), facts["turns"]
    shares = [(facts["frequencies"][label] * turns + 0.5) / (turns + 0.5 * k) for label in taxonomy.labels]
    calibration = dict.fromkeys(_MODES, Calibration.none(k))
    card = PlannerCard(options.model, taxonomy.name, seed, None, None, None, calibration, key, facts)
    write_planner_folder(folder, card, {"log_frequencies": torch.tensor(shares, dtype=torch.float64).log()})
    return facts


def _read(
    conversations: Sequence[Conversation], encoder: Encoder | None, taxonomy: Taxonomy, work: Path, title: str
) -> list[ReadTurns]:
    """Read every dialogue once, its gold strategies shown; batches hide them again."""
    texts = list(dict.fromkeys(plain_text(turn) for conversation in conversations for turn in conversation.trunk))
    embed = _embedded(texts, encoder, work, f"{title}: texts")
    return [
        read_turns(
            conversation,
            supporter_turns(conversation),
            past_strategies(conversation, "gold"),
            taxonomy,
            embed,
            themselves=True,
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


def _train_all(
    dialogues: Sequence[ReadTurns],
    folds: NDArray[np.intp],
    taxonomy: Taxonomy,
    sizes: Sizes | None,
    options: PlannerOptions,
    work: Path,
    seed: int,
    title: str,
) -> tuple[dict[str, Tensor], Unseen]:
    """Train what is not trained yet; return all weights and the predictions for unseen dialogues."""
    jobs = [(fold, member) for fold in range(options.folds) for member in range(options.seeds)]
    paths = [work / f"network-{fold}-{member}.safetensors" for fold, member in jobs]
    with progress(title, len(jobs), sum(path.exists() for path in paths)) as bar:
        for (fold, member), path in zip(jobs, paths, strict=True):
            if not path.exists():
                seen = [each for each, own in zip(dialogues, folds, strict=True) if own != fold]
                unseen = [each for each, own in zip(dialogues, folds, strict=True) if own == fold]
                network = train_network(seen, taxonomy, sizes, options, _network_seed(seed, fold, member))
                k = len(taxonomy.labels)
                made = {mode: predict_turns(network, unseen, k, hidden=mode == "hidden") for mode in _MODES}
                state = {_PREFIX + name: tensor for name, tensor in network.state_dict().items()}
                save_tensors(path, {**state, **{mode: torch.from_numpy(scores) for mode, scores in made.items()}})
                bar.advance()
    saved = [load_tensors(path) for path in paths]
    weights = {
        f"{number}.{name.removeprefix(_PREFIX)}": tensor
        for number, tensors in enumerate(saved)
        for name, tensor in tensors.items()
        if name.startswith(_PREFIX)
    }
    return weights, _gather(dialogues, folds, jobs, saved)


def _network_seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _gather(
    dialogues: Sequence[ReadTurns],
    folds: NDArray[np.intp],
    jobs: Sequence[tuple[int, int]],
    saved: Sequence[Mapping[str, Tensor]],
) -> Unseen:
    """Average, turn by turn, the log-probabilities of the networks that have not seen it."""
    fold = np.repeat(folds, [len(each.gold) for each in dialogues])
    scores: dict[Mode, Scores] = {}
    for mode in _MODES:
        total = np.zeros((len(fold), saved[0][mode].shape[1]))
        for (own, _), tensors in zip(jobs, saved, strict=True):
            total[fold == own] += tensors[mode].numpy()
        scores[mode] = log_normalise(total / (len(jobs) / (folds.max() + 1)))
    gold = np.concatenate([each.gold for each in dialogues])
    return Unseen(scores, gold, np.concatenate([each.follows for each in dialogues]), fold)


def _figures(unseen: Unseen, *, cross_fitted: bool) -> dict[str, Any]:
    """Figures of the predictions for unseen dialogues, by mode, plain and (each fold by the others' fit) calibrated."""
    found: dict[str, Any] = {}
    for mode in _MODES:
        scores, hidden = unseen.scores[mode], unseen.follows & (mode == "hidden")
        found[mode] = {"plain": _measure(scores, unseen.gold)}
        if cross_fitted:
            calibrated = np.empty_like(scores)
            for fold in np.unique(unseen.fold):
                here = unseen.fold == fold
                calibration = fit_modes(_part(unseen, ~here))
                calibrated[here] = _apply_modes(calibration, scores[here], hidden[here])
            found[mode]["calibrated"] = _measure(calibrated, unseen.gold)
    return found


def _part(unseen: Unseen, here: NDArray[np.bool_]) -> Unseen:
    scores = {mode: each[here] for mode, each in unseen.scores.items()}
    return Unseen(scores, unseen.gold[here], unseen.follows[here], unseen.fold[here])


def _measure(scores: Scores, gold: NDArray[np.intp]) -> dict[str, float]:
    k = scores.shape[1]
    counts = np.zeros((k + 1, k), dtype=np.int64)
    np.add.at(counts, (scores.argmax(1), gold), 1)
    figures = score(counts)
    return {
        "n": len(gold),
        "q": float(figures.q),
        "q_w": float(figures.q_w),
        "accuracy": float(figures.accuracy),
        "b": float(preference_bias(counts).b),
        "b_floor": noise_floor(counts, simulations=200),
        "nll": -float(scores[np.arange(len(gold)), gold].mean()),
    }
