"""Children of comparisons: which jobs, selections and finetunes stand for which nodes.

A node is found by its document: one that was made, or is being made, for another comparison or by hand with the very
same document is taken instead of a new one, so that a comparison that is run again costs nothing, and a longer one
only what it has more. A draw is taken only at the prices and FLOPs of today, for what it usefully spent is what others
may be matched to, and any job only where it was told of sampling what its models say today.
"""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, insert, select, update

from service.artifacts import ArtifactKind
from service.experiments.nodes import Child, Node
from service.jobs import Desired, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.planner.plan import ChildrenWrite, NodeWrite
from service.store import schema
from service.store.artifacts import PREFIXES, insert_artifact
from service.store.codec import address_of, from_json
from service.store.jobs import insert_job
from service.store.rows import GENERATION, known, sum_if_known
from service.store.submissions import ACTIVE_PHASES, TERMINAL_PHASES, batches, say_paused
from service.work import TaskKind

_GONE = [Phase.failed.value, Phase.cancelled.value]


class ChildReader:
    """Reads children. What is known of one that has ended is kept, by comparison and key, for it never changes."""

    def __init__(self) -> None:
        self._ended: dict[str, dict[str, Child]] = {}
        self._going_on: dict[str, dict[str, Child]] = {}

    def read(self, connection: Connection, comparison_id: str, desired: Desired = Desired.run) -> dict[str, Child]:
        """Everything that a comparison has submitted, by key. Costs as much as there is that goes on or has just ended.

        Args:
            desired: what is wanted of the comparison, which decides what counts as shared.
        """
        jobs, children = schema.jobs, schema.children
        is_mine = children.c.comparison_id == comparison_id
        query = _children(comparison_id, desired)
        # of all comparisons: from the few that go on to their keys, not from all keys to those that go on
        rows = connection.execute(query.where(jobs.c.phase.in_(ACTIVE_PHASES))).mappings()
        going_on = {row["key"]: _child(row) for row in rows if row["comparison_id"] == comparison_id}
        ended = self._ended.setdefault(comparison_id, {})
        number = connection.execute(select(func.count()).select_from(children).where(is_mine)).scalar_one()
        before, self._going_on[comparison_id] = self._going_on.get(comparison_id, {}), going_on
        just_ended = [child.id for key, child in before.items() if key not in going_on]
        # all are gone through only for those that were over when they were taken, or before this reader came
        for is_sought in (jobs.c.id.in_(just_ended), jobs.c.phase.in_(TERMINAL_PHASES)):
            if len(going_on) + len(ended) < number:
                rows = connection.execute(query.where(is_mine & is_sought)).mappings()
                ended |= _with_results(connection, {row["key"]: _child(row) for row in rows if row["key"] not in ended})
        return ended | going_on


def _children(comparison_id: str, desired: Desired) -> Select[*tuple[Any, ...]]:
    jobs, children = schema.jobs, schema.children
    is_shared = _is_needed_by_others(comparison_id, desired).label("is_shared")
    columns = (jobs.c.id, jobs.c.phase, jobs.c.desired, jobs.c.num_samples, jobs.c.num_correct, is_shared)
    return select(children.c.comparison_id, children.c.key, *columns).join(jobs, jobs.c.id == children.c.child_id)


def _with_results(connection: Connection, fresh: dict[str, Child]) -> dict[str, Child]:
    """Children that have ended, with what they have come to. Results of others are not looked at before that."""
    values: dict[str, dict[str, Any]] = {child.id: {} for child in fresh.values()}
    for ids in batches(list(values)):
        for results in (_flops(connection, ids), _datasets(connection, ids), _checkpoints(connection, ids)):
            for id_, result in results.items():
                values[id_] |= result
    return {key: dataclasses.replace(child, **values[child.id]) for key, child in fresh.items()}


def _child(row: Any) -> Child:
    return Child(
        id=row["id"],
        phase=Phase(row["phase"]),
        desired=Desired(row["desired"]),
        is_shared=row["is_shared"],
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
        (jobs.c.request_sha256 == address_of(node.spec))
        & (jobs.c.kind == kind)
        & jobs.c.phase.not_in(_GONE)
        & (jobs.c.desired != Desired.cancel.value)
    )
    found = connection.execute(select(jobs.c.id, jobs.c.resolved).where(same).order_by(jobs.c.number))
    child_id = next((id_ for id_, resolved in found if _is_alike(node, resolved)), None)
    if child_id is None:
        child_id = _insert(connection, node, now)
    else:
        _wake(connection, child_id)
    values = {"comparison_id": write.comparison_id, "key": node.key, "child_id": child_id}
    connection.execute(insert(schema.children).values(**values))
    say_paused(connection, child_id, now, (write.comparison_id,))


