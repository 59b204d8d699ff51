"""The control loop's two calls: one bounded read, one write.

`read_snapshot` costs as much as there are active jobs, open tasks and living hosts, whatever has finished before.
`write_plan` applies a plan or nothing: every task row is fenced by the attempt and state it had when it was read, and
the account rows carry the CHECK that keeps the budget.
"""

import dataclasses
import json
import math
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, case, func, insert, select, update

from service.cluster import HostKind, HostState
from service.errors import StaleAttempt
from service.jobs import Desired, JobSpec, Phase, Resolved
from service.ledger import TransferKind
from service.models import ModelSpec
from service.planner.plan import (
    HostView,
    JobView,
    NodeWrite,
    PartWrite,
    Plan,
    Prepared,
    Snapshot,
    TaskWrite,
    UsageWrite,
)
from service.receipts import Usage
from service.shards import pack_array, unpack_array
from service.store import schema
from service.store.artifacts import ArtifactReader, write_artifact
from service.store.children import ChildReader, want_of_children, write_node
from service.store.codec import aware, from_json, to_json
from service.store.database import lock_submissions
from service.store.rows import IS_GENERATION, account_from_row, account_id, pool_from_row, task_from_row
from service.store.submissions import ACTIVE_PHASES
from service.tasks import Task, TaskState, without
from service.work import Runs

_OPEN_STATES = tuple(state.value for state in TaskState if not state.is_terminal)
_UNSENT_STATES = (TaskState.pending.value, TaskState.submitted.value)
"""States in which an attempt may have to be sent, which is the only use of a task's runs in a tick."""


class ControlStore:
    """Reads snapshots and writes plans. Keeps decoded documents of active jobs; they never change."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[JobSpec, Resolved]] = {}
        self._artifacts = ArtifactReader(ChildReader().read)

    def read_snapshot(self, connection: Connection) -> Snapshot:
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

    def write_plan(self, connection: Connection, plan: Plan, now: datetime) -> None:
        """Applies every change of the plan.

        Raises:
            StaleAttempt: a task row is not what the plan was made from; nothing is applied.
            sqlalchemy.exc.IntegrityError: a CHECK or a repeated transfer refused the plan; nothing is applied.
        """
        for write in plan.tasks:
            _write_task(connection, write, now)
        _write_parts(connection, plan.parts, now)
        _write_transfers(connection, plan, now)
        for entry in plan.usage:
            _add_usage(connection, entry, now)
        for item in plan.prepared:
            _write_prepared(connection, item)
        for host in plan.hosts:
            _write_host(connection, host)
        for pool in plan.pools:
            # replicas belong to operators; the loop writes only what it counts
            connection.execute(
                update(schema.pools)
                .where(schema.pools.c.model == pool.model)
                .values({name: getattr(pool, name) for name in _COUNTED_OF_POOLS})
            )
        for job in plan.jobs:
            values = {name: getattr(job, name) for name in _JOB_COLUMNS} | {"phase": job.phase.value}
            values |= {"ended_at": now} if job.phase.is_terminal else {}
            connection.execute(update(schema.jobs).where(schema.jobs.c.id == job.id).values(**values))
        for artifact in plan.artifacts:
            write_artifact(connection, artifact, now)
        _write_nodes(connection, plan.nodes, now)
        for change in plan.children:
            want_of_children(connection, change)
        for model in plan.models:
            values = {"name": model.name, "document": to_json(model), "created_at": now}
            connection.execute(insert(schema.models).values(**values))
        if plan.events:
            connection.execute(
                insert(schema.events),
                [{"job_id": e.job_id, "kind": e.kind, "message": e.message, "at": now} for e in plan.events],
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
_UPDATE_TASK = update(schema.tasks).where(
    (schema.tasks.c.id == bindparam("of"))
    & (schema.tasks.c.attempt == bindparam("read_attempt"))
    & (schema.tasks.c.state == bindparam("read_state"))
)
_UPDATE_HOST = update(schema.hosts).where(schema.hosts.c.name == bindparam("of"))
_INSERT_HOST = insert(schema.hosts)
_JOB_COLUMNS = ("closing", "error", "num_samples", "num_errors", "num_correct", "num_engine_deaths")
_COUNTED_OF_POOLS = ("failures", "waiting_since", "load_s", "num_turns")
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


def remaining_runs(connection: Connection, task: Task) -> Runs:
    """What of the task's plan no attempt has committed."""
    if task.runs is None:
        raise ValueError(f"task {task.id}: {task.kind} tasks have no runs")
    return without(task.runs, committed_indices(connection, task.id))


