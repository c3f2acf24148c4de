"""Which messages stop a talk, in which language they are answered, and what lets it go on."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from esckit.safety import DANGERS, language_of, risk_of, stop_after, wants_to_go_on
from esckit.safety.risk import LANGUAGES

MESSAGES: Final[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("messages.yaml").read_text(encoding="utf-8"))
GO_ON: Final = (
    *("/continue", "/CONTINUE", "I am safe, go on", "I’m safe. Please go on!", "Please go on.", "continue"),
    *("Estoy a salvo, sigue.", "Sigue, por favor.", "quiero continuar"),
    *("我很安全，请继续。", "请继续。", "我很安全，請繼續", "继续"),
)


def messages(what: str) -> list[tuple[str, str]]:
    return [(language, text) for language, texts in MESSAGES[what].items() for text in texts.splitlines()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_messages_of_danger_stop(language: str) -> None:
    found = [text for each, text in messages("stop") if each == language]
    assert len(found) >= 60
    assert [text for text in found if risk_of(text) is None] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_harmless_messages_do_not_stop(language: str) -> None:
    found = [text for each, text in messages("pass") if each == language]
    assert len(found) >= 60
    assert [(text, risk_of(text)) for text in found if risk_of(text)] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I want to kill myself. I have pills next to me.", "suicide"),
        ("my brother killed himself last year", "suicide"),  # it asks whether the person is safe
        ("I don't want to kill myself, I just want it to stop", "suicide"),  # saying no stops as well: that is safer
        ("I took 30 tablets because I want to die", "overdose"),
        ("me tomé todas las pastillas", "overdose"),
        ("我吞了一整瓶安眠藥", "overdose"),
        ("I cut my arms again last night", "self-harm"),
        ("me corto los brazos", "self-harm"),
        ("I'm going to shoot my boss", "harm to others"),
        ("我要砍死他", "harm to others"),
        ("my husband beats me", "abuse"),
        ("mi padrastro abusa de mí", "abuse"),
        ("老公家暴我", "abuse"),
        ("The traffic is killing me", None),
    ],
)
def test_the_kind_of_danger_is_named_the_most_urgent_first(text: str, kind: str | None) -> None:
    assert risk_of(text) == kind
    assert kind is None or kind in DANGERS


@pytest.mark.parametrize(
    "text",
    [
        *("I WANT TO DIE", "i want to dieeeee", "I want to d.i.e", "k1ll myself", "k!ll my self", "k*ll myself"),
        *("s u i c i d e", "sui cide", "I feel sucidal", "wanna kms", "unalive myself", "i dont want to live anymore"),
        *(
            "I w\u200bant to di\u200de",
            "I don’t want to live",
            "ｉ ｗａｎｔ ｔｏ ｄｉｅ",
            "kíll myself",
            "killlll myself",
        ),
        *("想 死", "自.杀", "我不想活了", "想死，活著沒意思", "no quiero vivir mas", "NO QUIERO VIVIR MÁS"),
    ],
)
def test_tricks_and_slips_of_spelling_are_seen_through(text: str) -> None:
    assert risk_of(text) is not None


def test_an_idiom_hides_nothing_that_stands_beside_it() -> None:
    assert risk_of("This traffic is killing me") is None
    assert risk_of("This traffic is killing me and I want to kill myself") == "suicide"
    assert risk_of("想死你了") is None
    assert risk_of("想死你了，我真的不想活了") == "suicide"


def test_what_a_song_or_a_film_says_passes_and_what_the_person_says_does_not() -> None:
    assert risk_of('The lyrics say "I want to die"') is None
    assert risk_of('The lyrics say "la la la" and I want to die') == "suicide"
    assert risk_of("Romeo kills himself at the end of the play") is None
    assert risk_of("I will bring a gun to the football match and shoot everyone") == "harm to others"


@pytest.mark.parametrize("text", ["word " * 4000, "a" * 20_000, "I don't really want to, and so " * 600, "不" * 20_000])
def test_long_messages_are_read_to_their_end(text: str) -> None:
    """A pattern that goes back and forth over a long text would never come to an end here."""
    assert risk_of(text) is None
    assert risk_of(f"{text}. I want to die") == "suicide"


def test_messages_are_answered_in_their_language() -> None:
    wrong = [text for language, text in messages("stop") if language_of(text) != language]
    assert wrong == []
    for text in ("xyz", "", "42", "ok"):
        assert language_of(text) == "en"


@pytest.mark.parametrize("text", GO_ON)
def test_plain_words_let_the_talk_go_on(text: str) -> None:
    assert wants_to_go_on(text)


@pytest.mark.parametrize(
    "text",
    ["yes", "ok", "I am safe", "go on, I want to die", "I can't go on", "no puedo seguir", "活不下去了", "", "?"],
)
def test_anything_else_does_not(text: str) -> None:
    assert not wants_to_go_on(text)


def test_no_message_of_danger_and_no_other_one_of_ours_says_to_go_on() -> None:
    assert [text for what in MESSAGES for _, text in messages(what) if wants_to_go_on(text)] == []


def test_a_talk_stays_stopped_until_the_person_says_to_go_on() -> None:
    assert stop_after(["hello", "my phone died"]) is None
    first = stop_after(["hello", "I want to die"])
    assert first is not None
    assert (first.danger, first.latest) == ("suicide", None)
    later = stop_after(["I want to die", "my phone died"])
    assert later is not None
    assert later.latest == "my phone died"
    assert len(later.text) < len(first.text) / 2
    assert stop_after(["I want to die", "my phone died", "I am safe, go on"]) is None
    assert stop_after(["I want to die", "go on", "I took 30 pills"]) is not None
    recorded = stop_after(["words that were a danger once", "ok"], {0: "abuse"})
    assert recorded is not None
    assert recorded.danger == "abuse"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (["I want to die"], ("Are you safe right now?", "988", "911", "999", "116 123", "112", "go on.")),
        (["我不想活了"], ("你现在安全吗", "12356", "110", "120", "继续")),
        (["quiero morir"], ("¿Estás a salvo ahora?", "024", "112", "sigue.")),
        (["quiero morir", "ok"], ("¿Estás a salvo ahora?", "sigue.")),  # "ok" says nothing of the language
        (["I took 30 pills"], ("even if you feel well",)),
    ],
)
def test_the_text_asks_names_numbers_and_says_how_to_go_on(messages: list[str], words: tuple[str, ...]) -> None:
    stop = stop_after(messages)
    assert stop is not None
    for each in (*words, "https://findahelpline.com", "/continue"):
        assert each in stop.text
    assert "{" not in stop.text
    assert risk_of(stop.words_to_go_on) is None
    assert wants_to_go_on(stop.words_to_go_on)
