"""The counts of a small corpus by hand, and of ESConv against its published table."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, Turn
from esckit.conversation.sixths import sixth_of
from esckit.corpora import corpus_statistics, read_corpus
from esckit.strategy import ESCONV

from ..trees import small_tree
from .items import esconv_conversation, item, utterance


def test_a_small_corpus_by_hand() -> None:
    second = {"dialog": [utterance("seeker", "One two"), utterance("supporter", "")], "emotion_type": "fear"}
    figures = corpus_statistics([esconv_conversation(item(), 0), esconv_conversation(second, 1)])
    questions = dict.fromkeys(ESCONV.labels, 0) | {"Question": 2, "Reflection of feelings": 1}
    nothing = dict.fromkeys(ESCONV.labels, 0.0)
    assert figures == {
        "dialogues": 2,
        "utterances": 6,
        "seeker_utterances": 2,
        "supporter_utterances": 4,
        "supporter_utterances_without_strategy": 1,
        "supporter_utterances_after_another": 1,
        "dialogues_opened_by_supporter": 1,
        "mean_utterances_per_dialogue": 3.0,
        "mean_characters_per_dialogue": (21 + 10 + 18 + 11 + 7 + 0) / 2,
        "mean_words_per_utterance": (4 + 2 + 3 + 2 + 2 + 0) / 6,
        "mean_words_per_seeker_utterance": 2.0,
        "mean_words_per_supporter_utterance": 9 / 4,
        "mean_characters_per_utterance": (21 + 10 + 18 + 11 + 7 + 0) / 6,
        "mean_characters_per_seeker_utterance": 17 / 2,
        "mean_characters_per_supporter_utterance": 50 / 4,
        "messages": {
            "messages": 8,
            "user_messages": 4,
            "assistant_messages": 4,
            "mean_messages_per_dialogue": 4.0,
            # "Hi", the trimmed text, one space; "[Question] ", "[Reflection of feelings] " before the replies
            "mean_characters_per_message": (2 + 7 + 1 + 7 + 32 + 43 + 22 + 0) / 8,
            "mean_characters_per_user_message": (2 + 7 + 1 + 7) / 4,
            "mean_characters_per_assistant_message": (32 + 43 + 22 + 0) / 4,
        },
        "strategy_counts": questions,
        "strategy_shares": {label: count / 3 for label, count in questions.items()},
        "strategy_by_stage": [
            nothing,
            {**nothing, "Question": 1.0},
            nothing,
            nothing,
            {**nothing, "Reflection of feelings": 1.0},
            {**nothing, "Question": 1.0},
        ],
        "emotion_types": {"anxiety": 1, "fear": 1},
        "problem_types": {"job crisis": 1},
        "topics": {},
        "roles": {},
    }
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_a_derived_corpus_by_hand() -> None:
    """What Empath's tables 2 and 5 count: characters a dialogue and by speaker, roles, topics, strategies."""

    def derived(number: int, role: str, *said: tuple[str, str]) -> Conversation:
        turns = [
            Turn(str(n), str(n - 1) if n else None, "supporter" if strategy else "seeker", text, strategy or None)
            for n, (text, strategy) in enumerate(said)
        ]
        labels = {"role": role, "topic": "婚恋"}
        return Conversation(f"d{number}", turns, language="zh", labels=labels)

    figures = corpus_statistics(
        [
            derived(0, "lamplighter", ("我很累。", ""), ("你多久没睡好了？", "Question")),
            derived(1, "lamplighter", ("他走了", ""), ("你很难过", "Reflection of feelings"), ("是", "")),
            derived(2, "ferryman", ("嗯", ""), ("慢慢说", "Question")),
        ]
    )
    assert figures["roles"] == {"lamplighter": 2, "ferryman": 1}
    assert figures["topics"] == {"婚恋": 3}
    assert (figures["dialogues"], figures["mean_utterances_per_dialogue"]) == (3, 7 / 3)
    assert figures["mean_characters_per_dialogue"] == (4 + 8 + 3 + 4 + 1 + 1 + 3) / 3
    assert figures["mean_characters_per_seeker_utterance"] == (4 + 3 + 1 + 1) / 4
    assert figures["mean_characters_per_supporter_utterance"] == (8 + 4 + 3) / 3
    assert figures["strategy_counts"]["Question"] == 2


