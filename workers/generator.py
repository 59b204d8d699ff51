"""A generator host: one engine, the attempts it serves, and two threads.

Owns who runs when. The *engine thread* loads the engine, admits samples, steps, settles; it never touches a file. The
*writer thread* opens prompts and writes parts, so that no fsync ever stops the engine. `exchange` takes orders and
reports under one lock that nobody holds across a step or a write. `workers.in_flight` owns what is inside the engine.

An attempt is drawn from the weights of its own model and no others. One that wants other weights than are loaded waits
until the engine is empty; then they are swapped (`workers.turns`). Weights that cannot be loaded fail the attempt that
wants them. A swap draws nothing: its seconds are in nobody's `busy_s`, so that rates stay rates of drawing, and the
host counts them apart.

An exception out of the engine is the end of the host: what is finished is written, and then, in one instant, attempts
with samples in flight fail and name them, the others stop and return their plan, and the state becomes `failed`. A
failed attempt on a host that seems to live would pass for the attempt's own fault. The process has to exit when it
sees `failed`. Must not import ray or vllm.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable

from service.cluster import AttemptReport, AttemptState, HostReport, HostState, Orders, StopMode
from service.devices import ONE_CORE, Devices
from service.errors import InvalidInput
from service.work import AttemptSpec, GenerateWork
from workers.attempt import Attempt
from workers.engine_protocol import Engine, EngineDead
from workers.host_attempts import HostAttempts
from workers.in_flight import InFlight
from workers.part_writer import PartWriter
from workers.samples import SampleSeeds
from workers.turns import Turns

_IDLE_WAIT_S = 0.5


class GeneratorHost:
    """Serves generate attempts with one engine; implements `service.cluster.Host`.

    Args:
        engine_factory: builds the engine, in the engine thread; may take minutes.
        clock: monotonic seconds.
        node: id of the machine, reported as it is.
        devices: that the engine holds.
    """

    def __init__(
        self,
        *,
        engine_factory: Callable[[], Engine],
        clock: Callable[[], float] = time.monotonic,
        node: str | None = None,
        devices: Devices = ONE_CORE,
    ) -> None:
        self._engine_factory = engine_factory
        self._clock = clock
        self._node = node
        self._devices = devices
        self._engine: Engine | None = None
        self._state = HostState.starting
        self._error: str | None = None
        self._loading_since: float | None = None
        self._load_s: float | None = None
        self._turns = Turns()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._attempts = HostAttempts(self._begin)
        self._in_flight = InFlight(self._turns)
        self._writer = PartWriter(lock=self._lock, on_done=self._wake.set)
        self._is_draining = False
        self._is_closing = False
        self._threads: tuple[threading.Thread, ...] = ()

    @property
    def state(self) -> HostState:
        """Where the host is; on `failed` everything that could be saved has been written."""
        return self._state

    @property
    def is_drained(self) -> bool:
        """Whether the host admits nothing more and has written everything."""
        with self._lock:
            return self._is_draining and self._attempts.are_over()

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        with self._lock:
            self._attempts.take(orders)
            for grant in orders.grants:
                if (attempt := self._attempts.get(grant.attempt_id)) is not None:
                    attempt.grant(grant)
            report = self._report()
        self._wake.set()
        return report

    def start(self) -> None:
        """Starts both threads; the engine loads in its own."""
        loops = {"writer": (self._writer.forever, self._fail_at_once), "engine": (self._run_engine, self.fail)}
        writer, engine = (
            threading.Thread(target=_supervise, args=loop, name=name, daemon=True) for name, loop in loops.items()
        )
        self._threads = (engine, writer)
        writer.start()
        engine.start()

    def drain(self) -> None:
        """Admits nothing more: what runs finishes and is written, the rest is returned."""
        with self._lock:
            self._is_draining = True
            if self._state in (HostState.loading, HostState.ready):
                self._state = HostState.draining
            self._attempts.stop_all(StopMode.finish)
        self._wake.set()

    def save(self) -> None:
        """Has the writer write what is finished, whatever the engine does."""
        with self._lock:
            for attempt in self._attempts:
                self._writer.write_later(attempt)
        self._writer.end_later()

    def close(self, timeout_s: float = 60.0) -> None:
        """Drains, then ends both threads, or gives up waiting for each after `timeout_s`."""
        self.drain()
        self._is_closing = True
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def load(self) -> None:
        """Builds the engine. Called by the engine thread."""
        self._state = HostState.loading
        started = self._loading_since = self._clock()
        engine = self._engine_factory()
        with self._lock:
            self._engine = engine
            self._loading_since = None
            self._writer.engine_version, self._writer.engine_seed = engine.version, engine.seed
            self._load_s = self._clock() - started
            self._state = HostState.draining if self._is_draining else HostState.ready

    def step_once(self) -> bool:
        """Admits what credit and engine allow, advances the engine once, settles; whether there was anything to do."""
        engine = self._engine
        assert engine is not None, "load() comes before step_once()"
        with self._lock:
            self._in_flight.drop_aborted(engine, self._attempts)
            has_admitted = self._in_flight.admit(engine, self._attempts, self._clock())
            has_work = len(self._in_flight) > 0
            next_in_turn = None if has_work else self._turns.waiting
        if next_in_turn is not None:
            self._swap(engine, next_in_turn)
            return True
        if has_work:
            started = self._clock()
            finished = engine.step()
            with self._lock:
                self._in_flight.settle(self._attempts, finished, self._clock() - started)
        with self._lock:
            self._in_flight.count_tokens(engine, self._clock())
            for attempt in self._attempts:
                self._end_if_done(attempt)
                self._flush_if_due(attempt)
        return has_work or has_admitted

    def write_once(self) -> bool:
        """Does one job of the writer: opens prompts or writes a part; whether there was one."""
        return self._writer.once()

    def fail(self, error: BaseException) -> None:
        """Ends the host: saves what is finished, then reports `failed`. The engine thread's last act."""
        message = f"{type(error).__name__}: {error}"
        with self._lock:
            charges = error.charges if isinstance(error, EngineDead) else None
            lost = self._in_flight.lose(self._attempts, charges)
            for attempt in self._attempts:
                self._writer.write_later(attempt)
            self._is_draining = True
        self._writer.call_later(lambda: self._become_failed(message, lost))
        self._writer.end_later()

    def _become_failed(self, message: str, lost: dict[str, str]) -> None:
        with self._lock:
            for attempt in self._attempts:
                if attempt.id in lost:
                    attempt.end(AttemptState.failed, error=f"engine lost with {lost[attempt.id]}: {message}")
                elif attempt.outcome is None:
                    attempt.end(AttemptState.stopped)
            self._error = "; ".join([message, *lost.values()])
            self._state = HostState.failed

    def _fail_at_once(self, error: BaseException) -> None:
        """The writer is gone, so that nothing can be saved: attempts stay as they are, and die with the process."""
        with self._lock:
            self._error, self._state = f"writer ended: {type(error).__name__}: {error}", HostState.failed

    # engine thread

    def _run_engine(self) -> None:
        self.load()
        assert self._engine is not None, "load() makes it"
        with contextlib.ExitStack() as ending:
            ending.callback(self._engine.disconnect)
            while not (self._is_closing and self.is_drained):
                if not self.step_once():
                    self._wake.wait(_IDLE_WAIT_S)
                    self._wake.clear()
        self._writer.end_later()

    def _swap(self, engine: Engine, attempt: Attempt) -> None:
        """Gives an empty engine the attempt's weights, or fails the attempt."""
        try:
            with self._turns.swap(self._clock):
                engine.load_weights(attempt.work.model)
        except InvalidInput as error:
            with self._lock:
                if attempt.outcome is None:
                    attempt.end(AttemptState.failed, error=str(error), is_retriable=False)
                    self._flush_if_due(attempt)  # before anybody hears that it has ended

    def _end_if_done(self, attempt: Attempt) -> None:
        if attempt.outcome is not None or attempt.in_flight:
            return
        upcoming = attempt.peek() if attempt.prepared is not None else None
        if attempt.prepared is not None and upcoming is None and not attempt.dropped:
            attempt.end(AttemptState.succeeded)
        elif attempt.stop is not None or (upcoming is not None and attempt.is_final and not attempt.fits(upcoming[0])):
            attempt.end(AttemptState.stopped)

    def _flush_if_due(self, attempt: Attempt) -> None:
        if not attempt.rows:
            attempt.flushed_at = self._clock()
        is_full = len(attempt.rows) >= attempt.work.flush_rows
        is_late = self._clock() - attempt.flushed_at >= attempt.work.flush_s
        if attempt.outcome is not None or is_full or is_late:
            self._writer.write_later(attempt)
            attempt.flushed_at = self._clock()

    # orders, under the lock

    def _begin(self, spec: AttemptSpec) -> Attempt:
        if not isinstance(spec.work, GenerateWork):
            raise TypeError(f"{spec.attempt_id}: a generator host takes generate attempts, got {spec.kind}")
        attempt = Attempt(
            spec=spec,
            work=spec.work,
            seeds=SampleSeeds(spec.work.seed, spec.work.seed_name),
            devices=self._devices,
            flushed_at=self._clock(),
        )
        if self._is_draining:
            attempt.end(AttemptState.stopped)
        else:
            self._writer.open_later(attempt)
        return attempt

    def _report(self) -> HostReport:
        now = self._clock()
        load_s = self._load_s if self._loading_since is None else now - self._loading_since
        state, load_s = self._turns.shown(self._state, load_s, now)
        return HostReport(
            state=state,
            attempts=self._report_attempts(),
            error=self._error if self._state is HostState.failed else None,
            pid=os.getpid(),
            node=self._node,
            engine_version=self._writer.engine_version,
            running_requests=len(self._in_flight),
            total_tokens=self._in_flight.total_tokens,
            busy_s=self._in_flight.busy_s,
            load_s=load_s,
            num_swaps=self._turns.num_swaps,
            swap_s=self._turns.swap_s,
        )

    def _report_attempts(self) -> tuple[AttemptReport, ...]:
        slots = 0 if self._engine is None else self._in_flight.slots_ahead(self._engine)
        reports: list[AttemptReport] = []
        for attempt in self._attempts.reported():
            ahead, taken = attempt.worst_of_next(slots)
            slots -= taken
            reports.append(attempt.report(ahead))
        return tuple(reports)


def _supervise(loop: Callable[[], None], end_host: Callable[[BaseException], None]) -> None:
    """Runs a thread's loop. Whatever breaks it ends the host, and goes on to the log: a thread must not end unseen."""
    try:
        loop()
    except BaseException as error:
        end_host(error)
        raise
