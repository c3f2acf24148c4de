"""AnnoMI: rows into transcripts, several annotators into one label."""

from pathlib import Path

import pytest

from esckit.conversation import Turn
from esckit.corpora import corpus_statistics, read_corpus, write_corpus
from esckit.errors import CorpusError

from .items import annomi_row, write_annomi

CLIENT = annomi_row(
    utterance_id="1",
    interlocutor="client",
    utterance_text='Fine, "really".\nThanks.',
    timestamp="00:00:20",
    therapist_input_exists="n/a",
    main_therapist_behaviour="n/a",
    client_talk_type="neutral",
)


def test_every_column_finds_its_place(tmp_path: Path) -> None:
    (conversation,) = read_corpus(write_annomi(tmp_path / "A.csv", [annomi_row(), CLIENT]))
    assert (conversation.id, conversation.taxonomy) == ("annomi-5", "annomi")
    assert conversation.labels == {"topic": "smoking cessation ", "mi_quality": "high"}
    assert (conversation.provenance["corpus"], conversation.provenance["file"]) == ("annomi", "A.csv")
    assert conversation.provenance["licence"].startswith("none stated (no licence file; README: ")
    assert conversation.extra == {"video_title": 'A "title", with a comma', "video_url": "https://example.org/5"}
    question = {"annotator_id": "3", "therapist_input_exists": "False", "main_therapist_behaviour": "question"}
    neutral = {"annotator_id": "3", "client_talk_type": "neutral"}
    assert conversation.turns == [
        Turn(
            "0",
            None,
            "supporter",
            "How are you?",
            "question",
            extra={"timestamp": "00:00:13", "annotations": [question]},
        ),
        Turn(
            "1",
            "0",
            "seeker",
            'Fine, "really".\nThanks.',
            extra={"timestamp": "00:00:20", "client_talk_type": "neutral", "annotations": [neutral]},
        ),
    ]


@pytest.mark.parametrize(
    ("behaviours", "label"),
    [
        (["other", "question", "question"], "question"),
        (["other", "question", "question", "other"], "other"),
        (["reflection", "other", "question", "question", "other"], "other"),
        (["n/a", "reflection"], "reflection"),
    ],
)
def test_the_most_frequent_label_counts_and_of_equals_the_earliest(
    behaviours: list[str], label: str, tmp_path: Path
) -> None:
    rows = [annomi_row(annotator_id=str(n), main_therapist_behaviour=each) for n, each in enumerate(behaviours)]
    (turn,) = read_corpus(write_annomi(tmp_path / "A.csv", rows))[0].turns
    assert turn.strategy == label
    assert [each["annotator_id"] for each in turn.extra["annotations"]] == [str(n) for n in range(len(behaviours))]


def test_rows_of_one_transcript_need_not_stand_together(tmp_path: Path) -> None:
    rows = [annomi_row(), annomi_row(transcript_id="6"), CLIENT]
    first, second = read_corpus(write_annomi(tmp_path / "A.csv", rows))
    assert ([turn.id for turn in first.turns], [turn.id for turn in second.turns]) == (["0", "1"], ["0"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (annomi_row(main_therapist_behaviour="advice"), "transcript 5, turn 0 has the unknown strategy 'advice': use"),
        (annomi_row(interlocutor="nurse"), "transcript 5 has an utterance '0' by 'nurse': use numbers, and client or"),
        (annomi_row(utterance_id="x"), "transcript 5 has an utterance 'x' by 'therapist': use numbers, and client or"),
    ],
)
def test_a_broken_transcript_is_named_with_its_first_line(row: dict[str, str], message: str, tmp_path: Path) -> None:
    path = write_annomi(tmp_path / "A.csv", [annomi_row(transcript_id="4"), CLIENT | {"transcript_id": "4"}, row])
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert str(error.value).startswith(f"{path}:5: {message}")  # the client's text takes two lines


def test_the_line_of_a_transcript_is_that_of_its_first_row(tmp_path: Path) -> None:
    rows = [annomi_row(), annomi_row(transcript_id="6"), annomi_row(utterance_id="1", interlocutor="nurse")]
    with pytest.raises(CorpusError, match=r"A.csv:2: transcript 5 has an utterance '1' by 'nurse'"):
        read_corpus(write_annomi(tmp_path / "A.csv", rows))


def test_a_table_without_its_columns_or_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "A.csv"
    path.write_text("transcript_id,utterance_id\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"A.csv:1: the table has no column annotator_id, client_talk_type, .*: give"):
        read_corpus(path, "annomi")
    for cells in (",too,many" + "," * 12, ",too,few"):
        write_annomi(path, [annomi_row()])
        path.write_text(path.read_text(encoding="utf-8") + cells + "\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=r"A.csv:3: this row has not as many cells as the table has columns"):
            read_corpus(path)


@pytest.mark.corpus
def test_the_published_table(data_dir: Path, tmp_path: Path) -> None:
    conversations = read_corpus(data_dir / "annomi/AnnoMI-full.csv")
    figures = corpus_statistics(conversations)
    assert (figures["dialogues"], figures["utterances"]) == (133, 9699)
    assert figures["supporter_utterances_without_strategy"] == 0
    assert sum(len(turn.extra["annotations"]) for c in conversations for turn in c.turns) == 13551
    write_corpus(tmp_path / "annomi.jsonl", conversations)
    assert read_corpus(tmp_path / "annomi.jsonl") == conversations
