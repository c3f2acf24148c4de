"""CPsyCoun and SMILE into the tree."""

from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Turn
from esckit.corpora import corpus_statistics, read_corpus
from esckit.errors import CorpusError

from .items import counselling_item, write_lines


@pytest.mark.parametrize(("corpus", "licence"), [("cpsycoun", "CC-BY-4.0"), ("smile", "CC0-1.0")])
def test_every_field_finds_its_place(corpus: str, licence: str, tmp_path: Path) -> None:
    (conversation,) = read_corpus(write_lines(tmp_path / "c.jsonl", [counselling_item(note="x")]), corpus)
    assert (conversation.id, conversation.language, conversation.taxonomy) == (f"{corpus}-3", "zh", None)
    assert conversation.provenance == {"corpus": corpus, "file": "c.jsonl", "licence": licence}
    assert (conversation.labels, conversation.extra) == ({}, {"id": 3, "note": "x"})
    assert conversation.turns == [
        Turn("0", None, "seeker", "我很难过。"),
        Turn("1", "0", "supporter", "发生了什么？"),
    ]


def test_a_topic_is_a_label_and_part_of_the_id(tmp_path: Path) -> None:
    items = [counselling_item(topic=topic) for topic in ("Career", "Marriage")]
    first, second = read_corpus(write_lines(tmp_path / "c.jsonl", items), "cpsycoun")
    assert (first.id, second.id, first.labels) == ("cpsycoun-Career-3", "cpsycoun-Marriage-3", {"topic": "Career"})


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([], "dialogue 1 has no list `dialog` of utterances: add one, or remove the dialogue."),
        (
            counselling_item(id=4, dialog=[{"speaker": "nobody", "content": "?"}]),
            "dialogue 1 (id 4), turn 0 has the un",
        ),
        (
            counselling_item(id=4, dialog=["?"]),
            "dialogue 1 (id 4) is not in a form of smile (it has id, dialog): name the format",
        ),
        (counselling_item(), "conversation 'smile-3' occurs twice; ids are unique in a file."),
    ],
)
def test_a_broken_dialogue_is_named_with_its_line(item: Any, message: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", [counselling_item(), item])
    with pytest.raises(CorpusError) as error:
        read_corpus(path, "smile")
    assert str(error.value).startswith(f"{path}:2: {message}")


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("file", "corpus", "dialogues", "utterances", "supporter"),
    [
        ("cpsycoun/cpsycound.jsonl", "cpsycoun", 3084, 49780, 24806),
        ("cpsycoun/cpsycoune.jsonl", "cpsycoun", 45, 592, 296),
        ("smilechat/sample_1500.jsonl", "smile", 1500, 17319, 8558),
    ],
)
def test_the_published_files(
    file: str, corpus: str, dialogues: int, utterances: int, supporter: int, data_dir: Path
) -> None:
    figures = corpus_statistics(read_corpus(data_dir / file, corpus))
    assert (figures["dialogues"], figures["utterances"]) == (dialogues, utterances)
    assert figures["supporter_utterances"] == figures["supporter_utterances_without_strategy"] == supporter
