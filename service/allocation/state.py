"""What strategies know: per problem and arm, how much was planned and what came back.

The state is folded from committed plans and score deltas and can be rebuilt from them in any order of arrival:
counts are sums, and the unique solutions kept per problem are a set with at most `target` members. It is the only
mutable object of the control loop; the controller changes it after a commit, never before.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.receipts import ScoreDelta
from service.work import Indices, Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRound:
    """What an earlier job on the same problems has found.

    Args:
        seed: of that job.
        scored: samples by problem [problems].
        correct: those that counted as right [problems].
    """

    seed: int
    scored: npt.NDArray[np.int32]
    correct: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """Keys of problems in iterated self-training; see `adastar`.

    Args:
        last: round of the last visit that counts, from 1; 0 for never [problems].
        win_rate: share of right answers in it [problems].
    """

    last: npt.NDArray[np.int32]
    win_rate: npt.NDArray[np.float64]

    @classmethod
    def none(cls, num_problems: int) -> "Visits":
        """Before the first round."""
        return cls(last=np.zeros(num_problems, dtype=np.int32), win_rate=np.zeros(num_problems))


class AllocationState:
    """Counts of one job. Arrays have shape [arms, problems]; about 16 bytes a pair plus 8 per wanted solution.

    Args:
        num_arms: arms of the job, in the order of its document.
        num_problems: problems it samples.
        target: unique correct solutions remembered per problem.
        needs_steps: count a sample as correct only if its step check is valid too.
        visits: keys that earlier rounds of self-training left; None before the first.
    """

    def __init__(
        self,
        *,
        num_arms: int,
        num_problems: int,
        target: int = 1,
        needs_steps: bool = False,
        visits: Visits | None = None,
    ) -> None:
        shape = (num_arms, num_problems)
        self.num_arms, self.num_problems = shape
        self.planned = np.zeros(shape, dtype=np.int32)
        self.scored = np.zeros(shape, dtype=np.int32)
        self.correct = np.zeros(shape, dtype=np.int32)
        self.verified = np.zeros(shape, dtype=np.int32)
        self.is_excluded = np.zeros(num_problems, dtype=np.bool_)
        self.num_unique = np.zeros(num_problems, dtype=np.int32)
        self.num_planned_by_arm = np.zeros(num_arms, dtype=np.int64)
        self.num_drawn_by_arm = np.zeros(num_arms, dtype=np.int64)
        self.num_errors_by_arm = np.zeros(num_arms, dtype=np.int64)
        self.cost_by_arm = np.zeros(num_arms)
        self.num_counted = 0
        self.visits = visits or Visits.none(num_problems)
        self._needs_steps = needs_steps
        self._target = max(1, target)
        self._solutions = np.zeros((num_problems, self._target), dtype=np.uint64)

    def plan(self, arm: int, runs: Runs) -> None:
        """Counts samples that a committed task will draw."""
        np.add.at(self.planned[arm], runs[:, 0], runs[:, 2])
        self.num_planned_by_arm[arm] += int(runs[:, 2].sum())

    def spend(self, arm: int, num_rows: int, num_errors: int, cost: float) -> None:
        """Counts committed rows, those of them that stand for an error and cost nothing, and the cost of the others.

        Args:
            cost: in cost units of the job's budget.
        """
        self.num_drawn_by_arm[arm] += num_rows - num_errors
        self.num_errors_by_arm[arm] += num_errors
        self.cost_by_arm[arm] += cost

    def exclude(self, problems: Indices) -> None:
        """Takes problems out that cannot be sampled; their one error row is drawn all the same."""
        self.is_excluded[problems[:, 0]] = True

    def fold(self, arm: int, delta: ScoreDelta) -> None:
        """Adds what a scored shard says."""
        np.add.at(self.scored[arm], delta.problem, 1)
        np.add.at(self.correct[arm], delta.problem[delta.is_correct], 1)
        is_verified = delta.is_correct & (delta.steps == 1)
        np.add.at(self.verified[arm], delta.problem[is_verified], 1)
        counted = is_verified if self._needs_steps else delta.is_correct
        self.num_counted += int(counted.sum())
        self._remember(delta.problem[counted], delta.solution[counted])

    def outstanding(self) -> np.ndarray:
        """Samples planned but not scored yet, over all arms, shape [problems]."""
        return self.planned.sum(axis=0) - self.scored.sum(axis=0)

    def _remember(self, problems: np.ndarray, solutions: np.ndarray) -> None:
        wanted = self.num_unique[problems] < self._target
        for problem, solution in zip(problems[wanted].tolist(), solutions[wanted].tolist(), strict=True):
            known = self.num_unique[problem]
            if known < self._target and solution not in self._solutions[problem, :known]:
                self._solutions[problem, known] = solution
                self.num_unique[problem] = known + 1


class Strategy(Protocol):
    """Decides what to draw next. Deterministic given its configuration and the state."""

    def next_runs(self, state: AllocationState, *, arm: int, max_samples: int) -> Runs:
        """Samples to draw next with this arm, at most `max_samples`; empty when it must wait or is done."""
        ...

    def most_now(self, state: AllocationState) -> int:
        """Most samples to draw next with all arms together, for each is asked without knowing what others will get."""
        ...

    def is_done(self, state: AllocationState) -> bool:
        """Whether nothing more will ever be asked for, whatever the outstanding samples turn out to be."""
        ...

    @property
    def is_adaptive(self) -> bool:
        """Whether scores change what comes next, so that tasks must stay small."""
        ...

    @property
    def is_cascade(self) -> bool:
        """Whether the first arm may have all that is asked for, so that a cheap one goes before a dear one."""
        ...


NO_BOUND = 1 << 30
"""Samples, more than any task has."""


def empty_runs() -> Runs:
    """No samples."""
    return np.zeros((0, 3), dtype=np.int32)
