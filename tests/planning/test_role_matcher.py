"""Which role suits whom: what is read, what is learnt, how it abstains, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from esckit.errors import CorpusError, ModelError, RoleError
from esckit.planning import matcher_fitting
from esckit.planning.encoder import EMBEDDED
from esckit.planning.matcher_fitting import choose_threshold, measure_matcher, train_matcher
from esckit.planning.matcher_options import MatcherOptions
from esckit.planning.questions import Question, question_text, questions_with_gold, read_question
from esckit.planning.role_figures import role_figures
from esckit.planning.role_matcher import RoleMatcher
from esckit.planning.text_features import reads_vectors
from esckit.roles import RoleBank, save_bank
from tests.roles.little import little_bank
from tests.tiny import talk, tiny_encoder

TEXTS: Final = {
    "captain": ("the boss and the office", "老板和办公室"),
    "gardener": ("my girlfriend left and took the cat", "女朋友走了"),
    "miller": ("awake in bed until four", "躺在床上到四点"),
}
TOPICS: Final = {"captain": "job crisis", "gardener": "breakup with partner", "miller": "sleep problems"}


def questions(language: str, each: int = 8) -> list[Question]:
    """So many of each role, told apart by a few words."""
    return [
        Question(
            None,
            (f"{text[language == 'zh']} {number * 37 % 11}", "hi"),
            language,
            f"{language}-{role}-{number}",
            topics=(TOPICS[role],),
            role=role,
            by="topic",
        )
        for number in range(each)
        for role, text in TEXTS.items()
    ]


OPTIONS: Final = MatcherOptions(folds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matcher that reads both languages by characters and words; tests change only copies."""
    place = tmp_path_factory.mktemp("matcher") / "matcher"
    train_matcher([*questions("en"), *questions("zh", 2)], little_bank(), None, place, options=OPTIONS)
    return place


@pytest.fixture(scope="module")
def matcher(folder: Path) -> RoleMatcher:
    return RoleMatcher.load(folder)


def facts(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((folder / "matcher.json").read_text(encoding="utf-8"))["facts"][
        "languages"
    ]
    return found


# ---------------------------------------------------------------------------------------------------- what is read


def test_only_what_stands_before_the_first_reply_is_read() -> None:
    tree = talk(("supporter", "Hello!"), ("seeker", "a"), ("seeker", "b"), ("supporter", "Why?"), ("seeker", "c"))
    assert read_question(tree).said == ("a", "b")
    psyqa = replace(
        tree, extra={"keywords": "恋爱,恋爱经营"}, labels={"topic": "Love"}, provenance={"derived_from": "q7"}
    )
    found = read_question(psyqa)
    assert (found.keywords, found.topics, found.source) == (("恋爱", "恋爱经营"), ("Love", "恋爱", "恋爱经营"), "q7")


def test_a_question_without_text_is_refused(matcher: RoleMatcher) -> None:
    for situation, said in ((None, []), (" ", ["", "\n"])):
        with pytest.raises(CorpusError, match=r"^a question without text suits no role: give a situation"):
            matcher.match(situation, said, "en")
    with pytest.raises(CorpusError):
        question_text(None, [], ["love"])
    assert question_text("same", ["same", "more"]) == "same\nmore"


def test_gold_roles_come_from_labels_hands_and_topics_and_every_source_counts_once() -> None:
    plain = talk(("seeker", "help"), ("supporter", "yes"))
    trees = [
        replace(plain, id="labelled", labels={"role": "miller", "problem_type": "job crisis"}),
        replace(plain, id="one", labels={"role": "miller", "topic": "Love"}, provenance={"derived_from": "both"}),
        replace(plain, id="other", labels={"role": "captain", "topic": "Love"}, provenance={"derived_from": "both"}),
        replace(plain, id="hand", labels={"problem_type": "job crisis"}),
        replace(plain, id="topic", labels={"problem_type": "Job Crisis"}),
        replace(plain, id="keyword", extra={"keywords": "新,恋爱"}),
        replace(plain, id="nothing"),
        replace(talk(("supporter", "Hello?")), id="mute", labels={"problem_type": "job crisis"}),
    ]
    trees.append(replace(plain, id="nobody", labels={"problem_type": "job crisis"}))
    by_hand = {"hand": "gardener", "topic": "wizard", "nobody": None, "labelled": "captain"}
    found, left_out = questions_with_gold(trees, little_bank(), by_hand)
    assert [(each.source, each.role, each.by) for each in found] == [
        ("labelled", "miller", "role"),
        ("both", "gardener", "topic"),
        ("hand", "gardener", "hand"),
        ("topic", "captain", "topic"),
        ("keyword", "gardener", "topic"),
    ]
    assert left_out == {"no gold role": 2, "no text before the first reply": 1}
    with pytest.raises(RoleError, match="has no role 'pirate': take one of captain, gardener, miller"):
        questions_with_gold([replace(plain, labels={"role": "pirate"})], little_bank())


def test_the_embedded_encoder_reads_english_alone(tmp_path: Path) -> None:
    named = tiny_encoder(tmp_path)
    embedded = replace(named, source=EMBEDDED)
    assert [reads_vectors(each, "zh") for each in (named, embedded, None)] == [True, False, False]
    assert reads_vectors(embedded, "en")


# ------------------------------------------------------------------------------------------------ what is learnt


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_matches_what_is_like_its_training_and_knows_every_role_of_the_bank(
    matcher: RoleMatcher, language: str
) -> None:
    for role, text in TEXTS.items():
        found = matcher.match(None, [text[language == "zh"]], language)
        assert next(iter(found.probabilities)) == role
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert [*found.probabilities.values()] == sorted(found.probabilities.values(), reverse=True)
    bank_s_own = little_bank().role("miller").experiences[0].text(language)
    assert next(iter(matcher.match(bank_s_own, [], language).probabilities)) == "miller"


def test_it_abstains_below_its_threshold(tmp_path: Path) -> None:
    sure = MatcherOptions(folds=2, threshold=1.0)
    train_matcher(questions("en"), little_bank(), None, tmp_path / "sure", options=sure)
    train_matcher(questions("en"), little_bank(), None, tmp_path / "bold", options=MatcherOptions(folds=2, threshold=0))
    text = TEXTS["captain"][0]
    assert RoleMatcher.load(tmp_path / "sure").match(text, [], "en").role is None
    assert RoleMatcher.load(tmp_path / "bold").match(text, [], "en").role == "captain"


def test_the_threshold_is_the_least_with_the_most_right_less_wrong() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.62, 0.38], [0.42, 0.58]])
    assert choose_threshold(probabilities, np.array([0, 0, 1, 0])) == 0.65
    assert choose_threshold(probabilities, np.array([0, 0, 0, 1])) == 0.0


