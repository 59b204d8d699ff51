"""A fake cluster for simulations: the seam of `service.cluster` in memory, on a virtual clock, with faults on demand.

It keeps the contract of hosts (credit, order, receipts until acknowledged, versions of grants) without engines or
files, and knows the truth: every FLOP its hosts ever spent, reported or not. Used by tests and `isoflop simulate`;
no number it produces is a measurement.
"""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from service.cluster import (
    AttemptReport,
    AttemptSpec,
    AttemptState,
    GenerateWork,
    Grant,
    HostKind,
    HostReport,
    HostSpec,
    HostState,
    NodeStatus,
    Observation,
    Orders,
    PrepareWork,
    Receipt,
    ScoreDelta,
    ScoreWork,
    Stop,
    StopMode,
    Usage,
)
from service.currency import Currency, actual, worst_case
from service.flops import ForwardCost, paper_flops, sample_flops
from service.tasks import expand_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeWorld:
    """What the fake engines do.

    Args:
        max_tokens: most completion tokens of a sample.
        window: samples an engine holds at once.
        samples_per_s: finished samples of one engine and virtual second.
        solve_rate: chance that a sample is correct, by problem index modulo its length.
        load_s: virtual seconds until a host is ready.
        flush_rows: finished samples become a part at this many.
        poison: problems that kill the engine they enter.
        dies_silently: an engine that dies of one is gone without a word.
        slow_answers: prepare and score attempts never end.
    """

    seed: int
    max_tokens: int = 64
    window: int = 16
    samples_per_s: float = 40.0
    solve_rate: tuple[float, ...] = (0.9, 0.5, 0.2)
    load_s: float = 1.0
    flush_rows: int = 50
    poison: frozenset[int] = frozenset()
    dies_silently: bool = False
    slow_answers: bool = False

    def prompt_tokens(self, problem: int) -> int:
        """Length of a prompt [tokens]."""
        return 10 + (problem * 7919 + self.seed) % 30

    def draw(self, problem: int, sample: int) -> tuple[int, bool, int]:
        """Completion tokens, whether correct, and which solution: the same for every attempt at the sample."""
        rng = np.random.default_rng([self.seed, problem, sample])
        length = int(rng.integers(1, self.max_tokens + 1))
        is_correct = bool(rng.random() < self.solve_rate[problem % len(self.solve_rate)])
        return length, is_correct, int(rng.integers(0, 4))


@dataclass(slots=True, kw_only=True)
class _Sample:
    problem: int
    index: int
    worst: float
    is_refused: bool = False
    cost: float = 0.0
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class _Attempt:
    spec: AttemptSpec
    waiting: list[_Sample] = field(default_factory=list[_Sample])
    inflight: list[_Sample] = field(default_factory=list[_Sample])
    unflushed: list[_Sample] = field(default_factory=list[_Sample])
    receipts: list[Receipt] = field(default_factory=list[Receipt])
    num_parts: int = 0
    state: AttemptState = AttemptState.running
    credit: float = 0.0
    version: int = 0
    is_final: bool = False
    is_stopping: bool = False
    used: float = 0.0
    returned: list[_Sample] = field(default_factory=list[_Sample])
    finished: int = 0
    wasted: Usage = field(default_factory=Usage)

    @property
    def inflight_worst(self) -> float:
        return float(sum(sample.worst for sample in self.inflight))

    @property
    def waits_for_credit(self) -> bool:
        return bool(self.waiting) and self.used + self.inflight_worst + self.waiting[0].worst > self.credit


