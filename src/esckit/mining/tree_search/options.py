"""What can be said about a tree search: its mode, its switches, its four roles, its limits. It needs no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.chat_models.opening import PromptedOptions
from esckit.decoding import Decoding

__all__ = ["EMBEDDED", "MODES", "PATTERNS", "RewardOptions", "RoleOptions", "SearchOptions", "StrategyOptions"]

EMBEDDED: Final = "embedded"
"""Names the embedded planner, or the embedded annotator."""

PATTERNS: Final = "patterns"
"""Names the reward that counts patterns over a dialogue and asks nobody."""

Mode = Literal["ours", "paper", "as_coded"]
Method = Literal["search", "best_of", "random"]

_PAPER: Final[Mapping[str, Any]] = {
    "gold": "unvisited",
    "gold_label": "shared",
    "expand": "child",
    "rollout": 4,
    "reward_over": "rollout",
    "rewards_stay": False,
    "prior_temperature": 1.0,
    "sees_opening": True,
    "ask_seeker": "at_once",
    "follow": "all",
    "keep": "path",
    "judgements": 1,
    "iterations": 100,
    "most_iterations": 100,
    "ends": 1,
    "most_ends": 25,
}
_AS_CODED: Final[Mapping[str, Any]] = {
    **_PAPER,
    "gold": "planted",
    "reward_over": "all",
    "prior_temperature": 5.0,
    "sees_opening": False,
    "keep": "end",
    "most_iterations": 200,
}
_CONTROL: Final[Mapping[str, Any]] = {"expand": "leaf", "rewards_stay": True, "keep": "turn", "judgements": 1}
"""What a control needs, whatever the mode: it has no tree to search."""


class RoleOptions(PromptedOptions):
    """A role that a chat model plays, in words: seeker or supporter.

    Attributes:
        model: who plays it, by default SmolLM2-135M-Instruct.
    """

    asks_with: ClassVar[str] = "tree_search"

    model: str | None = "smollm2"
    decoding: Decoding = Decoding(max_new_tokens=48)


class StrategyOptions(PromptedOptions):
    """Who says which strategies fit: a planner by its probabilities, or a chat model by scores of 0 to 10.

    Attributes:
        planner: the folder of a planner or of a supporter that has one, or ``embedded``; one pass, no words.
        model: a chat model in its place.
    """

    asks_with: ClassVar[str] = "tree_search"

    planner: str | None = EMBEDDED
    model: str | None = None
    decoding: Decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=300)

    @model_validator(mode="before")
    @classmethod
    def _a_model_takes_the_planners_place(cls, given: Any) -> Any:
        return {"planner": None, **given} if isinstance(given, dict) and given.get("model") else given

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.planner is None) == (self.model is None):
            raise ValueError("the strategy role needs one of planner (a folder, or embedded) and model (a chat model)")
        return self


class RewardOptions(PromptedOptions):
    """Who says how good a reply is.

    Attributes:
        model: ``embedded`` or a trained annotator's folder: the probability that the reply has no psychological error,
            0 to 1; ``patterns``: 1 less the share of the patterns over a dialogue that the reply completes
            (`measures.patterns.patterns_of`), 0 to 1; or a chat model, which scores four qualities from 0 to 4 (CSO,
            table 13).
        by: of a chat model: ``words``, a JSON reply; or ``digits``, on this machine alone: the expected value of each
            score under the probabilities of the digits, in one forward pass.
        alpha, bias: of a chat model's scores: R = (E + I + H + alpha S) / 10 + bias (CSO, equation 2).
    """

    asks_with: ClassVar[str] = "tree_search"

    model: str = EMBEDDED
    by: Literal["words", "digits"] = "words"
    alpha: float = Field(7.0, gt=0)
    bias: float = -3.0
    decoding: Decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=200)


class SearchOptions(BaseModel):
    """How preferences are searched for from seed dialogues (Chain of Strategy Optimization, section 3).

    Attributes:
        method: ``search``, the tree; and two controls: ``best_of``, each strategy once at each gold turn, judged;
            ``random``, one strategy drawn at random at each gold turn, not judged (CSO, table 4).
        mode: which switches are taken where they are not said: ours, the paper's, or the released program's.
        seeker, supporter, strategy, reward: the four roles (CSO, appendix A).
        check: another judge, or the same, that judges a sample of the pairs again; null: nobody does.
        checked: so many pairs at most.
        dialogues: search from so many dialogues, drawn by the seed; null is all.
        theta: what is kept is worth more, what is rejected less; null is the reward role's own.
        exploration: c in PUCB (CSO, equation 1).
        gold: what the seed's own turns count for. ``planted``: value 1 and 100 visits; ``unvisited``: value 0 and no
            visit; ``judged``: each is judged once, as any other turn is.
        gold_label: whether the seed's turn stands for its strategy (``shared``), or the supporter's own reply under it
            stands beside it (``own``).
        expand: what is written and simulated: ``child``, the likeliest child of the selected turn, and simulated turns
            are thrown away; ``leaf``, that turn, and simulated turns stay in the tree, with their rewards, and are used
            when the search comes there.
        rollout: greedy steps of a simulation.
        reward_over: ``all``, the mean over the turn that is simulated from and the simulated ones; ``rollout``, over
            these alone.
        rewards_stay: a turn is not judged again each time that the search ends there.
        prior_temperature: P = softmax(score / this), of a chat model's scores. A planner's probabilities are P.
        sees_opening: false: the strategy role does not see the seeker's first turn where gold turns are planted.
        ask_seeker: ``at_once`` after each reply, or ``when_needed``: when the search goes beyond it.
        follow: ``all``: a search and its simulations go on from any turn; ``kept``: from people's turns, and from those
            that are worth more than theta.
        keep: ``path``: the turns of a talk to its end, where each is worth more than theta (CSO, equation 5); ``end``:
            where the end is, with two visits; ``turn``: each turn by its own judgements, where what stands before it
            was said by people or is kept.
        judgements: how often a turn that decides a pair is judged, at most.
        iterations, most_iterations, ends, most_ends: a search stops after so many iterations with so many ends, and at
            the latest after the other numbers.
        patience: a seed stops after so many iterations without a new pair; null: it does not.
        leaves: turns that are expanded at the same time in one tree, with virtual loss. More than 1 changes the tree.
        concurrency: the most questions at once, of all seeds and roles together.
        budget_calls: the most questions altogether; the search then ends with the pairs that it has.
        share_budget: what a seed leaves of its share goes to those that still yield pairs.
        decoupled: a pair of two strategies also trains a planner (aspect ``strategy``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "search"
    mode: Mode = "ours"
    seeker: RoleOptions = RoleOptions()
    supporter: RoleOptions = RoleOptions()
    strategy: StrategyOptions = StrategyOptions()
    reward: RewardOptions = RewardOptions()
    check: RewardOptions | None = None
    checked: int = Field(200, ge=1)
    dialogues: int | None = Field(None, ge=1)
    theta: float | None = None
    exploration: float = Field(1.0, ge=0)
    gold: Literal["planted", "unvisited", "judged"] = "judged"
    gold_label: Literal["shared", "own"] = "own"
    expand: Literal["child", "leaf"] = "leaf"
    rollout: int = Field(1, ge=0)
    reward_over: Literal["all", "rollout"] = "all"
    rewards_stay: bool = True
    prior_temperature: float = Field(5.0, gt=0)
    sees_opening: bool = True
    ask_seeker: Literal["at_once", "when_needed"] = "when_needed"
    follow: Literal["all", "kept"] = "kept"
    keep: Literal["path", "end", "turn"] = "turn"
    judgements: int = Field(3, ge=1)
    iterations: int = Field(100, ge=1)
    most_iterations: int = Field(100, ge=1)
    ends: int = Field(0, ge=0)
    most_ends: int = Field(1_000_000, ge=1)
    patience: int | None = Field(None, ge=1)
    leaves: int = Field(1, ge=1)
    concurrency: int = Field(64, ge=1)
    budget_calls: int | None = Field(None, ge=1)
    share_budget: bool = False
    decoupled: bool = False

    @model_validator(mode="before")
    @classmethod
    def _switches_of_the_mode(cls, given: Any) -> Any:
        """What is not said is as the mode has it; more iterations than the mode's most are the most."""
        if not isinstance(given, dict) or given.get("mode", "ours") not in MODES:
            return given
        usual = {**MODES[given.get("mode", "ours")]}
        if given.get("method", "search") != "search":
            usual |= _CONTROL
        if isinstance(given.get("iterations"), int):
            scale = usual["most_iterations"] // usual["iterations"]
            usual["most_iterations"] = given["iterations"] * scale
        return {**usual, **given}

    @model_validator(mode="after")
    def _switches_fit(self) -> Self:
        if self.most_iterations < self.iterations:
            raise ValueError(f"most_iterations {self.most_iterations} is less than iterations {self.iterations}")
        if self.expand == "leaf" and not self.rewards_stay:
            raise ValueError("expand: leaf looks at a turn once: set rewards_stay to true")
        if self.expand == "child" and self.ask_seeker == "when_needed":
            raise ValueError("expand: child needs the seeker's answer: set ask_seeker to at_once")
        if self.keep == "turn" and not self.rewards_stay:
            raise ValueError("keep: turn reads each turn's own judgements: set rewards_stay to true")
        if self.share_budget and self.budget_calls is None:
            raise ValueError("share_budget divides budget_calls: set budget_calls")
        return self

    def role(self, name: Literal["seeker", "supporter", "strategy", "reward", "check"]) -> PromptedOptions | None:
        """The options of a role by its name."""
        found: PromptedOptions | None = getattr(self, name)
        return found


MODES: Final[Mapping[Mode, Mapping[str, Any]]] = MappingProxyType(
    {
        "ours": {name: SearchOptions.model_fields[name].default for name in _PAPER},
        "paper": _PAPER,
        "as_coded": _AS_CODED,
    }
)
"""The switches of each mode; docs/mining.md says where each value comes from."""
