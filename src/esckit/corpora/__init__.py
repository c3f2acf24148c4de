"""Reading dialogue corpora into conversation trees, dividing, counting and checking them. docs/corpora.md tells how."""

from esckit.corpora.corpus_statistics import corpus_statistics
from esckit.corpora.formats import FORMATS, read_corpus, write_corpus
from esckit.corpora.loading import load_corpus
from esckit.corpora.splits import Corpus

__all__ = ["FORMATS", "Corpus", "corpus_statistics", "load_corpus", "read_corpus", "write_corpus"]
