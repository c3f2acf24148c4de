"""Which annotator is wanted, whether it can be had, and opening it: the embedded one, a trained one, a chat model."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.chat_models.opening import REMOTE, chat_model_name, check_chat_model, is_chat_model, open_chat_model
from esckit.conversation import Conversation
from esckit.errors import EsckitError
from esckit.files import hash_file
from esckit.judging.error_model import FILE
from esckit.prompts.own import Prompts, read_prompts

if TYPE_CHECKING:
    from esckit.judging.annotator import Annotator

__all__ = ["AnnotatorOptions", "annotator_identity", "check_annotator", "check_language", "open_annotator"]

_EMBEDDED: Final = "embedded"
_PACE: Final = {"at_once", "budget_calls", "budget_tokens"}  # how it is asked; verdicts do not depend on it


class AnnotatorOptions(BaseModel):
    """Who looks for psychological errors (docs/annotation.md).

    Attributes:
        source: ``embedded``, a trained annotator's folder, or a chat model: ``remote:MODEL``, one behind a URL, whose
            key stands in the environment alone, or a folder or a Hub id (`chat_models.opening`).
        encoder: of the embedded or a trained one: ``embedded``, a folder or a Hub id.
        base_url: of ``remote:MODEL``; null is OpenAI's.
        examples: a file of examples for the chat model's prompt; null takes ours.
        prompts: a folder with prompts of the user's own for the chat model (`prompts.own`).
        at_once: the most calls to the chat model at once; of one on this machine, prompts a batch.
        budget_calls, budget_tokens: of the chat model, in the whole ledger.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = _EMBEDDED
    encoder: str = _EMBEDDED
    base_url: str | None = None
    examples: str | None = None
    prompts: str | None = None
    at_once: int | None = Field(None, ge=1)
    budget_calls: int | None = Field(None, ge=1)
    budget_tokens: int | None = Field(None, ge=1)

    @property
    def asks(self) -> bool:
        """True for a chat model."""
        trained = self.source == _EMBEDDED or (Path(self.source) / FILE).exists()
        return not trained and is_chat_model(self.source)

    def read_prompts(self) -> Prompts:
        """The prompts that the chat model is asked with.

        Raises:
            EsckitError: the user's are wrong; one sentence says how.
        """
        return read_prompts(self.prompts, "psychological_errors")

    @model_validator(mode="after")
    def _no_option_goes_unheard(self) -> Self:
        other = set() if self.asks else self.model_fields_set - {"source", "encoder"}
        if self.source == REMOTE:
            raise ValueError(f"the annotator {REMOTE} names no model: write {REMOTE}MODEL")
        if other:
            told = ", ".join(sorted(other))
            raise ValueError(f"{told} is for a chat model: set source to remote:MODEL or a model's folder")
        return self


def annotator_identity(options: AnnotatorOptions) -> dict[str, Any]:
    """JSON-ready: all that verdicts depend on, files and prompts by their hashes; not how it is paced."""
    files = [Path(options.examples)] if options.examples else []
    if not options.asks and options.source != _EMBEDDED:
        files = [Path(options.source) / FILE]
    own = options.read_prompts().digest
    found = {**options.model_dump(exclude=_PACE | {"prompts"}), "files": [hash_file(path) for path in files]}
    return {**found, "prompts": own} if own else found


def check_annotator(options: AnnotatorOptions, conversations: Sequence[Conversation]) -> None:
    """Refuse at once an annotator that would fail later.

    Raises:
        ChatError: a chat model has no key, or its URL is none.
        ModelError: there is no such annotator, or it was trained with another encoder.
        CorpusError: the file of examples cannot be read.
        EsckitError: the embedded annotator does not read the language of these conversations, or a user's prompts are
            wrong.
    """
    from esckit.corpora.error_examples import read_error_examples
    from esckit.judging.psychological_errors import load_annotator

    if options.asks:
        options.read_prompts()
        check_chat_model(options.source, options.base_url)
        read_error_examples(_examples(options))
        return
    check_language(options, conversations)
    load_annotator(options.source, options.encoder)


def check_language(options: AnnotatorOptions, conversations: Sequence[Conversation]) -> None:
    """The embedded annotator's words are English; a chat model reads what it can.

    Raises:
        EsckitError: there are conversations that the annotator does not read.
    """
    other = sorted({conversation.language for conversation in conversations} - {"en"})
    if other and not options.asks:
        raise EsckitError(
            f"the embedded annotator reads English alone and there are dialogues in {', '.join(other)}: "
            "take a chat model, remote:MODEL, as annotator for them."
        )


@contextmanager
def open_annotator(options: AnnotatorOptions, ledger: Path) -> "Iterator[Annotator]":
    """Open an annotator; a chat model holds its ledger meanwhile, and tells on standard error what it cost.

    Raises:
        EsckitError: see `check_annotator`.
        LedgerError: the ledger cannot be used.
    """
    if not options.asks:
        from esckit.judging.psychological_errors import load_annotator

        yield load_annotator(options.source, options.encoder)
        return
    from esckit.chat_models.asker import Asker
    from esckit.chat_models.ledger import Ledger
    from esckit.chat_models.pacing import Pace
    from esckit.corpora.error_examples import read_error_examples
    from esckit.judging.asked_errors import STEP, AskedAnnotator

    prompts, examples = options.read_prompts(), read_error_examples(_examples(options))
    model, name = (
        open_chat_model(options.source, options.base_url, at_once=options.at_once),
        chat_model_name(options.source),
    )
    pace = Pace(budget_calls=options.budget_calls, budget_tokens=options.budget_tokens)
    with Ledger(ledger) as opened:
        opened.forget_failed()  # what could not be had then may be had now
        asker = Asker(model, opened, STEP, pace)
        try:
            yield AskedAnnotator(name, asker, examples, prompts)
        finally:
            if asker.usage.items:
                print(f"{name}: {asker.usage}", file=sys.stderr)


def _examples(options: AnnotatorOptions) -> Path | None:
    return Path(options.examples) if options.examples else None
