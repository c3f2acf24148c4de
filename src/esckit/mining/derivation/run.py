"""A derivation whole: sources, their versions step by step, what is left out and why, the files."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, Final

from esckit.chat_models.asker import Asker, runner
from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.chat_models.live import LiveAsker
from esckit.chat_models.protocol import ChatModel
from esckit.conversation import Conversation, write_conversations
from esckit.decoding import seed_of
from esckit.errors import CorpusError
from esckit.files import write_json
from esckit.mining.derivation.asking import STEP, Task, is_asked, read_talk, step_request
from esckit.mining.derivation.dialogue import dialogue_by_rules
from esckit.mining.derivation.exchanges import Talk, supporter_text, turns_of
from esckit.mining.derivation.experiences import experiences_by_rules, is_own
from esckit.mining.derivation.filters import fault_of
from esckit.mining.derivation.options import DerivationOptions, StepName
from esckit.mining.derivation.rules import rules_in
from esckit.mining.derivation.sources import Source, read_source, roles_for
from esckit.mining.derivation.style import style_by_rules
from esckit.mining.derivation.words import in_common
from esckit.mining.inferential import draw_dialogues
from esckit.progress import progress
from esckit.prompts import file_name
from esckit.prompts.own import Prompts
from esckit.roles.bank import RoleBank
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy

__all__ = ["DERIVATION", "RULES", "Deriver", "check_sources", "derive_parts"]

DERIVATION: Final = "derivation.json"
"""In the folder of a derivation: what was made, left out and paid."""

RULES: Final = "rules"
_AHEAD: Final = 2  # sources under way for each question that a model takes at once


@dataclass(frozen=True)
class Deriver:
    """Who writes.

    Attributes:
        name: for records, and the source of turns.
        open: opens the chat model; None: the rules write.
        perplexity: of each of some texts, by the named model; None: nobody measures it.
    """

    name: str = RULES
    open: Callable[[], ChatModel] | None = None
    perplexity: Callable[[Sequence[str]], Sequence[float]] | None = None


def check_sources(trees: Sequence[Conversation], options: DerivationOptions, bank: RoleBank, seed: int) -> None:
    """Refuse at once what a derivation of these trees would fail with.

    Raises:
        CorpusError: no source is left.
        EsckitError: a language of the trees has no prompts, or no rules; there are fewer roles than are asked for.
        RoleError: the bank has not a language of the trees, or not a role that is named.
    """
    counts: Counter[str] = Counter()
    for tree in draw_dialogues(trees, options.dialogues, seed):
        if isinstance(source := read_source(tree, options), Source):
            break
        counts[source] += 1
    else:
        told = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items())) or "there is no dialogue"
        raise CorpusError(
            f"no source is left to derive from ({told}): give questions with answers, or dialogues, in the language "
            "that is asked for."
        )
    for language in [options.language] if options.language else sorted({tree.language for tree in trees}):
        _check_language(language, options, bank)
    roles_for(source, bank, options, seed)


def _check_language(language: str, options: DerivationOptions, bank: RoleBank) -> None:
    if options.derived_by == "model":
        file_name(options.deriver.asks_with, "system", language)
    rules_in(language)
    bank.refuse_language(language)


def derive_parts(
    parts: Mapping[str, Sequence[Conversation]],
    options: DerivationOptions,
    out: Path,
    bank: RoleBank,
    deriver: Deriver,
    *,
    ledger: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Derive role dialogues from the parts of a corpus, and write a file a part and `DERIVATION` into a folder.

    A derivation that was stopped or killed is continued by the same call: its answers are in the ledger, and the files
    depend on the sources, options, bank, seed and answers alone. A part of which no source is left is an empty file,
    unless none has one.

    Args:
        parts: by the names of the files; `DerivationOptions.dialogues` of each are drawn.
        options: how; the bank that they name is given.
        out: the folder.
        bank: the roles.
        deriver: who writes.
        ledger: file of the answers; None is ``ledger.sqlite`` in the folder.
        seed: of every draw, 0 or more.

    Returns:
        What stands in `DERIVATION`.

    Raises:
        CorpusError, EsckitError, RoleError: see `check_sources`.
        BudgetSpent, ChatError, LedgerError: a model cannot go on; what was answered is kept.
    """
    drawn = {name: draw_dialogues(trees, options.dialogues, seed) for name, trees in parts.items()}
    together = [tree for trees in drawn.values() for tree in trees]
    check_sources(together, options.model_copy(update={"dialogues": None}), bank, seed)
    made = _Derivation(drawn, options, bank, deriver, seed)
    out.mkdir(parents=True, exist_ok=True)
    usage = {"prompt": 0, "completion": 0}
    with runner() as run, ExitStack() as stack:
        opened = stack.enter_context(Ledger(ledger or out / LEDGER)) if deriver.open else None
        if opened is not None:
            opened.forget_failed()
        run(made.work(opened))
        if opened is not None:
            used = opened.used(made.keys)
            usage = {"prompt": used.prompt, "completion": used.completion}
    for name in parts:
        write_conversations(out / name, made.trees(name))
    record = {**made.figures(), "tokens": usage}
    write_json(out / DERIVATION, record)
    return record


