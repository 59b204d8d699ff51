"""Selections, finetunes and comparisons: submission, what people want of them, and the control loop's view.

They are rows of the jobs' table with another `kind`: tasks, parts, events and usage refer to jobs of every kind alike.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update

from service.artifacts import TYPES, Artifact, ArtifactKind, ArtifactSpec, ArtifactWork
from service.errors import NotFound
from service.experiments.nodes import Child
from service.jobs import Desired, Phase
from service.planner.plan import ArtifactView, ArtifactWrite
from service.store import schema
from service.store.codec import aware, from_json
from service.store.database import lock_submissions
from service.store.submissions import (
    ACTIVE_PHASES,
    batches,
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

ReadChildren = Callable[[Connection, str, Desired], dict[str, Child]]
"""What a comparison has submitted, by key, from its id and what is wanted of it."""


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
            known = find_submitted(connection, key=idempotency_key, kind=kind, spec=spec)
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


# Built once: to build a statement takes longer than to run it, and a tick runs each of these.
_JOBS, _PARTS, _TASKS = schema.jobs.c, schema.parts.c, schema.tasks.c
_IS_ACTIVE = _JOBS.phase.in_(ACTIVE_PHASES) & _JOBS.kind.in_([kind.value for kind in ArtifactKind])
_ACTIVE = (
    select(_JOBS.id, _JOBS.kind, _JOBS.desired, _JOBS.phase, _JOBS.error, _JOBS.created_at)
    .where(_IS_ACTIVE)
    .order_by(_JOBS.number)
)
_ACTIVE_IDS = select(_JOBS.id).where(_IS_ACTIVE)
_NEWEST = select(func.max(_PARTS.number)).where(_PARTS.job_id.in_(_ACTIVE_IDS)).group_by(_PARTS.job_id)
_LAST_PARTS = select(_PARTS.job_id, _PARTS.path).where(_PARTS.number.in_(_NEWEST))
_BEGUN = select(_TASKS.job_id).where(_TASKS.job_id.in_(_ACTIVE_IDS)).distinct()


class ArtifactReader:
    """Reads artifacts that are not over. Keeps their decoded documents, which never change.

    Args:
        read_children: what a comparison has submitted.
    """

    def __init__(self, read_children: ReadChildren) -> None:
        self._read_children = read_children
        self._documents: dict[str, tuple[ArtifactSpec, ArtifactWork]] = {}

    def read(self, connection: Connection) -> tuple[ArtifactView, ...]:
        """All of them as the planner sees them, oldest first."""
        rows = connection.execute(_ACTIVE).mappings().all()
        self._read_documents(connection, [row["id"] for row in rows])
        if not rows:
            return ()
        paths = {job_id: path for job_id, path in connection.execute(_LAST_PARTS)}
        begun = set(connection.execute(_BEGUN).scalars())
        return tuple(
            self._view(connection, row, last_part_path=paths.get(row["id"]), has_task=row["id"] in begun)
            for row in rows
        )

    def _read_documents(self, connection: Connection, ids: list[str]) -> None:
        jobs = schema.jobs
        self._documents = {id_: self._documents[id_] for id_ in ids if id_ in self._documents}
        columns = select(jobs.c.id, jobs.c.kind, jobs.c.document, jobs.c.resolved)
        for batch in batches([id_ for id_ in ids if id_ not in self._documents]):
            for row in connection.execute(columns.where(jobs.c.id.in_(batch))).mappings():
                self._documents[row["id"]] = _documents(row)

    def _view(self, connection: Connection, row: Any, *, last_part_path: str | None, has_task: bool) -> ArtifactView:
        kind, desired = ArtifactKind(row["kind"]), Desired(row["desired"])
        spec, work = self._documents[row["id"]]
        return ArtifactView(
            id=row["id"],
            kind=kind,
            spec=spec,
            work=work,
            desired=desired,
            phase=Phase(row["phase"]),
            error=row["error"],
            last_part_path=last_part_path,
            has_task=has_task,
            children=self._read_children(connection, row["id"], desired) if kind.has_children else {},
            created_at=aware(row["created_at"]) or row["created_at"],
        )


def write_artifact(connection: Connection, write: ArtifactWrite, now: datetime) -> None:
    """Stores an artifact's new derived state."""
    values: dict[str, Any] = {"phase": write.phase.value, "error": write.error}
    values |= {"ended_at": now} if write.phase.is_terminal else {}
    connection.execute(update(schema.jobs).where(schema.jobs.c.id == write.id).values(**values))


def _artifact(row: Any) -> Artifact:
    kind = ArtifactKind(row["kind"])
    spec, work = _documents(row)
    return Artifact(
        id=row["id"],
        kind=kind,
        spec=spec,
        work=work,
        desired=Desired(row["desired"]),
        phase=Phase(row["phase"]),
        created_at=aware(row["created_at"]) or row["created_at"],
        ended_at=aware(row["ended_at"]),
        error=row["error"],
    )


def _documents(row: Any) -> tuple[ArtifactSpec, ArtifactWork]:
    spec_type, work_type = TYPES[ArtifactKind(row["kind"])]
    return from_json(spec_type, row["document"]), from_json(work_type, row["resolved"])
