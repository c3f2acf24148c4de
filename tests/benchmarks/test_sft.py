"""The contenders of benchmarks/sft.py do the same work: the same tokens are scored, and the first loss is the same."""

import pytest

import sft
from common import OURS, Comparison, How, Trained
from esckit.conversation import Conversation
from esckit.language_models.backbone import load_backbone
from esckit.language_models.token_tree import build_tries
from esckit.rendering import Example, Part, past_strategies, supporter_turns, to_messages
from esckit.rendering.layouts import system_text
from esckit.strategy import ESCONV
from tests.tiny import starter_dialogues, tiny_renderer, tiny_tokenizer

HOW = How(batch_size=2, bf16=False)
PARTS: tuple[Part, ...] = ("planner", "generator", "coupled")


def dialogues(setting: sft.Setting) -> list[list[Example]]:
    """Two dialogues of unequal length."""
    return sft.rendered(starter_dialogues(1, 9) + starter_dialogues(2, 5)[1:], tiny_tokenizer(), setting)


def train(contender: str, base: str, work: list[list[Example]]) -> Trained:
    """One optimiser step: the loss is that of the model as it was."""
    return sft.CONTENDERS[contender].train(load_backbone(base).model, work, HOW)


@pytest.mark.parametrize("setting", sft.SETTINGS, ids=lambda s: f"{s.layout}-{s.part}-{s.past}")
def test_all_contenders_of_a_setting_have_the_same_first_loss(setting: sft.Setting, base: str) -> None:
    work = dialogues(setting)
    ours = train(OURS, base, work)
    assert ours.units == sum(map(len, work))
    assert ours.seconds > 0
    for peer in setting.peers:
        theirs = train(peer, base, work)
        assert theirs.loss == pytest.approx(ours.loss, abs=1e-4)
        assert theirs.units == ours.units
        assert theirs.seconds > 0


@pytest.mark.parametrize("setting", sft.SETTINGS, ids=lambda s: f"{s.layout}-{s.part}-{s.past}")
def test_all_contenders_of_a_setting_score_the_same_tokens(setting: sft.Setting) -> None:
    for examples in dialogues(setting):
        wanted = [token for example in examples for token in example.scored]
        (trie,) = build_tries(examples)
        assert [trie.tokens[node] for target in trie.targets for node in target.nodes] == wanted
        turns = [sft.turn_row(example) for example in examples]
        assert [token for row in turns for token in scored(row)] == wanted
        if sft.DIALOGUE in setting.peers:
            row = sft.dialogue_row(examples)
            assert scored(row) == wanted
            assert len(row.input_ids) == len(trie), "with past strategies shown, the trie is the dialogue's row"


def scored(row: sft.Row) -> list[int]:
    """The labels that count; each stands at its own token."""
    assert all(label in (token, sft.IGNORED) for token, label in zip(row.input_ids, row.labels, strict=True))
    return [label for label in row.labels if label != sft.IGNORED]


def test_the_coupled_row_is_what_trl_makes_of_a_chat_with_an_assistant_mask() -> None:
    conversation = starter_dialogues(1, 9)[0]
    shown = past_strategies(conversation, "gold")
    row = sft.dialogue_row(tiny_renderer().examples(conversation, "coupled", shown))
    theirs = chat(conversation, shown)
    length = len(row.input_ids)
    assert row.input_ids == theirs["input_ids"][:length]
    assert [label != sft.IGNORED for label in row.labels] == [bool(each) for each in theirs["assistant_masks"][:length]]
    assert not any(theirs["assistant_masks"][length:])


def chat(conversation: Conversation, shown: dict[str, str]) -> dict[str, list[int]]:
    """The dialogue up to its last reply, as SFTTrainer tokenises chats under ``assistant_only_loss``."""
    end = conversation.turns.index(supporter_turns(conversation)[-1]) + 1
    messages = to_messages(conversation.turns[:end], shown)[:-1]  # without the message to answer next
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return dict(
        tiny_tokenizer().apply_chat_template(
            [{"role": "system", "content": system_text("shared-prefix", "coupled", ESCONV, "")}, *turns],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
    )


@pytest.mark.parametrize("part", PARTS)
def test_hidden_past_strategies_have_no_row_a_dialogue(part: Part) -> None:
    with pytest.raises(ValueError, match="past strategies are hidden"):
        sft.dialogue_row(dialogues(sft.Setting("shared-prefix", part, "hidden", ()))[0])


@pytest.mark.parametrize("setting", sft.SETTINGS, ids=lambda s: f"{s.layout}-{s.part}-{s.past}")
def test_a_setting_is_rendered_as_it_says(setting: sft.Setting) -> None:
    (conversation,) = starter_dialogues(1, 9)
    shown = past_strategies(conversation, setting.past)
    wanted = tiny_renderer(layout=setting.layout).examples(conversation, setting.part, shown)
    assert dialogues(setting)[0] == wanted


def test_no_setting_compares_other_objectives() -> None:
    for setting in sft.SETTINGS:
        assert sft.DIALOGUE not in setting.peers or (setting.layout, setting.past) == ("shared-prefix", "gold")


def test_the_last_line_has_the_smaller_median_of_a_part_and_keeps_layouts_apart() -> None:
    gold, hidden, chats, paper = (setting for setting in sft.SETTINGS if setting.part != "planner")
    assert (gold.part, hidden.part, chats.part, paper.part) == ("generator", "generator", "coupled", "generator")
    found = {
        gold: Comparison({OURS: [8, 9, 50], sft.PER_TURN: [1, 1, 1], sft.DIALOGUE: [8, 9, 10]}, {}),
        hidden: Comparison({OURS: [9, 10, 7], sft.PER_TURN: [2, 2, 2]}, {}),
        chats: Comparison({OURS: [3, 3, 3], sft.DIALOGUE: [2, 2, 2]}, {}),
        paper: Comparison({OURS: [4, 4, 4], sft.PER_TURN: [2, 2, 2]}, {}),
    }
    assert sft.ratios(found, "shared-prefix", sft.PER_TURN) == {"generator": 4.5}
    assert sft.ratios(found, "shared-prefix", sft.DIALOGUE) == {"generator": 1.0, "coupled": 1.5}
    assert sft.ratios(found, "paper", sft.PER_TURN) == {"generator": 2.0}