def test_the_trunk_alone_is_counted() -> None:
    grown = small_tree().grow([Turn("end", "2", "supporter", None, "Question")])
    figures = corpus_statistics([grown])
    assert (figures["utterances"], figures["supporter_utterances"]) == (3, 1)


def test_nothing_has_counts_of_zero_and_no_means() -> None:
    for empty in ([], [Conversation("c", [], taxonomy=None)]):
        figures = corpus_statistics(empty)
        assert (figures["utterances"], figures["mean_words_per_utterance"]) == (0, None)
        assert figures["strategy_shares"] == {}


def test_labels_follow_the_taxonomies_in_use() -> None:
    figures = corpus_statistics([Conversation("c", [], taxonomy="cso")])
    assert next(iter(figures["strategy_counts"])) == "Emotional Validation"


@pytest.mark.parametrize(
    ("length", "sixths"), [(6, [1, 2, 3, 4, 5, 5]), (1, [5]), (12, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5])]
)
def test_sixths_are_floor_of_six_k_over_n(length: int, sixths: list[int]) -> None:
    assert [sixth_of(position, length) for position in range(1, length + 1)] == sixths


TABLE: dict[str, dict[str, Any]] = {
    "train": {
        "dialogues": 1028,
        "utterances": 30549,
        "seeker_utterances": 15943,
        "supporter_utterances": 14606,
        "supporter_utterances_without_strategy": 0,
        "supporter_utterances_after_another": 2431,
        "dialogues_opened_by_supporter": 548,
        "strategy_counts": [3033, 841, 1136, 1377, 2261, 2343, 974, 2641],
    },
    "valid": {
        "dialogues": 130,
        "utterances": 3747,
        "seeker_utterances": 1926,
        "supporter_utterances": 1821,
        "supporter_utterances_without_strategy": 0,
        "supporter_utterances_after_another": 281,
        "dialogues_opened_by_supporter": 70,
        "strategy_counts": [376, 107, 136, 169, 256, 305, 128, 344],
    },
}


@pytest.mark.corpus
@pytest.mark.parametrize("part", ["train", "valid"])
def test_esconv_has_the_figures_of_its_data_card(part: str, data_dir: Path) -> None:
    figures = corpus_statistics(read_corpus(data_dir / f"esconv/{part}.json"))
    figures["strategy_counts"] = list(figures["strategy_counts"].values())
    assert {key: figures[key] for key in TABLE[part]} == TABLE[part]
    messages = figures["messages"]
    assert messages["assistant_messages"] == messages["user_messages"] == TABLE[part]["supporter_utterances"]
    if part == "train":
        # DecoupledESC's table 2 has 28.40, 95.85, 112.17, 79.54 for its 1,040 dialogues.
        assert [round(value, 2) for key, value in messages.items() if key.startswith("mean")] == [
            28.42,
            95.76,
            79.57,
            111.95,
        ]
        assert figures["emotion_types"]["anxiety"] == 274
        assert list(figures["problem_types"].items())[:2] == [("ongoing depression", 279), ("job crisis", 218)]
        assert round(figures["strategy_shares"]["Question"], 3) == 0.208


FAILED: dict[str, Any] = {
    "dialogues": 196,
    "utterances": 5230,
    "seeker_utterances": 2853,
    "supporter_utterances": 2377,
    "supporter_utterances_without_strategy": 0,
    # The data card's counts, with Restatement (3), Approval and Reassurance (7), Direct Guidance (11) added.
    "strategy_counts": [528, 176 + 3, 200, 195, 334 + 7, 392 + 11, 131, 400],
}


@pytest.mark.corpus
def test_failed_esconv_has_the_figures_of_its_data_card(data_dir: Path) -> None:
    figures = corpus_statistics(read_corpus(data_dir / "failed_esconv/FailedESConv.json", "failed_esconv"))
    figures["strategy_counts"] = list(figures["strategy_counts"].values())
    assert {key: figures[key] for key in FAILED} == FAILED
