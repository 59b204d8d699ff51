"""Submission of jobs and what people want of them. Never writes task state."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert

from service.errors import NotFound
from service.jobs import Desired, Job, JobSpec, Phase, Resolved
from service.store import schema
from service.store.codec import aware, from_json
from service.store.database import lock_submissions
from service.store.rows import GENERATION, account_id
from service.store.submissions import change_desired, find_submitted, get_row, insert_row, list_rows


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
