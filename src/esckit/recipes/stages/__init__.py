"""The kinds of stages, a file each. A new kind is a class (`recipes.stage.Stage`) and a line in this list."""

from typing import Final

from esckit.recipes.stage import Stage
from esckit.recipes.stages.baseline import BaselineStage
from esckit.recipes.stages.calibrate import CalibrateStage
from esckit.recipes.stages.compare import CompareStage
from esckit.recipes.stages.derive import DeriveStage
from esckit.recipes.stages.evaluate import EvaluateStage
from esckit.recipes.stages.judge import JudgeStage
from esckit.recipes.stages.keep import KeepStage
from esckit.recipes.stages.match import MatchStage
from esckit.recipes.stages.mine import MineStage
from esckit.recipes.stages.planner import PlannerStage
from esckit.recipes.stages.predict import PredictStage
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.pretrain import PretrainStage
from esckit.recipes.stages.refine import RefineStage
from esckit.recipes.stages.rejudge import RejudgeStage
from esckit.recipes.stages.replies import RepliesStage
from esckit.recipes.stages.report import ReportStage
from esckit.recipes.stages.search import SearchStage
from esckit.recipes.stages.sft import SftStage
from esckit.recipes.stages.supporter import SupporterStage

__all__ = ["KINDS"]

KINDS: Final[tuple[type[Stage], ...]] = (
    PretrainStage,
    DeriveStage,
    SftStage,
    MineStage,
    SearchStage,
    RefineStage,
    PreferenceStage,
    KeepStage,
    PlannerStage,
    MatchStage,
    RepliesStage,
    CalibrateStage,
    SupporterStage,
    PredictStage,
    BaselineStage,
    EvaluateStage,
    JudgeStage,
    RejudgeStage,
    CompareStage,
    ReportStage,
)
