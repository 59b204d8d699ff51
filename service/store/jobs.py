"""Submission of jobs and what people want of them. Never writes task state."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from service.errors import NotFound
from service.jobs import Desired, Job, JobSpec, Phase, Resolved
from service.store import schema
from service.store.codec import address_of, aware, from_json
from service.store.database import lock_submissions
from service.store.rows import GENERATION, account_id
from service.store.submissions import change_desired, find_submitted, get_row, insert_row, list_rows

_GONE = (Phase.failed.value, Phase.cancelled.value)
"""Phases of jobs that stand for nothing any more: what they were asked for may be asked for again."""


class JobStore:
    """Writes job rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(
        self, spec: JobSpec, resolved: Resolved, *, idempotency_key: str | None = None, now: datetime | None = None
    ) -> Job:
        """Stores a job and opens its account. Twice with one key and one document gives the same job.

        Args:
            now: time of submission; simulations pass their own.

        Raises:
            Conflict: the key was used for another document.
        """
        with self._engine.begin() as connection:
            lock_submissions(connection)
            known = find_submitted(connection, key=idempotency_key, kind=GENERATION, spec=spec)
            if known is not None:
                return _job(known)
            job_id = insert_job(
                connection, spec, resolved, idempotency_key=idempotency_key, now=now or datetime.now(UTC)
            )
        return self.get(job_id)

    def submit_import(
        self, spec: JobSpec, resolved: Resolved, *, idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Stores an import, unless the same one is there under any name; and whether it is new.

        Raises:
            Conflict: the key was used for another document.
        """
        with self._engine.begin() as connection:
            lock_submissions(connection)
            known = find_submitted(connection, key=idempotency_key, kind=GENERATION, spec=spec)
            known = known or _find_import(connection, spec)
            if known is not None:
                return _job(known), False
            job_id = insert_job(connection, spec, resolved, idempotency_key=idempotency_key, now=datetime.now(UTC))
        return self.get(job_id), True

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFound: no such job.
        """
        return _job(self._row(job_id))

    def resolved(self, job_id: str) -> Resolved:
        """What the job's names stood for.

        Raises:
            NotFound: no such job.
        """
        return from_json(Resolved, self._row(job_id)["resolved"])

    def list(self, *, limit: int = 50, before: int | None = None) -> list[tuple[int, Job]]:
        """Jobs with their numbers, newest first, below number `before`."""
        return [(row["number"], _job(row)) for row in list_rows(self._engine, GENERATION, limit=limit, before=before)]

    def set_desired(self, job_id: str, desired: Desired) -> Job:
        """Says what people want of a job. Wanting the same again changes nothing.

        Raises:
            NotFound: no such job.
            Conflict: the job has ended, or a cancelled job is asked to go on.
        """
        job = self.get(job_id)
        change_desired(self._engine, job_id, before=job.desired, phase=job.phase, desired=desired)
        return self.get(job_id)

    def _row(self, job_id: str) -> Any:
        row = get_row(self._engine, job_id, [GENERATION])
        if row is None:
            raise NotFound(f"no job {job_id!r}; GET /v1/jobs lists them")
        return row


def insert_job(
    connection: Connection, spec: JobSpec, resolved: Resolved, *, idempotency_key: str | None, now: datetime
) -> str:
    """Stores a job and opens its account; its id."""
    job_id = insert_row(
        connection,
        prefix="job",
        kind=GENERATION,
        spec=spec,
        resolved=resolved,
        idempotency_key=idempotency_key,
        now=now,
    )
    connection.execute(
        insert(schema.accounts).values(
            id=account_id(job_id, spec),
            currency=spec.budget.currency.value,
            limit=spec.budget.limit,
            spent=0,
            reserved=0,
        )
    )
    return job_id


def _find_import(connection: Connection, spec: JobSpec) -> Any | None:
    """The oldest import of the same, if there is one whose samples are there or will be. Names tell none apart."""
    assert spec.imported is not None, "only imports are looked for"
    jobs, wanted = schema.jobs, address_of(_nameless(spec))
    has_file = jobs.c.document.contains(spec.imported.files[0].sha256, autoescape=True)
    is_alive = jobs.c.phase.not_in(_GONE) & (jobs.c.desired != Desired.cancel.value)
    query = select(jobs).where((jobs.c.kind == GENERATION) & has_file & is_alive).order_by(jobs.c.number)
    for row in connection.execute(query).mappings():
        if address_of(_nameless(from_json(JobSpec, row["document"]))) == wanted:
            return row
    return None


def _nameless(spec: JobSpec) -> JobSpec:
    """The import without names that tell it from no other: its own, and those of its files."""
    assert spec.imported is not None, "only imports are looked for"
    files = tuple(dataclasses.replace(file, name="") for file in spec.imported.files)
    return dataclasses.replace(spec, name="", imported=dataclasses.replace(spec.imported, files=files))


def _job(row: Any) -> Job:
    return Job(
        id=row["id"],
        spec=from_json(JobSpec, row["document"]),
        desired=Desired(row["desired"]),
        phase=Phase(row["phase"]),
        created_at=aware(row["created_at"]) or row["created_at"],
        ended_at=aware(row["ended_at"]),
        error=row["error"],
    )
