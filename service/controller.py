"""The control loop: read, observe, plan, commit, act. Level-triggered, so a crash between any two lines is harmless.

Exactly one controller acts on a database at a time: the last one that was made (`service.store.fence`). Everything it
remembers between ticks can be rebuilt from the database and the files it points to: allocation states are, at start;
rates and send times are only hints.
"""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from service import shards
from service.allocation import AllocationState, PastRound, visits_after
from service.cluster import Cluster, HostKind, HostState, Observation
from service.currency import in_currency
from service.errors import AlreadyRunning, CorruptFile
from service.jobs import AllocationSpec
from service.manifest_writer import ManifestWriter
from service.planner import Options, Plan, Seen, Snapshot, plan
from service.planner.plan import Due, JobView
from service.planner.submit import attempt_dir
from service.receipts import Receipt
from service.status import ControllerStatus
from service.store import Store
from service.tasks import TaskState
from service.wording import plural
from service.work import TaskKind

log = logging.getLogger(__name__)

RESEND_S = 3.0
"""A submission is repeated when the host still lacks it after this long; an exchange takes a tenth of a second."""
STALL_S = 120.0
"""An engine with requests that makes no token for this long is stuck: a step takes milliseconds to seconds."""
LONGEST_PAUSE_S = 5.0
"""Most time that one tick may add to a stall."""
MAX_ERRORS_IN_A_ROW = 20
"""Ticks that may fail in a row; at the loop's pace this outlasts a restart of the database."""
RATE_WEIGHT = 0.3
"""Weight of the newest part in an engine's measured rate."""


