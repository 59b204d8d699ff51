"""Sample a problem until it has enough unique correct solutions, or its cap is reached.

The rule of DART-Math's uniform sampling (arXiv:2407.13690); with a target of one it is reset-and-discard
(arXiv:2601.21522). Feedback arrives late and out of order: a problem never has more samples outstanding than
solutions missing, so that no FLOP is spent on a problem that is already solved by what is in flight.
"""

from dataclasses import dataclass

import numpy as np

from service.allocation.state import NO_BOUND, AllocationState, Runs, empty_runs
from service.errors import InvalidInput
from service.jobs import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class UntilCorrect:
    """Solved problems leave; the others go on, fewest samples first.

    Args:
        seed: orders problems with equally many samples.
        target: unique correct solutions wanted per problem, >= 1.
        max_samples: most samples for one problem over all arms, or None.
    """

    seed: int
    target: int
    max_samples: int | None
    is_adaptive: bool = True
    is_cascade: bool = True

    @classmethod
    def for_job(cls, spec: JobSpec, num_problems: int) -> "UntilCorrect":
        """Reads the job.

        Raises:
            InvalidInput: target_correct or max_samples below one, or no cap with a budget that cannot end the job.
        """
        allocation = spec.allocation
        if allocation.target_correct < 1:
            raise InvalidInput(f"allocation.target_correct: got {allocation.target_correct}, allowed: >= 1")
        if allocation.max_samples is not None and allocation.max_samples < allocation.target_correct:
            raise InvalidInput(
                f"allocation.max_samples: got {allocation.max_samples}, allowed: at least target_correct "
                f"({allocation.target_correct})"
            )
        return cls(seed=spec.seed, target=allocation.target_correct, max_samples=allocation.max_samples)

    def next_runs(self, state: AllocationState, *, arm: int, max_samples: int) -> Runs:
        """Open problems in order of samples so far; arms take turns at each, sample by sample, the first one first."""
        total = state.planned.sum(axis=0)
        room = np.minimum(self._missing(state) - state.outstanding(), self._cap_left(total))
        room = np.where(self._is_open(state, total) & (total % state.num_arms == arm), room, 0)
        room = np.where(state.is_excluded & (total == 0) & (arm == 0), 1, room)
        if state.num_arms > 1:
            room = np.minimum(room, 1)
        candidates = np.flatnonzero(room > 0)
        if not len(candidates) or max_samples <= 0:
            return empty_runs()
        tie_break = np.random.default_rng([self.seed, arm]).permutation(state.num_problems)
        candidates = candidates[np.lexsort((tie_break[candidates], total[candidates]))]
        counts = room[candidates]
        allowed = np.clip(max_samples - (np.cumsum(counts) - counts), 0, counts)
        first = state.planned[arm][candidates]
        runs = np.column_stack([candidates, first, allowed]).astype(np.int32)
        return runs[allowed > 0]

    def most_now(self, state: AllocationState) -> int:
        """Any number: what arms get in one tick does not depend on one another."""
        return NO_BOUND

    def is_done(self, state: AllocationState) -> bool:
        """Whether every problem is solved or capped."""
        total = state.planned.sum(axis=0)
        return not bool((self._is_open(state, total) & (self._cap_left(total) > 0)).any()) and not bool(
            (state.outstanding() > 0).any()
        )

    def _missing(self, state: AllocationState) -> np.ndarray:
        return self.target - state.num_unique

    def _is_open(self, state: AllocationState, total: np.ndarray) -> np.ndarray:
        return (state.num_unique < self.target) & (~state.is_excluded | (total == 0))

    def _cap_left(self, total: np.ndarray) -> np.ndarray:
        return np.full_like(total, NO_BOUND) if self.max_samples is None else self.max_samples - total
