"""The local twin of the Ray cluster: the same hosts in threads of this process, without Ray.

For tests and for debugging with one process. Keeps the contract of `service.cluster.Cluster`, including that a host
that ends is reported `dead` until it is forgotten; but hosts end with this process. Must not import ray.
"""

import dataclasses
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psutil

from service.checkpoints import find_checkpoints
from service.cluster import HostReport, HostSpec, HostState, NodeStatus, Observation, Orders
from service.receipts import Receipt
from service.shards import find_receipts
from workers.dispatcher import thread_launcher
from workers.hosts import HostRunner, Keys, MakeHost, make_host, merged, with_keys

NODE = "local"
_CONNECTION = "local"
_CLOSE_S = 60.0


@dataclass(slots=True, kw_only=True)
class _Local:
    spec: HostSpec
    runner: HostRunner
    is_dead: threading.Event
    is_killed: bool = False
    should_drain: bool = False
    pending: list[Orders] = field(default_factory=list)
    last: HostReport = field(default_factory=lambda: HostReport(state=HostState.starting, node=NODE))
    calls: int = 0


class LocalCluster:
    """Hosts as objects; implements `service.cluster.Cluster`.

    Args:
        make_host: builds a host that is not started.
        max_running: attempts that a dispatcher runs at the same time.
        keys: of servers elsewhere, by address.
    """

    def __init__(self, *, make_host: MakeHost = make_host, max_running: int = 1, keys: Keys | None = None) -> None:
        self._make_host = with_keys(make_host, keys or {})
        self._max_running = max_running
        self._pool = ThreadPoolExecutor(max_workers=max(1, max_running), thread_name_prefix="task")
        self._hosts: dict[str, _Local] = {}
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def observe(self) -> Observation:
        """Exchanges with every host, here and now."""
        with self._lock:
            hosts = list(self._hosts.items())
        node = NodeStatus(id=NODE, num_cpus=float(psutil.cpu_count() or 1), num_gpus=0.0)
        return Observation(hosts={name: self._exchange(host) for name, host in hosts}, nodes=(node,))

    def start_host(self, spec: HostSpec) -> None:
        """Starts the host unless one of that name exists or existed."""
        with self._lock:
            if spec.name in self._names:
                return
            self._names.add(spec.name)
            is_dead = threading.Event()
            host = self._make_host(spec, thread_launcher(self._pool), NODE, self._max_running)
            runner = HostRunner(host, spec=spec, end_process=is_dead.set)
            self._hosts[spec.name] = _Local(spec=spec, runner=runner, is_dead=is_dead)
            runner.start()

    def stop_host(self, name: str, *, is_forced: bool) -> None:
        """Ends the host; one that is dead already is forgotten."""
        with self._lock:
            host = self._hosts.get(name)
            if host is None:
                return
            if host.is_dead.is_set():
                del self._hosts[name]
            elif is_forced:
                _kill(host)
            else:
                host.should_drain = True

    def kill(self, name: str) -> None:
        """A kill -9 of the host's process as it looks from outside: it says nothing more, and is dead a little later.

        A thread cannot be killed, so what runs is dropped; what was finished may still be written before `dead`.
        """
        with self._lock:
            _kill(self._hosts[name])

    def send(self, name: str, orders: Orders) -> None:
        """Queues orders for the next `observe`."""
        with self._lock:
            if (host := self._hosts.get(name)) is not None and not host.is_dead.is_set():
                host.pending.append(orders)

    def salvage(self, attempt_id: str, out_dir: str, first_part: int) -> tuple[Receipt, ...]:
        """Receipts of the parts that an attempt left on storage, from `first_part` on."""
        return find_receipts(out_dir, first_part=first_part) or find_checkpoints(out_dir, first_part)

    def close(self) -> None:
        """Ends every host: they cannot live on without this process."""
        with self._lock:
            hosts = list(self._hosts.values())
            for host in hosts:
                _kill(host)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for host in hosts:
            host.is_dead.wait(_CLOSE_S)

    def _exchange(self, host: _Local) -> HostReport:
        if host.is_dead.is_set():
            return host.last.at_death(error=host.last.error, pid=os.getpid(), node=NODE)
        if host.is_killed:
            return dataclasses.replace(host.last, state=HostState.unreachable)
        with self._lock:
            orders, host.pending = merged(host.pending), []
            host.calls += 1
        answer = host.runner.exchange(_CONNECTION, host.calls, orders, should_drain=host.should_drain)
        host.last = dataclasses.replace(answer.report, node=NODE)
        return host.last


def _kill(host: _Local) -> None:
    if not host.is_killed and not host.is_dead.is_set():
        host.is_killed = True
        host.runner.abandon()
