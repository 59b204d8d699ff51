"""A generator host: one engine, the attempts it serves, and two threads.

Owns who runs when. The *engine thread* loads the engine, admits samples, steps, settles; it never touches a file. The
*writer thread* opens prompts and writes parts, so that no fsync ever stops the engine. `exchange` takes orders and
reports under one lock that nobody holds across a step or a write. Attempts are served in order of submission and
samples in the order of the plan; a later attempt moves ahead only while the first waits for credit, or for its weights.

An attempt is drawn from the weights of its own model and no others. One that wants other weights than are loaded waits
until the engine is empty; then they are swapped (`workers.turns`). Weights that cannot be loaded fail the attempt that
wants them. A swap draws nothing: its seconds are in nobody's `busy_s`, so that rates stay rates of drawing, and the
host counts them apart.

An exception out of the engine is the end of the host: what is finished is written, and then, in one instant, attempts
with samples in flight fail and name them, the others stop and return their plan, and the state becomes `failed`. A
failed attempt on a host that seems to live would pass for the attempt's own fault. The process has to exit when it
sees `failed`. Must not import ray or vllm.
"""

import os
import threading
import time
from collections.abc import Callable

from service.cluster import Acknowledge, AttemptReport, AttemptState, HostReport, HostState, Orders, StopMode
from service.errors import InvalidInput
from service.work import AttemptSpec, GenerateWork
from workers.attempt import Attempt
from workers.engine_protocol import Engine, Finished
from workers.part_writer import PartWriter
from workers.prepared import Prepared
from workers.recent_ids import RecentIds
from workers.samples import SampleSeeds
from workers.turns import Turns, has_weights

_WINDOW = 1.25  # samples inside the engine per running slot: the surplus waits, so that no step has an empty slot
_ADMISSIONS_PER_STEP = 256  # bounds how long the lock is held, and the wait before the first step
_PENDING_WRITES = 8  # parts an attempt may have waiting for storage before it admits no more
_IDLE_WAIT_S = 0.5
_TOKEN_COUNT_S = 0.5


