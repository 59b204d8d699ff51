"""The control loop under faults: a crash between any two steps, dead engines, late and repeated reports, all seeded."""

from datetime import timedelta
from typing import Any

import pytest

from service.cluster import HostKind, Orders
from service.currency import Budget, Currency, to_amount
from service.errors import CorruptFile
from service.fake_cluster import FakeCluster
from service.jobs import Phase
from service.receipts import Receipt
from service.store import Store
from service.work import TaskKind
from tests.simulation.world import SimulatedCrash, Simulation, rng


class CrashingSimulation(Simulation):
    """Counts the controller's steps and raises at a chosen one, before or after the step takes effect."""

    def __init__(self, directory, **kwargs):
        super().__init__(directory, **kwargs)
        self.steps = 0
        self.crash_at: int | None = None
        self.store = _TrappedStore(self, self.store)
        self.cluster = _TrappedCluster(self, self.cluster)
        self.controller = self.new_controller()

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.crash_at:
            raise SimulatedCrash

    def tick(self, elapsed_s: float = 0.25) -> None:
        self.cluster.advance(elapsed_s)
        try:
            self.controller.tick()
        except SimulatedCrash:
            self.cluster.change_controller()
            self.controller = self.new_controller()
        self.audit()


class _TrappedStore(Store):
    def __init__(self, simulation, store):
        self._simulation = simulation
        super().__init__(store.engine)

    def commit(self, plan, now):
        self._simulation.step()
        super().commit(plan, now)
        self._simulation.step()


class _TrappedCluster(FakeCluster):
    def __init__(self, simulation, cluster):
        super().__init__(cluster.world)
        self._simulation = simulation

    def send(self, name: str, orders: Orders) -> None:
        self._simulation.step()
        super().send(name, orders)
        self._simulation.step()

    def start_host(self, spec) -> None:
        self._simulation.step()
        super().start_host(spec)
        self._simulation.step()


def test_controller_crash_at_every_step_loses_and_doubles_nothing(tmp_path):
    """Walks the crash through every step of one small job: about a hundred controllers on one history each."""
    (tmp_path / "reference").mkdir()
    reference = CrashingSimulation(tmp_path / "reference")
    job = reference.run(reference.submit(budget=Budget(currency=Currency.samples, limit=80)))
    num_steps = reference.steps
    assert num_steps > 20
    for crash_at in range(1, num_steps + 1):
        directory = tmp_path / str(crash_at)
        directory.mkdir()
        simulation = CrashingSimulation(directory)
        simulation.crash_at = crash_at
        job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=80)))
        assert job.phase is Phase.succeeded, crash_at
        assert sorted(simulation.samples(job)) == [(p, s) for p in range(40) for s in range(2)]
        assert simulation.cluster.record.num_drawn == 80, f"crash at step {crash_at} made an engine draw a sample twice"
        simulation.audit_rows(job)


@pytest.mark.parametrize("seed", range(24))
def test_random_faults_keep_the_budget_and_every_sample(tmp_path, seed):
    simulation = CrashingSimulation(tmp_path, seed=seed, samples_per_s=60.0)
    random = rng(seed)
    currency = list(Currency)[seed % len(Currency)]
    strategy = "until_correct" if seed % 3 == 0 else "uniform"
    limit = to_amount(currency, 250 * simulation.worst_sample(currency))
    allocation: dict[str, Any] = {"target_correct": 2, "max_samples": 12} if strategy == "until_correct" else {}
    job = simulation.submit(budget=Budget(currency=currency, limit=limit), strategy=strategy, **allocation)
    for _ in range(3000):
        _inject(simulation, random)
        simulation.tick(float(random.uniform(0.05, 0.5)))
        if simulation.store.jobs.get(job.id).phase.is_terminal:
            break
    simulation.cluster.thaw_reports()
    job = simulation.store.jobs.get(job.id)
    account = simulation.account(job)
    assert job.phase is Phase.succeeded, (job.error, simulation.store.reads.events(job_id=job.id))
    assert account.reserved == 0
    assert account.spent <= limit
    if currency.is_soft:
        # what an engine that died did between its last word and its end, beyond its credit, nobody knows
        num_engines = len([host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator])
        drain_ms = 1000.0 * simulation.world.window / simulation.world.samples_per_s
        assert 1000.0 * simulation.cluster.record.busy_s <= account.used + num_engines * (drain_ms + 500.0)
    elif currency is Currency.samples:
        assert account.spent == len(simulation.samples(job))
    else:
        assert to_amount(currency, simulation.cluster.record.true_cost) <= account.spent + 1, (
            "engines spent more than charged"
        )
    simulation.audit_rows(job)


def _inject(simulation: CrashingSimulation, random) -> None:
    draw = random.random()
    if draw < 0.02:
        living = simulation.cluster.living(HostKind.generator)
        if living:
            simulation.cluster.kill(str(random.choice(living)))
    elif draw < 0.03:
        living = simulation.cluster.living(HostKind.dispatcher)
        if living:
            simulation.cluster.kill(str(random.choice(living)))
    elif draw < 0.10:
        simulation.crash_at = simulation.steps + int(random.integers(1, 6))
    elif draw < 0.15:
        simulation.cluster.freeze_reports()
    elif draw < 0.30:
        simulation.cluster.thaw_reports()


