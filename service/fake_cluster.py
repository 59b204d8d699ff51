"""A fake cluster for simulations: the seam of `service.cluster` in memory, on a virtual clock, with faults on demand.

It keeps the contract of hosts (`service.fake_host`) and knows the truth (`service.fake_world`): every FLOP its hosts
ever spent, reported or not. No number it produces is a measurement.
"""

import dataclasses

from service.cluster import HostKind, HostReport, HostSpec, HostState, NodeStatus, Observation, Orders
from service.fake_host import FakeHost
from service.fake_world import FakeRecord, FakeWorld
from service.receipts import Receipt


class FakeCluster:
    """Implements `Cluster`; `record` knows the truth."""

    def __init__(self, world: FakeWorld, *, num_cpus: float = 2.0, num_gpus: float = 0.0) -> None:
        self.world, self.num_cpus, self.num_gpus = world, num_cpus, num_gpus
        self.nodes: tuple[NodeStatus, ...] = ()
        """In place of the one node with all cores and GPUs."""
        self.node_of: dict[str, str] = {}
        """Which node a host says that it is on, by name; others do not say."""
        self.hosts: dict[str, FakeHost] = {}
        self.record = FakeRecord(world)
        self.now = 0.0
        self.inherited: frozenset[str] = frozenset()
        """Hosts of earlier controllers; see `change_controller`."""
        self.ignored_stops = 0
        """Stop orders that get lost, as with a controller that dies before it sends them."""
        self.without_room: frozenset[str] = frozenset()
        """Pools whose engines get no process as long as they are named here: somebody else has what they need."""
        self._names: set[str] = set()
        self._stale: Observation | None = None
        self._heard: dict[str, HostReport] = {}

    # -- the seam

    def observe(self) -> Observation:
        """Facts as of now, or the old ones while reports are frozen."""
        if self._stale is not None:
            return self._stale
        return self._facts()

    def start_host(self, spec: HostSpec) -> None:
        """Starts a fake host."""
        if spec.name not in self._names:
            self._names.add(spec.name)
            self.hosts[spec.name] = FakeHost(spec, self.world, self.record, self.now)

    def stop_host(self, name: str, *, is_forced: bool) -> None:
        """Kills a fake host, or has it finish what is inside; one without work ends at once."""
        if self.ignored_stops:
            self.ignored_stops -= 1
        elif name in self.hosts and (is_forced or self.hosts[name].is_drained):
            self.kill(name)
        elif name in self.hosts:
            self.hosts[name].drain()

    def send(self, name: str, orders: Orders) -> None:
        """Queues orders for the next step."""
        if name in self.hosts:
            self.hosts[name].orders.append(orders)

    def salvage(self, attempt_id: str, out_dir: str, first_part: int) -> tuple[Receipt, ...]:
        """Receipts on the fake storage."""
        found: list[Receipt] = []
        while (path := f"{attempt_id}/{first_part + len(found)}") in self.record.files:
            found.append(self.record.files[path])
        return tuple(found)

    def close(self) -> None:
        """Nothing to let go of."""

    # -- the simulation

    def advance(self, elapsed_s: float) -> None:
        """Lets virtual time pass on every host."""
        self.now += elapsed_s
        for host in self.hosts.values():
            if host.state is HostState.starting and host.spec.model and host.spec.model.name in self.without_room:
                host.ready_at = self.now + self.world.load_s
            else:
                host.step(self.now, elapsed_s)
        for name, host in self.hosts.items():
            if host.error is not None or (host.is_draining and host.is_drained):
                self.kill(name)

    def kill(self, name: str) -> None:
        """Ends a host's process: in-flight work counts as spent in full, unflushed samples are lost."""
        host = self.hosts[name]
        if host.state is HostState.dead:
            return
        self.record.true_cost += sum(
            attempt.inflight_worst for attempt in host.attempts.values() if not attempt.is_soft
        )
        host.state = HostState.dead
        host.attempts = {}

    def change_controller(self) -> None:
        """Takes note that the controller of all hosts so far has ended."""
        self.inherited = frozenset(self.hosts)

    def freeze_reports(self) -> None:
        """Makes observations stale until `thaw_reports`: late and repeated receipts."""
        self._stale = self._facts()

    def thaw_reports(self) -> None:
        """Observations are fresh again."""
        self._stale = None

    def living(self, kind: HostKind) -> list[str]:
        """Names of hosts that are not dead."""
        return [n for n, h in self.hosts.items() if h.spec.kind is kind and h.state is not HostState.dead]

    def read_receipt(self, path: str) -> Receipt:
        """A file on the fake storage."""
        return self.record.files[path]

    def _facts(self) -> Observation:
        for name, host in self.hosts.items():
            said = dataclasses.replace(host.report(), node=self.node_of.get(name), is_inherited=name in self.inherited)
            if host.state is HostState.dead:  # what it did after its last word is not known
                said = self._heard.get(name, HostReport(state=HostState.starting)).at_death(
                    error=said.error, node=said.node
                )
            self._heard[name] = said
        return Observation(
            hosts=dict(self._heard),
            nodes=self.nodes or (NodeStatus(id="node", num_cpus=self.num_cpus, num_gpus=self.num_gpus),),
        )
