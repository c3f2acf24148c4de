"""What a generator is told of a role and of an experience: texts from a bank, in the dialogue's language.

The role stands in the system text. The experience belongs to one reply: in layout ``shared-prefix`` it follows the
history, inside the last user message, so that the dialogue's other replies share what stands before; in layout
``paper`` it stands in the system text (Empath, section 5.2).
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from esckit.conversation.turn_rule import Message
from esckit.prompts import load_prompt

if TYPE_CHECKING:
    from esckit.roles import RoleBank

__all__ = ["NOTHING", "Told", "told_of"]


class Told(NamedTuple):
    """The texts, empty where there is nothing to tell, and the dialogue's language."""

    role: str = ""
    experience: str = ""
    language: str = "en"

    def after(self, message: Message) -> Message:
        """The last user message with the experience behind it; a filler has no words that it could follow."""
        if message.filler:
            return Message(message.role, self.experience)
        return Message(message.role, f"{message.content}\n\n{self.experience}")


NOTHING: Final = Told()


def told_of(bank: "RoleBank", role: str, experience: str | None, language: str) -> Told:
    """What the bank says of a role, and of one of its experiences.

    Raises:
        RoleError: the bank lacks the role, the experience, or texts in the language.
    """
    who = bank.role(role)
    bank.refuse_language(language)
    title = who.titles[language]
    about = {"title": title, "profile": who.profile[language], "background": who.background[language]}
    card = load_prompt("empath", "role", language, **about, style=who.style[language])
    if experience is None:
        return Told(card, language=language)
    text = who.experience(experience).text(language)
    return Told(card, load_prompt("empath", "experience", language, title=title, experience=text), language)
