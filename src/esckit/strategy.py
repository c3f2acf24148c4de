"""Taxonomies of support strategies: which labels exist, what they mean, how they are abbreviated.

A taxonomy's label order is fixed: every table, every confusion matrix and every ``labels=`` follows it.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final

__all__ = [
    "ANNOMI",
    "CSO",
    "ESCONV",
    "EXTES_TO_CSO",
    "FAILED_ESCONV_TO_ESCONV",
    "TAXONOMIES",
    "Strategy",
    "Taxonomy",
    "fold_label",
]

_AROUND: Final = "()[]{}<>《》【】「」'\"`*.:,;"
_BETWEEN: Final = re.compile(r"[\s_\-]+")
_WIDE_BRACKETS: Final = str.maketrans("（）", "()")


@lru_cache(maxsize=4096)
def fold_label(text: str) -> str:
    """The form in which two spellings of a label in a corpus are one.

    Case, width, brackets and quotes around it, a mark at its end, and how its words are joined (blanks, ``_``, ``-``)
    do not count.
    """
    plain = unicodedata.normalize("NFKC", text).strip().strip(_AROUND)
    return _BETWEEN.sub(" ", plain).strip().casefold()


@dataclass(frozen=True, slots=True)
class Strategy:
    """One label: its name as written in data, a short form for charts, and what a supporter does under it.

    chinese: its name in Chinese, then other names that Chinese data gives it.
    chinese_definition: what a supporter does under it, in Chinese.
    """

    label: str
    abbreviation: str
    definition: str
    chinese: tuple[str, ...] = ()
    chinese_definition: str = ""


@dataclass(frozen=True)
class Taxonomy:
    """A closed, ordered list of strategies."""

    name: str
    strategies: tuple[Strategy, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in their fixed order."""
        return tuple(strategy.label for strategy in self.strategies)

    @property
    def abbreviations(self) -> dict[str, str]:
        """Label to short form."""
        return {strategy.label: strategy.abbreviation for strategy in self.strategies}

    def name_in(self, label: str, language: str) -> str:
        """A label's name for people who read in a language; the label itself where it has none."""
        names = {strategy.label: strategy.chinese[0] for strategy in self.strategies if strategy.chinese}
        return names.get(label, label) if language == "zh" else label

    def shown_in(self, label: str, language: str) -> str:
        """A label as prompts and pages name it: beside its name in the language where it has one."""
        name = self.name_in(label, language)
        return label if name == label else f"{label}（{name}）"

    def listed_in(self, language: str) -> str:
        """All labels in one line, as prompts list them."""
        return ("、" if language == "zh" else ", ").join(self.shown_in(label, language) for label in self.labels)

    def definition_in(self, label: str, language: str) -> str:
        """What a supporter does under a label, in a language, in English where there is nothing in that.

        Raises:
            KeyError: it is no label of the taxonomy.
        """
        strategy = {strategy.label: strategy for strategy in self.strategies}[label]
        return strategy.chinese_definition if language == "zh" and strategy.chinese else strategy.definition

    def guidelines_in(self, language: str) -> str:
        """All labels with their definitions, a line each, as prompts explain them."""
        colon = "：" if language == "zh" else ": "
        lines = (
            f"- {self.shown_in(label, language)}{colon}{self.definition_in(label, language)}" for label in self.labels
        )
        return "\n".join(lines)

    def match(self, text: str | None) -> str | None:
        """Return the label that ``text`` names, in English or Chinese (case-insensitive, trimmed), or None.

        ``Question（提问）``, a label with its Chinese name behind it, is read too.
        """
        wanted = (text or "").strip().casefold()
        return _names_of(self).get(wanted.translate(_WIDE_BRACKETS))


@cache
def _names_of(taxonomy: Taxonomy) -> Mapping[str, str]:
    """Every name of a label, as `Taxonomy.match` reads it; a label goes before another one's Chinese name."""
    labels = {label.casefold(): label for label in taxonomy.labels}
    chinese = {name: strategy.label for strategy in taxonomy.strategies for name in strategy.chinese}
    both = {f"{label}{blank}({name})".casefold(): label for name, label in chinese.items() for blank in ("", " ")}
    turned = {f"{name}({label})".casefold(): label for name, label in chinese.items()}
    return {**chinese, **both, **turned, **labels}


ESCONV: Final = Taxonomy(
    "esconv",
    (
        Strategy(
            "Question",
            "Que",
            "Asks for information that helps the person put the problem into words.",
            ("提问", "问题", "询问", "问题探索"),
            "询问情况，帮助对方把困扰说清楚。",
        ),
        Strategy(
            "Restatement or Paraphrasing",
            "R&P",
            "Says back, shorter, what the person has told.",
            ("复述", "重述", "释义", "复述或释义", "复述与释义"),
            "用更简短的话把对方说的内容讲回去。",
        ),
        Strategy(
            "Reflection of feelings",
            "Ref",
            "Names and describes what the person feels.",
            ("情感反映", "情感反射", "情绪反映", "情绪反馈", "感受反映"),
            "说出并描述对方此刻的感受。",
        ),
        Strategy(
            "Self-disclosure",
            "Sel",
            "Shares a similar experience or feeling of one's own.",
            ("自我表露", "自我披露", "自我暴露", "自我开放"),
            "分享自己相似的经历或感受。",
        ),
        Strategy(
            "Affirmation and Reassurance",
            "A&R",
            "Affirms strengths and capabilities, encourages, reassures.",
            ("肯定与安慰", "肯定和安慰", "肯定与鼓励", "肯定与支持", "认可与安慰", "肯定与安抚", "安慰与肯定"),
            "肯定对方的长处和能力，给予鼓励和安慰。",
        ),
        Strategy(
            "Providing Suggestions",
            "Sug",
            "Proposes what the person could do, without prescribing it.",
            ("提供建议", "建议", "给出建议", "直接指导"),
            "提出可以尝试的做法，但不替对方作决定。",
        ),
        Strategy(
            "Information",
            "Inf",
            "Gives facts, resources or answers that are useful here.",
            ("提供信息", "信息", "信息提供"),
            "提供有用的事实、资源，或回答疑问。",
        ),
        Strategy(
            "Others",
            "Oth",
            "Greets, thanks, makes small talk, or does anything the other labels do not cover.",
            ("其他", "其它"),
            "问候、道谢、寒暄，或其他标签没有涵盖的内容。",
        ),
    ),
)
"""ESConv's eight strategies (Liu et al. 2021), in the order of the helping-skills stages."""

