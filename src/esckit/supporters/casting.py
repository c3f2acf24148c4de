"""Who speaks, and which story is told: a role for the person, an experience of that role for a turn (Empath, 5.2)."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esckit.conversation import Conversation, Turn
from esckit.decoding import seed_of
from esckit.planning.questions import question_text, read_question
from esckit.planning.role_matcher import RoleMatcher
from esckit.roles import RoleBank
from esckit.roles.telling import choose_experience, may_tell, told_on
from esckit.supporters.casting_options import ROLES, CastingOptions
from esckit.supporters.proposing import TurnRequest

if TYPE_CHECKING:
    from esckit.chat_models.ledger import Ledger
    from esckit.supporters.asked_emotions import AskedEmotions

__all__ = ["Casting", "CastingOptions"]

_RECENT: Final = 3  # the seeker's last turns that tell what is felt now


class Casting:
    """Chooses roles and experiences, each from what stands before the turn alone.

    Args:
        matcher: of roles; it knows the bank, and by default scores what a person feels.
        options: how roles and experiences are chosen.
        ledger: of a chat model that scores in the matcher's place.

    Raises:
        RoleError: the options name a role that the bank lacks.
    """

    def __init__(
        self,
        matcher: RoleMatcher,
        options: CastingOptions = CastingOptions(),  # noqa: B008 - it is frozen
        ledger: "Ledger | None" = None,
    ) -> None:
        self.matcher = matcher
        self.options = options
        self.ledger = ledger
        if self.options.role not in ROLES:
            self.bank.role(self.options.role)

    @property
    def bank(self) -> RoleBank:
        """Its roles."""
        return self.matcher.bank

    @property
    def identity(self) -> str:
        """Changes with anything that its choices depend on."""
        return json.dumps([self.matcher.identity, self.options.model_dump(mode="json")])

    def cast(self, requests: Sequence[TurnRequest]) -> list[TurnRequest]:
        """The requests with a role each, their dialogues labelled with it; one without a role loses the label.

        Raises:
            RoleError: a request names a role that the bank lacks, or its dialogue's language is not the bank's.
            CorpusError: there is no text to match a role to.
        """
        labelled: dict[tuple[int, str], Conversation] = {}
        found = []
        for request in requests:
            role = self._role(request) or ""
            if role:
                self.bank.refuse_language(request.conversation.language)
            key = (id(request.conversation), role)
            if key not in labelled:  # dialogues stay the same object, so that their turns are planned together
                others = {name: value for name, value in request.conversation.labels.items() if name != "role"}
                labels = {**others, "role": role} if role else others
                labelled[key] = replace(request.conversation, labels=labels)
            found.append(replace(request, conversation=labelled[key], role=role))
        return found

    def _role(self, request: TurnRequest) -> str | None:
        """The one that is asked for; else what the options say, where whoever spoke last goes on."""
        if request.role is not None:
            return self._known(request.role)
        how, conversation = self.options.role, request.conversation
        if how not in ROLES or how == "none":
            return None if how == "none" else how
        for turn in reversed(conversation.path(request.parent)):
            if turn.speaker == "supporter" and "role" in turn.extra:
                return self._known(turn.extra["role"])
        if how == "labelled" and (label := self._known(conversation.labels.get("role"))):
            return label
        return self._drawn(conversation) if how == "drawn" else self._matched(conversation, request.parent)

    def _known(self, role: str | None) -> str | None:
        return self.bank.role(role).name if role else None

    def _matched(self, conversation: Conversation, parent: str | None) -> str | None:
        question = read_question(replace(conversation, turns=conversation.path(parent)))
        if not any(part.strip() for part in (question.situation or "", *question.said)):
            return None  # nobody has said anything yet
        found = self.matcher.match(question.situation, question.said, question.language, question.keywords)
        return found.role if self.options.abstains else next(iter(found.probabilities))

    def _drawn(self, conversation: Conversation) -> str:
        counts: Mapping[str, int] = self.matcher.card.facts["roles"]
        source = conversation.provenance.get("derived_from", conversation.id)
        chance = random.Random(seed_of(self.options.seed, "role", source))
        shares = list(counts.values()) if any(counts.values()) else [1] * len(counts)
        return chance.choices(list(counts), shares)[0]

    def extra(self, request: TurnRequest, strategy: str | None) -> dict[str, Any]:
        """What is recorded with a cast request's turn under a strategy: its role, and the experience that it tells."""
        known: dict[str, Any] = {"role": request.role or ""}
        if experience := self._experience(request, strategy):
            known["experience"] = experience
        return known

    def _experience(self, request: TurnRequest, strategy: str | None) -> str | None:
        path = request.conversation.path(request.parent)
        if self.options.experiences == "none" or not request.role or not may_tell(path, strategy, self.options.telling):
            return None
        role, used = self.bank.role(request.role), told_on(path)
        if self.options.experiences == "drawn":
            left = [each.id for each in role.experiences if each.id not in used]
            return random.Random(seed_of(request.seed, "experience")).choice(left) if left else None
        if (text := _said_lately(request.conversation, path)) is None:
            return None
        language = request.conversation.language
        stories = [each.text(language) for each in role.experiences]
        felt = self._feelings(text, language)
        if felt is None:
            return None
        chosen = choose_experience(role, felt, self.matcher.likeness(text, stories, language), used)
        return chosen.id if chosen else None

    def _feelings(self, text: str, language: str) -> Any:
        """Eight scores of a text; None where a chat model gave none."""
        if self._asked is None:
            return self.matcher.feelings([text], language)[0]
        return self._asked.feelings([text], language)[0].scores

    @cached_property
    def _asked(self) -> "AskedEmotions | None":
        """The chat model that scores, if one does; what it has answered is in the ledger, by default one in memory."""
        if self.options.scorer is None:
            return None
        from esckit.chat_models.ledger import Ledger
        from esckit.supporters.asked_emotions import AskedEmotions
        from esckit.supporters.open_model import open_model

        ledger = self.ledger or Ledger(Path(":memory:"))
        return AskedEmotions(open_model(self.options.scorer), ledger, self.options.scorer.pace)


def _said_lately(conversation: Conversation, path: Sequence[Turn]) -> str | None:
    """The situation and the seeker's last turns; None where there are no words."""
    said = [turn.text or "" for turn in path if turn.speaker == "seeker"][-_RECENT:]
    if not any(part.strip() for part in (conversation.situation or "", *said)):
        return None
    return question_text(conversation.situation, said)
