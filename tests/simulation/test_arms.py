"""Jobs of several arms: who gets how much, what is prepared, and what a restart finds."""

import dataclasses

import numpy as np
import pytest

from service.cluster import HostKind
from service.controller import rebuild_state
from service.currency import Budget, Currency, in_currency
from service.jobs import Arm, Job, Phase, PromptSpec
from service.receipts import Usage
from service.sampling import SamplingSpec
from service.work import TaskKind
from tests.simulation.world import Simulation


def make_arms(*, prompts: int = 2, temperatures: tuple[float, ...] = (0.3, 0.9)) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            name=f"p{prompt} t={temperature:g}",
            model="m",
            prompt=PromptSpec(system=f"system {prompt}"),
            sampling=SamplingSpec(temperature=temperature),
        )
        for prompt in range(prompts)
        for temperature in temperatures
    )


def spent_by_arm(simulation: Simulation, job: Job) -> dict[str, float]:
    used: dict[str, Usage] = {}
    for part in simulation.store.reads.parts(job.id, TaskKind.generate):
        used[part.arm] = used.get(part.arm, Usage()) + part.usage
    return {arm: in_currency(job.spec.budget.currency, usage) for arm, usage in used.items()}


def test_arms_of_one_model_share_an_engine_and_prompts_are_prepared_once_a_prompt(tmp_path):
    simulation = Simulation(tmp_path)
    budget = Budget(currency=Currency.samples, limit=40 * 4 * 2)
    job = simulation.run(simulation.submit(budget=budget, arms=make_arms()))
    assert job.phase is Phase.succeeded
    assert [row["arm"] for row in simulation.store.reads.prepared(job.id)] == ["p0 t=0.3", "p1 t=0.3"]
    assert len([host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]) == 1
    everything = sorted((problem, index) for problem in range(40) for index in range(2))
    assert {arm: sorted(pairs) for arm, pairs in simulation.samples_by_arm(job).items()} == {
        arm.name: everything for arm in make_arms()
    }
    simulation.audit_rows(job)


def test_prompts_are_prepared_anew_for_arms_that_leave_them_other_room(tmp_path):
    simulation = Simulation(tmp_path)
    short, long = make_arms(prompts=1)
    short = dataclasses.replace(short, sampling=dataclasses.replace(short.sampling, max_tokens=8))
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=80), arms=(short, long)))
    assert [row["arm"] for row in simulation.store.reads.prepared(job.id)] == ["p0 t=0.3", "p0 t=0.9"]


@pytest.mark.parametrize("limit", [60_000, 300_000])
def test_equal_samples_arms_end_a_flop_budget_with_as_many_samples(tmp_path, limit):
    simulation = Simulation(tmp_path, shorter={"p0 t=0.3": 4})
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.flops, limit=limit), arms=make_arms()))
    counts = [len(pairs) for pairs in simulation.samples_by_arm(job).values()]
    assert simulation.account(job).spent >= 0.97 * limit
    # in flight at the end: what an arm may be ahead, and what its engine holds
    assert max(counts) - min(counts) <= 16 + simulation.world.window
    simulation.audit_rows(job)


@pytest.mark.parametrize("limit", [100_000, 400_000])
def test_equal_budget_arms_spend_as_much_though_their_samples_cost_different_amounts(tmp_path, limit):
    simulation = Simulation(tmp_path, shorter={"p0 t=0.3": 4, "p1 t=0.9": 2})
    budget = Budget(currency=Currency.flops, limit=limit)
    job = simulation.run(simulation.submit(budget=budget, arms=make_arms(), equal="budget"))
    spent = spent_by_arm(simulation, job)
    share = sum(spent.values()) / 4
    assert {arm: pytest.approx(share, rel=0.06) for arm in spent} == spent
    assert simulation.account(job).spent >= 0.97 * limit
    counts = {arm: len(pairs) for arm, pairs in simulation.samples_by_arm(job).items()}
    assert counts["p0 t=0.3"] > 1.3 * counts["p0 t=0.9"]
    simulation.audit_rows(job)


