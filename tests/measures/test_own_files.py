"""Predictions as people have them: any form, any names of fields, thoughts, labels written otherwise, no ids."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, Turn
from esckit.errors import PredictionsError
from esckit.measures import Prediction, add_context, compare, evaluate, import_predictions, read_predictions
from esckit.measures.results import Evaluation
from esckit.strategy import ESCONV

from ..field import field
from .rows import LABELS, measured, random_rows, row

GOLD = [("Question", "Why is that?"), ("Others", "Good evening."), ("Information", "It is open\nuntil nine.")]
SAID = [("Question", "Why so?"), ("Question", "Hello."), ("Information", "It opens at nine.")]
PAIRS = [
    {"label": f"[{gold[0]}] {gold[1]}", "predict": f"[{said[0]}] {said[1]}"}
    for gold, said in zip(GOLD, SAID, strict=True)
]
FOUR = [
    {"gold_strategy": gold[0], "predicted_strategy": said[0], "gold_text": gold[1], "predicted_text": said[1]}
    for gold, said in zip(GOLD, SAID, strict=True)
]
OURS: list[dict[str, Any]] = [{"conversation_id": f"d{k // 2}", "turn_id": k} | four for k, four in enumerate(FOUR)]

Rows = list[dict[str, Any]]


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in rows).encode()


def table(delimiter: str, encoding: str) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode(encoding)

    return write


def parquet(rows: Rows) -> bytes:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    files.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


FORMS: dict[str, Callable[[Rows], bytes]] = {
    "lines": lines,
    "lines, CRLF and a mark": lambda rows: b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n"),
    "lines, UTF-16": lambda rows: lines(rows).decode().encode("utf-16"),
    "a list": lambda rows: json.dumps(rows, indent=1).encode(),
    "a list in an object": lambda rows: json.dumps({"model": "m", "results": rows}, indent=1).encode(),
    "a list a column": lambda rows: json.dumps({name: [row[name] for row in rows] for name in rows[0]}).encode(),
    "commas": table(",", "utf-8"),
    "semicolons and a mark": table(";", "utf-8-sig"),
    "tabs, UTF-16": table("\t", "utf-16"),
    "parquet": parquet,
}


def read(folder: Path, rows: Rows, form: str = "lines", source: str | None = None) -> list[Prediction]:
    path = folder / "own"
    path.write_bytes(FORMS[form](rows))
    return import_predictions(path, source)


def told(rows: list[Prediction]) -> list[tuple[str | None, str | None, str, str | None]]:
    return [(each.gold_strategy, each.predicted_strategy, each.gold_text, each.predicted_text) for each in rows]


EXPECTED = [tuple(each.values()) for each in FOUR]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [PAIRS, FOUR, OURS], ids=["pairs", "fields", "ours"])
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str, rows: Rows) -> None:
    found = read(tmp_path, rows, form)
    assert told(found) == EXPECTED
    if rows is OURS:
        assert [(each.conversation_id, str(each.turn_id)) for each in found] == [("d0", "0"), ("d0", "1"), ("d1", "2")]


def test_one_row_that_holds_a_list_of_objects_is_a_row(tmp_path: Path) -> None:
    row = PAIRS[0] | {"messages": [{"role": "user", "content": "x"}]}
    assert told(read(tmp_path, [row])) == EXPECTED[:1]


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ("label", "prediction"),
        ("Reference", "Hypothesis"),
        ("reference", "generated_text"),
        ("labels", "response"),
        ("response", "prediction"),
        ("target", "output"),
        ("gold", "pred"),
        ("ground truth", "generated-response"),
        ("gold_text", "answer"),
    ],
)
def test_names_of_fields(tmp_path: Path, gold: str, predicted: str) -> None:
    rows = [{"prompt": "p", gold: each["label"], predicted: each["predict"]} for each in PAIRS]
    found = read(tmp_path, rows)
    assert told(found) == EXPECTED
    assert found[0].extra == {"prompt": "p"}
    assert told(read(tmp_path, rows, source="llamafactory")) == EXPECTED


@pytest.mark.parametrize(
    "names",
    [
        ("GT_strategy", "predict_strategy", "GT_content", "predict_content"),
        ("strategy", "pred_strategy", "reference", "response"),
        ("Gold Strategy", "Predicted Strategy", "Gold Text", "Predicted Text"),
    ],
)
def test_names_of_four_fields(tmp_path: Path, names: tuple[str, ...]) -> None:
    rows = [
        dict(zip(names, each.values(), strict=True)) | {"dialog_id": 7, "utterance_id": k}
        for k, each in enumerate(FOUR)
    ]
    found = read(tmp_path, rows)
    assert told(found) == EXPECTED
    assert [(each.conversation_id, each.turn_id) for each in found] == [(7, 0), (7, 1), (7, 2)]


def test_a_gold_strategy_beside_replies_and_beside_texts(tmp_path: Path) -> None:
    rows = [
        {"strategy": gold[0], "reference": gold[1], "prediction": f"[{said[0]}] {said[1]}"}
        for gold, said in zip(GOLD, SAID, strict=True)
    ]
    assert told(read(tmp_path, rows)) == EXPECTED
    texts = [
        {"strategy": gold[0], "reference": gold[1], "prediction": said[1]}
        for gold, said in zip(GOLD, SAID, strict=True)
    ]
    assert told(read(tmp_path, texts)) == [
        (gold[0], None, gold[1], said[1]) for gold, said in zip(GOLD, SAID, strict=True)
    ]
    assert "Strategy figures are null: no row has a predicted strategy." in measured(read(tmp_path, texts)).warnings


def test_strategies_alone_and_texts_alone(tmp_path: Path) -> None:
    for names in (("gold_strategy", "predicted_strategy"), ("gold", "pred")):
        rows = [dict(zip(names, (gold[0], said[0]), strict=True)) for gold, said in zip(GOLD, SAID, strict=True)]
        for form in ("lines", "commas"):
            found = read(tmp_path, [{"conversation_id": "d", "turn_id": k} | each for k, each in enumerate(rows)], form)
            assert told(found) == [(gold[0], said[0], "", None) for gold, said in zip(GOLD, SAID, strict=True)]
    texts = [each | {"gold_strategy": "", "predicted_strategy": "", "finish": ""} for each in FOUR]
    assert {each[:2] for each in told(read(tmp_path, texts, "commas"))} == {(None, None)}


def test_a_field_for_predictions_that_is_null_throughout_was_asked_for(tmp_path: Path) -> None:
    rows = [each | {"predicted_strategy": None} for each in FOUR]
    check_unparsed(read(tmp_path, rows), hint=False)


def test_empty_cells_of_our_fields_are_null(tmp_path: Path) -> None:
    rows = [
        each | {"predicted_strategy": "", "group": "", "position": "[1, 4]", "seeker_turns": '["a"]'} for each in OURS
    ]
    found = read(tmp_path, rows, "commas")
    assert {(each.predicted_strategy, each.group) for each in found} == {(None, None)}
    assert (found[0].position, found[0].seeker_turns) == ([1, 4], ["a"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "p", "predict": "x"}],
            "has no field for what is gold that esckit knows (its fields: prompt, predict)",
        ),
        (
            [{"label": "x", "prompt": "p"}],
            "has no field for what is predicted that esckit knows (its fields: label, prompt)",
        ),
        ([{"label": "x", "response": "y", "output": "z"}], "has no field for what is predicted that esckit knows"),
        ([{"label": " ", "predict": "x"}], "all 1 gold texts (label) are empty: predict with the human replies"),
        ([{"reference": "", "hypothesis": "x"}], "all 1 gold texts (reference) are empty"),
        ([{"label": "<think>a</think>", "predict": "x"}], "all 1 gold texts (label) are empty"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(tmp_path: Path, rows: Rows, message: str) -> None:
    with pytest.raises(PredictionsError) as caught:
        read(tmp_path, rows)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"label,predict\n", "holds no row: give one for each predicted supporter turn."),
        (b"label,predict\na,b,c\n", "line 2 has 3 cells and the header 2"),
        (b"PK\x03\x04", "is a workbook (xlsx, ods) or another archive: save the sheet as CSV in UTF-8."),
        (b"PAR1 and no more", "cannot be read as Parquet ("),
        ("label,predict\nça,b\n".encode("cp1252"), "is not UTF-8 text (byte 14): save it as UTF-8."),
    ],
)
def test_broken_files_are_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    if b"PAR1" in content:
        pytest.importorskip("pyarrow")
    (tmp_path / "own").write_bytes(content)
    with pytest.raises(PredictionsError) as caught:
        import_predictions(tmp_path / "own")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chinese_in_gbk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    text = "label,predict\n[Question] 你是什么时候开始这样想的？,[Question] 这是从什么时候开始的？\n"
    path.write_bytes(text.encode("gbk"))
    (found,) = import_predictions(path)
    assert told([found]) == [("Question", "Question", "你是什么时候开始这样想的？", "这是从什么时候开始的？")]
    path.write_bytes("label,predict\n밤마다 힘드셨군요,힘드셨군요\n".encode("euc-kr"))
    with pytest.raises(PredictionsError, match="is not UTF-8 text"):
        import_predictions(path)


THOUGHTS = ["<think>\n\n</think>\n\n", "<think>\nWhy? [Others]\n</think>\n", "They ask. [Others]\n</think>\n\n"]


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("sides", [("predict",), ("label",), ("predict", "label")])
def test_thoughts_are_taken_off_replies_on_either_side(tmp_path: Path, thought: str, sides: tuple[str, ...]) -> None:
    rows = [each | {side: thought + each[side] for side in sides} for each in PAIRS]
    found = read(tmp_path, rows)
    assert told(found) == EXPECTED
    assert [each.raw for each in found] == [each["predict"] for each in rows]


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("source", ["esckit", "decoupled-esc", None])
def test_thoughts_are_taken_off_every_field(tmp_path: Path, thought: str, source: str | None) -> None:
    rows = [each | {name: thought + each[name] for name in FOUR[0]} for each in OURS]
    raw = "\n".join(rows[0][name] for name in ("predicted_strategy", "predicted_text"))
    if source != "esckit":
        names = ("conversation_id", "turn_id", "GT_strategy", "predict_strategy", "GT_content", "predict_content")
        rows = [dict(zip(names, each.values(), strict=True)) for each in rows]
    found = read(tmp_path, rows, source=source)
    assert told(found) == EXPECTED
    assert found[0].raw == raw
    if source == "esckit":
        assert read_predictions(tmp_path / "own") == found


def test_a_thought_that_was_cut_is_no_reply(tmp_path: Path) -> None:
    found = read(tmp_path, [each | {"predict": "<think>\n[Question] could fit, or"} for each in PAIRS])
    assert {(each.predicted_strategy, each.predicted_text) for each in found} == {(None, None)}
    figures = measured(found)
    assert (figures.strategy.q, figures.text) == (0, None)
    assert "Text figures are null: no row has a predicted text." in figures.warnings


@pytest.mark.parametrize(
    "mark",
    ["**[{}]** ", "[{}]: ", "> [{}] ", "[**{}**] ", "【{}】", "[{}]\n", "Here is my turn:\n[{}] "],
)
def test_marks_that_are_read(tmp_path: Path, mark: str) -> None:
    changes: list[Callable[[str], str]] = [str.title, str.upper, str]
    for change in changes:
        written = [mark.format(change(label)) + text for label, text in SAID]
        rows = [each | {"predict": text} for each, text in zip(PAIRS, written, strict=True)]
        found = read(tmp_path, rows)
        assert [ESCONV.match(each.predicted_strategy) for each in found] == [said[0] for said in SAID]
        assert [each.predicted_text for each in found] == [said[1] for said in SAID]
        assert measured(found).strategy.parse_rate == 1


UNREAD = ["{}: ", "({}) ", "Strategy: {}\nResponse: ", "**{}**: ", "{} - ", "{}\n", "**Strategy:** {}\n"]


@pytest.mark.parametrize("mark", UNREAD)
def test_other_marks_are_unparsed_and_told(tmp_path: Path, mark: str) -> None:
    rows = [each | {"predict": mark.format(said[0]) + said[1]} for each, said in zip(PAIRS, SAID, strict=True)]
    check_unparsed(read(tmp_path, rows), hint=True)


def check_unparsed(rows: list[Prediction], *, hint: bool) -> None:
    figures = measured(rows)
    strategy, n = figures.strategy, len(rows)
    assert (strategy.q, strategy.q_w, strategy.accuracy, strategy.parse_rate, strategy.b) == (0, 0, 0, 0, None)
    assert f"{n} of {n} predicted strategies are unparsed." in figures.warnings
    assert hint == any(f"{n} of these begin with a label" in warning for warning in figures.warnings)
    with pytest.raises(PredictionsError, match=f"{n} of {n} predicted strategies are unparsed"):
        measured(rows, unparsed="refuse")
    dropped = measured(rows, unparsed="drop")
    assert dropped.strategy is None
    assert any("drop leaves none, and strategy figures are null" in warning for warning in dropped.warnings)


def test_files_of_ours_of_which_nothing_can_be_read() -> None:
    check_unparsed([row("Question", None, turn=k, raw="Ask them.") for k in range(3)], hint=False)
    check_unparsed([row("Question", None, turn=k, predicted_text="Question: Why?") for k in range(3)], hint=True)
    check_unparsed([row("Question", "Question: Why?", turn=k) for k in range(3)], hint=True)


@pytest.mark.parametrize("text", ["Information is hard to find.", "Others say so, too.", "Question", "Why?"])
def test_words_that_are_labels_too_are_no_marks(text: str) -> None:
    warnings = measured([row("Others", "Empathy", predicted_text=text)]).warnings
    assert not any("begin with a label" in warning for warning in warnings)


def test_figures_that_vanish_say_why() -> None:
    def warnings(*rows: Prediction, **how: Any) -> list[str]:
        return list(measured(list(rows), **how).warnings)

    assert "Strategy figures are null: no row has a gold strategy." in warnings(row(None, None))
    assert "Strategy figures are null: no row has a predicted strategy." in warnings(row("Question", None))
    given = row("Question", None, extra={"strategy_given": "gold"})
    assert "Strategy figures are null: the strategies were given to the model." in warnings(given)
    silent = warnings(row(None, None), metrics=["text"]), warnings(given, metrics=["meteor"])
    assert not any("null" in warning for each in silent for warning in each)


def test_gold_texts_that_are_empty() -> None:
    rows = [row("Question", "Question", turn=k, gold_text="" if k else "Why?") for k in range(3)]
    assert "2 of 3 gold texts are empty: what is compared with them is 0." in measured(rows).warnings
    with pytest.raises(PredictionsError, match=r"all 2 gold texts \(gold_text\) are empty: write the human replies"):
        measured(rows[1:])
    assert measured(rows[1:], metrics=["strategy"]).strategy.q == 1 / len(LABELS)
    planner = [row("Question", "Question", turn=k, gold_text="", predicted_text=None) for k in range(2)]
    assert measured(planner).strategy.accuracy == 1


def numbered(rows: list[Prediction]) -> list[Prediction]:
    """The rows as another program would write them, and an importer number them."""
    return [replace(each, conversation_id=k, turn_id=k) for k, each in enumerate(rows, 1)]


FAST: dict[str, Any] = {"permutations": 100, "resamples": 50, "metrics": ["strategy", "text"]}


@pytest.mark.parametrize("order", [1, -1])
def test_rows_without_ids_are_matched_by_gold_text_and_order(order: int) -> None:
    ours = random_rows(60)
    theirs = numbered(ours[::order])
    expected = compare({"a": ours, "b": ours}, **FAST)
    for files in ({"a": ours, "b": theirs}, {"b": theirs, "a": ours}):
        found = compare(files, **FAST)
        assert {test.turns for test in found.comparisons} == {60}
        assert all(test.difference == 0 for test in found.comparisons)
        assert found.files["b"].dialogues == 10
        assert found.files["b"].strategy == expected.files["b"].strategy
        assert "b has no ids of a: its rows are taken for turns of the same gold text there." in found.warnings


def test_rows_of_a_part_are_matched_where_their_text_is_told_apart() -> None:
    ours = random_rows(60)
    part = numbered(ours[::2])
    found = compare({"a": ours, "b": part}, **FAST)
    (turns,) = {test.turns for test in found.comparisons}
    assert 25 <= turns <= 30
    told = f"a and b are compared over the {turns} turns that both predict; {90 - 2 * turns} others are left out."
    assert told in found.warnings


def test_ids_are_the_same_as_numbers_and_as_texts() -> None:
    ours = [replace(each, conversation_id=k // 6) for k, each in enumerate(random_rows(60))]
    theirs = [replace(each, conversation_id=str(each.conversation_id), turn_id=str(each.turn_id)) for each in ours]
    assert {test.turns for test in compare({"a": ours, "b": theirs}, **FAST).comparisons} == {60}


def test_a_planner_and_a_generator_of_the_same_turns() -> None:
    ours = random_rows(40)
    planner = numbered([replace(each, gold_text="", predicted_text=None) for each in ours])
    generator = numbered([replace(each, gold_strategy=None, predicted_strategy=None) for each in ours])
    found = compare({"both": ours, "planner": planner, "generator": generator}, **FAST)
    pairs = {(test.a, test.b, test.metric) for test in found.comparisons}
    assert {pair[2] for pair in pairs if pair[1] == "planner"} == {"q", "q_w", "accuracy", "b"}
    assert "f1_utterance" in {pair[2] for pair in pairs if pair[1] == "generator"}
    assert any("not compared by text: planner has no such figures" in warning for warning in found.warnings)


def test_files_of_other_dialogues_are_refused_with_an_id_of_each() -> None:
    mine, other = random_rows(20), [row("Question", "Others", dialogue="x", turn="t", gold_text="Elsewhere.")]
    with pytest.raises(PredictionsError) as caught:
        compare({"a": mine, "b": other}, **FAST)
    assert "a has conversation 'd0', turn 0; b has conversation 'x', turn 't'" in str(caught.value)


TALK = Conversation(
    "talk",
    [
        Turn("1", None, "seeker", "I am sad."),
        Turn("2", "1", "supporter", "Why is that?", "Question"),
        Turn("3", "2", "seeker", "I lost my job."),
        Turn("4", "3", "supporter", "That is hard.", "Reflection of feelings"),
    ],
)


def test_rows_without_ids_find_their_dialogues(tmp_path: Path) -> None:
    pairs = [
        {"label": "[Question]  why is that? ", "predict": "[Others] Oh."},
        {"label": "[Others] No.", "predict": "x"},
    ]
    (found,) = add_context(read(tmp_path, pairs[:1]), [TALK])
    assert (found.conversation_id, found.turn_id, found.position, found.seeker_turns) == (
        "talk",
        "2",
        [2, 4],
        ["I am sad."],
    )
    with pytest.raises(PredictionsError, match=r"is in none of the dialogues: .* \(the first here is 'talk'"):
        add_context(read(tmp_path, pairs), [TALK])


def figures(name: str) -> Evaluation:
    return evaluate(import_predictions(field(f"predictions/{name}.jsonl"), "llamafactory"), resamples=50)


@pytest.mark.parametrize("name", ["01-think-empty-both", "01-think-predictions-only", "09-bold"])
def test_files_of_the_field_like_the_plain_one(name: str) -> None:
    found, plain = figures(name), figures("plain")
    assert (found.strategy, found.text) == (plain.strategy, plain.text)
    assert found.strategy is not None
    assert found.text is not None
    strategy = (found.strategy.q, found.strategy.q_w, found.strategy.accuracy, found.strategy.b)
    assert strategy == pytest.approx((0.604, 0.639, 0.667, 1.10), abs=5e-3)
    text = [getattr(found.text, f"{each}_utterance") for each in ("bleu1", "f1", "rouge_l", "meteor")]
    assert text == pytest.approx([0.559, 0.627, 0.588, 0.550], abs=5e-4)
    assert found.text.mean_tokens == pytest.approx(8.33, abs=5e-3)
    (first, *_) = import_predictions(field(f"predictions/{name}.jsonl"), "llamafactory")
    assert (
        first.raw
        == json.loads(field(f"predictions/{name}.jsonl").read_text(encoding="utf-8").split("\n")[0])["predict"]
    )


@pytest.mark.parametrize("name", ["09-colon", "09-round-brackets", "09-two-lines"])
def test_files_of_the_field_of_which_nothing_is_read(name: str) -> None:
    rows = import_predictions(field(f"predictions/{name}.jsonl"), "llamafactory")
    check_unparsed(rows, hint=True)
    plain = import_predictions(field("predictions/plain.jsonl"), "llamafactory")
    found = {test.metric: test.difference for test in compare({name: rows, "plain": plain}, **FAST).comparisons}
    assert (found["q"], found["q_w"]) == pytest.approx((-0.604, -0.639), abs=5e-4)
    assert "b" not in found


def test_other_files_of_the_field() -> None:
    found = figures("09-colon-but-one")
    assert found.strategy is not None
    assert found.strategy.q == pytest.approx(0.083, abs=5e-4)
    assert "11 of 12 predicted strategies are unparsed." in found.warnings
    with pytest.raises(PredictionsError, match=r"all 12 gold texts \(label\) are empty: "):
        figures("25-empty-labels")
