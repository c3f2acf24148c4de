"""From what a recipe or a command line says about its corpus to a checked ``Corpus``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from esckit.conversation import Conversation
from esckit.conversation.turn_rule import MergedLabel, TurnRule, merge_turns
from esckit.corpora.esconv import read_esconv_hub
from esckit.corpora.formats import FORMATS, has_own_id, read_corpus
from esckit.corpora.labels import LabelMap, as_label_map
from esckit.corpora.splits import PARTS, Corpus, split_by
from esckit.corpora.starter import STARTERS, read_starter
from esckit.errors import CorpusError

CORPORA: Final = (*STARTERS, *FORMATS)


def load_corpus(
    name: str,
    *,
    train: str | Path | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    file: str | Path | None = None,
    split: str | None = None,
    split_seed: int = 0,
    labels: str | Path | None = None,
    turn_rule: TurnRule = "decoupled-esc",
    merged_label: MergedLabel = "first",
) -> Corpus:
    """Load a corpus by name: shipped, from a file a part, or from one file and a split.

    Args:
        name: ``starter`` or ``starter-zh`` (shipped), or the format of the files, one of ``FORMATS``.
        train, valid, test: a file a part; beside ``train`` the other two may be left out, and are then empty.
        file: one file that ``split`` divides. ``esconv`` without any file is fetched from the Hugging Face Hub.
        split: as in `splits.split_by`.
        split_seed: of the draw by a ratio. It is not the seed of training: runs that differ in it share their parts.
        labels: the path of a map from the files' labels to a taxonomy's (`labels.read_label_map`).
        turn_rule: ``merged`` joins a speaker's utterances in a row, after the split (`turn_rule.merge_turns`).
        merged_label: whose strategy a joined turn has.

    Raises:
        CorpusError: the arguments do not go together, or a file cannot be used.
    """
    parts = {part: Path(path) for part, path in zip(PARTS, (train, valid, test), strict=True) if path is not None}
    _check_arguments(name, parts, file, split)
    if labels is not None and not parts and file is None:
        raise CorpusError(f"a map of labels is for files, and the corpus {name} is given without any: leave it out.")
    if parts:
        corpus = _from_parts(name, parts, as_label_map(labels))
    elif file is not None and split is not None:
        corpus = _from_file(name, Path(file), split, split_seed, as_label_map(labels))
    else:
        corpus = read_starter(name) if name in STARTERS else read_esconv_hub()
    return corpus if turn_rule == "decoupled-esc" else _merged(corpus, merged_label)


def _merged(corpus: Corpus, label: MergedLabel) -> Corpus:
    parts = {name: [merge_turns(tree, label) for tree in part] for name, part in corpus.parts.items()}
    return Corpus(corpus.name, **parts, licence=corpus.licence, source=f"{corpus.source}, turns merged ({label} label)")


def _check_arguments(name: str, parts: dict[str, Path], file: str | Path | None, split: str | None) -> None:
    if name not in CORPORA:
        raise CorpusError(f"the corpus {name!r} is unknown: use one of {', '.join(CORPORA)}.")
    if name in STARTERS and (parts or file or split):
        raise CorpusError(
            f"the {name} corpus brings its own files and split: leave out train, valid, test, file, split."
        )
    if parts and (file or split):
        raise CorpusError(
            "a corpus is given either as train, valid and test files or as one file with a split: not both."
        )
    if parts and "train" not in parts:
        raise CorpusError(f"a {next(iter(parts))} file is given without a train file: add train.")
    if (file is None) != (split is None):
        given, wanted = ("file", "split (such as 8:1:1)") if split is None else ("split", "file")
        raise CorpusError(f"a corpus with a {given} needs a {wanted} too: add it, or give train, valid and test files.")
    if name not in (*STARTERS, "esconv") and not parts and file is None:
        raise CorpusError(f"the corpus {name} needs files: give train (valid, test), or file and split.")


def _from_parts(name: str, paths: dict[str, Path], labels: LabelMap) -> Corpus:
    parts = {part: read_corpus(paths[part], name, labels=labels) if part in paths else [] for part in PARTS}
    parts = _apart(name, parts)
    everything = [conversation for part in parts.values() for conversation in part]
    return Corpus(name, **parts, licence=_licence(everything), source=", ".join(map(str, paths.values())))


def _apart(name: str, parts: dict[str, list[Conversation]]) -> dict[str, list[Conversation]]:
    """Dialogues that only their places in their files name get the part's name too, where two files share a name."""
    seen = Counter(tree.id for part in parts.values() for tree in part)
    if not any(seen[tree.id] > 1 and not has_own_id(tree, name) for part in parts.values() for tree in part):
        return parts
    return {
        part: [tree if has_own_id(tree, name) else replace(tree, id=f"{part}-{tree.id}") for tree in trees]
        for part, trees in parts.items()
    }


def _from_file(name: str, path: Path, split: str, seed: int, labels: LabelMap) -> Corpus:
    conversations = read_corpus(path, name, labels=labels)
    parts = split_by(conversations, split, seed=seed)
    return Corpus(name, **parts._asdict(), licence=_licence(conversations), source=f"{path} split by {split}")


def _licence(conversations: Sequence[Conversation]) -> str:
    """Every licence that the conversations carry; "unknown" where some carry none."""
    return ", ".join(sorted({str(conversation.provenance.get("licence", "unknown")) for conversation in conversations}))
