"""What a tick reads and what it decides: frozen in, frozen out.

`Snapshot` is one bounded read of the database: active jobs, tasks that are not over, living hosts. `Seen` is what the
cluster says. `Plan` holds every change of the tick, committed in one transaction, and the orders sent afterwards.
"""

from dataclasses import dataclass, field
from datetime import datetime

from service.artifacts import ArtifactKind, ArtifactSpec, ArtifactWork
from service.cluster import HostKind, HostSpec, HostState, Observation, Orders
from service.devices import Devices
from service.experiments.nodes import Child, Node
from service.jobs import Desired, JobSpec, Phase
from service.ledger import Account, Transfer
from service.models import ModelSpec
from service.receipts import Receipt, ScoreDelta, Usage
from service.tasks import Task
from service.work import Indices, Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A finished prepare task: prompts of one job for one model.

    Args:
        arm: the first of the job's arms that they serve.
        facts: see `Receipt.facts`.
        excluded: problems that cannot be sampled, by their prompt or because the engine died on them, [n, 2].
    """

    job_id: str
    arm: str
    path: str
    sha256: str
    facts: dict[str, float]
    excluded: Indices | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """An active job as the planner sees it.

    Args:
        closing: why no more samples are planned ("budget spent", ...), or None while they are.
        models: the job's models, resolved when it was submitted.
        prepared: by the first arm of each set of prompts; see `prompts_of`.
        next_order: order of the next task.
        num_samples: committed rows, errors included.
        num_errors: committed rows that stand for an error.
        num_correct: scored rows whose answer is right.
        num_engine_deaths: engines that died of the job's tasks, as far as anybody can tell.
        import_paths: files that its samples come from, if they are not drawn.
    """

    id: str
    spec: JobSpec
    desired: Desired
    phase: Phase
    closing: str | None
    error: str | None
    models: tuple[ModelSpec, ...]
    problems_path: str
    num_problems: int
    account: Account
    prepared: dict[str, Prepared]
    next_order: int
    created_at: datetime
    num_errors: int
    num_samples: int
    num_correct: int = 0
    num_engine_deaths: int = 0
    import_paths: tuple[str, ...] = ()

    @property
    def is_prepared(self) -> bool:
        """Whether every arm has its prompts."""
        return len(self.prepared) == len(self.spec.prompt_arms)

    def prompts_of(self, arm: str) -> Prepared:
        """The prompts of an arm, which are prepared."""
        return self.prepared[self.spec.prompts_of(arm)]

    def model_of(self, arm: str) -> ModelSpec:
        """The model of an arm."""
        name = self.spec.arm(arm).model
        return next(model for model in self.models if model.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactView:
    """An artifact that is not made yet.

    Args:
        has_task: its one task exists, whatever has become of it.
        last_part_path: its newest committed part over all attempts: where a finetune goes on.
        children: what a comparison has submitted, by key.
    """

    id: str
    kind: ArtifactKind
    spec: ArtifactSpec
    work: ArtifactWork
    desired: Desired
    phase: Phase
    error: str | None
    last_part_path: str | None
    has_task: bool
    created_at: datetime
    children: dict[str, Child] = field(default_factory=dict[str, Child])

    @property
    def is_ending(self) -> bool:
        """Whether nothing more is wanted of it: it is cancelled, or has begun to fail."""
        return self.desired is Desired.cancel or self.error is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Nodes that a comparison may submit.

    Args:
        num_done: children that had their results when this was found; with another one there may be more.
    """

    num_done: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """A host that is wanted or not yet known to be gone. Its meters are brought up to date now and then (`meter`).

    Args:
        gpus: GPUs that it holds while it lives, all to itself.
        cores: cores that it holds where it has no GPU; of a dispatcher 0.
        held_s: since it was asked for, until its end [s].
        start_s: of which until it could work for the first time [s].
        busy_s: of which it worked for attempts [s].
        swap_s: of which its engine got other weights, `num_swaps` times [s].
    """

    name: str
    kind: HostKind
    model: str | None
    state: HostState
    is_stopping: bool
    has_been_ready: bool
    error: str | None = None
    load_s: float | None = None
    pid: int | None = None
    node: str | None = None
    created_at: datetime
    ready_at: datetime | None = None
    idle_since: datetime | None = None
    ended_at: datetime | None = None
    gpus: int = 0
    cores: int = 0
    held_s: float = 0.0
    start_s: float = 0.0
    busy_s: float = 0.0
    swap_s: float = 0.0
    num_swaps: int = 0

    @property
    def devices(self) -> Devices:
        """What it holds."""
        return Devices(gpus=self.gpus, cores=self.cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One pool of generator hosts, one per model.

    Args:
        replicas: engines wanted while there is work.
        minimum: engines kept without work.
        failures: load failures since the last engine that loaded, by weight (see `health.MAX_LOAD_FAILURES`).
        waiting_since: since when it has work but no place for an engine.
        load_s: how long its last engine took to load [s]; None before the first.
        num_turns: engines of it that left so far because somebody else waited for the place.
    """

    model: str
    replicas: int
    minimum: int
    idle_s: float
    failures: int
    version: int
    waiting_since: datetime | None = None
    load_s: float | None = None
    num_turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the database says."""

    jobs: tuple[JobView, ...]
    tasks: tuple[Task, ...]
    hosts: tuple[HostView, ...]
    pools: tuple[PoolView, ...]
    num_hosts_ever: int
    artifacts: tuple[ArtifactView, ...] = ()
    kept_models: tuple[ModelSpec, ...] = ()
    """Models whose pools keep engines without work, and those that jobs name checkpoints of."""
    last_trainer_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the cluster says, and what the controller remembers of it.

    Args:
        salvaged: receipts found on storage for attempts of dead hosts, by attempt id.
        recently_sent: attempts whose submission was sent so lately that a report without them proves nothing.
        rates: samples per second of an engine, measured, by model.
        stuck_hosts: hosts whose engine has requests but makes no tokens.
        broken_jobs: why a job cannot go on, by id: a committed file that strategies need cannot be read.
        sealed_jobs: jobs whose last manifest is written, see `Plan.seal_jobs`.
        manifest_errors: why a manifest could not be written since the last tick, by job.
        due: `Plan.due` of the last tick, or nothing, which costs time and changes nothing.
        is_draining: the controller is about to stop: hand work back, lease nothing.
    """

    observation: Observation
    salvaged: dict[str, tuple[Receipt, ...]] = field(default_factory=dict[str, tuple[Receipt, ...]])
    recently_sent: frozenset[str] = frozenset()
    rates: dict[str, float] = field(default_factory=dict[str, float])
    stuck_hosts: frozenset[str] = frozenset()
    broken_jobs: dict[str, str] = field(default_factory=dict[str, str])
    sealed_jobs: frozenset[str] = frozenset()
    manifest_errors: dict[str, str] = field(default_factory=dict[str, str])
    due: dict[str, Due] = field(default_factory=dict[str, Due])
    is_draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWrite:
    """A task before and after; `before` None creates it. The store refuses it if the row moved on meanwhile."""

    before: Task | None
    after: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWrite:
    """A receipt that becomes part of what exists."""

    task: Task
    attempt_id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageWrite:
    """Something that was used; adds to the job's rollup of that minute.

    Args:
        stage: kind of the task, but `evaluate` or `judge` for generate tasks of a job that does so.
        outcome: useful, truncated, lost or dropped.
        arm: of the job; "" where it is no job's.
    """

    job_id: str
    model: str
    stage: str
    outcome: str
    usage: Usage
    arm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWrite:
    """A job's new derived state."""

    id: str
    phase: Phase
    closing: str | None
    error: str | None
    num_samples: int
    num_errors: int
    num_correct: int
    num_engine_deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactWrite:
    """An artifact's new derived state."""

    id: str
    phase: Phase
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWrite:
    """A node of a comparison to submit, unless the same has been made or is being made already."""

    comparison_id: str
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenWrite:
    """What a comparison wants of those children that run and that no other comparison needs."""

    comparison_id: str
    desired: Desired


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWrite:
    """A line people read."""

    job_id: str | None
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """What the controller does to a job's allocation state after the commit; exactly one of the last four is set.

    Args:
        arm: index among the job's arms.
        spent: rows that were committed, errors among them, and what all cost [cost units of the budget].
    """

    job_id: str
    arm: int
    planned: Runs | None = None
    excluded: Indices | None = None
    delta: ScoreDelta | None = None
    spent: tuple[int, int, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every decision of one tick.

    Args:
        models: checkpoints that jobs can name from now on.
        seal_jobs: jobs with nothing left to do, which end as soon as their last manifest is written.
        due: what each comparison may submit, these submissions included; for the next tick.
    """

    tasks: tuple[TaskWrite, ...] = ()
    parts: tuple[PartWrite, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    usage: tuple[UsageWrite, ...] = ()
    jobs: tuple[JobWrite, ...] = ()
    artifacts: tuple[ArtifactWrite, ...] = ()
    nodes: tuple[NodeWrite, ...] = ()
    children: tuple[ChildrenWrite, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    prepared: tuple[Prepared, ...] = ()
    hosts: tuple[HostView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    events: tuple[EventWrite, ...] = ()
    state_changes: tuple[StateChange, ...] = ()
    start_hosts: tuple[HostSpec, ...] = ()
    stop_hosts: tuple[tuple[str, bool], ...] = ()
    orders: dict[str, Orders] = field(default_factory=dict[str, Orders])
    seal_jobs: tuple[str, ...] = ()
    due: dict[str, Due] = field(default_factory=dict[str, Due])

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to commit."""
        return any(
            (self.tasks, self.parts, self.transfers, self.usage, self.jobs, self.prepared, self.hosts, self.pools)
        ) or bool(self.events or self.artifacts or self.models or self.nodes or self.children)
