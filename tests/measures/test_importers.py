"""Predictions that LLaMA-Factory and DecoupledESC wrote, by hand-made files."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.errors import PredictionsError
from esckit.measures import Prediction, import_predictions, prediction_to_json
from esckit.strategy import CSO

from .rows import measured, random_rows


def write(path: Path, rows: list[Any], *, as_list: bool = False) -> Path:
    text = json.dumps(rows, indent=2) if as_list else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def llamafactory(path: Path, *pairs: tuple[str, str]) -> list[Prediction]:
    rows = [{"prompt": "p", "predict": predict, "label": label} for label, predict in pairs]
    return import_predictions(write(path / "generated_predictions.jsonl", rows), "llamafactory")


def decoupled(path: Path, *rows: tuple[str, str | None], as_list: bool = True, **more: Any) -> list[Prediction]:
    records = [
        {"GT_strategy": gold, "predict_strategy": predicted, "GT_content": "Why?", "predict_content": "I see."} | more
        for gold, predicted in rows
    ]
    return import_predictions(write(path / "outputs.json", records, as_list=as_list), "decoupled-esc")


def test_esckit_files_are_read_as_they_are(tmp_path: Path) -> None:
    rows = random_rows(10)
    path = write(tmp_path / "p.jsonl", [prediction_to_json(row) for row in rows])
    assert import_predictions(path, "esckit") == rows


@pytest.mark.parametrize(
    ("label", "predict", "expected"),
    [
        ("[Question] Why?", "[Information] I see.", ("Question", "Information", "Why?", "I see.")),
        ("[question] Why?", " [ INFORMATION ]I see.\n", ("question", " INFORMATION ", "Why?", "I see.")),
        ("[Question] Why?", "[Empathy] I see.", ("Question", "Empathy", "Why?", "I see.")),
        ("[Question] Why?", "I [Question] see.", ("Question", None, "Why?", "I [Question] see.")),
        ("[Question] Why?", "[Information", ("Question", None, "Why?", "[Information")),
        ("[Question] Why?", "[Information]", ("Question", "Information", "Why?", "")),
        ("[Question] Why?", "", ("Question", None, "Why?", "")),
        ("[Question] One\ntwo", "[Others] One\ntwo", ("Question", "Others", "One\ntwo", "One\ntwo")),
        ("[Question]", "[Others]", ("Question", "Others", "", None)),
        ("Question", "others", ("Question", "Others", "", None)),
        ("Question", "I would ask.", ("Question", None, "", None)),
        ("Why?", "I see.", (None, None, "Why?", "I see.")),
        ("Why?", "[Question] I see.", (None, None, "Why?", "[Question] I see.")),
    ],
)
def test_llamafactory_replies(
    tmp_path: Path, label: str, predict: str, expected: tuple[str | None, str | None, str, str | None]
) -> None:
    (found,) = llamafactory(tmp_path, (label, predict))
    assert (found.gold_strategy, found.predicted_strategy, found.gold_text, found.predicted_text) == expected
    assert found.raw == predict
    assert found.extra == {"prompt": "p"}


def test_rows_of_a_planner_a_generator_and_both_are_measured_by_what_they_have(tmp_path: Path) -> None:
    planner = measured(llamafactory(tmp_path, ("[Question]", "[Others]"), ("[Others]", "[Others]")))
    assert planner.text is None
    assert planner.strategy.accuracy == 0.5
    generator = measured(llamafactory(tmp_path, ("Why?", "Why?"), ("I see.", "Why?")))
    assert generator.strategy is None
    assert generator.text.f1_corpus > 0
    both = measured(llamafactory(tmp_path, ("[Question] Why?", "[Question] Why?"), ("[Others] A.", "B.")))
    assert both.strategy.parse_rate == 0.5
    assert both.text.f1_utterance > 0.5


@pytest.mark.parametrize("as_list", [True, False])
def test_decoupled_esc_as_a_list_and_as_lines(tmp_path: Path, as_list: bool) -> None:
    first, second = decoupled(tmp_path, ("Question", "[information]"), ("Others", None), as_list=as_list, model="m")
    assert (first.gold_strategy, first.predicted_strategy) == ("Question", "information")
    assert (first.gold_text, first.predicted_text) == ("Why?", "I see.")
    assert (first.conversation_id, first.turn_id, second.conversation_id) == (1, 1, 2)
    assert second.predicted_strategy is None
    assert first.extra == {"model": "m"}


def test_unparsed_rows_are_wrong_or_vanish_as_in_their_code(tmp_path: Path) -> None:
    rows = decoupled(tmp_path, ("Question", "Question"), ("Others", "Empathy"), ("Others", "Question"))
    assert measured(rows).strategy.accuracy == pytest.approx(1 / 3)
    assert measured(rows, unparsed="drop").strategy.accuracy == pytest.approx(1 / 2)


def test_aliases_hold_where_the_gold_labels_use_them_and_nowhere_else(tmp_path: Path) -> None:
    variants = decoupled(tmp_path, ("direct guidance", "Direct Guidance"), ("Other", "Restatement"))
    assert [row.gold_strategy for row in variants] == ["Providing Suggestions", "Others"]
    assert [row.predicted_strategy for row in variants] == ["Providing Suggestions", "Restatement"]
    (plain,) = decoupled(tmp_path, ("Question", "Questions"))
    assert plain.predicted_strategy == "Questions"
    (reply,) = llamafactory(tmp_path, ("[Questions] Why?", "[Questions] Who?"))
    assert (reply.gold_strategy, reply.predicted_strategy) == ("Question", "Question")


def test_ids_are_kept_where_the_file_has_them(tmp_path: Path) -> None:
    rows = decoupled(tmp_path, ("Question", "Question"), ("Others", "Others"), conversation_id="d")
    assert [(row.conversation_id, row.turn_id) for row in rows] == [("d", 1), ("d", 2)]
    assert not any("conversation_id of its own" in warning for warning in measured(rows).warnings)


def test_without_ids_a_warning_says_that_turns_are_resampled(tmp_path: Path) -> None:
    rows = decoupled(tmp_path, ("Question", "Question"), ("Others", "Others"))
    assert any("Every turn has a conversation_id of its own" in warning for warning in measured(rows).warnings)


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("decoupled-esc", "[]", "p.json is an empty list: give one object for each"),
        ("decoupled-esc", "[{]", "p.json is not JSON ("),
        ("decoupled-esc", r'[{"GT_content": "\ud800"}]', "p.json is not JSON (Half of a surrogate pair"),
        ("decoupled-esc", "", "p.json is empty: "),
        ("decoupled-esc", "[1]", "p.json, row 1: this is no JSON object: "),
        ("llamafactory", '{"label": "a"', "p.json, line 1: this is not JSON ("),
        ("llamafactory", '{"label": "a"}', "p.json, line 1: predict is missing or no text: write a string."),
        ("llamafactory", '{"predict": "a"}', "p.json, line 1: label is missing or no text: write a string."),
        (
            "llamafactory",
            '{"label": "[Empathy] a", "predict": "a"}',
            'p.json, line 1: gold_strategy is "Empathy", no label of the taxonomy esconv: use one of Question',
        ),
        (
            "decoupled-esc",
            '[{"GT_strategy": "Question", "GT_content": "a", "predict_content": "b"}]',
            "p.json, row 1: predict_strategy is missing: write a string, or null where nothing was predicted.",
        ),
        ("somewhere", "", "the source 'somewhere' is unknown: use one of esckit, llamafactory, decoupled-esc."),
    ],
)
def test_bad_files(tmp_path: Path, source: str, content: str, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(PredictionsError) as caught:
        import_predictions(path, source)
    assert message in str(caught.value)


def test_a_row_given_twice(tmp_path: Path) -> None:
    with pytest.raises(
        PredictionsError, match=r"outputs\.json, row 2: conversation 'd', turn 1 stands in row 1 already"
    ):
        decoupled(tmp_path, ("Question", "Question"), ("Others", "Others"), conversation_id="d", turn_id=1)


def test_aliases_belong_to_esconv(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"label": "[Questions] a", "predict": "b"}])
    with pytest.raises(PredictionsError, match='gold_strategy is "Questions", no label of the taxonomy cso'):
        import_predictions(path, "llamafactory", CSO)