def _with_remaining(connection: Connection, task: Task) -> Task:
    if task.runs is None or task.attempt == 1:
        return task
    return dataclasses.replace(task, remaining=remaining_runs(connection, task))


def _write_task(connection: Connection, write: TaskWrite, now: datetime) -> None:
    after = write.after
    values: dict[str, Any] = {
        "state": after.state.value,
        "attempt": after.attempt,
        "host": after.host,
        "credit": after.credit,
        "settled": after.settled,
        "settled_value": after.settled_value,
        "grant_version": after.grant_version,
        "is_final_sent": after.is_final_sent,
        "num_parts": after.num_parts,
        "busy_s": after.busy_s,
        "written_s": after.written_s,
        "num_lost": after.num_lost,
        "num_failed": after.num_failed,
        "not_before": after.not_before,
        "submitted_at": after.submitted_at,
        "error": after.error,
    }
    if write.before is None:
        source = after.source
        connection.execute(
            insert(schema.tasks).values(
                id=after.id,
                job_id=after.job_id,
                kind=after.kind.value,
                order=after.order,
                model=after.model,
                arm=after.arm,
                runs=pack_array(after.runs),
                source_attempt=source.attempt_id if source else None,
                source_part=source.part if source else None,
                source_path=source.path if source else None,
                source_sha256=source.sha256 if source else None,
                num_planned=after.num_planned,
                created_at=after.created_at or now,
                **values,
            )
        )
        return
    before = write.before
    if after.runs is not before.runs:  # an import learns its plan from its files
        values |= {"runs": pack_array(after.runs), "num_planned": after.num_planned}
    fence = {"of": before.id, "read_attempt": before.attempt, "read_state": before.state.value}
    if connection.execute(_UPDATE_TASK, values | fence).rowcount != 1:
        raise StaleAttempt(
            f"task {before.id}: attempt {before.attempt} in state {before.state} is not current any more"
        )


def _write_nodes(connection: Connection, writes: tuple[NodeWrite, ...], now: datetime) -> None:
    if writes:
        lock_submissions(connection)  # they take numbers, as people's submissions do at the same time
    for write in writes:
        write_node(connection, write, now)


def _write_parts(connection: Connection, writes: tuple[PartWrite, ...], now: datetime) -> None:
    if not writes:
        return
    parts = schema.parts
    number = connection.execute(select(func.max(parts.c.number))).scalar_one() or 0
    values = [
        {
            "attempt_id": write.attempt_id,
            "part": write.receipt.part,
            "number": number + offset,
            "task_id": write.task.id,
            "job_id": write.task.job_id,
            "kind": write.task.kind.of_parts.value,
            "model": write.task.model,
            "arm": write.task.arm,
            "path": write.receipt.path,
            "sha256": write.receipt.sha256,
            "rows": write.receipt.rows,
            "usage": to_json(write.receipt.usage),
            "indices": pack_array(write.receipt.indices),
            "source_attempt": write.task.source.attempt_id if write.task.source else None,
            "source_part": write.task.source.part if write.task.source else None,
            "committed_at": now,
        }
        for offset, write in enumerate(writes, start=1)
    ]
    connection.execute(insert(parts), values)


