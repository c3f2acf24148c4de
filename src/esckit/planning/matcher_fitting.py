"""Training a role matcher: heads and emotion scorers by language, chosen and measured by cross-validation.

A head learns from the training dialogues' questions and from the bank's own texts, cards and experiences, which weigh
less. So a matcher knows every role in every language of its bank, whatever the corpus holds. Strengths, temperature and
threshold are chosen on folds of dialogues that a head has not seen; what is reported is of a fold that took no part in
either.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from esckit.errors import ModelError
from esckit.planning.calibration import fit_temperature, log_normalise
from esckit.planning.emotion_scorer import fit_scorer
from esckit.planning.encoder import Encoder
from esckit.planning.matcher_options import MatcherOptions
from esckit.planning.questions import Question, question_text
from esckit.planning.role_figures import Guess, role_figures
from esckit.planning.role_matcher import LanguagePart, MatcherCard, RoleHead, RoleMatcher
from esckit.planning.text_features import GramReader, TextReader, VectorReader, likeness, reads_vectors
from esckit.roles.bank import Role, RoleBank

_STRENGTHS: Final = (1.0, 10.0, 100.0)  # inverse, of the head's penalty
_SHARES: Final = (0.1, 0.3, 1.0)  # what a text of the bank weighs beside a question
_THRESHOLDS: Final = tuple(np.round(np.arange(0, 0.95, 0.05), 2).tolist())
_FLOOR: Final = -30.0  # log-odds of a role that nothing speaks for
_VERSION: Final = 1


def role_card(role: Role, language: str) -> str:
    """A role in words: who it is, its story, and its topics in the language's script."""
    topics = [topic for topic in role.topics if topic.isascii() == (language == "en")]
    return "\n".join([role.profile[language], role.background[language], ", ".join(topics)])


@dataclass(frozen=True)
class _Lesson:
    """What a head of one language learns from: N questions with groups, M texts of the bank; K roles."""

    rows: Any  # (N, F)
    gold: NDArray[np.int64]  # (N,)
    groups: NDArray[np.int64]  # (N,)
    bank_rows: Any  # (M, F)
    bank_gold: NDArray[np.int64]  # (M,)

    def only(self, places: NDArray[np.int64]) -> "_Lesson":
        return _Lesson(self.rows[places], self.gold[places], self.groups[places], self.bank_rows, self.bank_gold)


