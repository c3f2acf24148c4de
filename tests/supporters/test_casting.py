"""Who speaks and which story is told: by what stands before a turn, by the options, and by what is asked for."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import ChatModelOptions
from esckit.conversation import Conversation, Turn
from esckit.errors import EsckitError, ModelError, RoleError, TalkError
from esckit.planning.matcher_fitting import train_matcher
from esckit.planning.matcher_options import MatcherOptions
from esckit.planning.role_matcher import RoleMatcher
from esckit.roles import EMOTIONS
from esckit.roles.telling import TellingOptions
from esckit.safety import stop_after
from esckit.supporters import Supporter
from esckit.supporters.as_chat_model import SupporterChatModel
from esckit.supporters.casting import Casting
from esckit.supporters.casting_options import CastingOptions
from esckit.supporters.chat import Chat
from esckit.supporters.prediction import predict_conversation
from esckit.supporters.proposing import TurnRequest
from esckit.supporters.supporter_folder import SupporterCard
from tests.chat_models.scripted import ScriptedModel, says
from tests.planning.test_role_matcher import questions
from tests.roles.little import little_bank
from tests.supporters.known import RANKED, Known
from tests.supporters.stub_matcher import StubMatcher, stub
from tests.tiny import talk

TELLS: Final = "Self-disclosure"
WORK: Final = talk(
    ("supporter", "Hello!"),
    ("seeker", "I lost my job, and I feel fear."),
    ("supporter", "Since when?", "Question"),
    ("seeker", "It was in spring; now there is anger."),
    ("supporter", "I see.", TELLS),
    ("seeker", "I think of love and of sadness."),
    ("supporter", "Yes.", TELLS),
    conversation_id="work",
)


def casting(matcher: Any = None, **options: Any) -> Casting:
    return Casting(matcher or stub(), CastingOptions(**options))


def at(conversation: Conversation, parent: str | None, **more: Any) -> TurnRequest:
    return TurnRequest(conversation, parent, 0, **more)


def role_at(cast: Casting, conversation: Conversation, parent: str | None, **more: Any) -> str | None:
    (found,) = cast.cast([at(conversation, parent, **more)])
    assert found.conversation.labels.get("role", "") == found.role, "the dialogue is labelled with it"
    return found.role


def said_as(conversation: Conversation, **roles: str | None) -> Conversation:
    """Supporter turns, by id, in these roles."""
    turns = [replace(t, extra={"role": roles[f"t{t.id}"]}) if f"t{t.id}" in roles else t for t in conversation.turns]
    return replace(conversation, turns=turns)


# -------------------------------------------------------------------------------------------------------- who speaks


def test_a_role_is_matched_by_the_words_before_the_first_reply() -> None:
    assert [role_at(casting(), WORK, parent) for parent in ("1", "3", "5")] == ["captain"] * 3, "love came later"
    hello = talk(("seeker", "Hello."))
    assert role_at(casting(), hello, "0") == "", "nobody is likely enough: a plain counsellor"
    assert role_at(casting(abstains=False), hello, "0") == little_bank().names[0], "the likeliest one"


@pytest.mark.parametrize("how", ["matched", "labelled"])
@pytest.mark.parametrize("parent", [None, "0"])
def test_where_nobody_has_said_anything_nobody_in_particular_speaks(how: str, parent: str | None) -> None:
    matcher = StubMatcher()
    assert role_at(casting(matcher, role=how), WORK, parent) == ""
    assert matcher.read == []


def test_a_situation_is_something_said() -> None:
    assert role_at(casting(), replace(WORK, situation="I cannot sleep."), None) == "miller"


def test_a_label_counts_only_where_it_is_asked_for() -> None:
    labelled = replace(WORK, labels={"role": "gardener", "topic": "job"})
    assert role_at(casting(), labelled, "1") == "captain"
    assert role_at(casting(role="labelled"), labelled, "1") == "gardener"
    assert role_at(casting(role="labelled"), WORK, "1") == "captain", "no label: matched"
    (found,) = casting().cast([at(labelled, "1")])
    assert found.conversation.labels == {"role": "captain", "topic": "job"}
    (none,) = casting(role="none").cast([at(labelled, "1")])
    assert none.conversation.labels == {"topic": "job"}


def test_roles_are_drawn_by_their_shares_once_a_source() -> None:
    counts = {"captain": 600, "gardener": 300, "miller": 100}
    trees = [replace(WORK, id=f"t-{number}") for number in range(2000)]

    def drawn(seed: int) -> list[str | None]:
        return [r.role for r in casting(stub(counts), role="drawn", seed=seed).cast([at(t, "1") for t in trees])]

    found = Counter(drawn(0))
    assert all(abs(found[role] - 2 * count) < 4 * (2 * count) ** 0.5 for role, count in counts.items()), found
    assert drawn(0) == drawn(0) != drawn(1)
    cast = casting(stub(counts), role="drawn")
    versions = [replace(WORK, id=f"v-{n}", provenance={"derived_from": "t-7"}) for n in range(3)]
    assert {role_at(cast, tree, parent) for tree in versions for parent in ("1", "5")} == {drawn(0)[7]}
    never = casting(stub({"captain": 0, "gardener": 0, "miller": 0}), role="drawn")
    assert {request.role for request in never.cast([at(tree, "1") for tree in trees[:99]])} == set(counts)


def test_one_role_or_none_for_everybody() -> None:
    before = said_as(WORK, t2="gardener")
    assert role_at(casting(role="miller"), before, "5") == "miller"
    assert role_at(casting(role="none"), before, "5") == ""
    with pytest.raises(RoleError, match=r"has no role 'king': take one of captain, gardener, miller\.$"):
        casting(role="king")


@pytest.mark.parametrize("how", ["matched", "labelled", "drawn", "none", "captain"])
def test_what_is_asked_for_comes_first(how: str) -> None:
    before = said_as(replace(WORK, labels={"role": "captain"}), t2="captain")
    assert role_at(casting(role=how), before, "5", role="miller") == "miller"
    assert role_at(casting(role=how), before, "5", role="") == ""
    with pytest.raises(RoleError, match="has no role 'king'"):
        role_at(casting(role=how), before, "5", role="king")


@pytest.mark.parametrize("how", ["matched", "labelled", "drawn"])
def test_who_spoke_last_on_the_path_goes_on(how: str) -> None:
    cast = casting(stub({"captain": 1, "gardener": 0, "miller": 0}), role=how)
    changed = said_as(replace(WORK, labels={"role": "captain"}), t2="miller", t4="gardener")
    assert [role_at(cast, changed, parent) for parent in ("1", "3", "5")] == ["captain", "miller", "gardener"]
    plain = said_as(changed, t4="")
    assert role_at(cast, plain, "5") == "", "nobody in particular was chosen, and that stays too"
    assert role_at(cast, said_as(changed, t4=None), "5") == ""
    with pytest.raises(RoleError, match="has no role 'king'"):
        role_at(cast, said_as(changed, t4="king"), "5")


def test_another_branch_says_nothing() -> None:
    turns = [*WORK.turns[:3], Turn("b", "1", "supporter", "Hm.", extra={"role": "miller"})]
    turns += [Turn("c", "b", "seeker", "Go on."), Turn("d", "2", "seeker", "Go on.")]
    tree = replace(WORK, turns=turns)
    assert [role_at(casting(), tree, parent) for parent in ("c", "d")] == ["miller", "captain"]


# -------------------------------------------------------------------------------------------------- which is told


def told_at(cast: Casting, conversation: Conversation, parent: str, strategy: str | None = TELLS, **more: Any) -> Any:
    (found,) = cast.cast([at(conversation, parent, **more)])
    extra = cast.extra(found, strategy)
    assert extra["role"] == found.role
    return extra.get("experience")


def test_the_story_nearest_to_what_is_felt_lately_is_told() -> None:
    assert told_at(casting(), WORK, "1") == "captain-fear"
    assert told_at(casting(), WORK, "1", role="gardener") == "gardener-fear"
    calm = talk(("seeker", "job fear"), *[("seeker", "Well.")] * 2, ("seeker", "anger"))
    assert [told_at(casting(), calm, parent) for parent in ("2", "3")] == ["captain-fear", "captain-anger"]


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("Question", {}),
        (None, {}),
        (TELLS, {"experiences": "none"}),
        (TELLS, {"telling": TellingOptions(most=0)}),
        (TELLS, {"telling": TellingOptions(strategies=("Information",))}),
        (TELLS, {"role": "none"}),
    ],
)
def test_nothing_is_told(strategy: str | None, options: dict[str, Any]) -> None:
    matcher = StubMatcher()
    assert told_at(casting(matcher, **options), WORK, "1", strategy) is None
    assert len(matcher.read) < 2, "and nobody is asked what is felt"


def test_stories_keep_their_distance_and_are_told_once() -> None:
    lines: list[Any] = [("seeker", "job fear"), ("supporter", "Hm.", TELLS)] * 8

    def stories(**options: Any) -> list[str | None]:
        tree, found = talk(*lines), []
        for number in range(1, len(lines), 2):
            story = told_at(casting(**options), tree, str(number - 1))
            found.append(story)
            turn = replace(tree.turns[number], extra={"experience": story} if story else {})
            tree = replace(tree, turns=[*tree.turns[:number], turn, *tree.turns[number + 1 :]])
        return found

    assert stories() == ["captain-fear", None, None, *stories()[3:4], *[None] * 4]
    assert stories()[3] not in (None, "captain-fear")
    for how in ("nearest", "drawn"):
        told = stories(experiences=how, telling=TellingOptions(every=1, most=99))
        assert len(set(told[:4])) == 4
        assert told[4:] == [None] * 4, "none is left"


def test_a_drawn_story_is_any_of_the_role_s_and_the_same_for_the_same_request() -> None:
    cast = casting(experiences="drawn")
    (found,) = cast.cast([at(WORK, "1")])
    drawn = [cast.extra(replace(found, seed=seed), TELLS)["experience"] for seed in range(200)]
    assert set(drawn) == {each.id for each in little_bank().role("captain").experiences}
    assert drawn == [cast.extra(replace(found, seed=seed), TELLS)["experience"] for seed in range(200)]


def test_where_no_words_are_there_is_nothing_to_be_near_to() -> None:
    assert told_at(casting(), WORK, "0", role="captain") is None
    assert told_at(casting(experiences="drawn"), WORK, "0", role="captain") is not None


SCORES: Final = dict.fromkeys(EMOTIONS, 2)


def test_a_chat_model_s_scores_take_the_matcher_s_place_and_none_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = CastingOptions(scorer=ChatModelOptions(model="remote:scripted"))
    for reply, wanted in ((json.dumps({**SCORES, "anger": 9}), "captain-anger"), ("angry", None)):
        model = ScriptedModel(says(reply))
        monkeypatch.setattr("esckit.supporters.open_model.open_model", lambda options, model=model: model)
        with Ledger(tmp_path / f"{wanted}.sqlite") as ledger:
            cast = Casting(stub(), asked, ledger)
            assert told_at(cast, WORK, "1") == wanted
            assert cast.identity != casting().identity
            assert "scripted" in cast.identity


# ------------------------------------------------------------------------------------------------- nothing of later


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RoleMatcher:
    """A real matcher, of characters and words."""
    place = tmp_path_factory.mktemp("casting") / "matcher"
    train_matcher([*questions("en"), *questions("zh", 2)], little_bank(), None, place, options=MatcherOptions(folds=2))
    return RoleMatcher.load(place)


OPEN: Final = TellingOptions(every=1, most=9)


def choices(cast: Casting, conversation: Conversation, parents: Sequence[str | None]) -> list[dict[str, Any]]:
    return [cast.extra(each, TELLS) for each in cast.cast([at(conversation, parent) for parent in parents])]


def behind(parent: str) -> list[Turn]:
    return [
        Turn("x", parent, "supporter", "sleep", "Question", extra={"role": "miller"}),
        Turn("y", "x", "seeker", "Only love and sleep, in joy."),
    ]


def test_nothing_behind_a_turn_is_read(trained: RoleMatcher) -> None:
    whole = replace(WORK, extra={"keywords": "love"})
    for parent in ("1", "3", "5"):
        path = whole.path(parent)
        changed = replace(
            whole,
            turns=[*path, *behind(parent)],
            labels={"role": "miller", "topic": "sleep"},
            extra={"keywords": "love", "after": "sleep"},
        )
        for options in ({}, {"role": "drawn"}, {"experiences": "drawn"}):
            for matcher in (stub(), trained):
                cast = Casting(matcher, CastingOptions(telling=OPEN, **options))
                assert choices(cast, changed, [parent]) == choices(cast, whole, [parent])


def test_choices_depend_on_nothing_that_stands_beside(trained: RoleMatcher) -> None:
    other = talk(("seeker", "awake in bed until four, fear"), conversation_id="other")
    third = talk(("seeker", "老板和办公室"), conversation_id="third")
    requests = [
        *(at(WORK, parent) for parent in ("1", "3", "5")),
        at(other, "0"),
        at(replace(third, language="zh"), "0"),
    ]
    for options in ({}, {"role": "drawn"}, {"experiences": "drawn"}):
        cast = Casting(trained, CastingOptions(telling=OPEN, **options))

        def found(asked: Sequence[TurnRequest], cast: Casting = cast) -> list[Any]:
            return [cast.extra(each, TELLS) for each in cast.cast(asked)]

        alone = [found([request])[0] for request in requests]
        assert alone == found(requests)
        places = random.Random(1).sample(range(5), 5)
        assert [alone[place] for place in places] == found([requests[place] for place in places])


# ------------------------------------------------------------------------------------------------------- supporters


def supporter(**options: Any) -> tuple[Known, Supporter]:
    parts = Known()
    return parts, Supporter(SupporterCard("empath", "hidden", planner="encoder"), parts, parts, casting(**options))


def test_a_dialogue_s_turns_are_planned_together() -> None:
    parts, made = supporter()
    other = replace(WORK, id="other")
    made.propose([at(WORK, "1"), at(other, "1"), at(WORK, "3"), at(WORK, "5", role="miller")])
    assert sorted(len(parents) for _, parents, _ in parts.scored) == [1, 1, 2], "another role is another dialogue"
    cast = casting().cast([at(WORK, "1"), at(WORK, "3")])
    assert cast[0].conversation is cast[1].conversation


def test_candidates_and_rows_say_who_spoke_and_what_was_told() -> None:
    _, made = supporter()
    (reply,) = made.propose([at(WORK, "1", strategy=TELLS)])[0]
    assert reply.extra == {"role": "captain", "experience": "captain-fear"}
    assert reply.turn("9", "1", "me").extra["experience"] == "captain-fear"
    (planned,) = made.propose([at(WORK, "1", wording=None)])[0]
    assert planned.extra == {}
    four = made.propose([at(WORK, "1", n=4)])[0]
    assert [each.strategy for each in four] == RANKED[:4]
    assert [each.extra.get("experience") for each in four] == ["captain-fear"] * 3 + [None]
    for past in ("hidden", "predicted"):
        rows = predict_conversation(made.recast(role="miller"), WORK, seed=0, past=past)
        assert [row.extra["role"] for row in rows] == ["miller"] * 3
    given = predict_conversation(made, WORK, seed=0, given_gold=True)
    assert [row.extra.get("experience") for row in given] == [None, "captain-fear", "captain-fear"]


def test_danger_comes_before_every_role() -> None:
    parts, made = supporter()
    words = "I lost my job and I want to kill myself."
    stop = stop_after([words])
    assert stop
    reply = made.reply(words)
    assert (reply.text, reply.strategy, reply.extra) == (stop.text, None, {"danger": stop.danger})
    chat = Chat(made, "me", role="captain")
    chat.say(words)
    answer = chat.reply()
    assert (answer.turn.text, answer.turn.extra) == (stop.text, {"danger": stop.danger})
    assert parts.scored == []
    chat.say(stop.words_to_go_on)
    assert chat.reply().turn.extra["role"] == "captain"


def test_a_chat_s_choice_stays_and_can_be_taken_back() -> None:
    _, made = supporter()
    chat = Chat(made, "me")

    def speaks(words: str) -> str:
        chat.say(words)
        return str(chat.reply().turn.extra["role"])

    assert speaks("I lost my job.") == "captain"
    assert chat.take_role("miller") == "miller"
    assert [speaks("Well."), speaks("Well.")] == ["miller", "miller"]
    assert chat.take_role("none") == "no role"
    assert speaks("Well.") == ""
    reopened = Chat(made, "me", opened=chat.conversation)
    reopened.say("So.")
    assert reopened.reply().turn.extra["role"] == "", "who spoke last goes on"
    with pytest.raises(TalkError, match=r"no role 'king': choose one of captain, gardener, miller, or none\.$"):
        chat.take_role("king")


def test_a_supporter_without_roles_takes_none() -> None:
    parts = Known()
    plain = Supporter(SupporterCard("decoupled", "hidden"), parts, parts)
    with pytest.raises(ModelError, match=r"has no roles, and 'captain' was asked for: take one of kind empath\.$"):
        plain.propose([at(WORK, "1", role="captain")])
    plain.propose([at(WORK, "1", role="")])
    with pytest.raises(ModelError, match="has no roles that could be chosen"):
        plain.recast(role="captain")
    with pytest.raises(TalkError, match="this supporter has no roles"):
        Chat(plain, "me", role="captain")
    assert plain.roles == {}


def test_recast_changes_what_is_said_and_nothing_else() -> None:
    _, made = supporter(experiences="drawn", seed=3)
    other = made.recast(role="none")
    assert other.casting
    assert made.casting
    assert other.casting.options == CastingOptions(role="none", experiences="drawn", seed=3)
    assert made.casting.options.role == "matched"
    assert other.identity != made.identity
    assert made.recast().identity == made.identity
    with pytest.raises(RoleError, match="has no role 'king'"):
        made.recast(role="king")


@pytest.mark.parametrize("how", ["matched", "drawn", "captain", "labelled"])
def test_a_language_that_the_bank_lacks_is_one_sentence(how: str) -> None:
    _, made = supporter(role=how)
    french = replace(WORK, language="fr", labels={"role": "captain"})
    with pytest.raises(RoleError, match=r"has no texts in 'fr' for captain, gardener, miller: ") as told:
        made.propose([at(french, "1", strategy=TELLS)])
    assert "\n" not in str(told.value)
    assert made.recast(role="none").propose([at(french, "1")])[0][0].extra == {"role": ""}


def test_a_supporter_with_roles_says_so() -> None:
    _, made = supporter()
    assert str(made.about).startswith("known It may speak in the voice of a story's character")
    assert made.roles == {name: name for name in little_bank().names}
    assert SupporterChatModel(made).identity == made.identity
    with pytest.raises(EsckitError):
        made.propose([at(WORK, "1", role="king")])