def test_until_correct_arms_take_turns_at_a_problem_until_one_solves_it(tmp_path):
    simulation = Simulation(tmp_path, num_problems=30, solve_rate=(1.0, 0.0))
    budget = Budget(currency=Currency.samples, limit=30 * 8)
    arms = make_arms(prompts=1)
    job = simulation.run(simulation.submit(budget=budget, strategy="until_correct", arms=arms, max_samples=4))
    first, second = simulation.samples_by_arm(job).values()
    unsolved = {(problem, index) for problem in range(1, 30, 2) for index in range(2)}
    assert set(second) == unsolved
    assert set(first) == unsolved | {(problem, 0) for problem in range(0, 30, 2)}


def test_adastar_arms_share_the_visits_evenly(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40)
    budget = Budget(currency=Currency.samples, limit=60)
    job = simulation.run(simulation.submit(budget=budget, strategy="adastar", arms=make_arms(prompts=1)))
    first, second = simulation.samples_by_arm(job).values()
    assert abs(len(first) - len(second)) <= 16
    visits = np.bincount([problem for problem, _ in simulation.samples(job)], minlength=40)
    assert visits.min() >= 1
    assert visits.max() <= 2


@pytest.mark.parametrize("strategy", ["uniform", "adastar", "until_correct"])
def test_collect_over_arms_ends_with_exactly_as_many_right_answers(tmp_path, strategy):
    simulation = Simulation(tmp_path, num_problems=60, solve_rate=(0.9, 0.3))
    budget = Budget(currency=Currency.samples, limit=60 * 20)
    job = simulation.run(simulation.submit(budget=budget, strategy=strategy, arms=make_arms(), collect=45))
    right = sum(simulation.world.draw(problem, sample)[1] for problem, sample in simulation.samples(job))
    assert (job.phase, right) == (Phase.succeeded, 45)


def test_restart_finds_the_state_of_every_arm_again(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.flops, limit=400_000), arms=make_arms(), equal="budget")
    for _ in range(40):
        simulation.tick()
    (view,) = simulation.store.snapshot().jobs
    found, kept = (
        rebuild_state(simulation.store, view, simulation.cluster.read_receipt),
        simulation.controller.state_of(job.id),
    )
    for name in ("planned", "scored", "correct", "num_planned_by_arm", "num_drawn_by_arm", "num_errors_by_arm"):
        assert np.array_equal(getattr(found, name), getattr(kept, name))
    assert (kept.num_drawn_by_arm > 0).all()
    assert found.cost_by_arm == pytest.approx(kept.cost_by_arm)
    simulation.controller = simulation.new_controller()
    simulation.audit_rows(simulation.run(job))


def test_poisonous_problem_is_refused_for_all_arms_with_its_prompts(tmp_path):
    simulation = Simulation(tmp_path, num_problems=8, poison=frozenset({3}))
    budget = Budget(currency=Currency.samples, limit=8 * 2 * 2)
    job = simulation.run(simulation.submit(budget=budget, arms=make_arms(prompts=1)))
    assert job.phase is Phase.finished_with_errors
    by_arm = simulation.samples_by_arm(job)
    assert all({problem for problem, _ in pairs} == set(range(8)) for pairs in by_arm.values())
    simulation.audit_rows(job)


@pytest.mark.parametrize("strategy", ["uniform", "adastar"])
def test_collect_asks_all_arms_for_as_much(tmp_path, strategy):
    simulation = Simulation(tmp_path, num_problems=600, solve_rate=(0.6, 0.4))
    budget = Budget(currency=Currency.samples, limit=600 * 20)
    job = simulation.run(simulation.submit(budget=budget, strategy=strategy, arms=make_arms(), collect=60))
    counts = [len(pairs) for pairs in simulation.samples_by_arm(job).values()]
    assert len(counts) == 4
    assert max(counts) - min(counts) <= 16
