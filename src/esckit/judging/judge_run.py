"""A whole judging: from predictions files to a folder of verdicts and figures, through a ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import chat_model_name
from esckit.chat_models.pacing import Pace
from esckit.conversation import Conversation
from esckit.corpora import read_corpus
from esckit.corpora.esconv import count_surveys
from esckit.errors import EsckitError
from esckit.judging.judging_files import write_judging
from esckit.judging.plan import STEP, JudgingOptions, check_language, figures, make_plan
from esckit.judging.rubric import load_rubrics
from esckit.judging.sampling import sample_turns
from esckit.measures import Prediction
from esckit.measures.intervals import Draws
from esckit.measures.judging_results import Judging
from esckit.roles.bank import RoleBank, read_bank
from esckit.supporters.open_model import check_model, open_model

__all__ = ["check_options", "judge_files"]


def judge_files(
    files: Mapping[str, Sequence[Prediction]],
    conversations: Sequence[Conversation],
    options: JudgingOptions,
    out: Path,
    *,
    ledger: Path,
    miners: Sequence[str] = (),
    pace: Pace | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Judging:
    """Judge systems and write what was found (`judging_files.write_judging`).

    A judging that was stopped continues by the same call: answers are in the ledger, and only failed items are asked
    again.

    Args:
        files: system to predictions.
        conversations: the dialogues predicted.
        options: who judges what.
        out: the folder to write.
        ledger: the ledger's file.
        miners: judges of the preferences that the systems were trained on (`plan.mining_judges`).
        pace: patience and budgets; None is as the options say.
        seed: of the sample, known groups, bootstrap and permutations.
        tell: is given a line before asking (what is to be asked) and one after it (what it took).

    Returns:
        The figures, as they stand in ``judging.json``.

    Raises:
        EsckitError: a rubric, the predictions, the model or the ledger cannot be used, or the budget is spent.
    """
    check_options(options)
    sampled = sample_turns(files, conversations, options.turns, seed)
    failed = read_corpus(Path(options.failed)) if options.failed else None
    surveys = count_surveys(failed or [])
    if surveys:
        tell(f"note: {surveys}")
    rubrics = load_rubrics(options.rubrics, caps=options.caps)
    card = cards_of(read_bank(options.bank)) if options.bank else None
    plan = make_plan(sampled, rubrics, options, failed=failed, card=card, seed=seed)
    model = open_model(options)
    with Ledger(ledger) as opened:
        opened.forget_failed()
        asker = Asker(model, opened, STEP, pace or options.pace)
        tell(f"{asker.estimate(plan.requests())}{f'; prompts: {plan.prompts.label}' if plan.prompts.label else ''}")
        judged = plan.ask(asker)
        tell(f"asked: {asker.usage}")
    judge = chat_model_name(options.model)
    found = figures(judged, plan, sampled, judge=judge, identity=model.identity, miners=miners, draws=Draws(seed))
    if surveys:
        found = replace(found, warnings=[*found.warnings, f"Known group failed: {surveys}."])
    write_judging(out, judged, plan, found)
    return found


def check_options(options: JudgingOptions) -> None:
    """Refuse, before anything is asked, what would fail later: model, key, URL, prompts, rubrics, options.

    Raises:
        EsckitError: one sentence says what is wrong.
    """
    if options.failed is not None and not options.known_groups:
        raise EsckitError("failed replies are a known group: ask for known groups with them.")
    rubrics = load_rubrics(options.rubrics, caps=options.caps)
    check_language(rubrics, options.language)
    if options.bank is not None:
        if not any(rubric.needs for rubric in rubrics):
            raise EsckitError(f"no rubric of {options.rubrics} needs a role: leave bank out, or take rubrics empath.")
        read_bank(options.bank)
    check_model(options)


def cards_of(bank: RoleBank) -> Callable[[str, str], str]:
    """Return what gives a role's card in a language: who the role is, its story and how it speaks.

    It raises RoleError for a role that the bank lacks, or lacks in the language.
    """

    def card(name: str, language: str) -> str:
        bank.refuse_language(language)
        role = bank.role(name)
        parts = (role.titles, role.profile, role.background, role.style)
        return "\n".join(part[language] for part in parts)

    return card
