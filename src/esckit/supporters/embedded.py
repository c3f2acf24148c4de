"""A supporter without a language model from a corpus, and the embedded one, which is made on first use and kept."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from esckit import __version__
from esckit.cache import kept_in_cache
from esckit.conversation import Conversation, conversation_to_json
from esckit.corpora.starter import LICENCE, read_starter
from esckit.errors import CorpusError
from esckit.planning.planner_options import PlannerOptions
from esckit.safety import words_hash

RANKER: Final = "smollm2"
"""The language model that chooses the embedded supporter's replies in a chat, where it can be had."""


def make_supporter(
    conversations: Sequence[Conversation],
    name: str,
    out: Path | str,
    *,
    encoder: str = "embedded",
    options: PlannerOptions | None = None,
    seed: int = 0,
    replies: bool = True,
) -> dict[str, Any]:
    """Train an encoder planner beside ``out``, store the corpus's replies where wanted, and write the supporter.

    The same call continues one that was stopped.

    Args:
        conversations: dialogues with strategies, of the corpus ``name``.
        out: the supporter's folder.
        encoder: `planning.encoder.EMBEDDED`, a folder or a Hub id.
        options: of the planner, by default esckit's.
        replies: the supporter answers with the corpus's replies; else it only plans.

    Returns:
        How many dialogues and turns it learnt from, and how many replies were left out.

    Raises:
        CorpusError: nothing can be learnt from the corpus.
        ModelError: the encoder cannot be had.
    """
    out = Path(out)
    from esckit.planning.encoder import load_encoder
    from esckit.planning.fitting import train_planner
    from esckit.rendering import supporter_turns
    from esckit.strategy import TAXONOMIES
    from esckit.supporters.retrieval import build_store
    from esckit.supporters.supporter_folder import SupporterCard, save_supporter

    if not any(supporter_turns(conversation) for conversation in conversations):
        raise CorpusError(f"{name} has no supporter turn with a strategy: a planner cannot be trained on it.")
    loaded, taxonomy = load_encoder(encoder), TAXONOMIES[str(conversations[0].taxonomy)]
    work = out.with_name(f".{out.name}.training")
    facts = train_planner(
        conversations, loaded, taxonomy, options or PlannerOptions(), work / "planner", seed=seed, title="planner"
    )
    facts = {key: facts[key] for key in ("dialogues", "turns")}
    parts = {"planner": work / "planner"}
    if replies:
        left_out: Counter[str] = Counter()
        licence = str(conversations[0].provenance.get("licence", "as the corpus's"))
        build_store(conversations, loaded, name, licence, left_out).save(work / "generator")
        parts["generator"] = work / "generator"
        facts = {**facts, "replies_left_out": sum(left_out.values())}
    kind: Any = "retrieval" if replies else "none"
    card = SupporterCard("decoupled", "gold", taxonomy=taxonomy.name, planner="encoder", generator=kind)
    save_supporter(out, card, parts)
    shutil.rmtree(work)
    return facts


def embedded_supporter(on_making: Callable[[], None] = lambda: None, *, options: PlannerOptions | None = None) -> Path:
    """The folder of the supporter that needs nothing but esckit; it is made where it is not there yet.

    It learns from the dialogues of the starter corpus that end better for the seeker, and says their replies again:
    the corpus's other dialogues hold bad replies on purpose. So it must not be measured on that corpus.

    ``on_making`` is called where it has to be made, before that begins; ``options`` are of its planner.

    Raises:
        ModelError: the encoder cannot be had, or the cache cannot be written.
    """
    options = options or PlannerOptions()
    corpus = read_starter()
    everything = (*corpus.train, *corpus.valid, *corpus.test)
    dialogues = [conversation for conversation in everything if conversation.labels["outcome"] == "better"]
    made_of = [[conversation_to_json(dialogue) for dialogue in dialogues], options.model_dump(), LICENCE, words_hash()]
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    name = f"supporter-{__version__}-{key}"

    def make(folder: Path) -> None:
        from esckit.planning.encoder import EMBEDDED

        on_making()
        corpus_name = "starter (invented dialogues)"
        make_supporter(dialogues, corpus_name, folder, encoder=EMBEDDED, options=options, seed=0, replies=True)

    return kept_in_cache(name, "supporter.json", make, "the embedded supporter")
