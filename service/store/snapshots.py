"""The control loop's one read, which is bounded.

It costs as much as there are active jobs, open tasks and living hosts, whatever has finished before. What the loop
decides is written by `plan_writes`.
"""

import dataclasses
import json
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, case, func, select

from service.cluster import HostKind, HostState
from service.jobs import Desired, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.planner.plan import HostView, JobView, Prepared, Snapshot
from service.receipts import Usage
from service.shards import unpack_array
from service.store import schema
from service.store.artifacts import ArtifactReader
from service.store.children import ChildReader
from service.store.codec import aware, from_json
from service.store.rows import IS_GENERATION, account_from_row, account_id, pool_from_row, task_from_row
from service.store.submissions import ACTIVE_PHASES
from service.tasks import Task, TaskState, without

_OPEN_STATES = tuple(state.value for state in TaskState if not state.is_terminal)
_UNSENT_STATES = (TaskState.pending.value, TaskState.submitted.value)
"""States in which an attempt may have to be sent, which is the only use of a task's runs in a tick."""


class SnapshotReader:
    """Reads snapshots. Keeps decoded documents of active jobs; they never change."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[JobSpec, Resolved]] = {}
        self._artifacts = ArtifactReader(ChildReader().read)

    def read(self, connection: Connection) -> Snapshot:
        """Everything the planner needs, at one instant."""
        rows = connection.execute(_OPEN_TASKS).mappings()
        tasks = [task_from_row(row, with_runs=row["state"] in _UNSENT_STATES) for row in rows]
        tasks = [_with_remaining(connection, task) for task in tasks]
        jobs = tuple(self._read_jobs(connection))
        num_hosts, last_trainer_ended_at = connection.execute(_ALL_HOSTS).one()
        return Snapshot(
            jobs=jobs,
            tasks=tuple(tasks),
            hosts=tuple(host_from_row(row) for row in connection.execute(_LIVING_HOSTS).mappings()),
            pools=tuple(pool_from_row(row) for row in connection.execute(_POOLS).mappings()),
            num_hosts_ever=num_hosts,
            last_trainer_ended_at=aware(last_trainer_ended_at),
            artifacts=self._artifacts.read(connection),
            kept_models=_read_kept_models(connection, jobs),
        )

    def _read_jobs(self, connection: Connection) -> list[JobView]:
        rows = connection.execute(_ACTIVE_JOBS).mappings()
        views = [self._view(connection, row) for row in rows]
        self._documents = {view.id: self._documents[view.id] for view in views}
        return views

    def _view(self, connection: Connection, row: Any) -> JobView:
        job_id = row["id"]
        if job_id not in self._documents:
            self._documents[job_id] = (from_json(JobSpec, row["document"]), from_json(Resolved, row["resolved"]))
        spec, resolved = self._documents[job_id]
        account = connection.execute(_ACCOUNT, {"account_id": account_id(job_id, spec)}).mappings()
        prepared = connection.execute(_PREPARED, {"job_id": job_id}).mappings()
        last = connection.execute(_LAST_ORDER, {"job_id": job_id}).scalar_one()
        return JobView(
            id=job_id,
            spec=spec,
            desired=Desired(row["desired"]),
            phase=Phase(row["phase"]),
            closing=row["closing"],
            error=row["error"],
            models=resolved.models,
            problems_path=resolved.problems_path,
            num_problems=resolved.num_problems,
            account=account_from_row(account.one()),
            prepared={item["arm"]: _prepared_from_row(item) for item in prepared},
            next_order=0 if last is None else last + 1,
            created_at=aware(row["created_at"]) or row["created_at"],
            num_samples=row["num_samples"],
            num_errors=row["num_errors"],
            num_correct=row["num_correct"],
            num_engine_deaths=row["num_engine_deaths"],
            import_paths=resolved.import_paths,
        )


# Built once: to build a statement takes longer than to run it, and a tick runs each of these.
_ACTIVE_JOBS = (
    select(schema.jobs).where(IS_GENERATION & schema.jobs.c.phase.in_(ACTIVE_PHASES)).order_by(schema.jobs.c.number)
)
_ACCOUNT = select(schema.accounts).where(schema.accounts.c.id == bindparam("account_id"))
_PREPARED = select(schema.prepared).where(schema.prepared.c.job_id == bindparam("job_id"))
_LAST_ORDER = select(func.max(schema.tasks.c.order)).where(schema.tasks.c.job_id == bindparam("job_id"))
_POOLS = select(schema.pools)
_ENDED_TRAINERS = case((schema.hosts.c.kind == HostKind.trainer.value, schema.hosts.c.ended_at))
_ALL_HOSTS = select(func.count(), func.max(_ENDED_TRAINERS)).select_from(schema.hosts)
_OPEN_TASKS = select(schema.tasks).where(schema.tasks.c.state.in_(_OPEN_STATES)).order_by(schema.tasks.c.order)
_IS_KEPT = (schema.pools.c.minimum > 0) | schema.models.c.name.in_(bindparam("bases", expanding=True))
_KEPT_MODELS = select(schema.models.c.document).join(schema.pools).where(_IS_KEPT)
_LIVING_HOSTS = select(schema.hosts).where(schema.hosts.c.ended_at.is_(None)).order_by(schema.hosts.c.created_at)


def _read_kept_models(connection: Connection, jobs: tuple[JobView, ...]) -> tuple[ModelSpec, ...]:
    """Models that engines may have to load though no job names them."""
    bases = {spec.base for job in jobs for spec in job.models if spec.base is not None}
    kept = connection.execute(_KEPT_MODELS, {"bases": sorted(bases)}).scalars()
    return tuple(from_json(ModelSpec, text) for text in kept)


def committed_indices(connection: Connection, task_id: str) -> np.ndarray:
    """Every sample of the task that is committed, over all attempts, shape [n, 2]."""
    rows = connection.execute(select(schema.parts.c.indices).where(schema.parts.c.task_id == task_id)).scalars()
    found = [array for packed in rows if (array := unpack_array(packed, columns=2)) is not None]
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int32)


def _with_remaining(connection: Connection, task: Task) -> Task:
    """The task with what of its plan no attempt has committed, where there was an attempt before."""
    if task.runs is None or task.attempt == 1:
        return task
    return dataclasses.replace(task, remaining=without(task.runs, committed_indices(connection, task.id)))


def host_from_row(row: Any) -> HostView:
    """A row of `hosts`."""
    values = dict(row)
    values |= {"kind": HostKind(row["kind"]), "state": HostState(row["state"])}
    values |= {name: aware(row[name]) for name in ("created_at", "ready_at", "idle_since", "ended_at")}
    return HostView(**values)


def _prepared_from_row(row: Any) -> Prepared:
    return Prepared(
        job_id=row["job_id"],
        arm=row["arm"],
        path=row["path"],
        sha256=row["sha256"],
        facts=json.loads(row["facts"]),
        excluded=unpack_array(row["excluded"], columns=2),
    )


def part_usage(text: str) -> Usage:
    """The usage column of a part."""
    return from_json(Usage, text)
