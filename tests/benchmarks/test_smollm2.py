"""benchmarks/smollm2.py runs on a tiny model, counts what its products need, and writes what transformers writes."""

import json
from typing import Any

import pytest

import common
import smollm2
from esckit.language_models.backbone import load_backbone
from esckit.language_models.token_tree import TokenTrie
from esckit.rendering import Example
from tests.tiny import starter_dialogues


def run(base: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(common, "load", lambda _: starter_dialogues(2, 9))
    monkeypatch.setattr(smollm2, "SQUARE", 64)
    monkeypatch.setattr("sys.argv", ["smollm2.py", "--threads", "1", "--model", base, *arguments])
    smollm2.main()


def test_the_last_line_has_every_ratio(
    base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(base, monkeypatch, "--turns", "3", "--new-tokens", "4", "--rounds", "2")
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {
        *(f"{kind}_{batch}" for kind in ("generate", "same_text") for batch in (1, 4, 16)),
        *("share_of_peak", "trl_dialogue", "share_of_peak_trl_dialogue"),
        *("trl_per_turn", "share_of_peak_trl_per_turn"),
    }
    assert all(last[f"same_text_{batch}"] == 1 for batch in (1, 4, 16))
    assert all(last[f"generate_{batch}"] > 0 for batch in (1, 4, 16))


def test_it_is_skipped_with_a_sentence_where_the_model_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("./no-such-folder", monkeypatch)
    assert capsys.readouterr().out.startswith("Skipped: ./no-such-folder is no folder")


def test_operations_are_those_that_torch_counts(base: str) -> None:
    """Of a chain, where all pairs that attention computes see each other but for the later half of the square."""
    from torch.utils.flop_counter import FlopCounterMode

    model: Any = common.adapted(load_backbone(base).model).train()  # by PEFT, whose products torch counts all
    trie = TokenTrie.merge([Example("", tuple(range(3, 43)), (), tuple(range(43, 53)))])
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        smollm2.train_step(model, trie, bf16=False)
    nodes, layers, width = 50, 2, 32
    unseen = 3 * 2 * 2 * width * layers * (nodes**2 - nodes * (nodes + 1) // 2)
    assert counter.get_total_flops() == pytest.approx(
        smollm2.operations(model, trie) + unseen, rel=0.05
    )  # the first layer's input needs no gradient


def test_the_dialogue_of_the_wanted_length_is_chosen() -> None:
    short, long = starter_dialogues(1, 5)[0], starter_dialogues(2, 11)[1]
    assert smollm2.choose([short, long], 2) is short
    assert smollm2.choose([short, long], 14) is long
