"""The overview and the page of one job."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import yaml

from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views import charts
from api.dashboard.views.arms import arm_figures, arm_section, length_figure
from api.dashboard.views.links import link_to
from api.dashboard.views.metrics import metric_views
from api.progress import Progress, job_progress, jobs_progress
from api.resolve_import import job_document
from api.version import VERSION
from service import figures, wording
from service.artifacts import ArtifactKind
from service.cluster import HostKind, HostState
from service.currency import Currency
from service.devices import DeviceTime
from service.importing.spec import TOKEN_WORDS
from service.job_metrics import JobMetrics
from service.jobs import Desired, Job, Phase, Resolved, is_unpriced
from service.measures import Measures
from service.models import ModelSpec
from service.planner.plan import HostView
from service.selection.spec import SelectionSpec
from service.store import Store
from service.store.reads import HeldTime, Part, UsageRow
from service.tasks import Task, TaskState
from service.wording import Tone
from service.work import TaskKind

JOBS_SHOWN = 30
JOBS_COMPARABLE = 50
TASKS_SHOWN = 60
EVENTS_SHOWN = 100
SELECTIONS_SEARCHED = 200
WINDOW = timedelta(hours=24)
"""What the overview's table and figure cover: reading it must not grow with the age of a service."""
POLL_S = 2.0
_UNITS = {
    Currency.flops: ("FLOPs", "exact"),
    Currency.flops_paper: ("FLOPs", "paper"),
}
_TONE_BY_KIND = {
    "task_lost": Tone.warning,
    "task_retried": Tone.warning,
    "host_lost": Tone.warning,
    "prompts_refused": Tone.warning,
    "job_failing": Tone.bad,
    "submitted": Tone.active,
    "desired": Tone.active,
    "checkpoint": Tone.good,
}
_ENDED = (TaskState.succeeded, TaskState.failed, TaskState.cancelled)


def shell_of(context: AppContext, active: str, now: datetime) -> pages.Shell:
    """The frame of a page. Whoever reaches the service on its loopback address operates it."""
    status = context.controller_status()
    return pages.Shell(
        active=active,
        now=now,
        version=f"isoflop {VERSION}",
        tick_age_s=None if status.last_tick_at is None else status.tick_age_s,
        identity="local operator",
        can_operate=True,
    )


def overview_page(context: AppContext, now: datetime) -> pages.OverviewPage:
    """Everything at a glance."""
    store = context.store
    hosts = store.reads.hosts()
    listed = [job for _, job in store.jobs.list(limit=JOBS_SHOWN)]
    progress_by_id = jobs_progress(store, listed, now)
    pools = _pools_by_model(store)
    jobs = tuple(_line(job, progress_by_id[job.id], hosts, pools) for job in listed)
    by_minute = charts.by_base(store, store.reads.usage(by_minute=True, since=now - WINDOW))
    spent, wasted_share = charts.spent_today(by_minute, now)
    worked = charts.time_today(by_minute, now)
    engines = [host for host in hosts if host.kind is HostKind.generator and host.ended_at is None]
    return pages.OverviewPage(
        shell=shell_of(context, "overview", now),
        headline=pages.overview_headline(jobs),
        engines_ready=sum(host.state is HostState.ready for host in engines),
        engines_total=len(engines),
        tokens_per_s=sum(line.tokens_per_s or 0.0 for line in jobs if line.phase == Phase.running),
        spent_today_flops=spent,
        device_time_today=wording.device_hours(worked.gpu_s, worked.cpu_s),
        wasted_today_share=wasted_share,
        jobs=jobs,
        period="the last 24 hours",
        use=use_lines(by_minute),
        held=tuple(_held_line(time) for time in store.reads.device_time(since=now - WINDOW)),
        figures=(charts.spend(by_minute, charts.colours_of(store), now),),
    )


def _held_line(time: HeldTime) -> pages.HeldLine:
    return pages.HeldLine(
        host=time.model or time.kind.value,
        unit=f"{time.device.upper()}-hours",
        num_hosts=time.num_hosts,
        held_s=time.held_s,
        parts=tuple(time.parts().items()),
    )


