"""Stage ``report``: the run on one page."""

from typing import TYPE_CHECKING, Any, Literal

from esckit.recipes.stage import Stage
from esckit.report import write_report

if TYPE_CHECKING:
    from esckit.recipes.folder import RunFolder


class ReportStage(Stage):
    """Writes report.html from the run's folder."""

    stage: Literal["report"]

    def depends_on(self, run: "RunFolder") -> Any:
        return [run.identity(other) for other in run.recipe.stages if not isinstance(other, ReportStage)]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        write_report(run.folder)
        return {}
