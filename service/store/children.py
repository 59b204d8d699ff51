"""Children of comparisons: which jobs, selections and finetunes stand for which nodes.

A node is found by its document: one that was made, or is being made, for another comparison or by hand with the very
same document is taken instead of a new one, so that a comparison that is run again costs nothing, and a longer one
only what it has more.
"""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from service.artifacts import ArtifactKind
from service.experiments.graph import Child, Node
from service.jobs import Desired, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.planner.plan import ChildrenWrite, NodeWrite
from service.store import schema
from service.store.artifacts import PREFIXES, insert_artifact
from service.store.codec import from_json, to_json
from service.store.jobs import insert_job
from service.store.rows import GENERATION
from service.store.submissions import TERMINAL_PHASES, sha256_of
from service.work import TaskKind

_GONE = [Phase.failed.value, Phase.cancelled.value]
_BATCH = 1000
"""Ids of one query: databases bound how many values it may have."""


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
        found = {row["id"]: self._ended.get(row["id"]) or _child(row, is_shared=row["id"] in shared) for row in rows}
        # results of others are not looked at before they have ended
        fresh = {id_: child for id_, child in found.items() if child.phase.is_terminal and id_ not in self._ended}
        kinds = {row["id"]: row["kind"] for row in rows}
        for ids in _batches(list(fresh)):
            jobs_of_batch = [id_ for id_ in ids if kinds[id_] == GENERATION]
            results = [_flops(connection, jobs_of_batch), _datasets(connection, ids), _checkpoints(connection, ids)]
            for id_ in ids:
                values = {name: value for result in results for name, value in result.get(id_, {}).items()}
                self._ended[id_] = found[id_] = dataclasses.replace(fresh[id_], **values)
        return {row["key"]: found[row["id"]] for row in rows}


def _child(row: Any, *, is_shared: bool) -> Child:
    return Child(
        id=row["id"],
        phase=Phase(row["phase"]),
        desired=Desired(row["desired"]),
        is_shared=is_shared,
        num_samples=row["num_samples"],
        num_correct=row["num_correct"],
    )


def read_phases(connection: Connection, comparison_id: str) -> list[tuple[str, str, Phase]]:
    """Key, id and phase of everything that a comparison has submitted, by key."""
    jobs, children = schema.jobs, schema.children
    query = select(children.c.key, jobs.c.id, jobs.c.phase).join(jobs, jobs.c.id == children.c.child_id)
    rows = connection.execute(query.where(children.c.comparison_id == comparison_id).order_by(children.c.key))
    return [(key, id_, Phase(phase)) for key, id_, phase in rows]


def write_node(connection: Connection, write: NodeWrite, now: datetime) -> None:
    """Submits a node, or takes the job, selection or finetune that is the same."""
    node, jobs = write.node, schema.jobs
    kind = GENERATION if isinstance(node.spec, JobSpec) else ArtifactKind.of(node.spec).value
    same = (
        (jobs.c.request_sha256 == sha256_of(to_json(node.spec)))
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
    goes_on = jobs.c.phase.not_in(TERMINAL_PHASES) & (jobs.c.desired != Desired.cancel.value) & jobs.c.error.is_(None)
    return query.where((children.c.comparison_id != comparison_id) & goes_on)


def _flops(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    usage = schema.usage
    query = select(usage.c.job_id, func.sum(usage.c.flops), func.sum(usage.c.flops_paper)).where(
        usage.c.job_id.in_(ids) & (usage.c.outcome == "useful")
    )
    rows = connection.execute(query.group_by(usage.c.job_id))
    return {id_: {"useful_flops": flops, "useful_flops_paper": paper} for id_, flops, paper in rows}


def _datasets(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    parts = schema.parts
    query = select(parts.c.job_id, parts.c.path, parts.c.sha256).where(
        parts.c.job_id.in_(ids) & (parts.c.kind == TaskKind.select.value)
    )
    rows = connection.execute(query.order_by(parts.c.number))  # the last one counts
    return {id_: {"dataset": (path, sha256)} for id_, path, sha256 in rows}


def _checkpoints(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By the names of models, which begin with the id of their finetune."""
    models = schema.models
    wanted = {id_ for id_ in ids if id_.startswith(PREFIXES[ArtifactKind.finetune])}
    if not wanted:
        return {}
    # names first: one query for each finetune would go through all models as often
    names = connection.execute(select(models.c.name).where(models.c.name.like("%/step-%"))).scalars()
    mine = [name for name in names if name.rpartition("/")[0] in wanted]
    found: dict[str, list[ModelSpec]] = {}
    for batch in _batches(mine):
        for text in connection.execute(select(models.c.document).where(models.c.name.in_(batch))).scalars():
            checkpoint = from_json(ModelSpec, text)
            found.setdefault(checkpoint.name.rpartition("/")[0], []).append(checkpoint)
    return {id_: {"checkpoints": tuple(sorted(each, key=_step))} for id_, each in found.items()}


def _batches(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _BATCH] for start in range(0, len(values), _BATCH)]


def _step(checkpoint: ModelSpec) -> int:
    return int(checkpoint.name.rpartition("-")[2])
