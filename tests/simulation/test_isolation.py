"""A poisonous prompt costs its own samples and a bounded number of engines; everything else is drawn."""

from typing import Any

import pytest

from service.currency import Budget, Currency
from service.jobs import Phase
from service.planner.failing import HOPELESS_ERRORS
from service.tasks import MAX_ENGINE_DEATHS, MAX_LOST
from service.work import TaskKind
from tests.simulation.world import Simulation


@pytest.mark.parametrize("strategy", ["uniform", "until_correct"])
def test_poison_problem_is_refused_and_the_job_ends(tmp_path, strategy):
    simulation = Simulation(tmp_path, num_problems=40, poison=frozenset({17}), solve_rate=(0.4,))
    allocation: dict[str, Any] = {"target_correct": 1, "max_samples": 3} if strategy == "until_correct" else {}
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40 * 3), strategy=strategy, **allocation)
    job = simulation.run(job)
    assert job.phase is Phase.finished_with_errors, job.error
    drawn = set(simulation.samples(job))
    assert {problem for problem, _ in drawn} == set(range(40))
    if strategy == "uniform":
        assert drawn >= {(p, s) for p in range(40) for s in range(3) if p != 17}
    errors = sum(row.errors for row in simulation.store.reads.usage(job_id=job.id))
    assert errors == sum(problem == 17 for problem, _ in drawn)
    refusals = [e.message for e in simulation.store.reads.events(job_id=job.id) if e.kind == "problem_refused"]
    assert len(refusals) == 1
    assert "index 17" in refusals[0]
    deaths = sum(host.error is not None for host in simulation.store.reads.hosts())
    assert deaths <= 12
    assert simulation.account(job).reserved == 0
    simulation.audit_rows(job)


def test_engine_that_dies_on_everything_fails_the_job_after_a_bounded_number_of_deaths(tmp_path):
    simulation = Simulation(tmp_path, num_problems=200, poison=frozenset(range(200)))
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=400)))
    assert job.phase is Phase.failed
    assert "engines died" in (job.error or "")
    assert sum(host.error is not None for host in simulation.store.reads.hosts()) <= MAX_ENGINE_DEATHS + 2


def test_two_poison_problems_are_told_apart_from_their_neighbours(tmp_path):
    simulation = Simulation(tmp_path, num_problems=64, poison=frozenset({3, 40}))
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=128)))
    assert job.phase is Phase.finished_with_errors
    tasks = [task for task in simulation.store.reads.tasks(job.id) if task.kind is TaskKind.generate]
    assert len(tasks) > 4
    refused = [e.message for e in simulation.store.reads.events(job_id=job.id) if e.kind == "problem_refused"]
    assert sorted(message.split()[2] for message in refused) == ["3:", "40:"]


def test_poison_problem_that_kills_without_a_word_is_found_too(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40, poison=frozenset({17}), dies_silently=True)
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=80)))
    assert job.phase is Phase.finished_with_errors, job.error
    assert set(simulation.samples(job)) == {(problem, sample) for problem in range(40) for sample in range(2)}
    refusals = [e.message for e in simulation.store.reads.events(job_id=job.id) if e.kind == "problem_refused"]
    assert [message.split()[2] for message in refusals] == ["17:"]
    simulation.audit_rows(job)


def test_engine_that_dies_on_everything_without_a_word_fails_the_job_after_a_bounded_number_of_deaths(tmp_path):
    simulation = Simulation(tmp_path, num_problems=200, poison=frozenset(range(200)), dies_silently=True)
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=400)))
    assert job.phase is Phase.failed
    assert "engines died" in (job.error or "")
    num_engines = sum(host.model == "m" for host in simulation.store.reads.hosts())
    assert num_engines <= MAX_ENGINE_DEATHS + 2 * MAX_LOST


def test_engines_that_are_preempted_again_and_again_cost_no_problem(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40, samples_per_s=20.0)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=400))
    for number in range(400):
        simulation.tick()
        if number % 25 == 20:
            for name in simulation.engines():
                simulation.cluster.kill(name)
    job = simulation.run(job)
    assert job.phase is Phase.succeeded, job.error
    assert len(simulation.samples(job)) == 400


def test_model_that_draws_nothing_but_errors_fails_the_job_long_before_the_budget_is_spent(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40, only_errors=frozenset({"m"}))
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=40 * 100)))
    assert job.phase is Phase.failed
    assert "samples of m are errors" in (job.error or "")
    assert HOPELESS_ERRORS <= simulation.account(job).spent < 1000
    assert simulation.account(job).reserved == 0


def test_few_errors_and_nothing_else_end_as_rows_with_errors(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40, only_errors=frozenset({"m"}))
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=80)))
    assert job.phase is Phase.finished_with_errors
    assert simulation.account(job).spent == 80


def test_problem_that_kills_engines_makes_many_errors_and_fails_no_job(tmp_path):
    simulation = Simulation(tmp_path, num_problems=3, poison=frozenset({0}))
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=3 * 200)))
    assert job.phase is Phase.finished_with_errors, job.error
    simulation.audit_rows(job)
