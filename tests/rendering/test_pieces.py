"""Pieces cut at a tokenizer's own tokens have the ids of the whole, whatever the tokenizer; or it is encoded whole."""

import copy
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.conversation.turn_rule import reply_text, to_messages
from esckit.corpora import load_corpus, read_corpus
from esckit.errors import TemplateError
from esckit.rendering import Message, Renderer, supporter_turns
from esckit.rendering.pieces import PieceEncoder
from esckit.strategy import ESCONV
from tests.rendering.tokenizers import KINDS, NAMES, tokenizer_of
from tests.tiny import TEMPLATES, strategies_shown, talk, tokenizer_with

TEXTS: Final = ("", " ", "\n", "  two blanks", "\n  line", "I'm 23", "é你好", "... so", "a\n\n b", "\t", "ends  ")


def whole(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def marks_of(tokenizer: Any) -> list[str]:
    """The tokens that a tokenizer takes out of a text before anything else."""
    return [token.content for token in tokenizer.added_tokens_decoder.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_have_the_ids_of_the_whole(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    encoder = PieceEncoder(tokenizer)
    assert encoder.by_pieces, "each of these kinds can be cut"
    marks = marks_of(tokenizer)
    for one in TEXTS:
        for other in TEXTS:
            text = f"{one}{marks[-1]}{other}{marks[1]}{marks[-1]}{one}"
            assert encoder.encode(text) == whole(tokenizer, text)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 6), st.text(alphabet="ab \n\t'.1é[<|", max_size=8)), max_size=5),
)
def test_pieces_have_the_ids_of_the_whole_whatever_is_said(kind: str, said: list[tuple[int, str]]) -> None:
    tokenizer = tokenizer_of(kind)
    marks = marks_of(tokenizer)
    text = "".join(f"{marks[place % len(marks)]}{words}" for place, words in said)
    assert PieceEncoder(tokenizer).encode(text) == whole(tokenizer, text)


def test_a_line_end_that_joins_the_blank_behind_it_is_a_token_of_the_tokenizer_here() -> None:
    """Else the kind above would show nothing."""
    assert "ĊĠ" in tokenizer_of("byte-level-joining").get_vocab()
    assert "ĊĠ" not in tokenizer_of("byte-level").get_vocab()


def test_a_tokenizer_whose_pieces_differ_is_encoded_whole() -> None:
    """A mark that counts as a whole word only: whether it is one depends on what stands before it."""
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(tokenizer_of("byte-level"))
    tokenizer.add_special_tokens({"sep_token": AddedToken("END", special=True, single_word=True)})
    encoder = PieceEncoder(tokenizer)
    assert not encoder.by_pieces
    text = "<|im_start|>user\nENDLESS END<|im_end|>"
    assert encoder.encode(text) == whole(tokenizer, text)
    renderer = Renderer(tokenizer, ESCONV, max_context=100_000)
    check_dialogue(renderer, load_corpus("starter").valid[0])


# ---------------------------------------------------------------------------------------------------- whole dialogues


def reference(renderer: Renderer, messages: list[Message]) -> tuple[int, ...]:
    """What the tokenizer itself makes of a chat, as a server that gets the system text first."""
    tokenizer = renderer.tokenizer
    system = renderer.system("coupled", "Question").content
    chat = [{"role": message.role, "content": message.content} for message in messages]
    ask = messages[-1].role == "user"
    if "only user and assistant" in tokenizer.chat_template:
        chat[0]["content"] = f"{system}\n\n{chat[0]['content'].lstrip()}"
    else:
        chat = [{"role": "system", "content": system}, *chat]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask)
    return whole(tokenizer, text)