@dataclass
class _Version:
    """One source for one role, and where it stands."""

    part: str
    task: Task


@dataclass
class _Derivation:
    """A derivation, step by step: what each step finds stands here for the next one."""

    parts: Mapping[str, Sequence[Conversation]]
    options: DerivationOptions
    bank: RoleBank
    deriver: Deriver
    seed: int
    left_out: Counter[str] = field(default_factory=Counter)  # sources, by reason
    faults: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # versions, by step
    calls: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)  # of all questions in the ledger
    versions: list[_Version] = field(default_factory=list)
    begun: int = 0  # versions, before any was left out
    sources: int = 0
    identity: Any = None  # of the model
    live: LiveAsker | None = None

    async def work(self, ledger: Ledger | None) -> None:
        """All steps, and what is looked at in the end."""
        trees = [(part, tree) for part, trees in self.parts.items() for tree in trees]
        if self.deriver.open is None or ledger is None:
            made = [await self._through(*each) for each in trees]
        else:
            model = self.deriver.open()
            self.identity = model.identity
            async with Asker(model, ledger, STEP, self.options.deriver.pace).open() as self.live:
                made = await self._at_once(trees, _AHEAD * model.concurrency * model.batch_size)
        self.versions = [version for versions in made for version in versions]
        self._leave_out("near-duplicate", self._near_duplicates())
        self._leave_out("perplexity", self._improbable())

    async def _at_once(self, trees: Sequence[tuple[str, Conversation]], most: int) -> list[list[_Version]]:
        """Take all trees through the steps, so many at once; where one fails the others are cancelled."""
        gate = asyncio.Semaphore(most)
        with progress("derive", len(trees)) as bar:

            async def through(part: str, tree: Conversation) -> list[_Version]:
                async with gate:
                    found = await self._through(part, tree)
                bar.advance()
                return found

            running = [asyncio.ensure_future(through(*each)) for each in trees]
            try:
                return list(await asyncio.gather(*running))
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def _through(self, part: str, tree: Conversation) -> list[_Version]:
        """The versions of a source that come out of all steps without a fault; none of a tree that is no source."""
        if isinstance(source := read_source(tree, self.options), str):
            self.left_out[source] += 1
            return []
        self.sources += 1
        start = _Version(part, Task(source, source.talk))
        talked = await self._step("dialogue", start) if "dialogue" in self.options.steps else start
        if talked is None:
            return []
        roles = roles_for(talked.task.source, self.bank, self.options, self.seed)
        self.begun += len(roles)
        versions = [_Version(talked.part, talked.task._replace(role=role)) for role in roles]
        return [each for each in await asyncio.gather(*map(self._told, versions)) if each is not None]

    async def _told(self, version: _Version) -> _Version | None:
        """A version after the steps that are its role's own."""
        left: _Version | None = version
        for name in self.options.steps:
            if name != "dialogue" and left is not None:
                left = await self._step(name, left)
        return left

    async def _step(self, name: StepName, version: _Version) -> _Version | None:
        """A version after a step; None, and a fault is counted, where it has one."""
        task, taxonomy = version.task, _taxonomy(version.task.source)
        asked = self.live is not None and is_asked(name, task)
        talk = await self._by_model(name, task) if asked else self._by_rules(name, task)
        fault = talk if isinstance(talk, str) else fault_of(name, task, talk, self.options, taxonomy)
        if fault is None and not isinstance(talk, str):
            return _Version(version.part, task._replace(talk=talk))
        self.faults[name][str(fault)] += 1
        return None

    def _by_rules(self, name: StepName, task: Task) -> Talk:
        language = task.source.language
        random = Random(seed_of(self.seed, task.source.tree.id, task.role.name if task.role else "", name))
        if task.role is None:
            return dialogue_by_rules(task.source, self.options.filters, _taxonomy(task.source), random)
        if name == "experiences":
            return experiences_by_rules(task.talk, task.role, language, self.options.telling)
        return style_by_rules(task.talk, task.role, language, random)

    async def _by_model(self, name: StepName, task: Task) -> Talk | str:
        """What a model makes of a talk, or the state of its answer."""
        assert self.live is not None
        taxonomy = _taxonomy(task.source)
        sample = seed_of(self.seed, task.source.tree.id, task.role.name if task.role else "", name)
        request = step_request(name, task, self.options, taxonomy, self.prompts, sample)
        self.calls[name] += 1
        self.keys.append(request.key(STEP, self.identity))
        return read_talk(name, task, await self.live.ask(request), request, taxonomy)

    @cached_property
    def prompts(self) -> Prompts:
        """What a model is asked with."""
        return self.options.deriver.read_prompts()

    def _leave_out(self, fault: str, places: set[int]) -> None:
        if places:
            self.faults["end"][fault] += len(places)
            self.versions = [each for place, each in enumerate(self.versions) if place not in places]

    def _near_duplicates(self) -> set[int]:
        """Versions that are nearly one that stands before them, of the same source and another role."""
        limit = self.options.filters.near_duplicate
        if limit is None:
            return set()
        kept: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        left_out = set()
        for place, each in enumerate(self.versions):
            text = supporter_text(each.task.talk)
            before = kept[each.part, each.task.source.tree.id]
            if any(in_common(text, other) >= limit for other in before):
                left_out.add(place)
            else:
                before.append(text)
        return left_out

    def _improbable(self) -> set[int]:
        limit, measure = self.options.filters.perplexity, self.deriver.perplexity
        if limit is None or measure is None or not self.versions:
            return set()
        texts = ["\n".join(f"{one.seeker}\n{one.supporter}" for one in each.task.talk) for each in self.versions]
        return {place for place, found in enumerate(measure(texts)) if found > limit.most}

    def trees(self, part: str) -> list[Conversation]:
        """The dialogues of a part."""
        return [self._tree(each.task) for each in self.versions if each.part == part]

    def _tree(self, task: Task) -> Conversation:
        source, role = task.source.tree, task.role
        assert role is not None
        about: dict[str, Any] = {"steps": [*self.options.steps], "bank": self.bank.digest, "cut": task.source.cut}
        rewritten = task.source.is_question and self.deriver.open is not None
        seekers = self.deriver.name if rewritten else source.trunk[0].source
        own = {"derived_from": source.id, "derived_by": self.deriver.name, "derivation": about}
        return Conversation(
            f"{source.id}--{role.name}",
            [*turns_of(task.talk, seekers, self.deriver.name)],
            source.language,
            _taxonomy(task.source).name,
            source.situation,
            {**source.labels, "role": role.name},
            provenance={**source.provenance, **own},
            extra=source.extra,
        )

    def figures(self) -> dict[str, Any]:
        """What the record says in numbers."""
        limit = self.options.filters.perplexity
        roles = Counter(each.task.role.name for each in self.versions if each.task.role)
        said = [each for version in self.versions for each in version.task.talk]
        return {
            "derived_by": self.deriver.name,
            "bank": self.bank.digest,
            "sources": self.sources,
            "left_out": dict(sorted(self.left_out.items())),
            "versions": self.begun,
            "faults": {
                name: dict(sorted(self.faults[name].items()))
                for name in (*self.options.steps, *(["end"] if "end" in self.faults else []))
            },
            "dialogues": {part: sum(each.part == part for each in self.versions) for part in self.parts},
            "roles": {name: roles[name] for name in self.bank.names},
            "experiences": sum(each.experience is not None for each in said),
            "own_disclosures": sum(map(is_own, said)),
            "calls": {name: self.calls[name] for name in self.options.steps},
            "perplexity": limit and {"model": limit.model, "most": limit.most},
        }


def _taxonomy(source: Source) -> Taxonomy:
    """The source's own, else ESConv's."""
    return TAXONOMIES.get(source.tree.taxonomy or "", ESCONV)
