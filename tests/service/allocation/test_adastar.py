"""Which problems self-training visits next, from what earlier rounds found."""

import numpy as np
import pytest

from service.allocation import AllocationState, PastRound, strategy_for, visits_after
from service.allocation.adastar import visit_order
from service.allocation.state import Visits
from service.currency import Budget, Currency
from service.jobs import AllocationSpec, JobSpec


def job(**allocation: object) -> JobSpec:
    spec = AllocationSpec(strategy="adastar", **allocation)  # type: ignore[arg-type]
    budget = Budget(currency=Currency.flops, limit=10**6)
    return JobSpec(name="round", problems="sums/train", models=("small",), budget=budget, allocation=spec)


def past(scored: list[int], correct: list[int], seed: int = 0) -> PastRound:
    return PastRound(seed=seed, scored=np.array(scored, dtype=np.int32), correct=np.array(correct, dtype=np.int32))


def visited(spec: JobSpec, state: AllocationState, number: int) -> list[tuple[int, int]]:
    runs = strategy_for(spec, state.num_problems).next_runs(state, arm=0, max_samples=number)
    state.plan(0, runs)
    assert (runs[:, 2] == 1).all()
    return [(int(problem), int(sample)) for problem, sample, _ in runs]


def test_first_round_visits_every_problem_once_before_any_twice() -> None:
    state = AllocationState(num_arms=1, num_problems=5)
    found = [*visited(job(), state, 3), *visited(job(), state, 4)]

    assert sorted(found[:5]) == [(problem, 0) for problem in range(5)]
    assert [sample for _, sample in found[5:]] == [1, 1]
    assert [problem for problem, _ in found[5:]] == [problem for problem, _ in found[:2]]


def test_all_right_takes_new_keys_for_all_none_right_for_none() -> None:
    right, wrong = visits_after([past([1] * 4, [1] * 4)], 4), visits_after([past([1] * 4, [0] * 4)], 4)

    assert right.last.tolist() == [1, 1, 1, 1]
    assert right.win_rate.tolist() == [1.0] * 4
    assert wrong.last.tolist() == [0, 0, 0, 0]


def test_half_right_takes_new_keys_for_the_first_quarter_in_the_order_of_the_visit() -> None:
    visits = visits_after([past([2] * 8, [1] * 8, seed=7)], 8)

    first = visit_order(Visits.none(8), 7)[:2]
    assert sorted(np.flatnonzero(visits.last).tolist()) == sorted(first.tolist())
    assert visits.win_rate[first].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("right", "total", "updated"), [(70, 100, 49), (7, 49, 1), (66, 121, 36), (69, 100, 47)])
def test_number_of_new_keys_is_exact_where_the_share_is_no_exact_float(right: int, total: int, updated: int) -> None:
    visits = visits_after([past([1] * total, [1] * right + [0] * (total - right))], total)

    assert np.count_nonzero(visits.last) == updated


def test_problems_not_visited_come_before_those_that_were_and_hard_before_easy() -> None:
    rounds = [past([1, 4, 4, 0, 0], [1, 4, 3, 0, 0])]  # a = 8/9, so that two of three take new keys
    visits = visits_after(rounds, 5)
    kept = [problem for problem in (0, 1, 2) if visits.last[problem] == 0]
    assert len(kept) == 1

    state = AllocationState(num_arms=1, num_problems=5, visits=visits)
    order = [problem for problem, _ in visited(job(), state, 5)]
    assert set(order[:3]) == {3, 4, *kept}
    updated = order[3:]
    assert visits.win_rate[updated[0]] <= visits.win_rate[updated[1]]


def test_same_history_gives_the_same_keys_and_another_seed_other_ties() -> None:
    rounds = [past([1] * 50, [1] * 25 + [0] * 25, seed=seed) for seed in (0, 1)]
    one, two = visits_after(rounds, 50), visits_after(rounds, 50)

    assert (one.last == two.last).all()
    assert (visit_order(one, 0) != visit_order(one, 1)).any()


def test_excluded_problems_get_their_error_row_and_no_more() -> None:
    state = AllocationState(num_arms=1, num_problems=3)
    state.exclude(np.array([[1, 0]], dtype=np.int32))

    found = visited(job(), state, 6)

    assert [problem for problem, _ in found].count(1) == 1
    assert len(found) == 6


def test_cap_ends_the_round() -> None:
    state = AllocationState(num_arms=1, num_problems=3)
    spec = job(max_samples=2)

    assert len(visited(spec, state, 100)) == 6
    assert visited(spec, state, 100) == []
    assert strategy_for(spec, 3).is_done(state)


def test_several_models_take_turns_at_a_problem() -> None:
    spec = JobSpec(
        name="two",
        problems="sums/train",
        models=("small", "large"),
        budget=Budget(currency=Currency.samples, limit=10),
        allocation=AllocationSpec(strategy="adastar"),
    )
    state = AllocationState(num_arms=2, num_problems=5)
    strategy = strategy_for(spec, 5)
    for _ in range(2):
        drawn = [strategy.next_runs(state, arm=arm, max_samples=10) for arm in range(2)]
        for arm, runs in enumerate(drawn):
            state.plan(arm, runs)
        assert sorted(len(runs) for runs in drawn) == [2, 3]
    assert state.planned.tolist() == [[1] * 5] * 2
