"""What can be said about a derivation: which roles, which steps, who writes, what is left out. No torch."""

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.chat_models.opening import PromptedOptions
from esckit.decoding import Decoding
from esckit.roles.bank import SHIPPED
from esckit.roles.telling import TellingOptions

__all__ = ["DerivationOptions", "DeriverOptions", "Filters", "PerplexityLimit", "StepName"]

StepName = Literal["dialogue", "experiences", "style"]

_IN_ORDER: Final[tuple[StepName, ...]] = ("dialogue", "experiences", "style")


class DeriverOptions(PromptedOptions):
    """The chat model that writes."""

    asks_with: ClassVar[str] = "derivation"

    decoding: Decoding = Decoding(temperature=0.7, top_p=0.95, max_new_tokens=4096)


class PerplexityLimit(BaseModel):
    """A dialogue of a higher perplexity is left out. A limit means nothing without its model.

    Attributes:
        model: a causal language model on this machine: a folder, a Hub id, ``smollm2``; in a recipe null is the run's
            backbone.
        most: per token, 1 or more (Empath, section 4.2: 1,500, and no model is named).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    most: float = Field(ge=1)


class Filters(BaseModel):
    """What a derived dialogue has to be; docs/derivation.md lists what is looked at besides.

    Attributes:
        fewest, most: exchanges, a seeker's and a supporter's turn each (Empath, section 4.2: 8 to 10).
        length_ratio: all that the supporter says before and after a step: the longer one has at most so many times the
            words of the shorter one (characters in scripts without blanks); null: any.
        near_duplicate: of two roles' versions of one source, the later one is left out where they share at least this
            part, 0 to 1, of their supporters' runs of three words (`words.in_common`); null: any.
        perplexity: null: nobody measures it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fewest: int = Field(8, ge=1)
    most: int = Field(10, ge=1)
    length_ratio: float | None = Field(2.5, ge=1)
    near_duplicate: float | None = Field(0.8, gt=0, le=1)
    perplexity: PerplexityLimit | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"filters: fewest {self.fewest} is above most {self.most}: no dialogue could be kept")
        return self


class DerivationOptions(BaseModel):
    """How role dialogues are derived (Empath, section 4.2).

    Attributes:
        bank: ``shipped``, or a folder of roles.
        roles: ``matched``, the role of the source's topic, else the one whose experiences are most like its words;
            ``all``; so many, drawn by the seed; or their names.
        language: take sources of this language alone; null: of any.
        derived_by: ``rules``, which ask nobody and write nothing new, or a chat ``model``.
        deriver: the chat model.
        steps: what is done, in this order: a ``dialogue`` of a question and its answer, and strategies for a dialogue
            without; ``experiences`` of the role; its ``style``.
        telling: under which strategies a role tells an experience, and how often.
        offered: a model chooses among so many of the role's experiences, those most like the seeker's words.
        filters: what is left out.
        dialogues: so many sources, drawn by the seed; null is all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bank: str = SHIPPED
    roles: Literal["matched", "all"] | Annotated[int, Field(ge=1)] | tuple[str, ...] = "matched"
    language: str | None = None
    derived_by: Literal["rules", "model"] = "rules"
    deriver: DeriverOptions = DeriverOptions()
    steps: tuple[StepName, ...] = _IN_ORDER
    telling: TellingOptions = TellingOptions(most=1)
    offered: int = Field(5, ge=1)
    filters: Filters = Filters()
    dialogues: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_deriver(self) -> Self:
        if self.derived_by == "model" and self.deriver.model is None:
            raise ValueError("derived_by: model needs one: set deriver.model (remote:NAME, a folder, smollm2)")
        if self.derived_by != "model" and self.deriver.model is not None:
            raise ValueError(f"deriver.model {self.deriver.model} is not asked: set derived_by to model")
        if not self.steps or self.steps != tuple(each for each in _IN_ORDER if each in self.steps):
            raise ValueError(f"steps has to be some of {', '.join(_IN_ORDER)}, each once, in this order")
        if isinstance(self.roles, tuple) and len(set(self.roles)) < max(len(self.roles), 1):
            raise ValueError("roles lists none, or one twice: name each once")
        return self
