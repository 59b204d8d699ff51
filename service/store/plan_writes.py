"""The control loop's one write: a plan, or nothing of it.

Every task row is fenced by the attempt and state it had when it was read, and the account rows carry the CHECK that
keeps the budget.
"""

import json
import math
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from service.errors import StaleAttempt
from service.ledger import TransferKind
from service.planner.plan import HostView, NodeWrite, PartWrite, Plan, Prepared, TaskWrite, UsageWrite
from service.shards import pack_array
from service.store import schema
from service.store.artifacts import write_artifact
from service.store.children import want_of_children, write_node
from service.store.codec import to_json
from service.store.database import lock_submissions


def write_plan(connection: Connection, plan: Plan, now: datetime) -> None:
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
_UPDATE_TASK = update(schema.tasks).where(
    (schema.tasks.c.id == bindparam("of"))
    & (schema.tasks.c.attempt == bindparam("read_attempt"))
    & (schema.tasks.c.state == bindparam("read_state"))
)
_UPDATE_HOST = update(schema.hosts).where(schema.hosts.c.name == bindparam("of"))
_INSERT_HOST = insert(schema.hosts)
_JOB_COLUMNS = ("closing", "error", "num_samples", "num_errors", "num_correct", "num_engine_deaths")
_COUNTED_OF_POOLS = ("failures", "waiting_since", "load_s", "num_turns")


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
