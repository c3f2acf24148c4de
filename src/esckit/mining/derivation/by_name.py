"""A derivation by whoever is named: the rules, or a chat model; perplexity by a model that is named, too."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esckit.chat_models.opening import chat_model_name
from esckit.conversation import Conversation
from esckit.errors import EsckitError
from esckit.mining.derivation.options import DerivationOptions
from esckit.mining.derivation.run import Deriver, check_sources, derive_parts
from esckit.roles.bank import read_bank
from esckit.supporters.open_model import check_model, open_model

if TYPE_CHECKING:
    from esckit.language_models.backbone import Backbone

__all__ = ["TREES", "check_deriver", "derive_corpus", "deriver_of", "measure_dialogues"]

TREES = "trees.jsonl"


def derive_corpus(
    conversations: Sequence[Conversation],
    out: Path | str,
    options: DerivationOptions | None = None,
    *,
    ledger: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Derive role dialogues from questions with answers, or from dialogues, and write them into a folder.

    A call that was stopped is continued by the same call.

    Args:
        conversations: the sources, in any language that prompts, rules and bank have.
        out: the folder: trees.jsonl, derivation.json.
        options: how; None: by rules, each for the role that matches.
        ledger: file of the answers; None is ``ledger.sqlite`` in the folder.
        seed: of every draw, 0 or more.

    Returns:
        What stands in derivation.json.

    Raises:
        CorpusError: no source is left.
        RoleError: the bank cannot be used, or lacks a language or a role.
        EsckitError: there are no prompts or no rules in a language; a perplexity is asked for, and no model is named.
        ModelError, ChatError: a model cannot be had.
        BudgetSpent, LedgerError: a model cannot go on; what was answered is kept.
    """
    wanted = options or DerivationOptions()
    limit = wanted.filters.perplexity
    if limit is not None and limit.model is None:
        raise EsckitError(
            "a perplexity means nothing without its model: set filters.perplexity.model (smollm2, a folder)."
        )
    bank = read_bank(wanted.bank)
    check_sources(conversations, wanted, bank, seed)
    check_deriver(wanted)
    return derive_parts({TREES: conversations}, wanted, Path(out), bank, deriver_of(wanted), ledger=ledger, seed=seed)


def check_deriver(options: DerivationOptions) -> None:
    """Refuse at once a model that cannot be had.

    Raises:
        ModelError, ChatError: it cannot.
    """
    if options.derived_by == "model":
        check_model(options.deriver)
    limit = options.filters.perplexity
    if limit is not None and limit.model is not None:
        from esckit.language_models.backbone import check_backbone

        check_backbone(limit.model)


def deriver_of(options: DerivationOptions, backbone: "Callable[[], Backbone] | None" = None) -> Deriver:
    """Who writes and measures; ``backbone`` opens a recipe's own, where the limit of perplexity names no model."""

    def measure(texts: Sequence[str]) -> list[float]:
        from esckit.language_models.backbone import load_backbone
        from esckit.language_models.perplexity import perplexities

        limit = options.filters.perplexity
        assert limit is not None
        model = load_backbone(limit.model) if limit.model else backbone() if backbone else None
        assert model is not None
        return [each.value for each in perplexities(texts, model)]

    perplexity = measure if options.filters.perplexity else None
    if options.derived_by == "rules":
        return Deriver(perplexity=perplexity)
    name = chat_model_name(str(options.deriver.model))
    return Deriver(name, lambda: open_model(options.deriver), perplexity)


def measure_dialogues(conversations: Sequence[Conversation], model: str, speaker: str | None = None) -> dict[str, Any]:
    """The perplexity of dialogues by a model that is named: of all together, weighted by tokens, and of each by its id.

    Args:
        conversations: the trunk of each is one text, a line a turn.
        model: a folder, a Hub id, ``smollm2``.
        speaker: take the turns of seeker or supporter alone.

    Raises:
        ModelError: the model cannot be had.
    """
    from esckit.language_models.backbone import load_backbone
    from esckit.language_models.perplexity import Perplexity, perplexities

    said = [[turn.text or "" for turn in tree.trunk if speaker in (None, turn.speaker)] for tree in conversations]
    backbone = load_backbone(model)
    found = perplexities(["\n".join(lines) for lines in said], backbone)
    together = Perplexity(sum(each.nats for each in found), sum(each.tokens for each in found))
    return {
        "model": backbone.source,
        "weights": backbone.weights_hash,
        "texts": len(found),
        "tokens": together.tokens,
        "perplexity": together.value if together.tokens else None,
        "each": {tree.id: each.value if each.tokens else None for tree, each in zip(conversations, found, strict=True)},
    }
