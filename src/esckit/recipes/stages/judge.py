"""Stage ``judge``: a language model scores predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.chat_models.ledger import LEDGER
from esckit.chat_models.opening import PACE_KEYS
from esckit.conversation import read_conversations
from esckit.files import hash_file
from esckit.judging.judge_run import check_options, judge_files
from esckit.judging.plan import JudgingOptions, mining_judges
from esckit.judging.rubric import load_rubrics
from esckit.recipes.identity import prompt_texts
from esckit.recipes.stages.evaluate import ComparingStage
from esckit.recipes.trees import TREES
from esckit.roles.bank import read_bank

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["JudgeStage"]


class JudgeStage(ComparingStage, JudgingOptions):
    """Lets a language model score what predict and baseline stages predicted (`JudgingOptions`)."""

    stage: Literal["judge"]

    elsewhere: ClassVar[frozenset[str]] = frozenset({"prompts", "rubrics", "failed", "bank", *PACE_KEYS})

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        check_options(self)
        super().check_before(recipe, corpus)

    def depends_on(self, run: "RunFolder") -> Any:
        rubrics = [rubric.model_dump(mode="json") for rubric in load_rubrics(self.rubrics, caps=self.caps)]
        failed = hash_file(Path(self.failed)) if self.failed else None
        bank = read_bank(self.bank).digest if self.bank else None
        return [prompt_texts(self.read_prompts(), run.languages), rubrics, failed, bank, run.source(self.model)]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Judge; the judge is flagged where it judged the preferences of one of the run's mine stages.

        The ledger stands beside the stages' folders: a stage that is run afresh pays for nothing twice.
        """
        mined = [run.folder / other.name / TREES for other in run.recipe.stages if other.makes == "trees"]
        judges = {judge for path in mined if path.exists() for judge in mining_judges(read_conversations(path))}
        dialogues, rows = self.read_trees(run)
        found = judge_files(
            rows,
            dialogues,
            self,
            run.folder / self.name,
            ledger=run.folder / LEDGER,
            miners=sorted(judges),
            seed=run.seed(self),
        )
        known = found.known_groups.scores if found.known_groups else []
        states = [*(row.states for row in (*found.scores, *known)), *(pair.states for pair in found.pairs)]
        for state in ("unparsed", "refused", "failed"):
            run.count(self, f"verdicts {state}", sum(getattr(each, state) for each in states))
        run.count(self, "answers about problems unparsed", sum(row.states.unparsed for row in found.problems))
        facts = {key: getattr(found, key) for key in ("judge", "turns", "prompts", "also_mined")}
        return {**facts, "rubrics": [rubric.name for rubric in found.rubrics]}
