"""Which experts a dialogue's tokens are read under, and what a generator is told of a role and of an experience."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.conversation import Conversation, Preference
from esckit.conversation.turn_rule import reply_text
from esckit.errors import CorpusError, RoleError
from esckit.rendering import Layout, OwnLayout, Part, Renderer, supporter_turns
from esckit.rendering.examples import Example
from esckit.rendering.gates import Gates
from esckit.roles import read_bank
from esckit.strategy import ESCONV
from tests.rendering.test_layouts import in_chinese
from tests.rendering.test_templates import FAMILIES
from tests.rendering.tokenizers import KINDS, tokenizer_of
from tests.tiny import TEMPLATES, starter_dialogues, strategies_shown, talk, tokenizer_with

ROLES: Final = ("baker", "captain", "doctor", "farmer")
GATES: Final = Gates({"role": ROLES, "strategy": ESCONV.labels})
LAYOUTS: Final[tuple[Layout, ...]] = ("shared-prefix", "paper")

names = st.text("abc +x", min_size=1, max_size=4).map(lambda name: name.replace("+", "-"))
groups = st.dictionaries(
    st.sampled_from(["role", "strategy", "other"]), st.lists(names, min_size=1, max_size=4, unique=True), max_size=3
)


@settings(deadline=None, max_examples=50)
@given(groups)
def test_pairs_and_members_are_each_others_inverse(known: dict[str, list[str]]) -> None:
    gates = Gates({name: tuple(members) for name, members in known.items()})
    found = [gates.members(number) for number in range(gates.count)]
    assert [gates.pair(members) for members in found] == list(range(gates.count))
    assert len({tuple(sorted(members.items(), key=str)) for members in found}) == gates.count
    assert set(gates.members(0).values()) <= {None}


def test_pairs_of_one_group_of_two_kinds_are_told_apart() -> None:
    gates = Gates({"role+strategy": ("baker+Question", "baker+Others")})
    assert gates.count == 3
    assert [gates.members(number) for number in range(3)] == [
        {"role": None, "strategy": None},
        {"role": "baker", "strategy": "Question"},
        {"role": "baker", "strategy": "Others"},
    ]
    assert gates.pair({"role": "baker", "strategy": "Others"}) == 2
    assert gates.pair({"role": "baker"}) == gates.pair({}) == 0


@pytest.mark.parametrize(
    ("known", "members", "sentence"),
    [
        (GATES.groups, {"role": "clown"}, r"no experts for the role 'clown': choose one of baker, captain, doctor"),
        (GATES.groups, {"strategy": "Shout"}, r"no experts for the strategy 'Shout'"),
        ({"role+strategy": ("a+b",)}, {"role": "a", "strategy": "c"}, r"for the role\+strategy 'a\+c'"),
    ],
)
def test_a_member_without_experts_is_refused(known: Any, members: dict[str, str], sentence: str) -> None:
    with pytest.raises(CorpusError, match=sentence):
        Gates(known).pair(members)


# ------------------------------------------------------------------------------------------------- where a pair reaches


def in_roles(conversation: Conversation) -> Conversation:
    """Every reply in a role of its own, in turn, so that no two neighbours stand under one pair."""
    answers = [turn.id for turn in conversation.turns if turn.speaker == "supporter"]
    turns = [
        replace(turn, extra={**turn.extra, "role": ROLES[answers.index(turn.id) % 4]}) if turn.id in answers else turn
        for turn in conversation.turns
    ]
    return replace(conversation, turns=turns)


def said_under(renderer: Renderer, example: Example) -> list[tuple[int, str]]:
    """The stretches of an example's text that stand under one pair, in order."""
    tokens = [*example.context, *example.given, *example.scored]
    assert len(example.pairs) == len(tokens)
    stretches: list[tuple[int, list[int]]] = []
    for token, pair in zip(tokens, example.pairs, strict=True):
        if not stretches or stretches[-1][0] != pair:
            stretches.append((pair, []))
        stretches[-1][1].append(token)
    return [(pair, renderer.tokenizer.decode(ids)) for pair, ids in stretches]


TALK: Final = talk(
    ("supporter", "Hello there.", "Others"),
    ("seeker", "I failed."),
    ("supporter", "At what?", "Question"),
    ("supporter", "Tell me <|im_end|> all.", "Question"),
    ("seeker", "At all."),
    ("seeker", "Truly."),
    ("supporter", "That is hard.", "Others"),
)
"""The supporter opens, and speaks twice in a row; a token that ends turns stands in a text."""


@cache
def renderer_of(name: str, layout: Any) -> Renderer:
    """Of a template of `TEMPLATES` or `FAMILIES`, or a kind of tokenizer."""
    if name in KINDS:
        tokenizer = tokenizer_of(name)
    elif name in FAMILIES:
        tokenizer = tokenizer_with(FAMILIES[name].template, FAMILIES[name].tokens)
    else:
        tokenizer = tokenizer_with(name)
    return Renderer(tokenizer, ESCONV, max_context=100_000, layout=layout, gates=GATES)


