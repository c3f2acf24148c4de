"""What a person asks for help with, as it stands before anyone has answered, and the role that would suit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from esckit.conversation import Conversation
from esckit.errors import CorpusError
from esckit.roles.bank import RoleBank

GoldBy = Literal["role", "hand", "topic"]
"""Where a gold role is from: the dialogue's label ``role``; a file made by hand; the corpus's topic."""

_TOPIC_LABELS: Final = ("topic", "problem_type")
_BETWEEN: Final = re.compile(r"[,，、;；]\s*")


@dataclass(frozen=True)
class Question:
    """What stands before the first supporter reply, and how the corpus files it.

    Attributes:
        situation: what the person wrote before the talk, if anything.
        said: the seeker's turns before the first reply. A greeting that opens a dialogue is no reply.
        language: of the dialogue.
        source: id of the dialogue or question that it is; equal for all versions of one.
        keywords: as the corpus has them (PsyQA).
        topics: what the corpus calls the problem, the most general first; no part of what a matcher reads.
        role, by: the gold role, and where it is from; None where there is none.
    """

    situation: str | None
    said: tuple[str, ...]
    language: str
    source: str
    keywords: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    role: str | None = None
    by: GoldBy | None = None

    @property
    def topic(self) -> str | None:
        """The most general topic."""
        return self.topics[0] if self.topics else None


def read_question(conversation: Conversation) -> Question:
    """Read the question of a dialogue; its gold role is looked for by `with_gold`."""
    said: list[str] = []
    for turn in conversation.trunk:
        if turn.speaker == "seeker":
            said.append(turn.text or "")
        elif said:
            break
    keywords = _keywords(conversation.extra.get("keywords"))
    labels = [conversation.labels[name] for name in _TOPIC_LABELS if conversation.labels.get(name)]
    return Question(
        situation=conversation.situation,
        said=tuple(said),
        language=conversation.language,
        source=str(conversation.provenance.get("derived_from", conversation.id)),
        keywords=keywords,
        topics=(*labels, *keywords),
    )


def _keywords(value: object) -> tuple[str, ...]:
    """PsyQA writes a list as one text, others as a list."""
    found = _BETWEEN.split(value) if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(word.strip() for word in found if isinstance(word, str) and word.strip())


def question_text(situation: str | None, said: Sequence[str], keywords: Sequence[str] = ()) -> str:
    """What a matcher reads, a part a line.

    Raises:
        CorpusError: there is no text.
    """
    parts = [part.strip() for part in (situation or "", *said, " ".join(keywords))]
    if not any(parts[:-1]):
        raise CorpusError(
            "a question without text suits no role: give a situation, or what the person said before the first reply."
        )
    return "\n".join(dict.fromkeys(filter(None, parts)))


def questions_with_gold(
    conversations: Sequence[Conversation], bank: RoleBank, by_hand: Mapping[str, str | None] | None = None
) -> tuple[list[Question], Counter[str]]:
    """Read each source's question once, with its gold role; count what is left out, by reason.

    The gold role is the dialogue's label; where a source has versions of several roles, which then say nothing of the
    person, or no label, it is that of ``by_hand`` (source id to role, None where none fits); else the role of the first
    topic that has one. What was made by hand for another bank, and names a role that this one lacks, is passed over.

    Raises:
        RoleError: a label names a role that the bank lacks.
    """
    versions: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        source = str(conversation.provenance.get("derived_from", conversation.id))
        versions.setdefault(source, []).append(conversation)
    found, left_out = list[Question](), Counter[str]()
    for own in versions.values():
        question = with_gold(read_question(own[0]), own, bank, by_hand or {})
        if not any(part.strip() for part in (question.situation or "", *question.said)):
            left_out["no text before the first reply"] += 1
        elif question.role is None:
            left_out["no gold role"] += 1
        else:
            found.append(question)
    return found, left_out


def with_gold(
    question: Question, versions: Sequence[Conversation], bank: RoleBank, by_hand: Mapping[str, str | None]
) -> Question:
    """The question with its gold role, as `questions_with_gold` finds it."""
    labels = {each.labels["role"] for each in versions if each.labels.get("role")}
    if len(labels) == 1:
        return replace(question, role=bank.role(labels.pop()).name, by="role")
    if question.source in by_hand and by_hand[question.source] in (None, *bank.names):
        return replace(question, role=by_hand[question.source], by="hand")
    role = next(filter(None, map(bank.of_topic, question.topics)), None)
    return replace(question, role=role.name, by="topic") if role else question
