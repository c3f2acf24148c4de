"""Who plays the roles of a search: what can be had, opening it, and what answers depend on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.live import LiveAsker
from esckit.chat_models.opening import PACE_KEYS, REMOTE, ChatModelOptions, PromptedOptions, chat_model_name
from esckit.chat_models.protocol import CallFailure, ChatModel, ChatReply, ChatRequest
from esckit.conversation import Conversation
from esckit.errors import EsckitError, ModelError
from esckit.files import hash_file
from esckit.judging.error_model import FILE
from esckit.judging.open_annotator import AnnotatorOptions, check_annotator
from esckit.mining.tree_search.asked_roles import AskedReward, AskedSeeker, AskedStrategies, AskedSupporter
from esckit.mining.tree_search.options import EMBEDDED, PATTERNS, RewardOptions, SearchOptions, StrategyOptions
from esckit.mining.tree_search.roles import RewardRole, Roles, StrategyRole
from esckit.strategy import Taxonomy
from esckit.supporters.open_model import check_model, open_model

__all__ = ["check_roles", "open_reward", "open_roles", "role_names", "roles_identity"]

RoleName = Literal["seeker", "supporter", "strategy", "reward", "check"]
_ROLES: Final[tuple[RoleName, ...]] = ("seeker", "supporter", "strategy", "reward", "check")
_VERSION: Final = 1  # of how roles are asked and their answers read
_HOW: Final = {"decoding", "prompts", "planner", "by", "alpha", "bias", "budget_calls", "budget_tokens"}
"""Options of a role that do not say which model is opened."""


def check_roles(
    options: SearchOptions, taxonomy: Taxonomy, seeds: Sequence[Conversation] = (), *, planned: bool = False
) -> None:
    """Refuse at once what would fail later; ``planned``: a planner that is not made yet plays the strategy role.

    Raises:
        EsckitError: a role names no model or an unknown one, a chat model has no key, a planner knows other strategies,
            the embedded annotator does not read the language of these dialogues, digits are asked of a model behind a
            URL, or a user's prompts are wrong; one sentence says which role.
    """
    for role, each in _given(options):
        if role == "strategy" and planned:
            continue
        try:
            _check_role(role, each, taxonomy, seeds)
        except EsckitError as error:
            raise type(error)(f"the {role} role: {error}") from error


def _given(options: SearchOptions) -> list[tuple[RoleName, PromptedOptions]]:
    """The roles that somebody plays, ``check`` only where it is wanted."""
    return [(role, each) for role in _ROLES if (each := options.role(role)) is not None]


def _check_role(role: RoleName, options: PromptedOptions, taxonomy: Taxonomy, seeds: Sequence[Conversation]) -> None:
    if isinstance(options, StrategyOptions) and options.planner is not None:
        _check_unheard(options, "planner")
        _check_planner(options.planner, taxonomy)
        return
    if options.model is None:
        raise ModelError("nobody plays it: set its model (smollm2, a model's folder, or remote:MODEL).")
    if isinstance(options, RewardOptions):
        if not _asks(options):
            _check_unheard(options, "model")
            if options.model == PATTERNS:
                return
            if options.model != EMBEDDED and not (Path(options.model) / FILE).exists():
                raise ModelError(
                    f"{options.model} is no chat model and no annotator: give {EMBEDDED}, {PATTERNS}, a trained "
                    f"annotator's folder, or a chat model (smollm2, a model's folder, {REMOTE}MODEL)."
                )
            check_annotator(AnnotatorOptions(model=options.model), seeds)
            return
        if options.by == "digits" and options.model.startswith(REMOTE):
            raise ModelError(
                f"by: digits reads the probabilities of a model on this machine, and {options.model} is behind a URL: "
                "set by to words."
            )
    check_model(options)


def _check_unheard(options: PromptedOptions, heard: str) -> None:
    if other := ", ".join(sorted(options.model_fields_set - {"model", heard})):
        raise ModelError(f"{other} is for a chat model, and none plays it: set its model, or leave {other} out.")


def _asks(options: RewardOptions) -> bool:
    """True for a chat model, false for patterns and for an annotator that asks nobody."""
    return options.model != PATTERNS and AnnotatorOptions(model=options.model).asks


def _check_planner(name: str, taxonomy: Taxonomy) -> None:
    from esckit.supporters.own_model import open_planner

    if name != EMBEDDED or taxonomy.name != "esconv":  # the embedded one is made where it is needed first
        open_planner(name, taxonomy)


@asynccontextmanager
async def open_roles(
    options: SearchOptions, ledger: Ledger, taxonomy: Taxonomy, planner: Path | None = None
) -> AsyncIterator[Roles]:
    """Open all roles of a search, each model once, for the running event loop; what is under way at the end is
    cancelled.

    Args:
        options: who plays which role.
        ledger: open; nothing that is in it is asked again.
        taxonomy: of the seed dialogues.
        planner: the folder of whoever plays the strategy role, in the place of what the options name.

    Raises:
        EsckitError: see `check_roles`; ModelError also where a model cannot be loaded.
    """
    async with AsyncExitStack() as stack:
        opened = _Opened(ledger, stack)
        seeker, supporter = options.seeker, options.supporter
        yield Roles(
            seeker=AskedSeeker(await opened.live("seeker", seeker), _name(seeker), seeker, taxonomy),
            supporter=AskedSupporter(await opened.live("supporter", supporter), _name(supporter), supporter, taxonomy),
            strategy=await opened.strategies(options, taxonomy, planner),
            reward=await opened.reward("reward", options.reward),
            check=None if options.check is None else await opened.reward("check", options.check),
        )


@asynccontextmanager
async def open_reward(options: RewardOptions, ledger: Ledger) -> AsyncIterator[RewardRole]:
    """Open whoever judges, alone, as `open_roles` does."""
    async with AsyncExitStack() as stack:
        yield await _Opened(ledger, stack).reward("check", options)


def _name(options: ChatModelOptions) -> str:
    return chat_model_name(str(options.model))


class _Opened:
    """What is open so far; a model that several roles name is opened once."""

    def __init__(self, ledger: Ledger, stack: AsyncExitStack) -> None:
        self._ledger, self._stack = ledger, stack
        self._models: dict[str, ChatModel] = {}

    async def live(self, role: RoleName, options: PromptedOptions) -> LiveAsker:
        """Where a role's questions are asked."""
        model = self._model(options)
        if isinstance(options, RewardOptions) and options.by == "digits":
            from esckit.chat_models.local import LocalChatModel
            from esckit.mining.tree_search.digits import DigitsModel

            assert isinstance(model, LocalChatModel), "see check_roles"
            model = DigitsModel(model, options.read_prompts())
        asker = Asker(_Lent(model), self._ledger, f"{role}/{_VERSION}", options.pace)
        return await self._stack.enter_async_context(asker.open())

    def _model(self, options: PromptedOptions) -> ChatModel:
        key = repr(sorted(options.model_dump(exclude=_HOW).items()))
        if key not in self._models:
            check_model(options)
            self._models[key] = open_model(options)
            self._stack.push_async_callback(self._models[key].close)
        return self._models[key]

    async def strategies(self, options: SearchOptions, taxonomy: Taxonomy, planner: Path | None) -> StrategyRole:
        """The strategy role."""
        asked = options.strategy
        name = str(planner) if planner else asked.planner
        if name is None:
            live = await self.live("strategy", asked)
            return AskedStrategies(live, _name(asked), asked, taxonomy, options.prior_temperature)
        from esckit.mining.tree_search.silent_roles import PlannerStrategies
        from esckit.supporters.own_model import open_planner

        return PlannerStrategies(open_planner(name, taxonomy), _planner_name(name), taxonomy, hidden=_hides(Path(name)))

    async def reward(self, role: RoleName, options: RewardOptions) -> RewardRole:
        """Whoever judges."""
        if _asks(options):
            return AskedReward(await self.live(role, options), _name(options), options)
        from esckit.judging.embedded_annotator import load_annotator
        from esckit.mining.tree_search.silent_roles import AnnotatorReward, PatternsReward

        if options.model == PATTERNS:
            return PatternsReward()
        return AnnotatorReward(load_annotator(options.model))


