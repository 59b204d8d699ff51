"""Rows of the jobs' table, whatever their kind: how one is stored once, listed, and told what people want of it.

Jobs, selections, finetunes, evaluations and comparisons are all rows here, told apart by `kind`, so that tasks, parts,
events and usage can refer to any of them. What a row's documents mean is its store's.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update

from service.errors import Conflict
from service.jobs import Desired, Phase
from service.store import schema
from service.store.codec import address_of, to_json
from service.store.database import reading

TERMINAL_PHASES = tuple(phase.value for phase in Phase if phase.is_terminal)
ACTIVE_PHASES = tuple(phase.value for phase in Phase if not phase.is_terminal)
"""For queries that are to use the index of phases: "not terminal" would go through every row there ever was."""


_BATCH = 1000
"""Ids of one query: databases bound how many values it may have."""


def batches(ids: Sequence[str]) -> list[Sequence[str]]:
    """The ids in as many as one query may name."""
    return [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]


def find_submitted(connection: Connection, *, key: str | None, kind: str, spec: object) -> Any | None:
    """The row that was stored under an Idempotency-Key before, if any.

    Raises:
        Conflict: it has another kind or document.
    """
    if key is None:
        return None
    jobs = schema.jobs
    row = connection.execute(select(jobs).where(jobs.c.idempotency_key == key)).mappings().first()
    if row is not None and (row["kind"] != kind or row["request_sha256"] != address_of(spec)):
        raise Conflict(f"Idempotency-Key {key!r} was used for {row['id']} with another document")
    return row


def insert_row(
    connection: Connection,
    *,
    prefix: str,
    kind: str,
    spec: Any,
    resolved: object,
    idempotency_key: str | None,
    now: datetime,
) -> str:
    """Stores a row under the next number, and says so; its id. The caller holds the lock of submissions.

    Args:
        prefix: what the id begins with.
        spec: the resolved document; has a name.
        resolved: what its names stood for.
    """
    jobs = schema.jobs
    number = (connection.execute(select(func.max(jobs.c.number))).scalar_one() or 0) + 1
    row_id = f"{prefix}-{number}-{secrets.token_hex(3)}"
    connection.execute(
        insert(jobs).values(
            id=row_id,
            number=number,
            kind=kind,
            name=spec.name,
            document=to_json(spec),
            resolved=to_json(resolved),
            idempotency_key=idempotency_key,
            request_sha256=address_of(spec),
            desired=Desired.run.value,
            phase=Phase.queued.value,
            created_at=now,
        )
    )
    connection.execute(insert(schema.events).values(job_id=row_id, kind="submitted", message=spec.name, at=now))
    return row_id


def get_row(engine: Engine, row_id: str, kinds: Sequence[str]) -> Any | None:
    """The row of that id, if it is of one of these kinds."""
    jobs = schema.jobs
    with reading(engine) as connection:
        query = select(jobs).where((jobs.c.id == row_id) & jobs.c.kind.in_(kinds))
        return connection.execute(query).mappings().first()


def list_rows(engine: Engine, kind: str, *, limit: int, before: int | None) -> Sequence[Any]:
    """Rows of a kind, newest first, below number `before`."""
    jobs = schema.jobs
    query = select(jobs).where(jobs.c.kind == kind).order_by(jobs.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(jobs.c.number < before)
    with reading(engine) as connection:
        return connection.execute(query).mappings().all()


def change_desired(engine: Engine, row_id: str, *, before: Desired, phase: Phase, desired: Desired) -> None:
    """Stores what people want of a row. Wanting the same again changes nothing.

    Args:
        before: what was wanted when the row was looked at; with `phase`, where it stood then.

    Raises:
        Conflict: it has ended, is being cancelled and asked to go on, or was changed since it was looked at.
    """
    if before is desired and not (phase.is_terminal and desired is not Desired.cancel):
        return
    if phase.is_terminal:
        raise Conflict(f"{row_id} is {phase} and cannot be changed to {desired!s}")
    if before is Desired.cancel:
        raise Conflict(f"{row_id} is being cancelled and cannot be changed to {desired!s}")
    jobs = schema.jobs
    with engine.begin() as connection:
        # what was looked at must still hold, or a cancel stored in between would be taken back
        fence = (jobs.c.id == row_id) & (jobs.c.desired == before.value) & (jobs.c.ended_at.is_(None))
        if connection.execute(update(jobs).where(fence).values(desired=desired.value)).rowcount != 1:
            raise Conflict(f"{row_id} was changed by somebody else meanwhile; look at it again")
        event, now = {"job_id": row_id, "kind": "desired", "message": f"asked to {desired!s}"}, datetime.now(UTC)
        connection.execute(insert(schema.events).values(**event, at=now))
        parents = select(schema.children.c.comparison_id).where(schema.children.c.child_id == row_id)
        say_paused(connection, row_id, now, connection.execute(parents).scalars().all())


def say_paused(connection: Connection, child_id: str, now: datetime, comparisons: Sequence[str]) -> None:
    """Tells comparisons that a child holds them up, if people have paused it.

    Called once for each: as the child is paused, or as a comparison comes to need it.
    """
    jobs = schema.jobs
    is_paused = (jobs.c.id == child_id) & (jobs.c.desired == Desired.pause.value) & jobs.c.ended_at.is_(None)
    if connection.execute(select(jobs.c.id).where(is_paused)).first() is None:
        return
    is_waiting = jobs.c.id.in_(comparisons) & (jobs.c.desired == Desired.run.value) & jobs.c.ended_at.is_(None)
    for comparison_id in connection.execute(select(jobs.c.id).where(is_waiting)).scalars().all():
        event = {"job_id": comparison_id, "kind": "waiting", "message": f"{child_id} is paused; resume it to go on"}
        connection.execute(insert(schema.events).values(**event, at=now))
