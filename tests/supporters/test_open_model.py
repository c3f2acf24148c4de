"""A supporter's folder named where a chat model is: the language model that words its replies, with any prompt."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.opening import ChatModelOptions
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import write_conversations
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.judging.open_annotator import AnnotatorOptions, check_annotator
from esckit.measures import read_predictions
from esckit.supporters import Supporter
from esckit.supporters.baselines import BaselineOptions
from esckit.supporters.open_model import check_model, open_model, prompted
from esckit.supporters.supporter_folder import SupporterCard
from tests.cli.test_entry import call
from tests.supporters.test_as_chat_model import answers
from tests.tiny import starter_dialogues, write_supporter

PROMPT = ChatRequest(
    (Message("system", "Be brief."), Message("user", "Hello?")), Decoding(temperature=3.0, top_p=1.0, max_new_tokens=8)
)


def named(folder: Path, **more: Any) -> ChatModelOptions:
    return ChatModelOptions(model=str(folder), **more)


@pytest.mark.parametrize(("kind", "adapter"), [("decoupled", "generator"), ("coupled", "coupled")])
def test_it_answers_under_the_adapter_that_words_replies(kind: Any, adapter: str, folders: dict[str, Path]) -> None:
    model = open_model(named(folders[kind], concurrency=3))
    assert isinstance(model, LocalChatModel)
    assert model.batch_size == 3
    (said,) = answers(model, [PROMPT])
    with model.backbone.playing(adapter):
        assert answers(LocalChatModel(model.backbone, adapter=adapter), [PROMPT]) == [said]
    (plain,) = answers(open_model(named(folders[kind] / "base")), [PROMPT])
    assert plain != said


def test_its_identity_is_its_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    first = open_model(named(folders["decoupled"])).identity
    assert open_model(named(folders["decoupled"], concurrency=2)).identity == first
    assert open_model(named(write_supporter(tmp_path / "other", seed=7))).identity != first
    assert open_model(named(folders["decoupled"] / "base")).identity != first


def test_a_supporter_without_a_language_model_is_refused(tmp_path: Path, retrieval: Supporter) -> None:
    card = SupporterCard("decoupled", "hidden", planner="encoder", generator="retrieval")
    described = {"format": 1, **asdict(card), "adapters": {}}
    (tmp_path / "supporter.json").write_text(json.dumps(described), encoding="utf-8")
    wordless = f"no language model words the replies of {tmp_path}: name a supporter that has one, or a chat model."
    for options in (named(tmp_path), BaselineOptions(method="base", model=str(tmp_path))):
        with pytest.raises(ModelError) as error:
            check_model(options)
        assert str(error.value) == wordless
        with pytest.raises(ModelError, match="no language model words"):
            open_model(options)
    with pytest.raises(ModelError, match="no language model words"):
        check_annotator(AnnotatorOptions(model=str(tmp_path)), [])
    with pytest.raises(ModelError, match="no language model words the replies of this supporter"):
        prompted(retrieval)


def test_a_broken_supporter_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "supporter.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"is not a supporter\.json"):
        check_model(named(tmp_path))


def test_it_answers_as_baseline_and_annotator_of_commands(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talks, out = tmp_path / "dialogues.jsonl", tmp_path / "out.jsonl"
    write_conversations(talks, starter_dialogues(1, 4))
    short = ("--model", folders["decoupled"], "--max-new-tokens", "3")
    assert call(monkeypatch, "baseline", "base", talks, out, *short) == 0
    assert {row.extra["baseline"] for row in read_predictions(out)} == {"base"}
    assert call(monkeypatch, "annotate", talks, tmp_path / "annotated.jsonl", *short) == 0
    assert "judged by decoupled@" in capsys.readouterr().out
