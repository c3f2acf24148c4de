"""The third step: the supporter speaks in the role's voice."""

from random import Random

from esckit.mining.derivation.exchanges import Talk
from esckit.mining.derivation.experiences import is_own
from esckit.mining.derivation.rules import rules_in
from esckit.roles.bank import Role

__all__ = ["style_by_rules"]


def style_by_rules(talk: Talk, role: Role, language: str, random: Random) -> Talk:
    """Open the supporter's turns with the role's phrases for their strategies, none twice; the words stay.

    Where people told of their own lives and still do, nothing is put before it: it is no story of the role.
    """
    blank, used, styled = rules_in(language).blank, set[str](), []
    for each in talk:
        phrases = role.phrases.get(language, {}).get(each.strategy or "", ())
        left = [phrase for phrase in phrases if phrase not in used]
        if left and not is_own(each):
            used.add(opener := random.choice(left))
            each = each._replace(supporter=f"{opener}{blank}{each.supporter}")
        styled.append(each)
    return tuple(styled)
