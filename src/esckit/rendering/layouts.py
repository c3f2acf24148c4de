"""The layouts: what each part is told, how it sees the history, and where a strategy stands. Text only, no tokens.

``shared-prefix``, ours: one system text and one history for all parts, a reply is ``[Strategy] text``. The planner's
target is ``[Strategy]``, the generator's is `` text`` with its leading space, the coupled model's is both.

``paper``, after DecoupledESC (section 5.1 and its code): a system text a part. The planner sees the history as
speaker-marked lines in one user message and says the bare name of a strategy; the generator sees chat messages, its
system text names the strategy, and it says the text; the coupled model is as in ``shared-prefix``. The texts are ours.
"""

from typing import Literal

from esckit.conversation.turn_rule import Message
from esckit.prompts import load_prompt
from esckit.strategy import Taxonomy

Layout = Literal["shared-prefix", "paper"]
Part = Literal["planner", "generator", "coupled"]


def system_text(layout: Layout, part: Part, taxonomy: Taxonomy, strategy: str) -> str:
    """The system text of a part; the strategy matters where `names_in_system`."""
    strategies = ", ".join(taxonomy.labels)
    if layout == "shared-prefix":
        return load_prompt("support", "system", strategies=strategies)
    if names_in_system(layout, part):
        return load_prompt("decoupled_esc", part, strategy=strategy)
    return load_prompt("decoupled_esc", part, strategies=strategies)


def names_in_system(layout: Layout, part: Part) -> bool:
    """Whether the part reads the reply's strategy in its system text, and not at the reply's beginning."""
    return layout == "paper" and part == "generator"


def reads_lines(layout: Layout, part: Part) -> bool:
    """Whether the part sees the history as lines in one user message, and not as chat messages."""
    return layout == "paper" and part == "planner"


def line_of(message: Message) -> str:
    """A message as a line that says who speaks; a filler that is blank leaves the mark alone."""
    speaker = "seeker" if message.role == "user" else "supporter"
    return f"{speaker}: {message.content}".strip()


def strategy_text(layout: Layout, part: Part, strategy: str) -> str:
    """How a part says, or is given, a strategy in a reply."""
    return strategy if reads_lines(layout, part) else f"[{strategy}]"
