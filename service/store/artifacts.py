"""Selections, finetunes and comparisons: submission, what people want of them, and the control loop's view.

They are rows of the jobs' table with another `kind`: tasks, parts, events and usage refer to jobs of every kind alike.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from service.artifacts import TYPES, Artifact, ArtifactKind, ArtifactSpec, ArtifactWork
from service.errors import NotFound
from service.experiments.graph import Child
from service.jobs import Desired, Phase
from service.planner.plan import ArtifactView, ArtifactWrite
from service.store import schema
from service.store.codec import aware, from_json, to_json
from service.store.database import lock_submissions
from service.store.submissions import (
    TERMINAL_PHASES,
    change_desired,
    find_submitted,
    get_row,
    insert_row,
    list_rows,
)

PREFIXES = {
    ArtifactKind.selection: "select",
    ArtifactKind.finetune: "finetune",
    ArtifactKind.evaluation: "evaluate",
    ArtifactKind.comparison: "compare",
}
"""What ids of each kind begin with."""

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
        with self._engine.begin() as connection:
            lock_submissions(connection)
            kind = ArtifactKind.of(spec).value
            known = find_submitted(connection, key=idempotency_key, kind=kind, document=to_json(spec))
            if known is not None:
                return _artifact(known)
            artifact_id = insert_artifact(
                connection, spec, work, idempotency_key=idempotency_key, now=now or datetime.now(UTC)
            )
        return self.get(artifact_id)

    def get(self, artifact_id: str, kind: ArtifactKind | None = None) -> Artifact:
        """One artifact.

        Raises:
            NotFound: no such artifact, or none of that kind.
        """
        kinds = [each.value for each in ArtifactKind] if kind is None else [kind.value]
        row = get_row(self._engine, artifact_id, kinds)
        if row is None:
            raise NotFound(f"no {kind or 'artifact'} {artifact_id!r}; GET /v1/{kind or 'selection'}s lists them")
        return _artifact(row)

    def list(self, kind: ArtifactKind, *, limit: int = 50, before: int | None = None) -> list[tuple[int, Artifact]]:
        """Artifacts of one kind with their numbers, newest first, below number `before`."""
        rows = list_rows(self._engine, kind.value, limit=limit, before=before)
        return [(row["number"], _artifact(row)) for row in rows]

    def set_desired(self, artifact_id: str, desired: Desired, kind: ArtifactKind | None = None) -> Artifact:
        """Says what people want of an artifact. Wanting the same again changes nothing.

        Raises:
            NotFound: no such artifact.
            Conflict: it has ended, or is being cancelled and asked to go on.
        """
        artifact = self.get(artifact_id, kind)
        change_desired(self._engine, artifact_id, before=artifact.desired, phase=artifact.phase, desired=desired)
        return self.get(artifact_id)


def insert_artifact(
    connection: Connection, spec: ArtifactSpec, work: ArtifactWork, *, idempotency_key: str | None, now: datetime
) -> str:
    """Stores an artifact that is to be made; its id."""
    kind = ArtifactKind.of(spec)
    return insert_row(
        connection,
        prefix=PREFIXES[kind],
        kind=kind.value,
        spec=spec,
        resolved=work,
        idempotency_key=idempotency_key,
        now=now,
    )


def read_artifacts(connection: Connection, read_children: ReadChildren) -> tuple[ArtifactView, ...]:
    """Artifacts that are not over, as the planner sees them."""
    jobs, parts, tasks = schema.jobs, schema.parts, schema.tasks
    query = select(jobs).where(jobs.c.kind.in_([kind.value for kind in ArtifactKind]))
    rows = connection.execute(query.where(jobs.c.phase.not_in(TERMINAL_PHASES)).order_by(jobs.c.number)).mappings()
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
