"""What belongs to a job: samples, metrics, events, tasks, files."""

import dataclasses
import json
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.context import AppContext, Context
from api.progress import job_progress
from api.routes.jobs import progress_out
from api.sample_pages import FILTERS, Cursor, SampleQuery, check_cursor, read_samples
from api.wire.base import MAX_INT
from api.wire.jobs import EventList, EventOut, FileList, FileOut, SampleList, SampleOut, TaskList, TaskOut
from service.currency import stated_amount
from service.errors import InvalidInput, NotFound, UnknownName
from service.store.reads import Event, Part
from service.work import TaskKind

router = APIRouter(prefix="/v1", tags=["jobs"])
POLL_S = 0.5
"""A person watching does not see a difference below this, and each look is two small queries."""

After = Annotated[
    int,
    Query(
        ge=0, le=MAX_INT, description="Only what comes after this id; ids grow over all jobs, so any event's will do."
    ),
]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("/jobs/{job_id}/samples")
def list_samples(
    context: Context,
    job_id: str,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=40, description="`next_cursor` of the page before.")] = None,
    verdict: Annotated[str | None, Query(max_length=40, description=", ".join(FILTERS))] = None,
    problem: Annotated[str | None, Query(max_length=200, description="Only this problem id.")] = None,
    model: Annotated[str | None, Query(max_length=200, description="Only this model.")] = None,
    arm: Annotated[str | None, Query(max_length=200, description="Only this arm.")] = None,
    sample_id: Annotated[str | None, Query(max_length=64, description="Only this sample.")] = None,
) -> SampleList:
    """Samples in the order of their commitment, each with what its scorers say.

    A page may hold fewer samples than asked for while `next_cursor` is set: the search goes on from there.
    """
    context.store.jobs.get(job_id)
    if verdict is not None and verdict not in FILTERS:
        raise UnknownName(kind="verdict", got=verdict, allowed=FILTERS)
    query = SampleQuery(limit=limit, verdict=verdict, problem=problem, model=model, arm=arm, sample_id=sample_id)
    page = read_samples(context.store, job_id, Cursor.parse(cursor), query)
    items = [SampleOut.model_validate(sample | {"seed": str(sample["seed"])}) for sample in page.samples]
    return SampleList(items=items, next_cursor=page.next_cursor)


@router.get("/jobs/{job_id}/metrics")
def get_metrics(context: Context, job_id: str) -> dict[str, Any]:
    """Coverage, diversity, false positives and their price in FLOPs, with intervals, of everything scored so far.

    `summary` is of `num_scored` of the `num_samples` committed samples, and null before the first shard is scored. What
    cannot be told has a `reason` in place of a value: without an answer scorer there is no coverage, without the steps
    scorer nothing is verified. Numbers that are not defined are null.
    """
    context.store.jobs.get(job_id)
    return plain(dataclasses.asdict(context.metrics.get(context.store, job_id)))


@router.get("/jobs/{job_id}/tasks")
def list_tasks(
    context: Context,
    job_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    cursor: Annotated[int, Query(ge=0, le=MAX_INT, description="`next_cursor` of the page before.")] = 0,
    state: Annotated[str | None, Query(max_length=20, description="Only tasks in this state.")] = None,
) -> TaskList:
    """Tasks of a job in their order."""
    currency = context.store.jobs.get(job_id).spec.budget.currency
    tasks = context.store.reads.tasks(job_id)
    if cursor:
        check_cursor(cursor, cursor, (task.order for task in tasks), job_id)
    found = [task for task in tasks if task.order >= cursor and (state is None or task.state == state)]
    same = [name for name in TaskOut.model_fields if name not in ("credit", "settled")]
    items = [
        TaskOut(
            credit=stated_amount(currency, task.credit),
            settled=stated_amount(currency, task.settled),
            **{name: getattr(task, name) for name in same},
        )
        for task in found[:limit]
    ]
    return TaskList(items=items, next_cursor=str(found[limit].order) if len(found) > limit else None)


