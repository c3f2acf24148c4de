"""Planner and generator on one language model: its adapters, or a model that was trained elsewhere as it is."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esckit.chat_models.local import LocalChatModel
from esckit.conversation import Conversation, Turn
from esckit.decoding import seed_of
from esckit.errors import ModelError
from esckit.language_models.backbone import Backbone, hash_weights
from esckit.language_models.generation import Reply, generate, score_strategies
from esckit.language_models.low_rank import quicken
from esckit.rendering import Example, OwnLayout, Part, Renderer
from esckit.supporters.parts import OnText, Wording

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TRIES: Final = 4  # samples drawn for a text that was not there before


class LanguageParts:
    """A planner and a generator in one; any number of threads may ask it.

    The backbone's model is a PEFT model with an adapter for each part, named like it, or one ``coupled`` for both; or
    where the renderer's layout is a user's, a whole model without any.
    """

    about = "A language model writes each reply; it does not know what is true, and may repeat what it was trained on."

    def __init__(self, backbone: Backbone, renderer: Renderer, *, coupled: bool) -> None:
        self.backbone = backbone
        self.renderer = renderer
        self.coupled = coupled
        self._layout = renderer.layout if isinstance(renderer.layout, OwnLayout) else None

    @property
    def strategies(self) -> frozenset[str] | None:
        """None, which is all; of a layout that knows of none, none."""
        free = self._layout and not self._layout.reply and not self._layout.names_strategy
        return frozenset() if free else None

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the adapters' weights, or the user's layout; a supporter's card has the base's hash."""
        if self._layout:
            return json.dumps(asdict(self._layout))
        return hash_weights(self.backbone.model, "experts_" if self.renderer.gates else "lora_")

    def _part(self, part: Part) -> Part:
        return "coupled" if self.coupled else part

    def _adapter(self, part: Part) -> Part | None:
        return None if self._layout else self._part(part)

    def chat_model(self, part: Part = "generator", batch_size: int = 8) -> LocalChatModel:
        """This part's adapter as a chat model that takes any prompt, so many in a batch."""
        return LocalChatModel(self.backbone, batch_size, self._adapter(part))

    def playing(self, part: Part) -> AbstractContextManager[Any]:
        """The model as this part, for the caller alone."""
        return self.backbone.playing(self._adapter(part))

    def score(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]
    ) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the labels at each turn (`generation.score_strategies`)."""
        part = self._part("planner")
        with self.playing("planner") as model:
            return score_strategies(model, self.renderer, conversation, turns, shown, part)

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> list[Reply | None]:
        """See `Generator.write`: a text that must be new is drawn up to four times."""
        written: list[Reply | None] = [None] * len(wanted)
        left = list(range(len(wanted)))
        on_text = on_text if len(wanted) == 1 else None
        for attempt in range(_TRIES):
            replies = self._draw([wanted[place] for place in left], attempt, on_text)
            for place, reply in zip(left, replies, strict=True):
                unlike = wanted[place].unlike
                if unlike is None or (reply.text and reply.text not in unlike):
                    written[place] = reply
            left = [place for place in left if written[place] is None]
            if not left:
                break
        return written

    def _draw(self, wanted: Sequence[Wording], attempt: int, on_text: OnText | None) -> list[Reply]:
        """One reply for each, those of equal decoding in one batch."""
        held = _HeldBack(wanted[0].unlike or (), on_text) if on_text else None
        drawn: dict[int, Reply] = {}
        with self.playing("generator") as model:
            for decoding in dict.fromkeys(each.decoding for each in wanted):
                places = [place for place, each in enumerate(wanted) if each.decoding == decoding]
                asked = [self._asked(wanted[place]) for place in places]
                prompts = [(*each.context, *each.given) for each in asked]
                under = {"pairs": [each.pairs for each in asked]} if self.renderer.gates else {}
                seeds = [seed_of(wanted[place].seed, attempt) for place in places]
                end = self.renderer.end_of_turn
                take = held.take if held else None
                replies = generate(model, self.renderer.tokenizer, prompts, end, decoding, seeds, take, **under)
                drawn.update(zip(places, map(self._without_end, replies), strict=True))
        if held and drawn[0].text and drawn[0].text not in (wanted[0].unlike or ()):
            held.let_go()
        return [drawn[place] for place in range(len(wanted))]

    def _without_end(self, reply: Reply) -> Reply:
        return reply._replace(text=self._layout.without_end(reply.text)) if self._layout else reply

    def _asked(self, wanted: Wording) -> Example:
        turn = Turn("next", wanted.parent, "supporter", None, wanted.strategy, extra=dict(wanted.extra))
        room = wanted.decoding.max_new_tokens
        return self.renderer.asked(wanted.conversation, turn, self._part("generator"), wanted.shown, room)


class _HeldBack:
    """Keeps text back while it may still become one of the texts that are not wanted."""

    def __init__(self, unwanted: Iterable[str], on_text: OnText) -> None:
        self._unwanted = tuple(unwanted)
        self._on_text = on_text
        self._kept = ""
        self._open = True

    def take(self, piece: str) -> None:
        self._kept += piece
        if self._open and any(text.startswith(self._kept) for text in self._unwanted):
            return
        self._open = False
        self.let_go()

    def let_go(self) -> None:
        if self._kept:
            self._on_text(self._kept)
        self._kept = ""


def load_adapters(backbone: Backbone, folders: Mapping[Part, Path]) -> Backbone:
    """The backbone under saved adapters, each named like its part; the lock stays the same.

    Raises:
        ModelError: an adapter is missing or broken.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    from esckit.language_models import experts  # noqa: F401 - PEFT knows the tuner once it is imported

    (first, folder), *others = folders.items()
    try:
        model = PeftModel.from_pretrained(backbone.model, folder, adapter_name=first)
        for part, other in others:
            model.load_adapter(other, adapter_name=part)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"an adapter of {folder.parent} is missing or broken: make the supporter again.") from error
    return Backbone(quicken(model).eval(), backbone.tokenizer, backbone.source, backbone.lock)
