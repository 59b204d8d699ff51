"""A comparison of jobs on the same problems, from the store: what each spent by the ledger, what it gave by its files.

The first job is the reference. Which jobs are worth comparing is the caller's choice; how well they match is measured
and said. Needs no cluster: every number comes from committed files and rollups.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service import figures, wording
from service.comparison import coverage_curves, metric_lines, same_number_lines
from service.currency import Currency, stated_amount
from service.devices import SECONDS_PER_HOUR
from service.errors import InvalidInput
from service.estimators import STEPS_UNKNOWN, ScoredSamples
from service.figures import Curve, Figure, RateBar, assign_colours
from service.job_metrics import load_samples_by_arm
from service.jobs import DRAWING_STAGES, Job, Resolved, is_unpriced
from service.jobs import Arm as JobArm
from service.measures import LINES_WITHOUT_STEPS, Measures, only_measured_line
from service.models import ModelSpec
from service.receipts import Usage
from service.report import Arm, Comparison, MetricLine, Waste
from service.sample_columns import Judge
from service.stats import Estimate
from service.store import Store
from service.work import TaskKind

# a report sets budgets of both accountings side by side, so it names the exact one too
_UNITS = wording.UNIT_WORDS | {Currency.flops.value: "FLOPs (exact)"}
_KEPT = ("useful", "truncated")


def compare_jobs(
    store: Store,
    job_ids: Sequence[str],
    *,
    title: str,
    documents: Mapping[str, str],
    versions: tuple[tuple[str, str], ...],
    now: datetime,
    names: Sequence[str] | None = None,
    judge: Judge | None = None,
    checker: str | None = None,
    notes: tuple[str, ...] = (),
) -> tuple[Comparison, tuple[Figure, ...]]:
    """The comparison and its figures. A job of several arms is compared arm by arm, unless `names` are given.

    Args:
        job_ids: two or more jobs over one problem set, or one of several arms.
        documents: the resolved document of each job as YAML, by job id.
        names: what to call the arms; the jobs' names by default.
        judge: a checker for reporting that replaces the jobs' own step check, named by `checker`.
        notes: what else a reader must know.

    Raises:
        InvalidInput: fewer than two jobs or arms, one job twice, or jobs over different problems.
        NotFound: no such job.
    """
    num_arms = len(store.jobs.get(job_ids[0]).spec.all_arms) if job_ids and names is None else 1
    if len(job_ids) * num_arms < 2 or len(set(job_ids)) < len(job_ids):
        raise InvalidInput(
            f"jobs: got {', '.join(job_ids) or 'none'}, allowed: two or more different jobs, or one of several arms"
        )
    return report_jobs(
        store,
        job_ids,
        title=title,
        documents=documents,
        versions=versions,
        now=now,
        names=names,
        judge=judge,
        checker=checker,
        notes=notes,
    )


def report_jobs(
    store: Store,
    job_ids: Sequence[str],
    *,
    title: str,
    documents: Mapping[str, str],
    versions: tuple[tuple[str, str], ...],
    now: datetime,
    names: Sequence[str] | None = None,
    judge: Judge | None = None,
    checker: str | None = None,
    notes: tuple[str, ...] = (),
) -> tuple[Comparison, tuple[Figure, ...]]:
    """The same of any jobs: one alone, or arms of which two took the same job. See `compare_jobs`.

    Raises:
        InvalidInput: jobs over different problems.
        NotFound: no such job.
    """
    jobs = [store.jobs.get(job_id) for job_id in job_ids]
    resolved = [store.jobs.resolved(job_id) for job_id in job_ids]
    sets = {(one.problems_fingerprint, one.num_problems) for one in resolved}
    if len(sets) > 1:
        got = ", ".join(
            f"{job.id} on {job.spec.problems} ({one.num_problems:,})" for job, one in zip(jobs, resolved, strict=True)
        )
        raise InvalidInput(f"jobs: got {got}; allowed: jobs over the same problems")
    sides = _sides(store, jobs, resolved, names, judge)
    samples, names = [side.samples for side in sides], [side.name for side in sides]
    measures = [Measures.of((*side.job.spec.scorers, *(["steps"] if judge is not None else []))) for side in sides]
    judged = [(found, len(scored.problem)) for found, scored in zip(measures, samples, strict=True)]
    found = metric_lines(samples, seed=jobs[0].spec.seed)
    if all(job.spec.allocation.is_even for job in jobs):
        found += same_number_lines(samples, seed=jobs[0].spec.seed)
    lines = tuple(only_measured_line(line, judged) for line in found)
    has_steps = all(found.has_steps for found in measures)
    if not has_steps:
        lines = tuple(line for line in lines if line.key in LINES_WITHOUT_STEPS)
    if checker is None:
        checker = "the steps scorer" if has_steps else "nothing: not every job has the steps scorer"
    comparison = Comparison(
        title=title,
        problems=jobs[0].spec.problems,
        fingerprint=resolved[0].problems_fingerprint,
        num_problems=resolved[0].num_problems,
        matched_by="useful FLOPs",
        accounting="exact",
        checker=checker,
        seed=jobs[0].spec.seed,
        created_at=now,
        arms=tuple(_report_arm(store, side, document=documents[side.job.id]) for side in sides),
        metrics=lines,
        versions=versions,
        notes=(*notes, *_notes(jobs, resolved), *_scoring_notes(store, sides, measures)),
    )
    drawn = _figures(store, sides, lines, measures=measures, checker=checker, has_steps=has_steps)
    return comparison, drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One side of a comparison: a job, or one of its several arms."""

    name: str
    job: Job
    resolved: Resolved
    arm: JobArm | None
    samples: ScoredSamples

    @property
    def model(self) -> str:
        """What decides its colour."""
        return self.job.spec.models[0] if self.arm is None else self.arm.model

    @property
    def drawn_by(self) -> tuple[str, str]:
        """Job and arm whose samples these are."""
        return self.job.id, "" if self.arm is None else self.arm.name

    @property
    def models(self) -> list[ModelSpec]:
        """What drew its samples: what is not known of another arm's model hides nothing of this one."""
        return [model for model in self.resolved.models if self.arm is None or model.name == self.arm.model]