class Controller:
    """Runs ticks. Thread-safe only where said: `wake` and `status` may be called from anywhere.

    Args:
        busy_interval_s: pause between ticks while tasks are open.
        idle_interval_s: pause while nothing is, unless woken.
        read_receipt: reads a committed file's receipt; simulations pass their own.
        manifests: writes manifests; by default in a thread of its own.
    """

    def __init__(
        self,
        *,
        store: Store,
        cluster: Cluster,
        options: Options,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        busy_interval_s: float = 0.1,
        idle_interval_s: float = 1.0,
        read_receipt: Callable[[str], Receipt] = lambda path: shards.read_receipt(Path(path)),
        manifests: ManifestWriter | None = None,
    ) -> None:
        self._read_receipt = read_receipt
        self._store, self._cluster, self._options, self._clock = store, cluster, options, clock
        store.take_over(f"process {os.getpid()} on {platform.node()}")
        self._manifests = manifests or ManifestWriter(store, data_dir=options.data_dir)
        self._busy_interval_s, self._idle_interval_s = busy_interval_s, idle_interval_s
        self._wake = threading.Event()
        self._states: dict[str, AllocationState] = {}
        self._sent_at: dict[str, datetime] = {}
        self._rates: dict[str, float] = {}
        self._due: dict[str, Due] = {}
        self._progress: dict[str, tuple[int, float]] = {}
        self._looked_at = clock()
        self._broken: dict[str, str] = {}
        self._is_draining = False
        self._is_quiet = True
        self._has_work = False
        self._started_at = clock()
        self._last_tick_at: datetime | None = None
        self._num_ticks = self._num_errors = self._errors_in_a_row = self._num_attempts = 0
        self._cpu_s = 0.0
        self._cluster_line = "connecting"

    # -- one tick

    def tick(self) -> Plan:
        """One pass of the loop; returns what it decided and has carried out."""
        now = self._clock()
        observation = self._cluster.observe()
        snapshot = self._store.snapshot()
        self._load_states(snapshot)
        decided = plan(
            snapshot=snapshot,
            seen=self._seen(snapshot, observation, now),
            states=self._states,
            now=now,
            options=self._options,
        )
        if decided.has_changes:
            self._store.commit(decided, now)
        self._remember(decided, now)
        self._act(decided)
        self._write_manifests(snapshot, decided, now)
        self._cluster_line = f"{plural(len(observation.hosts), 'host')} on {plural(len(observation.nodes), 'node')}"
        self._num_attempts = sum(task.state.is_in_flight for task in snapshot.tasks)
        self._is_quiet = not decided.tasks and not self._num_attempts
        self._has_work = bool(snapshot.jobs or snapshot.artifacts)
        self._num_ticks += 1
        self._last_tick_at = now
        return decided

    def _load_states(self, snapshot: Snapshot) -> None:
        active = {job.id for job in snapshot.jobs}
        self._states = {job_id: state for job_id, state in self._states.items() if job_id in active}
        self._broken = {job_id: error for job_id, error in self._broken.items() if job_id in active}
        for job in snapshot.jobs:
            if job.id in self._states:
                continue
            try:
                self._states[job.id] = rebuild_state(self._store, job, self._read_receipt)
            except CorruptFile as error:
                # one job's damaged file must not stop the others; the planner fails this one
                self._states[job.id] = new_state(job)
                self._broken[job.id] = str(error)

    def _seen(self, snapshot: Snapshot, observation: Observation, now: datetime) -> Seen:
        written = self._manifests.collect({job.id for job in snapshot.jobs}, now)
        recent = {a for a, at in self._sent_at.items() if (now - at).total_seconds() < RESEND_S}
        return Seen(
            observation=observation,
            salvaged=self._salvage(snapshot, observation),
            recently_sent=frozenset(recent),
            rates=dict(self._rates),
            stuck_hosts=self._find_stuck(snapshot, observation, now),
            broken_jobs=dict(self._broken),
            sealed_jobs=written.sealed,
            manifest_errors=written.errors,
            due=self._due,
            is_draining=self._is_draining,
        )

    def _salvage(self, snapshot: Snapshot, observation: Observation) -> dict[str, tuple[Receipt, ...]]:
        found: dict[str, tuple[Receipt, ...]] = {}
        for task in snapshot.tasks:
            if not task.state.is_in_flight or task.kind not in (TaskKind.generate, TaskKind.finetune):
                continue  # what another kind left is made again in seconds
            host = observation.hosts.get(str(task.host))
            if host is None or host.state is HostState.dead:
                out_dir = attempt_dir(self._options.data_dir, task.job_id, task.attempt_id)
                found[task.attempt_id] = self._cluster.salvage(task.attempt_id, out_dir, task.num_parts)
        return found

    def _find_stuck(self, snapshot: Snapshot, observation: Observation, now: datetime) -> frozenset[str]:
        """Generators whose engine holds requests and has made no token for `STALL_S`."""
        # a clock that was set, or a controller that stood still, must not make every engine look stuck
        elapsed_s = min(max(0.0, (now - self._looked_at).total_seconds()), LONGEST_PAUSE_S)
        self._looked_at = now
        progress: dict[str, tuple[int, float]] = {}
        # one elsewhere has deadlines of its own, and may be told to wait for minutes
        elsewhere = {spec.pool for job in snapshot.jobs for spec in job.models if spec.endpoint is not None}
        for view in snapshot.hosts:
            host = observation.hosts.get(view.name)
            if host is None or view.kind is not HostKind.generator or view.model in elsewhere:
                continue
            tokens, stalled_s = self._progress.get(view.name, (-1, 0.0))
            has_moved = host.total_tokens != tokens or host.running_requests == 0
            progress[view.name] = (host.total_tokens, 0.0 if has_moved else stalled_s + elapsed_s)
        self._progress = progress
        return frozenset(name for name, (_, stalled_s) in progress.items() if stalled_s > STALL_S)

    def _remember(self, decided: Plan, now: datetime) -> None:
        self._due = decided.due
        for change in decided.state_changes:
            state = self._states[change.job_id]
            if change.planned is not None:
                state.plan(change.arm, change.planned)
            if change.excluded is not None:
                state.exclude(change.excluded)
            if change.delta is not None:
                state.fold(change.arm, change.delta)
            if change.spent is not None:
                state.spend(change.arm, *change.spent)
        for write in decided.parts:
            usage = write.receipt.usage
            if write.task.kind is TaskKind.generate and usage.busy_s > 0 and usage.samples:
                rate = usage.samples / usage.busy_s
                known = self._rates.get(write.task.model, rate)
                self._rates[write.task.model] = known + RATE_WEIGHT * (rate - known)
        for orders in decided.orders.values():
            self._sent_at |= {attempt.attempt_id: now for attempt in orders.submits}
        if len(self._sent_at) > 10_000:
            self._sent_at = {a: at for a, at in self._sent_at.items() if (now - at).total_seconds() < RESEND_S}

    def _act(self, decided: Plan) -> None:
        for spec in decided.start_hosts:
            self._cluster.start_host(spec)
        for name, orders in decided.orders.items():
            self._cluster.send(name, orders)
        for name, is_forced in decided.stop_hosts:
            self._cluster.stop_host(name, is_forced=is_forced)

    def _write_manifests(self, snapshot: Snapshot, decided: Plan, now: datetime) -> None:
        for job_id in decided.seal_jobs:
            self._manifests.seal(job_id, now)
        for job in snapshot.jobs:
            self._manifests.renew(job.id, now)

    # -- the loop

    def run(self, stop: threading.Event) -> None:
        """Ticks until `stop` is set. Raises when too many ticks fail in a row: a loop that dies must be seen."""
        try:
            while not stop.is_set():
                self._wake.clear()
                started = time.thread_time()
                pause = self._guarded_tick()
                self._cpu_s += time.thread_time() - started
                self._wake.wait(pause)
        finally:
            # before the data directory is anybody else's
            self._manifests.close()

    def _guarded_tick(self) -> float:
        try:
            decided = self.tick()
        except AlreadyRunning:
            raise  # this controller's time is over; nothing it decides counts any more
        except Exception:
            # One of the two places for a broad except: the next tick starts from the database again, so any error may
            # be tried again; only its persistence is fatal. Whether the commit went through is not known, so the
            # allocation states are made anew as well.
            self._states.clear()
            self._num_errors += 1
            self._errors_in_a_row += 1
            log.exception("tick failed (%d in a row)", self._errors_in_a_row)
            if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
                raise
            return self._idle_interval_s
        self._errors_in_a_row = 0
        is_busy = self._has_work or decided.has_changes
        return self._busy_interval_s if is_busy else self._idle_interval_s

    def wake(self) -> None:
        """Makes the next tick come now."""
        self._wake.set()

    def drain(self) -> None:
        """From the next tick on: lease nothing, have generators finish and hand back what they did not start."""
        self._is_draining = True
        self._is_quiet = False  # until a tick has looked
        self.wake()

    def is_quiet(self) -> bool:
        """Whether the last tick saw no attempt on any host, so that the process may leave without losing a token.

        Thread-safe.
        """
        return self._is_quiet

    def num_attempts(self) -> int:
        """Attempts that hosts held as of the last tick. Thread-safe."""
        return self._num_attempts

    def state_of(self, job_id: str) -> AllocationState:
        """What strategies know of an active job, as of the last tick."""
        return self._states[job_id]

    def status(self) -> ControllerStatus:
        """What the loop says of itself. Thread-safe."""
        since = self._last_tick_at or self._started_at
        return ControllerStatus(
            last_tick_at=self._last_tick_at,
            tick_age_s=(self._clock() - since).total_seconds(),
            num_ticks=self._num_ticks,
            num_errors=self._num_errors,
            cpu_s=self._cpu_s,
            is_draining=self._is_draining,
            cluster=self._cluster_line,
        )


