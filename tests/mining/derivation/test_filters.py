"""Bad outputs of every kind, each caught for its own reason; good ones pass."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

from esckit.mining.derivation.exchanges import Exchange, Talk
from esckit.mining.derivation.filters import FAULTS, fault_of
from esckit.mining.derivation.options import DerivationOptions, StepName
from esckit.mining.derivation.rules import rules_in
from esckit.roles.telling import TellingOptions
from esckit.strategy import ESCONV
from tests.mining.derivation.talks import question, role, talk, task

MOLE: Final = role("mole")
TELLS: Final = 4  # an exchange under affirmation, in the second half

OWN_LIFE: Final = {
    "en": "I once waited for days myself, and singing helped me.",
    "zh": "我自己也等过很多天，后来唱歌帮了我。",
}

Change = Callable[[Talk, str], Talk]


def replaced(place: int, **fields: Any) -> Change:
    """Other fields of one exchange; a text may differ by language."""

    def change(said: Talk, language: str) -> Talk:
        own = {name: each[language] if isinstance(each, dict) else each for name, each in fields.items()}
        return (*said[:place], said[place]._replace(**own), *said[place + 1 :])

    return change


def told(place: int = TELLS, experience: str = "mole-1", text: dict[str, str] | None = None) -> Change:
    """An experience in one exchange, told as it should be unless a text is given."""

    def change(said: Talk, language: str) -> Talk:
        rules = rules_in(language)
        story = rules.tell(MOLE, MOLE.experience("mole-1"), language)
        words = text[language] if text is not None else f"{said[place].supporter}{rules.blank}{story}"
        return replaced(place, supporter=words, experience=experience)(said, language)

    return change


def both(*changes: Change) -> Change:
    def change(said: Talk, language: str) -> Talk:
        for each in changes:
            said = each(said, language)
        return said

    return change


def all_lines(change: Callable[[Exchange], Exchange]) -> Change:
    return lambda said, language: tuple(map(change, said))


SAME: Final[Change] = lambda said, language: said  # noqa: E731

NEW: Final[list[tuple[Change, str | None]]] = [
    (SAME, None),
    (lambda said, language: said + tuple(each._replace(phase="action") for each in said[:2]), None),
    (replaced(2, supporter=" "), "format"),
    (replaced(2, seeker=""), "format"),
    (replaced(0, supporter="[Question] How long has it been?"), "format"),
    (replaced(0, supporter="【提问】这样多久了，能不能说说看？"), "format"),
    (replaced(3, supporter="Supporter: I hear you.\nSeeker: Thanks."), "format"),
    (replaced(3, seeker="我不知道怎么办。\n咨询师：慢慢来。"), "format"),
    (replaced(1, strategy="Interpretation"), "unknown label"),
    (replaced(1, strategy="question"), "unknown label"),
    (replaced(1, strategy=None), "unknown label"),
    (lambda said, language: said[:7], "turns"),
    (lambda said, language: said[:1], "turns"),
    (lambda said, language: (), "turns"),
    (lambda said, language: (*said, *(each._replace(phase="action") for each in said[:3])), "turns"),
    (replaced(0, phase="action"), "phases"),
    (replaced(7, phase="farewell"), "phases"),
    (all_lines(lambda each: each._replace(phase="comforting")), "phases"),
    (replaced(5, seeker={"en": "I do not want to live any more.", "zh": "我不想活了，想要自杀。"}), "danger"),
]
"""Changes of a made dialogue, and what is found, in both languages."""

OF_A_LANGUAGE: Final[list[tuple[str, Change, str | None]]] = [
    ("zh", replaced(2, supporter="I am sorry that you have to wait for so long."), "language"),
    ("zh", replaced(2, supporter="OK"), None),
    ("zh", replaced(2, supporter="责任在英文里叫responsibility，也就是回应的能力。"), None),
    ("zh", all_lines(lambda each: each._replace(seeker="Nobody has called me for many weeks.")), "language"),
    ("en", replaced(2, supporter="等了这么久，心里一定很难受，慢慢来。"), "language"),
    ("en", replaced(2, supporter="Мне очень жаль, что вы так долго ждёте."), "language"),
    (
        "en",
        all_lines(
            lambda each: each._replace(
                seeker="Hace semanas que mi hermana ya no me llama y siempre miro el teléfono de la casa sin dormir.",
                supporter="Duele mucho esperar tanto tiempo, cuénteme cuándo empezó todo esto y cómo pasan los días.",
            )
        ),
        "language",
    ),
    ("en", replaced(3, supporter="As an AI, I cannot wait for anybody, but you can."), "speaks as a program"),
    ("en", replaced(3, supporter="I'm just a language model and have no sister."), "speaks as a program"),
    ("zh", replaced(3, supporter="作为一个人工智能，我没有姐姐，但是我能理解。"), "speaks as a program"),
    ("zh", replaced(3, supporter="我只是一个AI，没有办法替你等待她的电话。"), "speaks as a program"),
]

TOLD: Final[list[tuple[Change, str | None]]] = [
    (told(), None),
    (told(3), None),
    (SAME, "no experience"),
    (told(experience="otter-1"), "unknown experience"),
    (told(experience="mole-17"), "unknown experience"),
    (told(0), "experience at another strategy"),
    (told(6), "experience at another strategy"),
    (both(told(3), told(4, "mole-2")), "experiences too often"),
    (both(told(1), told(4, "mole-1")), "experiences too often"),
    (both(told(1), told(3, "mole-2"), told(4, "mole-0")), "experiences too often"),
    (told(text=OWN_LIFE), "no story"),
    (
        told(text={"en": "In the story of Otter, I waited for days.", "zh": "在水獭的故事里，我等了很多天。"}),
        "no story",
    ),
    (both(told(), replaced(0, seeker="Hello?")), "seeker text"),
    (both(told(), lambda said, language: replaced(3, seeker=said[3].seeker + " ")(said, language)), "seeker text"),
    (
        both(told(), lambda said, language: replaced(3, seeker=said[3].seeker.upper() + "？")(said, language)),
        "seeker text",
    ),
    (both(told(), replaced(4, strategy="Self-disclosure")), "tags"),
    (both(told(), replaced(0, strategy="Ask")), "unknown label"),
    (both(told(), lambda said, language: said[:-1]), "turns"),
    (both(told(), lambda said, language: (*said, said[-1])), "turns"),
    (both(told(), all_lines(lambda each: each._replace(supporter=each.supporter * 4))), "length ratio"),
    (
        both(
            all_lines(lambda each: each._replace(supporter=each.supporter[:9])),
            told(text={"en": "the story of Mole", "zh": "鼹鼠mole的故事"}),
        ),
        "length ratio",
    ),
]

STYLED: Final[list[tuple[Change, str | None]]] = [
    (all_lines(lambda each: each._replace(supporter=f"{each.supporter} {each.supporter}")), None),
    (replaced(2, seeker="Yes."), "seeker text"),
    (replaced(2, strategy="Others"), "tags"),
    (replaced(2, supporter=""), "format"),
    (lambda said, language: said[::-1], "seeker text"),
    (all_lines(lambda each: each._replace(supporter=each.supporter * 3)), "length ratio"),
    (replaced(TELLS, supporter=OWN_LIFE), "no story"),
]

TAGGED: Final[list[tuple[Change, str | None]]] = [
    (SAME, None),
    (replaced(2, strategy="Chat"), "unknown label"),
    (replaced(2, seeker="Yes."), "seeker text"),
    (replaced(2, supporter="Yes, it hurts."), "supporter text"),
    (lambda said, language: said[1:], "turns"),
]

OPTIONS: Final = DerivationOptions(telling=TellingOptions(most=2))


def found(name: StepName, before: Any, after: Talk, options: DerivationOptions = OPTIONS) -> str | None:
    return fault_of(name, before, after, options, ESCONV)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("change", "fault"), NEW)
def test_a_made_dialogue(change: Change, fault: str | None, language: str) -> None:
    after = change(talk(language, phases=True), language)
    assert found("dialogue", task(of=question(language=language)), after) == fault


@pytest.mark.parametrize(("language", "change", "fault"), OF_A_LANGUAGE)
def test_a_line_in_another_language_or_of_a_program(language: str, change: Change, fault: str | None) -> None:
    after = change(talk(language, phases=True), language)
    assert found("dialogue", task(of=question(language=language)), after) == fault


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("change", "fault"), TOLD)
def test_a_talk_with_experiences(change: Change, fault: str | None, language: str) -> None:
    before = talk(language)
    assert found("experiences", task(before, language, whose=MOLE), change(before, language)) == fault


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("change", "fault"), STYLED)
def test_a_talk_in_a_role_s_voice(change: Change, fault: str | None, language: str) -> None:
    before = told()(talk(language), language)
    after = change(before, language)
    assert found("style", task(before, language, whose=MOLE), after) == fault


@pytest.mark.parametrize(("change", "fault"), TAGGED)
def test_a_dialogue_that_is_tagged(change: Change, fault: str | None) -> None:
    before = tuple(each._replace(strategy=None) for each in talk())
    assert found("dialogue", task(before), change(talk(), "en")) == fault


def test_every_fault_of_a_talk_has_a_bad_output_here() -> None:
    cases = Counter(fault for *_, fault in (*NEW, *OF_A_LANGUAGE, *TOLD, *STYLED, *TAGGED) if fault)
    assert set(cases) == {*FAULTS} - {"unparsed", "refused", "failed"}, "these three are states of a ledger"
    assert cases.total() >= 40


def test_limits_are_options() -> None:
    before, short = talk(), talk()[:3]
    assert found("style", task(short, whose=MOLE), short) == "turns"
    wide = DerivationOptions(filters={"fewest": 2, "most": 20, "length_ratio": None})
    assert found("style", task(short, whose=MOLE), short, wide) is None
    long = tuple(each._replace(supporter=each.supporter * 9) for each in before)
    assert found("style", task(before, whose=MOLE), long, wide) is None


def test_where_no_strategy_tells_nothing_has_to_be_told() -> None:
    silent = talk(labels=("Question",) * 8)
    assert found("experiences", task(silent, whose=MOLE), silent) is None
    never = DerivationOptions(telling=TellingOptions(most=0))
    assert found("experiences", task(talk(), whose=MOLE), talk(), never) is None
    assert found("experiences", task(talk(), whose=MOLE), told()(talk(), "en"), never) == "experiences too often"


def test_what_people_wrote_may_look_like_a_mark() -> None:
    before = replaced(0, supporter="[sic] You wrote that she is away.")(talk(), "en")
    assert found("style", task(before, whose=MOLE), before) is None
