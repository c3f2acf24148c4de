"""Whether the judge of an evaluation also made the preferences that a system was trained on."""

from collections.abc import Iterable, Sequence
from typing import Any

from esckit.conversation import Conversation

__all__ = ["also_mined", "judge_name", "mining_judges"]


def mining_judges(conversations: Iterable[Conversation]) -> list[str]:
    """Everyone who had a say in the preferences of trees: who made a preference, and who judged its two sides."""
    found = set()
    for conversation in conversations:
        for preference in conversation.preferences:
            sides = (conversation.turn(preference.chosen), conversation.turn(preference.rejected))
            found |= {verdict.judge for side in sides for verdict in side.verdicts}
            found |= {preference.judge} if preference.judge else set()
    return sorted(found)


def also_mined(judge: str, identity: Any, miners: Sequence[str]) -> list[str]:
    """Return those of the miners that are this judge.

    A model is the same behind another URL, under another provider's prefix and with another prompt: names compare
    without what stands before their last ``/`` and behind ``@``, and without regard to case. A local model is known by
    its weights' hash, too.

    Args:
        judge: its model's name or folder.
        identity: of its chat model.
        miners: as `mining_judges` gives them.
    """
    own = {judge_name(judge)}
    if isinstance(identity, dict) and "weights" in identity:
        own.add(str(identity["weights"]).casefold())
    return [miner for miner in miners if judge_name(miner) in own or _hash_of(miner) in own]


def judge_name(judge: str) -> str:
    """The part of a judge's name that tells its model."""
    return judge.split("@")[0].rstrip("/").rsplit("/", 1)[-1].casefold()


def _hash_of(judge: str) -> str:
    return judge.rsplit("@", 1)[-1].casefold()