def check_dialogue(renderer: Renderer, conversation: Any) -> None:
    """Training reads the whole template, up to the answer's end, and inference reads its beginning."""
    shown = strategies_shown(conversation, "gold")
    for turn in supporter_turns(conversation):
        history = to_messages(conversation.path(turn.parent), shown)
        said = Message("assistant", reply_text(turn.strategy, turn.text or ""))
        ids = reference(renderer, [*history, said])
        for part in ("planner", "generator", "coupled"):
            example = renderer.example(conversation, turn, part, shown)
            assert example.context == reference(renderer, history)
            ours = (*example.context, *example.given, *example.scored)
            assert ours == ids[: len(ours)]
            assert part == "planner" or ours[-1] == renderer.end_of_turn
        prompt = renderer.prompt(conversation, turn, "generator", shown, 1)
        assert prompt == ids[: len(prompt)]


CASES: Final = [(kind, None) for kind in KINDS] + [("sentencepiece", NAMES), ("prefix-always", NAMES)]


@pytest.mark.parametrize(("kind", "template"), CASES, ids=[f"{kind}{'-names' * bool(t)}" for kind, t in CASES])
def test_dialogues_are_the_whole_template_with_every_kind_of_tokenizer(kind: str, template: str | None) -> None:
    renderer = Renderer(tokenizer_of(kind, template), ESCONV, max_context=100_000)
    for conversation in load_corpus("starter").valid:
        check_dialogue(renderer, conversation)


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "template"), CASES, ids=[f"{kind}{'-names' * bool(t)}" for kind, t in CASES])
def test_every_dialogue_of_esconv_is_the_whole_template(kind: str, template: str | None, data_dir: Path) -> None:
    renderer = Renderer(tokenizer_of(kind, template), ESCONV, max_context=100_000)
    for conversation in read_corpus(data_dir / "esconv/valid.json", "esconv"):
        check_dialogue(renderer, conversation)


def test_where_a_token_reaches_over_a_seam_training_reads_what_inference_fed() -> None:
    """Label and text are encoded apart there."""
    tokenizer = tokenizer_of("byte-level-unsplit")
    renderer = Renderer(tokenizer, ESCONV, max_context=100_000)
    conversation = talk(("seeker", "I am tired."), ("supporter", "How are you?", "Question"))
    turn = conversation.turn("1")
    label = renderer.choices(conversation, turn, "planner", {})[ESCONV.labels.index("Question")]
    example = renderer.example(conversation, turn, "generator", {})
    whole_reply = whole(tokenizer, "[Question] How are you?")
    assert (*example.given, *example.scored[:-1]) != whole_reply, "or the seam would show nothing"
    assert example.given == label.scored
    assert renderer.prompt(conversation, turn, "generator", {}, 1) == (*example.context, *example.given)
    assert tokenizer.decode([*example.given, *example.scored[:-1]]) == "[Question] How are you?"


# --------------------------------------------------------------------------------------- what looks like control tokens


@pytest.mark.parametrize("kind", [*KINDS, *TEMPLATES])
def test_what_a_person_writes_stays_letters(kind: str) -> None:
    tokenizer = tokenizer_with(kind) if kind in TEMPLATES else tokenizer_of(kind)
    renderer = Renderer(tokenizer, ESCONV, max_context=100_000)
    marks = marks_of(tokenizer)
    clean = talk(("seeker", "They wrote it."), ("supporter", "What is it?", "Question"))
    odd = f"They wrote {''.join(marks)} and <think> this </think>."
    said = talk(("seeker", odd), ("supporter", f"What is {marks[-1]}?", "Question"))
    expected = renderer.example(clean, clean.turn("1"), "coupled", {})
    example = renderer.example(said, said.turn("1"), "coupled", {})
    control = set(tokenizer.added_tokens_decoder)
    assert [i for i in example.context if i in control] == [i for i in expected.context if i in control]
    assert [i for i in example.scored if i in control] == [renderer.end_of_turn]
    blanks = str.maketrans("", "", " \n▁")
    text = tokenizer.decode(example.context).translate(blanks)
    assert odd.translate(blanks) in text, "to the letter"


def test_a_tokenizer_that_cannot_keep_letters_says_so() -> None:
    encoder = PieceEncoder(tokenizer_of("byte-level"))
    encoder.by_pieces = False
    with pytest.raises(TemplateError, match="looks like a control token"):
        encoder.encode("<|im_start|>user\n" + encoder.masked("<|im_end|>"))
