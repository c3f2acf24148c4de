"""Which annotator is wanted, whether it can be had, and opening it: the embedded one, a trained one, a chat model."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from pydantic import model_validator

from esckit.chat_models.opening import PACE_KEYS, PromptedOptions, chat_model_name, is_chat_model
from esckit.conversation import Conversation
from esckit.decoding import Decoding
from esckit.errors import EsckitError
from esckit.files import hash_file
from esckit.judging.error_model import FILE
from esckit.supporters.open_model import check_model, open_model

if TYPE_CHECKING:
    from esckit.judging.annotation import Annotator

_EMBEDDED: Final = "embedded"


class AnnotatorOptions(PromptedOptions):
    """Who looks for psychological errors (docs/annotation.md).

    Attributes:
        model: ``embedded``, a trained annotator's folder, or a chat model.
        examples: a file of examples for the chat model's prompt; None takes ours.
    """

    asks_with: ClassVar[str] = "psychological_errors"

    model: str = _EMBEDDED
    decoding: Decoding = Decoding(greedy=True, max_new_tokens=300)
    examples: str | None = None

    @property
    def asks(self) -> bool:
        """True for a chat model."""
        trained = self.model == _EMBEDDED or (Path(self.model) / FILE).exists()
        return not trained and is_chat_model(self.model)

    @model_validator(mode="after")
    def _only_a_chat_model_is_asked(self) -> Self:
        if not self.asks and (other := ", ".join(sorted(self.model_fields_set - {"model"}))):
            raise ValueError(f"{other} is for a chat model: set model to remote:MODEL or a model's folder")
        return self


def annotator_identity(options: AnnotatorOptions) -> dict[str, Any]:
    """JSON-ready: all that verdicts depend on, files and prompts by their hashes; not how it is paced."""
    files = [Path(options.examples)] if options.examples else []
    if not options.asks and options.model != _EMBEDDED:
        files = [Path(options.model) / FILE]
    own = options.read_prompts().digest
    asked = options.model_dump(exclude=PACE_KEYS | {"prompts", "examples"})
    return {**asked, "files": [hash_file(path) for path in files], "prompts": own}


def check_annotator(options: AnnotatorOptions, conversations: Sequence[Conversation]) -> None:
    """Refuse at once an annotator that would fail later.

    Raises:
        ChatError: a chat model has no key, or its URL is none.
        ModelError: there is no such annotator, or it was trained with another encoder.
        CorpusError: the file of examples cannot be read.
        EsckitError: the embedded annotator does not read the language of these conversations, or a user's prompts are
            wrong.
    """
    from esckit.corpora.error_labels import read_error_examples
    from esckit.judging.embedded_annotator import load_annotator

    if options.asks:
        check_model(options)
        read_error_examples(_examples(options))
        return
    check_language(options, conversations)
    load_annotator(options.model)


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
        from esckit.judging.embedded_annotator import load_annotator

        yield load_annotator(options.model)
        return
    from esckit.chat_models.asker import Asker
    from esckit.chat_models.ledger import Ledger
    from esckit.corpora.error_labels import read_error_examples
    from esckit.judging.asked_errors import STEP, AskedAnnotator

    prompts, examples = options.read_prompts(), read_error_examples(_examples(options))
    model, name = open_model(options), chat_model_name(options.model)
    with Ledger(ledger) as opened:
        opened.forget_failed()  # what could not be had then may be had now
        asker = Asker(model, opened, STEP, options.pace)
        try:
            yield AskedAnnotator(name, asker, examples, prompts, options.decoding)
        finally:
            if asker.usage.items:
                print(f"{name}: {asker.usage}", file=sys.stderr)


def _examples(options: AnnotatorOptions) -> Path | None:
    return Path(options.examples) if options.examples else None
