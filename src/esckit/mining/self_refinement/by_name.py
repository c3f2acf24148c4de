"""A round of self-refinement by whoever is named: a supporter's folder, any causal model, one behind a URL."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.chat_models.opening import chat_model_name
from esckit.conversation import Conversation
from esckit.errors import CorpusError
from esckit.judging.better_reply import check_acceptor
from esckit.mining.inferential import draw_dialogues
from esckit.mining.self_refinement.drafting import Policy
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.mining.self_refinement.run import Models, refine_dialogues
from esckit.rendering import Part, past_strategies
from esckit.strategy import TAXONOMIES, Taxonomy
from esckit.supporters.open_model import check_model, open_model, prompted
from esckit.supporters.own_model import OwnOptions, open_named

if TYPE_CHECKING:
    from esckit.chat_models.protocol import ChatModel
    from esckit.supporters.supporter import Supporter

__all__ = ["refine_corpus"]

_DRAFTS: Final = "drafts.sqlite"  # answers of a policy behind a URL; the other ledger is held by who refines


def refine_corpus(
    conversations: Sequence[Conversation],
    policy: str | Path,
    options: RefinementOptions,
    out: Path | str,
    *,
    base_url: str | None = None,
    ledger: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Make the pairs of one round, and write trees.jsonl and refinement.json into a folder.

    A call that was stopped is continued by the same call.

    Args:
        conversations: of one taxonomy; ``options.dialogues`` of them are drawn.
        policy: who drafts and, unless the options say otherwise, refines: a supporter's folder, any causal model, or
            ``remote:MODEL``. Its replies name their strategy, or a planner of its own chooses it.
        options: how; drafts of a first policy are for recipes.
        out: the folder.
        base_url: of ``remote:MODEL``.
        ledger: file of the answers; None is ``ledger.sqlite`` in the folder.
        seed: of every draw, 0 or more.

    Returns:
        What stands in refinement.json.

    Raises:
        CorpusError: the dialogues have several taxonomies, or none.
        ModelError, ChatError: a model cannot be had.
        BudgetSpent, LedgerError: a model cannot go on; what was answered is kept.
    """
    out, drawn = Path(out), draw_dialogues(conversations, options.dialogues, seed)
    taxonomy = _taxonomy_of(drawn)
    own = OwnOptions(model=str(policy), base_url=base_url)
    if options.refined_by == "model":
        check_model(options.refiner)
    if options.accept is not None:
        check_acceptor(options.accept, drawn)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        answers = stack.enter_context(Ledger(out / _DRAFTS)) if own.is_remote else None
        if answers is not None:
            answers.forget_failed()
        supporter = open_named(own, answers, taxonomy)
        part: Part = "coupled" if supporter.card.kind == "coupled" else "generator"
        past = supporter.past_strategies
        return refine_dialogues(
            drawn,
            options,
            out,
            Policy(chat_model_name(str(policy)), part, lambda: supporter, lambda tree: past_strategies(tree, past)),
            _models(options, own, supporter),
            ledger=ledger or out / LEDGER,
            seed=seed,
            key=[supporter.identity, options.model_dump(mode="json", include={"wording", "mode"})],
        )


def _taxonomy_of(dialogues: Sequence[Conversation]) -> Taxonomy:
    names = {str(conversation.taxonomy) for conversation in dialogues}
    if len(names) != 1 or not names <= TAXONOMIES.keys():
        told = ", ".join(sorted(names)) or "no dialogue"
        raise CorpusError(
            f"a round needs dialogues of one taxonomy of strategies, and here are {told}: refine apart, or label them."
        )
    return TAXONOMIES[names.pop()]


def _models(options: RefinementOptions, own: OwnOptions, supporter: "Supporter") -> Models:
    """Who refines and accepts."""
    accept = options.accept
    acceptor = (lambda: open_model(accept)) if accept is not None and accept.asks else None
    if options.refined_by == "people":
        return Models(acceptor=acceptor)
    if options.refined_by == "model":
        name = chat_model_name(str(options.refiner.model))
        return Models(refiner=lambda: open_model(options.refiner), refiner_name=name, acceptor=acceptor)

    def itself() -> "ChatModel":
        if own.is_remote:
            return open_model(options.refiner.model_copy(update={"model": own.model, "base_url": own.base_url}))
        return prompted(supporter, options.refiner.concurrency)

    return Models(refiner=itself, refiner_name=chat_model_name(str(own.model)), acceptor=acceptor)