def use_lines(usage: Iterable[UsageRow]) -> tuple[pages.UseLine, ...]:
    """FLOPs by model and stage; stages that compute nothing are left out, and what is not known."""
    useful: Counter[tuple[str, str]] = Counter()
    wasted: Counter[tuple[str, str]] = Counter()
    for row in usage:
        if not math.isnan(row.flops):
            (useful if row.outcome == "useful" else wasted)[row.model, row.stage] += row.flops  # type: ignore[assignment]
    return tuple(
        pages.UseLine(model=model, stage=stage, useful_flops=useful[model, stage], wasted_flops=wasted[model, stage])
        for model, stage in sorted({*useful, *wasted})
        if useful[model, stage] + wasted[model, stage] > 0
    )


def _line(job: Job, progress: Progress, hosts: Sequence[HostView], pools_by_model: Mapping[str, str]) -> pages.JobLine:
    """A job with its progress."""
    unit, accounting = _UNITS.get(progress.currency, (progress.unit, ""))
    is_moving = job.phase in (Phase.running, Phase.pausing)
    return pages.JobLine(
        id=job.id,
        name=job.spec.name,
        phase=job.phase.value,
        models=job.spec.models,
        problems=job.spec.problems,
        budget=pages.BudgetView(
            unit=unit,
            accounting=accounting,
            limit=progress.limit,
            spent=progress.spent,
            reserved=progress.reserved,
            overshoot=progress.overshoot,
        ),
        samples=progress.samples,
        tokens_per_s=progress.tokens_per_s if is_moving or job.phase.is_terminal else None,
        eta_s=progress.eta_s if job.phase is Phase.running else None,
        created_at=job.created_at,
        attention=job.error or _waiting_for(job, hosts, pools_by_model),
    )


def _pools_by_model(store: Store) -> dict[str, str]:
    return {spec.name: spec.pool for spec in store.catalogue.models()}


def _waiting_for(job: Job, hosts: Sequence[HostView], pools_by_model: Mapping[str, str]) -> str | None:
    """Why a running job may not get on: the first of its models without an engine that is ready."""
    if job.phase is not Phase.running or job.spec.imported is not None:
        return None
    for model in job.spec.models:
        pool = pools_by_model.get(model, model)
        mine = [host for host in hosts if host.model == pool and host.ended_at is None]
        if any(host.state is HostState.ready for host in mine):
            continue
        words = sorted({host.state.value for host in mine})
        return f"engine of {model} is {', '.join(words)}" if words else f"waits for an engine of {model}"
    return None


def job_page(context: AppContext, lengths: charts.LengthCache, job_id: str, now: datetime) -> pages.JobPage:
    """One job in full.

    Raises:
        NotFound: no such job.
        CorruptFile: a committed file is unreadable.
    """
    store = context.store
    job, resolved = store.jobs.get(job_id), store.jobs.resolved(job_id)
    progress = job_progress(store, job, now)
    line = _line(job, progress, store.reads.hosts(), _pools_by_model(store))
    found = context.metrics.get(store, job_id)
    summary, measures = found.summary, Measures.of(job.spec.scorers)
    parts, tasks = charts.generate_parts(store, job_id), store.reads.tasks(job_id)
    colours = charts.colours_of(store)
    usage = store.reads.usage(job_id=job_id, by_arm=True)
    section = arm_section(job, resolved.models, found, parts, usage)
    num_to_score = progress.parts if job.spec.scorers else 0
    return pages.JobPage(
        shell=shell_of(context, "overview", now),
        job=line,
        headline=pages.job_headline(line),
        error=job.error,
        actions=_actions(job),
        num_problems=resolved.num_problems,
        took_s=None if job.ended_at is None else (job.ended_at - job.created_at).total_seconds(),
        usd=progress.usd,
        truncated_share=progress.truncated / progress.samples if progress.samples else None,
        flops=_flops_words(progress),
        device_time=time_words(progress),
        scored=scored_words(found),
        arms=section.lines,
        arm_columns=section.columns,
        arms_note=section.note,
        metrics=metric_views(summary, measures, is_uniform=job.spec.allocation.is_even),
        figures=(
            *(() if job.spec.imported else (_burn_down(job, parts, progress),)),
            *_quality(job, resolved, found, colours),
            length_figure(job, parts, lengths, colours),
        ),
        waste=_waste(usage),
        tasks=_tasks(tasks, parts, store.reads.parts(job_id, TaskKind.score), now),
        num_tasks=len(tasks),
        events=event_lines(store, job_id),
        document=document_text(job, resolved),
        versions=versions_of(resolved),
        source=_source(job, parts),
        comparable=_comparable(store, job, resolved),
        selections=_selections(store, job_id),
        poll_s=None if job.phase.is_terminal and progress.parts_scored == num_to_score else POLL_S,
    )


