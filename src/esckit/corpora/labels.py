"""How a strategy that a file writes becomes a label of a taxonomy.

In order: the user's map of labels (``--labels``), the taxonomy's own labels in any spelling (`strategy.fold_label`),
and the format's other names for them. Of a list of labels the first counts. The label as written stays in the turn's
``extra``; where it does not tell by itself what it was read as, that stands beside it under ``LABELS_READ``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation
from esckit.corpora.encodings import text_of
from esckit.errors import CorpusError
from esckit.files import decode_json
from esckit.strategy import TAXONOMIES, Taxonomy, fold_label

LABELS_READ: Final = "labels_read"
"""Key of ``extra``: the list of labels that a written one was read as; the turn's strategy is the first."""

ADVICE: Final = "or give a map of labels (--labels MAP.yaml, in a recipe corpus.labels)"
_SEPARATORS: Final = re.compile(r"[,;|/，；、]|\]\s*\[")
_SHOWN: Final = 20


class UnknownLabelError(CorpusError):
    """A label that neither the map nor the taxonomy knows; reading notes it as a problem."""


class ReadLabel(NamedTuple):
    """What a written label was read as: the strategy (None for none), and all labels where it is more than its own."""

    strategy: str | None
    labels: list[str] | None = None


@dataclass(frozen=True)
class LabelMap:
    """A user's map: labels as written, in the form of `fold_label`, to labels of one taxonomy, or to None for none."""

    labels: Mapping[str, str | None] = field(default_factory=dict)
    path: Path | None = None

    def taxonomy(self, default: Taxonomy) -> Taxonomy:
        """The taxonomy whose labels the map gives: the format's own where it fits, else the first that does.

        Raises:
            CorpusError: no taxonomy has all its labels.
        """
        wanted = {label for label in self.labels.values() if label is not None}
        for taxonomy in (default, *TAXONOMIES.values()):
            if wanted <= set(taxonomy.labels):
                return taxonomy
        for taxonomy in (default, *TAXONOMIES.values()):
            if all(match_label(label, taxonomy) for label in wanted):
                return taxonomy
        unknown = sorted(wanted - set(default.labels))[0]
        raise CorpusError(
            f"{self.path} maps to {unknown!r}, which is no label of {default.name}: map to "
            f"{', '.join(default.labels)}, or to null for no strategy."
        )


NO_MAP: Final = LabelMap()


def read_label_map(path: Path | str) -> LabelMap:
    """Read a map of labels, a YAML or JSON object of ``label as written: label of a taxonomy``.

    Raises:
        CorpusError: it cannot be read, or has another form.
    """
    path = Path(path)
    text = text_of(path, "a map of labels (YAML or JSON)")
    form = 'write one "label in the file": "label of the taxonomy" a line.'
    try:
        body = decode_json(text) if text.lstrip().startswith("{") else _yaml(text)
    except ValueError as error:
        raise CorpusError(f"{path} is neither YAML nor JSON ({error}): {form}") from error
    if not isinstance(body, dict) or not body:
        raise CorpusError(f"{path} holds no map of labels: {form}")
    for written, label in body.items():
        if isinstance(written, list | dict | bool) or not isinstance(label, str | None):
            raise CorpusError(f"{path} maps {written!r} to {label!r}: {form}")
    labels: dict[str, str | None] = {}
    for written, label in body.items():
        if labels.setdefault(fold_label(str(written)), label) != label:
            raise CorpusError(f"{path} maps {written!r} twice, to {labels[fold_label(str(written))]!r} and {label!r}.")
    return LabelMap(labels, path)


def as_label_map(labels: Path | str | LabelMap | None) -> LabelMap:
    """A map of labels, read where its path is given; None is a map of nothing."""
    if isinstance(labels, LabelMap):
        return labels
    return NO_MAP if labels is None else read_label_map(labels)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def match_label(written: str, taxonomy: Taxonomy, aliases: Mapping[str, str] | None = None) -> str | None:
    """The label that a text spells: of the taxonomy, by an alias, in Chinese; None where it spells none."""
    if written in taxonomy.labels:
        return written
    wanted = fold_label(written)
    named = next((label for label in taxonomy.labels if fold_label(label) == wanted), None)
    others = ((alias, label) for alias, label in (aliases or {}).items() if label in taxonomy.labels)
    aliased = next((label for alias, label in others if fold_label(alias) == wanted), None)
    return named or aliased or taxonomy.match(wanted)


def read_label(
    written: Any, taxonomy: Taxonomy, mapped: LabelMap = NO_MAP, aliases: Mapping[str, str] | None = None
) -> ReadLabel:
    """Read a label as written: a text, a number or a list of them; an empty one is none.

    Raises:
        UnknownLabelError: it is none of the taxonomy's, by no map and no alias.
    """
    given = written if isinstance(written, list | tuple) else [written]
    given = [one for one in given if one is not None and (not isinstance(one, str) or one.strip())]
    found, by_map = [], False
    for one in given if isinstance(written, list | tuple) else _parts(given, taxonomy, mapped, aliases):
        if not isinstance(one, str | int) or isinstance(one, bool):
            raise UnknownLabelError(repr(written))
        folded = fold_label(str(one))
        by_map |= folded in mapped.labels
        label = mapped.labels[folded] if folded in mapped.labels else str(one)
        if label is not None:
            if (named := match_label(label, taxonomy, aliases)) is None:
                raise UnknownLabelError(repr(one))
            found.append(named)
    return ReadLabel(found[0] if found else None, found if by_map or len(found) > 1 else None)


def _parts(given: list[Any], taxonomy: Taxonomy, mapped: LabelMap, aliases: Mapping[str, str] | None) -> list[Any]:
    """The labels that one text lists, where it is no label itself and each of its parts is one."""
    text = given[0] if given else None
    if not isinstance(text, str) or fold_label(text) in mapped.labels or match_label(text, taxonomy, aliases):
        return given
    parts = [part for part in _SEPARATORS.split(text) if part.strip()]
    known = all(fold_label(part) in mapped.labels or match_label(part, taxonomy, aliases) for part in parts)
    return parts if known and parts else given


def several_labels(conversations: Iterable[Conversation]) -> int:
    """How many turns had more than one label as written, of which the first counts."""
    return sum(len(turn.extra.get(LABELS_READ) or ()) > 1 for tree in conversations for turn in tree.turns)


def told_unknown(counts: Mapping[str, int]) -> str:
    """Unknown labels and how often each is written, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ranked) - _SHOWN} more" if len(ranked) > _SHOWN else ""
    return ", ".join(f"{label} ({count})" for label, count in ranked[:_SHOWN]) + more
