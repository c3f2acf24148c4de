"""A supporter: a planner and a generator, and who speaks and tells where it has roles; its folder's form is
`supporter_folder`'s."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding, choose_strategies, seed_of
from esckit.errors import ModelError, TalkError
from esckit.language_models.backbone import Backbone
from esckit.rendering import Layout, Part, PastStrategies, Renderer, past_strategies
from esckit.safety import stop_after
from esckit.strategy import TAXONOMIES, Taxonomy
from esckit.supporters.language_parts import LanguageParts, load_adapters
from esckit.supporters.parts import Generator, NoPlanner, OnText, Planner, Wording
from esckit.supporters.proposing import Candidate, TurnRequest, expect_one
from esckit.supporters.said import Said, place_of
from esckit.supporters.supporter_folder import SupporterCard, load_casting, load_language, read_card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from esckit.chat_models.ledger import Ledger
    from esckit.planning.calibration import Calibration
    from esckit.supporters.casting import Casting

VOICES: Final = (
    "It may speak in the voice of a story's character, and tell what the character lived: that is a story, not a life."
)
"""What a person is told of a supporter with roles."""


class Supporter:
    """A loaded supporter; threads may share it. It can do what `Answers` says.

    Without a generator it only plans; under `NoPlanner` its generator takes no strategies. With a casting it speaks in
    the voice of a role.
    """

    def __init__(
        self, card: SupporterCard, planner: Planner, generator: Generator | None, casting: "Casting | None" = None
    ) -> None:
        self.card = card
        self.planner = planner
        self.generator = generator
        self.casting = casting
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
        casting = load_casting(folder, card, ledger)
        language = load_language(folder, card, casting) if card.adapters else None
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
        made = cls(card, planner, None if card.generator == "none" else generator, casting)
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
        told = ("own", "casting")  # by the parts
        card = {key: value for key, value in asdict(self.card).items() if key not in told}
        parts = [self.planner.identity, self.generator and self.generator.identity]
        return [card, *parts, *([self.casting.identity] if self.casting else [])]

    @property
    def about(self) -> str | None:
        """What a person who talks to it must know of its replies; None where it only plans."""
        if self.generator is None or self.casting is None:
            return None if self.generator is None else self.generator.about
        return f"{self.generator.about} {VOICES}"

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

    @property
    def roles(self) -> dict[str, str]:
        """The roles that it can speak as: a title by name, in English where they have one."""
        if self.casting is None:
            return {}
        return {role.name: role.titles.get("en") or role.titles[role.languages[0]] for role in self.casting.bank.roles}

    def calibrated(self, calibration: "Calibration") -> "Supporter":
        """The same supporter with another calibration over its planner's scores."""
        from esckit.supporters.calibrated import CalibratedPlanner

        other = Supporter(self.card, CalibratedPlanner(self.planner, calibration), self.generator, self.casting)
        other._lock = self._lock  # they share their parts
        return other

    def recast(self, **changes: Any) -> "Supporter":
        """The same supporter with other ways to choose roles and experiences, fields of `CastingOptions`.

        Raises:
            ModelError: it has no roles.
            RoleError: its bank lacks the role that is named.
        """
        from esckit.supporters.casting import Casting
        from esckit.supporters.casting_options import CastingOptions

        if self.casting is None:
            raise ModelError("this supporter has no roles that could be chosen: take one of kind empath.")
        before = self.casting.options.model_dump()
        telling = {**before["telling"], **changes.pop("telling", {})}  # a block keeps what is not changed in it
        options = CastingOptions.model_validate({**before, **changes, "telling": telling})
        casting = Casting(self.casting.matcher, options, self.casting.ledger)
        other = Supporter(self.card, self.planner, self.generator, casting)
        other._lock = self._lock
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
            requests = self._cast(requests)
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
            for (place, rank, asked), reply in zip(wanted, replies, strict=True):
                if reply is not None:
                    candidate = planned[place][rank]
                    known = {**candidate.extra, **asked.extra}
                    found[place].append(replace(candidate, extra=known).worded(reply))
            return found

    def _cast(self, requests: Sequence[TurnRequest]) -> Sequence[TurnRequest]:
        if self.casting:
            return self.casting.cast(requests)
        if asked := next((request.role for request in requests if request.role), None):
            raise ModelError(f"this supporter has no roles, and {asked!r} was asked for: take one of kind empath.")
        return requests

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
        place = (request.conversation, request.parent, strategy, request.shown)
        extra = self.casting.extra(request, strategy) if self.casting else {}
        return Wording(*place, request.wording, seed, request.unlike, extra)


def _together(requests: Sequence[TurnRequest], places: Sequence[int]) -> list[list[int]]:
    """Places of requests about one tree with the same strategies shown: their contexts share prefixes."""
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[int]] = {}
    for place in places:
        key = (id(requests[place].conversation), tuple(requests[place].shown.items()))
        groups.setdefault(key, []).append(place)
    return list(groups.values())
