"""A trainer host: one warm process that runs finetune attempts, one after another.

Owns which attempt runs when; what trains is loaded once (`load`), for importing the libraries takes longer than many a
run. Invariants: `exchange` never waits for training; attempts run in the order of their submission, each at most once,
whatever is ordered twice; how an attempt ended is decided by its last checkpoint, not by what the trainer thinks.

An exception that the project did not raise itself leaves a process (and its GPU) in a state that nobody knows: the
attempt fails, the host becomes `failed`, those that wait are stopped, and a fresh process takes over. Must not import
ray, vllm or torch.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from service.checkpoints import checkpoint_step
from service.cluster import AttemptReport, AttemptState, HostReport, HostState, Orders, StopMode
from service.devices import ONE_CORE, Devices
from service.errors import InvalidInput, IsoflopError
from service.receipts import Receipt, Usage
from service.work import AttemptSpec, FinetuneWork
from workers.host_attempts import Failure, HostAttempts, PlainAttempt


class Progress(Protocol):
    """What a line of a training log says that the host needs."""

    @property
    def step(self) -> int:
        """Optimizer steps of the run that are done."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens trained since the run began."""
        ...


class Train(Protocol):
    """Trains a student; `workers.finetune.finetune`."""

    def __call__(
        self,
        work: FinetuneWork,
        out_dir: str | Path,
        *,
        on_log: Callable[[Progress], None],
        on_checkpoint: Callable[[Receipt], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Returns after the last step, or early once `should_stop` says so."""
        ...


def load_training() -> Train:
    """Imports everything that a run needs."""
    from transformers.utils.logging import disable_progress_bar

    from workers.finetune import finetune

    disable_progress_bar()
    return finetune


@dataclass(slots=True, kw_only=True, eq=False)
class _Attempt(PlainAttempt):
    """One attempt; its fields are guarded by the host's lock, `is_to_stop` may be set at any time."""

    steps: int
    future: Future[None] | None = None
    is_to_stop: threading.Event = field(default_factory=threading.Event)
    step: int = 0
    checkpoint_step: int = 0
    started_at: float | None = None
    busy_s: float = 0.0
    written_s: float = 0.0
    """... of which up to the last checkpoint, as its receipts say."""

    def take_stop(self, mode: StopMode) -> None:
        """Both modes end the same way: what is done is in the last checkpoint, and the rest is cheap to redo."""
        if self.is_over:
            return
        self.is_to_stop.set()
        if self.future is None:
            self.state = AttemptState.stopped

    def end(self, error: BaseException | None) -> None:
        """Takes how training ended."""
        self.future = None  # an exception keeps the model alive that its traceback points to
        if self.checkpoint_step >= self.steps:
            self.state = AttemptState.succeeded
        elif error is not None:
            self.fail(Failure.of(error))
        elif self.is_to_stop.is_set():
            self.state = AttemptState.stopped
        else:
            ended = f"training ended at step {self.step} of {self.steps}, its last checkpoint at {self.checkpoint_step}"
            self.fail(Failure(error=ended, is_retriable=True))

    def report(self, now: float, devices: Devices) -> AttemptReport:
        """Facts as of `now`; once it is over, `wasted` is the time that no checkpoint accounts for."""
        running_s = 0.0 if self.started_at is None else now - self.started_at
        left_s = max(0.0, self.busy_s - self.written_s) if self.is_over else 0.0
        return dataclasses.replace(
            self.report_progress(admitted=self.steps, finished=self.step),
            busy_s=self.busy_s + running_s,
            wasted=Usage.of_time(left_s, devices),
        )


class TrainerHost:
    """Runs finetune attempts; implements `service.cluster.Host`.

    Of an attempt's report `admitted` is the number of steps wanted, `finished` of those done.

    Args:
        load: imports what trains and returns it; in the thread that trains, may take long.
        clock: monotonic seconds.
        node: id of the machine, reported as it is.
        devices: that the process holds.
    """

    def __init__(
        self,
        *,
        load: Callable[[], Train] = load_training,
        clock: Callable[[], float] = time.monotonic,
        node: str | None = None,
        devices: Devices = ONE_CORE,
    ) -> None:
        self._load = load
        self._clock = clock
        self._node = node
        self._devices = devices
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")
        self._loading: Future[Train] | None = None
        self._train: Train | None = None
        self._loading_since: float | None = None
        self._load_s: float | None = None
        self._error: str | None = None
        self._is_draining = False
        self._attempts = HostAttempts(self._begin)
        self._tokens = 0
        self._busy_s = 0.0

    @property
    def state(self) -> HostState:
        """Where the host is."""
        with self._lock:
            self._advance()
            return self._state()

    @property
    def is_drained(self) -> bool:
        """Whether nothing trains any more and nothing will."""
        with self._lock:
            self._advance()
            return self._is_draining and self._attempts.are_over()

    def start(self) -> None:
        """Begins to load."""
        with self._lock:
            self._loading_since = self._clock()
            self._loading = self._pool.submit(self._load)

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        with self._lock:
            self._attempts.take(orders)
            self._advance()
            return self._report()

    def drain(self) -> None:
        """Takes no more: what trains ends after its step, and can be resumed from its last checkpoint."""
        with self._lock:
            self._is_draining = True
            self._attempts.stop_all(StopMode.finish)

    def save(self) -> None:
        """Nothing: what is done is in the last checkpoint."""

    def close(self, timeout_s: float = 60.0) -> None:
        """Drains, then waits for the thread, or gives up after `timeout_s`."""
        self.drain()
        with self._lock:
            futures = [self._loading, *(attempt.future for attempt in self._attempts)]
        wait([future for future in futures if future is not None], timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # all below: under the lock, or called by the thread that trains

    def _begin(self, spec: AttemptSpec) -> _Attempt:
        if not isinstance(spec.work, FinetuneWork):
            attempt = _Attempt(spec=spec, steps=0)
            attempt.fail(Failure.of(InvalidInput(f"a trainer runs finetune attempts, got {spec.kind.value}")))
            return attempt
        attempt = _Attempt(spec=spec, steps=spec.work.training.steps)
        if self._is_draining or self._error is not None:
            attempt.state = AttemptState.stopped
        return attempt

    def _advance(self) -> None:
        """Takes what is done, starts what waits."""
        if self._loading is not None and self._loading.done():
            self._take_loaded(self._loading)
        for attempt in self._attempts:
            if attempt.future is None or not attempt.future.done():
                continue
            error = attempt.future.exception()
            attempt.end(error)
            if error is not None and not isinstance(error, IsoflopError):
                self._end_host(f"{attempt.spec.attempt_id} raised {type(error).__name__}: {error}")
        is_busy = any(attempt.future is not None for attempt in self._attempts)
        if self._train is None or is_busy or self._error is not None:
            return
        for attempt in self._attempts:
            if not attempt.is_over:
                attempt.future = self._pool.submit(self._run, attempt, self._train)
                return

    def _take_loaded(self, loading: Future[Train]) -> None:
        self._loading = None
        self._load_s = self._clock() - (self._loading_since or 0.0)
        self._loading_since = None
        if (error := loading.exception()) is not None:
            self._end_host(f"{type(error).__name__}: {error}")
        else:
            self._train = loading.result()

    def _end_host(self, error: str) -> None:
        self._error = self._error or error
        self._attempts.stop_all(StopMode.finish)

    def _run(self, attempt: _Attempt, train: Train) -> None:
        """In the thread that trains."""
        work = attempt.spec.work
        assert isinstance(work, FinetuneWork), "nothing else is started"
        started = self._clock()
        with self._lock:
            attempt.started_at = started
        last_tokens: int | None = None  # unknown before the first line: a resumed run has some already

        def on_log(progress: Progress) -> None:
            nonlocal last_tokens
            with self._lock:
                attempt.step = progress.step
                self._tokens += 0 if last_tokens is None else progress.tokens - last_tokens
                last_tokens = progress.tokens

        def on_checkpoint(receipt: Receipt) -> None:
            with self._lock:
                attempt.receipts.append(receipt)
                attempt.written_s += receipt.usage.busy_s
                attempt.checkpoint_step = int(receipt.facts["step"])
                attempt.step = max(attempt.step, attempt.checkpoint_step)

        try:
            train(
                work,
                attempt.spec.out_dir,
                on_log=on_log,
                on_checkpoint=on_checkpoint,
                should_stop=attempt.is_to_stop.is_set,
            )
            if work.resume_from is not None:
                # the last checkpoint may be an earlier attempt's that was lost before it could say that it was done
                step = checkpoint_step(work.resume_from)
                with self._lock:
                    attempt.checkpoint_step = max(attempt.checkpoint_step, step)
                    attempt.step = max(attempt.step, step)
        finally:
            with self._lock:
                attempt.busy_s, attempt.started_at = self._clock() - started, None
                self._busy_s += attempt.busy_s

    def _running_s(self) -> float:
        started = [attempt.started_at for attempt in self._attempts if attempt.started_at is not None]
        return sum(self._clock() - at for at in started)

    def _state(self) -> HostState:
        if self._error is not None:
            return HostState.failed
        if self._loading_since is None and self._train is None:
            return HostState.starting
        if self._is_draining:
            return HostState.draining
        return HostState.loading if self._train is None else HostState.ready

    def _report(self) -> HostReport:
        return HostReport(
            state=self._state(),
            attempts=tuple(attempt.report(self._clock(), self._devices) for attempt in self._attempts.reported()),
            error=self._error,
            node=self._node,
            running_requests=sum(attempt.future is not None for attempt in self._attempts),
            total_tokens=self._tokens,
            busy_s=self._busy_s + self._running_s(),
            load_s=self._load_s if self._loading_since is None else self._clock() - self._loading_since,
        )
