"""A dispatcher host: runs prepare, score and select attempts, a bounded number at a time.

Owns which attempt runs when; what runs an attempt is injected (`launch`): a Ray task on a cluster, a thread in the
local twin. Invariant: `exchange` never waits for work, and an attempt is launched at most once, whatever is ordered
twice. Must not import ray.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from service.cluster import AttemptReport, AttemptState, HostReport, HostState, Orders, StopMode
from service.errors import InvalidInput, IsoflopError, UnknownName
from service.receipts import Receipt
from service.shards import find_receipts
from service.work import AttemptSpec, PrepareWork, ScoreWork, SelectWork
from workers.prepare import prepare
from workers.recent_ids import RecentIds
from workers.scoring import score
from workers.selecting import select

Progress = Callable[[int, int], None]
"""Called with items done and items in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt has no receipt. Text, because not every exception survives the way between processes."""

    error: str
    is_retriable: bool

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """What an exception says; work that is stated wrongly stays wrong, everything else may pass."""
        is_retriable = not isinstance(error, InvalidInput | UnknownName)
        return cls(error=f"{type(error).__name__}: {error}", is_retriable=is_retriable)


class Handle(Protocol):
    """An attempt on its way."""

    def is_done(self) -> bool:
        """Whether `result` answers at once."""
        ...

    def result(self) -> "Receipt | Failure":
        """The attempt's receipt, or why there is none."""
        ...

    def cancel(self) -> None:
        """Ends it if that is possible; `is_done` follows, sooner or later."""
        ...


Launch = Callable[[AttemptSpec], Handle]


@dataclass(slots=True, kw_only=True)
class _Attempt:
    spec: AttemptSpec
    handle: Handle | None = None
    state: AttemptState = AttemptState.running
    receipt: Receipt | None = None
    error: str | None = None
    is_retriable: bool = True
    is_stopped: bool = False

    @property
    def is_over(self) -> bool:
        return self.state is not AttemptState.running

    def finish(self, result: Receipt | Failure) -> None:
        """Takes the outcome; a receipt counts even when the attempt was told to stop."""
        if isinstance(result, Receipt):
            self.state, self.receipt = AttemptState.succeeded, result
        elif self.is_stopped:
            self.state = AttemptState.stopped
        else:
            self.state = AttemptState.failed
            self.error, self.is_retriable = result.error, result.is_retriable

    def report(self) -> AttemptReport:
        return AttemptReport(
            attempt_id=self.spec.attempt_id,
            state=self.state,
            error=self.error,
            is_retriable=self.is_retriable,
            receipts=() if self.receipt is None else (self.receipt,),
            admitted=int(self.handle is not None),
            finished=int(self.is_over),
        )


