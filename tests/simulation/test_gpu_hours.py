"""Budgets of device time: when they stop, how far beyond their limit, and that nothing is forgotten on the way."""

import itertools

import pytest

from service.cluster import HostKind
from service.currency import Budget, Currency
from service.jobs import Desired, Job, Phase
from tests.simulation.world import Simulation

TICK_S = 0.25
LIMIT_MS = 20_000


def submit(simulation: Simulation, limit_ms: int = LIMIT_MS) -> Job:
    return simulation.submit(budget=Budget(currency=Currency.gpu_hours, limit=limit_ms))


def drain_ms(simulation: Simulation, num_engines: int = 1) -> float:
    """The most that samples inside can take once no more enter, and what each engine does in one step."""
    world = simulation.world
    return 1000.0 * num_engines * (world.window / world.samples_per_s + 2 * TICK_S)


def recorded_ms(simulation: Simulation, job: Job) -> float:
    return 1000.0 * sum(row.cpu_s for row in simulation.store.reads.usage(job_id=job.id) if row.stage == "generate")


@pytest.mark.parametrize("num_engines", [1, 2])
def test_device_time_is_used_up_and_passed_by_what_runs_at_most(tmp_path, num_engines):
    simulation = Simulation(tmp_path)
    simulation.cluster.num_cpus = float(num_engines)
    simulation.store.catalogue.change_pool("m", replicas=num_engines)
    job = simulation.run(submit(simulation))
    account = simulation.account(job)
    true_ms = 1000.0 * simulation.cluster.record.busy_s

    assert job.phase is Phase.succeeded
    assert account.reserved == 0
    assert account.used == pytest.approx(true_ms, abs=5)
    assert recorded_ms(simulation, job) == pytest.approx(true_ms)
    assert 0.97 * LIMIT_MS <= account.used <= LIMIT_MS + drain_ms(simulation, num_engines)
    assert account.spent <= LIMIT_MS
    assert len(simulation.engines()) == num_engines
    simulation.audit_rows(job)


def test_samples_inside_at_the_limit_are_finished_whatever_their_length(tmp_path):
    simulation = Simulation(tmp_path, num_problems=400)
    job = simulation.run(submit(simulation))
    drawn = simulation.samples(job)
    lengths = [simulation.world.draw(problem, sample)[0] for problem, sample in drawn]
    assert {task.state.value for task in simulation.store.reads.tasks(job.id)} <= {"succeeded", "cancelled"}
    assert [row.outcome for row in simulation.store.reads.usage(job_id=job.id) if row.outcome == "dropped"] == []
    assert sum(lengths) / len(lengths) == pytest.approx((1 + simulation.world.max_tokens) / 2, rel=0.05)
    # in the order of the plan: no sample was skipped for a shorter one
    rounds = sorted(sample for _, sample in drawn)
    assert rounds[-1] - rounds[0] <= 2


def test_budget_stops_within_seconds_though_files_are_rare(tmp_path):
    simulation = Simulation(tmp_path, flush_rows=100_000)
    job = simulation.run(submit(simulation))
    assert simulation.account(job).used <= LIMIT_MS + drain_ms(simulation)


def test_ledger_of_device_time_grows_with_time_and_not_with_ticks(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.run(submit(simulation, 60_000))
    kinds = [row["kind"] for row in simulation.store.reads.transfers(simulation.account(job).id)]
    num_seconds = simulation.cluster.record.busy_s
    assert kinds.count("reserve") <= num_seconds / 2 + 20


@pytest.mark.parametrize("ticks_before", [20, 60])
def test_new_controller_keeps_the_account(tmp_path, ticks_before):
    simulation = Simulation(tmp_path)
    job = submit(simulation)
    for _ in range(ticks_before):
        simulation.tick()
    simulation.controller = simulation.new_controller()
    job = simulation.run(job)
    account = simulation.account(job)
    assert account.used == pytest.approx(1000.0 * simulation.cluster.record.busy_s, abs=5)
    assert account.used <= LIMIT_MS + drain_ms(simulation)


def test_engines_without_a_controller_stop_at_their_credit(tmp_path):
    simulation = Simulation(tmp_path)
    job = submit(simulation, 1_000_000)
    for _ in range(30):
        simulation.tick()
    granted = simulation.account(job).reserved + simulation.account(job).spent
    for _ in range(400):
        simulation.cluster.advance(TICK_S)
    assert 1000.0 * simulation.cluster.record.busy_s <= granted + drain_ms(simulation)


def test_pause_and_resume_use_the_budget_once(tmp_path):
    simulation = Simulation(tmp_path)
    job = submit(simulation)
    for _ in range(40):
        simulation.tick()
    simulation.store.jobs.set_desired(job.id, Desired.pause)
    for _ in range(20):
        simulation.tick()
    assert simulation.store.jobs.get(job.id).phase is Phase.paused
    paused = simulation.account(job)
    assert paused.reserved == 0
    assert paused.used == pytest.approx(1000.0 * simulation.cluster.record.busy_s, abs=5)
    simulation.store.jobs.set_desired(job.id, Desired.run)
    job = simulation.run(job)
    assert 0.97 * LIMIT_MS <= simulation.account(job).used <= LIMIT_MS + drain_ms(simulation)


def test_cancelled_job_pays_for_the_time_of_what_was_dropped(tmp_path):
    simulation = Simulation(tmp_path)
    job = submit(simulation)
    for _ in range(40):
        simulation.tick()
    simulation.store.jobs.set_desired(job.id, Desired.cancel)
    job = simulation.run(job)
    assert job.phase is Phase.cancelled
    account = simulation.account(job)
    assert account.reserved == 0
    assert account.used == pytest.approx(1000.0 * simulation.cluster.record.busy_s, abs=5)


@pytest.mark.parametrize("seed", range(3))
def test_lost_engines_are_charged_and_the_budget_still_ends_the_job(tmp_path, seed):
    simulation = Simulation(tmp_path, seed=seed)
    job = submit(simulation, 60_000)
    for number in itertools.count():
        simulation.tick()
        if simulation.store.jobs.get(job.id).phase.is_terminal:
            break
        assert number < 4000
        if number % 70 == 50 + seed and simulation.engines():
            simulation.cluster.kill(simulation.engines()[0])
    job = simulation.store.jobs.get(job.id)
    account = simulation.account(job)
    true_ms = 1000.0 * simulation.cluster.record.busy_s
    assert job.phase is Phase.succeeded
    assert account.reserved == 0
    # a lost attempt is charged its credit, ten seconds ahead of what it used at most
    num_lost = sum(
        host.ended_at is not None for host in simulation.store.reads.hosts() if host.kind is HostKind.generator
    )
    assert true_ms - 5 <= account.used <= true_ms + num_lost * 2 * 10_000
    assert account.used <= 60_000 + drain_ms(simulation)
    assert recorded_ms(simulation, job) == pytest.approx(account.used, abs=10 * (num_lost + 1))
    simulation.audit_rows(job)
