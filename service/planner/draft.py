"""The working copy of one tick: starts from a snapshot, collects changes, ends as a `Plan`.

Lives inside one call of `plan()` and is never shared, so the planner stays a pure function while its parts read what
earlier parts of the same tick have decided.
"""

import dataclasses
from collections import defaultdict
from datetime import datetime

from service.allocation import AllocationState
from service.cluster import Acknowledge, Grant, HostKind, HostReport, HostSpec, HostState, Orders, Stop
from service.experiments.nodes import Node
from service.jobs import Desired
from service.ledger import Account, Transfer, TransferKind
from service.models import ModelSpec
from service.planner.options import Options
from service.planner.plan import (
    ArtifactView,
    ArtifactWrite,
    ChildrenWrite,
    Due,
    EventWrite,
    HostView,
    JobView,
    JobWrite,
    NodeWrite,
    PartWrite,
    Plan,
    PoolView,
    Prepared,
    Seen,
    Snapshot,
    StateChange,
    TaskWrite,
    UsageWrite,
)
from service.receipts import Receipt, Usage
from service.tasks import Task
from service.work import AttemptSpec, TaskKind


class Draft:
    """Changes of one tick so far. `tasks` and `accounts` are the current values, changes included."""

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        seen: Seen,
        states: dict[str, AllocationState],
        now: datetime,
        options: Options,
    ) -> None:
        self.snapshot, self.seen, self.states, self.now, self.options = snapshot, seen, states, now, options
        self.tasks: dict[str, Task] = {task.id: task for task in snapshot.tasks}
        self.jobs: dict[str, JobView] = {job.id: job for job in snapshot.jobs}
        self.artifacts: dict[str, ArtifactView] = {artifact.id: artifact for artifact in snapshot.artifacts}
        self.hosts: dict[str, HostView] = {host.name: host for host in snapshot.hosts}
        self.pools: dict[str, PoolView] = {pool.model: pool for pool in snapshot.pools}
        self.num_hosts_ever = snapshot.num_hosts_ever
        self.granted: set[str | None] = set()
        """Pools whose turn it is to start an engine; None for finetunes and a trainer."""
        self.num_reserved = 0
        """Free places that are kept for those whose turn it is or is about to be."""
        self._before_tasks = dict(self.tasks)
        self._open_by_job: defaultdict[str, dict[str, Task]] = defaultdict(dict)
        self._in_flight_by_host: defaultdict[str, dict[str, Task]] = defaultdict(dict)
        for task in snapshot.tasks:
            self._file(task)
        self._parts: list[PartWrite] = []
        self._transfers: list[Transfer] = []
        self._usage: list[UsageWrite] = []
        self._prepared: list[Prepared] = []
        self._models: list[ModelSpec] = []
        self._nodes: list[NodeWrite] = []
        self._children: list[ChildrenWrite] = []
        self.due: dict[str, Due] = {}
        self._events: list[EventWrite] = []
        self._state_changes: list[StateChange] = []
        self._start_hosts: list[HostSpec] = []
        self._stop_hosts: list[tuple[str, bool]] = []
        self._seal_jobs: list[str] = []
        self._counted_deaths: set[tuple[str, str]] = set()
        self._submits: defaultdict[str, list[AttemptSpec]] = defaultdict(list)
        self._grants: defaultdict[str, list[Grant]] = defaultdict(list)
        self._stops: defaultdict[str, list[Stop]] = defaultdict(list)
        self._acknowledges: defaultdict[str, list[Acknowledge]] = defaultdict(list)

    # -- reading

    def report(self, host: str | None) -> HostReport | None:
        """What the cluster says of a host, or None if it knows none of that name."""
        return self.seen.observation.hosts.get(host) if host else None

    def job_tasks(self, job_id: str, kind: TaskKind | None = None) -> list[Task]:
        """Tasks of a job that are not over, in order."""
        mine = self._open_by_job.get(job_id, {}).values()
        return sorted((task for task in mine if kind is None or task.kind is kind), key=lambda task: task.order)

    def tasks_on(self, host: str) -> list[Task]:
        """Tasks whose current attempt is on the host."""
        return list(self._in_flight_by_host.get(host, {}).values())

    def rested_s(self, host: HostView) -> float:
        """How long a host has had no task, 0 while it has one [s]."""
        return 0.0 if host.idle_since is None else (self.now - host.idle_since).total_seconds()

    # -- changing

    def put_task(self, task: Task) -> Task:
        """Creates or replaces a task."""
        before = self.tasks.get(task.id)
        if before is not None:
            self._open_by_job[before.job_id].pop(before.id, None)
            self._in_flight_by_host[str(before.host)].pop(before.id, None)
        self.tasks[task.id] = task
        self._file(task)
        return task

    def _file(self, task: Task) -> None:
        if not task.state.is_terminal:
            self._open_by_job[task.job_id][task.id] = task
        if task.state.is_in_flight:
            self._in_flight_by_host[str(task.host)][task.id] = task

    def new_task_order(self, job_id: str) -> int:
        """Takes the job's next task order."""
        job = self.jobs[job_id]
        self.jobs[job_id] = dataclasses.replace(job, next_order=job.next_order + 1)
        return job.next_order

    def change_job(self, job_id: str, **changes: object) -> JobView:
        """Replaces fields of a job."""
        self.jobs[job_id] = dataclasses.replace(self.jobs[job_id], **changes)  # type: ignore[arg-type]
        return self.jobs[job_id]

    def change_artifact(self, artifact_id: str, **changes: object) -> ArtifactView:
        """Replaces fields of an artifact."""
        self.artifacts[artifact_id] = dataclasses.replace(self.artifacts[artifact_id], **changes)  # type: ignore[arg-type]
        return self.artifacts[artifact_id]

    def register_model(self, model: ModelSpec) -> None:
        """Lets jobs name a checkpoint."""
        self._models.append(model)

    def submit_node(self, comparison_id: str, node: Node) -> None:
        """Submits a node of a comparison."""
        self._nodes.append(NodeWrite(comparison_id=comparison_id, node=node))

    def want_of_children(self, comparison_id: str, desired: Desired) -> None:
        """Says what a comparison wants of its children."""
        self._children.append(ChildrenWrite(comparison_id=comparison_id, desired=desired))

    def count_engine_death(self, job_id: str, host: str) -> None:
        """Puts an engine's death on a job's account, once however many of its tasks were on it."""
        if (job_id, host) not in self._counted_deaths:
            self._counted_deaths.add((job_id, host))
            self.change_job(job_id, num_engine_deaths=self.jobs[job_id].num_engine_deaths + 1)

    def seal_job(self, job_id: str) -> None:
        """Asks for the last manifest of a job that has nothing left to do."""
        self._seal_jobs.append(job_id)

    def transfer(self, task: Task, kind: TransferKind, *, number: int, amount: int) -> None:
        """Moves an amount on the account of the task's job.

        Raises:
            BudgetExceeded: a reservation beyond what is available; callers ask for less.
        """
        job = self.jobs[task.job_id]
        transfer = Transfer(account=job.account.id, attempt_id=task.attempt_id, kind=kind, number=number, amount=amount)
        self.jobs[job.id] = dataclasses.replace(job, account=job.account.apply(transfer))
        self._transfers.append(transfer)

    def account(self, job_id: str) -> Account:
        """The job's account, changes of this tick included."""
        return self.jobs[job_id].account

    def commit_part(self, task: Task, receipt: Receipt) -> None:
        """Makes a receipt part of what exists."""
        self._parts.append(PartWrite(task=task, attempt_id=task.attempt_id, receipt=receipt))

    def record_usage(self, task: Task, outcome: str, usage: Usage) -> None:
        """Adds to the usage rollup."""
        job = self.jobs.get(task.job_id)
        stage = job.spec.stage if job is not None and task.kind is TaskKind.generate else task.kind.value
        self._usage.append(
            UsageWrite(job_id=task.job_id, model=task.model, arm=task.arm, stage=stage, outcome=outcome, usage=usage)
        )

    def record_prepared(self, prepared: Prepared) -> None:
        """Makes a job's prompts known."""
        job = self.jobs[prepared.job_id]
        self.jobs[job.id] = dataclasses.replace(job, prepared={**job.prepared, prepared.arm: prepared})
        self._prepared.append(prepared)

    def change_state(self, change: StateChange) -> None:
        """Queues a change of an allocation state for after the commit."""
        self._state_changes.append(change)

    def has_state_change(self, job_id: str) -> bool:
        """Whether this tick changes the job's allocation state, so that the one at hand is out of date."""
        return any(change.job_id == job_id for change in self._state_changes)

    def event(self, job_id: str | None, kind: str, message: str) -> None:
        """Writes a line for people."""
        self._events.append(EventWrite(job_id=job_id, kind=kind, message=message))

    # -- orders

    def submit(self, host: str, attempt: AttemptSpec) -> None:
        """Sends an attempt."""
        self._submits[host].append(attempt)

    def grant(self, host: str, grant: Grant) -> None:
        """Sends credit."""
        self._grants[host].append(grant)

    def stop(self, host: str, stop: Stop) -> None:
        """Ends an attempt early."""
        self._stops[host].append(stop)

    def acknowledge(self, host: str, acknowledge: Acknowledge) -> None:
        """Lets a host forget receipts."""
        self._acknowledges[host].append(acknowledge)

    def start_host(self, spec: HostSpec) -> None:
        """Starts a host after the commit that records it."""
        self.hosts[spec.name] = HostView(
            name=spec.name,
            kind=spec.kind,
            model=None if spec.model is None else spec.model.name,
            state=HostState.starting,
            is_stopping=False,
            has_been_ready=False,
            created_at=self.now,
            gpus=spec.devices.gpus,
            cores=spec.devices.cores,
        )
        self.num_hosts_ever += 1
        self._start_hosts.append(spec)

    def stop_host(self, name: str, *, is_forced: bool = False) -> None:
        """Ends a host in good order, or kills it. One that was never ready is killed in any case.

        It has no work to finish, and may never get that far.
        """
        host = self.hosts[name]
        self.hosts[name] = dataclasses.replace(host, is_stopping=True)
        self._stop_hosts.append((name, is_forced or not host.has_been_ready))

    def forget_host(self, name: str) -> None:
        """Lets the cluster drop what it knows of a dead host."""
        self._stop_hosts.append((name, True))

    def living_hosts(self, kind: HostKind, model: str | None = None) -> list[HostView]:
        """Hosts that are not over, oldest first."""
        found = [
            host
            for host in self.hosts.values()
            if host.kind is kind and host.ended_at is None and (model is None or host.model == model)
        ]
        return sorted(found, key=lambda host: host.created_at)

    def staying_hosts(self, kind: HostKind, model: str | None = None) -> list[HostView]:
        """Living hosts that nobody has told to leave, oldest first."""
        return [host for host in self.living_hosts(kind, model) if not host.is_stopping]

    # -- ending

    def build(self) -> Plan:
        """The plan: everything that differs from the snapshot, and the orders."""
        snapshot = self.snapshot
        before_jobs = {job.id: job for job in snapshot.jobs}
        before_artifacts = {artifact.id: _artifact_write(artifact) for artifact in snapshot.artifacts}
        before_hosts = {host.name: host for host in snapshot.hosts}
        before_pools = {pool.model: pool for pool in snapshot.pools}
        names = {*self._submits, *self._grants, *self._stops, *self._acknowledges}
        return Plan(
            tasks=tuple(
                TaskWrite(before=self._before_tasks.get(task.id), after=task)
                for task in self.tasks.values()
                if self._before_tasks.get(task.id) is not task
            ),
            parts=tuple(self._parts),
            transfers=tuple(self._transfers),
            usage=tuple(self._usage),
            jobs=tuple(
                _job_write(job) for job in self.jobs.values() if _job_write(job) != _job_write(before_jobs[job.id])
            ),
            artifacts=tuple(
                write for write in map(_artifact_write, self.artifacts.values()) if write != before_artifacts[write.id]
            ),
            models=tuple(self._models),
            nodes=tuple(self._nodes),
            children=tuple(self._children),
            prepared=tuple(self._prepared),
            hosts=tuple(host for host in self.hosts.values() if before_hosts.get(host.name) != host),
            pools=tuple(pool for pool in self.pools.values() if before_pools.get(pool.model) != pool),
            events=tuple(self._events),
            state_changes=tuple(self._state_changes),
            start_hosts=tuple(self._start_hosts),
            stop_hosts=tuple(self._stop_hosts),
            orders={
                name: Orders(
                    submits=tuple(self._submits[name]),
                    grants=tuple(self._grants[name]),
                    stops=tuple(self._stops[name]),
                    acknowledges=tuple(self._acknowledges[name]),
                )
                for name in sorted(names)
            },
            seal_jobs=tuple(self._seal_jobs),
            due=self.due,
        )


def _artifact_write(artifact: ArtifactView) -> ArtifactWrite:
    return ArtifactWrite(id=artifact.id, phase=artifact.phase, error=artifact.error)


def _job_write(job: JobView) -> JobWrite:
    return JobWrite(
        id=job.id,
        phase=job.phase,
        closing=job.closing,
        error=job.error,
        num_samples=job.num_samples,
        num_errors=job.num_errors,
        num_correct=job.num_correct,
        num_engine_deaths=job.num_engine_deaths,
    )
