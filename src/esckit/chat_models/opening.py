"""Which chat model is wanted, whether it can be had, and opening it: one behind a URL, or one on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.chat_models.base_url import OPENAI_URL
from esckit.chat_models.dialect import LEAVABLE
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel
from esckit.decoding import Decoding, completed
from esckit.errors import ModelError
from esckit.hub import is_hub_id, is_smollm2
from esckit.prompts.own import Prompts, read_prompts
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.chat_models.remote import RemoteChatModel

__all__ = [
    "PACE_KEYS",
    "REMOTE",
    "ChatModelOptions",
    "PromptedOptions",
    "chat_model_name",
    "is_chat_model",
    "open_chat_model",
    "open_remote",
]

REMOTE: Final = "remote:"
"""Begins the name of a model behind a URL: ``remote:MODEL``."""

PACE_KEYS: Final = {"concurrency", "budget_calls", "budget_tokens"}
"""Options that say how a model is asked; no answer depends on them."""

_OURS: Final = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "response_format"}
_OURS_TOO: Final = {"stream", "n"}  # one whole reply a call is what is read


class ChatModelOptions(BaseModel):
    """Which chat model is asked, and how: the same keys wherever a recipe or a command names one (docs/asking.md).

    Attributes:
        model: ``remote:MODEL``, a model behind a URL, whose key stands in OPENAI_API_KEY; or one on this machine: a
            folder, a Hub id, ``smollm2``, a GGUF file, or a supporter's folder. None where there is one already (a
            run's backbone).
        base_url: of ``remote:MODEL``, up to and including ``/v1``; None is OpenAI's.
        extra_body: of ``remote:MODEL``: fields that each request has besides ours. They are recorded: no secrets.
        leave_out: of ``remote:MODEL``: settings that are not sent (temperature, top_p, max_tokens, json_schema, ...).
        decoding: how answers are drawn; what is left out is as the default says.
        concurrency: the most calls at once; of a model on this machine, prompts a batch. None is the model's own.
        budget_calls, budget_tokens: the most that the ledger may hold of this role (annotate, judge, baseline).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    base_url: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    decoding: Decoding = Decoding()
    concurrency: int | None = Field(None, ge=1)
    budget_calls: int | None = Field(None, ge=1)
    budget_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _rest_of_decoding(cls, given: Any) -> Any:
        """Keys of ``decoding`` that are left out are the default's."""
        if not isinstance(given, dict) or "decoding" not in given:
            return given
        return {**given, "decoding": completed(given["decoding"], cls.model_fields["decoding"].default)}

    @model_validator(mode="after")
    def _no_field_goes_unheard(self) -> Self:
        if self.model == REMOTE:
            raise ValueError(f"{REMOTE} names no model: write {REMOTE}MODEL")
        for name in ("base_url", "extra_body", "leave_out"):
            if getattr(self, name) and not (self.model or "").startswith(REMOTE):
                raise ValueError(f"{name} is for a model behind a URL: set model to {REMOTE}MODEL")
        if unknown := sorted(set(self.leave_out) - LEAVABLE.keys()):
            raise ValueError(f"leave_out has {', '.join(unknown)}: choose among {', '.join(sorted(LEAVABLE))}")
        if twice := sorted(self.extra_body.keys() & (self.decoding.record().keys() - _OURS)):
            raise ValueError(f"extra_body and decoding both set {', '.join(twice)}: leave one of the two out")
        if ours := sorted(set(self.extra_body) & (_OURS | _OURS_TOO)):
            raise ValueError(f"extra_body sets {', '.join(ours)}, which esckit sets itself: leave it out")
        return self

    @property
    def pace(self) -> Pace:
        """Patience and budgets."""
        return Pace(budget_calls=self.budget_calls, budget_tokens=self.budget_tokens)

    def check_askable(self) -> None:
        """Refuse at once what asking would fail with later.

        Raises:
            ChatError: a model behind a URL has no key or its URL is none, or the package openai is missing.
            ModelError: the folder holds no chat model.
        """
        if self.model is None:
            return
        if self.model.startswith(REMOTE):
            open_chat_model(self)
        elif not is_chat_model(self.model):
            if Path(self.model).is_dir():
                from esckit.language_models.folders import check_folder

                check_folder(Path(self.model))
            raise ModelError(
                f"{self.model} is no chat model: give the folder or the Hub id of one, smollm2, or {REMOTE}MODEL."
            )


class PromptedOptions(ChatModelOptions):
    """Options of what asks in words that a user may change.

    Attributes:
        prompts: a folder with prompts of the user's own (`prompts.own`).
    """

    asks_with: ClassVar[str]
    """Which prompts, of `prompts.own.METHODS`."""

    prompts: str | None = None

    def read_prompts(self) -> Prompts:
        """The prompts that the model is asked with.

        Raises:
            EsckitError: the user's are wrong; one sentence says how.
        """
        return read_prompts(self.prompts, self.asks_with)

    def check_askable(self) -> None:
        """See `ChatModelOptions.check_askable`; a user's prompts that are wrong are an `EsckitError`."""
        self.read_prompts()
        super().check_askable()


def is_chat_model(source: str) -> bool:
    """True for ``remote:MODEL``, ``smollm2``, a model's or supporter's folder, a GGUF file, and ``owner/name``."""
    named = is_smollm2(source) or source.lower().endswith(".gguf") or ("/" in source and is_hub_id(source))
    here = any((Path(source) / name).exists() for name in ("config.json", "adapter_config.json", "supporter.json"))
    return source.startswith(REMOTE) or named or here


def chat_model_name(source: str) -> str:
    """The model's name for records: without ``remote:``, and of a folder the last part."""
    name = source.removeprefix(REMOTE)
    return name if source.startswith(REMOTE) or is_hub_id(source) else Path(source).resolve().name


def open_remote(options: ChatModelOptions) -> "RemoteChatModel":
    """Open the model behind a URL that options name.

    Raises:
        ChatError: see `ChatModelOptions.check_askable`.
    """
    from esckit.chat_models.remote import RemoteChatModel

    assert options.model is not None, "a model behind a URL has a name"
    how: dict[str, Any] = {"extra_body": options.extra_body, "leave_out": options.leave_out}
    how |= {"concurrency": options.concurrency} if options.concurrency else {}
    return RemoteChatModel(options.model.removeprefix(REMOTE), options.base_url or OPENAI_URL, **how)


def open_chat_model(options: ChatModelOptions) -> ChatModel:
    """Open the chat model that options name; of a supporter's folder, `supporters.open_model` does.

    Raises:
        ChatError, ModelError: see `ChatModelOptions.check_askable`; ModelError also where a model cannot be loaded.
    """
    assert options.model is not None, "a model that is there already need not be opened"
    most = options.concurrency
    if options.model.startswith(REMOTE):
        return open_remote(options)
    options.check_askable()
    quiet()
    from esckit.chat_models.local import LocalChatModel
    from esckit.language_models.backbone import load_backbone

    backbone = load_backbone(options.model)
    return LocalChatModel(backbone, most) if most else LocalChatModel(backbone)
