"""The field's common forms into the tree, by texts of our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.corpora import read_corpus
from esckit.corpora.linter import check_files
from esckit.errors import CorpusError

from .items import write_items, write_lines

ASKED, ANSWERED, MORE, LAST = "我的船票退了。", "听起来很突然，你现在在哪里？", "还在码头。", "先找个避风的地方坐下。"
SAID = [("seeker", ASKED), ("supporter", ANSWERED), ("seeker", MORE), ("supporter", LAST)]
PAIRS = [(ASKED, ANSWERED), (MORE, LAST)]


def keyed(who: str, text: str, seeker: str, supporter: str) -> list[dict[str, str]]:
    names = {"seeker": seeker, "supporter": supporter}
    return [{who: names[speaker], text: said} for speaker, said in SAID]


FOUND: dict[str, tuple[Any, str]] = {
    "SoulChat": ({"topic": "旅行", "messages": keyed("role", "content", "user", "assistant")}, "messages"),
    "OpenAI": ({"messages": keyed("role", "content", "user", "assistant")}, "messages"),
    "roles under conversations": ({"conversations": keyed("role", "content", "user", "assistant")}, "messages"),
    "ShareGPT": ({"conversations": keyed("from", "value", "human", "gpt")}, "sharegpt"),
    "ShareGPT, other names": ({"conversations": keyed("from", "value", "user", "ChatGPT")}, "sharegpt"),
    "EmoLLM": (
        {"conversation": [{"system": "倾听。", "input": PAIRS[0][0], "output": PAIRS[0][1]},
                          {"input": PAIRS[1][0], "output": PAIRS[1][1]}]},
        "emollm",
    ),
    "AugESC": ([[{"seeker": "usr", "supporter": "sys"}[speaker], text] for speaker, text in SAID], "augesc"),
    "marked lines": ([f"{'ESC-Role' if s == 'seeker' else 'AI assistant'}：{t}" for s, t in SAID], "marked_lines"),
    "half a colon": ([f"{'User' if s == 'seeker' else 'Assistant'}: {t}" for s, t in SAID], "marked_lines"),
    "SMILE": (keyed("role", "content", "client", "counselor"), "smile"),
}  # fmt: skip
NAMED: dict[str, tuple[Any, str]] = {
    "CPsyCoun, rows": (
        {"instruction": MORE, "input": "", "output": LAST, "history": [[ASKED, ANSWERED]], "system": "倾听。"},
        "cpsycoun",
    ),
    "CPsyCoun, marked": ([f"{'求助者' if s == 'seeker' else '支持者'}：{t}" for s, t in SAID], "cpsycoun"),
    "SMILE in esckit's form": ({"dialog": keyed("speaker", "content", "client", "counselor")}, "smile"),
    "SoulChat by name": ({"messages": keyed("role", "content", "user", "assistant")}, "soulchat"),
}


def said_in(path: Path, format: str | None = None) -> list[list[tuple[str, str]]]:
    return [[(turn.speaker, turn.text or "") for turn in tree.turns] for tree in read_corpus(path, format)]


@pytest.mark.parametrize(("item", "format"), FOUND.values(), ids=FOUND)
def test_a_clear_form_is_recognised_and_read_whether_as_a_list_or_as_lines(
    item: Any, format: str, tmp_path: Path
) -> None:
    listed = write_items(tmp_path / "list.json", [item, item])
    lines = write_lines(tmp_path / "lines.txt", [item, item])
    for path in (listed, lines):
        assert said_in(path) == said_in(path, format) == [SAID, SAID]
        trees = read_corpus(path)
        assert (trees[0].language, trees[0].taxonomy, trees[0].provenance["corpus"]) == ("zh", None, format)
        kinds = {finding.kind for finding in check_files([path]).findings}
        assert kinds <= {"near-duplicate"}


@pytest.mark.parametrize(("item", "format"), NAMED.values(), ids=NAMED)
def test_a_form_that_tells_too_little_is_read_under_its_name(item: Any, format: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "list.json", [item])
    assert said_in(path, format) == [SAID]
    assert read_corpus(path, format)[0].provenance["corpus"] == format


def test_a_topic_is_a_label_and_other_fields_stay(tmp_path: Path) -> None:
    (tree,) = read_corpus(write_items(tmp_path / "s.json", [{**FOUND["SoulChat"][0], "id": 4, "source": "x"}]))
    assert (tree.id, tree.labels, tree.extra) == ("messages-旅行-4", {"topic": "旅行"}, {"id": 4, "source": "x"})


@pytest.mark.parametrize(
    "who", [{"seeker": "ESC-Role", "supporter": "Qwen2-7B"}, {"seeker": "林", "supporter": "咨询师"}]
)
def test_a_name_that_nobody_knows_is_the_other_one_s(who: dict[str, str], tmp_path: Path) -> None:
    lines = [f"{who[speaker]}：{text}" for speaker, text in SAID]
    path = write_items(tmp_path / "m.json", {"0": lines, "1": lines[1:]})
    assert said_in(path) == [SAID, SAID[1:]]
    one_sided = [f"{name}：Hm." for name in who.values() if name in ("ESC-Role", "咨询师")] * 2
    assert len(said_in(write_items(tmp_path / "o.json", {"0": lines, "1": one_sided}))[1]) == 2
    path = write_items(tmp_path / "n.json", {"0": [*lines, "Nobody：Hm."]})
    with pytest.raises(CorpusError, match="names no speaker"):
        read_corpus(path)


def test_a_system_text_stands_in_extra_with_its_place_where_it_is_not_the_first(tmp_path: Path) -> None:
    said = keyed("role", "content", "user", "assistant")
    first, other = ([{"role": "system", "content": "S"}, *said], [*said, {"role": "developer", "content": "S"}])
    trees = read_corpus(write_items(tmp_path / "s.json", [{"messages": first}, {"messages": other}]))
    assert [tree.extra for tree in trees] == [{"system": "S"}, {"system": [{"turn": 4, "text": "S"}]}]


def test_strategies_in_brackets_are_taken_off_and_a_blank_message_is_nobody_s(tmp_path: Path) -> None:
    contents = ["Hm.", "[question] Why?", " ", "【Others】Ok.", "Yes.", "[sighs] I see."]
    item = {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]}
    (tree,) = read_corpus(write_items(tmp_path / "m.json", [item]))
    assert [(turn.id, turn.strategy, turn.text, turn.extra) for turn in tree.turns] == [
        ("0", None, "Hm.", {}),
        ("1", "Question", "Why?", {"label": "[question] "}),
        ("3", "Others", "Ok.", {"filler": " ", "label": "【Others】"}),
        ("4", None, "Yes.", {}),
        ("5", None, "[sighs] I see.", {}),
    ]
    assert tree.taxonomy == "esconv"
    assert [finding.turn for finding in check_files([tmp_path / "m.json"]).findings] == ["5"]


def test_a_strategy_may_be_a_field_of_a_message(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hm."}, {"role": "assistant", "content": "Why?", "strategy": "QUESTION"}]
    (tree,) = read_corpus(write_items(tmp_path / "m.json", [{"messages": said}]))
    assert (tree.turns[1].strategy, tree.turns[1].extra) == ("Question", {"strategy": "QUESTION"})


def test_a_content_in_parts_is_its_texts(tmp_path: Path) -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": "My cat"}, {"type": "text", "text": "died."}]},
            {"role": "assistant", "content": "Oh."}]  # fmt: skip
    assert said_in(write_items(tmp_path / "m.json", [{"messages": said}]))[0][0] == ("seeker", "My cat\ndied.")


BROKEN = {
    "a part that is no text": ({"role": "user", "content": [{"type": "image_url"}]}, "turn 1 has a part that is no te"),
    "no text": ({"role": "assistant", "content": None}, "turn 1 has no text: give every utterance a text"),
    "an unknown speaker": ({"role": "tool", "content": "x"}, "turn 1 has the unknown speaker 'tool': use seeker, user"),
    "no speaker": ({"role": None, "content": "x"}, "turn 1 names no speaker: use seeker"),
    "no message": ("x", "turn 1 names no speaker"),
}


@pytest.mark.parametrize(("message", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_message_is_named(message: Any, sentence: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "m.json", [{"messages": [{"role": "user", "content": "Hi."}, message]}])
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert sentence in str(error.value)


def test_the_reply_of_escot_follows_the_talk_and_only_it_is_labelled(tmp_path: Path) -> None:
    talk = [{"speaker": "supporter", "content": "Hello."}, {"speaker": "seeker", "content": "My boat sank."}]
    data = {"dialog": talk, "strategy": "Question", "response": "Where?"}
    path = write_items(tmp_path / "e.json", [{"id": 1, "original_data": data, "cot_data": {"emotion": "sad"}}])
    (tree,) = read_corpus(path)
    assert [(turn.speaker, turn.text, turn.strategy) for turn in tree.turns] == [
        ("supporter", "Hello.", None),
        ("seeker", "My boat sank.", None),
        ("supporter", "Where?", "Question"),
    ]
    assert (tree.id, tree.extra) == ("escot-1", {"id": 1, "cot_data": {"emotion": "sad"}})
    assert not check_files([path]).findings


def test_the_answers_of_psyqa_are_siblings(tmp_path: Path) -> None:
    answers = [{"answer_text": text, "has_label": False} for text in (ANSWERED, LAST)]
    item = {"question": ASKED, "description": MORE, "keywords": "旅行", "questionID": 9, "answers": answers}
    (tree,) = read_corpus(write_items(tmp_path / "p.json", [item]))
    assert [(turn.parent, turn.text) for turn in tree.turns] == [
        (None, f"{ASKED}\n{MORE}"),
        ("0", ANSWERED),
        ("0", LAST),
    ]
    assert (tree.id, tree.extra) == ("psyqa-9", {"keywords": "旅行", "questionID": 9})
    assert not check_files([tmp_path / "p.json"]).findings


def test_a_file_in_another_form_than_its_name_says_is_told_which_form_it_has(tmp_path: Path) -> None:
    path = write_items(tmp_path / "m.json", [FOUND["OpenAI"][0]])
    with pytest.raises(CorpusError, match=r"is not in a form of augesc \(it has the form 'messages'\): name the fo"):
        read_corpus(path, "augesc")


@pytest.mark.parametrize(
    ("script", "language"),
    [
        ("今日は一人で海を見ていました。", "ja"),
        ("오늘은 바다를 보았어요.", "ko"),
        ("วันนี้ไปทะเล", "th"),
        ("Il a neigé.", "en"),
    ],
    ids=["ja", "ko", "th", "fr"],
)
def test_the_language_is_what_the_script_shows(script: str, language: str, tmp_path: Path) -> None:
    said = [{"role": "user", "content": script}, {"role": "assistant", "content": script}]
    (tree,) = read_corpus(write_items(tmp_path / "m.json", [{"messages": said}]))
    assert tree.language == language


@pytest.mark.corpus
def test_the_real_chat_messages_are_their_dialogues(data_dir: Path) -> None:
    """All but the opening "Hi", which no message tells from a seeker's own."""
    dialogues = read_corpus(data_dir / "esconv/valid.json")
    messages = read_corpus(data_dir / "esconv/valid_messages.json")
    for tree, read in zip(dialogues, messages, strict=True):
        said = [(turn.strategy, (turn.text or "").split()) for turn in tree.trunk if turn.speaker == "supporter"]
        found = [(turn.strategy, (turn.text or "").split()) for turn in read.trunk if turn.speaker == "supporter"]
        assert found == said


@pytest.mark.corpus
def test_the_real_questions_and_answers(data_dir: Path) -> None:
    trees = read_corpus(data_dir / "psyqa/PsyQA_example.json")
    items = json.loads((data_dir / "psyqa/PsyQA_example.json").read_text(encoding="utf-8"))
    assert [[turn.text for turn in tree.turns[1:]] for tree in trees] == [
        [answer["answer_text"] for answer in item["answers"]] for item in items
    ]
