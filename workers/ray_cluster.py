"""Hosts as named detached Ray actors: the controller's only way to Ray.

Owns a connection to a head that was started apart, one thread that talks to Ray, and what is known of every host.
Invariants: no method waits for Ray; a host has at most one call outstanding; orders go out only once the host's
process is on record, so the end of whatever may have written a file can be checked; `dead` means that this process
is gone. Records live in the head's key-value store, so that a new controller learns of hosts that died unseen.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import ActorDiedError, ActorUnschedulableError, GetTimeoutError, RayError, RuntimeEnvSetupError
from ray.experimental import internal_kv

from service.checkpoints import find_checkpoints
from service.cluster import HostSpec, NodeStatus, Observation, Orders
from service.errors import InvalidInput, Unreachable
from service.receipts import Receipt
from service.shards import find_receipts
from workers.host_link import HostLink
from workers.hosts import Answer, Keys, MakeHost, Process, keys_of, make_host, merged
from workers.ray_hosts import HostSettings, ask_if_alive, create_actor

_RETRY_S = 0.5
_POLL_S = 0.05
_NODES_S = 2.0
_CALL_TIMEOUT_S = 10.0  # an exchange is quick: one that takes longer is given up and made again
_KNOCK_S = 5.0
_KILL_AFTER_S = 10.0  # a process that outlives its actor gets this long before it is killed
_GONE = (ActorDiedError, RuntimeEnvSetupError, ActorUnschedulableError)


class RayCluster:
    """Runs hosts on a Ray cluster; implements `service.cluster.Cluster`.

    `stop_host` on a host that is `dead` forgets it. Reports of a dead host list no attempts: `salvage` finds what each
    left on storage.

    Args:
        address: `host:port` of the head.
        namespace: keeps several controllers on one cluster apart.
        token_path: file with the cluster's token; None connects without one.
        make_host: builds a host that is not started; runs in the actor.
        max_running: attempts that a dispatcher runs at the same time.
        task_cpus: logical CPUs of each of them.
        silence_s: a host that no controller calls for this long writes what it has and ends [s].
        stuck_s: ... and an engine that makes no token for this long after that ends without it: `HostRunner` [s].
        close_s: longest wait for a host's threads when it ends [s].
        unreachable_s: a host that does not answer for this long is `unreachable` [s].
        keys: of servers elsewhere, by address; each host is told those that it needs.

    Raises:
        Unreachable: no cluster answers at this address.
        InvalidInput: this process is connected to another cluster.
    """

    def __init__(
        self,
        *,
        address: str,
        namespace: str = "isoflop",
        token_path: str | Path | None = None,
        make_host: MakeHost = make_host,
        max_running: int = 2,
        task_cpus: float = 0.25,
        silence_s: float = 1800.0,
        stuck_s: float = 300.0,
        close_s: float = 120.0,
        unreachable_s: float = 30.0,
        keys: Keys | None = None,
    ) -> None:
        self._owns_connection = _connect(address, namespace, token_path)
        self._namespace = namespace
        self._settings = HostSettings(
            make_host=make_host,
            max_running=max_running,
            task_cpus=task_cpus,
            silence_s=silence_s,
            stuck_s=stuck_s,
            close_s=close_s,
        )
        self._unreachable_s = unreachable_s
        self._keys = keys or {}
        self._node = ray.get_runtime_context().get_node_id()
        self._connection = uuid.uuid4().hex
        self._calls = itertools.count(1)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._commands: deque[Callable[[], None]] = deque()
        self._links: dict[str, HostLink] = {}
        self._names: set[str] = set()
        self._nodes: tuple[NodeStatus, ...] = ()
        self._nodes_at = 0.0
        self._is_closing = False
        self._refresh_nodes()
        self._find_hosts()
        self._thread = threading.Thread(target=self._run, name="ray-cluster", daemon=True)
        self._thread.start()

    def observe(self) -> Observation:
        """The latest facts about every known host.

        Raises:
            Unreachable: the thread that talks to Ray has ended.
        """
        if not self._thread.is_alive():
            raise Unreachable("the connection to the Ray cluster has ended; see the log for the reason")
        now = time.monotonic()
        with self._lock:
            hosts = {name: link.report(now, self._unreachable_s) for name, link in self._links.items()}
            return Observation(hosts=hosts, nodes=self._nodes)

    def start_host(self, spec: HostSpec) -> None:
        """Starts the host unless one of that name exists or existed."""
        with self._lock:
            if spec.name in self._names:
                return
            self._names.add(spec.name)
            needs = f"num_cpus={spec.num_cpus:g}, num_gpus={spec.num_gpus:g}"
            link = self._links[spec.name] = HostLink(name=spec.name, needs=needs, answered_at=time.monotonic())
        self._command(lambda: self._create(link, spec))

    def stop_host(self, name: str, *, is_forced: bool) -> None:
        """Ends the host: once all is written and acknowledged, or at once; forgets one that is dead."""
        with self._lock:
            link = self._links.get(name)
            if link is None:
                return
            if link.is_dead:
                del self._links[name]
                self._command(lambda: self._forget(name))
            elif is_forced or link.process is None:
                # one that has never answered has no work, and may never get the resources to answer with
                self._command(lambda: self._kill(link))
            else:
                link.should_drain, link.next_call_at = True, 0.0

    def send(self, name: str, orders: Orders) -> None:
        """Queues orders for the host's next exchange, which is soon."""
        with self._lock:
            link = self._links.get(name)
            if link is not None and link.lost_at is None:
                link.pending.append(orders)
                link.next_call_at = 0.0
        self._wake.set()

    def salvage(self, attempt_id: str, out_dir: str, first_part: int) -> tuple[Receipt, ...]:
        """Receipts of the parts that an attempt left on storage, from `first_part` on."""
        return find_receipts(out_dir, first_part=first_part) or find_checkpoints(out_dir, first_part)

    def close(self) -> None:
        """Lets go of the cluster; hosts live on."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(_CALL_TIMEOUT_S)
        if self._owns_connection:
            ray.shutdown()

    # the thread that talks to Ray

    def _run(self) -> None:
        while not self._is_closing:
            for _ in range(len(self._commands)):
                self._commands.popleft()()
            with self._lock:
                links = [link for link in self._links.values() if not link.is_dead]
            for link in links:
                if link.lost_at is not None:
                    self._bury(link)
                elif link.handle is not None:
                    self._call(link)
            self._collect([link for link in links if link.ref is not None])
            if time.monotonic() - self._nodes_at > _NODES_S:
                self._refresh_nodes()

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake.set()

    def _create(self, link: HostLink, spec: HostSpec) -> None:
        if link.lost_at is not None:
            return  # ended before it could be made
        has_gpus = any(node.num_gpus for node in self._nodes)
        try:
            self._record(link, None, None)
            link.handle = create_actor(
                spec, self._settings, namespace=self._namespace, has_gpus=has_gpus, keys=keys_of(spec, self._keys)
            )
        except RayError as error:
            link.trouble = str(error)
            self._command(lambda: self._create(link, spec))
            time.sleep(_POLL_S)

    def _kill(self, link: HostLink) -> None:
        if link.handle is not None:
            ray.kill(link.handle, no_restart=True)
        with self._lock:
            link.lose(time.monotonic())

    def _call(self, link: HostLink) -> None:
        """Makes the next call if it is due, and gives up one that takes too long."""
        now = time.monotonic()
        with self._lock:
            # before the first answer the process is not there yet: it may wait long for resources
            if link.ref is not None and link.process is not None and now - link.called_at > _CALL_TIMEOUT_S:
                link.pending.extendleft(reversed(link.sent))
                link.ref, link.next_call_at = None, now
                link.trouble = f"a call was not answered for {_CALL_TIMEOUT_S:.0f} s"
            if link.ref is not None or now < link.next_call_at:
                return
            link.sent = tuple(link.pending) if link.process is not None else ()
            if link.sent:
                link.pending.clear()
            link.called_at, should_drain = now, link.should_drain
        link.ref = link.handle.exchange.remote(self._connection, next(self._calls), merged(link.sent), should_drain)

    def _collect(self, links: list[HostLink]) -> None:
        """Takes the answers that are there; waits a moment for the first."""
        refs = [link.ref for link in links]
        if not refs:
            self._wake.wait(_POLL_S)
            self._wake.clear()
            return
        if not ray.wait(refs, num_returns=1, timeout=_POLL_S)[0]:
            return
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        for link in links:
            if link.ref in ready:
                self._take(link)

    def _take(self, link: HostLink) -> None:
        try:
            answer: Answer = ray.get(link.ref, timeout=_CALL_TIMEOUT_S)
            if link.process is None:
                self._record(link, answer.process, answer.report.node)
                link.process, link.node = answer.process, answer.report.node
        except _GONE as error:
            with self._lock:
                # an actor that could not even be built says why; one that was killed only says that it was
                link.lose(time.monotonic(), _in_one_line(error) if link.process is None else None)
            return
        except RayError as error:
            # the call may or may not have been taken: its orders go out again, and are idempotent
            with self._lock:
                link.pending.extendleft(reversed(link.sent))
                link.ref, link.sent, link.trouble = None, (), _in_one_line(error)
                link.next_call_at = time.monotonic() + _RETRY_S
            return
        with self._lock:
            link.ref, link.sent = None, ()
            link.take_answer(answer, time.monotonic())

    def _bury(self, link: HostLink) -> None:
        """Makes sure that the process of a lost actor is gone; only then the host is dead."""
        assert link.lost_at is not None, "only a lost host is buried"
        if link.process is None:
            is_alive = False  # it never answered, so it never had orders from here
        elif link.node == self._node:
            is_alive = link.process.is_alive()
            if is_alive and time.monotonic() - link.lost_at > _KILL_AFTER_S:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(link.process.pid, signal.SIGKILL)
        else:
            is_alive = self._probe(link)
        if not is_alive:
            with self._lock:
                link.is_dead = True

    def _probe(self, link: HostLink) -> bool:
        """Whether a process on another node lives; unknown counts as alive, a node that is gone as its end."""
        if link.node not in {node.id for node in self._nodes}:
            return time.monotonic() - (link.lost_at or 0.0) < self._unreachable_s
        assert link.process is not None, "only a process can be asked for"
        if link.probe is None:
            link.probe = ask_if_alive(link.process, str(link.node))
        try:
            is_alive = bool(ray.get(link.probe, timeout=_POLL_S))
        except GetTimeoutError:
            return True
        except RayError as error:
            link.trouble, is_alive = _in_one_line(error), True
        link.probe = None
        return is_alive

    def _refresh_nodes(self) -> None:
        self._nodes_at = time.monotonic()
        try:
            nodes = ray.nodes()
        except RayError:
            return  # the head does not answer now: what was true stays until it does
        self._nodes = tuple(
            NodeStatus(
                id=node["NodeID"],
                num_cpus=node["Resources"].get("CPU", 0.0),
                num_gpus=node["Resources"].get("GPU", 0.0),
            )
            for node in nodes
            if node["Alive"]
        )

    # records, and hosts of earlier controllers

    def _key(self, name: str) -> str:
        return f"{self._namespace}/host/{name}"

    def _record(self, link: HostLink, process: Process | None, node: str | None) -> None:
        record = {"needs": link.needs, "node": node, "process": process and dataclasses.asdict(process)}
        internal_kv._internal_kv_put(self._key(link.name), json.dumps(record), namespace="isoflop")

    def _forget(self, name: str) -> None:
        # if this fails, the next controller hears of the death again
        with contextlib.suppress(RayError):
            internal_kv._internal_kv_del(self._key(name), namespace="isoflop")

    def _find_hosts(self) -> None:
        now = time.monotonic()
        for key in internal_kv._internal_kv_list(self._key(""), namespace="isoflop"):
            name = key.decode().removeprefix(self._key(""))
            record = json.loads(internal_kv._internal_kv_get(key, namespace="isoflop"))
            link = HostLink(name=name, needs=record["needs"], node=record["node"], answered_at=now, is_inherited=True)
            if record["process"] is not None:
                link.process = Process(**record["process"])
            try:
                link.handle = ray.get_actor(name, namespace=self._namespace)
            except ValueError:
                link.lose(now)
            self._links[name] = link
            self._names.add(name)


def _connect(address: str, namespace: str, token_path: str | Path | None) -> bool:
    """Connects this process to a cluster; False if it was connected to that one already."""
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if connected != address:
            raise InvalidInput(f"this process is connected to the Ray cluster {connected}, asked for {address}")
        return False
    host, port = address.rsplit(":", 1)
    try:
        # Ray itself would try for a minute, and then end this process
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise Unreachable(f"no Ray cluster answers at {address}: {error}") from error
    os.environ["RAY_AUTH_MODE"] = "disabled" if token_path is None else "token"
    if token_path is not None:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_path)
    # Ray reads both when it is imported, which was before
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # on a loopback head this process must not introduce itself by the machine's outer address
            _node_ip_address=host if host.startswith("127.") else None,
        )
    except (ConnectionError, RuntimeError, RayError) as error:
        raise Unreachable(f"no Ray cluster answers at {address}: {_in_one_line(error)}") from error
    finally:
        # Ray takes SIGTERM for itself; how this process ends is for its owner to say
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)
    return True


def _in_one_line(error: BaseException) -> str:
    """What happened, and the last words of a remote traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    return f"{type(error).__name__}: {text}"[:1000]
