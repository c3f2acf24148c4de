"""Replies that are one JSON object of a schema, whatever a model would write."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import pytest
import torch
from pydantic import BaseModel, Field

from esckit.chat_models.json_replies import parse_reply, strict_schema
from esckit.decoding import Decoding
from esckit.language_models import generation
from esckit.language_models.generation import generate_ids
from esckit.language_models.guided import Guide, JsonGuides, UnguidedError
from esckit.language_models.pocket import make_pocket_model
from tests.rendering.tokenizers import KINDS, tokenizer_of

LIMIT: Final = 64
DRAWN: Final = Decoding(temperature=1.5, top_p=1.0, max_new_tokens=LIMIT)


class Score(BaseModel):
    """As a judge's."""

    explanation: str
    score: Literal[1, 2, 3, 4, 5]


class Part(BaseModel):
    name: str
    score: int = Field(ge=0, le=10)


class Everything(BaseModel):
    """What a schema may have."""

    text: str
    short: str = Field(max_length=12)
    long: str = Field(min_length=3)
    label: Literal["a b", 'né"e', 3]
    sure: bool | None
    share: float = Field(ge=0, le=4)
    number: float
    count: int
    above: int = Field(gt=3)
    parts: list[Part] = Field(max_length=2)
    one: Part
    some: list[int] = Field(min_length=1, max_length=3)


class Answer(BaseModel):
    yes: bool


def drawn(guide: Guide, tokens: int, end: int, seed: int) -> list[int]:
    """What a model that knows nothing writes: any of the tokens that are allowed."""
    random, ids = torch.Generator().manual_seed(seed), []
    for _ in range(tokens):
        allowed = guide.allowed()
        assert allowed is not None
        ids.append(int(torch.multinomial(allowed.float(), 1, generator=random)))
        guide.take(ids[-1])
        if ids[-1] == end:
            break
    return ids


@pytest.mark.parametrize("kind", [*KINDS, "byte-level-unsplit"])
def test_whatever_is_drawn_is_an_object_of_the_schema_and_ends_in_time(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    end = tokenizer.eos_token_id
    guides = JsonGuides(tokenizer, end)
    written = set()
    for seed in range(12):
        ids = drawn(guides.guide(strict_schema(Everything), 500), 500, end, seed)
        assert ids[-1] == end
        written.add(parse_reply(tokenizer.decode(ids[:-1], skip_special_tokens=True), Everything).text)
    assert len(written) == 12


def test_the_texts_of_an_object_share_the_limit() -> None:
    tokenizer = tokenizer_of("byte-level")
    end, lengths = tokenizer.eos_token_id, []
    for limit in (60, 120, 400):
        guide = JsonGuides(tokenizer, end).guide(strict_schema(Score), limit)
        a_letter = tokenizer.convert_tokens_to_ids("a")
        ids: list[int] = []
        while ids[-1:] != [end]:
            allowed = guide.allowed()
            assert allowed is not None
            ids.append(a_letter if allowed[a_letter] else int(allowed.nonzero()[0]))
            guide.take(ids[-1])
        lengths.append(len(parse_reply(tokenizer.decode(ids[:-1]), Score).explanation))
        assert len(ids) <= limit
    given = len('{"explanation": "", "score": 1}')
    assert lengths == [limit - 1 - given for limit in (60, 120, 400)]


def model_of(tokenizer: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_pocket_model("2m", tokenizer).eval()


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any, JsonGuides]:
    """A pocket backbone with random weights."""
    tokenizer = tokenizer_of("byte-level")
    return model_of(tokenizer), tokenizer, JsonGuides(tokenizer, tokenizer.eos_token_id)


PROMPTS: Final = ([40, 41, 42, 43], [40, 41, 50], [60, 61], [40, 41, 42, 43], [70, 71, 72])
SEEDS: Final = (1, 2, 3, 4, 5)
SCHEMAS: Final[tuple[type[BaseModel] | None, ...]] = (Score, None, Answer, None, Score)


def write(pocket: tuple[Any, Any, JsonGuides], rows: Sequence[int], decoding: Decoding = DRAWN) -> list[list[int]]:
    model, tokenizer, guides = pocket
    limit = decoding.max_new_tokens
    of = [None if schema is None else guides.guide(strict_schema(schema), limit) for schema in SCHEMAS]
    prompts, seeds = [PROMPTS[row] for row in rows], [SEEDS[row] for row in rows]
    return generate_ids(model, prompts, tokenizer.eos_token_id, decoding, seeds, guides=[of[row] for row in rows])


@pytest.mark.parametrize("decoding", [DRAWN, Decoding(greedy=True, max_new_tokens=LIMIT)], ids=["drawn", "greedy"])
def test_rows_of_several_schemas_and_of_none_stand_side_by_side(
    pocket: tuple[Any, Any, JsonGuides], decoding: Decoding
) -> None:
    model, tokenizer, _ = pocket
    together = write(pocket, range(5), decoding)
    assert together == [write(pocket, [row], decoding)[0] for row in range(5)]
    plain = generate_ids(model, PROMPTS, tokenizer.eos_token_id, decoding, SEEDS)
    for row, schema in enumerate(SCHEMAS):
        if schema is None:
            assert together[row] == plain[row]
        else:
            assert plain[row] != together[row]
            assert together[row][-1] == tokenizer.eos_token_id
            parse_reply(tokenizer.decode(together[row], skip_special_tokens=True), schema)


def test_a_draw_is_by_its_seed_among_the_tokens_that_are_allowed(pocket: tuple[Any, Any, JsonGuides]) -> None:
    """By hand: the model's own probabilities, those of other tokens 0, and the row's own numbers."""
    model, tokenizer, guides = pocket
    (found,) = write(pocket, [2], how := Decoding(temperature=0.8, top_p=0.9, max_new_tokens=40))
    assert tokenizer.decode(found[:-1]) in ('{"yes": true}', '{"yes": false}')
    guide, random = guides.guide(strict_schema(Answer), 40), torch.Generator().manual_seed(SEEDS[2])
    ids = list(PROMPTS[2])
    chosen = 0
    for token in found:
        allowed = guide.allowed()
        assert allowed is not None
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, : len(allowed)].double()
        weights = torch.where(allowed, (logits / how.temperature).exp(), 0.0)
        order = weights.argsort(descending=True)
        shares = weights[order] / weights.sum()
        kept = shares * (shares.cumsum(0) - shares < how.top_p)
        drawn_at = torch.rand(1, generator=random) * kept.sum()
        assert token == int(order[(kept.cumsum(0) <= drawn_at).sum()])
        chosen += int(allowed.sum() > 1)
        guide.take(token)
        ids.append(token)
    assert chosen >= 1, "something was left to the model"


