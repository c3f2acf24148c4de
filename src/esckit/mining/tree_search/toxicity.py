"""How toxic the texts of a search are by a text classifier that the user names: CSO's table 7.

The paper asked Perspective, which ends after 2026.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from esckit.conversation import Conversation
from esckit.errors import ModelError
from esckit.language_models.backbone import check_reachable, default_device
from esckit.language_models.folders import check_folder
from esckit.language_models.pretrained import read_pretrained
from esckit.measures.encoders import fitting
from esckit.measures.intervals import DRAWS, Draws, Interval, mean_intervals
from esckit.mining.tree_search.statistics import PARTS, turns_by_part
from esckit.progress import progress

__all__ = ["Classifier", "Toxicity", "load_classifier", "toxicity"]

_HEAD: Final = "ForSequenceClassification"
_TOXIC: Final = re.compile(r"(?<!non)(?<!not)(?<!no)(?<!un)toxic")
_JOINED: Final = re.compile(r"[\W_]+")
_BATCH: Final = 32
_LONGEST: Final = 512  # tokens of a text, where the model has positions for them


@dataclass(frozen=True)
class Classifier:
    """A text classifier, its tokenizer, and the places of the labels that count as toxic.

    ``several`` is true where each label has a probability of its own (sigmoid); else they are of one choice (softmax).
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    toxic: tuple[int, ...]
    several: bool

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """How probable it is that each text (N,) is toxic, 0..1, and how many texts were cut at the model's limit.

        Of several toxic labels: the greatest probability where each has its own, their sum where one is chosen.
        """
        longest = fitting(min(_LONGEST, self.tokenizer.model_max_length), self.model.base_model)
        ids = self.tokenizer(list(texts))["input_ids"] if texts else []
        order = sorted(range(len(texts)), key=lambda place: len(ids[place]))  # so that little is padded
        found = np.zeros(len(texts))
        with progress("toxicity", len(texts)) as bar:
            for start in range(0, len(order), _BATCH):
                places = order[start : start + _BATCH]
                found[places] = self._batch([texts[place] for place in places], longest)
                bar.advance(steps=len(places))
        return found, sum(len(tokens) > longest for tokens in ids)

    def _batch(self, texts: list[str], longest: int) -> NDArray[np.float64]:
        inputs = self.tokenizer(texts, truncation=True, max_length=longest, padding=True, return_tensors="pt")
        logits = self.model(**inputs.to(self.model.device)).logits.double()  # (B, labels)
        if self.several:
            chances = logits.sigmoid()[:, list(self.toxic)].amax(1)
        else:
            chances = logits.softmax(1)[:, list(self.toxic)].sum(1)
        return np.asarray(chances.cpu().numpy(), dtype=np.float64)


class Toxicity(NamedTuple):
    """Of one part of the turns: how many there are, the mean probability that one is toxic, its interval."""

    turns: int
    mean: float | None
    interval: Interval | None


def load_classifier(source: str, labels: Collection[str] = ()) -> Classifier:
    """Load a text classifier from a folder or from the Hub.

    Args:
        source: a folder, or a Hub id.
        labels: those that count as toxic; default: all whose name has ``toxic`` in it (but not ``non-toxic``).

    Raises:
        ModelError: it is no text classifier, or has no such label.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if Path(source).is_dir():
        check_folder(Path(source))
    check_reachable(source)
    try:
        config = read_pretrained(AutoConfig, source)
        if not any(_HEAD in name for name in config.architectures or ()):
            kind = ", ".join(config.architectures or ()) or config.model_type
            raise ModelError(f"{source} is no text classifier ({kind}): give a model saved as one (*{_HEAD}).")
        names = tuple(str(config.id2label[place]) for place in range(config.num_labels))
        toxic = _toxic(source, names, labels)
        tokenizer = read_pretrained(AutoTokenizer, source)
        model = read_pretrained(AutoModelForSequenceClassification, source, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, StrictDataclassError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{source} cannot be loaded as a text classifier ({reason}): give a folder with weights, config and "
            "tokenizer, or a Hub id where the Hub can be reached."
        ) from error
    several = config.problem_type == "multi_label_classification" or len(names) == 1
    return Classifier(model.to(default_device()).eval(), tokenizer, names, toxic, several)


def _toxic(source: str, names: Sequence[str], wanted: Collection[str]) -> tuple[int, ...]:
    """The places of the toxic labels among ``names``."""
    told = f"its labels are {', '.join(names)}"
    if missing := [label for label in wanted if label not in names]:
        raise ModelError(f"{source} has no label {missing[0]!r}: {told}.")
    found = [name in wanted if wanted else bool(_TOXIC.search(_JOINED.sub("", name.casefold()))) for name in names]
    if not any(found):
        raise ModelError(f"{source} names no label toxic, {told}: say by --label which one counts as toxic.")
    return tuple(place for place, toxic in enumerate(found) if toxic)


def toxicity(
    trees: Iterable[Conversation], classifier: Classifier, draws: Draws = DRAWS
) -> tuple[dict[str, Toxicity], int]:
    """The mean toxicity of each part of the turns (`statistics.PARTS`), with 95% intervals over dialogues.

    Returns:
        The figures by part, and how many texts were cut at the model's limit.
    """
    said: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}  # dialogue and text
    for tree in trees:
        for part, turns in turns_by_part(tree).items():
            said[part] += [(tree.id, turn.text or "") for turn in turns]
    texts = list(dict.fromkeys(text for rows in said.values() for _, text in rows))
    found, cut = classifier.probabilities(texts)
    chances = dict(zip(texts, found, strict=True))
    figures = {}
    for part, rows in said.items():
        values = np.array([chances[text] for _, text in rows])
        intervals = mean_intervals({part: values}, [dialogue for dialogue, _ in rows], draws) if rows else {part: None}
        figures[part] = Toxicity(len(rows), float(values.mean()) if rows else None, intervals[part])
    return figures, cut