class _Lent:
    """A model that several askers share: none of them closes it."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.identity, self.batch_size, self.concurrency = model.identity, model.batch_size, model.concurrency

    def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """See `ChatModel.answer`."""
        return self._model.answer(requests)

    async def close(self) -> None:
        """Whoever opened the model closes it."""


def _planner_name(name: str) -> str:
    return f"planner:{name if name == EMBEDDED else Path(name).resolve().name}"


def _hides(folder: Path) -> bool:
    """Whether a planner wants past strategies hidden in a talk that is no human's: see `Supporter.past_in_chat`."""
    from esckit.supporters.supporter_folder import read_card

    if not (folder / "supporter.json").exists():
        return True  # an encoder planner's own folder, or the embedded one
    card = read_card(folder)
    return card.planner == "encoder" or card.past_strategies == "hidden"


def role_names(roles: Roles) -> dict[str, str]:
    """For records: the name of whoever plays each role."""
    return {role: played.name for role, played in roles._asdict().items() if played is not None}


def roles_identity(options: SearchOptions) -> dict[str, Any]:
    """JSON-ready: all options of the roles that answers depend on, prompts and annotators by their hashes; not pace.

    What the folders of models hold now is not in it (`recipes.identity.source_identity`).
    """
    return {role: _identity(each) for role, each in _given(options)}


def _identity(options: PromptedOptions) -> dict[str, Any]:
    told = options.model_dump(mode="json", exclude=PACE_KEYS | {"prompts"})
    file = Path(str(options.model)) / FILE
    return {
        **told,
        "version": _VERSION,
        "prompts": options.read_prompts().digest,
        "annotator": hash_file(file) if isinstance(options, RewardOptions) and file.exists() else None,
    }
