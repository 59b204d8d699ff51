"""Builds the host that a `HostSpec` asks for, and runs it to its end.

Owns `HostRunner`: the life of one host process apart from Ray. Invariants: late calls of an earlier connection or an
abandoned call give facts but no orders; a host that failed, was drained, or heard from nobody for too long is closed,
and its process told to end, by itself. Must not import ray, vllm or torch: what is heavy comes in when a host loads.
"""

import dataclasses
import functools
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from service.cluster import HostKind, HostReport, HostSpec, HostState, Orders, Stop, StopMode
from service.errors import InvalidInput
from workers.dispatcher import DispatcherHost, Launch
from workers.engine_protocol import Engine, EngineDead
from workers.generator import GeneratorHost
from workers.trainer import TrainerHost

_WATCH_S = 0.25
_FAILED_WAIT_S = 5.0  # how long a failed host waits for somebody to hear of it
# how long a drained host waits for its last receipts to be acknowledged; a dispatcher waits until it is silent, for
# nobody looks for its work on storage
_DRAINED_WAIT_S = 30.0
_CLOSE_S = 120.0
_STUCK_S = 300.0  # a silent host that makes no token for this long will not finish what it holds
# a trainer counts tokens by lines of its log: none while it reads its data, is within a step or writes a checkpoint
_TRAINERS_PATIENCE = 12


