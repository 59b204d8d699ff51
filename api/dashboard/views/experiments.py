"""Comparisons that run by one document: their list, and one with its report so far."""

from collections.abc import Mapping
from datetime import datetime

from api.comparison_report import report_of
from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views.jobs import POLL_S, shell_of
from api.dashboard.views.links import link_to
from api.dashboard.views.training import actions_of
from service.artifacts import Artifact, ArtifactKind
from service.experiments.graph import count_nodes, planned_nodes
from service.experiments.nodes import Child
from service.experiments.report import Report, Stage
from service.experiments.report_files import FORMS
from service.experiments.report_tables import STAGE_WORDS
from service.experiments.report_text import report_text
from service.experiments.spec import ComparisonSpec
from service.store import Store

LISTED = 50
_FORM_LABELS = {"html": "Offline report", "md": "Markdown", "json": "JSON", "zip": "All with PNG"}
_EXPLANATIONS = {
    Stage.draw: "Each arm draws its samples, the reference first: the others get what it usefully spent.",
    Stage.ask: "Samples become questions to the judge.",
    Stage.judge: "The judge says of each whether it holds; no arm's budget counts that.",
    Stage.select: "Samples become a training set.",
    Stage.train: "One run for each student, arm, budget, seed and learning rate.",
    Stage.validate: "Every checkpoint on the validation problems; the best one is tested.",
    Stage.greedy: "One greedy completion a problem, of students and of their bases.",
    Stage.majority: "Several samples a problem that vote.",
    Stage.transfer: "One greedy completion of each transfer problem.",
}


def experiments_page(context: AppContext, now: datetime) -> pages.ExperimentsPage:
    """The latest comparisons."""
    store = context.store
    artifacts = [artifact for _, artifact in store.artifacts.list(ArtifactKind.comparison, limit=LISTED)]
    lines = tuple(_line(store, artifact, store.reads.children(artifact.id)) for artifact in artifacts)
    return pages.ExperimentsPage(
        shell=shell_of(context, "comparisons", now),
        headline=pages.experiments_headline(lines),
        comparisons=lines,
        limit=LISTED,
        poll_s=POLL_S if any(not artifact.phase.is_terminal for artifact in artifacts) else None,
    )


def experiment_page(context: AppContext, comparison_id: str, now: datetime) -> pages.ExperimentPage:
    """One comparison in full.

    Raises:
        NotFound: no such comparison.
        CorruptFile: a committed file is unreadable.
    """
    store = context.store
    artifact = store.artifacts.get(comparison_id, ArtifactKind.comparison)
    assert isinstance(artifact.spec, ComparisonSpec)
    children = store.reads.children(comparison_id)
    report, figures = report_of(context, artifact, now)
    path = f"/v1/comparisons/{comparison_id}/report"
    return pages.ExperimentPage(
        shell=shell_of(context, "comparisons", now),
        comparison=_line(store, artifact, children),
        error=artifact.error,
        actions=actions_of(artifact),
        took_s=None if artifact.ended_at is None else (artifact.ended_at - artifact.created_at).total_seconds(),
        stages=_stages(artifact.spec, report, children),
        nodes=_nodes(children),
        text=report_text(report),
        figures=figures,
        downloads=tuple((_FORM_LABELS[form], f"{path}.{form}") for form in FORMS),
        poll_s=None if artifact.phase.is_terminal else POLL_S,
    )


def _line(store: Store, artifact: Artifact, children: Mapping[str, Child]) -> pages.ExperimentLine:
    spec = artifact.spec
    assert isinstance(spec, ComparisonSpec)
    return pages.ExperimentLine(
        id=artifact.id,
        name=spec.name,
        phase=artifact.phase.value,
        error=artifact.error,
        arms=tuple(arm.name for arm in spec.arms),
        students=tuple(student.name for student in spec.students),
        budgets=spec.budgets,
        nodes=count_nodes(spec),
        nodes_done=sum(child.is_done for child in children.values()),
        flops=sum(store.reads.flops_by_stage([child.id for child in children.values()]).values()),
        created_at=artifact.created_at,
    )


def _stages(spec: ComparisonSpec, report: Report, children: Mapping[str, Child]) -> tuple[pages.StageLine, ...]:
    lines: list[pages.StageLine] = []
    for name, planned in planned_nodes(spec).items():
        stage = Stage(name)
        mine = [child for key, child in children.items() if key.partition("/")[0] == stage]
        lines.append(
            pages.StageLine(
                label=STAGE_WORDS[stage],
                explanation=_EXPLANATIONS[stage],
                planned=planned,
                done=sum(child.is_done for child in mine),
                active=sum(not child.phase.is_terminal for child in mine),
                lost=sum(child.phase.is_terminal and not child.is_done for child in mine),
                flops=sum(cost.flops for cost in report.costs if cost.stage is stage),
            )
        )
    return tuple(lines)


def _nodes(children: Mapping[str, Child]) -> tuple[pages.NodeLine, ...]:
    """Unfinished nodes first, then by stage and name."""
    order = {stage.value: index for index, stage in enumerate(Stage)}
    ranked = sorted(
        children.items(), key=lambda item: (item[1].phase.is_terminal, order[item[0].partition("/")[0]], item[0])
    )
    return tuple(
        pages.NodeLine(
            key=key,
            link=link_to(child.id),
            phase=child.phase.value,
            is_shared=child.is_shared,
            samples=child.num_samples,
            accuracy=child.accuracy if child.num_samples and child.is_done else None,
        )
        for key, child in ranked
    )
