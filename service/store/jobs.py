"""Submission of jobs and what people want of them. Never writes task state."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update

from service.errors import Conflict, NotFound
from service.jobs import Desired, Job, JobSpec, Phase, Resolved
from service.store import schema
from service.store.codec import aware, from_json, to_json
from service.store.database import lock_submissions, reading
from service.store.rows import GENERATION, IS_GENERATION, account_id


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
        document = to_json(spec)
        sha256 = hashlib.sha256(document.encode()).hexdigest()
        jobs = schema.jobs
        with self._engine.begin() as connection:
            lock_submissions(connection)
            if idempotency_key is not None:
                row = (
                    connection.execute(select(jobs).where(jobs.c.idempotency_key == idempotency_key)).mappings().first()
                )
                if row is not None:
                    if row["kind"] != GENERATION or row["request_sha256"] != sha256:
                        raise Conflict(
                            f"Idempotency-Key {idempotency_key!r} was used for job {row['id']} with another document"
                        )
                    return _job(row)
            job_id = insert_job(
                connection, spec, resolved, idempotency_key=idempotency_key, now=now or datetime.now(UTC)
            )
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFound: no such job.
        """
        jobs = schema.jobs
        with reading(self._engine) as connection:
            row = connection.execute(select(jobs).where(IS_GENERATION & (jobs.c.id == job_id))).mappings().first()
        if row is None:
            raise NotFound(f"no job {job_id!r}; GET /v1/jobs lists them")
        return _job(row)

    def resolved(self, job_id: str) -> Resolved:
        """What the job's names stood for.

        Raises:
            NotFound: no such job.
        """
        with reading(self._engine) as connection:
            query = select(schema.jobs.c.resolved).where(IS_GENERATION & (schema.jobs.c.id == job_id))
            text = connection.execute(query).scalar()
        if text is None:
            raise NotFound(f"no job {job_id!r}; GET /v1/jobs lists them")
        return from_json(Resolved, text)

    def list(self, *, limit: int = 50, before: int | None = None) -> list[tuple[int, Job]]:
        """Jobs with their numbers, newest first, below number `before`."""
        jobs = schema.jobs
        query = select(jobs).where(IS_GENERATION).order_by(jobs.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with reading(self._engine) as connection:
            return [(row["number"], _job(row)) for row in connection.execute(query).mappings()]

    def set_desired(self, job_id: str, desired: Desired) -> Job:
        """Says what people want of a job. Wanting the same again changes nothing.

        Raises:
            NotFound: no such job.
            Conflict: the job has ended, or a cancelled job is asked to go on.
        """
        job = self.get(job_id)
        if job.desired is desired and not (job.phase.is_terminal and desired is not Desired.cancel):
            return job
        if job.phase.is_terminal:
            raise Conflict(f"job {job_id} is {job.phase} and cannot be changed to {desired!s}")
        if job.desired is Desired.cancel:
            raise Conflict(f"job {job_id} is being cancelled and cannot be changed to {desired!s}")
        jobs = schema.jobs
        with self._engine.begin() as connection:
            # what was looked at must still hold, or a cancel stored in between would be taken back
            fence = (jobs.c.id == job_id) & (jobs.c.desired == job.desired.value) & (jobs.c.ended_at.is_(None))
            if connection.execute(update(jobs).where(fence).values(desired=desired.value)).rowcount != 1:
                raise Conflict(f"job {job_id} was changed by somebody else meanwhile; look at it again")
            connection.execute(
                insert(schema.events).values(
                    job_id=job_id, kind="desired", message=f"asked to {desired!s}", at=datetime.now(UTC)
                )
            )
        return self.get(job_id)


def insert_job(
    connection: Connection, spec: JobSpec, resolved: Resolved, *, idempotency_key: str | None, now: datetime
) -> str:
    """Stores a job and opens its account; its id."""
    jobs, document = schema.jobs, to_json(spec)
    number = (connection.execute(select(func.max(jobs.c.number))).scalar_one() or 0) + 1
    job_id = f"job-{number}-{secrets.token_hex(3)}"
    connection.execute(
        insert(jobs).values(
            id=job_id,
            number=number,
            name=spec.name,
            document=document,
            resolved=to_json(resolved),
            idempotency_key=idempotency_key,
            request_sha256=hashlib.sha256(document.encode()).hexdigest(),
            desired=Desired.run.value,
            phase=Phase.queued.value,
            created_at=now,
        )
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
    connection.execute(insert(schema.events).values(job_id=job_id, kind="submitted", message=spec.name, at=now))
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