def _quality(job: Job, resolved: Resolved, found: JobMetrics, colours: Mapping[str, str]) -> tuple[figures.Figure, ...]:
    """Curves against FLOPs, of arms whose FLOPs are known."""
    if found.arms:
        unpriced = {model.name for model in resolved.models if is_unpriced([model])}
        arms = [arm for arm in found.arms if arm.model not in unpriced]
        return arm_figures(job, arms, colours) if arms else ()
    if is_unpriced(resolved.models):
        return ()
    return charts.quality(job, found.summary, colours, has_steps=Measures.of(job.spec.scorers).has_steps)


def _burn_down(job: Job, parts: Sequence[Part], progress: Progress) -> figures.Figure:
    unit, _ = _UNITS.get(progress.currency, (progress.unit, ""))
    return charts.burn_down(
        job, parts, currency=progress.currency, reserved=progress.reserved, limit=progress.limit, unit=unit
    )


def _source(job: Job, parts: Sequence[Part]) -> tuple[tuple[str, str], ...]:
    """Where an import's samples come from, and what they once cost, label and text."""
    spec = job.spec.imported
    if spec is None:
        return ()
    columns = ", ".join(f"{column.ours} from {column.theirs}" for column in spec.columns)
    flops = wording.flops(sum(part.usage.flops for part in parts)) if spec.is_known_model else wording.UNKNOWN
    return (
        *((file.name, f"sha256 {file.sha256}, {file.num_bytes:,} bytes") for file in spec.files),
        ("columns", columns),
        ("tokens", TOKEN_WORDS[spec.tokens]),
        ("FLOPs, once", f"{flops}, exact accounting of these tokens with nothing cached"),
    )


def _flops_words(progress: Progress) -> tuple[str, str]:
    wasted = sum(progress.wasted_flops.values())
    total = progress.useful_flops + wasted
    note = f", {wording.percent(wasted / total)} wasted" if total > 0 else ""
    return wording.flops(total), f"exact accounting{note}"


def time_words(progress: Progress) -> tuple[str, str]:
    """Device time of a job, and how it divides into stages: `0.0167 CPU-hours`, `generate 0.0150, score 0.0017`."""
    total, stages = progress.total_time, progress.device_time.items()
    has_both = total.gpu_s > 0 and total.cpu_s > 0

    def words(time: DeviceTime) -> str:
        return wording.device_hours(time.gpu_s, time.cpu_s) if has_both else wording.hours(time.gpu_s + time.cpu_s)

    longest_first = sorted(stages, key=lambda item: -(item[1].gpu_s + item[1].cpu_s))
    parts = [f"{stage} {words(time)}" for stage, time in longest_first]
    return wording.device_hours(total.gpu_s, total.cpu_s), ", ".join(parts) or "of busy devices"


def scored_words(found: JobMetrics) -> str:
    """How far scoring is: `7,120 of 7,480 scored`."""
    if not found.scorers:
        return "no scorers: nothing is scored"
    return f"{found.num_scored:,} of {found.num_samples:,} scored"


def _comparable(store: Store, job: Job, resolved: Resolved) -> tuple[tuple[str, str], ...]:
    """Other jobs over the same problems: the same set, cut to the same number."""
    found: list[tuple[str, str]] = []
    for _, other in store.jobs.list(limit=JOBS_COMPARABLE):
        if other.id == job.id or other.spec.problems != job.spec.problems:
            continue
        theirs = store.jobs.resolved(other.id)
        if (theirs.problems_fingerprint, theirs.num_problems) == (resolved.problems_fingerprint, resolved.num_problems):
            found.append((other.id, other.spec.name))
    return tuple(found)