@router.get("/jobs/{job_id}/files")
def list_files(
    context: Context,
    job_id: str,
    kind: Annotated[Literal["generate", "score"] | None, Query()] = None,
    cursor: Annotated[int, Query(ge=0, le=MAX_INT, description="`next_cursor` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> FileList:
    """Committed Parquet files of a job, also while it runs: samples and scores with hashes. Never glob instead."""
    context.store.jobs.get(job_id)
    kinds = [TaskKind(kind)] if kind else [TaskKind.generate, TaskKind.score]
    parts = [part for kind in kinds for part in context.store.reads.parts(job_id, kind)]
    return file_page(parts, job_id, cursor=cursor, limit=limit)


@router.get("/scores", tags=["scores"])
def list_scores(
    context: Context,
    job: Annotated[str, Query(max_length=40, description="The job whose scores.")],
    cursor: Annotated[int, Query(ge=0, le=MAX_INT, description="`next_cursor` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> FileList:
    """Score files of a job: one row for each sample and scorer, joined to samples by `sample_id`."""
    context.store.jobs.get(job)
    return file_page(context.store.reads.parts(job, TaskKind.score), job, cursor=cursor, limit=limit)


def file_page(parts: list[Part], job_id: str, *, cursor: int, limit: int) -> FileList:
    """Parts of a job from number `cursor` on as a page; 0 is the first.

    Raises:
        InvalidInput: a cursor of another job.
    """
    if cursor:
        check_cursor(cursor, cursor, (part.number for part in parts), job_id)
    found = sorted((part for part in parts if part.number >= cursor), key=lambda part: part.number)
    items = [FileOut(**{name: getattr(part, name) for name in FileOut.model_fields}) for part in found[:limit]]
    return FileList(items=items, next_cursor=str(found[limit].number) if len(found) > limit else None)


@router.get("/events", tags=["events"])
def list_all_events(
    context: Context,
    after: After = 0,
    limit: Limit = 200,
    job: Annotated[str | None, Query(max_length=40, description="Only of this job, selection or finetune.")] = None,
) -> EventList:
    """Events of everything and of the service itself, oldest first."""
    if job is not None and not context.store.reads.exists(job):
        raise NotFound(f"nothing has the id {job!r}; GET /v1/jobs, /v1/selections and /v1/finetunes list what there is")
    return _event_list(context.store.reads.events(job_id=job, after=after, limit=limit), after)


@router.get(
    "/jobs/{job_id}/events",
    response_model=EventList,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    tags=["events"],
)
def get_events(
    context: Context,
    request: Request,
    job_id: str,
    after: After = 0,
    limit: Limit = 200,
    last_event_id: Annotated[str | None, Header(max_length=20, description="Resumes a stream after this id.")] = None,
) -> EventList | Response:
    """Events of a job: JSON, or with `Accept: text/event-stream` a stream that ends with the job.

    The stream sends `event` (with an id to resume from), `progress` and, last, `end` with the phase.
    """
    context.store.jobs.get(job_id)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return _event_list(context.store.reads.events(job_id=job_id, after=after, limit=limit), after)
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdecimal() and int(last_event_id) <= MAX_INT):
            raise InvalidInput(f"Last-Event-ID: got {last_event_id!r}, allowed: the id of an event of this stream")
        after = int(last_event_id)
    return EventSourceResponse(_stream(context, job_id, after))


async def _stream(context: AppContext, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    shown: dict[str, Any] | None = None
    while True:
        # the job first: what it wrote before it ended is then among the events read next
        phase, progress, events = await anyio.to_thread.run_sync(_look, context, job_id, after)
        for event in events:
            after = event.id
            yield ServerSentEvent(data=EventOut(**_fields(event)).model_dump_json(), event="event", id=str(event.id))
        if progress != shown:
            shown = progress
            yield ServerSentEvent(data=json.dumps(progress), event="progress")
        if phase.is_terminal and not events:
            yield ServerSentEvent(data=json.dumps({"phase": phase}), event="end")
            return
        if not events:
            await anyio.sleep(POLL_S)


def _look(context: AppContext, job_id: str, after: int) -> tuple[Any, dict[str, Any], list[Event]]:
    job = context.store.jobs.get(job_id)
    numbers = progress_out(job_progress(context.store, job, datetime.now(UTC))).model_dump(mode="json")
    events = context.store.reads.events(job_id=job_id, after=after, limit=200)
    return job.phase, {"phase": job.phase.value, **numbers}, events


def _event_list(events: list[Event], after: int) -> EventList:
    items = [EventOut(**_fields(event)) for event in events]
    return EventList(items=items, next_after=items[-1].id if items else after)


def _fields(event: Event) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}


def plain(value: Any) -> Any:
    """The value with what JSON has no word for (NaN, infinity) as None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
