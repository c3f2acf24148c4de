"""Measures that need an encoder: BERTScore, and the relevance of a response to what the seeker said.

bert-score and sentence-transformers (``esckit[encoder]``) are imported when asked for. Every figure carries the
encoder's name and, for a folder, the hash of its weights.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from esckit.errors import EsckitError
from esckit.files import hash_file
from esckit.hub import ask_nothing, is_hub_id, unreachable
from esckit.measures.intervals import FloatArray

EMBEDDED_HASH: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the weights file of all-MiniLM-L6-v2, the encoder that needs no download; it knows English alone."""

_LOADING = (OSError, ValueError, KeyError, RuntimeError)  # what the two libraries raise where they find no model


def describe_encoder(encoder: str) -> dict[str, str | None]:
    """Return ``encoder`` (a folder's name without its path, or the hub id) and ``encoder_hash``.

    The hash is SHA-256 of a folder's weights file, or of the hashes of several; None for a hub id.
    """
    folder = Path(encoder)
    if not folder.is_dir():
        return {"encoder": encoder, "encoder_hash": None}
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    hashes = [hash_file(path) for path in weights]
    together = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return {"encoder": folder.resolve().name, "encoder_hash": together}


def fitting(tokens: int, model: Any) -> int:
    """At most so many tokens of a text, and no more than an encoder has positions for.

    Tokenizers of multilingual encoders often know no limit, and RoBERTa's kin number positions from their padding on.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or tokens
    padding = getattr(getattr(model, "embeddings", None), "padding_idx", None)
    return min(tokens, positions if padding is None else positions - padding - 1)


def bertscore_figures(
    gold: Sequence[str], predicted: Sequence[str], encoder: str
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Return BERTScore's figures, 0..1 for most encoders, without idf and rescaling, and its F1 of each response.

    A response or reference without text has 0. Source: Zhang et al. 2020. The last layer of a folder's model is used,
    bert-score's recommended layer for an id that it knows.

    Raises:
        EsckitError: bert-score is not installed, or the encoder cannot be loaded.
    """
    with _needs("bertscore", "bert-score", encoder):
        from bert_score import BERTScorer

        scorer = BERTScorer(model_type=encoder, num_layers=_layers(encoder))
    scorer._tokenizer.model_max_length = fitting(scorer._tokenizer.model_max_length, scorer._model)
    scores = np.zeros((3, len(gold)))  # precision, recall, F1
    texts = [i for i, pair in enumerate(zip(gold, predicted, strict=True)) if all(text.strip() for text in pair)]
    if texts:  # bert-score cannot score an empty text under transformers 5
        found = scorer.score([predicted[i] for i in texts], [gold[i] for i in texts])
        scores[:, texts] = np.stack([part.numpy() for part in found])
    names = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
    figures: dict[str, Any] = {
        f"{name}_utterance": float(each.mean()) for name, each in zip(names, scores, strict=True)
    }
    described = describe_encoder(encoder)
    signature = scorer.hash.replace(encoder, str(described["encoder"]))
    return figures | {"bertscore_signature": signature} | described, {"bertscore_f1": scores[2]}


def relevance_figures(
    seeker_turns: Sequence[Sequence[str] | None], predicted: Sequence[str], encoder: str
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Return the relevance of responses to what the seeker had said, -1..1, and that of each response.

    The relevance of a response is the mean cosine of its sentence embedding with those of the seeker's turns before
    it; that of a response without text is 0. Source: self-evolution, section 5.2, figure 5.

    Args:
        seeker_turns: for each of N responses the seeker's turns before it; a response without any is left out, NaN.
        predicted: N responses.
        encoder: a folder or hub id that sentence-transformers loads.

    Raises:
        EsckitError: no response has seeker turns, sentence-transformers is not installed, or the encoder cannot be
            loaded.
    """
    turns = [[text for text in row or () if text.strip()] for row in seeker_turns]
    if not any(turns):
        raise EsckitError(
            "relevance needs what the seeker said: add seeker_turns to the rows, or --conversations FILE."
        )
    texts = sorted({text for row in turns for text in row} | {text for text in predicted if text.strip()})
    with _needs("relevance", "sentence-transformers", encoder):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(encoder)
    if model.max_seq_length is not None and hasattr(model[0], "auto_model"):
        model.max_seq_length = fitting(model.max_seq_length, model[0].auto_model)
    embedded = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    unit = dict(zip(texts, np.asarray(embedded, dtype=np.float64), strict=True))
    each = np.array([relevance_of(unit, row, response) for row, response in zip(turns, predicted, strict=True)])
    known = ~np.isnan(each)
    figures = {"relevance_utterance": float(each[known].mean()), "relevance_n": int(known.sum())}
    return figures | describe_encoder(encoder), {"relevance": each}


def relevance_of(unit: Mapping[str, FloatArray], turns: Sequence[str], response: str) -> float:
    """Return the mean cosine of a response with each of the seeker's turns; see `relevance_figures`.

    Args:
        unit: text to its vector of length 1; of each turn, and of the response, which has relevance 0 where it is not
            there.
        turns: what the seeker said; without any the relevance is NaN.
        response: the reply.
    """
    if not turns:
        return float("nan")
    if response not in unit:
        return 0.0
    return float(np.mean([unit[turn] @ unit[response] for turn in turns]))


def _layers(encoder: str) -> int | None:
    """The last layer of a folder's model; None, and so bert-score's own choice, for a hub id."""
    config = Path(encoder) / "config.json"
    return int(json.loads(config.read_text(encoding="utf-8"))["num_hidden_layers"]) if config.exists() else None


@contextmanager
def _needs(metric: str, package: str, encoder: str) -> Iterator[None]:
    try:
        ask_nothing()
        if is_hub_id(encoder) and (reason := unreachable(encoder)):
            raise OSError(reason)
        yield
    except ImportError as error:
        raise EsckitError(f"{metric} needs the package {package}: pip install 'esckit[encoder]'.") from error
    except _LOADING as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise EsckitError(
            f"{metric} cannot load the encoder {encoder!r} ({reason}): give a model's folder or its id on the Hub."
        ) from error