def test_figures_of_unseen_dialogues_stand_beside_the_topic_and_chance(folder: Path) -> None:
    unseen = facts(folder)["en"]["unseen"]
    assert isinstance(unseen, dict)
    assert [*unseen] == ["matcher", "matcher, where sure", "majority", "topic alone", "likeness to cards"]
    assert unseen["topic alone"]["f1"] == 1
    assert unseen["matcher"]["f1"] > 0.9 > unseen["majority"]["f1"]
    assert unseen["matcher"]["over_topic"]["interval"][0] <= unseen["matcher"]["over_topic"]["f1"] <= 0
    assert "unseen" not in facts(folder)["zh"], "six questions are too few to say"
    assert facts(folder)["zh"]["chosen_by"] == "the bank's texts"


def test_what_is_reported_never_took_part_in_learning(tmp_path: Path) -> None:
    """Roles drawn by chance cannot be known: whoever had seen them would be right."""
    rng = np.random.default_rng(0)
    drawn = [
        replace(each, said=(f"{number}",), role=str(rng.choice([*TEXTS])), topics=())
        for number, each in enumerate(questions("en", 20))
    ]
    found = train_matcher(drawn, little_bank(), None, tmp_path / "drawn", options=OPTIONS)
    assert found["languages"]["en"]["unseen"]["matcher"]["accuracy"] < 0.6
    matcher = RoleMatcher.load(tmp_path / "drawn")
    seen = [next(iter(matcher.match(None, each.said, "en").probabilities)) == each.role for each in drawn]
    assert np.mean(seen) > 0.9


