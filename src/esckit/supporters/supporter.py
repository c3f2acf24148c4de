"""A supporter: a planner and a generator, and the folder that they are loaded from.

``supporter.json`` says what each is. Language-model parts are adapters on one backbone, ``coupled`` (one adapter for
both) or ``decoupled`` (one each); a planner may be an encoder instead, and a generator a store of human replies.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding, choose_strategies, seed_of
from esckit.errors import ModelError, TalkError
from esckit.files import atomic, hash_file, read_text, write_json
from esckit.language_models.backbone import Backbone, Quantisation, load_backbone
from esckit.rendering import Layout, Part, PastStrategies, Renderer, past_strategies
from esckit.safety import stop_after
from esckit.strategy import TAXONOMIES, Taxonomy
from esckit.supporters.language_parts import LanguageParts, load_adapters
from esckit.supporters.parts import Generator, NoPlanner, OnText, Planner, Wording
from esckit.supporters.proposing import Candidate, TurnRequest, expect_one
from esckit.supporters.said import Said, place_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from esckit.chat_models.ledger import Ledger
    from esckit.planning.calibration import Calibration

FORMAT = 1
_ADAPTER = "adapter_model.safetensors"
Kind = Literal["coupled", "decoupled"]
PlannerKind = Literal["language", "encoder"]
GeneratorKind = Literal["language", "retrieval", "none"]


@dataclass(frozen=True)
class SupporterCard:
    """What ``supporter.json`` says.

    Attributes:
        kind: coupled, or decoupled.
        past_strategies: what the planner sees at inference unless told otherwise, as in training.
        base: of language-model parts: a Hub id, or a path relative to the file; None where there are none.
        base_hash: SHA-256 of the base's weights.
        adapter_hashes: SHA-256 of each adapter's file; None in a folder that was written before there were any.
        max_context: the most tokens of a path.
        layout, taxonomy: names.
        planner: an adapter on the base, or an encoder's folder.
        generator: an adapter on the base, a reply store's folder, or none: then only strategies are predicted.
        calibrated: an encoder planner's scores with its calibration.
        quantisation: how the base's weights are stored, as in training.
        ranker: of a reply store: the language model that chooses among the nearest replies (`RerankedReplies`).
        ranker_hash: SHA-256 of its weights.
        own: of a model that was trained elsewhere, as it is, in place of base and adapters: `own_model.OwnOptions`.
    """

    kind: Kind
    past_strategies: PastStrategies
    base: str | None = None
    base_hash: str | None = None
    max_context: int | None = None
    layout: Layout = "shared-prefix"
    taxonomy: str = "esconv"
    planner: PlannerKind = "language"
    generator: GeneratorKind = "language"
    calibrated: bool = True
    quantisation: Quantisation | None = None
    adapter_hashes: Mapping[str, str] | None = None
    ranker: str | None = None
    ranker_hash: str | None = None
    own: Mapping[str, Any] | None = None

    @property
    def adapters(self) -> tuple[Part, ...]:
        """The adapters on the base."""
        if self.own is not None:
            return ()
        if self.kind == "coupled":
            return ("coupled",)
        parts: tuple[tuple[Part, str], ...] = (("planner", self.planner), ("generator", self.generator))
        return tuple(part for part, kind in parts if kind == "language")


def save_supporter(folder: Path, card: SupporterCard, parts: Mapping[str, Path], base: Path | None = None) -> None:
    """Write a supporter folder anew: ``supporter.json``, each part in a subfolder of its name, the base where given.

    ``parts`` are the folders of adapters, encoder planner or reply store. A backbone's folder that is given as ``base``
    is carried along, so that the supporter can be moved; the card's own is then ignored. Adapters are hashed here.
    """
    hashes = {part: hash_file(parts[part] / _ADAPTER) for part in card.adapters}
    fields = {**asdict(card), "base": "./base" if base is not None else card.base, "adapter_hashes": hashes}
    with atomic(folder) as temporary:
        temporary.mkdir()
        for part, source in parts.items():
            shutil.copytree(source, temporary / part)
        if base is not None:
            shutil.copytree(base, temporary / "base")
        known = {key: value for key, value in fields.items() if key != "own" or value is not None}
        described = {"format": FORMAT, **known, "adapters": {p: p for p in card.adapters}}
        write_json(temporary / "supporter.json", described)


def read_card(folder: Path) -> SupporterCard:
    """Read and check ``supporter.json``.

    Raises:
        ModelError: there is none, or it is not one that this version reads.
    """
    path = folder / "supporter.json"
    try:
        fields = json.loads(read_text(path, what="a supporter folder's supporter.json", error=ModelError))
        if fields.pop("format") != FORMAT:
            raise ModelError(f"{path} has another format than {FORMAT}: install the esckit that wrote it.")
        fields.pop("adapters")
        card = SupporterCard(**fields)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a supporter.json ({error}): make the supporter again.") from error
    known = (Kind, PastStrategies, Layout, PlannerKind, GeneratorKind)
    named = (card.kind, card.past_strategies, card.layout, card.planner, card.generator)
    if card.taxonomy not in TAXONOMIES or any(n not in get_args(k) for n, k in zip(named, known, strict=True)):
        raise ModelError(f"{path} names an unknown kind, part, layout or taxonomy: make the supporter again.")
    if card.quantisation not in (None, *get_args(Quantisation)):
        raise ModelError(f"{path} names an unknown quantisation: make the supporter again.")
    if card.adapters and None in (card.base, card.base_hash, card.max_context):
        raise ModelError(f"{path} names no base for its adapters: make the supporter again.")
    return card


class Supporter:
    """A loaded supporter; threads may share it. It can do what `Answers` says.

    Without a generator it only plans; under `NoPlanner` its generator takes no strategies.
    """

    def __init__(self, card: SupporterCard, planner: Planner, generator: Generator | None) -> None:
        self.card = card
        self.planner = planner
        self.generator = generator
        self._lock = RLock()

    @classmethod
    def load(cls, folder: Path | str, ledger: "Ledger | None" = None) -> "Supporter":
        """Load a supporter folder; answers of a model behind a URL go through the ledger, by default one in memory.

        Raises:
            ModelError: the folder, its base or its parts cannot be used, or base or encoder have other weights than
                those that the parts were trained on.
        """
        folder = Path(folder)
        card = read_card(folder)
        if card.own is not None:
            from esckit.supporters.own_model import load_own

            return load_own(folder, card, ledger)
        language = _load_language(folder, card) if card.adapters else None
        planner: Planner | None = language
        generator: Generator | None = language
        if card.planner == "encoder":
            from esckit.planning.encoder_planner import EncoderPlanner

            loaded = EncoderPlanner.load(folder / "planner")
            planner = loaded if card.calibrated else loaded.uncalibrated
        if card.generator == "retrieval":
            from esckit.supporters.retrieval import ReplyStore

            generator = ReplyStore.load(folder / "generator")
        assert planner is not None
        made = cls(card, planner, None if card.generator == "none" else generator)
        if card.ranker is not None:
            from esckit.supporters.reranked import ranked_by

            made = ranked_by(made, card.ranker)
        if made.card.ranker_hash != card.ranker_hash:
            raise ModelError(f"the weights of {card.ranker} are not those that {folder} was made with: restore them.")
        return made

    @classmethod
    def of_adapters(
        cls, backbone: Backbone, renderer: Renderer, folders: Mapping[Part, Path], past_strategies: PastStrategies
    ) -> "Supporter":
        """A supporter of adapters that lie apart, such as the policy of a round; only the parts given can be asked.

        No adapter is on the backbone yet. The parts, ``coupled``, or ``planner``, ``generator`` or both, saw these past
        strategies in training.
        """
        coupled = "coupled" in folders
        card = SupporterCard(
            kind="coupled" if coupled else "decoupled",
            past_strategies=past_strategies,
            base=backbone.source,
            base_hash=backbone.weights_hash,
            max_context=renderer.max_context,
            layout=cast("Layout", renderer.layout),
            taxonomy=renderer.taxonomy.name,
            generator="none" if set(folders) == {"planner"} else "language",
        )
        parts = LanguageParts(load_adapters(backbone, folders), renderer, coupled=coupled)
        return cls(card, parts, None if card.generator == "none" else parts)

    @property
    def taxonomy(self) -> Taxonomy:
        """Its strategies."""
        return TAXONOMIES[self.card.taxonomy]

    @property
    def identity(self) -> list[Any]:
        """JSON-ready; changes with anything that its answers depend on."""
        card = {key: value for key, value in asdict(self.card).items() if key != "own"}  # the parts tell that
        return [card, self.planner.identity, self.generator and self.generator.identity]

    @property
    def about(self) -> str | None:
        """What a person who talks to it must know of its replies; None where it only plans."""
        return None if self.generator is None else self.generator.about

    @property
    def past_strategies(self) -> PastStrategies:
        """Which strategies the history shows it, as in training."""
        return self.card.past_strategies

    @property
    def past_in_chat(self) -> Literal["predicted", "hidden"]:
        """Hidden from an encoder planner, which its own choices mislead (docs/planner.md), else as it was trained."""
        return "hidden" if self.card.planner == "encoder" or self.past_strategies == "hidden" else "predicted"

    @property
    def strategies(self) -> frozenset[str] | None:
        """Those under which it has replies; None is all."""
        return None if self.generator is None else self.generator.strategies

    def calibrated(self, calibration: "Calibration") -> "Supporter":
        """The same supporter with another calibration over its planner's scores."""
        from esckit.supporters.calibrated import CalibratedPlanner

        other = Supporter(self.card, CalibratedPlanner(self.planner, calibration), self.generator)
        other._lock = self._lock  # they share their parts
        return other

    def score(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]
    ) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the labels at each turn, of which only what stands before is read."""
        with self._lock:
            return self.planner.score(conversation, turns, shown)

    def plan(self, said: Said) -> dict[str, float]:
        """The planner's probability of each strategy for the next reply, the most likely first; they sum to 1.

        ``said`` is the dialogue so far (`said.Said`): the seeker's words, messages in turn, or a tree.

        Raises:
            TalkError: a message has no words or another role than user and assistant.
        """
        request = self._request(said, 0)
        (planned,) = self.propose([replace(request, wording=None)])[0]
        return dict(sorted((planned.strategy_probabilities or {}).items(), key=lambda pair: -pair[1]))

    def reply(
        self,
        said: Said,
        *,
        strategy: str | None = None,
        seed: int = 0,
        wording: Decoding = Decoding(),  # noqa: B008 - it is frozen
        on_text: OnText | None = None,
    ) -> Candidate:
        """The next reply, with its strategy and how it came about.

        Where a message of the seeker speaks of danger and none after it says to go on, no model answers: the reply is
        the fixed text of `esckit.safety`, without a strategy, and ``extra["danger"]`` names the kind.

        Args:
            said: the dialogue so far, as in `plan`.
            strategy: of the reply; the planner chooses by default.
            seed: another one draws another reply.
            wording: how the text is drawn.
            on_text: is told the text piece by piece.

        Raises:
            TalkError: as in `plan`, or there is no such strategy.
            ModelError: it only plans, or has no reply left under the strategy.
        """
        if strategy is not None and self.taxonomy.match(strategy) is None:
            raise TalkError(f"there is no strategy {strategy!r}: choose one of {', '.join(self.taxonomy.labels)}.")
        chosen = strategy and self.taxonomy.match(strategy)
        request = replace(self._request(said, seed), strategy=chosen, wording=wording, unlike=frozenset())
        path = request.conversation.path(request.parent)
        if stop := stop_after([turn.text or "" for turn in path if turn.speaker == "seeker"]):
            return Candidate(None, stop.text, finish="stop", extra={"danger": stop.danger})
        return expect_one(self.propose([request], on_text)[0], request)

    def _request(self, said: Said, seed: int) -> TurnRequest:
        place = place_of(said, self.taxonomy.name)
        shown = past_strategies(place.conversation, "hidden" if self.past_in_chat == "hidden" else "gold")
        return TurnRequest(place.conversation, place.parent, seed, shown)

    def propose(self, requests: Sequence[TurnRequest], on_text: OnText | None = None) -> list[list[Candidate]]:
        """See `proposing.Answers.propose`."""
        with self._lock:  # batches of one caller do not mix with another's, and what parts remember is theirs
            planned = self._planned(requests)
            wanted = [
                (place, rank, self._wording(request, candidate.strategy or "", rank))
                for place, request in enumerate(requests)
                if request.wording is not None
                for rank, candidate in enumerate(planned[place])
            ]
            if not wanted:
                return planned
            if self.generator is None:
                raise ModelError("this supporter only plans: give it a generator.")
            found: list[list[Candidate]] = [[] if r.wording else planned[i] for i, r in enumerate(requests)]
            replies = self.generator.write([wording for _, _, wording in wanted], on_text)
            for (place, rank, _), reply in zip(wanted, replies, strict=True):
                if reply is not None:
                    found[place].append(planned[place][rank].worded(reply))
            return found

    def _planned(self, requests: Sequence[TurnRequest]) -> list[list[Candidate]]:
        if isinstance(self.planner, NoPlanner):
            if any(request.strategy or request.excluded or request.wording is None for request in requests):
                self.planner.refuse()
            return [[Candidate(None)] * request.n for request in requests]
        scores: dict[int, NDArray[np.float64]] = {}
        free = [place for place, request in enumerate(requests) if request.strategy is None]
        for places in _together(requests, free):
            turns = [Turn(f"next-{place}", requests[place].parent, "supporter", None) for place in places]
            first = requests[places[0]]
            scores |= zip(places, self.planner.score(first.conversation, turns, first.shown), strict=True)
        return [
            self._choose(request, scores[place])
            if request.strategy is None
            else [Candidate(request.strategy)] * request.n
            for place, request in enumerate(requests)
        ]

    def _choose(self, request: TurnRequest, scores: "NDArray[np.float64]") -> list[Candidate]:
        import numpy as np

        labels = self.taxonomy.labels
        can = self.strategies if request.wording is not None else None
        possible = [label not in request.excluded and (can is None or label in can) for label in labels]
        probabilities = dict(zip(labels, map(float, np.exp(scores)), strict=True))
        chosen = choose_strategies(
            np.where(possible, scores, -np.inf), request.planning, request.n, seed_of(request.seed, "strategy")
        )
        return [Candidate(labels[index], strategy_probabilities=probabilities) for index in chosen]

    def _wording(self, request: TurnRequest, strategy: str, rank: int) -> Wording:
        if strategy and (can := self.strategies) is not None and strategy not in can:
            known = ", ".join(sorted(can))
            raise ModelError(f"the supporter has no replies under the strategy {strategy!r}: it has {known}.")
        assert request.wording is not None
        seed = seed_of(request.seed, "text", strategy, rank)
        return Wording(
            request.conversation, request.parent, strategy, request.shown, request.wording, seed, request.unlike
        )


def _together(requests: Sequence[TurnRequest], places: Sequence[int]) -> list[list[int]]:
    """Places of requests about one tree with the same strategies shown: their contexts share prefixes."""
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[int]] = {}
    for place in places:
        key = (id(requests[place].conversation), tuple(requests[place].shown.items()))
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def load_base(folder: Path, card: SupporterCard) -> Backbone:
    """The model that a supporter's adapters stand on.

    Raises:
        ModelError: it cannot be loaded, or has other weights than those that they were trained on.
    """
    assert card.base is not None
    source = str(folder / card.base) if card.base.startswith(".") else card.base
    backbone = load_backbone(source, quantisation=card.quantisation)
    if backbone.weights_hash != card.base_hash:
        raise ModelError(f"the weights of {backbone.source} are not those that {folder} was trained on: restore them.")
    return backbone


def _load_language(folder: Path, card: SupporterCard) -> LanguageParts:
    assert card.max_context is not None
    backbone = load_base(folder, card)
    adapted = load_adapters(backbone, {part: folder / part for part in card.adapters})
    for adapter, wanted in (card.adapter_hashes or {}).items():
        if hash_file(folder / adapter / _ADAPTER) != wanted:
            raise ModelError(
                f"{folder / adapter} is not the adapter that {folder} was made with and may belong to another base: "
                "restore it, or make the supporter again."
            )
    taxonomy = TAXONOMIES[card.taxonomy]
    renderer = Renderer(backbone.tokenizer, taxonomy, max_context=card.max_context, layout=card.layout)
    return LanguageParts(adapted, renderer, coupled=card.kind == "coupled")
