"""/v1/jobs: submit, list, look at, pause, resume, cancel."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from api.arm_views import arm_outs, arm_plans
from api.artifact_views import shared_fields
from api.context import AppContext, Context, check_servers
from api.estimate import sample_costs
from api.progress import Progress, job_progress, jobs_progress
from api.resolve import document_of, to_job_spec
from api.resolve_import import job_document
from api.wire.base import MAX_INT
from api.wire.job_document import JobDocument
from api.wire.jobs import (
    BudgetOut,
    DryRunOut,
    FlopsOut,
    ImportedFileOut,
    ImportedOut,
    JobList,
    JobOut,
    ProgressOut,
)
from api.wire.submitted import DevicesOut
from service.currency import stated_amount
from service.jobs import Desired, Job, Resolved
from service.work import TaskKind

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your choice. Submitting twice with one key and one document makes one job.",
    ),
]


@router.post("", status_code=201, responses={200: {"model": DryRunOut, "description": "The plan of a dry run."}})
def submit_job(
    context: Context,
    response: Response,
    body: JobDocument,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Plan only: what it would be and cost; nothing is stored.")] = False,
) -> JobOut | DryRunOut:
    """Submits a job. Everything that can be wrong with the document is refused here, not later."""
    spec, resolved = to_job_spec(body, context.store)
    check_servers(context.settings, resolved.models)
    if dry_run:
        response.status_code = 200
        currency = spec.budget.currency
        return DryRunOut(
            document=document_of(spec, resolved.num_problems),
            num_problems=resolved.num_problems,
            problems_fingerprint=resolved.problems_fingerprint,
            model_revisions={model.name: model.revision for model in resolved.models},
            currency=currency,
            limit=stated_amount(currency, spec.budget.limit),
            cost_per_sample=sample_costs(context.store, spec, resolved),
            arms=arm_plans(context, spec, resolved),
        )
    job = context.store.jobs.submit(spec, resolved, idempotency_key=idempotency_key)
    context.wake()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_out(context, job)


@router.get("")
def list_jobs(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[int | None, Query(ge=1, le=MAX_INT, description="`next_cursor` of the page before.")] = None,
) -> JobList:
    """Jobs, newest first."""
    found = context.store.jobs.list(limit=limit + 1, before=cursor)
    page = found[:limit]
    progress_by_id = jobs_progress(context.store, [job for _, job in page], datetime.now(UTC))
    return JobList(
        items=[job_out(context, job, progress=progress_by_id[job.id]) for _, job in page],
        next_cursor=str(page[-1][0]) if len(found) > limit else None,
    )


@router.get("/{job_id}")
def get_job(context: Context, job_id: str) -> JobOut:
    """One job with its progress."""
    job, resolved = context.store.jobs.get(job_id), context.store.jobs.resolved(job_id)
    found = job_out(context, job, resolved)
    return found.model_copy(update={"arms": arm_outs(context.store, job, resolved)})


@router.post("/{job_id}/cancel")
def cancel_job(context: Context, job_id: str) -> JobOut:
    """Drops running samples, keeps finished ones, ends the job."""
    return _set_desired(context, job_id, Desired.cancel)


@router.post("/{job_id}/pause")
def pause_job(context: Context, job_id: str) -> JobOut:
    """Finishes running samples and starts no new ones."""
    return _set_desired(context, job_id, Desired.pause)


@router.post("/{job_id}/resume")
def resume_job(context: Context, job_id: str) -> JobOut:
    """Goes on. No sample is drawn twice."""
    return _set_desired(context, job_id, Desired.run)


def _set_desired(context: AppContext, job_id: str, desired: Desired) -> JobOut:
    job = context.store.jobs.set_desired(job_id, desired)
    context.wake()
    return job_out(context, job)


def job_out(
    context: AppContext, job: Job, resolved: Resolved | None = None, *, progress: Progress | None = None
) -> JobOut:
    """A job as it goes out."""
    resolved = resolved or context.store.jobs.resolved(job.id)
    return JobOut(
        **shared_fields(job),
        num_problems=resolved.num_problems,
        problems_fingerprint=resolved.problems_fingerprint,
        document=job_document(job.spec, resolved.num_problems),
        imported=_imported_out(context, job),
        progress=progress_out(progress or job_progress(context.store, job, datetime.now(UTC))),
    )


def _imported_out(context: AppContext, job: Job) -> ImportedOut | None:
    """Where an import's samples come from; its cost is in its parts, for the ledger knows nothing of it."""
    spec = job.spec.imported
    if spec is None:
        return None
    usages = [part.usage for part in context.store.reads.parts(job.id, TaskKind.generate)]
    return ImportedOut(
        files=[ImportedFileOut(**dataclasses.asdict(file)) for file in spec.files],
        columns={column.ours: column.theirs for column in spec.columns},
        match_by=spec.match_by,
        tokens=spec.tokens,
        # parts that an earlier release read have 0 for what is not known
        flops=sum(usage.flops for usage in usages) if spec.is_known_model else None,
        flops_paper=sum(usage.flops_paper for usage in usages) if spec.is_known_model else None,
    )


def progress_out(progress: Progress) -> ProgressOut:
    """Progress as it goes out."""
    wasted = sum(progress.wasted_flops.values())
    same = {field.name: getattr(progress, field.name) for field in dataclasses.fields(progress)}
    return ProgressOut(
        **{name: value for name, value in same.items() if name in ProgressOut.model_fields},
        budget=BudgetOut(
            currency=progress.currency,
            unit=progress.unit,
            limit=progress.limit,
            spent=progress.spent,
            reserved=progress.reserved,
            overshoot=progress.overshoot,
            used_fraction=progress.spent / progress.limit if progress.limit else 0.0,
        ),
        flops=FlopsOut(
            spent=progress.useful_flops + wasted,
            useful=progress.useful_flops,
            wasted=wasted,
            wasted_by_reason={**progress.wasted_flops},
            spent_paper=progress.flops_paper,
        ),
        devices=DevicesOut.of(progress.device_time),
    )
