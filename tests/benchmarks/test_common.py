"""What the benchmarks share: which dialogues are taken, which round has which, and what is made of rates."""

import pytest

import common
from common import OURS, Comparison, choose_dialogues, round_of
from esckit.corpora import load_corpus


@pytest.mark.parametrize(("count", "rounds"), [(6, 3), (5, 3), (4, 2), (1, 1), (7, 2)])
def test_rounds_share_the_dialogues_out(count: int, rounds: int) -> None:
    dialogues = [[length] for length in range(count)]
    shares = [round_of(dialogues, number, rounds) for number in range(rounds)]
    assert all(shares)
    assert sorted(dialogue for share in shares for dialogue in share) == dialogues


def test_rounds_are_alike_in_length() -> None:
    dialogues = [[length] for length in range(12)]
    assert {sum(length for (length,) in round_of(dialogues, number, 3)) for number in range(3)} == {22}


def test_dialogues_are_of_evenly_spread_lengths() -> None:
    corpus = load_corpus("starter").train
    lengths = sorted(sum(len(turn.text or "") for turn in each.trunk) for each in corpus)
    chosen = [sum(len(turn.text or "") for turn in each.trunk) for each in choose_dialogues(corpus, 4)]
    assert chosen == sorted(chosen)
    for quarter, length in enumerate(chosen):
        size = len(lengths) / 4
        assert lengths[int(quarter * size)] <= length <= lengths[min(len(lengths) - 1, int((quarter + 1) * size))]


def test_ratios_are_those_of_a_round_and_the_median_is_theirs() -> None:
    found = Comparison({OURS: [10.0, 6.0, 8.0], "peer": [1.0, 2.0, 4.0]}, {})
    assert found.ratios("peer") == [10.0, 3.0, 2.0]
    assert found.median("peer") == 3.0


@pytest.mark.parametrize("fast", ["bfloat16", "float32"])
def test_the_faster_precision_is_chosen_and_said(
    fast: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "fast_precision", lambda device: fast)
    monkeypatch.setattr("sys.argv", ["preference.py"])
    assert common.parse("A benchmark.", dialogues=4, rounds=2).precision == fast
    assert f", {fast}, " in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["preference.py", "--precision", "float32"])
    assert common.parse("A benchmark.", dialogues=4, rounds=2).precision == "float32"


@pytest.mark.parametrize(("minutes", "rounds"), [(5.0, 3), (0.0, 1)])
def test_when_time_is_over_a_setting_gets_one_round(
    minutes: float, rounds: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sft.py", "--rounds", "3", "--dialogues", "6", "--minutes", str(minutes)])
    given = common.parse("A benchmark.", dialogues=4, rounds=2)
    bench = common.Bench({}, {}, "", given)
    monkeypatch.setattr(common.Bench, "ask", lambda *_: common.Measured(1.0, 2.0))
    found = bench.compare([[each] for each in range(6)], {OURS: 1}, [OURS])
    assert len(found.rates[OURS]) == rounds
    assert ("rounds left out, as 0 minutes are over: 2" in capsys.readouterr().out) == (rounds == 1)


@pytest.mark.parametrize(("fast", "backbone"), [("bfloat16", "10m"), ("float32", "2m")])
def test_a_slow_cpu_trains_the_small_backbone(fast: str, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "fast_precision", lambda device: fast)
    monkeypatch.setattr("sys.argv", ["sft.py"])
    assert common.parse("A benchmark.", dialogues=4, rounds=2).backbone == backbone
