"""Which tolerance `roles.telling` should have, by the bank alone: the beginning of an experience has to find its end.

An experience's first half is a person's words; of the role's experiences, told by their second halves, its own is to be
found. Emotion scores of the first half are by a scorer that has seen neither half. Halves of one story share words, so
words look better here than they are for a stranger; what is chosen is therefore the least tolerance within one standard
error of the best, so that emotions decide as far as that costs nothing. The held-out pairs take no part.

    python benchmarks/experience_tolerance.py [BANK]
"""

import re
import sys
from collections.abc import Sequence

import numpy as np

from esckit.planning.emotion_scorer import Array, correlations, feeling_words, fit_scorer
from esckit.planning.encoder import load_encoder
from esckit.planning.matcher_fitting import text_reader
from esckit.planning.text_features import TextReader, likeness
from esckit.roles import RoleBank, read_bank
from esckit.roles.telling import choose_experience

TOLERANCES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 2.0)
FOLDS = 5
END = re.compile(r"(?<=[.!?。！？])\s*")


def halves(text: str) -> tuple[str, str]:
    """The sentences of a text in two parts."""
    sentences = [each for each in END.split(text) if each]
    middle = max(1, (len(sentences) + 1) // 2)
    return " ".join(sentences[:middle]), " ".join(sentences[middle:]) or sentences[-1]


def felt(reader: TextReader, whole: Sequence[str], first: Sequence[str], scores: Array, language: str) -> Array:
    """Scores (N, 8) of first halves, by scorers that have not seen their experiences."""
    fold = np.random.default_rng(0).permutation(np.arange(len(whole)) % FOLDS)
    found = np.zeros_like(scores)
    for held in range(FOLDS):
        seen, here = np.flatnonzero(fold != held).tolist(), np.flatnonzero(fold == held).tolist()
        scorer, _ = fit_scorer(reader, [whole[each] for each in seen], scores[seen], language, seed=0)
        texts = [first[each] for each in here]
        found[here] = scorer.score(reader.rows(texts), feeling_words(texts, language))
    return found


def hits(bank: RoleBank, feelings: Array, alike: Array, tolerance: float) -> Array:
    """Whether each experience finds its own end, (N,)."""
    found, start = [], 0
    for role in bank.roles:
        own = slice(start, start + len(role.experiences))
        for place, each in enumerate(role.experiences):
            chosen = choose_experience(role, feelings[start + place], alike[start + place, own], (), tolerance)
            found.append(chosen is not None and chosen.id == each.id)
        start = own.stop
    return np.array(found, dtype=np.float64)


def main() -> None:
    bank = read_bank(sys.argv[1] if len(sys.argv) > 1 else "shipped")
    told = [each for role in bank.roles for each in role.experiences]
    scores = np.array([each.scores for each in told], dtype=np.float64)
    found: dict[float, list[Array]] = {tolerance: [] for tolerance in TOLERANCES}
    encoder = load_encoder()
    for language in bank.languages:
        whole = [each.text(language) for each in told]
        first, second = zip(*map(halves, whole), strict=True)
        reader, _ = text_reader(bank, encoder, language)
        feelings = felt(reader, whole, first, scores, language)
        alike = likeness(reader.rows(first), reader.rows(second))
        print(f"{language}: correlation of first halves with the scores {correlations(feelings, scores)['mean']:.3f}")
        for tolerance in TOLERANCES:
            found[tolerance].append(hits(bank, feelings, alike, tolerance))
            print(f"  {tolerance:4}: {100 * found[tolerance][-1].mean():5.1f}%")
    both = {tolerance: np.mean(each, axis=0) for tolerance, each in found.items()}
    best = max(both, key=lambda tolerance: float(both[tolerance].mean()))
    least = both[best].mean() - both[best].std() / len(both[best]) ** 0.5
    print(f"best {best}, chosen {min(each for each, own in both.items() if own.mean() >= least)}")


if __name__ == "__main__":
    main()
