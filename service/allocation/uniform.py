"""The paper's baseline: every problem gets the same number of samples.

Samples go one index at a time over all problems, each round in its own seeded order, so that a budget which ends in
the middle of a round leaves a random subset of problems one sample short and not the last ones of the file.

Several arms go side by side, whatever comes back: all get as many samples, or all get as much of the budget. An arm may
be ahead of the one that is furthest behind by a share of what is left, so that all of them end together.
"""

from dataclasses import dataclass

import numpy as np

from service.allocation.state import NO_BOUND, AllocationState, Runs, empty_runs
from service.currency import Currency, from_amount
from service.jobs import JobSpec

LEAD_SHARE = 4
"""An arm may be ahead by this part of its share of what is left: large enough to fill engines, and nothing at last."""
GROUPED_SHARE = 2
"""... and by this part where arms wait for each other's engine places: the larger, the fewer engines are loaded."""
MIN_LEAD = 16
"""... but by so many samples always: fewer would not be worth a task."""
FIRST_LEAD = 64
"""... and by so many while nobody knows what a sample costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """One sample index after the other.

    Args:
        seed: orders each round.
        max_rounds: samples per problem and arm, or None to go on until the budget ends.
        limit: the budget [cost units].
        is_by_budget: arms get as much of the budget, not as many samples.
        is_grouped: arms draw in long stretches, not round by round. What is drawn in the end is nearly the same.
    """

    seed: int
    max_rounds: int | None
    limit: float
    is_by_budget: bool = False
    is_grouped: bool = False
    is_adaptive: bool = False
    is_cascade: bool = False

    @classmethod
    def for_job(cls, spec: JobSpec, num_problems: int) -> "Uniform":
        """Reads the job; a budget in samples ends after that many rounds, and is the same either way."""
        budget, rounds = spec.budget, None
        is_samples = budget.currency is Currency.samples
        if is_samples:
            rounds = -(-budget.limit // (num_problems * len(spec.all_arms)))
        return cls(
            seed=spec.seed,
            max_rounds=rounds,
            limit=from_amount(budget.currency, budget.limit),
            is_by_budget=spec.allocation.equal == "budget" and not is_samples,
        )

    def next_runs(self, state: AllocationState, *, arm: int, max_samples: int) -> Runs:
        """The next `max_samples` in order: the rest of the arm's current round, then whole rounds.

        With several arms of as many samples, one that is a whole round ahead of another waits for it, and gets one
        round at a time.
        """
        planned = state.planned[arm].copy()
        rounds: list[Runs] = [empty_runs()]
        left = min(max_samples, self._lead_left(state, arm))
        goes_by_rounds = state.num_arms > 1 and not self.is_by_budget and not self.is_grouped
        while left > 0 and len(open_problems := self._open(state, planned)):
            index = int(planned[open_problems].min())
            is_ahead = goes_by_rounds and (len(rounds) > 1 or index > int(self._rounds(state).min()))
            if is_ahead or (self.max_rounds is not None and index >= self.max_rounds):
                break
            order = np.random.default_rng([self.seed, arm, index]).permutation(state.num_problems)
            due = order[(planned[order] == index) & (~state.is_excluded[order] | (index == 0))][:left]
            planned[due] += 1
            left -= len(due)
            rounds.append(np.column_stack([due, np.full(len(due), index), np.ones(len(due))]).astype(np.int32))
        return np.concatenate(rounds)

    def most_now(self, state: AllocationState) -> int:
        """Any number: what arms get in one tick does not depend on one another."""
        return NO_BOUND

    def is_done(self, state: AllocationState) -> bool:
        """Only a budget in samples ends by itself."""
        return self.max_rounds is not None and int(self._rounds(state).min()) >= self.max_rounds

    def _lead_left(self, state: AllocationState, arm: int) -> int:
        """Samples that the arm may plan before another one has to catch up."""
        if state.num_arms == 1:
            return NO_BOUND
        total_drawn, total_cost = int(state.num_drawn_by_arm.sum()), float(state.cost_by_arm.sum())
        # rows of problems that cannot be asked cost nothing and show nothing of what a sample costs
        asked = state.num_planned_by_arm - state.num_errors_by_arm
        if not total_drawn or total_cost <= 0.0:
            # by budget nobody can tell who is ahead, until every arm has shown what its samples cost
            if self.is_by_budget:
                return FIRST_LEAD - int(asked[arm])
            return FIRST_LEAD - int(state.num_planned_by_arm[arm] - state.num_planned_by_arm.min())
        # an arm that has drawn nothing yet, or nothing that cost anything, is taken for an average one
        means = np.full(state.num_arms, total_cost / total_drawn)
        has_drawn = state.num_drawn_by_arm > 0
        has_cost = has_drawn & (state.cost_by_arm > 0)
        means[has_cost] = state.cost_by_arm[has_cost] / state.num_drawn_by_arm[has_cost]
        costs = state.cost_by_arm + (asked - state.num_drawn_by_arm) * means
        share = GROUPED_SHARE if self.is_grouped else LEAD_SHARE
        lead = max(0.0, self.limit - float(costs.sum())) / (share * state.num_arms)
        if not self.is_by_budget:
            ahead = int(state.num_planned_by_arm[arm] - state.num_planned_by_arm.min())
            return max(MIN_LEAD, int(lead / means.mean())) - ahead
        if not has_drawn[arm]:
            return FIRST_LEAD - int(asked[arm])
        # one whose samples cost nothing is behind whatever it draws, and would hold the others back for ever
        behind = costs[has_cost | ~has_drawn].min()
        ahead_samples = float(costs[arm] - behind) / means[arm]
        share_left = (self.limit / state.num_arms - costs[arm]) / means[arm]
        return int(np.ceil(min(max(MIN_LEAD, lead / means[arm]) - ahead_samples, share_left)))

    def _rounds(self, state: AllocationState) -> np.ndarray:
        """Whole rounds planned per arm, shape [arms]."""
        rounds = [
            int(planned[open_problems].min()) if len(open_problems := self._open(state, planned)) else NO_BOUND
            for planned in state.planned
        ]
        return np.array(rounds)

    @staticmethod
    def _open(state: AllocationState, planned: np.ndarray) -> np.ndarray:
        """Problems that can still get samples: every valid one, and an excluded one until its error row is planned."""
        return np.flatnonzero(~state.is_excluded | (planned == 0))
