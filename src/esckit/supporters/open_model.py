"""Opening whatever is named as a chat model: what `chat_models.opening` knows, or a supporter's folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from esckit.chat_models.opening import ChatModelOptions, open_chat_model
from esckit.chat_models.protocol import ChatModel
from esckit.errors import ModelError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.supporters.supporter import Supporter

__all__ = ["check_model", "open_model", "prompted"]


def check_model(options: ChatModelOptions) -> None:
    """Refuse at once what asking would fail with later.

    Raises:
        EsckitError: see `ChatModelOptions.check_askable`; or no language model words the supporter's replies.
    """
    options.check_askable()
    if (folder := _supporter(options)) is not None:
        from esckit.supporters.supporter_folder import read_card

        if read_card(folder).generator != "language":
            raise _wordless(str(folder))


def open_model(options: ChatModelOptions) -> ChatModel:
    """Open the chat model that options name; a supporter is the language model that words its replies (`prompted`).

    Raises:
        EsckitError: see `check_model`; ModelError also where a model cannot be loaded.
    """
    if (folder := _supporter(options)) is None:
        return open_chat_model(options)
    check_model(options)
    quiet()
    from esckit.supporters.supporter import Supporter

    return prompted(Supporter.load(folder), options.concurrency)


def prompted(supporter: "Supporter", batch_size: int | None = None) -> ChatModel:
    """The language model that words a supporter's replies, under its adapter, for any prompt.

    Args:
        supporter: which one.
        batch_size: prompts a batch; None is the model's own.

    Raises:
        ModelError: its replies come from no language model.
    """
    from esckit.supporters.language_parts import LanguageParts

    if not isinstance(supporter.generator, LanguageParts):
        raise _wordless("this supporter")
    return supporter.generator.chat_model(batch_size=batch_size or 8)


def _supporter(options: ChatModelOptions) -> Path | None:
    """The folder of the supporter that is named, if it is one."""
    folder = Path(options.model or "")
    return folder if options.model and (folder / "supporter.json").exists() else None


def _wordless(name: str) -> ModelError:
    return ModelError(f"no language model words the replies of {name}: name a supporter that has one, or a chat model.")
