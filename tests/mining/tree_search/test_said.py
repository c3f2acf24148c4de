"""What chat models really answer, and the words of a turn that are left of it."""

import pytest

from esckit.mining.tree_search.said import clean_reply, ends_the_talk
from esckit.strategy import CSO, ESCONV


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("That sounds lonely.", "That sounds lonely."),
        ("  \n That sounds lonely.\n", "That sounds lonely."),
        ("<think>Be warm.</think>\n\nThat sounds lonely.", "That sounds lonely."),
        ("<think>Be warm.", None),
        ('"That sounds lonely."', "That sounds lonely."),
        ("“That sounds lonely.”", "That sounds lonely."),
        ('"That sounds lonely', "That sounds lonely"),
        ('"Go away" and "stay" are hard to hear.', '"Go away" and "stay" are hard to hear.'),
        ('She said "go away"', 'She said "go away"'),
        ("[Reflection of feelings] That sounds lonely.", "That sounds lonely."),
        ("(Reflection of Feelings) That sounds lonely.", "That sounds lonely."),
        ("**[Reflection of feelings]:** That sounds lonely.", "That sounds lonely."),
        ("Supporter: That sounds lonely.", "That sounds lonely."),
        ("**Supporter:** That sounds lonely.", "That sounds lonely."),
        ('Supporter: [Reflection of feelings] "That sounds lonely."', "That sounds lonely."),
        ("Strategy: Reflection of feelings\nThat sounds lonely.", "That sounds lonely."),
        ("[Reflection of feelings]\nThat sounds lonely.", "That sounds lonely."),
        ("One thing: that sounds lonely.", "One thing: that sounds lonely."),
        ("(sigh) I know.", "(sigh) I know."),
        ("I know [she told me].", "I know [she told me]."),
        ("[Support, warmly] That sounds lonely.", "That sounds lonely."),
        ("[Self-disclosure: Shares a similar experience or feeling of one's own.]\n\nMe too.", "Me too."),
        ("Question", None),
        ("Me", "Me"),
        ("That sounds lonely.\n\nSeeker: It is.\nSupporter: Yes.", "That sounds lonely."),
        ("That sounds lonely.\n**User**: It is.", "That sounds lonely."),
        ("[Question]", None),
        ('""', None),
        ("", None),
        ("Supporter:", None),
    ],
)
def test_the_words_of_one_turn_are_left(answer: str, words: str | None) -> None:
    assert clean_reply(answer, ESCONV) == words


def test_the_marks_are_those_of_the_taxonomy() -> None:
    assert clean_reply("(Emotional Validation) It is hard.", CSO) == "It is hard."
    assert clean_reply("(Emotional Validation) It is hard.", ESCONV) == "(Emotional Validation) It is hard."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("It is hard. You are not al", "It is hard."),
        ("Is it hard? You said 4.5 out of", "Is it hard?"),
        ('He said "no." And then', 'He said "no."'),
        ("不容易。你可以", "不容易。"),
        ("It is hard.", "It is hard."),
        ("It is hard and you are not al", "It is hard and you are not al"),
        ("It is so\nSeeker: Yes. And", "It is so"),
    ],
)
def test_a_cut_answer_ends_with_its_last_whole_sentence(answer: str, words: str) -> None:
    assert clean_reply(answer, ESCONV, cut=True) == words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("[Write your next reply to this, the words alone, about 25", None),
        ("It is hard.\n\n(write your next reply to this, the", "It is hard."),
        ('"Write your next reply to this, the words alone."', None),
        ("Write your next letter to her.", "Write your next letter to her."),
    ],
)
def test_a_question_that_is_repeated_is_no_part_of_the_words(answer: str, words: str | None) -> None:
    asked = "(Write your next reply to this, the words alone, about 25 of them.)"
    assert clean_reply(answer, ESCONV, asked=asked) == words
    assert clean_reply("Go on. It is hard.", ESCONV, asked="Go on.") == "Go on. It is hard."


@pytest.mark.parametrize("answer", ["[END]", "Thanks, bye. [end]", "</end/>", "<end>", "/end/", "</end>", "[ END ]"])
def test_an_end_mark_anywhere_ends_the_talk(answer: str) -> None:
    assert ends_the_talk(answer)


@pytest.mark.parametrize("answer", ["It has to end.", "[the end of it]", "<think>[END]?</think>I am still sad.", ""])
def test_what_is_no_mark_ends_nothing(answer: str) -> None:
    assert not ends_the_talk(answer)
