"""Pieces of text add up to the reply, half characters and last spaces wait."""

from esckit.decoding import Decoding
from esckit.language_models.generation import TextStreamer, generate
from tests.tiny import tiny_model, tiny_renderer, tiny_tokenizer


def told(tokens: list[str | bytes]) -> list[str]:
    """What is told after each token; a token is some bytes of the text."""
    parts = [part.encode() if isinstance(part, str) else part for part in tokens]
    pieces: list[str] = []
    streamer = TextStreamer(
        lambda ids: b"".join(parts[i] for i in ids).decode("utf-8", "replace").strip(), pieces.append
    )
    for number in range(len(parts)):
        streamer.put(number)
    streamer.end()
    return pieces


def test_a_piece_is_told_as_soon_as_it_is_sure() -> None:
    assert told([" He", "llo", " ", "you", "!", " "]) == ["He", "llo", " you", "!"]
    assert told([b"a\xf0\x9f", b"\x98\x80", "b"]) == ["a", "😀", "b"]
    assert told([b"a\xf0", "b"]) == ["a", "\ufffdb"], "bytes that never become a character"
    assert told(["a", b"\xf0"]) == ["a", "\ufffd"]
    assert told([]) == []


def test_what_is_told_adds_up_to_what_is_generated_without() -> None:
    prompt, end = [3, 4, 5, 6], tiny_renderer().end_of_turn
    for seed in range(3):
        decoding, pieces = Decoding(max_new_tokens=40), list[str]()
        (plain,) = generate(tiny_model(), tiny_tokenizer(), [prompt], end, decoding, [seed])
        (streamed,) = generate(tiny_model(), tiny_tokenizer(), [prompt], end, decoding, [seed], pieces.append)
        assert "".join(pieces) == streamed.text == plain.text
        assert len(pieces) > 5