class FakeHost:
    """One host, stepped by the cluster. Attempts end only when a step says so."""

    def __init__(self, spec: HostSpec, world: FakeWorld, cluster: "FakeCluster", now: float) -> None:
        self.spec, self._world, self._cluster = spec, world, cluster
        self.started_at = self.now = now
        self.ready_at = now + world.load_s
        self.attempts: dict[str, _Attempt] = {}
        self.state = HostState.starting
        self.error: str | None = None
        self.orders: list[Orders] = []
        self._credit_s = 0.0

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
        attempt = _Attempt(spec=spec)
        work = spec.work
        if isinstance(work, GenerateWork):
            for problem, sample in expand_runs(work.runs).tolist():
                worst = worst_case(
                    work.currency,
                    work.model.cost,
                    prompt_tokens=self._world.prompt_tokens(problem),
                    max_tokens=self._world.max_tokens,
                )
                is_refused = problem in work.refused
                worst = 0.0 if is_refused else worst
                attempt.waiting.append(_Sample(problem=problem, index=sample, worst=worst, is_refused=is_refused))
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
            for sample in attempt.inflight:
                attempt.used += sample.worst  # an aborted sample may have cost anything up to its worst case
                self._cluster.true_cost += sample.worst
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
            self._answer_at_once(attempt)
        self._admit(running)
        while budget > 0 and self.error is None and (busy := [attempt for attempt in running if attempt.inflight]):
            self._finish_one(busy[0])
            self._admit(running)
            budget -= 1
        for attempt in running:
            if isinstance(attempt.spec.work, GenerateWork) and self.error is None:
                self._maybe_end(attempt)

    def _answer_at_once(self, attempt: _Attempt) -> None:
        work = attempt.spec.work
        if self._world.slow_answers:
            return
        if isinstance(work, PrepareWork):
            attempt.receipts.append(self._cluster.prepare_receipt(attempt.spec, work))
            attempt.state = AttemptState.succeeded
        elif isinstance(work, ScoreWork):
            attempt.receipts.append(self._cluster.score_receipt(attempt.spec, work))
            attempt.state = AttemptState.succeeded

    def _admit(self, running: list[_Attempt]) -> None:
        """Fills the engine: attempts in the order of their submission, samples of each in the order of its runs."""
        room = self._world.window - sum(len(attempt.inflight) for attempt in running)
        for attempt in running:
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
            sample.tokens, _, _ = self._world.draw(sample.problem, sample.index)
            sample.cost = actual(
                work.currency,
                work.model.cost,
                prompt_tokens=self._world.prompt_tokens(sample.problem),
                cached_tokens=0,
                completion_tokens=sample.tokens,
            )
        attempt.used += sample.cost
        attempt.finished += 1
        self._cluster.true_cost += sample.cost
        self._cluster.num_drawn += 1
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
            receipt = self._cluster.generate_receipt(attempt.spec, attempt.num_parts, attempt.unflushed)
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
            total_tokens=self._cluster.num_drawn if self.spec.kind is HostKind.generator else 0,
            load_s=min(self.now, self.ready_at) - self.started_at,
        )

    def _count_running(self) -> int:
        if self.spec.kind is HostKind.dispatcher:
            return sum(attempt.state is AttemptState.running for attempt in self.attempts.values())
        return sum(len(attempt.inflight) for attempt in self.attempts.values())

    def _attempt_report(self, attempt: _Attempt, lookahead: list[_Sample]) -> AttemptReport:
        is_done = attempt.state is not AttemptState.running
        return AttemptReport(
            attempt_id=attempt.spec.attempt_id,
            state=attempt.state,
            receipts=tuple(attempt.receipts),
            credit_held=attempt.credit,
            grant_version=attempt.version,
            used=attempt.used,
            inflight_worst=attempt.inflight_worst,
            next_worst=attempt.waiting[0].worst if attempt.waits_for_credit else 0.0,
            wanted=attempt.used + attempt.inflight_worst + float(sum(sample.worst for sample in lookahead)),
            finished=attempt.finished,
            returned=np.array([(s.problem, s.index) for s in attempt.returned], dtype=np.int32).reshape(-1, 2)
            if is_done
            else None,
            wasted=attempt.wasted,
        )


