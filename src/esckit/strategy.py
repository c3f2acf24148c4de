"""Taxonomies of support strategies: which labels exist, what they mean, how they are abbreviated.

A taxonomy's label order is fixed: every table, every confusion matrix and every ``labels=`` follows it.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
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
    """One label: its name as written in data, a short form for charts, and what a supporter does under it."""

    label: str
    abbreviation: str
    definition: str


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

    def match(self, text: str | None) -> str | None:
        """Return the label that ``text`` names (case-insensitive, trimmed), or None."""
        wanted = (text or "").strip().casefold()
        return next((label for label in self.labels if label.casefold() == wanted), None)


ESCONV: Final = Taxonomy(
    "esconv",
    (
        Strategy("Question", "Que", "Asks for information that helps the person put the problem into words."),
        Strategy("Restatement or Paraphrasing", "R&P", "Says back, shorter, what the person has told."),
        Strategy("Reflection of feelings", "Ref", "Names and describes what the person feels."),
        Strategy("Self-disclosure", "Sel", "Shares a similar experience or feeling of one's own."),
        Strategy("Affirmation and Reassurance", "A&R", "Affirms strengths and capabilities, encourages, reassures."),
        Strategy("Providing Suggestions", "Sug", "Proposes what the person could do, without prescribing it."),
        Strategy("Information", "Inf", "Gives facts, resources or answers that are useful here."),
        Strategy("Others", "Oth", "Greets, thanks, makes small talk, or does anything the other labels do not cover."),
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
        Strategy("Emotional Validation", "EV", "Acknowledges and accepts what the person feels."),
        Strategy("Affirmation", "Aff", "Encourages, and points to strengths and hope."),
        Strategy("Collaborative Planning", "CP", "Works out steps together with the person."),
        Strategy("Empathetic Statements", "ES", "Expresses understanding of the person's experience."),
        Strategy("Avoid Judgment and Criticism", "AJC", "Keeps the talk safe by judging nothing the person did."),
        Strategy("Provide Different Perspectives", "PDP", "Offers another way to look at the situation."),
        Strategy("Reframe Negative Thoughts", "RNT", "Helps turn a harsh thought into a fairer one."),
        Strategy("Share Information", "SI", "Gives facts about feelings, coping and self-care."),
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
        Strategy("question", "Que", "Asks, openly or for a yes or no."),
        Strategy("reflection", "Ref", "Says back what the person said or meant."),
        Strategy("therapist_input", "Inp", "Gives information, advice or options, or negotiates."),
        Strategy("other", "Oth", "Greets, acknowledges, or does anything the other labels do not cover."),
    ),
)
"""AnnoMI's main therapist behaviours (Wu et al. 2022): what a therapist does in motivational interviewing."""

TAXONOMIES: Final = MappingProxyType({taxonomy.name: taxonomy for taxonomy in (ESCONV, CSO, ANNOMI)})