def _sides(
    store: Store,
    jobs: Sequence[Job],
    resolved: Sequence[Resolved],
    names: Sequence[str] | None,
    judge: Judge | None,
) -> list[_Side]:
    found: list[_Side] = []
    for job, one, name in zip(jobs, resolved, _names(jobs) if names is None else names, strict=True):
        samples, arm_of_row = load_samples_by_arm(store, job, judge=judge)
        arms = job.spec.all_arms
        if len(arms) == 1 or names is not None:
            found.append(_Side(name=name, job=job, resolved=one, arm=None, samples=samples))
            continue
        for index, arm in enumerate(arms):
            mine = samples.rows(arm_of_row == index)
            called = arm.name if len(jobs) == 1 else f"{name}: {arm.name}"
            found.append(_Side(name=called, job=job, resolved=one, arm=arm, samples=mine))
    return found


def _report_arm(store: Store, side: _Side, *, document: str) -> Arm:
    parameters = max(model.cost.parameters for model in side.models)
    if side.arm is None:
        return _arm(store, side.job, side.name, parameters=parameters, document=document)
    parts = store.reads.parts(side.job.id, TaskKind.generate)
    used = sum((part.usage for part in parts if part.arm == side.arm.name), Usage())
    whole = _arm(store, side.job, side.name, parameters=parameters, document=document)
    truncated = (Waste(reason="truncated", flops=used.truncated_flops),) if used.truncated_flops != 0 else ()
    return dataclasses.replace(
        whole,
        models=(side.arm.model,),
        spent_flops=used.flops,
        useful_flops=used.flops - used.truncated_flops,
        waste=truncated,
        device_hours=(used.gpu_s or used.cpu_s) / SECONDS_PER_HOUR or None,
        device="GPU" if used.gpu_s else "CPU" if used.cpu_s else "",
        samples=used.samples,
        errors=used.errors,
        completion_tokens=used.completion_tokens,
        tokens_per_s=used.completion_tokens / used.busy_s if used.busy_s else None,
    )