class FakeCluster:
    """Implements `Cluster`. `true_cost` is what all engines ever spent, `files` what is on storage."""

    def __init__(self, world: FakeWorld, *, num_cpus: float = 2.0) -> None:
        self.world, self.num_cpus = world, num_cpus
        self.hosts: dict[str, FakeHost] = {}
        self.files: dict[str, Receipt] = {}
        self.now = 0.0
        self.true_cost = 0.0
        self.num_drawn = 0
        self.ignored_stops = 0
        """Stop orders that get lost, as with a controller that dies before it sends them."""
        self._names: set[str] = set()
        self._stale: Observation | None = None

    # -- the seam

    def observe(self) -> Observation:
        """Facts as of now, or the old ones while reports are frozen."""
        if self._stale is not None:
            return self._stale
        return self._facts()

    def start_host(self, spec: HostSpec) -> None:
        """Starts a fake host."""
        if spec.name not in self._names:
            self._names.add(spec.name)
            self.hosts[spec.name] = FakeHost(spec, self.world, self, self.now)

    def stop_host(self, name: str, *, is_forced: bool) -> None:
        """Ends a fake host at once; what it had not flushed is gone."""
        if self.ignored_stops:
            self.ignored_stops -= 1
        elif name in self.hosts:
            self.kill(name)

    def send(self, name: str, orders: Orders) -> None:
        """Queues orders for the next step."""
        if name in self.hosts:
            self.hosts[name].orders.append(orders)

    def salvage(self, attempt_id: str, out_dir: str, first_part: int) -> tuple[Receipt, ...]:
        """Receipts on the fake storage."""
        found: list[Receipt] = []
        while (path := f"{attempt_id}/{first_part + len(found)}") in self.files:
            found.append(self.files[path])
        return tuple(found)

    def close(self) -> None:
        """Nothing to let go of."""

    # -- the simulation

    def advance(self, elapsed_s: float) -> None:
        """Lets virtual time pass on every host."""
        self.now += elapsed_s
        for host in self.hosts.values():
            host.step(self.now, elapsed_s)
        for name, host in self.hosts.items():
            if host.error is not None:
                self.kill(name)

    def kill(self, name: str) -> None:
        """Ends a host's process: in-flight work counts as spent in full, unflushed samples are lost."""
        host = self.hosts[name]
        if host.state is HostState.dead:
            return
        self.true_cost += sum(attempt.inflight_worst for attempt in host.attempts.values())
        host.state = HostState.dead
        host.attempts = {}

    def freeze_reports(self) -> None:
        """Makes observations stale until `thaw_reports`: late and repeated receipts."""
        self._stale = self._facts()

    def thaw_reports(self) -> None:
        """Observations are fresh again."""
        self._stale = None

    def living(self, kind: HostKind) -> list[str]:
        """Names of hosts that are not dead."""
        return [n for n, h in self.hosts.items() if h.spec.kind is kind and h.state is not HostState.dead]

    def read_receipt(self, path: str) -> Receipt:
        """A file on the fake storage."""
        return self.files[path]

    def _facts(self) -> Observation:
        return Observation(
            hosts={name: host.report() for name, host in self.hosts.items()},
            nodes=(NodeStatus(id="node", num_cpus=self.num_cpus, num_gpus=0.0),),
        )

    # -- receipts

    def _store(self, spec: AttemptSpec, receipt: Receipt) -> Receipt:
        path = f"{spec.attempt_id}/{receipt.part}"
        self.files[path] = dataclasses.replace(receipt, path=path, sha256=f"{hash(path) & 0xFFFFFFFF:064x}")
        return self.files[path]

    def prepare_receipt(self, spec: AttemptSpec, work: PrepareWork) -> Receipt:
        """Prompts of every problem."""
        facts = {"num_valid": float(work.num_problems), "num_errors": 0.0}
        facts["mean_prompt_tokens"] = float(np.mean([self.world.prompt_tokens(p) for p in range(work.num_problems)]))
        for currency in Currency:
            costs = [
                worst_case(
                    currency,
                    work.model.cost,
                    prompt_tokens=self.world.prompt_tokens(problem),
                    max_tokens=self.world.max_tokens,
                )
                for problem in range(work.num_problems)
            ]
            facts[f"min_worst_{currency}"] = min(costs)
            facts[f"mean_worst_{currency}"] = sum(costs) / len(costs)
        return self._store(
            spec, Receipt(part=0, path="", sha256="", rows=work.num_problems, usage=Usage(), facts=facts)
        )

    def generate_receipt(self, spec: AttemptSpec, part: int, samples: list[_Sample]) -> Receipt:
        """One flushed part."""
        if not isinstance(spec.work, GenerateWork):
            raise TypeError(f"{spec.attempt_id}: {spec.kind} attempts make no samples")
        cost = spec.work.model.cost
        usage = Usage(busy_s=len(samples) / self.world.samples_per_s)
        for sample in samples:
            if sample.is_refused:
                usage = usage + Usage(samples=1, errors=1)
            else:
                usage = usage + _sample_usage(cost, self.world.prompt_tokens(sample.problem), sample.tokens)
        indices = np.array([(s.problem, s.index) for s in samples], dtype=np.int32)
        return self._store(
            spec, Receipt(part=part, path="", sha256="", rows=len(samples), usage=usage, indices=indices)
        )

    def score_receipt(self, spec: AttemptSpec, work: ScoreWork) -> Receipt:
        """Scores of a shard."""
        indices = self.files[work.shard_path].indices
        if indices is None:
            raise ValueError(f"{work.shard_path}: a shard without indices")
        drawn = [self.world.draw(problem, sample) for problem, sample in indices.tolist()]
        delta = ScoreDelta(
            problem=indices[:, 0],
            sample_index=indices[:, 1],
            is_correct=np.array([is_correct for _, is_correct, _ in drawn]),
            steps=np.ones(len(drawn), dtype=np.int8),
            solution=np.array([solution for _, _, solution in drawn], dtype=np.uint64),
        )
        return self._store(spec, Receipt(part=0, path="", sha256="", rows=len(drawn), usage=Usage(), delta=delta))


def _sample_usage(cost: ForwardCost, prompt_tokens: int, tokens: int) -> Usage:
    return Usage(
        samples=1,
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        flops=sample_flops(cost, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=tokens),
        flops_paper=paper_flops(cost, tokens),
    )
