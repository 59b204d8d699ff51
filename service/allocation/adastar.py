"""AdaSTaR: problems that were not visited for longest come first, of these the ones that were solved least.

For iterated self-training (arXiv:2505.16322). Each round visits problems in the order of a key, the round of the last
visit and the win rate in it, until its budget or the wanted number of right answers is reached. Of the m problems that
a round has visited, only the first floor(m * a^2) take their new key, where a is the share of right answers: while the
model is weak nearly all keep the old one and come first again, easy ones among them.

The paper draws twice for a problem, the second time with the answer as a hint; here a problem is drawn once a visit and
nothing is hinted at, so that a is plain accuracy.

Several arms share the visits: at a problem they take turns, and who begins there goes by its place in the order, so
that each arm gets as many problems of the first visits as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.allocation.state import NO_BOUND, AllocationState, PastRound, Runs, Visits, empty_runs
from service.jobs import JobSpec

TURNS = 4
"""In which each arm of several goes through the problems once."""
MIN_TURN = 16
"""... but of so many samples: fewer would not be worth a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaStar:
    """One visit after the other in the order of the keys that earlier rounds left, then all over again.

    Args:
        seed: orders problems with equal keys.
        max_samples: visits of one problem in this round by all arms, or None to go on until the budget ends.
    """

    seed: int
    max_samples: int | None
    is_adaptive: bool = False  # within a round nothing but the end depends on scores, and that is `collect`'s
    is_cascade: bool = False

    @classmethod
    def for_job(cls, spec: JobSpec, num_problems: int) -> "AdaStar":
        """Reads the job."""
        return cls(seed=spec.seed, max_samples=spec.allocation.max_samples)

    def next_runs(self, state: AllocationState, *, arm: int, max_samples: int) -> Runs:
        """Problems with the fewest samples in this round, in the order of their keys: those where it is its turn."""
        order = visit_order(state.visits, self.seed)
        place = np.argsort(order)
        total, mine = state.planned.sum(axis=0), state.planned[arm].copy()
        if state.num_arms > 1:  # turns are short, so that a budget that ends within the visits ends for all arms
            max_samples = min(max_samples, max(MIN_TURN, state.num_problems // (TURNS * state.num_arms)))
        rounds: list[Runs] = [empty_runs()]
        while max_samples > 0:
            is_open = ~state.is_excluded | (total == 0)
            visits = int(total[is_open].min()) if is_open.any() else None
            if visits is None or (self.max_samples is not None and visits >= self.max_samples):
                break
            is_due = is_open & (total == visits) & ((visits + place) % state.num_arms == arm)
            due = order[is_due[order]][:max_samples]
            if not len(due):
                break  # the others have to visit first
            rounds.append(np.column_stack([due, mine[due], np.ones(len(due))]).astype(np.int32))
            total[due] += 1
            mine[due] += 1
            max_samples -= len(due)
        return np.concatenate(rounds)

    def most_now(self, state: AllocationState) -> int:
        """Any number: what arms get in one tick does not depend on one another."""
        return NO_BOUND

    def is_done(self, state: AllocationState) -> bool:
        """Only a cap ends it by itself."""
        total = state.planned.sum(axis=0)
        is_open = ~state.is_excluded | (total == 0)
        return self.max_samples is not None and not bool((total[is_open] < self.max_samples).any())


def visits_after(past: Sequence[PastRound], num_problems: int) -> Visits:
    """The keys that earlier rounds leave, the oldest round first.

    Every round's order is found again from the keys before it, so that nothing but the counts has to be kept.
    """
    visits = Visits.none(num_problems)
    for number, round_ in enumerate(past, 1):
        order = visit_order(visits, round_.seed)
        visited = order[round_.scored[order] > 0]
        total, right = int(round_.scored.sum()), int(round_.correct.sum())
        # in whole numbers: as floats, 70 right of 100 would be 48 new keys and not 49
        updated = visited[: len(visited) * right**2 // total**2 if total else 0]
        visits.last[updated] = number
        visits.win_rate[updated] = round_.correct[updated] / round_.scored[updated]
    return visits


def visit_order(visits: Visits, seed: int) -> np.ndarray:
    """Problems by last visit, then by win rate, then by chance, shape [problems]."""
    by_chance = np.random.default_rng([seed]).permutation(len(visits.last))
    return np.lexsort((by_chance, visits.win_rate, visits.last))
