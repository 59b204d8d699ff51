"""A dispatcher host: runs prepare, score, select and import attempts, a bounded number at a time.

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
from service.errors import InvalidInput, IsoflopError
from service.receipts import Receipt
from service.shards import find_receipts
from service.work import AttemptSpec, ImportWork, PrepareWork, ScoreWork, SelectWork
from workers.host_attempts import Failure, HostAttempts, PlainAttempt
from workers.importing import import_samples
from workers.prepare import prepare
from workers.scoring import score
from workers.selecting import select

Progress = Callable[[int, int], None]
"""Called with items done and items in all."""
Made = Receipt | tuple[Receipt, ...]
"""What an attempt has made: one file, or the files of an import."""


class Handle(Protocol):
    """An attempt on its way."""

    def is_done(self) -> bool:
        """Whether `result` answers at once."""
        ...

    def result(self) -> "Made | Failure":
        """What the attempt has made, or why it made nothing."""
        ...

    def cancel(self) -> None:
        """Ends it if that is possible; `is_done` follows, sooner or later."""
        ...


Launch = Callable[[AttemptSpec], Handle]


@dataclass(slots=True, kw_only=True, eq=False)
class _Attempt(PlainAttempt):
    handle: Handle | None = None
    is_stopped: bool = False

    @property
    def is_over(self) -> bool:
        # one that is forgotten has been cancelled as well as it can be: what it still does takes nobody's place
        return self.state is not AttemptState.running or self.is_forgotten

    @property
    def is_launched(self) -> bool:
        """Whether it is on its way."""
        return self.handle is not None and not self.is_over

    def finish(self, result: Made | Failure) -> None:
        """Takes the outcome; a receipt counts even when the attempt was told to stop."""
        if isinstance(result, Failure):
            if self.is_stopped:
                self.state = AttemptState.stopped
            else:
                self.fail(result)
            return
        self.state = AttemptState.succeeded
        self.receipts += result if isinstance(result, tuple) else (result,)

    def take_stop(self, mode: StopMode) -> None:
        """What waits is stopped; what runs goes on unless it is aborted."""
        if self.state is not AttemptState.running:
            return
        if self.handle is None:
            self.state = AttemptState.stopped
        elif mode is StopMode.abort and not self.is_stopped:
            self.is_stopped = True
            self.handle.cancel()

    def report(self) -> AttemptReport:
        return self.report_progress(admitted=int(self.handle is not None), finished=int(self.is_over))


class DispatcherHost:
    """Runs prepare, score, select and import attempts; implements `service.cluster.Host`.

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
        self._attempts = HostAttempts(self._begin)
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
            return self._is_draining and self._attempts.are_over()

    def start(self) -> None:
        """Nothing: attempts start with `exchange`."""

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        with self._lock:
            self._attempts.take(orders)
            self._advance()
            return HostReport(
                state=self.state,
                attempts=tuple(attempt.report() for attempt in self._attempts.reported()),
                node=self._node,
                running_requests=sum(attempt.is_launched for attempt in self._attempts),
                busy_s=self._busy_s,
            )

    def drain(self) -> None:
        """Starts nothing more; what runs goes on, what waits is stopped."""
        with self._lock:
            self._is_draining = True
            self._attempts.stop_all(StopMode.finish)

    def save(self) -> None:
        """Nothing: what a task has made is on storage."""

    def close(self, timeout_s: float = 60.0) -> None:
        """Drains and drops what runs."""
        self.drain()
        with self._lock:
            self._attempts.stop_all(StopMode.abort)

    def _begin(self, spec: AttemptSpec) -> _Attempt:
        attempt = _Attempt(spec=spec)
        if not isinstance(spec.work, PrepareWork | ScoreWork | SelectWork | ImportWork):
            refusal = f"a dispatcher runs prepare, score, select and import attempts, got {spec.kind.value}"
            attempt.fail(Failure.of(InvalidInput(refusal)))
        elif self._is_draining:
            attempt.state = AttemptState.stopped
        return attempt

    def _advance(self) -> None:
        """Takes what is done, and starts what waits while there is room."""
        running = 0
        for attempt in self._attempts:
            if attempt.handle is None or attempt.is_over:
                continue
            if attempt.handle.is_done():
                attempt.finish(attempt.handle.result())
                self._busy_s += sum(receipt.usage.busy_s for receipt in attempt.receipts)
            else:
                running += 1
        for attempt in self._attempts:
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


def make(spec: AttemptSpec) -> Made:
    """Does any attempt of a dispatcher here and now: `run_attempt`, or the many files of an import.

    Raises:
        InvalidInput: the work cannot be done as it is stated.
        CorruptFile: an input is not what it was.
    """
    if isinstance(spec.work, ImportWork):
        return find_receipts(spec.out_dir) or import_samples(spec, spec.work)
    return run_attempt(spec)


def outcome_of(spec: AttemptSpec) -> Made | Failure:
    """Does an attempt here and now, and turns what the project itself refuses into a `Failure`."""
    try:
        return make(spec)
    except IsoflopError as error:
        return Failure.of(error)


@dataclass(frozen=True, slots=True)
class FutureHandle:
    """An attempt in a thread: cannot be ended once it runs."""

    future: Future[Made]

    def is_done(self) -> bool:
        """Whether the thread is done with it."""
        return self.future.done()

    def result(self) -> Made | Failure:
        """What was made, or what was raised."""
        if self.future.cancelled():
            return Failure(error="cancelled before it started", is_retriable=True)
        error = self.future.exception()
        return self.future.result() if error is None else Failure.of(error)

    def cancel(self) -> None:
        """Takes it out of the queue if it still waits there."""
        self.future.cancel()


def thread_launcher(pool: ThreadPoolExecutor, run: Callable[[AttemptSpec], Made] = make) -> Launch:
    """A `Launch` that runs attempts in the threads of `pool`."""
    return lambda spec: FutureHandle(pool.submit(run, spec))


def _no_progress(done: int, total: int) -> None:
    """Nobody watches."""
