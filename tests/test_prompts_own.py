"""A user's prompts: what replaces what, what a record says of them, every folder that is refused in one sentence."""

from pathlib import Path
from typing import Final

import pytest

from esckit.errors import EsckitError
from esckit.prompts import load_prompt, shipped_prompts
from esckit.prompts.own import METHODS, Prompts, read_prompts, write_prompts

SLOTS: Final = {"transcript": "T", "reply": "R"}
CASE: Final = "Talk: {{transcript}}\nReply: {{reply}}"


def write(folder: Path, **texts: str | bytes) -> Path:
    """Write prompts; ``method__name`` is the file ``method/name.txt``."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_a_users_prompt_replaces_the_shipped_one_of_its_name_alone(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path / "mine", psychological_errors__case=f"\n{CASE}\n"), "psychological_errors")
    assert prompts.fill("case", **SLOTS) == "Talk: T\nReply: R"
    assert prompts.fill("criteria", examples="E") == load_prompt("psychological_errors", "criteria", examples="E")


def test_without_a_folder_all_prompts_are_the_shipped_ones() -> None:
    prompts = read_prompts(None, "judge")
    assert prompts.fill("system") == load_prompt("judge", "system")
    assert (prompts.digest, prompts.label) == (None, None)


def test_a_users_prompt_counts_in_every_language_that_has_none_of_its_own_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", judge__reference="Mine {{reference}}")
    assert read_prompts(folder, "judge").fill("reference", "zh", reference="R") == "Mine R"
    write(folder, **{"judge__reference.zh": "我的{{reference}}"})
    assert read_prompts(folder, "judge").fill("reference", "zh", reference="R") == "我的R"
    assert read_prompts(folder, "judge").fill("reference", reference="R") == "Mine R"
    ours = shipped_prompts("judge")["reference.zh"]
    write(folder, **{"judge__reference.zh": ours})
    assert read_prompts(folder, "judge").fill("reference", "zh", reference="R") == load_prompt(
        "judge", "reference", "zh", reference="R"
    )


def test_a_value_that_looks_like_a_slot_is_not_filled_again(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path, psychological_errors__case=CASE), "psychological_errors")
    value = r"{{reply}} {{other}} {} %s \1 \g<0>"
    assert prompts.fill("case", transcript=value, reply="R") == f"Talk: {value}\nReply: R"


def test_single_braces_are_the_users_own(tmp_path: Path) -> None:
    text = 'Talk: {{transcript}} Reply: {{reply}} Answer {"error": "none", "more": {"a": {}}} and {reply}.'
    prompts = read_prompts(write(tmp_path, psychological_errors__case=text), "psychological_errors")
    assert prompts.fill("case", **SLOTS) == text.replace("{{transcript}}", "T").replace("{{reply}}", "R")


def test_a_file_of_another_system_says_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain" / "mine", psychological_errors__case=CASE)
    other = write(tmp_path / "mine", psychological_errors__case=b"\xef\xbb\xbf" + CASE.replace("\n", "\r\n").encode())
    write(other, **{".git__HEAD": "hidden", "judge__.system": "hidden"})
    assert read_prompts(other, "psychological_errors") == read_prompts(plain, "psychological_errors")


def test_a_record_names_the_folder_and_depends_on_the_words_of_its_method(tmp_path: Path) -> None:
    first = read_prompts(write(tmp_path / "mine", judge__system="Judge."), "judge")
    assert first.digest
    assert first.label == f"mine@{first.digest[:8]}"
    more = read_prompts(write(tmp_path / "mine", baselines__words="Speak."), "judge")
    assert more == first
    elsewhere = read_prompts(write(tmp_path / "other", judge__system="Judge."), "judge")
    assert elsewhere.digest == first.digest
    assert read_prompts(write(tmp_path / "mine", judge__system="Judge!"), "judge").digest != first.digest


def test_what_is_written_out_is_complete_and_changes_nothing_until_it_is_changed(tmp_path: Path) -> None:
    names = write_prompts(tmp_path / "mine")
    assert sorted(names) == sorted(f"{method}/{name}.txt" for method in METHODS for name in shipped_prompts(method))
    for method in METHODS:
        assert read_prompts(tmp_path / "mine", method) == Prompts(method, "mine")
        assert read_prompts(tmp_path / "mine", method).label is None
    write(tmp_path / "mine", judge__system="Judge.")
    chinese = shipped_prompts("judge")["system.zh"].strip()
    assert read_prompts(tmp_path / "mine", "judge").texts == {"system": "Judge.", "system.zh": chinese}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "mine", judge__system="Judge.")
    (tmp_path / "file").write_text("mine")
    for place in ("mine", "file"):
        with pytest.raises(EsckitError, match=f"{place} is there already and is not overwritten"):
            write_prompts(tmp_path / place)
    assert [path.name for path in (tmp_path / "mine").rglob("*.txt")] == ["system.txt"]
    (tmp_path / "empty").mkdir()
    assert write_prompts(tmp_path / "empty")


NONE: Final = (
    "holds none of what is asked here with (judge/caps.txt, judge/duel.txt, judge/problems.txt, judge/reference.txt, "
    "judge/role.txt, judge/score.txt"
)
LAYOUT: Final = "belongs to a layout that models are trained in, whose prompts stay the shipped ones: remove it"
NEAR: Final = "has the name of no prompt: name it like one that it replaces (judge/score.txt"


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({}, NONE),
        ({"baselines__words": "Speak."}, NONE),
        ({"judge__scores": "x"}, f"scores.txt {NEAR}"),
        ({"judging__score": "x"}, f"score.txt {NEAR}"),
        ({"score": "x"}, f"score.txt {NEAR}"),
        ({"judge__old__score": "x"}, "old has the name of no prompt: name it like one that it replaces (judge/"),
        ({"judge__system": "x", "qqqq__zzzz": "x"}, "(baselines/base.txt, baselines/"),
        ({"support__system": "x"}, f"system.txt {LAYOUT}"),
        ({"decoupled_esc__planner": "x"}, f"planner.txt {LAYOUT}"),
        ({"judge__system": b"caf\xe9"}, "system.txt is not UTF-8 text (byte 3): save it as UTF-8."),
        ({"judge__system": " \n"}, "system.txt is empty: write the prompt, or remove the file"),
        (
            {"judge__reference": "A human said something."},
            "reference.txt lacks the slot {{reference}}, and what belongs there would be left out in silence: write it "
            "where it belongs (its slots are {{reference}}).",
        ),
        ({"judge__system": "x", "psychological_errors__case": "{{reply}}"}, "case.txt lacks the slot {{transcript}}"),
        (
            {"judge__reference": "{{reference}} of {{persona}}"},
            "reference.txt has the slot {{persona}}, which nothing fills: its slots are {{reference}}.",
        ),
        ({"judge__reference": "{{ reference }}"}, "has the slot {{ reference }}, which nothing fills: its slots are"),
        (
            {"judge__system": 'Say {{"score": 3}}.'},
            'has the slot {{"score": 3}}, which nothing fills: its slots are none.',
        ),
    ],
)
def test_a_wrong_folder_is_one_sentence(texts: dict[str, str | bytes], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(EsckitError) as error:
        read_prompts(write(tmp_path, **texts), "judge")
    assert sentence in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place, reason in (("nowhere", "No such file or directory"), ("file", "Not a directory")):
        with pytest.raises(EsckitError) as error:
            read_prompts(tmp_path / place, "judge")
        assert str(error.value) == (
            f"the prompts folder {tmp_path / place} cannot be read ({reason}): give a folder as esckit prompts FOLDER "
            "writes it."
        )


@pytest.mark.parametrize("method", METHODS)
def test_every_slot_of_every_prompt_has_to_be_there(method: str, tmp_path: Path) -> None:
    for name, text in shipped_prompts(method).items():
        for slot in {part.split("}}")[0] for part in text.split("{{")[1:]}:
            folder = write(tmp_path / f"{name}-{slot}", **{f"{method}__{name}": text.replace(f"{{{{{slot}}}}}", "")})
            with pytest.raises(EsckitError, match=rf"{name}\.txt lacks the slot {{{{{slot}}}}}, "):
                read_prompts(folder, method)