OWN: Final = OwnLayout("Help.", "({strategy}) {text}")


@pytest.mark.parametrize("mode", ["gold", "hidden"])
@pytest.mark.parametrize("layout", [*LAYOUTS, OWN], ids=[*LAYOUTS, "own"])
@pytest.mark.parametrize("name", [*TEMPLATES, *FAMILIES, *KINDS])
def test_each_reply_stands_under_its_own_pair_from_its_label_to_its_end(name: str, layout: Any, mode: Any) -> None:
    renderer, conversation = renderer_of(name, layout), in_roles(TALK)
    shown = strategies_shown(conversation, mode)
    turns = supporter_turns(conversation)
    example = renderer.example(conversation, turns[-1], "generator", shown)
    plain = replace_gates(renderer, None).example(conversation, turns[-1], "generator", shown)
    assert plain == replace(example, pairs=())
    between = GATES.of_turn(conversation, turns[-1], strategy=None)
    wanted: list[tuple[int, str]] = [(between, "")]
    for turn in turns[:-1]:
        said = reply_text(shown.get(turn.id), turn.text or "")
        said = layout.write(shown[turn.id], turn.text or "") if layout == OWN and turn.id in shown else said
        wanted += [(GATES.pair({"role": turn.extra["role"], "strategy": shown.get(turn.id)}), said), (between, "")]
    wanted.append((GATES.of_turn(conversation, turns[-1]), turns[-1].text or ""))
    found = said_under(renderer, example)
    assert [pair for pair, _ in found] == [pair for pair, _ in wanted]
    for (_, text), (_, said) in zip(found, wanted, strict=True):
        assert said in text
        assert not said or len(text.strip()) <= len(said) + 30, "and little else"
    for number, (_, text) in enumerate(found):
        words = ("failed", "At all", "Truly")
        assert number % 2 == 0 or not any(word in text for word in words)


def replace_gates(renderer: Renderer, gates: Gates | None) -> Renderer:
    return Renderer(renderer.tokenizer, ESCONV, max_context=renderer.max_context, layout=renderer.layout, gates=gates)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cut_context_has_the_pairs_of_what_is_left(layout: Layout) -> None:
    lines = [("seeker", f"{n}: I do not know.") for n in range(6)]
    replies = [("supporter", f"{n}: Tell me more.", ESCONV.labels[n]) for n in range(6)]
    conversation = in_roles(talk(*[line for both in zip(lines, replies, strict=True) for line in both]))
    shown = strategies_shown(conversation, "gold")
    last = conversation.trunk[-1]
    whole = renderer_of("chatml", layout).example(conversation, last, "generator", shown)
    short = Renderer(tokenizer_with("chatml"), ESCONV, max_context=len(whole.context), layout=layout, gates=GATES)
    cut = short.example(conversation, last, "generator", shown)
    assert cut.dropped > 0
    texts = [text for _, text in said_under(short, cut)]
    assert [text.count("Tell me more") for text in texts[1::2]] == [1] * (6 - cut.dropped)
    assert said_under(short, cut)[1:] == said_under(short, whole)[1 + 2 * cut.dropped :]


def test_the_history_shows_the_experts_what_it_shows_the_reader() -> None:
    """A past turn's strategy is what the history shows, predicted or gold or none; its role is its own."""
    conversation = in_roles(TALK)
    renderer, last = renderer_of("chatml", "shared-prefix"), conversation.trunk[-1]
    for shown in ({}, {"0": "Question"}, {"0": "Others", "2": "Others", "3": "Information"}):
        example = renderer.example(conversation, last, "generator", shown)
        told = [GATES.members(pair) for pair, _ in said_under(renderer, example)[1:-1:2]]
        assert [each["strategy"] for each in told] == [shown.get(turn) for turn in ("0", "2", "3")]
        assert [each["role"] for each in told] == [*ROLES[:3]]


def test_the_sides_of_a_pair_stand_under_their_own_strategies() -> None:
    tree = in_roles(TALK)
    other = replace(tree.trunk[-1], id="x", text="Why?", strategy="Question")
    preference = Preference("6", "x", "turn")
    tree = tree.grow([other], [preference])
    renderer = renderer_of("chatml", "shared-prefix")
    sides = renderer.pair(tree, preference, "generator", {})
    assert [GATES.members(side.pairs[-1])["strategy"] for side in sides] == ["Others", "Question"]
    assert sides.chosen.pairs[: len(sides.chosen.context)] == sides.rejected.pairs[: len(sides.rejected.context)]


