"""Nobody in danger gets a made-up reply: which messages stop a talk, and the fixed text that answers them.

`risk_of` finds words of danger in a message, `stop_after` whether a talk stands stopped; `Stop.text` is the answer.
"""

from esckit.safety.risk import DANGERS, Danger, risk_of, words_hash
from esckit.safety.stop import SOURCE, Stop, language_of, stop_after, wants_to_go_on

__all__ = [
    "DANGERS",
    "SOURCE",
    "Danger",
    "Stop",
    "language_of",
    "risk_of",
    "stop_after",
    "wants_to_go_on",
    "words_hash",
]