def test_versions_of_one_source_never_part(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.repeat(np.arange(10), 3)
    fold = matcher_fitting._folds(groups, 5, 0)
    assert all(len(set(fold[groups == group])) == 1 for group in range(10))
    assert set(fold) == set(range(5))


def test_a_corpus_without_questions_leaves_what_the_bank_says(tmp_path: Path) -> None:
    found = train_matcher([], little_bank(), None, tmp_path / "bank-alone", options=OPTIONS)
    assert found["languages"]["en"]["chosen_by"] == "the bank's texts"
    told = RoleMatcher.load(tmp_path / "bank-alone").match("a storm at sea and my ship", [], "en")
    assert next(iter(told.probabilities)) == "captain"


def test_with_an_encoder_vectors_are_read_and_it_is_asked_for_again(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder")
    found = train_matcher(questions("en"), little_bank(), encoder, tmp_path / "matcher", options=OPTIONS)
    assert [found["languages"][language]["reads"] for language in ("en", "zh")] == ["encoder", "encoder"]
    loaded = RoleMatcher.load(tmp_path / "matcher")
    given = RoleMatcher.load(tmp_path / "matcher", encoder)
    assert loaded.match("office", [], "en") == given.match("office", [], "en")
    tiny_encoder(tmp_path / "encoder", seed=1)
    with pytest.raises(ModelError, match="is not the one that the role matcher was trained with"):
        RoleMatcher.load(tmp_path / "matcher").match("office", [], "en")


# --------------------------------------------------------------------------------------------------- its folder


def test_the_same_is_not_trained_twice_and_gives_the_same(folder: Path, tmp_path: Path) -> None:
    given = [*questions("en"), *questions("zh", 2)]
    stamp = (folder / "matcher.json").stat().st_mtime_ns
    again = train_matcher(given, little_bank(), None, folder, options=OPTIONS)
    assert (folder / "matcher.json").stat().st_mtime_ns == stamp
    train_matcher(given, little_bank(), None, tmp_path / "anew", options=OPTIONS)
    for name in ("matcher.json", "weights.safetensors"):
        assert (tmp_path / "anew" / name).read_bytes() == (folder / name).read_bytes()
    assert again == json.loads((folder / "matcher.json").read_text(encoding="utf-8"))["facts"]
    train_matcher(given, little_bank(), None, tmp_path / "anew", options=OPTIONS, seed=1)
    assert RoleMatcher.load(tmp_path / "anew").identity != RoleMatcher.load(folder).identity


def test_another_bank_a_torn_folder_and_a_foreign_language_are_refused(
    folder: Path, tmp_path: Path, matcher: RoleMatcher
) -> None:
    smaller = RoleBank(little_bank().roles[:2], "smaller")
    with pytest.raises(ModelError, match="was trained for another role bank than smaller: train it again"):
        RoleMatcher.load(folder, bank=smaller)
    swapped = Path(shutil.copytree(folder, tmp_path / "swapped"))
    save_bank(smaller, swapped / "bank")
    with pytest.raises(ModelError, match="was trained for another role bank"):
        RoleMatcher.load(swapped)
    torn = Path(shutil.copytree(folder, tmp_path / "torn"))
    (torn / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is not the one that"):
        RoleMatcher.load(torn)
    with pytest.raises(ModelError, match=r"matcher\.json"):
        RoleMatcher.load(tmp_path)
    with pytest.raises(RoleError, match="has no texts in 'fr'"):
        matcher.match("bonjour", [], "fr")
    with pytest.raises(RoleError, match="has no texts in 'fr'"):
        train_matcher([replace(questions("en")[0], language="fr")], little_bank(), None, tmp_path / "new")


def test_feelings_and_likeness(matcher: RoleMatcher) -> None:
    texts = [each.text("zh") for each in little_bank().role("captain").experiences]
    felt = matcher.feelings(texts, "zh")
    assert felt.shape == (4, 8)
    assert felt.min() >= 1
    assert felt.max() <= 10
    assert (
        np.corrcoef(felt.ravel(), [s for each in little_bank().role("captain").experiences for s in each.scores])[0, 1]
        > 0.8
    )
    assert matcher.likeness(texts[2], texts, "zh").argmax() == 2


# ------------------------------------------------------------------------------------------------------- figures


def test_weighted_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    roles = ["a", "b", "c"]
    asked = [Question("x", (), "en", f"{number // 2}", role=str(rng.choice(roles))) for number in range(60)]
    said = [{"way": str(rng.choice(roles)), "topic alone": each.role} for each in asked]
    found = role_figures(asked, said, roles)["way"]
    gold, guesses = [each.role for each in asked], [each["way"] for each in said]
    expected = precision_recall_fscore_support(gold, guesses, average="weighted", zero_division=0)
    for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
        assert found[name] == pytest.approx(value, abs=1e-4)
        assert found[f"{name}_interval"][0] < found[name] < found[f"{name}_interval"][1]
    assert found["accuracy"] == found["recall"]
    assert found["over_topic"]["f1"] == pytest.approx(found["f1"] - 1, abs=1e-4)
    each = precision_recall_fscore_support(gold, guesses, average=None, labels=roles, zero_division=0)[2]
    assert [*found["by_role"].values()] == pytest.approx(each, abs=1e-4)


def test_where_it_abstains_only_answers_count() -> None:
    asked = [Question("x", (), "en", str(number), role="a") for number in range(4)]
    said = [{"way": guess, "topic alone": "b"} for guess in ("a", None, None, "b")]
    found = role_figures(asked, said, ["a", "b"])["way"]
    assert (found["n"], found["answered"], found["accuracy"]) == (4, 0.5, 0.5)


def test_a_matcher_is_measured_on_other_dialogues(matcher: RoleMatcher) -> None:
    found = measure_matcher(matcher, [*questions("en", 2), *questions("zh", 1)])
    assert found["en"]["matcher"]["accuracy"] == 1
    assert found["zh"]["majority"]["accuracy"] == pytest.approx(1 / 3, abs=1e-3)
    strange = [replace(each, topics=("weather",)) for each in questions("en", 1)]
    assert measure_matcher(matcher, strange)["en"]["topic alone"]["accuracy"] == pytest.approx(1 / 3, abs=1e-3)