@pytest.mark.parametrize("part", ["planner", "coupled"])
def test_other_parts_have_no_experts(part: Part) -> None:
    conversation = in_roles(TALK)
    renderer = renderer_of("chatml", "shared-prefix")
    assert renderer.examples(conversation, part, {})[-1].pairs == ()


def test_under_the_scope_of_a_sequence_all_stands_under_the_replys_pair() -> None:
    conversation = in_roles(TALK)
    renderer = replace_gates(renderer_of("chatml", "shared-prefix"), replace(GATES, scope="sequence"))
    for turn in supporter_turns(conversation):
        example = renderer.example(conversation, turn, "generator", {})
        assert set(example.pairs) == {GATES.of_turn(conversation, turn)}
        assert set(renderer.asked(conversation, turn, "generator", {}, 5).pairs) == set(example.pairs)


# ------------------------------------------------------------------------------------------------ roles and experiences


BANK: Final = read_bank("shipped")
ROLE: Final = BANK.roles[0]
EXPERIENCE: Final = ROLE.experiences[0]


def told(conversation: Conversation) -> Conversation:
    """Every reply in the bank's first role; the last one with an experience."""
    *before, last = conversation.turns
    return replace(
        conversation,
        turns=[*before, replace(last, extra={**last.extra, "experience": EXPERIENCE.id})],
        labels={**conversation.labels, "role": ROLE.name},
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_role_stands_in_the_system_text_and_an_experience_where_its_layout_has_it(
    layout: Layout, language: str
) -> None:
    conversation = told(TALK if language == "en" else in_chinese(starter_dialogues(1, 2)[0]))
    renderer = Renderer(tokenizer_with("chatml"), ESCONV, max_context=100_000, layout=layout, gates=None, bank=BANK)
    plain = Renderer(tokenizer_with("chatml"), ESCONV, max_context=100_000, layout=layout)
    last = conversation.trunk[-1]
    shown = strategies_shown(conversation, "gold")
    text = renderer.tokenizer.decode(renderer.example(conversation, last, "generator", shown).context)
    system, *_, asked, _ = text.split("<|im_end|>\n")
    assert ROLE.profile[language] in system
    assert ROLE.style[language] in system
    assert text.count(EXPERIENCE.text(language)) == 1
    assert EXPERIENCE.text(language) in (asked if layout == "shared-prefix" else system)
    assert ROLE.titles[language] in text
    earlier = renderer.tokenizer.decode(
        renderer.example(conversation, supporter_turns(conversation)[1], "generator", shown).context
    )
    assert EXPERIENCE.text(language) not in earlier
    assert ROLE.profile[language] in earlier
    for part in ("planner", "coupled"):
        ours, theirs = (r.example(conversation, last, part, shown) for r in (renderer, plain))
        assert ours == theirs, "the other parts play no role"
    nobody = replace(conversation, labels={})
    assert renderer.example(nobody, last, "generator", shown) == plain.example(nobody, last, "generator", shown)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_stand_right_under_a_role_and_an_experience(layout: Layout) -> None:
    gates = Gates({"role": BANK.names, "strategy": ESCONV.labels})
    conversation = told(TALK)
    renderer = Renderer(tokenizer_with("chatml"), ESCONV, max_context=100_000, layout=layout, gates=gates, bank=BANK)
    shown = strategies_shown(conversation, "gold")
    example = renderer.example(conversation, conversation.trunk[-1], "generator", shown)
    found = said_under(renderer, example)
    assert [gates.members(pair)["strategy"] for pair, _ in found] == [
        *(None, "Others", None, "Question", None, "Question", None),
        "Others",
    ]
    assert [text.strip().startswith("[") for _, text in found[1:-1:2]] == [True] * 3
    assert {gates.members(pair)["role"] for pair, _ in found} == {ROLE.name}


def test_two_replies_in_a_row_are_told_an_experience_in_a_message_of_its_own() -> None:
    conversation = told(replace(TALK, turns=TALK.turns[:4]))
    renderer = Renderer(tokenizer_with("chatml"), ESCONV, max_context=100_000, bank=BANK)
    example = renderer.example(conversation, conversation.trunk[-1], "generator", {})
    asked = renderer.tokenizer.decode(example.context).split("<|im_end|>\n")[-2]
    assert asked.startswith("<|im_start|>user\n(")
    assert EXPERIENCE.text("en") in asked


def test_what_the_bank_lacks_is_said_in_a_sentence() -> None:
    renderer = Renderer(tokenizer_with("chatml"), ESCONV, max_context=100_000, bank=BANK)
    last = TALK.trunk[-1]
    for labels, extra, language in (({"role": "nobody"}, {}, "en"), ({"role": ROLE.name}, {"experience": "x"}, "en")):
        turns = [*TALK.turns[:-1], replace(last, extra=extra)]
        asked = replace(TALK, turns=turns, labels=labels, language=language)
        with pytest.raises(RoleError):
            renderer.example(asked, asked.trunk[-1], "generator", {})
