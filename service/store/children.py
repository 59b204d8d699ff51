"""Children of comparisons: which jobs, selections and finetunes stand for which nodes.

A node is found by its document: one that was made, or is being made, for another comparison or by hand with the very
same document is taken instead of a new one, so that a comparison that is run again costs nothing, and a longer one
only what it has more.
"""

import dataclasses
import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from service.artifacts import ArtifactKind
from service.cluster import TaskKind
from service.experiments.graph import Child, Node
from service.jobs import Desired, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.planner.plan import ChildrenWrite, NodeWrite
from service.store import schema
from service.store.artifacts import insert_artifact
from service.store.codec import from_json, to_json
from service.store.jobs import insert_job
from service.store.rows import GENERATION

_TERMINAL = [phase.value for phase in Phase if phase.is_terminal]
_GONE = [Phase.failed.value, Phase.cancelled.value]


class ChildReader:
    """Reads children. What is known of one that has ended is kept, for it never changes."""

    def __init__(self) -> None:
        self._ended: dict[str, Child] = {}

    def read(self, connection: Connection, comparison_id: str) -> dict[str, Child]:
        """Everything that a comparison has submitted, by key."""
        jobs, children = schema.jobs, schema.children
        columns = (jobs.c.id, jobs.c.kind, jobs.c.phase, jobs.c.desired, jobs.c.num_samples, jobs.c.num_correct)
        query = select(children.c.key, *columns).join(jobs, jobs.c.id == children.c.child_id)
        rows = connection.execute(query.where(children.c.comparison_id == comparison_id)).mappings().all()
        shared = set(connection.execute(_needed_by_others(comparison_id)).scalars())
        return {row["key"]: self._child(connection, row, is_shared=row["id"] in shared) for row in rows}

    def _child(self, connection: Connection, row: Any, *, is_shared: bool) -> Child:
        if row["id"] in self._ended:
            return self._ended[row["id"]]
        child = Child(
            id=row["id"],
            phase=Phase(row["phase"]),
            desired=Desired(row["desired"]),
            is_shared=is_shared,
            num_samples=row["num_samples"],
            num_correct=row["num_correct"],
        )
        if not child.phase.is_terminal:
            return child  # its results are not looked at before it has ended
        if row["kind"] == GENERATION:
            child = _with_flops(connection, child)
        elif row["kind"] == ArtifactKind.selection:
            child = _with_dataset(connection, child)
        elif row["kind"] == ArtifactKind.finetune:
            child = _with_checkpoints(connection, child)
        self._ended[child.id] = child
        return child


def write_node(connection: Connection, write: NodeWrite, now: datetime) -> None:
    """Submits a node, or takes the job, selection or finetune that is the same."""
    node, jobs = write.node, schema.jobs
    document = to_json(node.spec)
    kind = GENERATION if isinstance(node.spec, JobSpec) else ArtifactKind.of(node.spec).value
    same = (
        (jobs.c.request_sha256 == hashlib.sha256(document.encode()).hexdigest())
        & (jobs.c.kind == kind)
        & jobs.c.phase.not_in(_GONE)
        & (jobs.c.desired != Desired.cancel.value)
    )
    child_id = connection.execute(select(jobs.c.id).where(same).order_by(jobs.c.number).limit(1)).scalar()
    if child_id is None:
        child_id = _insert(connection, node, now)
    values = {"comparison_id": write.comparison_id, "key": node.key, "child_id": child_id}
    connection.execute(insert(schema.children).values(**values))


def _insert(connection: Connection, node: Node, now: datetime) -> str:
    if isinstance(node.spec, JobSpec):
        assert isinstance(node.work, Resolved), "a job's names stand for a Resolved"
        return insert_job(connection, node.spec, node.work, idempotency_key=None, now=now)
    assert not isinstance(node.work, Resolved), "only a job's names stand for a Resolved"
    return insert_artifact(connection, node.spec, node.work, idempotency_key=None, now=now)


def want_of_children(connection: Connection, write: ChildrenWrite) -> None:
    """Stores what a comparison wants of children that are not over.

    Those that another comparison needs are neither paused nor ended, but made to go on: the other may be the one that
    paused them, and would hold up this one.
    """
    jobs, children = schema.jobs, schema.children
    mine = select(children.c.child_id).where(children.c.comparison_id == write.comparison_id)
    is_meant = jobs.c.id.in_(mine) & jobs.c.ended_at.is_(None) & (jobs.c.desired != Desired.cancel.value)
    if write.desired is not Desired.run:
        is_meant &= jobs.c.id.not_in(_needed_by_others(write.comparison_id))
    connection.execute(update(jobs).where(is_meant).values(desired=write.desired.value))


def _needed_by_others(comparison_id: str) -> Select[tuple[str]]:
    """Children of the other comparisons that go on: of two that end together each would leave them to the other."""
    jobs, children = schema.jobs, schema.children
    query = select(children.c.child_id).join(jobs, jobs.c.id == children.c.comparison_id)
    goes_on = jobs.c.phase.not_in(_TERMINAL) & (jobs.c.desired != Desired.cancel.value) & jobs.c.error.is_(None)
    return query.where((children.c.comparison_id != comparison_id) & goes_on)


def _with_flops(connection: Connection, child: Child) -> Child:
    usage = schema.usage
    query = select(func.sum(usage.c.flops), func.sum(usage.c.flops_paper)).where(
        (usage.c.job_id == child.id) & (usage.c.outcome == "useful")
    )
    flops, paper = connection.execute(query).one()
    return dataclasses.replace(child, useful_flops=flops or 0.0, useful_flops_paper=paper or 0.0)


def _with_dataset(connection: Connection, child: Child) -> Child:
    parts = schema.parts
    query = select(parts.c.path, parts.c.sha256).where(
        (parts.c.job_id == child.id) & (parts.c.kind == TaskKind.select.value)
    )
    row = connection.execute(query.order_by(parts.c.number.desc()).limit(1)).first()
    return child if row is None else dataclasses.replace(child, dataset=(row[0], row[1]))


def _with_checkpoints(connection: Connection, child: Child) -> Child:
    models = schema.models
    query = select(models.c.document).where(models.c.name.startswith(f"{child.id}/step-", autoescape=True))
    found = [from_json(ModelSpec, text) for text in connection.execute(query).scalars()]
    return dataclasses.replace(child, checkpoints=tuple(sorted(found, key=_step)))


def _step(checkpoint: ModelSpec) -> int:
    return int(checkpoint.name.rpartition("-")[2])