def _is_alike(node: Node, resolved: str) -> bool:
    """Whether a job that is the same by its document also drew, or draws, the same from the node's models."""
    spec = node.spec
    if not isinstance(spec, JobSpec):
        return True
    assert isinstance(node.work, Resolved), "a job's names stand for a Resolved"
    theirs, ours = ({one.name: one for one in work.models} for work in (from_json(Resolved, resolved), node.work))
    if theirs.keys() != ours.keys():
        return False
    if any(
        arm.sampling.resolved_for(theirs[arm.model].sampling) != arm.sampling.resolved_for(ours[arm.model].sampling)
        for arm in spec.all_arms
    ):
        return False
    if spec.stage != "generate":
        return True
    return all((one.price, one.cost) == (ours[name].price, ours[name].cost) for name, one in theirs.items())


def _insert(connection: Connection, node: Node, now: datetime) -> str:
    if isinstance(node.spec, JobSpec):
        assert isinstance(node.work, Resolved), "a job's names stand for a Resolved"
        return insert_job(connection, node.spec, node.work, idempotency_key=None, now=now)
    assert not isinstance(node.work, Resolved), "only a job's names stand for a Resolved"
    return insert_artifact(connection, node.spec, node.work, idempotency_key=None, now=now)


def _wake(connection: Connection, child_id: str) -> None:
    """Has a child go on that a paused comparison holds; one that people have paused by itself stays so."""
    jobs, children = schema.jobs, schema.children
    parents = select(children.c.comparison_id).where(children.c.child_id == child_id)
    is_paused = (jobs.c.desired == Desired.pause.value) & jobs.c.phase.in_(ACTIVE_PHASES)
    holder = select(jobs.c.id).where(jobs.c.id.in_(parents) & is_paused).limit(1)
    if connection.execute(holder).first() is not None:
        connection.execute(update(jobs).where((jobs.c.id == child_id) & is_paused).values(desired=Desired.run.value))


def want_of_children(connection: Connection, write: ChildrenWrite) -> None:
    """Stores what a comparison wants of children that are not over.

    Those that another comparison needs are neither paused nor ended, but made to go on: the other may be the one that
    paused them, and would hold up this one.
    """
    jobs, children = schema.jobs, schema.children
    mine = select(children.c.child_id).where(children.c.comparison_id == write.comparison_id)
    is_meant = jobs.c.id.in_(mine) & jobs.c.ended_at.is_(None) & (jobs.c.desired != Desired.cancel.value)
    if write.desired is not Desired.run:
        is_meant &= ~_is_needed_by_others(write.comparison_id, write.desired)
    connection.execute(update(jobs).where(is_meant).values(desired=write.desired.value))


def _is_needed_by_others(comparison_id: str, desired: Desired) -> ColumnElement[bool]:
    """Whether a job is a child of another comparison that goes on, too.

    Only of those that go on: of two that end together each would leave the child to the other.

    Args:
        desired: what is wanted of this one. Of two that are paused, neither leaves its children to the other.
    """
    others, parents = schema.children.alias(), schema.jobs.alias()
    is_another = (others.c.child_id == schema.jobs.c.id) & (others.c.comparison_id != comparison_id)
    is_wanted = parents.c.desired.in_(["run"] if desired is Desired.pause else ["run", "pause"])
    goes_on = parents.c.phase.in_(ACTIVE_PHASES) & is_wanted & parents.c.error.is_(None)
    return exists().where(is_another & (parents.c.id == others.c.comparison_id) & goes_on)


def _flops(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    usage = schema.usage
    columns = {f"useful_{column.name}": column for column in (usage.c.flops, usage.c.flops_paper, usage.c.nano_usd)}
    sums = [sum_if_known(column).label(name) for name, column in columns.items()]
    query = select(usage.c.job_id, *sums).where(usage.c.job_id.in_(ids) & (usage.c.outcome == "useful"))
    rows = connection.execute(query.group_by(usage.c.job_id)).mappings()
    return {row["job_id"]: {name: known(row[name]) for name in columns} for row in rows}


def _datasets(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    parts = schema.parts
    query = select(parts.c.job_id, parts.c.path, parts.c.sha256, parts.c.rows).where(
        parts.c.job_id.in_(ids) & (parts.c.kind == TaskKind.select.value)
    )
    rows = connection.execute(query.order_by(parts.c.number))  # the last one counts
    return {id_: {"dataset": (path, sha256), "num_rows": num_rows} for id_, path, sha256, num_rows in rows}


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
    for batch in batches(mine):
        for text in connection.execute(select(models.c.document).where(models.c.name.in_(batch))).scalars():
            checkpoint = from_json(ModelSpec, text)
            found.setdefault(checkpoint.name.rpartition("/")[0], []).append(checkpoint)
    return {id_: {"checkpoints": tuple(sorted(each, key=_step))} for id_, each in found.items()}


def _step(checkpoint: ModelSpec) -> int:
    return int(checkpoint.name.rpartition("-")[2])