class GeneratorHost:
    """Serves generate attempts with one engine; implements `service.cluster.Host`.

    Args:
        engine_factory: builds the engine, in the engine thread; may take minutes.
        clock: monotonic seconds.
        node: id of the machine, reported as it is.
    """

    def __init__(
        self,
        *,
        engine_factory: Callable[[], Engine],
        clock: Callable[[], float] = time.monotonic,
        node: str | None = None,
    ) -> None:
        self._engine_factory = engine_factory
        self._clock = clock
        self._node = node
        self._engine: Engine | None = None
        self._state = HostState.starting
        self._error: str | None = None
        self._loading_since: float | None = None
        self._load_s: float | None = None
        self._busy_s = 0.0
        self._turns = Turns()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._attempts: dict[str, Attempt] = {}
        self._forgotten = RecentIds()
        self._owner: dict[str, Attempt] = {}
        self._num_requests = 0
        self._writer = PartWriter(lock=self._lock, on_done=self._wake.set)
        self._is_draining = False
        self._is_closing = False
        self._settled_tokens = 0
        self._total_tokens = 0
        self._counted_at = float("-inf")
        self._finished = 0
        self._finished_before = 0
        self._turnover = 0
        self._threads: tuple[threading.Thread, ...] = ()

    @property
    def state(self) -> HostState:
        """Where the host is; on `failed` everything that could be saved has been written."""
        return self._state

    @property
    def is_drained(self) -> bool:
        """Whether the host admits nothing more and has written everything."""
        with self._lock:
            return self._is_draining and all(attempt.is_over for attempt in self._attempts.values())

    def exchange(self, orders: Orders) -> HostReport:
        """Takes orders, returns facts."""
        with self._lock:
            for spec in orders.submits:
                self._submit(spec)
            for grant in orders.grants:
                if (attempt := self._attempts.get(grant.attempt_id)) is not None:
                    attempt.grant(grant)
            for stop in orders.stops:
                if (attempt := self._attempts.get(stop.attempt_id)) is not None and attempt.stop is not StopMode.abort:
                    attempt.stop = stop.mode
            for acknowledge in orders.acknowledges:
                self._acknowledge(acknowledge)
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
            for attempt in self._attempts.values():
                attempt.stop = attempt.stop or StopMode.finish
        self._wake.set()

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
            self._drop_stopped(engine)
            with self._turns.admission():
                has_admitted = self._admit(engine)
            has_work = bool(self._owner)
            next_in_turn = None if has_work else self._turns.waiting
        if next_in_turn is not None:
            self._swap(engine, next_in_turn)
            return True
        if has_work:
            started = self._clock()
            finished = engine.step()
            with self._lock:
                self._settle(finished, self._clock() - started)
        with self._lock:
            self._count_tokens(engine)
            for attempt in list(self._attempts.values()):
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
            lost: dict[str, str] = {}
            for attempt in self._attempts.values():
                if attempt.in_flight:
                    lost[attempt.id] = attempt.in_flight_text()
                    attempt.lose_in_flight()
                self._writer.write_later(attempt)
            self._owner.clear()
            self._is_draining = True
        self._writer.call_later(lambda: self._become_failed(message, lost))
        self._writer.end_later()

    def _become_failed(self, message: str, lost: dict[str, str]) -> None:
        with self._lock:
            for attempt in self._attempts.values():
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
        while not (self._is_closing and self.is_drained):
            if not self.step_once():
                self._wake.wait(_IDLE_WAIT_S)
                self._wake.clear()
        self._writer.end_later()

    def _admit(self, engine: Engine) -> bool:
        """Adds samples in order, attempt after attempt, until credit or window ends."""
        room = min(int(_WINDOW * engine.max_num_seqs) - len(self._owner), _ADMISSIONS_PER_STEP)
        num_rows = _ADMISSIONS_PER_STEP
        has_admitted = False
        now = self._clock()
        for attempt in self._attempts.values():
            prepared = attempt.prepared
            if prepared is None or not attempt.is_open or attempt.pending_writes >= _PENDING_WRITES:
                continue
            is_loaded = has_weights(engine, attempt)
            while (sample := attempt.peek()) is not None and num_rows and attempt.fits(sample[0]):
                error = prepared.errors.get(sample[0])
                if error is None and not is_loaded:
                    self._turns.wait(attempt, now)
                    break
                if error is None and (room <= 0 or self._turns.must_hold(now)):
                    return has_admitted
                attempt.advance()
                has_admitted = True
                if error is not None:
                    attempt.fail_row(*sample, error)
                    self._finished += 1
                    num_rows -= 1
                else:
                    self._enter(engine, attempt, prepared, sample)
                    room -= 1
        return has_admitted

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

    def _enter(self, engine: Engine, attempt: Attempt, prepared: Prepared, sample: tuple[int, int]) -> None:
        problem, sample_index = sample
        self._num_requests += 1
        request_id = str(self._num_requests)
        # in flight before the engine knows of it: if add() raises, its worst case stays accounted for
        attempt.enter(request_id, problem, sample_index)
        self._owner[request_id] = attempt
        engine.add(
            request_id,
            prepared.tokens(problem),
            max_tokens=int(prepared.max_tokens[problem]),
            sampling=attempt.work.sampling,
            seed=attempt.seeds.of(prepared.problem_ids[problem], sample_index),
        )

    def _settle(self, finished: list[Finished], step_s: float) -> None:
        self._busy_s += step_s
        share_s = step_s / len(self._owner)
        by_attempt: dict[Attempt, list[Finished]] = {}
        for attempt in self._attempts.values():
            if attempt.in_flight:
                attempt.busy_s += share_s * len(attempt.in_flight)
                by_attempt[attempt] = []
        for request in finished:
            by_attempt[self._owner.pop(request.request_id)].append(request)
        for attempt, requests in by_attempt.items():
            attempt.settle(requests)
        self._finished += len(finished)
        self._settled_tokens += sum(request.completion_tokens for request in finished)

    def _drop_stopped(self, engine: Engine) -> None:
        for attempt in list(self._attempts.values()):
            if attempt.stop is StopMode.abort and attempt.in_flight:
                ids = list(attempt.in_flight)
                partial = engine.abort(ids)
                self._settled_tokens += sum(request.completion_tokens for request in partial)
                attempt.drop_in_flight(partial)
                for request_id in ids:
                    del self._owner[request_id]

    def _count_tokens(self, engine: Engine) -> None:
        if self._clock() - self._counted_at >= _TOKEN_COUNT_S:
            self._counted_at = self._clock()
            self._total_tokens = max(self._total_tokens, self._settled_tokens + engine.unfinished_tokens())

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

    def _submit(self, spec: AttemptSpec) -> None:
        if spec.attempt_id in self._attempts or spec.attempt_id in self._forgotten:
            return
        if not isinstance(spec.work, GenerateWork):
            raise TypeError(f"{spec.attempt_id}: a generator host takes generate attempts, got {spec.kind}")
        attempt = Attempt(
            spec=spec, work=spec.work, seeds=SampleSeeds(spec.work.seed, spec.work.model.name), flushed_at=self._clock()
        )
        self._attempts[spec.attempt_id] = attempt
        if self._is_draining:
            attempt.end(AttemptState.stopped)
        else:
            self._writer.open_later(attempt)

    def _acknowledge(self, order: Acknowledge) -> None:
        attempt = self._attempts.get(order.attempt_id)
        if attempt is None:
            return
        attempt.receipts = [receipt for receipt in attempt.receipts if receipt.part >= order.num_parts]
        if order.is_forgotten:
            self._forgotten.add(order.attempt_id)
            attempt.is_forgotten = True
            attempt.stop = StopMode.abort

    def _report(self) -> HostReport:
        for attempt in [a for a in self._attempts.values() if a.is_forgotten and a.is_over]:
            del self._attempts[attempt.id]
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
            running_requests=len(self._owner),
            total_tokens=self._total_tokens,
            busy_s=self._busy_s,
            load_s=load_s,
            num_swaps=self._turns.num_swaps,
            swap_s=self._turns.swap_s,
        )

    def _report_attempts(self) -> tuple[AttemptReport, ...]:
        # What left since the last exchange will leave until the next one too: twice that much more keeps the engine
        # full even when the answer to this report comes one exchange late.
        self._turnover = max(self._finished - self._finished_before, self._turnover // 2)
        self._finished_before = self._finished
        slots = 0
        if self._engine is not None:
            slots = int(_WINDOW * self._engine.max_num_seqs) - len(self._owner) + 2 * self._turnover
        reports = []
        for attempt in self._attempts.values():
            if not attempt.is_forgotten:
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
