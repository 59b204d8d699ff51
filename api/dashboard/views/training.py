"""The list of training sets and students: phases, rows, steps and losses, without reading more than tails of logs."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from api.artifact_views import last_log_entry
from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views import charts
from api.dashboard.views.jobs import POLL_S, shell_of
from api.dashboard.views.links import link_to
from service import figures
from service.artifacts import Artifact, ArtifactKind
from service.errors import CorruptFile
from service.finetunes import FinetuneSpec
from service.jobs import Desired, Phase
from service.selection.lineage import read_lineage
from service.selection.spec import SelectionSpec
from service.store import Store
from service.work import TaskKind

LISTED = 50
_ACTIVE = (Phase.running, Phase.pausing, Phase.cancelling)
NAMES_READ = 1000
"""Latest jobs and artifacts whose names are known to pages; older ones are called by their ids."""


def training_page(context: AppContext, now: datetime) -> pages.TrainingPage:
    """The latest training sets and students."""
    store = context.store
    names = names_of(store)
    selections = [artifact for _, artifact in store.artifacts.list(ArtifactKind.selection, limit=LISTED)]
    finetunes = [artifact for _, artifact in store.artifacts.list(ArtifactKind.finetune, limit=LISTED)]
    selection_lines = tuple(selection_line(store, artifact, names) for artifact in selections)
    finetune_lines_ = finetune_lines(context, finetunes, names)
    is_active = any(not artifact.phase.is_terminal for artifact in (*selections, *finetunes))
    return pages.TrainingPage(
        shell=shell_of(context, "training", now),
        headline=pages.training_headline(selection_lines, finetune_lines_, limit=LISTED),
        selections=_active_first(selection_lines),
        finetunes=_active_first(finetune_lines_),
        limit=LISTED,
        poll_s=POLL_S if is_active else None,
    )


_Line = TypeVar("_Line", pages.SelectionLine, pages.FinetuneLine)


def _active_first(lines: Sequence[_Line]) -> tuple[_Line, ...]:
    """What is being worked on before what waits or has ended, or a long queue would hide it."""
    return tuple(sorted(lines, key=lambda line: line.phase not in _ACTIVE))


def names_of(store: Store) -> dict[str, str]:
    """Names by id of the latest jobs, selections and finetunes."""
    names = {job.id: job.spec.name for _, job in store.jobs.list(limit=NAMES_READ)}
    for kind in (ArtifactKind.selection, ArtifactKind.finetune):
        names |= {artifact.id: artifact.spec.name for _, artifact in store.artifacts.list(kind, limit=NAMES_READ)}
    return names


def selection_line(store: Store, artifact: Artifact, names: dict[str, str]) -> pages.SelectionLine:
    """A selection in a list; how many samples it considered stands in its file."""
    assert isinstance(artifact.spec, SelectionSpec)
    parts = store.reads.parts(artifact.id, TaskKind.select)
    considered = None
    if parts:
        try:
            considered = read_lineage(parts[-1].path).filters[0].rows
        except CorruptFile:
            considered = None  # the page of the selection says what is wrong with its file
    return pages.SelectionLine(
        id=artifact.id,
        name=artifact.spec.name,
        phase=artifact.phase.value,
        error=artifact.error,
        sources=tuple(link_to(job_id, names.get(job_id)) for job_id in artifact.spec.jobs),
        rows=parts[-1].rows if parts else None,
        considered=considered,
        created_at=artifact.created_at,
    )


def finetune_lines(
    context: AppContext, artifacts: Sequence[Artifact], names: dict[str, str]
) -> tuple[pages.FinetuneLine, ...]:
    """Finetunes in a list: two queries for all of them, and the end of each one's log."""
    store = context.store
    ids = [artifact.id for artifact in artifacts]
    num_parts = store.reads.count_parts_of(ids)
    flops = dict.fromkeys(ids, 0.0)
    for row in store.reads.usage(job_ids=ids):
        flops[row.job_id] += row.flops
    colours = charts.colours_of(store)
    lines: list[pages.FinetuneLine] = []
    for artifact in artifacts:
        spec = artifact.spec
        assert isinstance(spec, FinetuneSpec)
        logged = last_log_entry(context.settings, artifact)
        is_done = artifact.phase is Phase.succeeded
        lines.append(
            pages.FinetuneLine(
                id=artifact.id,
                name=spec.name,
                phase=artifact.phase.value,
                error=artifact.error,
                base=spec.base,
                colour=colours.get(spec.base, figures.NEUTRAL),
                dataset=link_to(spec.dataset, names.get(spec.dataset)),
                steps=spec.training.steps,
                steps_done=spec.training.steps if is_done else int(logged["step"]) if logged else 0,
                loss=logged["loss"] if logged else None,
                flops=flops[artifact.id],
                num_checkpoints=num_parts.get((artifact.id, TaskKind.finetune), 0),
                created_at=artifact.created_at,
            )
        )
    return tuple(lines)


def actions_of(artifact: Artifact) -> tuple[str, ...]:
    """Verbs that apply now: a selection takes seconds and can only be cancelled."""
    if artifact.phase.is_terminal or artifact.desired is Desired.cancel:
        return ()
    if artifact.kind is ArtifactKind.selection:
        return ("cancel",)
    return ("resume", "cancel") if artifact.desired is Desired.pause else ("pause", "cancel")
