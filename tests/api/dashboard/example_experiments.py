"""Pages of comparisons filled with made-up numbers: one that runs, one that has just been submitted."""

from datetime import timedelta

from api.dashboard import pages
from service.experiments.report import Progress
from service.experiments.report_text import report_text
from tests.api.dashboard.example_figures import NOW, shell
from tests.service.experiments.report_example import empty_report, example_figures, example_report

COMPARISON_ID = "compare-1-0a1b2c"


def line(*, phase: str = "running", nodes_done: int = 37) -> pages.ExperimentLine:
    return pages.ExperimentLine(
        id=COMPARISON_ID,
        name="smaller against larger model",
        phase=phase,
        error=None,
        arms=("larger", "smaller"),
        students=("distillation", "self-improvement"),
        budgets=(1, 5),
        nodes=60,
        nodes_done=nodes_done,
        flops=2.64e12,
        created_at=NOW - timedelta(minutes=12),
    )


def experiments_page(*lines: pages.ExperimentLine) -> pages.ExperimentsPage:
    """The list."""
    return pages.ExperimentsPage(
        shell=shell("comparisons"),
        headline=pages.experiments_headline(lines),
        comparisons=lines,
        limit=50,
        poll_s=2.0 if lines else None,
    )


def experiment_page(*, is_new: bool = False) -> pages.ExperimentPage:
    """One comparison, on its way or not yet begun."""
    progress = Progress(phase="running", nodes=60, nodes_done=37)
    found = empty_report() if is_new else example_report(progress=progress)
    return pages.ExperimentPage(
        shell=shell("comparisons"),
        comparison=line(phase="queued", nodes_done=0) if is_new else line(),
        error=None,
        actions=("pause", "cancel"),
        took_s=None,
        stages=(
            _stage("draw samples", planned=4, done=0 if is_new else 4),
            _stage("train", planned=12, done=0 if is_new else 7, active=0 if is_new else 2),
            _stage("validate checkpoints", planned=44, done=0 if is_new else 26, lost=0 if is_new else 1),
        ),
        nodes=() if is_new else _nodes(),
        text=report_text(found),
        figures=example_figures(found),
        downloads=(
            ("Offline report", f"/v1/comparisons/{COMPARISON_ID}/report.html"),
            ("JSON", f"/v1/comparisons/{COMPARISON_ID}/report.json"),
        ),
        poll_s=2.0,
    )


def _stage(label: str, *, planned: int, done: int, active: int = 0, lost: int = 0) -> pages.StageLine:
    return pages.StageLine(
        label=label,
        explanation="What it is for.",
        planned=planned,
        done=done,
        active=active,
        lost=lost,
        flops=1.3e11 * done,
    )


def _nodes() -> tuple[pages.NodeLine, ...]:
    def node(key: str, any_id: str, path: str, phase: str, **changes: object) -> pages.NodeLine:
        values: dict[str, object] = {"is_shared": False, "samples": 0, "accuracy": None}
        link = pages.Link(name=any_id, path=f"{path}{any_id}", note="")
        return pages.NodeLine(key=key, link=link, phase=phase, **(values | changes))  # type: ignore[arg-type]

    return (
        node("train/distillation/larger@1/seed-2", "finetune-9-77aa01", "/training/finetunes/", "running"),
        node("draw/larger@1", "job-2-4e83ff", "/jobs/", "succeeded", samples=400, accuracy=0.548, is_shared=True),
        node("select/larger@1", "select-7-98214f", "/training/selections/", "succeeded"),
    )
