"""What a derived talk has to be: looked at after each step, and each fault is counted by its name."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

from esckit.measures.scripts import MOST, is_foreign, share_of
from esckit.mining.derivation.asking import Task, prompt_of
from esckit.mining.derivation.exchanges import PHASES, Talk, supporter_text
from esckit.mining.derivation.experiences import places_to_tell
from esckit.mining.derivation.options import DerivationOptions, StepName
from esckit.mining.derivation.rules import rules_in
from esckit.mining.self_refinement.filters import count_words
from esckit.safety import stop_after
from esckit.strategy import Taxonomy

__all__ = ["AT_THE_END", "FAULTS", "OF_SOURCES", "fault_of"]

OF_SOURCES: Final = ("other language", "no question", "no answer", "danger")
"""Why a tree is no source (`sources`)."""

AT_THE_END: Final = ("near-duplicate", "perplexity")
"""What is looked at when all versions of a source are there (`versions`)."""

_STATES: Final = ("unparsed", "refused", "failed")
_MARK: Final = re.compile(
    r"^\s*(?:[\[【]|(?:seeker|supporter|user|assistant|client|counsell?or|来访者|求助者|用户|支持者|咨询师|助手)\s*[:：])",
    re.IGNORECASE | re.MULTILINE,
)
_TOLD: Final = 10  # letters; a shorter line shows no language
_LATIN: Final = re.compile("[A-Za-z]+")
_SCRIPTS: Final = {"zh": "Chinese"}


class Step(NamedTuple):
    """A talk before and after a step."""

    before: Task
    after: Talk
    options: DerivationOptions
    taxonomy: Taxonomy

    @property
    def told(self) -> list[int]:
        """The exchanges in which an experience is told."""
        return [place for place, each in enumerate(self.after) if each.experience is not None]

    @property
    def language(self) -> str:
        """Of the source."""
        return self.before.source.language


def _is_malformed(step: Step) -> bool:
    """A line is empty, or holds a speaker's or a label's mark."""
    texts = [text for each in step.after for text in (each.seeker, each.supporter)]
    own = {text for each in step.before.talk for text in (each.seeker, each.supporter)}
    return not all(text.strip() for text in texts) or any(_MARK.search(text) for text in texts if text not in own)


def _has_unknown_label(step: Step) -> bool:
    return any(each.strategy not in step.taxonomy.labels for each in step.after)


def _is_out_of_phase(step: Step) -> bool:
    """Not all three phases are there, or not in their order; a dialogue of people has none."""
    phases = [each.phase for each in step.after if each.phase is not None]
    known = [phase for phase in phases if phase in PHASES]
    in_order = known == sorted(known, key=PHASES.index)
    return bool(phases) and (known != phases or not in_order or set(phases) != {*PHASES})


def _has_other_turns(step: Step) -> bool:
    filters = step.options.filters
    changed = len(step.after) != len(step.before.talk) and len(step.before.talk) > 1
    return changed or not filters.fewest <= len(step.after) <= filters.most


def _seeker_differs(step: Step) -> bool:
    return [each.seeker for each in step.after] != [each.seeker for each in step.before.talk]


def _supporter_differs(step: Step) -> bool:
    return supporter_text(step.after) != supporter_text(step.before.talk)


def _tags_differ(step: Step) -> bool:
    return [each.strategy for each in step.after] != [each.strategy for each in step.before.talk]


def _length_differs(step: Step) -> bool:
    ratio = step.options.filters.length_ratio
    sizes = sorted(count_words(supporter_text(talk)) for talk in (step.before.talk, step.after))
    return ratio is not None and sizes[1] > ratio * sizes[0]


def _is_foreign(step: Step) -> bool:
    """The letters of a line are mostly of another script, or an English dialogue's words are another language's."""
    texts = [text for each in step.after for text in (each.seeker, each.supporter)]
    lines = [text for text in texts if sum(map(str.isalpha, text)) >= _TOLD]
    if step.language in _SCRIPTS:
        # a word of Latin letters counts as much as one character
        return any(share_of("Chinese", [_LATIN.sub("a", text)]) <= MOST for text in lines)
    return any(share_of("not Latin", [text]) > MOST for text in lines) or (step.language == "en" and is_foreign(texts))


def _is_dangerous(step: Step) -> bool:
    return stop_after([each.seeker for each in step.after]) is not None


def _tells_nothing(step: Step) -> bool:
    telling = step.options.telling
    return telling.most > 0 and bool(places_to_tell(step.before.talk, telling)) and not step.told


def _tells_unknown(step: Step) -> bool:
    known = {each.id for each in step.before.role.experiences} if step.before.role else set()
    return any(step.after[place].experience not in known for place in step.told)


def _tells_at_wrong_place(step: Step) -> bool:
    return any(step.after[place].strategy not in step.options.telling.strategies for place in step.told)


def _tells_too_often(step: Step) -> bool:
    telling, told = step.options.telling, step.told
    twice = len({step.after[place].experience for place in told}) < len(told)
    near = any(other - one < telling.every for one, other in pairwise(told))
    return twice or near or len(told) > telling.most


def _is_no_story(step: Step) -> bool:
    role, rules = step.before.role, rules_in(step.language)
    assert role is not None
    return any(not rules.is_story(step.after[place].supporter, role, step.language) for place in step.told)


def _speaks_as_program(step: Step) -> bool:
    return rules_in(step.language).itself.search(supporter_text(step.after)) is not None


_LOOKS: Final[Mapping[str, Callable[[Step], bool]]] = {
    "format": _is_malformed,
    "unknown label": _has_unknown_label,
    "turns": _has_other_turns,
    "phases": _is_out_of_phase,
    "seeker text": _seeker_differs,
    "supporter text": _supporter_differs,
    "tags": _tags_differ,
    "length ratio": _length_differs,
    "language": _is_foreign,
    "danger": _is_dangerous,
    "no experience": _tells_nothing,
    "unknown experience": _tells_unknown,
    "experience at another strategy": _tells_at_wrong_place,
    "experiences too often": _tells_too_often,
    "no story": _is_no_story,
    "speaks as a program": _speaks_as_program,
}

_ALWAYS: Final = ("format", "unknown label", "turns")
_KEPT: Final = (*_ALWAYS, "seeker text", "tags", "length ratio", "language")
_BY_PROMPT: Final[Mapping[str, tuple[str, ...]]] = {
    "dialogue": (*_ALWAYS, "phases", "language", "danger", "speaks as a program"),
    "tags": (*_ALWAYS, "seeker text", "supporter text"),
    "experiences": (
        *(*_KEPT, "no experience", "unknown experience", "experience at another strategy"),
        *("experiences too often", "no story", "speaks as a program"),
    ),
    "style": (*_KEPT, "no story", "speaks as a program"),
}

FAULTS: Final = (*_STATES, *_LOOKS)
"""Everything that ends a version in a step, in the order in which it is looked at."""


def fault_of(name: StepName, before: Task, after: Talk, options: DerivationOptions, taxonomy: Taxonomy) -> str | None:
    """The first fault of a step's talk; None where it has none."""
    step = Step(before, after, options, taxonomy)
    return next((fault for fault in _BY_PROMPT[prompt_of(name, before)] if _LOOKS[fault](step)), None)