def train_matcher(
    questions: Sequence[Question],
    bank: RoleBank,
    encoder: Encoder | None,
    folder: Path,
    *,
    options: MatcherOptions | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Make a role matcher's folder; one that is there of the same is left as it is.

    Args:
        questions: the training part's, each with a gold role (`questions_with_gold`).
        bank: the roles; every language of the bank gets a head and an emotion scorer.
        encoder: reads the languages that it knows; n-grams read the others, or all without it.
        folder: receives ``matcher.json``, ``weights.safetensors`` and ``bank/``.
        seed: of the folds.

    Returns:
        JSON-ready facts: ``questions``, ``gold`` (by source), and by language: ``reads``, ``questions``, ``strength``,
        ``share``, ``temperature``, ``threshold``, ``emotions`` (`fit_scorer`) and, from one question a fold on,
        ``unseen`` (`role_figures`: of dialogues that took no part).

    Raises:
        RoleError: a question is in a language that a role lacks.
        CorpusError: a question has no text.
    """
    options = options or MatcherOptions()
    for question in questions:
        bank.refuse_language(question.language)
    if not bank.languages:
        bank.refuse_language("en")
    key = _key(questions, bank, encoder, options, seed)
    with suppress(ModelError):
        if (done := RoleMatcher.load(folder, encoder).card).key == key:
            return dict(done.facts)
    parts, facts = {}, {}
    for language in bank.languages:
        own = [question for question in questions if question.language == language]
        parts[language], facts[language] = _train_language(own, bank, encoder, language, options, seed)
    counts = Counter(question.role for question in questions)
    card = MatcherCard(
        bank=bank.digest,
        encoder=encoder.source if encoder else None,
        encoder_hash=encoder.weights_hash if encoder else None,
        keywords=options.keywords,
        majority=max(bank.names, key=lambda name: counts[name]) if counts else None,
        topics=topic_roles(questions),
        key=key,
        facts={
            "questions": len(questions),
            "roles": {name: counts[name] for name in bank.names},
            "gold": dict(Counter(str(question.by) for question in questions)),
            "options": options.model_dump(),
            "languages": facts,
        },
    )
    RoleMatcher(bank, card, parts, encoder).save(folder)
    return dict(card.facts)


def topic_roles(questions: Sequence[Question]) -> dict[str, str]:
    """By topic, its most frequent gold role: what a matcher would say that knows the topic alone."""
    counts: dict[str, Counter[str]] = {}
    for question in questions:
        if question.topic and question.role:
            counts.setdefault(question.topic.casefold(), Counter())[question.role] += 1
    return {topic: own.most_common(1)[0][0] for topic, own in counts.items()}


def baseline_guesses(
    question: Question, bank: RoleBank, majority: str | None, topics: Mapping[str, str]
) -> dict[str, Guess]:
    """What the two baselines that read no text say: the majority, and the topic's role; of a new topic, the bank's."""
    of_bank = next(filter(None, map(bank.of_topic, question.topics)), None)
    by_topic = topics.get((question.topic or "").casefold()) or (of_bank.name if of_bank else majority)
    return {"majority": majority, "topic alone": by_topic}


def _train_language(
    questions: Sequence[Question],
    bank: RoleBank,
    encoder: Encoder | None,
    language: str,
    options: MatcherOptions,
    seed: int,
) -> tuple[LanguagePart, dict[str, Any]]:
    reader, rarity = _reader(bank, encoder, language)
    told = [each.text(language) for role in bank.roles for each in role.experiences]
    owners = [place for place, role in enumerate(bank.roles) for _ in role.experiences]
    cards = reader.rows([role_card(role, language) for role in bank.roles])
    experiences = reader.rows(told)
    texts = [question_text(each.situation, each.said, each.keywords if options.keywords else ()) for each in questions]
    lesson = _Lesson(
        rows=reader.rows(texts),
        gold=np.array([bank.names.index(str(each.role)) for each in questions], dtype=np.int64),
        groups=_groups([each.source for each in questions]),
        bank_rows=_stack(cards, experiences),
        bank_gold=np.array([*range(len(bank.roles)), *owners], dtype=np.int64),
    )
    head, facts = _fit_head(lesson, len(bank.roles), options, seed)
    scores = np.array([each.scores for role in bank.roles for each in role.experiences], dtype=np.float64)
    scorer, emotions = fit_scorer(reader, told, scores, language, seed=seed)
    reads = "characters" if rarity is not None else "encoder"
    facts = {"reads": reads, "questions": len(questions), **facts, "emotions": emotions}
    if len(set(lesson.groups.tolist())) >= 2 * options.folds:
        facts["unseen"] = _unseen_figures(questions, bank, lesson, likeness(lesson.rows, cards), options, seed)
    return LanguagePart(head, scorer, rarity), facts


def _reader(bank: RoleBank, encoder: Encoder | None, language: str) -> tuple[TextReader, NDArray[np.float64] | None]:
    if encoder and reads_vectors(encoder, language):
        return VectorReader(encoder), None
    if encoder:
        print(
            f"esckit: the embedded encoder knows English alone: the role matcher reads {language!r} by characters; "
            "name a multilingual encoder to read it by vectors (docs/matching.md).",
            file=sys.stderr,
        )
    texts = [role_card(role, language) for role in bank.roles]
    grams = GramReader.learn([*texts, *(each.text(language) for role in bank.roles for each in role.experiences)])
    return grams, grams.rarity


def _fit_head(lesson: _Lesson, k: int, options: MatcherOptions, seed: int) -> tuple[RoleHead, dict[str, Any]]:
    """Choose by cross-validation over the lesson's groups; without enough questions, over the bank's texts."""
    few = len(set(lesson.groups.tolist())) < 2 * options.folds
    judged = lesson
    if few:
        places = np.arange(len(lesson.bank_gold))
        judged = _Lesson(lesson.bank_rows, lesson.bank_gold, places, lesson.bank_rows[:0], lesson.bank_gold[:0])
    fold = _folds(judged.groups, options.folds, seed)
    found = {}
    for share in _SHARES[-1:] if few else _SHARES:
        for strength in _STRENGTHS:
            unseen = _unseen(judged, fold, strength, share, k)
            loss = -float(log_normalise(unseen)[np.arange(len(judged.gold)), judged.gold].mean())
            found[strength, share] = (loss, unseen)
    strength, share = min(found, key=lambda choice: found[choice][0])
    plain = log_normalise(found[strength, share][1])
    temperature = fit_temperature(plain, judged.gold)
    threshold = options.threshold
    if threshold is None:
        threshold = choose_threshold(np.exp(log_normalise(plain / temperature)), judged.gold)
    weights, bias = _logistic(lesson, strength, share, k)
    facts = {
        "chosen_by": "the bank's texts" if few else "dialogues",
        "strength": strength,
        "share": share,
        "temperature": round(temperature, 4),
        "threshold": threshold,
    }
    return RoleHead(weights, bias, temperature, threshold), facts


def choose_threshold(probabilities: NDArray[np.float64], gold: NDArray[np.int64]) -> float:
    """The least threshold with the most right answers less wrong ones, of predictions (N, K) for unseen questions."""
    likeliest, right = probabilities.max(1), probabilities.argmax(1) == gold
    worth = [int(np.where(likeliest >= least, np.where(right, 1, -1), 0).sum()) for least in _THRESHOLDS]
    return float(_THRESHOLDS[int(np.argmax(worth))])


def _logistic(
    lesson: _Lesson, strength: float, share: float, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (K, F) and bias (K,) of a multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    rows, gold = _stack(lesson.rows, lesson.bank_rows), np.concatenate([lesson.gold, lesson.bank_gold])
    counts = np.concatenate([np.ones(len(lesson.gold)), np.full(len(lesson.bank_gold), share)])
    weights, bias = np.zeros((k, rows.shape[1])), np.full(k, _FLOOR)
    classes = np.unique(gold)
    bias[classes] = 0.0
    if len(classes) > 1:
        model = LogisticRegression(C=strength, max_iter=1000).fit(rows, gold, sample_weight=counts)
        if len(classes) == 2:  # one row of differences
            weights[classes[1]], bias[classes[1]] = model.coef_[0], model.intercept_[0]
        else:
            weights[classes], bias[classes] = model.coef_, model.intercept_
    return weights, bias


def _unseen(lesson: _Lesson, fold: NDArray[np.int64], strength: float, share: float, k: int) -> NDArray[np.float64]:
    """Logits (N, K) of each fold by a head that the others made."""
    found = np.zeros((len(lesson.gold), k))
    for held in np.unique(fold):
        weights, bias = _logistic(lesson.only(np.flatnonzero(fold != held)), strength, share, k)
        here = np.flatnonzero(fold == held)
        found[here] = np.asarray(lesson.rows[here] @ weights.T) + bias
    return found


def _unseen_figures(
    questions: Sequence[Question],
    bank: RoleBank,
    lesson: _Lesson,
    cards: NDArray[np.float64],
    options: MatcherOptions,
    seed: int,
) -> dict[str, Any]:
    """Figures of each fold by a matcher that is chosen and fitted on the others, beside baselines that know as much."""
    fold = _folds(lesson.groups, options.folds, seed + 1)
    guesses: list[dict[str, Guess]] = [{} for _ in questions]
    for held in np.unique(fold):
        seen, here = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        head, _ = _fit_head(lesson.only(seen), len(bank.roles), options, seed)
        found = np.exp(head.log_probabilities(lesson.rows[here]))
        others = [questions[place] for place in seen.tolist()]
        counts, topics = Counter(each.role for each in others), topic_roles(others)
        majority = max(bank.names, key=lambda name: counts[name])
        for place, each in zip(here.tolist(), found, strict=True):
            likeliest = bank.names[int(each.argmax())]
            guesses[place] = {
                "matcher": likeliest,
                "matcher, where sure": likeliest if each.max() >= head.threshold else None,
                **baseline_guesses(questions[place], bank, majority, topics),
                "likeness to cards": bank.names[int(cards[place].argmax())],
            }
    return role_figures(questions, guesses, bank.names)


def _folds(groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each row (N,); groups go whole."""
    number = int(groups.max()) + 1
    return np.random.default_rng(seed).permutation(np.arange(number) % min(folds, number))[groups]


def _groups(sources: Sequence[str]) -> NDArray[np.int64]:
    places = {source: place for place, source in enumerate(dict.fromkeys(sources))}
    return np.array([places[source] for source in sources], dtype=np.int64)


def _stack(one: Any, other: Any) -> Any:
    """Rows below each other, dense or sparse."""
    if isinstance(one, np.ndarray):
        return np.vstack([one, other])
    from scipy.sparse import vstack

    return vstack([one, other]).tocsr()


def _key(
    questions: Sequence[Question], bank: RoleBank, encoder: Encoder | None, options: MatcherOptions, seed: int
) -> str:
    parts = [
        _VERSION,
        [asdict(question) for question in questions],
        bank.digest,
        [encoder.weights_hash, encoder.precision] if encoder else None,
        options.model_dump(),
        seed,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
