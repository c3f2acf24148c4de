"""The exception tree. Every error that a user can cause is one of these, and says what to do in one sentence.

EsckitError
├── CorpusError        a dialogue file cannot be read, or breaks a rule of the conversation tree
├── RecipeError        a recipe, or a --set, is wrong
├── RunError           a run folder disagrees with the recipe that is asked for
├── ModelError         a backbone, adapter or supporter folder cannot be used
│   └── TemplateError  a chat template cannot be used
├── PredictionsError   a predictions file cannot be measured
├── ChatError          a chat model cannot be asked
├── RoleError          a bank of roles cannot be used, or lacks what is asked of it
├── LedgerError        a ledger cannot be used
├── BudgetSpent        the calls or tokens that were allowed are used up
└── TalkError          a chat in the terminal cannot do what it is asked to
"""

__all__ = [
    "BudgetSpent",
    "ChatError",
    "CorpusError",
    "EsckitError",
    "LedgerError",
    "ModelError",
    "PredictionsError",
    "RecipeError",
    "RoleError",
    "RunError",
    "TalkError",
    "TemplateError",
]


class EsckitError(Exception):
    """Base of all errors that esckit raises on purpose. The command line prints it alone and exits with 2."""


class CorpusError(EsckitError):
    """A dialogue file cannot be read, or breaks a rule of the conversation tree."""


class RecipeError(EsckitError):
    """A recipe, or a ``--set``, is wrong."""


class RunError(EsckitError):
    """A run folder disagrees with the recipe that is asked for."""


class ModelError(EsckitError):
    """A backbone, adapter or supporter folder cannot be used."""


class TemplateError(ModelError):
    """A chat template cannot be used."""


class PredictionsError(EsckitError):
    """A predictions file cannot be measured."""


class ChatError(EsckitError):
    """A chat model cannot be asked: no key, a refused key, an unknown model, nobody there."""


class RoleError(EsckitError):
    """A bank of roles cannot be used, or lacks what is asked of it."""


class LedgerError(EsckitError):
    """A ledger cannot be used: another process has it, a newer format, no space."""


class BudgetSpent(EsckitError):
    """Calls or tokens that were allowed are used up; the same command continues with more."""


class TalkError(EsckitError):
    """A chat in the terminal cannot do what it is asked to."""
