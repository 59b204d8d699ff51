"""A cluster on a virtual clock, for simulations: real hosts in this process, stepped one after the other.

What admits samples by credit, writes their files and reports is what runs on a real cluster; only the engines are
simulated, and no time passes but by `advance`. Invariant: a history depends on its inputs alone. An order reaches its
host with the next `observe`, as in the local twin. No rate it produces is a measurement. Must not import ray or vllm.
"""

from collections.abc import Callable

from service.checkpoints import find_checkpoints
from service.cluster import HostKind, HostReport, HostSpec, NodeStatus, Observation, Orders
from service.receipts import Receipt
from service.shards import find_receipts
from service.work import AttemptSpec
from workers.dispatcher import DispatcherHost, Made, make
from workers.generator import GeneratorHost
from workers.host_attempts import Failure
from workers.hosts import merged
from workers.simulated_engine import SimulatedEngine


class VirtualCluster:
    """Implements `service.cluster.Cluster`; hosts end only when they are told to.

    Args:
        make_engine: the engine of a generator; its steps take no real time.
        step_s: virtual seconds of an engine's step [s].
        num_cpus: places for engines.

    Attributes:
        inflight_worst: worst case of what is inside the engines, as of the last `observe` [natural units].
        engines: by host.
    """

    def __init__(self, *, make_engine: Callable[[HostSpec], SimulatedEngine], step_s: float, num_cpus: float) -> None:
        self._make_engine = make_engine
        self._step_s = step_s
        self._node = NodeStatus(id="virtual", num_cpus=num_cpus, num_gpus=0.0)
        self._hosts: dict[str, GeneratorHost | DispatcherHost] = {}
        self._dead: dict[str, HostReport] = {}
        self._orders: dict[str, list[Orders]] = {}
        self._num_steps = 0
        self._used: dict[str, float] = {}
        self.inflight_worst = 0.0
        self.engines: dict[str, SimulatedEngine] = {}

    @property
    def now(self) -> float:
        """Virtual seconds since the cluster began."""
        return self._num_steps * self._step_s

    @property
    def used(self) -> float:
        """What all attempts there ever were have used, as of the last `observe` [natural units]."""
        return sum(self._used.values())

    def advance(self) -> None:
        """Lets every engine do one step, and every writer all that it has to write."""
        for host in self._hosts.values():
            if isinstance(host, GeneratorHost):
                host.step_once()
                while host.write_once():
                    pass
        self._num_steps += 1

    def observe(self) -> Observation:
        """Exchanges with every host."""
        reports = {name: host.exchange(merged(self._orders.pop(name, []))) for name, host in self._hosts.items()}
        attempts = [attempt for report in reports.values() for attempt in report.attempts]
        self._used |= {attempt.attempt_id: attempt.used for attempt in attempts}
        self.inflight_worst = sum(attempt.inflight_worst for attempt in attempts)
        return Observation(hosts=reports | self._dead, nodes=(self._node,))

    def start_host(self, spec: HostSpec) -> None:
        """Starts a host, ready at once."""
        if spec.name in self._hosts or spec.name in self._dead:
            return
        if spec.kind is HostKind.dispatcher:
            self._hosts[spec.name] = DispatcherHost(launch=_Done)
            return
        engine = self.engines[spec.name] = self._make_engine(spec)
        host = GeneratorHost(engine_factory=lambda: engine, clock=lambda: self.now)
        host.load()
        self._hosts[spec.name] = host

    def stop_host(self, name: str, *, is_forced: bool) -> None:
        """Ends a host at once; one that is dead already is forgotten."""
        host = self._hosts.pop(name, None)
        if host is None:
            self._dead.pop(name, None)
            return
        self._dead[name] = host.exchange(Orders()).at_death()
        self.engines.pop(name, None)

    def send(self, name: str, orders: Orders) -> None:
        """Queues orders for the next `observe`."""
        if name in self._hosts:
            self._orders.setdefault(name, []).append(orders)

    def salvage(self, attempt_id: str, out_dir: str, first_part: int) -> tuple[Receipt, ...]:
        """Receipts of the parts that an attempt left on storage, from `first_part` on."""
        return find_receipts(out_dir, first_part=first_part) or find_checkpoints(out_dir, first_part)

    def close(self) -> None:
        """Nothing to let go of."""


class _Done:
    """An attempt of a dispatcher that is done where it is launched; what goes wrong in it, goes wrong for everybody."""

    def __init__(self, spec: AttemptSpec) -> None:
        self._made = make(spec)

    def is_done(self) -> bool:
        return True

    def result(self) -> Made | Failure:
        return self._made

    def cancel(self) -> None:
        pass
