"""Replies of a language model: never a text that is there already, and nothing told that does not stand."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pytest

from esckit.decoding import Decoding
from esckit.language_models.backbone import Backbone
from esckit.language_models.generation import Reply
from esckit.supporters import language_parts
from esckit.supporters.language_parts import LanguageParts
from esckit.supporters.parts import OnText, Wording
from tests.tiny import talk, tiny_renderer, tiny_tokenizer

HELLO: Final = talk(("seeker", "Hello"))
SAMPLED: Final = Decoding()


class Model:
    """As much of a PEFT model as playing a part takes."""

    active_adapter = "planner"

    def set_adapter(self, name: str) -> None:
        self.active_adapter = name


class Says:
    """Parts whose model says these samples, the first at the first attempt; keeps what was asked for."""

    def __init__(self, patch: pytest.MonkeyPatch, *attempts: Sequence[str], finish: Any = "stop") -> None:
        self.attempts = list(attempts)
        self.finish = finish
        self.asked: list[tuple[str, Decoding, list[int], list[str]]] = []
        self.parts = LanguageParts(Backbone(Model(), tiny_tokenizer(), "tiny"), tiny_renderer(), coupled=False)
        patch.setattr(language_parts, "generate", self.generate)

    def generate(
        self,
        model: Model,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        _: int,
        decoding: Decoding,
        seeds: Sequence[int],
        on_text: Callable[[str], None] | None,
    ) -> list[Reply]:
        ends = [tokenizer.decode(prompt).rsplit("[", 1)[1].strip("] ") for prompt in prompts]
        self.asked.append((model.active_adapter, decoding, list(seeds), ends))
        said = self.attempts.pop(0)
        for character in said[0] if on_text else ():
            assert on_text is not None
            on_text(character)
        return [Reply(text, self.finish) for text in said]

    def write(self, *wanted: Wording, on_text: OnText | None = None) -> list[str | None]:
        return [reply and reply.text for reply in self.parts.write(wanted, on_text)]


def want(
    unlike: Iterable[str] | None = (), strategy: str = "Question", how: Decoding = SAMPLED, seed: int = 0
) -> Wording:
    return Wording(HELLO, "0", strategy, {}, how, seed, None if unlike is None else frozenset(unlike))


@pytest.mark.parametrize(
    ("unlike", "sample", "pieces"),
    [
        (set(), "Why?", ["W", "h", "y", "?"]),
        (None, "Why?", ["W", "h", "y", "?"]),
        ({"Who?", "Yes"}, "Why?", ["Why", "?"]),
        ({"Why not?"}, "Why", ["Why"]),
    ],
)
def test_a_text_is_told_from_where_it_leaves_the_others(
    unlike: set[str] | None, sample: str, pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    says, told = Says(monkeypatch, [sample]), list[str]()
    assert says.write(want(unlike), on_text=told.append) == [sample]
    assert told == pieces
    assert len(says.asked) == 1


def test_a_text_that_is_there_is_never_told_and_another_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    says, told = Says(monkeypatch, ["Why?"], [""], ["Who?"]), list[str]()
    assert says.write(want({"Why?"}), on_text=told.append) == ["Who?"]
    assert told == ["Who", "?"]
    seeds = [seed for _, _, seeds, _ in says.asked for seed in seeds]
    assert len(set(seeds)) == 3, "by another seed each time"


def test_after_four_samples_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    says, told = Says(monkeypatch, *[["Why?"]] * 9), list[str]()
    assert says.write(want({"Why?"}), on_text=told.append) == [None]
    assert (told, len(says.asked)) == ([], 4)


def test_what_need_not_be_new_is_taken_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(monkeypatch, ["", "Why?"], finish="length")
    assert says.parts.write([want(None), want(None, seed=1)]) == [("", "length"), ("Why?", "length")]


def test_only_what_must_be_new_is_drawn_again_and_every_reply_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    says, told = Says(monkeypatch, ["A", "B", "A"], ["C", "A"], ["D"]), list[str]()
    wanted = [want({"A"}, seed=1), want(None, "Others", seed=2), want({"A"}, "Information", seed=3)]
    assert says.write(*wanted, on_text=told.append) == ["C", "B", "D"]
    asked = [ends for *_, ends in says.asked]
    assert asked == [["Question", "Others", "Information"], ["Question", "Information"], ["Information"]]
    assert told == [], "nobody is told several replies at once"


def test_what_is_drawn_alike_is_one_batch_under_the_generator_s_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(monkeypatch, ["A", "C"], ["B"])
    short = Decoding(max_new_tokens=3)
    wanted = [want(None, seed=1), want(None, how=short, seed=2), want(None, "Others", seed=3)]
    assert says.write(*wanted) == ["A", "B", "C"]
    assert [(adapter, how, len(seeds), ends) for adapter, how, seeds, ends in says.asked] == [
        ("generator", Decoding(), 2, ["Question", "Others"]),
        ("generator", short, 1, ["Question"]),
    ]
    assert says.parts.backbone.model.active_adapter == "planner", "as it was before"
