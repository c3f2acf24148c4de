"""A supporter of kind empath in its folder: role experts, a matcher with its bank, a plain planner; all of it tiny."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.chat_models.protocol import ChatReply, ChatRequest
from esckit.conversation import Conversation
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import EsckitError, ModelError
from esckit.language_models.generation import generate
from esckit.measures import read_predictions
from esckit.rendering import Layout
from esckit.supporters import Supporter, language_parts, predict
from esckit.supporters.as_chat_model import SupporterChatModel
from esckit.supporters.casting_options import CastingOptions
from esckit.supporters.chat import Chat
from esckit.supporters.proposing import TurnRequest
from tests.roles.little import STORIES, little_bank
from tests.supporters.empath_folder import write_whole_empath
from tests.tiny import starter_dialogues, talk

BANK: Final = little_bank()
HOT: Final = Decoding(temperature=3.0, top_p=1.0, max_new_tokens=6)
TELLS: Final = "Self-disclosure"
WORK: Final = talk(
    ("seeker", "It is the boss and the office. I am afraid, afraid."),
    ("supporter", "Since when?", "Question"),
    ("seeker", "Since spring, and I fear it."),
    ("supporter", "I see.", TELLS),
    conversation_id="work",
)
ZH: Final = replace(talk(("seeker", "老板和办公室，我很害怕。"), ("supporter", "嗯。", TELLS)), language="zh")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_empath(tmp_path_factory.mktemp("empath"))


@pytest.fixture(scope="module")
def empath(folder: Path) -> Supporter:
    return Supporter.load(folder)


def changed(folder: Path, copy: Path, file: str = "supporter.json", **fields: Any) -> Path:
    shutil.copytree(folder, copy)
    known = json.loads((copy / file).read_text(encoding="utf-8"))
    (copy / file).write_text(json.dumps({**known, **fields}), encoding="utf-8")
    return copy


class Seen:
    """What a generator is asked with: the prompts as text, and the pair of each one's last token."""

    def __init__(self, supporter: Supporter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[str] = []
        self.members: list[dict[str, str | None]] = []
        generator: Any = supporter.generator
        renderer = generator.renderer

        def spied(model: Any, tokenizer: Any, prompts: Any, *more: Any, **under: Any) -> Any:
            self.prompts += [tokenizer.decode(prompt) for prompt in prompts]
            self.members += [renderer.gates.members(pairs[-1]) for pairs in under["pairs"]]
            return generate(model, tokenizer, prompts, *more, **under)

        monkeypatch.setattr(language_parts, "generate", spied)


def ask(supporter: Supporter, conversation: Conversation, parent: str = "0", **more: Any) -> Any:
    request = TurnRequest(conversation, parent, 0, **{"strategy": TELLS, "wording": HOT, **more})
    return supporter.propose([request])[0][0]


def test_it_speaks_in_a_role_and_says_which_story_it_told(empath: Supporter) -> None:
    reply = ask(empath, WORK)
    assert reply.text
    assert reply.extra == {"role": "captain", "experience": "captain-fear"}
    assert ask(empath, ZH).extra["role"] == "captain"
    free = ask(empath, WORK, strategy=None)
    assert free.strategy == max(free.strategy_probabilities, key=free.strategy_probabilities.get)
    assert empath.roles == {name: name for name in STORIES}
    assert empath.card.kind == "empath"


def test_a_chat_streams_what_it_then_holds(empath: Supporter) -> None:
    chat = Chat(empath, "me", wording=HOT, role="gardener")
    chat.say("It is the boss and the office.")
    chat.force(TELLS)
    told: list[str] = []
    turn = chat.reply(told.append).turn
    assert "".join(told) == turn.text
    assert turn.text
    assert turn.extra["role"] == "gardener"
    assert turn.extra["experience"].startswith("gardener-")
    other = chat.reply().turn
    tells = other.strategy in CastingOptions().telling.strategies
    assert (other.extra["role"], "experience" in other.extra) == ("gardener", tells)


@pytest.mark.parametrize("layout", ["shared-prefix", "paper"])
def test_the_reader_is_told_of_the_role_and_of_the_story(
    layout: Layout, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Supporter.load(changed(folder, tmp_path / layout, layout=layout))
    for conversation, language in ((WORK, "en"), (ZH, "zh")):
        seen = Seen(made, monkeypatch)
        for strategy, role in ((TELLS, None), ("Question", None), (TELLS, "")):
            ask(made, conversation, strategy=strategy, role=role)
        captain = BANK.role("captain")
        profile, story = captain.profile[language], captain.experiences[1].text(language)
        assert [profile in prompt for prompt in seen.prompts] == [True, True, False]
        assert [story in prompt for prompt in seen.prompts] == [True, False, False]
        words = str(conversation.turns[0].text)
        assert (seen.prompts[0].index(words) < seen.prompts[0].index(story)) == (layout == "shared-prefix")


def test_strategy_and_role_choose_the_experts(empath: Supporter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(empath, monkeypatch)
    asked = [("Question", None), ("Question", "miller"), ("Information", "miller"), ("Information", "")]
    texts = [ask(empath, WORK, strategy=strategy, role=role).text for strategy, role in asked]
    who = ["captain", "miller", "miller", None]
    assert seen.members == [{"role": r, "strategy": s} for r, (s, _) in zip(who, asked, strict=True)]
    assert len(set(texts)) > 1
    together = empath.propose([TurnRequest(WORK, "0", 0, strategy=s, wording=HOT, role=r) for s, r in asked])
    assert [found[0].text for found in together] == texts, "pairs of one batch do not mix"


def test_its_chat_model_says_what_it_says(empath: Supporter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(empath, monkeypatch)

    async def answer(text: str) -> Any:
        request = ChatRequest((Message("user", text),), HOT)
        return [reply async for _, reply in SupporterChatModel(empath).answer([request])]

    (reply,) = asyncio.run(answer("It is the boss and the office."))
    assert isinstance(reply, ChatReply)
    assert seen.members[0]["role"] == "captain"
    (stopped,) = asyncio.run(answer("I want to kill myself."))
    assert "emergency" in stopped.text
    assert len(seen.members) == 1


def test_predictions_say_who_spoke_and_continue_to_the_same_bytes(
    empath: Supporter, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [WORK, ZH, *starter_dialogues(2, 6)]
    predict(empath, trees, tmp_path / "whole.jsonl", wording=HOT, planning=HOT)
    rows = read_predictions(tmp_path / "whole.jsonl")
    assert {row.extra["role"] for row in rows} <= set(BANK.names)
    assert any("experience" in row.extra for row in rows)
    write, calls = language_parts.LanguageParts.write, 0

    def stopping(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return write(self, *arguments)

    again = Supporter.load(folder)
    monkeypatch.setattr(language_parts.LanguageParts, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict(again, trees, tmp_path / "stopped.jsonl", wording=HOT, planning=HOT)
    assert not (tmp_path / "stopped.jsonl").exists()
    calls = 9
    predict(again, trees, tmp_path / "stopped.jsonl", wording=HOT, planning=HOT)
    assert calls == 9 + 2, "what was done is not done again"
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    predict(empath.recast(role="none"), trees, tmp_path / "none.jsonl", wording=HOT)
    assert {row.extra["role"] for row in read_predictions(tmp_path / "none.jsonl")} == {""}


def test_what_is_not_changed_in_a_casting_stays(empath: Supporter) -> None:
    changed_once = empath.recast(telling={"every": 5}, experiences="drawn")
    again = changed_once.recast(telling={"most": 1})
    assert changed_once.casting is not None
    assert again.casting is not None
    before = changed_once.casting.options
    assert again.casting.options == before.model_copy(update={"telling": before.telling.model_copy(update={"most": 1})})
    assert again.casting.options.telling.every == 5


@pytest.mark.parametrize(
    ("file", "fields"),
    [("generator/adapter_config.json", {"bank": "0" * 64}), ("supporter.json", {"casting": None})],
)
def test_experts_of_another_bank_are_refused(file: str, fields: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    copy = changed(folder, tmp_path / "copy", file, **fields)
    with pytest.raises(ModelError, match=r"the experts of .* were trained with another bank of roles") as told:
        Supporter.load(copy)
    assert "\n" not in str(told.value)


def test_a_bank_that_was_changed_in_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = changed(folder, tmp_path / "copy")
    card = copy / "roles/bank/captain.yaml"
    card.write_text(card.read_text(encoding="utf-8").replace("storm", "calm"), encoding="utf-8")
    with pytest.raises(ModelError, match="was trained for another role bank than"):
        Supporter.load(copy)


@pytest.mark.parametrize("casting", [{"role": "king"}, {"role": 3}, {"tells": True}])
def test_a_casting_that_cannot_be_is_refused(casting: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EsckitError) as told:
        Supporter.load(changed(folder, tmp_path / "copy", casting=casting))
    assert "\n" not in str(told.value)
