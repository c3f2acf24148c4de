"""benchmarks/experts.py runs on tiny models, and its contenders train as many weights of one total rank."""

import json
from concurrent.futures import Executor, Future
from typing import Any

import pytest

import common
import experts
from esckit.language_models.backbone import load_backbone
from tests.tiny import starter_dialogues


class Here(Executor):
    """Does at once, in this process, what is asked of another."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, act: Any, /, *given: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(act(*given, **more))
        return done


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(common, "load", lambda _: starter_dialogues(2, 5))
    monkeypatch.setattr(experts, "ProcessPoolExecutor", Here)
    monkeypatch.setattr("sys.argv", ["experts.py", "--threads", "1", "--rounds", "1", *arguments])
    experts.main()


def test_the_last_line_has_every_ratio(
    base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--models", base, "--turns", "2", "--new-tokens", "3")
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    kinds = ("step", "memory", *(f"write_{batch}" for batch in (1, 4, 16)))
    assert set(last) == {f"base_{kind}_over_{peer}" for kind in kinds for peer in ("lora", "peft")}
    assert all(value > 0 for value in last.values())


def test_it_is_skipped_with_a_sentence_where_the_model_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--models", "./no-such-folder")
    assert capsys.readouterr().out.startswith("Skipped: ./no-such-folder is no folder")


def test_the_contenders_train_adapters_of_one_size(base: str) -> None:
    trained = {
        contender: sum(
            p.numel()
            for name, p in experts.adapt(load_backbone(base), contender, 32).named_parameters()
            if p.requires_grad and "gate." not in name and "embedding" not in name
        )
        for contender in (experts.EXPERTS, experts.LORA, experts.PEFT)
    }
    assert len(set(trained.values())) == 1
