"""Talks for the tests of derivation: a question, a dialogue, a role, all made here."""

from esckit.conversation import Conversation, Turn
from esckit.mining.derivation.asking import Task
from esckit.mining.derivation.exchanges import Exchange, Talk, exchanges_of
from esckit.mining.derivation.sources import Source
from esckit.roles.bank import Experience, Role, RoleBank
from esckit.strategy import ESCONV

LABELS = (
    *("Question", "Restatement or Paraphrasing", "Reflection of feelings", "Information"),
    *("Affirmation and Reassurance", "Question", "Providing Suggestions", "Others"),
)
"""Of the eight exchanges of `dialogue`."""

ANSWER = " ".join(f"This is sentence number {number} of an answer." for number in range(12))
_PHASES = (*("exploration",) * 3, *("comforting",) * 3, *("action",) * 2)
_SEEKER = {
    "en": "My sister has not called me back for number {} weeks, and I keep looking at the phone.",
    "zh": "我姐姐已经第{}个星期没有给我回电话了，我一直盯着手机看。",
}
_SUPPORTER = {
    "en": "It hurts to wait for her for so long, and this is reply number {} to it.",
    "zh": "等了这么久，心里一定很难受，这是我第{}次这样回应你。",
}


def role(name: str = "mole", *, experiences: int = 3, topics: tuple[str, ...] = ("family",)) -> Role:
    """A role in two languages."""
    told = tuple(
        Experience(
            f"{name}-{number}",
            {
                "en": f"I dug for {number} days under the {word}, and singing helped.",
                "zh": f"我在{word}下面挖了{number}天，唱歌帮了我。",
            },
            (1, 2, 3, 4, 5, 6, 7, 8),
        )
        for number, word in enumerate(("garden", "phone and the sister", "river", "hill")[:experiences])
    )
    both = {"en": "a mole who digs", "zh": "一只挖洞的鼹鼠"}
    phrases = {
        "en": dict.fromkeys(ESCONV.labels, ("Digging on,",)),
        "zh": dict.fromkeys(ESCONV.labels, ("挖着挖着，",)),
    }
    titles = {"en": name.capitalize(), "zh": f"鼹鼠{name}"}
    return Role(name, titles, both, both, both, both, topics, phrases, told)


def bank(*names: str) -> RoleBank:
    """Some roles; the topic of each is its name."""
    return RoleBank(tuple(role(name, topics=(name,)) for name in names or ("mole", "otter", "wren")), "tests")


def talk(language: str = "en", *, phases: bool = False, labels: tuple[str, ...] = LABELS) -> Talk:
    """Eight exchanges, in which nothing is wrong."""
    return tuple(
        Exchange(
            _SEEKER[language].format(place),
            _SUPPORTER[language].format(place),
            label,
            _PHASES[place % 8] if phases else None,
        )
        for place, label in enumerate(labels)
    )


def tree(said: Talk, language: str = "en", name: str = "talk-1") -> Conversation:
    """A dialogue of people."""
    turns = []
    for place, each in enumerate(said):
        before = str(2 * place - 1) if place else None
        turns.append(Turn(str(2 * place), before, "seeker", each.seeker, source="human"))
        turns.append(Turn(str(2 * place + 1), str(2 * place), "supporter", each.supporter, each.strategy, "human"))
    return Conversation(name, turns, language)


def question(
    text: str = "Why does my sister not call?\nWe had a row in May. Since then she is silent.",
    answer: str = ANSWER,
    language: str = "en",
    name: str = "psyqa-1",
    **extra: object,
) -> Conversation:
    """A question with its answer, as PsyQA is read."""
    asked = Turn("0", None, "seeker", text, source="human")
    said = Turn("1", "0", "supporter", answer, source="human", extra=dict(extra))
    return Conversation(name, [asked, said], language, None, extra={"keywords": "mole,other"})


def task(
    said: Talk | None = None, language: str = "en", *, of: Conversation | None = None, whose: Role | None = None
) -> Task:
    """A talk before a step."""
    start = of or tree(said or talk(language), language)
    return Task(Source(start, exchanges_of(start)), said or exchanges_of(start), whose)
