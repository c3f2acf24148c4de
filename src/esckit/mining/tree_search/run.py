"""Searching from many dialogues at once, under one limit of questions and one budget, into a folder."""

import asyncio
import gc
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from esckit.chat_models.asker import runner
from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.conversation import Conversation, Turn, write_conversations
from esckit.decoding import seed_of
from esckit.errors import CorpusError, EsckitError
from esckit.files import write_json
from esckit.measures.intervals import mean_intervals
from esckit.mining.inferential import draw_dialogues
from esckit.mining.pairs import Pair
from esckit.mining.tree_search.controls import METHODS
from esckit.mining.tree_search.open_roles import open_roles, role_names
from esckit.mining.tree_search.options import EMBEDDED, SearchOptions
from esckit.mining.tree_search.roles import Roles, Talk
from esckit.mining.tree_search.search import TreeSearch
from esckit.mining.tree_search.statistics import search_statistics
from esckit.progress import progress
from esckit.strategy import TAXONOMIES

__all__ = ["SEARCH", "TREES", "search_dialogues"]

TREES: Final = "trees.jsonl"
SEARCH: Final = "search.json"
"""In the folder of a search: the trees, and what was found and what it cost."""

_CHECK: Final = 1_000_000  # samples from here on are of judgements that check pairs


def search_dialogues(
    conversations: Sequence[Conversation],
    options: SearchOptions,
    out: Path | str,
    *,
    ledger: Path | None = None,
    seed: int = 0,
    planner: Path | None = None,
    title: str = "search",
) -> dict[str, Any]:
    """Search from dialogues and write `TREES` and `SEARCH` into a folder.

    A search that was stopped or killed is done again by the same call, from the answers in its ledger, and asks only
    what it had not asked. The files depend on the dialogues, options, seed and answers alone.

    Args:
        conversations: seeds, of one taxonomy; ``options.dialogues`` of them are drawn.
        options: how.
        out: the folder; the files in it are written when the search has ended.
        ledger: file of the answers; None is ``ledger.sqlite`` in the folder.
        seed: of every draw, 0 or more.
        planner: folder of the planner that plays the strategy role, in the place of what the options name.
        title: for the progress bar.

    Returns:
        What stands in `SEARCH`.

    Raises:
        CorpusError: a dialogue has no turn to start from, or they have several taxonomies, or none.
        EsckitError: a role cannot be had, theta is outside its rewards, or the budget is below one iteration.
        BudgetSpent, ChatError, LedgerError: a role cannot go on; what was answered is kept.
    """
    out = Path(out)
    drawn = draw_dialogues(conversations, options.dialogues, seed)
    taxonomies = {conversation.taxonomy for conversation in drawn}
    if taxonomies == {None}:
        raise CorpusError(
            "these dialogues have no strategies, and a search starts from replies that have one: label them, or give "
            "others."
        )
    if len(taxonomies) != 1:
        told = ", ".join(sorted(str(name or "none") for name in taxonomies)) or "no dialogue"
        raise CorpusError(f"a search needs dialogues of one taxonomy of strategies, and here are {told}: search apart.")
    taxonomy = TAXONOMIES[str(taxonomies.pop())]

    async def work() -> tuple[list[Conversation], dict[str, Any] | None, Roles]:
        with Ledger(ledger or out / LEDGER) as opened:
            async with open_roles(options, opened, taxonomy, planner=planner) as roles:
                _check_theta(options, roles)
                trees = await search_all(drawn, roles, options, seed, title)
                return trees, await _checked(trees, roles, options, seed), roles

    with runner() as run:
        trees, checked, roles = run(work())
    record = _record(trees, roles, options, checked)
    out.mkdir(parents=True, exist_ok=True)
    write_conversations(out / TREES, trees)
    write_json(out / SEARCH, record)
    return record


async def search_all(
    seeds: Sequence[Conversation], roles: Roles, options: SearchOptions, number: int, title: str = "search"
) -> list[Conversation]:
    """Search from each dialogue, all at once; return the searched trees in order.

    Raises:
        CorpusError, EsckitError: see `search_dialogues`.
    """
    gate = asyncio.Semaphore(options.concurrency)
    searches = [METHODS[options.method](each, roles, options, number, gate) for each in seeds]
    _check_budget(searches, options)
    total = options.budget_calls or sum(search.most for search in searches)
    with progress(title, total) as bar, _collecting_seldom():
        pairs: dict[TreeSearch, int] = {}
        calls: dict[TreeSearch, int] = {}
        found = asked = 0

        def tell(search: TreeSearch) -> None:
            nonlocal found, asked
            found += search.last[2] - pairs.get(search, 0)
            asked += search.spent - calls.get(search, 0)
            pairs[search], calls[search] = search.last[2], search.spent
            bar.advance(f"{found} pairs, {asked} calls", asked - bar.done if options.budget_calls else 1)

        for search in searches:
            search.on_step = tell
        stopped = await _within_budget(searches, options)
    return [search.finish(why) for search, why in zip(searches, stopped, strict=True)]


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Look for cycles of garbage more seldom: trees and questions only grow, and looking takes ever longer."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


