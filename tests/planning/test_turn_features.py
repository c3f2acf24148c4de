"""Explicit features: they see only the past, they mean what they are called, in any taxonomy and language."""

from dataclasses import replace
from hashlib import sha256
from typing import Final

import numpy as np
import pytest

from esckit.conversation import Conversation
from esckit.corpora import load_corpus
from esckit.errors import CorpusError
from esckit.planning.turn_features import feature_names, history_width, read_text, turn_features
from esckit.rendering import past_strategies
from esckit.strategy import ANNOMI, CSO, ESCONV, Taxonomy
from tests.tiny import starter_dialogues, talk

DIALOGUE = talk(
    ("supporter", "Hello there!", "Others"),
    ("seeker", "hi, i lost my job"),
    ("seeker", "Thank you for asking?"),
    ("supporter", "When was that?", "Question"),
    ("supporter", "I am sorry.", "Reflection of feelings"),
    ("seeker", "Yes, last week, but I can't sleep"),
    ("supporter", "What helps?", "Question"),
)


def named(dialogue: Conversation, turn: int, mode: str = "gold", taxonomy: Taxonomy = ESCONV) -> dict[str, float]:
    """A turn's features by name."""
    shown = past_strategies(dialogue, "gold") if mode == "gold" else {}
    found = turn_features(dialogue.path(dialogue.turns[turn].parent), shown, taxonomy)
    values = np.concatenate([found.history, found.shape]).tolist()
    return dict(zip(feature_names(taxonomy), values, strict=True))


def test_a_features_name_says_what_it_is() -> None:
    sixth = named(DIALOGUE, 6)
    assert sixth["utterances"] == 6
    assert sixth["supporter's utterances"] == sixth["seeker's utterances"] == 3
    assert sixth["seeker's turns answered"] == 1
    assert sixth["supporter's run"] == 0
    assert sixth["opened by"] == 1
    assert sixth["share of replies that go on"] == pytest.approx(1 / 3)
    assert sixth["answered: words"] == 7
    assert sixth["answered: agrees"] == sixth["answered: denies"] == 1
    assert sixth["answered: first person"] == pytest.approx(1 / 7)
    assert sixth["last reply: feels"] == 1
    assert sixth["reply before that: ends asking"] == 1
    assert sixth["seeker's thanks"] == 1
    assert sixth["seeker: begins upper, mean"] == pytest.approx(2 / 3)
    assert sixth["strategy 1 before: Reflection of feelings"] == 1
    assert sixth["strategy 2 before: Question"] == 1
    assert sixth["turns since: Others"] == 2
    assert sixth["turns since: Information"] == 25
    assert sixth["times: Question"] == 1
    assert sixth["first one: Others"] == 1
    assert sixth["share after the last one: Question"] == pytest.approx(1 / 8), "nothing has followed it yet"
    assert sixth["last one, spoken just before: Reflection of feelings"] == 0
    assert sixth["share in such places: Question"] == pytest.approx(1.3 / 4.4)
    assert sixth["share in such places: Reflection of feelings"] == pytest.approx(0.3 / 4.4), "it went on"
    going_on = named(DIALOGUE, 4)
    assert going_on["last one, spoken just before: Question"] == 1
    assert going_on["share in such places: Others"] == pytest.approx(1 / 8), "nobody has gone on yet"
    assert going_on["seeker before the last reply: thanks"] == 1
    assert going_on["answered: words"] == 0
    first = named(DIALOGUE, 0)
    assert (first["utterances"], first["opened by"], first["answered: words"]) == (0, 2, 0)


@pytest.mark.parametrize("dialogue", starter_dialogues(3, 30), ids=lambda dialogue: dialogue.id)
def test_features_see_only_the_past(dialogue: Conversation) -> None:
    """Whatever stands at a turn or after it, and however much of it, changes nothing; what stands before does."""
    for place, turn in enumerate(dialogue.turns):
        if turn.speaker == "seeker":
            continue
        changed = [
            replace(each, text="Thanks! Bye? I try 你好", strategy="Others" if each.strategy else None)
            for each in dialogue.turns[place:]
        ]
        other = replace(dialogue, turns=[*dialogue.turns[:place], *changed], situation="none of this is read")
        short = replace(dialogue, turns=dialogue.turns[: place + 1])
        assert named(dialogue, place) == named(other, place) == named(short, place)
        if place:
            last = replace(dialogue.turns[place - 1], text="Thanks! Bye? I try 你好")
            before = replace(dialogue, turns=[*dialogue.turns[: place - 1], last, *dialogue.turns[place:]])
            assert named(dialogue, place) != named(before, place)