FAILED_ESCONV_TO_ESCONV: Final = MappingProxyType(
    {
        "Approval and Reassurance": "Affirmation and Reassurance",
        "Direct Guidance": "Providing Suggestions",
        "Other": "Others",
        "Questions": "Question",
        "Restatement": "Restatement or Paraphrasing",
    }
)
"""FailedESConv's own names for five of ESConv's eight; it names the other three alike."""

CSO: Final = Taxonomy(
    "cso",
    (
        Strategy(
            "Emotional Validation",
            "EV",
            "Acknowledges and accepts what the person feels.",
            ("情绪认可", "情感认可", "情绪确认", "情感验证"),
            "承认并接纳对方的感受。",
        ),
        Strategy(
            "Affirmation",
            "Aff",
            "Encourages, and points to strengths and hope.",
            ("肯定与鼓励", "肯定", "鼓励"),
            "给予鼓励，指出对方的长处和希望所在。",
        ),
        Strategy(
            "Collaborative Planning",
            "CP",
            "Works out steps together with the person.",
            ("共同规划", "协作规划", "合作规划"),
            "和对方一起商量接下来怎么做。",
        ),
        Strategy(
            "Empathetic Statements",
            "ES",
            "Expresses understanding of the person's experience.",
            ("共情表达", "共情陈述", "共情"),
            "表达对对方处境的理解。",
        ),
        Strategy(
            "Avoid Judgment and Criticism",
            "AJC",
            "Keeps the talk safe by judging nothing the person did.",
            ("不作评判", "避免评判", "避免评判与批评"),
            "不评判对方所做的事，让谈话保持安全。",
        ),
        Strategy(
            "Provide Different Perspectives",
            "PDP",
            "Offers another way to look at the situation.",
            ("提供不同视角", "提供不同角度", "不同视角"),
            "提供另一种看待处境的角度。",
        ),
        Strategy(
            "Reframe Negative Thoughts",
            "RNT",
            "Helps turn a harsh thought into a fairer one.",
            ("重构消极想法", "重塑消极想法", "重构负面想法"),
            "帮助对方把苛刻的想法变得更公允。",
        ),
        Strategy(
            "Share Information",
            "SI",
            "Gives facts about feelings, coping and self-care.",
            ("分享信息", "提供信息", "信息分享"),
            "讲解有关情绪、应对和照顾自己的知识。",
        ),
    ),
)
"""The eight strategies of Chain of Strategy Optimization (its appendix D.4)."""

EXTES_TO_CSO: Final = MappingProxyType(
    {
        "Reflective Statements": "Emotional Validation",
        "Clarification": "Emotional Validation",
        "Emotional Validation": "Emotional Validation",
        "Normalize Experiences": "Emotional Validation",
        "Affirmation": "Affirmation",
        "Offer Hope": "Affirmation",
        "Suggest Options": "Collaborative Planning",
        "Collaborative Planning": "Collaborative Planning",
        "Stress Management": "Collaborative Planning",
        "Promote Self-Care Practices": "Collaborative Planning",
        "Empathetic Statements": "Empathetic Statements",
        "Avoid Judgment and Criticism": "Avoid Judgment and Criticism",
        "Provide Different Perspectives": "Provide Different Perspectives",
        "Reframe Negative Thoughts": "Reframe Negative Thoughts",
        "Share Information": "Share Information",
    }
)
"""ExTES's labels to CSO's eight (CSO, table 8); its "Others" has no place there."""

ANNOMI: Final = Taxonomy(
    "annomi",
    (
        Strategy("question", "Que", "Asks, openly or for a yes or no.", ("提问",), "提问，开放式的或是非式的。"),
        Strategy(
            "reflection",
            "Ref",
            "Says back what the person said or meant.",
            ("反映",),
            "把对方说的话或话中的意思讲回去。",
        ),
        Strategy(
            "therapist_input",
            "Inp",
            "Gives information, advice or options, or negotiates.",
            ("治疗师介入",),
            "提供信息、意见或选择，或进行协商。",
        ),
        Strategy(
            "other",
            "Oth",
            "Greets, acknowledges, or does anything the other labels do not cover.",
            ("其他", "其它"),
            "问候、应答，或其他标签没有涵盖的内容。",
        ),
    ),
)
"""AnnoMI's main therapist behaviours (Wu et al. 2022): what a therapist does in motivational interviewing."""

TAXONOMIES: Final = MappingProxyType({taxonomy.name: taxonomy for taxonomy in (ESCONV, CSO, ANNOMI)})