def test_different_seeds_draw_different_objects(pocket: tuple[Any, Any, JsonGuides]) -> None:
    model, tokenizer, guides = pocket
    of = [guides.guide(strict_schema(Score), LIMIT) for _ in range(6)]
    found = generate_ids(model, [PROMPTS[0]] * 6, tokenizer.eos_token_id, DRAWN, [1, 2, 3, 4, 5, 1], guides=of)
    assert len({tuple(ids) for ids in found[:5]}) == 5
    assert found[5] == found[0]


def test_a_thought_that_the_prompt_has_opened_is_free_and_the_object_begins_behind_it() -> None:
    tokenizer = tokenizer_of("byte-level")
    guide = JsonGuides(tokenizer, tokenizer.eos_token_id).guide(strict_schema(Answer), 60, "<think>")
    thought = tokenizer("They {are} sad.</think>", add_special_tokens=False)["input_ids"]
    for token in thought:
        assert guide.allowed() is None
        guide.take(token)
    said = tokenizer('{"yes": true}', add_special_tokens=False)["input_ids"]
    for token in [*said, tokenizer.eos_token_id]:
        allowed = guide.allowed()
        assert allowed is not None
        assert allowed[token]
        assert allowed.sum() < 5
        guide.take(token)


def test_no_text_ends_within_an_escape(pocket: tuple[Any, Any, JsonGuides]) -> None:
    """Its tokens may be used up at any place."""
    _, tokenizer, guides = pocket
    backslash = tokenizer.convert_tokens_to_ids("\\")
    guide = guides.guide(strict_schema(Score), 60)
    for token in tokenizer('{"explanation": "a', add_special_tokens=False)["input_ids"]:
        guide.take(token)
    allowed = guide.allowed()
    assert allowed is not None
    assert allowed.sum() > 300
    assert not allowed[backslash]


def test_what_cannot_be_guided_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """A tokenizer without a backend."""

    with pytest.raises(UnguidedError, match="cannot read the tokenizer"):
        JsonGuides(Slow(), 0)
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(UnguidedError, match="not installed"):
        JsonGuides(tokenizer_of("byte-level"), 0)


class Branch(BaseModel):
    name: Literal["a", "b"]
    under: "list[Branch]"


class Tree(BaseModel):
    root: Branch


def test_a_schema_that_contains_itself_is_left_to_the_library() -> None:
    tokenizer = tokenizer_of("byte-level")
    end = tokenizer.eos_token_id
    guide = JsonGuides(tokenizer, end).guide(strict_schema(Tree), 200)
    text = '{"root": {"name": "a", "under": [{"name": "b", "under": [{"name": "a", "under": []}]}]}}'
    for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], end]:
        allowed = guide.allowed()
        assert allowed is not None
        assert allowed[token]
        guide.take(token)


def test_plain_rows_pay_nothing() -> None:
    logits = torch.randn(3, 20)
    assert generation._guided(logits, [None] * 3) is logits