def _names(jobs: Sequence[Job]) -> list[str]:
    """Job names, with the id where two share one."""
    names = [job.spec.name for job in jobs]
    return [f"{job.spec.name} ({job.id})" if names.count(job.spec.name) > 1 else job.spec.name for job in jobs]


def _arm(store: Store, job: Job, name: str, *, parameters: int, document: str) -> Arm:
    if job.spec.imported is not None:
        return _imported_arm(store, job, name, parameters=parameters, document=document)
    usage = [row for row in store.reads.usage(job_id=job.id) if row.stage in DRAWING_STAGES]
    account = store.reads.account(job.id)
    is_flops = account.currency is Currency.flops
    kept = [row for row in usage if row.outcome in _KEPT]
    busy_s = sum(row.busy_s for row in usage)
    gpu_s, cpu_s = sum(row.gpu_s for row in usage), sum(row.cpu_s for row in usage)
    completion_tokens = sum(row.completion_tokens for row in kept)
    wasted: dict[str, float] = {}
    for row in usage:
        if row.outcome != "useful" and row.flops != 0:
            wasted[row.outcome] = wasted.get(row.outcome, 0.0) + row.flops
    limit = stated_amount(account.currency, account.limit or 0)
    return Arm(
        name=name,
        models=job.spec.models,
        parameters=parameters,
        job_id=job.id,
        budget=f"{wording.quantity(limit, account.currency)} {_UNITS[account.currency]}",
        reserved_flops=stated_amount(account.currency, account.reserved) if is_flops or not account.reserved else None,
        spent_flops=sum(row.flops for row in usage),
        useful_flops=sum(row.flops for row in usage if row.outcome == "useful"),
        waste=tuple(Waste(reason=reason, flops=flops) for reason, flops in sorted(wasted.items())),
        device_hours=(gpu_s or cpu_s) / SECONDS_PER_HOUR or None,
        device="GPU" if gpu_s else "CPU" if cpu_s else "",
        samples=sum(row.samples for row in kept),
        errors=sum(row.errors for row in kept),
        completion_tokens=completion_tokens,
        tokens_per_s=completion_tokens / busy_s if busy_s else None,
        document=document,
    )


def _imported_arm(store: Store, job: Job, name: str, *, parameters: int, document: str) -> Arm:
    """What samples that were not drawn here once cost, by their tokens; the ledger knows nothing of them."""
    used = sum((part.usage for part in store.reads.parts(job.id, TaskKind.generate)), Usage())
    return Arm(
        name=name,
        models=job.spec.models,
        parameters=parameters,
        job_id=job.id,
        budget="none, imported",
        reserved_flops=0.0,
        spent_flops=0.0,
        useful_flops=math.nan if is_unpriced(store.jobs.resolved(job.id).models) else used.flops - used.truncated_flops,
        waste=(),
        device_hours=None,
        device="",
        samples=used.samples,
        errors=used.errors,
        completion_tokens=used.completion_tokens,
        tokens_per_s=None,
        document=document,
    )


