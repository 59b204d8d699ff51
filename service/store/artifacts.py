"""Selections, finetunes and comparisons: submission, what people want of them, and the control loop's view.

They are rows of the jobs' table with another `kind`: tasks, parts, events and usage refer to jobs of every kind alike.
"""

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update

from service.artifacts import TYPES, Artifact, ArtifactKind, ArtifactSpec, ArtifactWork
from service.errors import Conflict, NotFound
from service.experiments.graph import Child
from service.jobs import Desired, Phase
from service.planner.plan import ArtifactView, ArtifactWrite
from service.store import schema
from service.store.codec import aware, from_json, to_json
from service.store.database import lock_submissions, reading

PREFIXES = {
    ArtifactKind.selection: "select",
    ArtifactKind.finetune: "finetune",
    ArtifactKind.evaluation: "evaluate",
    ArtifactKind.comparison: "compare",
}
"""What ids of each kind begin with."""
_TERMINAL_PHASES = tuple(phase.value for phase in Phase if phase.is_terminal)


ReadChildren = Callable[[str], dict[str, Child]]
"""What a comparison has submitted, by key."""


class ArtifactStore:
    """Writes and reads artifacts' rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(
        self, spec: ArtifactSpec, work: ArtifactWork, *, idempotency_key: str | None = None, now: datetime | None = None
    ) -> Artifact:
        """Stores an artifact that is to be made. Twice with one key and one document gives the same.

        Raises:
            Conflict: the key was used for another document.
        """
        kind = ArtifactKind.of(spec)
        document = to_json(spec)
        sha256 = hashlib.sha256(document.encode()).hexdigest()
        jobs = schema.jobs
        with self._engine.begin() as connection:
            lock_submissions(connection)
            if idempotency_key is not None:
                known = connection.execute(select(jobs).where(jobs.c.idempotency_key == idempotency_key)).mappings()
                row = known.first()
                if row is not None and (row["kind"] != kind.value or row["request_sha256"] != sha256):
                    raise Conflict(f"Idempotency-Key {idempotency_key!r} was used for {row['id']} with other content")
                if row is not None:
                    return _artifact(row)
            artifact_id = insert_artifact(
                connection, spec, work, idempotency_key=idempotency_key, now=now or datetime.now(UTC)
            )
        return self.get(artifact_id)

    def get(self, artifact_id: str, kind: ArtifactKind | None = None) -> Artifact:
        """One artifact.

        Raises:
            NotFound: no such artifact, or none of that kind.
        """
        jobs = schema.jobs
        kinds = [each.value for each in ArtifactKind] if kind is None else [kind.value]
        query = select(jobs).where((jobs.c.id == artifact_id) & jobs.c.kind.in_(kinds))
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"no {kind or 'artifact'} {artifact_id!r}; GET /v1/{kind or 'selection'}s lists them")
        return _artifact(row)

    def list(self, kind: ArtifactKind, *, limit: int = 50, before: int | None = None) -> list[tuple[int, Artifact]]:
        """Artifacts of one kind with their numbers, newest first, below number `before`."""
        jobs = schema.jobs
        query = select(jobs).where(jobs.c.kind == kind.value).order_by(jobs.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with reading(self._engine) as connection:
            return [(row["number"], _artifact(row)) for row in connection.execute(query).mappings()]

    def set_desired(self, artifact_id: str, desired: Desired, kind: ArtifactKind | None = None) -> Artifact:
        """Says what people want of an artifact. Wanting the same again changes nothing.

        Raises:
            NotFound: no such artifact.
            Conflict: it has ended, or is being cancelled and asked to go on.
        """
        artifact = self.get(artifact_id, kind)
        if artifact.desired is desired and not artifact.phase.is_terminal:
            return artifact
        if artifact.phase.is_terminal:
            raise Conflict(f"{artifact_id} is {artifact.phase} and cannot be changed to {desired!s}")
        if artifact.desired is Desired.cancel:
            raise Conflict(f"{artifact_id} is being cancelled and cannot be changed to {desired!s}")
        jobs = schema.jobs
        fence = (jobs.c.id == artifact_id) & (jobs.c.desired == artifact.desired.value) & (jobs.c.ended_at.is_(None))
        with self._engine.begin() as connection:
            if connection.execute(update(jobs).where(fence).values(desired=desired.value)).rowcount != 1:
                raise Conflict(f"{artifact_id} was changed by somebody else meanwhile; look at it again")
            event = {"job_id": artifact_id, "kind": "desired", "message": f"asked to {desired!s}"}
            connection.execute(insert(schema.events).values(**event, at=datetime.now(UTC)))
        return self.get(artifact_id)


def insert_artifact(
    connection: Connection, spec: ArtifactSpec, work: ArtifactWork, *, idempotency_key: str | None, now: datetime
) -> str:
    """Stores an artifact that is to be made; its id."""
    jobs, kind, document = schema.jobs, ArtifactKind.of(spec), to_json(spec)
    number = (connection.execute(select(func.max(jobs.c.number))).scalar_one() or 0) + 1
    artifact_id = f"{PREFIXES[kind]}-{number}-{secrets.token_hex(3)}"
    connection.execute(
        insert(jobs).values(
            id=artifact_id,
            number=number,
            kind=kind.value,
            name=spec.name,
            document=document,
            resolved=to_json(work),
            idempotency_key=idempotency_key,
            request_sha256=hashlib.sha256(document.encode()).hexdigest(),
            desired=Desired.run.value,
            phase=Phase.queued.value,
            created_at=now,
        )
    )
    event = {"job_id": artifact_id, "kind": "submitted", "message": spec.name, "at": now}
    connection.execute(insert(schema.events).values(**event))
    return artifact_id


def read_artifacts(connection: Connection, read_children: ReadChildren) -> tuple[ArtifactView, ...]:
    """Artifacts that are not over, as the planner sees them."""
    jobs, parts, tasks = schema.jobs, schema.parts, schema.tasks
    query = select(jobs).where(jobs.c.kind.in_([kind.value for kind in ArtifactKind]))
    rows = connection.execute(query.where(jobs.c.phase.not_in(_TERMINAL_PHASES)).order_by(jobs.c.number)).mappings()
    views: list[ArtifactView] = []
    for row in rows.all():
        artifact = _artifact(row)
        last = select(parts.c.path).where(parts.c.job_id == artifact.id).order_by(parts.c.number.desc()).limit(1)
        views.append(
            ArtifactView(
                id=artifact.id,
                kind=artifact.kind,
                spec=artifact.spec,
                work=artifact.work,
                desired=artifact.desired,
                phase=artifact.phase,
                error=artifact.error,
                last_part_path=connection.execute(last).scalar(),
                has_task=connection.execute(select(tasks.c.id).where(tasks.c.job_id == artifact.id)).first()
                is not None,
                children=read_children(artifact.id) if artifact.kind.has_children else {},
                created_at=artifact.created_at,
            )
        )
    return tuple(views)


def write_artifact(connection: Connection, write: ArtifactWrite, now: datetime) -> None:
    """Stores an artifact's new derived state."""
    values: dict[str, Any] = {"phase": write.phase.value, "error": write.error}
    values |= {"ended_at": now} if write.phase.is_terminal else {}
    connection.execute(update(schema.jobs).where(schema.jobs.c.id == write.id).values(**values))


def _artifact(row: Any) -> Artifact:
    kind = ArtifactKind(row["kind"])
    return Artifact(
        id=row["id"],
        kind=kind,
        spec=from_json(TYPES[kind][0], row["document"]),
        work=from_json(TYPES[kind][1], row["resolved"]),
        desired=Desired(row["desired"]),
        phase=Phase(row["phase"]),
        created_at=aware(row["created_at"]) or row["created_at"],
        ended_at=aware(row["ended_at"]),
        error=row["error"],
    )
