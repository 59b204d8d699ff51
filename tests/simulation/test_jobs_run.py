"""The control loop without faults: budgets are kept and used, in every currency, by both strategies."""

import numpy as np
import pytest

from service.allocation import visits_after
from service.controller import past_round
from service.currency import Budget, Currency, to_amount
from service.jobs import Desired, Phase
from tests.simulation.world import Simulation


@pytest.mark.parametrize("currency", list(Currency))
def test_uniform_any_currency_spends_the_budget_and_never_more(tmp_path, currency):
    simulation = Simulation(tmp_path)
    limit = to_amount(currency, 220 * simulation.worst_sample(currency))
    job = simulation.run(simulation.submit(budget=Budget(currency=currency, limit=limit)))
    account = simulation.account(job)
    assert job.phase is Phase.succeeded
    assert account.reserved == 0
    assert 0.99 * limit <= account.spent <= limit
    simulation.audit_rows(job)


def test_uniform_samples_budget_gives_every_problem_the_same_number(tmp_path):
    simulation = Simulation(tmp_path, num_problems=30)
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=30 * 7)))
    assert sorted(simulation.samples(job)) == [(p, s) for p in range(30) for s in range(7)]


def test_uniform_flop_budget_leaves_no_problem_more_than_one_sample_short(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40)
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.flops, limit=60_000)))
    counts = [0] * 40
    for problem, _ in simulation.samples(job):
        counts[problem] += 1
    assert max(counts) - min(counts) <= 1


def test_until_correct_stops_at_solved_problems_and_respects_the_cap(tmp_path):
    simulation = Simulation(tmp_path, num_problems=60, solve_rate=(1.0, 0.5, 0.0))
    job = simulation.run(
        simulation.submit(
            budget=Budget(currency=Currency.samples, limit=60 * 12),
            strategy="until_correct",
            target_correct=1,
            max_samples=12,
        )
    )
    counts = dict.fromkeys(range(60), 0)
    for problem, _ in simulation.samples(job):
        counts[problem] += 1
    assert all(counts[p] == 1 for p in range(0, 60, 3))
    assert all(counts[p] == 12 for p in range(2, 60, 3))
    for problem in range(1, 60, 3):
        drawn = [simulation.world.draw(problem, sample)[1] for sample in range(counts[problem])]
        assert drawn.index(True) == counts[problem] - 1 if any(drawn) else counts[problem] == 12
    simulation.audit_rows(job)


def test_budget_below_one_sample_fails_and_says_what_one_costs(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.flops, limit=1)))
    assert job.phase is Phase.failed
    assert "smaller than one sample" in (job.error or "")
    assert simulation.account(job).spent == 0


def test_pause_before_the_first_tick_then_resume_draws_everything(tmp_path):
    simulation = Simulation(tmp_path, num_problems=10)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=20))
    simulation.store.jobs.set_desired(job.id, Desired.pause)
    simulation.tick()
    assert simulation.store.jobs.get(job.id).phase is Phase.paused
    simulation.store.jobs.set_desired(job.id, Desired.run)
    job = simulation.run(job)
    assert job.phase is Phase.succeeded
    assert len(simulation.samples(job)) == 20


def test_pause_then_resume_redraws_nothing(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40 * 10))
    for _ in range(30):
        simulation.tick()
    simulation.store.jobs.set_desired(job.id, Desired.pause)
    for _ in range(20):
        simulation.tick()
    assert simulation.store.jobs.get(job.id).phase is Phase.paused
    drawn = simulation.cluster.record.num_drawn
    assert 0 < drawn < 400
    simulation.store.jobs.set_desired(job.id, Desired.run)
    job = simulation.run(job)
    assert simulation.cluster.record.num_drawn == 400
    assert len(simulation.samples(job)) == 400


def test_cancel_keeps_what_was_drawn_and_frees_the_reservation(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.flops, limit=500_000))
    for _ in range(30):
        simulation.tick()
    simulation.store.jobs.set_desired(job.id, Desired.cancel)
    job = simulation.run(job)
    assert job.phase is Phase.cancelled
    assert simulation.account(job).reserved == 0
    assert len(simulation.samples(job)) > 0
    simulation.audit_rows(job)


def test_two_jobs_at_once_both_finish_within_their_budgets(tmp_path):
    simulation = Simulation(tmp_path)
    first = simulation.submit(budget=Budget(currency=Currency.flops, limit=60_000))
    second = simulation.submit(budget=Budget(currency=Currency.samples, limit=200), strategy="until_correct")
    simulation.run(first)
    simulation.run(second)
    for job in (first, second):
        assert simulation.store.jobs.get(job.id).phase is Phase.succeeded
        simulation.audit_rows(job)


@pytest.mark.parametrize("strategy", ["uniform", "adastar", "until_correct"])
def test_collect_ends_with_exactly_as_many_right_answers(tmp_path, strategy):
    simulation = Simulation(tmp_path, num_problems=60, solve_rate=(0.9, 0.3))
    budget = Budget(currency=Currency.samples, limit=60 * 20)
    job = simulation.run(simulation.submit(budget=budget, strategy=strategy, collect=45))
    right = sum(simulation.world.draw(problem, sample)[1] for problem, sample in simulation.samples(job))
    assert (job.phase, right) == (Phase.succeeded, 45)
    assert simulation.account(job).spent < budget.limit
    simulation.audit_rows(job)


def test_collect_beyond_what_the_budget_buys_ends_with_the_budget(tmp_path):
    simulation = Simulation(tmp_path, num_problems=10, solve_rate=(0.2,))
    budget = Budget(currency=Currency.samples, limit=30)
    job = simulation.run(simulation.submit(budget=budget, collect=1000))
    assert (job.phase, simulation.account(job).spent) == (Phase.succeeded, 30)


def test_adastar_second_round_begins_where_the_first_left_its_keys(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40, solve_rate=(1.0, 0.0))
    budget = Budget(currency=Currency.samples, limit=40)
    first = simulation.run(simulation.submit(budget=budget, strategy="adastar"))
    half = Budget(currency=Currency.samples, limit=30)
    second = simulation.run(simulation.submit(budget=half, strategy="adastar", history=(first.id,)))
    # half were right: a quarter of the 40 took new keys, and the 30 others come first
    assert len({problem for problem, _ in simulation.samples(second)}) == 30
    past = past_round(simulation.store, first.id, 40, second.spec.allocation, simulation.cluster.read_receipt)
    waiting = np.flatnonzero(visits_after([past], 40).last == 0)
    assert set(waiting.tolist()) == {problem for problem, _ in simulation.samples(second)}
