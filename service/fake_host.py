"""One host of a simulation: keeps the contract of `service.cluster.Host` on a virtual clock, without engine or files.

Credit, order, versions of grants, receipts until they are acknowledged: as a real host has them.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from service.cluster import (
    AttemptReport,
    AttemptState,
    Grant,
    HostKind,
    HostReport,
    HostSpec,
    HostState,
    Orders,
    Stop,
    StopMode,
)
from service.currency import actual, worst_case
from service.fake_world import FakeRecord, FakeSample, FakeWorld
from service.receipts import Receipt, Usage
from service.tasks import expand_runs
from service.work import AttemptSpec, FinetuneWork, GenerateWork, PrepareWork, ScoreWork


@dataclass(slots=True, kw_only=True)
class _Attempt:
    spec: AttemptSpec
    waiting: list[FakeSample] = field(default_factory=list[FakeSample])
    inflight: list[FakeSample] = field(default_factory=list[FakeSample])
    unflushed: list[FakeSample] = field(default_factory=list[FakeSample])
    receipts: list[Receipt] = field(default_factory=list[Receipt])
    num_parts: int = 0
    state: AttemptState = AttemptState.running
    credit: float = 0.0
    version: int = 0
    is_final: bool = False
    is_stopping: bool = False
    used: float = 0.0
    returned: list[FakeSample] = field(default_factory=list[FakeSample])
    finished: int = 0
    wasted: Usage = field(default_factory=Usage)
    ran_s: float = 0.0
    busy_s: float = 0.0
    flushed_s: float = 0.0

    @property
    def is_soft(self) -> bool:
        return isinstance(self.spec.work, GenerateWork) and self.spec.work.currency.is_soft

    @property
    def inflight_worst(self) -> float:
        return float(sum(sample.worst for sample in self.inflight))

    @property
    def waits_for_credit(self) -> bool:
        return bool(self.waiting) and self.used + self.inflight_worst + self.waiting[0].worst > self.credit


class FakeHost:
    """One host, stepped by the cluster. Attempts end only when a step says so."""

    def __init__(self, spec: HostSpec, world: FakeWorld, record: FakeRecord, now: float) -> None:
        self.spec, self._world, self._record = spec, world, record
        self.started_at = self.now = now
        self.ready_at = now + world.load_s
        self.attempts: dict[str, _Attempt] = {}
        self.state = HostState.starting
        self.error: str | None = None
        self.orders: list[Orders] = []
        self.loaded = spec.model
        self.num_swaps = 0
        self.is_draining = False
        self._swapped_at = now
        self.busy_s = self.swap_s = 0.0
        self._credit_s = 0.0

    @property
    def is_drained(self) -> bool:
        """Whether it holds nothing that anybody waits for."""
        return not self.attempts and not self.orders

    def drain(self) -> None:
        """Takes nothing new, finishes what is inside, and hands the rest back."""
        self.is_draining = True
        for attempt in self.attempts.values():
            attempt.is_stopping = True

    def take(self, orders: Orders) -> None:
        """Applies orders as a real host would."""
        for submit in orders.submits:
            if submit.attempt_id not in self.attempts:
                self.attempts[submit.attempt_id] = self._start(submit)
        for grant in orders.grants:
            self._take_grant(grant)
        for stop in orders.stops:
            self._take_stop(stop)
        for ack in orders.acknowledges:
            attempt = self.attempts.get(ack.attempt_id)
            if attempt is not None:
                attempt.receipts = [receipt for receipt in attempt.receipts if receipt.part >= ack.num_parts]
                if ack.is_forgotten and attempt.state is not AttemptState.running:
                    del self.attempts[ack.attempt_id]

    def _start(self, spec: AttemptSpec) -> _Attempt:
        attempt = _Attempt(spec=spec, is_stopping=self.is_draining)
        work = spec.work
        if isinstance(work, GenerateWork):
            if self.spec.model is None or work.model.pool != self.spec.model.name:
                raise ValueError(
                    f"{spec.attempt_id}: {work.model.name} is not of the pool that {self.spec.name} serves"
                )
            for problem, sample in expand_runs(work.runs).tolist():
                worst = worst_case(
                    work.currency,
                    work.model.pricing,
                    prompt_tokens=self._world.prompt_tokens(problem),
                    max_tokens=self._world.max_tokens,
                )
                is_refused = problem in work.refused
                worst = 0.0 if is_refused else worst
                attempt.waiting.append(FakeSample(problem=problem, index=sample, worst=worst, is_refused=is_refused))
        return attempt

    def _take_grant(self, grant: Grant) -> None:
        attempt = self.attempts.get(grant.attempt_id)
        if attempt is None or grant.version <= attempt.version:
            return
        attempt.version = grant.version
        attempt.credit = max(grant.credit, attempt.used + attempt.inflight_worst)
        attempt.is_final = grant.is_final

    def _take_stop(self, stop: Stop) -> None:
        attempt = self.attempts.get(stop.attempt_id)
        if attempt is None or attempt.state is not AttemptState.running:
            return
        attempt.is_stopping = True
        if stop.mode is StopMode.abort:
            for sample in [] if attempt.is_soft else attempt.inflight:
                attempt.used += sample.worst  # an aborted sample may have cost anything up to its worst case
                self._record.true_cost += sample.worst
            attempt.wasted = attempt.wasted + Usage(flops=attempt.inflight_worst)
            attempt.returned += attempt.inflight
            attempt.inflight = []

    def step(self, now: float, elapsed_s: float) -> None:
        """One stretch of virtual time."""
        if self.state is HostState.dead:
            return
        self.now = now
        self.state = HostState.ready if now >= self.ready_at else HostState.loading
        for orders in self.orders:
            self.take(orders)
        self.orders = []
        if self.state is not HostState.ready:
            return
        self._credit_s += elapsed_s
        budget = int(self._credit_s * self._world.samples_per_s)
        self._credit_s -= budget / self._world.samples_per_s
        running = [attempt for attempt in self.attempts.values() if attempt.state is AttemptState.running]
        for attempt in running:
            self._answer(attempt, elapsed_s)
        self._admit(running)
        self._spend_time(running, elapsed_s)
        while budget > 0 and self.error is None and (busy := [attempt for attempt in running if attempt.inflight]):
            self._finish_one(busy[0])
            self._admit(running)
            budget -= 1
        for attempt in running:
            if isinstance(attempt.spec.work, GenerateWork) and self.error is None:
                self._maybe_end(attempt)

    def _spend_time(self, running: list[_Attempt], elapsed_s: float) -> None:
        """Attempts share the engine's time by their samples inside."""
        num_inside = sum(len(attempt.inflight) for attempt in running)
        if num_inside == 0:
            return
        self.busy_s += elapsed_s
        self._record.busy_s += elapsed_s
        for attempt in running:
            attempt.busy_s += elapsed_s * len(attempt.inflight) / num_inside
            if attempt.is_soft:
                attempt.used = math.ceil(1000.0 * self.spec.devices.count * attempt.busy_s - 1e-6)

    def _answer(self, attempt: _Attempt, elapsed_s: float) -> None:
        """Work that draws nothing is done when its time is over."""
        work = attempt.spec.work
        if self._world.slow_answers:
            return
        attempt.ran_s += elapsed_s
        if isinstance(work, PrepareWork):
            attempt.receipts.append(self._record.prepare_receipt(attempt.spec, work))
        elif isinstance(work, ScoreWork) and attempt.ran_s >= self._world.score_s:
            attempt.receipts.append(self._record.score_receipt(attempt.spec, work))
        elif isinstance(work, FinetuneWork) and attempt.ran_s >= self._world.train_s:
            attempt.receipts.append(self._record.finetune_receipt(attempt.spec, work))
        if attempt.receipts and not isinstance(work, GenerateWork):
            attempt.state = AttemptState.succeeded

    def _admit(self, running: list[_Attempt]) -> None:
        """Fills the engine: attempts in the order of their submission, samples of each in the order of its runs.

        An attempt of other weights than are loaded holds up all behind it until the engine is empty.
        """
        room = self._world.window - sum(len(attempt.inflight) for attempt in running)
        for attempt in running:
            work = attempt.spec.work
            can_draw = bool(attempt.waiting) and not attempt.is_stopping and not attempt.waits_for_credit
            if can_draw and isinstance(work, GenerateWork) and work.model != self.loaded:
                if room < self._world.window:
                    return
                self.loaded, self._swapped_at = work.model, self.now + self._world.swap_s
                self.num_swaps += 1
                self.swap_s += self._world.swap_s
            if self.now < self._swapped_at:
                return
            while room > 0 and attempt.waiting and not attempt.is_stopping and not attempt.waits_for_credit:
                sample = attempt.waiting.pop(0)
                attempt.inflight.append(sample)
                room -= 1
                if sample.problem in self._world.poison and not sample.is_refused:
                    self.error = f"the engine died on problem {sample.problem}"

    def _finish_one(self, attempt: _Attempt) -> None:
        work = attempt.spec.work
        if not isinstance(work, GenerateWork):
            raise TypeError(f"{attempt.spec.attempt_id}: {attempt.spec.kind} attempts draw no samples")
        sample = attempt.inflight.pop(0)
        if not sample.is_refused:
            tokens, _, _ = self._world.draw(sample.problem, sample.index)
            sample.tokens = max(1, tokens // self._world.shorter.get(work.arm, 1))
            sample.cost = actual(
                work.currency,
                work.model.pricing,
                prompt_tokens=self._world.prompt_tokens(sample.problem),
                cached_tokens=0,
                completion_tokens=sample.tokens,
            )
        attempt.used += sample.cost
        attempt.finished += 1
        self._record.true_cost += sample.cost
        self._record.num_drawn += 1
        attempt.unflushed.append(sample)
        if len(attempt.unflushed) >= self._world.flush_rows:
            self._flush(attempt)

    def _maybe_end(self, attempt: _Attempt) -> None:
        if attempt.inflight:
            return
        if not attempt.waiting or attempt.is_stopping or (attempt.is_final and attempt.waits_for_credit):
            self._flush(attempt)
            attempt.returned += attempt.waiting
            attempt.waiting = []
            attempt.state = AttemptState.stopped if attempt.returned else AttemptState.succeeded

    def _flush(self, attempt: _Attempt) -> None:
        if attempt.unflushed:
            time = Usage.of_time(attempt.busy_s - attempt.flushed_s, self.spec.devices)
            receipt = self._record.generate_receipt(attempt.spec, attempt.num_parts, attempt.unflushed, time)
            attempt.flushed_s = attempt.busy_s
            attempt.receipts.append(receipt)
            attempt.num_parts += 1
            attempt.unflushed = []

    def report(self) -> HostReport:
        """Facts as of now."""
        slots = 2 * self._world.window
        reports: list[AttemptReport] = []
        for attempt in self.attempts.values():
            lookahead = attempt.waiting[:slots]
            slots -= len(lookahead)  # a later attempt wants credit only for what the earlier ones leave free
            reports.append(self._attempt_report(attempt, lookahead))
        return HostReport(
            state=self.state,
            error=None if self._world.dies_silently else self.error,
            attempts=tuple(reports),
            running_requests=self._count_running(),
            total_tokens=self._record.num_drawn if self.spec.kind is HostKind.generator else 0,
            load_s=min(self.now, self.ready_at) - self.started_at,
            busy_s=self.busy_s,
            num_swaps=self.num_swaps,
            swap_s=self.swap_s,
        )

    def _count_running(self) -> int:
        if self.spec.kind is HostKind.dispatcher:
            return sum(attempt.state is AttemptState.running for attempt in self.attempts.values())
        return sum(len(attempt.inflight) for attempt in self.attempts.values())

    def _attempt_report(self, attempt: _Attempt, lookahead: list[FakeSample]) -> AttemptReport:
        is_done = attempt.state is not AttemptState.running
        ahead = float(sum(sample.worst for sample in lookahead))
        if attempt.is_soft and (attempt.inflight or lookahead):
            ahead += 10_000.0 * self.spec.devices.count
        if is_done and attempt.flushed_s < attempt.busy_s:
            attempt.wasted += Usage.of_time(attempt.busy_s - attempt.flushed_s, self.spec.devices)
            attempt.flushed_s = attempt.busy_s
        return AttemptReport(
            attempt_id=attempt.spec.attempt_id,
            state=attempt.state,
            receipts=tuple(attempt.receipts),
            credit_held=attempt.credit,
            grant_version=attempt.version,
            used=attempt.used,
            inflight_worst=attempt.inflight_worst,
            next_worst=attempt.waiting[0].worst if attempt.waits_for_credit else 0.0,
            wanted=attempt.used + attempt.inflight_worst + ahead,
            waiting=len(attempt.waiting),
            finished=attempt.finished,
            returned=np.array([(s.problem, s.index) for s in attempt.returned], dtype=np.int32).reshape(-1, 2)
            if is_done
            else None,
            wasted=attempt.wasted,
            busy_s=attempt.busy_s,
        )