def _write_transfers(connection: Connection, plan: Plan, now: datetime) -> None:
    if not plan.transfers:
        return
    # rows are locked in one fixed order, so that two ledgers never wait for each other
    transfers = sorted(plan.transfers, key=lambda t: t.account)
    connection.execute(
        insert(schema.transfers),
        [
            {
                "account": t.account,
                "attempt_id": t.attempt_id,
                "kind": t.kind.value,
                "number": t.number,
                "amount": t.amount,
                "at": now,
            }
            for t in transfers
        ],
    )
    accounts = schema.accounts
    for account in dict.fromkeys(t.account for t in transfers):
        mine = [t for t in transfers if t.account == account]
        by_kind = {kind: sum(t.amount for t in mine if t.kind is kind) for kind in TransferKind}
        spent = by_kind[TransferKind.settle]
        reserved = by_kind[TransferKind.reserve] - by_kind[TransferKind.settle] - by_kind[TransferKind.void]
        connection.execute(
            update(accounts)
            .where(accounts.c.id == account)
            .values(
                spent=accounts.c.spent + spent,
                reserved=accounts.c.reserved + reserved,
                exceeded=accounts.c.exceeded + by_kind[TransferKind.exceed],
            )
        )


_ROLLED = ("samples", "errors", "truncated", "prompt_tokens", "cached_tokens", "completion_tokens")
_ROLLED_FLOATS = ("flops", "flops_paper", "busy_s", "gpu_s", "cpu_s", "nano_usd")


def _add_usage(connection: Connection, entry: UsageWrite, now: datetime) -> None:
    usage, use = schema.usage, entry.usage
    bucket = now.replace(second=0, microsecond=0)
    values: dict[str, float | None] = {name: getattr(use, name) for name in (*_ROLLED, *_ROLLED_FLOATS)}
    # SQL has a word for what is not known, and a sum with it is not known either
    values |= {name: None for name in _ROLLED_FLOATS if math.isnan(getattr(use, name))}
    fence = (
        (usage.c.job_id == entry.job_id)
        & (usage.c.model == entry.model)
        & (usage.c.arm == entry.arm)
        & (usage.c.stage == entry.stage)
        & (usage.c.outcome == entry.outcome)
        & (usage.c.bucket == bucket)
    )
    added = {name: usage.c[name] + value for name, value in values.items()}
    if connection.execute(update(usage).where(fence).values(**added)).rowcount == 0:
        connection.execute(
            insert(usage).values(
                job_id=entry.job_id,
                model=entry.model,
                arm=entry.arm,
                stage=entry.stage,
                outcome=entry.outcome,
                bucket=bucket,
                **values,
            )
        )


def _write_host(connection: Connection, host: HostView) -> None:
    values = {name: getattr(host, name) for name in HostView.__slots__}
    values |= {"kind": host.kind.value, "state": host.state.value}
    if connection.execute(_UPDATE_HOST, values | {"of": host.name}).rowcount == 0:
        connection.execute(_INSERT_HOST, values)


def host_from_row(row: Any) -> HostView:
    """A row of `hosts`."""
    values = dict(row)
    values |= {"kind": HostKind(row["kind"]), "state": HostState(row["state"])}
    values |= {name: aware(row[name]) for name in ("created_at", "ready_at", "idle_since", "ended_at")}
    return HostView(**values)


def _write_prepared(connection: Connection, item: Prepared) -> None:
    prepared = schema.prepared
    fence = (prepared.c.job_id == item.job_id) & (prepared.c.arm == item.arm)
    values = _prepared_values(item)
    if connection.execute(update(prepared).where(fence).values(**values)).rowcount == 0:
        connection.execute(insert(prepared).values(**values))


def _prepared_values(item: Prepared) -> dict[str, object]:
    return {
        "job_id": item.job_id,
        "arm": item.arm,
        "path": item.path,
        "sha256": item.sha256,
        "facts": json.dumps(item.facts),
        "excluded": pack_array(item.excluded),
    }


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
