"""Equal parts of a budget for several arms, from what their samples cost."""

import numpy as np

from service.allocation.state import AllocationState
from service.allocation.uniform import FIRST_LEAD, Uniform

BY_BUDGET = Uniform(seed=0, max_rounds=None, limit=5000.0, is_by_budget=True)


def make_state(*, num_problems: int = 1000, num_refused: int = 0) -> AllocationState:
    state = AllocationState(num_arms=2, num_problems=num_problems)
    refused = np.random.default_rng(1).permutation(num_problems)[:num_refused]
    state.exclude(refused[:, None].astype(np.int32))
    return state


def draw(strategy: Uniform, state: AllocationState, costs: tuple[float, float], *, max_samples: int = 32) -> int:
    """Asks each arm once and returns what it drew; how many rows there were."""
    num_rows = 0
    for arm, cost in enumerate(costs):
        runs = strategy.next_runs(state, arm=arm, max_samples=max_samples)
        rows, errors = int(runs[:, 2].sum()), int(runs[state.is_excluded[runs[:, 0]], 2].sum())
        state.plan(arm, runs)
        state.spend(arm, rows, errors, cost * (rows - errors))
        num_rows += rows
    return num_rows


def test_equal_budget_arms_spend_their_parts_though_most_problems_are_refused() -> None:
    state = make_state(num_refused=990)

    while draw(BY_BUDGET, state, (10.0, 20.0)):
        pass

    assert (state.num_errors_by_arm > 10 * FIRST_LEAD).all()
    assert (state.cost_by_arm >= 2500.0).all()
    assert (state.cost_by_arm <= 2500.0 + 20.0).all()


def test_equal_budget_arm_whose_samples_cost_nothing_yet_goes_on_when_it_has_drawn() -> None:
    state = make_state()

    for _ in range(8):
        draw(BY_BUDGET, state, (0.0, 10.0))

    assert (state.num_drawn_by_arm > FIRST_LEAD).all()