def _selections(store: Store, job_id: str) -> tuple[pages.Link, ...]:
    """Training sets made of a job, newest first, among the latest selections."""
    found = store.artifacts.list(ArtifactKind.selection, limit=SELECTIONS_SEARCHED)
    return tuple(
        link_to(artifact.id, artifact.spec.name, note=artifact.phase.value)
        for _, artifact in found
        if isinstance(artifact.spec, SelectionSpec) and any(s.job == job_id for s in artifact.spec.sources)
    )


def document_text(job: Job, resolved: Resolved) -> str:
    """The resolved job document as a job file."""
    return yaml.safe_dump(job_document(job.spec, resolved.num_problems), sort_keys=False, allow_unicode=True)


def versions_of(resolved: Resolved) -> tuple[tuple[str, str], ...]:
    """What made the data: this code and the revisions of the models."""
    return (("isoflop", VERSION), *((model.name, _revision(model)) for model in resolved.models))


def _revision(model: ModelSpec) -> str:
    if model.adapter is None:
        return model.revision[:19]
    return f"{model.revision[:19]} (adapter {model.adapter.revision[:19]} on {model.adapter.base})"


def _actions(job: Job) -> tuple[str, ...]:
    if job.phase.is_terminal or job.desired is Desired.cancel:
        return ()
    return ("resume", "cancel") if job.desired is Desired.pause else ("pause", "cancel")


def _waste(usage: Sequence[UsageRow]) -> tuple[pages.WasteLine, ...]:
    total = sum(row.flops for row in usage)
    flops: Counter[str] = Counter()
    samples: Counter[str] = Counter()
    for row in usage:
        if row.outcome != "useful":
            flops[row.outcome] += row.flops  # type: ignore[assignment]
            samples[row.outcome] += row.samples
    return tuple(
        pages.WasteLine(reason=reason, flops=flops[reason], share=flops[reason] / total, samples=samples[reason])
        for reason in sorted(flops)
        if flops[reason] != 0
    )


def _tasks(
    tasks: Sequence[Task], drawn: Sequence[Part], scored: Sequence[Part], now: datetime
) -> tuple[pages.TaskLine, ...]:
    rows: Counter[str] = Counter()
    rows_by_shard = {(part.attempt_id, part.part): part.rows for part in drawn}
    for part in drawn:
        rows[part.task_id] += part.rows
    for part in scored:  # its own rows are one for each sample and scorer
        if part.source_attempt is not None and part.source_part is not None:
            rows[part.task_id] += rows_by_shard.get((part.source_attempt, part.source_part), 0)
    ordered = sorted(
        tasks, key=lambda task: (task.state in _ENDED, -task.order if task.state in _ENDED else task.order)
    )
    return tuple(_task_line(task, rows[task.id], now) for task in ordered[:TASKS_SHOWN])


def _task_line(task: Task, num_rows: int, now: datetime) -> pages.TaskLine:
    is_running = task.state is TaskState.running and task.submitted_at is not None
    return pages.TaskLine(
        id=task.id,
        kind=task.kind.value,
        model=task.arm or task.model or "",
        state=task.state.value,
        attempt=task.attempt,
        samples_done=num_rows,
        samples_planned=task.num_planned or 0,
        host=task.host or "",
        running_s=(now - task.submitted_at).total_seconds() if is_running and task.submitted_at else None,
        error=task.error,
    )


def event_lines(store: Store, job_id: str) -> tuple[pages.EventLine, ...]:
    """The latest events of a job, selection or finetune, newest first."""
    return tuple(
        pages.EventLine(
            seq=event.id,
            at=event.at,
            tone=_TONE_BY_KIND.get(event.kind, Tone.quiet).value,
            text=f"{event.kind.replace('_', ' ')}: {event.message}",
        )
        for event in store.reads.newest_events(job_id=job_id, limit=EVENTS_SHOWN)
    )