def test_a_hidden_history_says_nothing_of_strategies() -> None:
    other = replace(DIALOGUE, turns=[replace(t, strategy=t.strategy and "Information") for t in DIALOGUE.turns])
    assert named(DIALOGUE, 6, "hidden") == named(other, 6, "hidden")
    assert named(DIALOGUE, 6) != named(other, 6)
    flags = [turn_features(DIALOGUE.trunk[:n], {}, ESCONV) for n in range(7)]
    assert [each.hidden for each in flags] == [False] + [True] * 6
    one_shown = turn_features(DIALOGUE.trunk, {"3": "Question", "1": "Question"}, ESCONV)
    assert not one_shown.hidden
    assert not turn_features(talk(("seeker", "a")).trunk, {}, ESCONV).hidden, "there is no strategy to hide"
    width = history_width(ESCONV)
    shapes = [list(named(DIALOGUE, 6, mode).values())[width:] for mode in ("gold", "hidden")]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("taxonomy", [ESCONV, CSO, ANNOMI], ids=lambda taxonomy: taxonomy.name)
def test_any_taxonomy_has_features_of_its_own_labels(taxonomy: Taxonomy) -> None:
    label = taxonomy.labels[-1]
    dialogue = talk(("seeker", "a"), ("supporter", "b", label), ("supporter", "c", label))
    found = named(replace(dialogue, taxonomy=taxonomy.name), 2, taxonomy=taxonomy)
    assert found[f"strategy 1 before: {label}"] == 1
    assert len(found) == len(feature_names(taxonomy)) == len(set(feature_names(taxonomy)))
    assert history_width(taxonomy) == 13 * len(taxonomy.labels) + 4


def test_a_label_of_another_taxonomy_is_a_sentence() -> None:
    with pytest.raises(CorpusError, match="'Others' is no strategy of the taxonomy cso"):
        named(DIALOGUE, 6, taxonomy=CSO)


def test_a_script_without_spaces_has_words_and_marks() -> None:
    chinese = read_text("我失业了，睡不着。怎么办？")
    assert chinese.words >= 10
    assert (chinese.asks, chinese.ends_asking, chinese.sentences, chinese.commas) == (True, True, 2, 1)
    assert read_text("I lost my job, I cannot sleep.").words == 7


def test_repeated_strategies_are_counted_and_dated() -> None:
    names = ("Question", "Question", "Information", "Question", "Question")
    lines = [line for name in names for line in (("seeker", "a"), ("supporter", "b", name))]
    found = named(talk(*lines, ("supporter", "c", "Others")), 10)
    assert found["times: Question"] == 4
    assert (found["turns since: Question"], found["turns since: Information"]) == (0, 2)
    assert found["times, fading by .5: Question"] == pytest.approx(1 + 1 / 2 + 1 / 8 + 1 / 16)
    assert found["times, fading by .8: Information"] == pytest.approx(0.8**2)
    assert found["share after the last one: Question"] == pytest.approx(2.1 / 3.8)
    assert found["share after the last one: Information"] == pytest.approx(1.1 / 3.8)
    assert (found["run of the last one"], found["different ones"], found["share of repeats"]) == (2, 2, 0.5)
    assert found["share: Question"] == pytest.approx(4.5 / 9)


CUES: Final = {
    "thanks": ("谢谢你听我说", "他走了"),
    "farewell": ("那先这样，晚安", "我先睡不着"),
    "asks_help": ("我该怎么办", "我在图书馆"),
    "proposes": ("要不要试试写下来", "他走了"),
    "feels": ("你心里一定很委屈", "他走了"),
    "agrees": ("嗯，就是这样", "他走了"),
    "denies": ("我没有，也不想", "他走了"),
    "greets": ("你好，打扰了", "他说你好"),
}


@pytest.mark.parametrize("cue", CUES)
def test_word_cues_are_read_in_chinese(cue: str) -> None:
    with_it, without = CUES[cue]
    assert getattr(read_text(with_it), cue)
    assert not getattr(read_text(without), cue)


def test_persons_are_counted_in_chinese() -> None:
    read = read_text("我跟你说，您别笑我")
    assert (read.first_person, read.second_person) == (2, 2)


def test_what_is_read_of_english_is_what_it_was_before_there_was_chinese() -> None:
    digest = sha256()
    for part in load_corpus("starter").parts.values():
        for dialogue in part:
            for turn in dialogue.turns:
                digest.update(repr(tuple(read_text(turn.text or ""))).encode())
    assert digest.hexdigest() == "133b54e74daab43c698f34a452d496f2ee7ac25d25a260f8b5bf3001129c5f13"
