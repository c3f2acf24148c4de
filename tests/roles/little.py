"""A bank of three roles with four short experiences each, in English and Chinese."""

from typing import Final

from esckit.roles import EMOTIONS, Experience, Role, RoleBank

HIGH: Final = {"joy": "glad", "fear": "afraid", "sadness": "sad", "anger": "angry"}
ZH: Final = {"joy": "高兴", "fear": "害怕", "sadness": "难过", "anger": "生气"}
STORIES: Final = {
    "captain": ("ship and storm at sea", "船和海上的风暴", ("work", "job crisis", "职业")),
    "gardener": ("roses and my sweetheart", "玫瑰和爱人", ("love", "breakup with partner", "恋爱")),
    "miller": ("mill and the flour at night", "磨坊和夜里的面粉", ("sleep", "sleep problems", "行为")),
}


def scores(emotion: str) -> tuple[int, ...]:
    """High in one emotion, low in all others."""
    return tuple(9 if each == emotion else 2 for each in EMOTIONS)


def little_role(name: str) -> Role:
    en, zh, topics = STORIES[name]
    texts = {"en": f"I live with {en}.", "zh": f"我和{zh}生活。"}
    told = tuple(
        Experience(
            f"{name}-{emotion}",
            {"en": f"With {en} I was {word}.", "zh": f"因为{zh}，我很{ZH[emotion]}。"},
            scores(emotion),
        )
        for emotion, word in HIGH.items()
    )
    return Role(name, {"en": name, "zh": zh}, texts, texts, texts, texts, topics, {"en": {}, "zh": {}}, told)


def little_bank() -> RoleBank:
    return RoleBank(tuple(map(little_role, STORIES)), "little")