async def _within_budget(searches: Sequence[TreeSearch], options: SearchOptions) -> list[str]:
    """Run searches on even shares of the budget; what some leave goes to the others, round after round, where wanted.

    Every round is waited for, so that who gets how much does not depend on who was faster.
    """
    if options.budget_calls is None:
        return await _all(search.run() for search in searches)
    share = options.budget_calls // len(searches)
    stopped = await _all(search.run(share) for search in searches)
    while options.share_budget:
        hungry = [place for place, why in enumerate(stopped) if why == "budget"]
        left = options.budget_calls - sum(search.spent for search in searches)
        more = left // len(hungry) if hungry else 0
        if not hungry or more < max(searches[place].dearest for place in hungry):
            break
        again = await _all(searches[place].run(searches[place].spent + more) for place in hungry)
        for place, why in zip(hungry, again, strict=True):
            stopped[place] = why
    return stopped


async def _all(tasks: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Wait for all; where one fails the others are cancelled, and its error is raised."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        return list(await asyncio.gather(*running))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _check_budget(searches: Sequence[TreeSearch], options: SearchOptions) -> None:
    if options.budget_calls is None:
        return
    least = max(search.planting + search.dearest for search in searches)
    if options.budget_calls // len(searches) < least:
        raise EsckitError(
            f"budget_calls {options.budget_calls} is below one iteration of each of the {len(searches)} dialogues, "
            f"which takes up to {least} calls: raise it to {least * len(searches)}, or search from fewer dialogues."
        )


def _check_theta(options: SearchOptions, roles: Roles) -> None:
    lowest, highest = roles.reward.lowest, roles.reward.highest
    if options.theta is not None and not lowest <= options.theta < highest:
        raise EsckitError(
            f"theta {options.theta:g} is outside what {roles.reward.name} gives, {lowest:g} to {highest:g}: choose it "
            "inside, or nothing, or everything, would be kept."
        )


async def _checked(
    trees: Sequence[Conversation], roles: Roles, options: SearchOptions, number: int
) -> dict[str, Any] | None:
    """A sample of the pairs, judged again: the share whose chosen side is still worth more."""
    if roles.check is None:
        return None
    role = roles.check
    pairs = [Pair(tree, each) for tree in trees for each in tree.preferences if each.aspect != "strategy"]
    sample = Random(number).sample(pairs, min(options.checked, len(pairs)))
    gate = asyncio.Semaphore(options.concurrency)
    answers: dict[tuple[str, str], Any] = {}

    async def judge(tree: Conversation, turn: Turn) -> None:
        async with gate:
            talk = Talk(tree, tree.path(turn.id), seed_of(number, _CHECK))
            answers[tree.id, turn.id] = await role.judge(talk)

    sides = {(p.conversation.id, turn.id): (p.conversation, turn) for p in sample for turn in (p.chosen, p.rejected)}
    await _all(judge(*side) for side in sides.values())
    kept, dialogues = [], []
    for pair in sample:
        chosen, rejected = (answers[pair.conversation.id, turn.id] for turn in (pair.chosen, pair.rejected))
        if chosen and rejected:
            kept.append(float(chosen.reward > rejected.reward))
            dialogues.append(pair.conversation.id)
    interval = mean_intervals({"kept": np.array(kept)}, dialogues)["kept"]
    share = float(np.mean(kept)) if kept else None
    return {"judge": role.name, "pairs": len(kept), "kept_sign": share, "interval": interval and list(interval)}


def _record(
    trees: Sequence[Conversation], roles: Roles, options: SearchOptions, checked: dict[str, Any] | None
) -> dict[str, Any]:
    """What `SEARCH` says."""
    records = [tree.provenance["search"] for tree in trees]
    calls, unanswered = Counter[str](), Counter[str]()
    for record in records:
        calls.update(record["calls"])
        unanswered.update(record["unanswered"])
    pairs = sum(each.aspect != "strategy" for tree in trees for each in tree.preferences)
    return {
        "method": options.method,
        "mode": options.mode,
        "theta": records[0]["theta"],
        "range": [roles.reward.lowest, roles.reward.highest],
        "roles": role_names(roles),
        "seeds": len(trees),
        "iterations": sum(record["iterations"] for record in records),
        "ends": sum(record["ends"] for record in records),
        "pairs": pairs,
        "calls": dict(calls),
        "calls_per_pair": round(calls.total() / pairs, 4) if pairs else None,
        "unanswered": dict(unanswered),
        "stopped": dict(Counter(record["stopped"] for record in records)),
        "checked": checked,
        "statistics": search_statistics(trees),
        "embedded_reward": options.reward.model == EMBEDDED,
    }