def _notes(jobs: Sequence[Job], resolved: Sequence[Resolved]) -> tuple[str, ...]:
    notes: list[str] = []
    unfinished = [job.id for job in jobs if not job.phase.is_terminal]
    if unfinished:
        notes.append(f"Not finished, so these numbers will change: {', '.join(unfinished)}.")
    for job, each in zip(jobs, resolved, strict=True):
        if (spec := job.spec.imported) is not None:
            files = ", ".join(f"{file.name} (sha256 {file.sha256[:16]}…)" for file in spec.files)
            price = "unknown" if is_unpriced(each.models) else "those of its tokens with nothing cached"
            notes.append(f"{job.id} was imported from {files}: nothing was spent on it here; its FLOPs are {price}.")
        elif is_unpriced(each.models):
            names = ", ".join(model.name for model in each.models if not model.cost.is_traced)
            notes.append(f"{job.id}: FLOPs are unknown, for nobody declared what a token of {names} takes.")
    adaptive = [job.id for job in jobs if not job.spec.allocation.is_even]
    if adaptive:
        notes.append(
            f"Results decided how {', '.join(adaptive)} was sampled: its numbers are what it realised, and a curve "
            "over k would be biased, so none is drawn."
        )
    return tuple(notes)


def _scoring_notes(store: Store, sides: Sequence[_Side], measures: Sequence[Measures]) -> tuple[str, ...]:
    """What of each job is not measured, or not yet; and what an arm of several has not on its own account."""
    notes: list[str] = []
    for job_id, found in {side.job.id: found for side, found in zip(sides, measures, strict=True)}.items():
        # an arm of a comparison may stand for the same job as another: its samples count once
        scored = {side.name if side.arm else "": len(side.samples.problem) for side in sides if side.job.id == job_id}
        num_scored, num_samples = sum(scored.values()), store.reads.count_rows(job_id, TaskKind.generate)
        if len(scored) > 1:
            notes.append(f"{job_id} has several arms: each is told with its own samples, what was lost with none.")
        if found.missing_answers is not None:
            notes.append(f"{job_id}: not measured, {found.missing_answers.reason}.")
        elif num_scored < num_samples:
            notes.append(f"{job_id}: {num_scored:,} of {wording.plural(num_samples, 'sample')} scored so far.")
    return tuple(notes)


def _figures(
    store: Store,
    sides: Sequence[_Side],
    lines: Sequence[MetricLine],
    *,
    measures: Sequence[Measures],
    checker: str,
    has_steps: bool,
) -> tuple[Figure, ...]:
    colours = assign_colours([model.name for model in store.catalogue.models()])
    shown = [
        side
        for side, found in zip(sides, measures, strict=True)
        if side.job.spec.allocation.is_even and found.has_answers and not is_unpriced(side.models)
    ]
    # arms of a comparison that took the same job have one line, which would hide the others
    names: dict[tuple[str, str], list[str]] = {}
    for side in shown:
        names.setdefault(side.drawn_by, []).append(side.name)
    curves = [
        coverage_curves(" / ".join(names[one.drawn_by]), one.model, one.samples, seed=one.job.spec.seed)
        for one in {side.drawn_by: side for side in shown}.values()
    ]

    def of(metric: str) -> list[Curve]:
        return [found[metric] for found in curves]

    drawn = [figures.coverage_figure(of("coverage"), colours, accounting="exact")]
    if has_steps:
        drawn.append(
            figures.verified_coverage_figure(of("verified_coverage"), colours, accounting="exact", checker=checker)
        )
    drawn.append(figures.diversity_figure(of("diversity"), colours, accounting="exact", rule="exact text"))
    if has_steps:
        rates = next(line for line in lines if line.key == "false_positive_rate")
        bars = [_bar(side.name, side.model, side.samples, rate) for side, rate in zip(sides, rates.values, strict=True)]
        drawn.append(figures.false_positive_figure(bars, colours, checker=checker))
    return tuple(drawn)


def _bar(name: str, model: str, samples: ScoredSamples, rate: object) -> RateBar:
    known = rate if isinstance(rate, Estimate) else None
    return RateBar(
        name=name,
        model=model,
        value=None if known is None else known.value,
        low=None if known is None else known.low,
        high=None if known is None else known.high,
        num_items=int((samples.correct & (samples.steps != STEPS_UNKNOWN)).sum()),
    )
