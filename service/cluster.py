"""The seam to the cluster: facts come in, orders go out. No Ray here.

A *host* is a named process that lives apart from the controller: one generator actor per engine, one dispatcher per
node for preparing, scoring and selecting, one trainer per training process. A host answers one call, `exchange`: it
takes orders and reports facts. Every order is idempotent on the attempt id (grants on their version), so the
controller may repeat any of them after a crash.

Credit. A generator admits a sample into its engine only while
`used + inflight_worst + worst_case(sample) <= credit`. The controller raises `credit` by grants; it may also lower it,
and a host then keeps `max(asked, used + inflight_worst)` and echoes what it holds, which is when the difference may be
voided. Grants carry a version; a host ignores one that is not newer than the last it took.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from service.devices import NO_DEVICES, ONE_CORE, Devices
from service.models import ModelSpec
from service.receipts import Receipt, Usage
from service.work import AttemptSpec, Indices


class AttemptState(StrEnum):
    """What a host says of an attempt."""

    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    stopped = "stopped"
    """Ended early by order or final grant; what it did not draw is in `returned`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """Facts about one attempt. All numbers only grow, except `inflight_worst`, `next_worst` and `wanted`.

    Args:
        receipts: every part not yet acknowledged, oldest first.
        credit_held: credit the host holds after the last grant [cost units of the currency].
        grant_version: version of that grant.
        used: actual cost of all finished samples, committed or not, and of what was dropped.
        inflight_worst: worst case of the samples inside the engine now.
        next_worst: worst case of the next sample waiting for credit; 0.0 when none waits.
        wanted: credit that would keep the engine full until the next exchange.
        waiting: planned samples that have not entered the engine yet.
        returned: on `stopped`: planned samples that were neither drawn nor written.
        wasted: usage of samples that were drawn in part and dropped (cancel), and time that is in no part.
    """

    attempt_id: str
    state: AttemptState
    error: str | None = None
    is_retriable: bool = True
    receipts: tuple[Receipt, ...] = ()
    credit_held: float = 0.0
    grant_version: int = 0
    used: float = 0.0
    inflight_worst: float = 0.0
    next_worst: float = 0.0
    wanted: float = 0.0
    waiting: int = 0
    admitted: int = 0
    finished: int = 0
    returned: Indices | None = None
    wasted: Usage = field(default_factory=Usage)
    busy_s: float = 0.0
    """Time spent on the attempt so far: in its parts, in `wasted`, or in what is not written yet [s]."""


class HostKind(StrEnum):
    """What a host can run.

    `generator` takes generate tasks of one pool, `dispatcher` prepare, score and select, `trainer` finetune.
    """

    generator = "generator"
    dispatcher = "dispatcher"
    trainer = "trainer"


class HostState(StrEnum):
    """What is known of a host.

    `starting`: it has not been heard of since this controller began, whatever it may be doing; its attempts are not
    known. `dead` is confirmed: its process is gone and writes no more.
    """

    starting = "starting"
    loading = "loading"
    ready = "ready"
    draining = "draining"
    unreachable = "unreachable"
    failed = "failed"
    dead = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """What one host said in its last exchange."""

    state: HostState
    attempts: tuple[AttemptReport, ...] = ()
    error: str | None = None
    pid: int | None = None
    node: str | None = None
    engine_version: str = ""
    running_requests: int = 0
    total_tokens: int = 0
    """Completion tokens since the host started: grows while requests run, or the engine is stuck."""
    busy_s: float = 0.0
    load_s: float | None = None
    """How long the engine took to load; while it is `loading`, how long it has taken so far [s]."""
    num_swaps: int = 0
    swap_s: float = 0.0
    """How often the engine got other weights so far, and how long that took: no part of `busy_s` [s]."""
    is_inherited: bool = False
    """Started by an earlier controller, whose end the cluster may hold against what the host starts."""

    def at_death(self, *, error: str | None = None, pid: int | None = None, node: str | None = None) -> "HostReport":
        """What is left to say when its process is gone: its meters, as they were last heard of, and no attempts."""
        return HostReport(
            state=HostState.dead,
            error=error,
            pid=pid,
            node=node,
            busy_s=self.busy_s,
            num_swaps=self.num_swaps,
            swap_s=self.swap_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Credit for an attempt [cost units]; `is_final`: no more will come, end when what is admitted has finished."""

    attempt_id: str
    version: int
    credit: float
    is_final: bool = False


class StopMode(StrEnum):
    """`finish`: admit no more, finish what runs, flush, return the rest. `abort`: drop what runs, flush the rest."""

    finish = "finish"
    abort = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Ends an attempt early."""

    attempt_id: str
    mode: StopMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """Receipts below `num_parts` are committed (or refused) and need not be reported again.

    With `is_forgotten` the attempt is over for the controller too, and the host drops it.
    """

    attempt_id: str
    num_parts: int
    is_forgotten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Everything the controller tells one host in one exchange. Applied in the order of the fields."""

    submits: tuple[AttemptSpec, ...] = ()
    grants: tuple[Grant, ...] = ()
    stops: tuple[Stop, ...] = ()
    acknowledges: tuple[Acknowledge, ...] = ()


class Host(Protocol):
    """A process that runs attempts. `exchange` is quick (well under 100 ms) and never blocks on an engine."""

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A host the controller wants to exist. `name` is unique for ever; a restarted engine gets a new name."""

    name: str
    kind: HostKind
    model: ModelSpec | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    @property
    def devices(self) -> Devices:
        """What it holds: its GPUs, or a core.

        A dispatcher holds nothing, each of its attempts a core while it runs; nor does what waits for another server.
        """
        is_elsewhere = self.model is not None and self.model.endpoint is not None
        if self.kind is HostKind.dispatcher or is_elsewhere:
            return NO_DEVICES
        return Devices(gpus=round(self.num_gpus)) if self.num_gpus else ONE_CORE


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One machine of the cluster."""

    id: str
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Facts since the last look. A host missing here has never been started or was forgotten after `stop_host`."""

    hosts: dict[str, HostReport]
    nodes: tuple[NodeStatus, ...] = ()


class Cluster(Protocol):
    """Runs hosts. Methods return at once; effects and failures show in later observations."""

    def observe(self) -> Observation:
        """The latest facts about every known host; complete from the first call on, so a missing host is a dead one."""
        ...

    def start_host(self, spec: HostSpec) -> None:
        """Starts the host unless one of that name exists or existed."""
        ...

    def stop_host(self, name: str, *, is_forced: bool) -> None:
        """Ends the host, gracefully (attempts flushed first) or by killing its process; it is `dead` when gone.

        A host that is dead already is forgotten.
        """
        ...

    def send(self, name: str, orders: Orders) -> None:
        """Queues orders for the host's next exchange. Lost if the host dies; the controller repeats what matters."""
        ...

    def salvage(self, attempt_id: str, out_dir: str, first_part: int) -> tuple[Receipt, ...]:
        """Receipts that a dead attempt left on storage from `first_part` on. Only for hosts reported `dead`."""
        ...

    def close(self) -> None:
        """Lets go of the cluster. Hosts live on where the cluster outlives the controller."""
        ...