class DispatcherHost:
    """Runs prepare, score and select attempts; implements `service.cluster.Host`.

    Args:
        launch: starts one attempt and returns at once.
        max_running: attempts that run at the same time; the others wait in the order of their submission.
        node: id of the machine, reported as it is.
    """

    def __init__(self, *, launch: Launch, max_running: int = 2, node: str | None = None) -> None:
        if max_running < 1:
            raise ValueError(f"max_running must be >= 1, got {max_running}")
        self._launch = launch
        self._max_running = max_running
        self._node = node
        self._lock = threading.Lock()
        self._attempts: dict[str, _Attempt] = {}
        self._forgotten = RecentIds()
        self._is_draining = False
        self._busy_s = 0.0

    @property
    def state(self) -> HostState:
        """Ready until it drains; a dispatcher has nothing to load."""
        return HostState.draining if self._is_draining else HostState.ready

    @property
    def is_drained(self) -> bool:
        """Whether nothing runs any more and nothing will."""
        with self._lock:
            self._advance()
            return self._is_draining and all(attempt.is_over for attempt in self._attempts.values())

    def start(self) -> None:
        """Nothing: attempts start with `exchange`."""

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        with self._lock:
            for spec in orders.submits:
                self._submit(spec)
            for stop in orders.stops:
                self._stop(stop.attempt_id, stop.mode)
            for acknowledge in orders.acknowledges:
                self._acknowledge(acknowledge.attempt_id, acknowledge.num_parts, acknowledge.is_forgotten)
            self._advance()
            running = sum(attempt.handle is not None and not attempt.is_over for attempt in self._attempts.values())
            return HostReport(
                state=self.state,
                attempts=tuple(attempt.report() for attempt in self._attempts.values()),
                node=self._node,
                running_requests=running,
                busy_s=self._busy_s,
            )

    def drain(self) -> None:
        """Starts nothing more; what runs goes on, what waits is stopped."""
        with self._lock:
            self._is_draining = True
            for attempt_id in list(self._attempts):
                self._stop(attempt_id, StopMode.finish)

    def close(self, timeout_s: float = 60.0) -> None:
        """Drains and drops what runs."""
        self.drain()
        with self._lock:
            for attempt_id in list(self._attempts):
                self._stop(attempt_id, StopMode.abort)

    def _submit(self, spec: AttemptSpec) -> None:
        if spec.attempt_id in self._attempts or spec.attempt_id in self._forgotten:
            return
        attempt = self._attempts[spec.attempt_id] = _Attempt(spec=spec)
        if not isinstance(spec.work, PrepareWork | ScoreWork | SelectWork):
            refusal = f"a dispatcher runs prepare, score and select attempts, got {spec.kind.value}"
            attempt.finish(Failure.of(InvalidInput(refusal)))
        elif self._is_draining:
            attempt.state = AttemptState.stopped

    def _stop(self, attempt_id: str, mode: StopMode) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.is_over:
            return
        if attempt.handle is None:
            attempt.state = AttemptState.stopped
        elif mode is StopMode.abort and not attempt.is_stopped:
            attempt.is_stopped = True
            attempt.handle.cancel()

    def _acknowledge(self, attempt_id: str, num_parts: int, is_forgotten: bool) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return
        if num_parts > 0:
            attempt.receipt = None
        if is_forgotten:
            if attempt.handle is not None and not attempt.is_over:
                attempt.handle.cancel()
            del self._attempts[attempt_id]
            self._forgotten.add(attempt_id)

    def _advance(self) -> None:
        """Takes what is done, and starts what waits while there is room."""
        running = 0
        for attempt in self._attempts.values():
            if attempt.handle is None or attempt.is_over:
                continue
            if attempt.handle.is_done():
                attempt.finish(attempt.handle.result())
                self._busy_s += attempt.receipt.usage.busy_s if attempt.receipt is not None else 0.0
            else:
                running += 1
        for attempt in self._attempts.values():
            if running >= self._max_running:
                return
            if attempt.handle is None and not attempt.is_over:
                attempt.handle = self._launch(attempt.spec)
                running += 1


def run_attempt(spec: AttemptSpec, progress: Progress | None = None) -> Receipt:
    """Does a prepare, score or select attempt here and now; work that is on storage already is not done again.

    Raises:
        InvalidInput: the work cannot be done as it is stated.
        CorruptFile: an input is not what was committed.
    """
    for receipt in find_receipts(spec.out_dir):
        return receipt
    if isinstance(spec.work, PrepareWork):
        return prepare(spec.work, spec.out_dir, progress or _no_progress)
    if isinstance(spec.work, ScoreWork):
        return score(spec.work, spec.out_dir)
    if isinstance(spec.work, SelectWork):
        return select(spec.work, spec.out_dir)
    raise InvalidInput(f"{spec.attempt_id}: only prepare, score and select run as tasks, got {spec.kind.value}")


def outcome_of(spec: AttemptSpec) -> Receipt | Failure:
    """Does an attempt here and now, and turns what the project itself refuses into a `Failure`."""
    try:
        return run_attempt(spec)
    except IsoflopError as error:
        return Failure.of(error)


@dataclass(frozen=True, slots=True)
class FutureHandle:
    """An attempt in a thread: cannot be ended once it runs."""

    future: Future[Receipt]

    def is_done(self) -> bool:
        """Whether the thread is done with it."""
        return self.future.done()

    def result(self) -> Receipt | Failure:
        """The receipt, or what was raised."""
        if self.future.cancelled():
            return Failure(error="cancelled before it started", is_retriable=True)
        error = self.future.exception()
        return self.future.result() if error is None else Failure.of(error)

    def cancel(self) -> None:
        """Takes it out of the queue if it still waits there."""
        self.future.cancel()


def thread_launcher(pool: ThreadPoolExecutor, run: Callable[[AttemptSpec], Receipt] = run_attempt) -> Launch:
    """A `Launch` that runs attempts in the threads of `pool`."""
    return lambda spec: FutureHandle(pool.submit(run, spec))


def _no_progress(done: int, total: int) -> None:
    """Nobody watches."""
