"""Rubrics as data: the shipped ones, a folder of one's own, and one sentence for what is wrong with a file."""

import json
from pathlib import Path

import pytest

from esckit.chat_models.json_replies import ReplyError, parse_reply, strict_schema
from esckit.errors import EsckitError
from esckit.judging.rubric import load_rubrics, read_rubric

GOOD = "name: calm\nversion: 2\nquestion: Is it calm?\nscale:\n  1: Not at all.\n  2: Rather.\n  3: Yes.\n"


def written(folder: Path, text: str, name: str = "calm.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_papers_four_qualities_have_six_points_each() -> None:
    rubrics = load_rubrics("decoupled-esc")
    assert [rubric.name for rubric in rubrics] == ["empathy", "fluency", "helpfulness", "professionalism"]
    assert all(list(rubric.scale) == [0, 1, 2, 3, 4, 5] for rubric in rubrics)
    assert [rubric.name for rubric in rubrics if not rubric.known_groups] == ["fluency"]


def test_the_self_evolution_papers_seven_qualities_have_five_points_each() -> None:
    rubrics = load_rubrics("self-evolution")
    names = ["coherence", "empathy", "engagement", "helpfulness", "informativeness", "overall", "understanding"]
    assert [rubric.name for rubric in rubrics] == names
    assert all(list(rubric.scale) == [1, 2, 3, 4, 5] for rubric in rubrics)
    assert not any(rubric.caps for rubric in rubrics), "limits are told only where they are asked for"
    capped = load_rubrics("self-evolution", caps=True)
    assert [rubric.name for rubric in capped] == [f"{name}+caps" for name in names]
    assert any("40 words" in cap for rubric in capped for cap in rubric.caps if rubric.name == "overall+caps")


def test_caps_are_of_the_rubrics_that_have_them(tmp_path: Path) -> None:
    written(tmp_path, GOOD + "caps: ['One at most: it shouts.']\n")
    written(tmp_path, GOOD.replace("calm", "kind", 1), "kind.yaml")
    assert [(rubric.name, len(rubric.caps)) for rubric in load_rubrics(str(tmp_path), caps=True)] == [
        ("calm+caps", 1),
        ("kind", 0),
    ]
    with pytest.raises(EsckitError, match="no rubric of decoupled-esc has caps: leave caps out"):
        load_rubrics("decoupled-esc", caps=True)


def test_yaml_and_json_mean_the_same(tmp_path: Path) -> None:
    value = {"name": "calm", "version": 2, "question": "Is it calm?"}
    scale = {"3": "Yes.", "1": "Not at all.", "2": "Rather."}
    yaml = read_rubric(written(tmp_path, GOOD))
    assert read_rubric(written(tmp_path, json.dumps({**value, "scale": scale}), "calm.json")) == yaml
    assert (yaml.lowest, yaml.highest) == (1, 3)
    assert yaml.scale_text == "1: Not at all.\n2: Rather.\n3: Yes."


def test_the_answer_is_derived_from_the_scale_and_a_score_outside_it_is_no_answer(tmp_path: Path) -> None:
    reply = read_rubric(written(tmp_path, GOOD)).reply
    assert list(strict_schema(reply)["properties"]) == ["explanation", "score"]
    assert strict_schema(reply)["properties"]["score"]["enum"] == [1, 2, 3]
    assert parse_reply('{"explanation": "x", "score": 3}', reply).model_dump()["score"] == 3
    for score in ("0", "4", "2.5", '"3"', "true", "null"):
        with pytest.raises(ReplyError):
            parse_reply(f'{{"explanation": "x", "score": {score}}}', reply)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.split("scale")[0], "calm.yaml has no scale: write scale"),
        (GOOD.split("scale")[0] + "scale: {}\n", "calm.yaml has no scale: write scale"),
        (
            GOOD.replace("2: Rather", "5: Rather"),
            "scale: a scale needs two points or more, whole numbers without a gap",
        ),
        (GOOD.replace("2: Rather", "2.5: Rather"), "scale.2.5: input should be a valid integer"),
        (GOOD.replace("calm\n", "Calm down\n"), "name: string should match pattern"),
        (GOOD.replace("question: Is it calm?\n", ""), "question: field required"),
        (GOOD + "anchors: 3\n", "anchors: extra inputs are not permitted"),
        (GOOD + "known_groups: [[gold, silver]]\n", "known_groups.0.1: input should be"),
        ("- a list\n", "is no rubric: it needs the keys"),
        ("name: [\n", "line 2: this is not valid YAML"),
    ],
)
def test_a_broken_rubric_is_one_sentence(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(EsckitError) as caught:
        read_rubric(written(tmp_path, text))
    assert told in str(caught.value)
    assert str(tmp_path / "calm.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_rubrics_or_with_one_name_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(EsckitError, match="holds no rubric"):
        load_rubrics(str(tmp_path))
    written(tmp_path, GOOD)
    assert [rubric.name for rubric in load_rubrics(str(tmp_path))] == ["calm"]
    written(tmp_path, GOOD, "other.yaml")
    with pytest.raises(EsckitError, match="'calm' is in this folder already"):
        load_rubrics(str(tmp_path))
    with pytest.raises(EsckitError, match="there are no rubrics 'nowhere'"):
        load_rubrics("nowhere")
