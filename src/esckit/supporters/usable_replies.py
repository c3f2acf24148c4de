"""Which human replies a program may say again: none that are about a life, a place, a person, a payment or a danger.

The rules are English (those of danger have more languages), err towards leaving out, and are counted by reason. They
are filters, not a guarantee.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.rendering import supporter_turns
from esckit.safety import risk_of

__all__ = ["UsableReply", "explicit_risk", "names_of", "unusable", "usable_replies"]

_CONTACT: Final = re.compile(
    r"(?:\+?\d[\d\s().-]{5,}\d)|\b\d{3}[- ]\d{4}\b|https?://|www\.|\b\w+\.(?:com|org|net|gov|edu|co\.uk)\b|\S+@\S+\.\w+"
    r"|\b(?:hot|help|crisis)[- ]?line\b|\b(?:911|988|999|112|741741)\b",
    re.IGNORECASE,
)
_CROWD_WORK: Final = re.compile(
    r"\b(?:survey|mturk|turker\w*|turk|hits?\s+(?:id|code|is|was)|requester|bonus|qualif\w+|questionnaire|rating|worker|"
    r"task|experiment|researchers?|timer?\s+(?:is\s+)?up|button|click\w*|quit|exit|log\s*(?:off|out)|disconnect\w*|"
    r"(?:end|finish|close|leave)\w*\s+(?:the|this|our)\s+(?:chat|conversation|session|talk)|chat\s*(?:box|room|window)|"
    r"(?:number|amount)\s+of\s+(?:turns|messages|responses)|\d+\s+(?:turns|messages|minutes?\s+left)|typo|"
    r"(?:next|other)\s+person|peer\s+support\w*|supporter)\b",
    re.IGNORECASE,
)
_LIVED: Final = re.compile(
    r"\b(?:my|mine|myself|me\s+too|same\s+(?:here|thing|situation|boat)|we|us|our|ours|been\s+(?:there|through)|"
    r"happened\s+to\s+me|like\s+me|as\s+me|for\s+me|than\s+me)\b",
    re.IGNORECASE,
)
_FIRST_PERSON: Final = re.compile(
    r"\bi(?:'?m|'?ll|'?d|'?ve)?\b(?:[\s,]+(?:really|also|just|do|don'?t|can|can'?t|cannot|could|would|will|truly|totally|"
    r"definitely|completely|certainly|so|only|very|much|am|fully|deeply|not|be|do|have|been|of|course|may|might|must|"
    r"too|always|genuinely|actually|still|even|should|if|to|a|bit)\b)*[\s,]*([a-z']*)",
    re.IGNORECASE,
)
_LISTENING: Final = frozenset(
    {
        *("", "see", "hear", "understand", "imagine", "hope", "wonder", "wondering", "appreciate", "sense", "think"),
        *("believe", "suggest", "recommend", "sorry", "glad", "happy", "here", "help", "ask", "asking", "say", "tell"),
        *("mean", "guess", "agree", "wish", "want", "listen", "listening", "like", "offer", "proud", "sure", "curious"),
        *("thank", "apologize", "apologise", "add", "encourage", "empathize", "empathise", "sympathize", "admire"),
        *("respect", "acknowledge", "bet", "gather", "pleased", "impressed", "interested", "saying"),
        *("hearing", "suggesting", "recommending", "hoping", "concerned", "assume", "commend"),
    }
)
"""What a program may say of itself: that it listens, supposes, wishes, offers. Anything else may be a life's."""
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z']*")
_SENTENCE: Final = re.compile(r"[.!?]+\s+|\n+")
_NO_NAMES: Final = frozenset({"i", "i'm", "i've", "i'd", "i'll", "im", "ive", "ok", "okay", "tv", "id", "ill"})


class UsableReply(NamedTuple):
    """A reply of a person that may be said again, and where it stood."""

    conversation: Conversation
    turn: Turn


def explicit_risk(conversation: Conversation) -> bool:
    """True where someone in the dialogue, or its situation, speaks of a danger (`esckit.safety.risk_of`)."""
    said = [turn.text for turn in conversation.turns]
    return any(risk_of(text) for text in (*said, conversation.situation) if text)


def names_of(conversations: Iterable[Conversation]) -> frozenset[str]:
    """Words, in lower case, that these dialogues mostly write with a capital inside a sentence: names and places."""
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for conversation in conversations:
        for turn in conversation.turns:
            for sentence in _SENTENCE.split(turn.text or ""):
                if sentence.isupper():
                    continue
                for word in _WORD.findall(sentence)[1:]:
                    (capital if word[0].isupper() else small)[word.lower()] += 1
    return frozenset(word for word, count in capital.items() if count > small[word] and word not in _NO_NAMES)


def unusable(text: str, names: frozenset[str]) -> str | None:
    """Why a reply must not be said again; None where nothing speaks against it."""
    if risk_of(text):
        return "risk"
    if _CONTACT.search(text):
        return "phone numbers, links and helplines"
    if _CROWD_WORK.search(text):
        return "talk of the survey or the chat"
    if _LIVED.search(text) or any(word.lower() not in _LISTENING for word in _FIRST_PERSON.findall(text)):
        return "self-disclosure of lived experience"
    if any(word.lower() in names for word in _WORD.findall(text)):
        return "names and places"
    return None if any(character.isalpha() for character in text) else "no words"


def usable_replies(conversations: list[Conversation], left_out: Counter[str]) -> Iterator[UsableReply]:
    """Yield the replies of labelled supporter turns that may be said again; count the others by reason."""
    names = names_of(conversations)
    for conversation in conversations:
        turns = supporter_turns(conversation)
        if explicit_risk(conversation):
            left_out["dialogues with explicit risk"] += len(turns)
            continue
        for turn in turns:
            reason = unusable(turn.text or "", names)
            if turn.strategy == "Self-disclosure":  # a program has no life to disclose
                reason = "self-disclosure of lived experience"
            if reason:
                left_out[reason] += 1
            else:
                yield UsableReply(conversation, turn)