class RunnableHost(Protocol):
    """A host with a life: what `GeneratorHost`, `DispatcherHost` and `TrainerHost` share."""

    @property
    def state(self) -> HostState:
        """Where the host is."""
        ...

    @property
    def is_drained(self) -> bool:
        """Whether it admits nothing more and has written everything."""
        ...

    def start(self) -> None:
        """Begins; loading goes on behind it."""
        ...

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        ...

    def drain(self) -> None:
        """Takes no more work, finishes what runs."""
        ...

    def save(self) -> None:
        """Begins to write what is finished, without waiting for what runs. Returns at once, also of a stuck engine."""
        ...

    def close(self, timeout_s: float = 60.0) -> None:
        """Drains and ends its threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that no other can be mistaken for.

    Args:
        started_at: when the process was created [s since the epoch], for ids are used again.
    """

    pid: int
    started_at: float

    @classmethod
    def current(cls) -> "Process":
        """This one."""
        return cls(pid=os.getpid(), started_at=psutil.Process().create_time())

    def is_alive(self) -> bool:
        """Whether it still runs on this machine; a zombie does not, it writes no more."""
        try:
            process = psutil.Process(self.pid)
            # boot time is re-estimated when clocks are set, so equal starts may differ by a little
            is_same = abs(process.create_time() - self.started_at) < 1.0
            return is_same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one call to a host process returns."""

    report: HostReport
    process: Process


Keys = Mapping[str, str]
"""Keys of servers, by their addresses."""

MakeHost = Callable[[HostSpec, Launch, str | None, int], RunnableHost]
"""Spec, launcher, node and `max_running` of a dispatcher to a host that is not started."""


def with_keys(make: MakeHost, keys: Keys) -> MakeHost:
    """The same maker, for hosts that speak to servers elsewhere; one that makes no such hosts is given none."""
    return functools.partial(make, keys=keys) if keys else make  # pyright: ignore[reportCallIssue]


def make_host(
    spec: HostSpec, launch: Launch, node: str | None, max_running: int, *, keys: Keys | None = None
) -> RunnableHost:
    """The host for `spec`, not started; `launch` runs the attempts of a dispatcher.

    Args:
        keys: of servers elsewhere, by address.
    """
    if spec.kind is HostKind.dispatcher:
        return DispatcherHost(launch=launch, max_running=max_running, node=node)
    if spec.kind is HostKind.trainer:
        return TrainerHost(node=node, devices=spec.devices)
    if spec.model is None:
        raise ValueError(f"{spec.name}: a generator needs a model, got None")
    return GeneratorHost(engine_factory=engine_factory(spec, keys or {}), node=node, devices=spec.devices)


def keys_of(spec: HostSpec, keys: Keys) -> Keys:
    """Those that the host needs and no others."""
    endpoint = None if spec.model is None else spec.model.endpoint
    return {} if endpoint is None else {url: key for url, key in keys.items() if url == endpoint.base_url}


def engine_factory(spec: HostSpec, keys: Keys) -> Callable[[], Engine]:
    """Builds the engine of a generator when called; heavy imports happen then.

    Raises:
        InvalidInput: when called, where the model's server wants a key and none is there.
    """
    model = spec.model
    assert model is not None, "only a generator has an engine"
    if (endpoint := model.endpoint) is not None:

        def elsewhere() -> Engine:
            from workers.endpoint_engine import EndpointEngine
            from workers.prepare import decoder_of

            key = keys.get(endpoint.base_url)
            if endpoint.api_key_env is not None and key is None:
                # nothing is sent, not even without the key: the operator may have taken the server from the list
                raise InvalidInput(
                    f"{model.name}: needs the key of {endpoint.base_url}, got none; allowed: that server in "
                    f"ISOFLOP_ENDPOINTS with {endpoint.api_key_env}, when the service starts"
                )
            engine = EndpointEngine(endpoint, api_key=key, model=model, decode=decoder_of(model))
            try:
                engine.check()
            except EngineDead:
                engine.close()
                raise
            return engine

        return elsewhere
    if model.engine.simulated:

        def simulated() -> Engine:
            from workers.simulated_engine import SimulatedEngine

            return SimulatedEngine(model=model, max_num_seqs=model.engine.max_num_seqs)

        return simulated

    def real() -> Engine:
        from workers.engine import VllmEngine

        return VllmEngine(model, seed=zlib.crc32(spec.name.encode()))

    return real


def merged(many: Sequence[Orders]) -> Orders:
    """Several orders as one; within each kind the order stays."""
    return Orders(
        submits=tuple(spec for orders in many for spec in orders.submits),
        grants=tuple(grant for orders in many for grant in orders.grants),
        stops=tuple(stop for orders in many for stop in orders.stops),
        acknowledges=tuple(acknowledge for orders in many for acknowledge in orders.acknowledges),
    )


def _patience_s(spec: HostSpec, stuck_s: float) -> float:
    """How long one that works may make no token [s]: tasks make none, and a server elsewhere may be waited for."""
    if spec.kind is HostKind.dispatcher or (spec.model is not None and spec.model.endpoint is not None):
        return math.inf
    return _TRAINERS_PATIENCE * stuck_s if spec.kind is HostKind.trainer else stuck_s


class HostRunner:
    """Runs one host: guards its calls, watches it, ends it.

    Args:
        host: not yet started.
        spec: what it was asked to be.
        end_process: called once, when the process has to end.
        silence_s: after this long without a call the host is drained and ended [s].
        stuck_s: how long a host may then go without making a token; after that it only saves what is finished, and the
            process ends with the rest [s]. Twelve times as long for trainers; not for hosts whose silence says nothing.
        close_s: how long the process waits for that [s].
        clock: monotonic seconds.
    """

    def __init__(
        self,
        host: RunnableHost,
        *,
        spec: HostSpec,
        end_process: Callable[[], None],
        silence_s: float = 1800.0,
        stuck_s: float = _STUCK_S,
        close_s: float = _CLOSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._end_process = end_process
        self._silence_s = silence_s
        self._stuck_s = _patience_s(spec, stuck_s)
        self._drained_wait_s = silence_s if spec.kind is HostKind.dispatcher else _DRAINED_WAIT_S
        self._close_s = close_s
        self._moved: tuple[int, float] | None = None
        self._clock = clock
        self._process = Process.current()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._connection = ""
        self._last_call: dict[str, int] = {}
        self._heard_at = clock()
        self._failed_at: float | None = None
        self._drained_at: float | None = None
        self._is_failure_told = False
        self._is_draining = False
        self._is_abandoned = False

    def start(self) -> None:
        """Starts the host and its watch."""
        self._host.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def exchange(self, connection: str, call: int, orders: Orders, *, should_drain: bool = False) -> Answer:
        """Takes orders, returns facts.

        Args:
            connection: names the caller; as soon as another has called, orders of this one count no more.
            call: number of the call within the connection, growing; orders of an earlier number come too late.
            should_drain: whether the host is to end once its work is written; stays so.
        """
        with self._lock:
            self._heard_at = self._clock()
            is_current = connection == self._connection or connection not in self._last_call
            is_late = not is_current or call <= self._last_call.get(connection, -1)
            if not is_late:
                self._connection = connection
                self._last_call[connection] = call
                if should_drain:
                    self.drain()
            report = self._host.exchange(Orders() if is_late else orders)
            self._is_failure_told |= report.state is HostState.failed
        self._wake.set()
        return Answer(report=dataclasses.replace(report, pid=self._process.pid), process=self._process)

    def drain(self) -> None:
        """Finishes what runs and writes it; the process ends when all of it is acknowledged."""
        if not self._is_draining:
            self._is_draining = True
            self._host.drain()

    def abandon(self) -> None:
        """Drops what runs and ends the process, whoever has been told of what."""
        attempts = self._host.exchange(Orders()).attempts
        stops = tuple(Stop(attempt_id=attempt.attempt_id, mode=StopMode.abort) for attempt in attempts)
        self._host.exchange(Orders(stops=stops))
        self._is_abandoned = True
        self._wake.set()

    def is_over(self) -> bool:
        """Whether the process should end now."""
        now = self._clock()
        if self._is_abandoned:
            return True
        if self._host.state is HostState.failed:
            self._failed_at = now if self._failed_at is None else self._failed_at
            # once told, the answer still needs a moment to leave the process
            return now - self._failed_at > (2 * _WATCH_S if self._is_failure_told else _FAILED_WAIT_S)
        is_silent = now - self._heard_at > self._silence_s
        if is_silent:
            self.drain()
        if not (self._is_draining and self._host.is_drained):
            return is_silent and self._gives_up(now)
        self._drained_at = now if self._drained_at is None else self._drained_at
        has_been_told = not self._host.exchange(Orders()).attempts
        # what nobody acknowledges is on storage, and is found there
        return has_been_told or is_silent or now - self._drained_at > self._drained_wait_s

    def _gives_up(self, now: float) -> bool:
        """Whether a silent host makes no tokens any more: what it holds would keep its process for ever."""
        tokens = self._host.exchange(Orders()).total_tokens
        if self._moved is None or self._moved[0] != tokens:
            self._moved = (tokens, now)
        if now - self._moved[1] <= self._stuck_s:
            return False
        self._host.save()
        return True

    def _watch(self) -> None:
        while not self.is_over():
            self._wake.wait(_WATCH_S)
            self._wake.clear()
        if self._host.state is not HostState.failed:
            self._host.close(self._close_s)
        self._end_process()