def test_lost_engine_charges_at_most_its_credit_and_redraws_only_what_was_not_committed(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.flops, limit=300_000))
    while len(simulation.samples(job)) < 120:
        simulation.tick()
    before = set(simulation.samples(job))
    simulation.cluster.kill(simulation.engines()[0])
    job = simulation.run(job)
    usage = {row.outcome: row for row in simulation.store.reads.usage(job_id=job.id) if row.stage == "generate"}
    assert before <= set(simulation.samples(job))
    assert usage["lost"].flops > 0
    account = simulation.account(job)
    assert usage["useful"].flops + usage["lost"].flops <= account.spent * 1e6 * (1 + 1e-9)
    simulation.audit_rows(job)


@pytest.mark.parametrize("currency", list(Currency))
def test_lost_engine_shows_its_waste_in_flops_whatever_the_budget_is_in(tmp_path, currency):
    simulation = Simulation(tmp_path)
    limit = to_amount(currency, 200 * simulation.worst_sample(currency))
    job = simulation.submit(budget=Budget(currency=currency, limit=limit))
    while len(simulation.samples(job)) < 60:
        simulation.tick()
    simulation.cluster.kill(simulation.engines()[0])
    job = simulation.run(job)
    (lost,) = [row for row in simulation.store.reads.usage(job_id=job.id) if row.outcome == "lost"]
    worst = simulation.worst_sample(Currency.flops)
    # at most what was in flight or paid for ahead, at least one sample; device time is paid for seconds ahead
    num_ahead = 200 if currency.is_soft else 4 * simulation.world.window
    assert 0 < lost.flops <= num_ahead * worst
    assert lost.flops_paper > 0
    assert lost.completion_tokens > 0


def test_engine_that_never_loads_fails_the_job_and_names_the_model(tmp_path):
    simulation = Simulation(tmp_path, load_s=1e9)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    for _ in range(200):
        simulation.tick()
        for name in simulation.engines():
            simulation.cluster.kill(name)
        if simulation.store.jobs.get(job.id).phase.is_terminal:
            break
        dispatchers = simulation.cluster.living(HostKind.dispatcher)
        for name in dispatchers:
            simulation.cluster.hosts[name].ready_at = 0.0
    job = simulation.store.jobs.get(job.id)
    assert job.phase is Phase.failed
    assert "engine for m does not load" in (job.error or "")


def test_error_after_the_commit_plans_nothing_twice(tmp_path):
    """The commit went through, its answer was lost, and the same controller goes on."""
    simulation = CrashingSimulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=200))
    for step in range(2, 60, 4):
        simulation.crash_at = simulation.steps + step % 7 + 1
        simulation.cluster.advance(0.25)
        simulation.controller._guarded_tick()
    job = simulation.run(job)
    assert sorted(simulation.samples(job)) == [(p, s) for p in range(40) for s in range(5)]
    assert simulation.cluster.record.num_drawn == 200
    simulation.audit_rows(job)


def test_unreadable_score_file_fails_its_job_and_no_other(tmp_path):
    simulation = Simulation(tmp_path)
    broken = simulation.submit(budget=Budget(currency=Currency.samples, limit=400))
    while not simulation.store.reads.parts(broken.id, TaskKind.score):
        simulation.tick()
    sound = simulation.submit(budget=Budget(currency=Currency.samples, limit=80))

    def read_receipt(path: str) -> Receipt:
        if path.startswith(broken.id):
            raise CorruptFile(f"{path}: cut off")
        return simulation.cluster.read_receipt(path)

    simulation.controller = simulation.new_controller(read_receipt)
    simulation.run(sound)
    job = simulation.run(broken)
    assert job.phase is Phase.failed
    assert "cut off" in (job.error or "")


def test_busy_dispatcher_is_never_taken_for_a_stuck_engine(tmp_path):
    simulation = Simulation(tmp_path, slow_answers=True)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    for _ in range(40):
        simulation.tick(6.0)
    assert {event.kind for event in simulation.store.reads.events()}.isdisjoint({"host_ended", "host_lost"})
    assert simulation.store.jobs.get(job.id).phase is Phase.preparing


def test_clock_set_forward_kills_no_engine(tmp_path):
    simulation = Simulation(tmp_path, samples_per_s=0.001)
    simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    for _ in range(30):
        simulation.tick()
    simulation.start += timedelta(hours=1)
    for _ in range(10):
        simulation.tick()
    assert {event.kind for event in simulation.store.reads.events()}.isdisjoint({"host_ended", "host_lost"})


def test_stop_order_lost_with_its_controller_is_sent_again(tmp_path):
    simulation = CrashingSimulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=400))
    for _ in range(20):
        simulation.tick()
    simulation.cluster.ignored_stops = 1
    simulation.store.catalogue.change_pool("m", replicas=0)
    for _ in range(8):
        simulation.tick()
    assert simulation.engines() == []
    simulation.store.catalogue.change_pool("m", replicas=1)
    simulation.run(job)


@pytest.mark.parametrize("seed", range(3))
def test_dispatcher_that_dies_when_the_budget_is_spent_leaves_no_part_without_scores(tmp_path, seed):
    simulation = Simulation(tmp_path, seed=seed)
    job = simulation.submit(budget=Budget(currency=Currency.flops, limit=300_000))
    lost = []
    while not lost:
        simulation.tick()
        snapshot = simulation.store.snapshot()
        is_spent = snapshot.jobs[0].closing == "budget spent"
        lost = [t for t in snapshot.tasks if is_spent and t.kind is TaskKind.score and t.state.is_in_flight]
    for name in simulation.cluster.living(HostKind.dispatcher):
        simulation.cluster.kill(name)
    job = simulation.run(job)
    assert job.phase is Phase.succeeded
    parts, scores = (simulation.store.reads.parts(job.id, kind) for kind in (TaskKind.generate, TaskKind.score))
    assert {(s.source_attempt, s.source_part) for s in scores} == {(p.attempt_id, p.part) for p in parts}