def rebuild_state(store: Store, job: JobView, read_receipt: Callable[[str], Receipt]) -> AllocationState:
    """A job's allocation state from its committed tasks and score files, in the order of commitment.

    Raises:
        CorruptFile: one of these files, or one of an earlier round, cannot be read.
    """
    allocation = job.spec.allocation
    past = [past_round(store, id_, job.num_problems, allocation, read_receipt) for id_ in allocation.history]
    state = new_state(job, past)
    for prepared in job.prepared.values():
        if prepared.excluded is not None and len(prepared.excluded):
            state.exclude(prepared.excluded)
    for task in store.reads.tasks(job.id, with_runs=True):
        runs = task.runs
        if runs is not None and task.state is TaskState.cancelled:
            # taken apart while the job goes on: what it did not draw is planned again by its halves
            drawn = store.reads.committed(task.id)
            runs = np.column_stack([drawn, np.ones(len(drawn), dtype=np.int32)]).astype(np.int32)
        if runs is not None:
            state.plan(job.spec.arm_index(task.arm), runs)
    for part in store.reads.parts(job.id, TaskKind.generate):
        used = in_currency(job.account.currency, part.usage)
        state.spend(job.spec.arm_index(part.arm), part.usage.samples, part.usage.errors, used)
    for part in store.reads.parts(job.id, TaskKind.score):
        delta = read_receipt(part.path).delta
        if delta is not None:
            state.fold(job.spec.arm_index(part.arm), delta)
    return state


def past_round(
    store: Store, job_id: str, num_problems: int, allocation: AllocationSpec, read_receipt: Callable[[str], Receipt]
) -> PastRound:
    """What an earlier job on the same problems has found, by the verdict that counts in `allocation`."""
    state = AllocationState(num_arms=1, num_problems=num_problems)
    for part in store.reads.parts(job_id, TaskKind.score):
        delta = read_receipt(part.path).delta
        if delta is not None:
            state.fold(0, delta)
    correct = state.verified if allocation.counts == "verified" else state.correct
    return PastRound(seed=store.jobs.get(job_id).spec.seed, scored=state.scored[0], correct=correct[0])


def new_state(job: JobView, past: Sequence[PastRound] = ()) -> AllocationState:
    """The state of a job of which nothing is committed."""
    allocation = job.spec.allocation
    return AllocationState(
        num_arms=len(job.spec.all_arms),
        num_problems=job.num_problems,
        target=allocation.target_correct,
        needs_steps=allocation.counts == "verified",
        visits=visits_after(past, job.num_problems),
    )
