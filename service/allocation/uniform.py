"""The paper's baseline: every problem gets the same number of samples.

Samples go one index at a time over all problems, each round in its own seeded order, so that a budget which ends in
the middle of a round leaves a random subset of problems one sample short and not the last ones of the file.
"""

from dataclasses import dataclass

import numpy as np

from service.allocation.state import AllocationState, Runs, empty_runs
from service.currency import Currency
from service.jobs import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """One sample index after the other.

    Args:
        seed: orders each round.
        max_rounds: samples per problem and model, or None to go on until the budget ends.
    """

    seed: int
    max_rounds: int | None
    is_adaptive: bool = False

    @classmethod
    def for_job(cls, spec: JobSpec, num_problems: int) -> "Uniform":
        """Reads the job; a budget in samples ends after that many rounds."""
        rounds = None
        if spec.budget.currency is Currency.samples:
            rounds = -(-spec.budget.limit // (num_problems * len(spec.models)))
        return cls(seed=spec.seed, max_rounds=rounds)

    def next_runs(self, state: AllocationState, *, model: int, max_samples: int) -> Runs:
        """The next `max_samples` in order: the rest of the model's current round, then whole rounds.

        With several models, a model that is a whole round ahead of another waits for it, and gets one round at a time.
        """
        planned = state.planned[model].copy()
        rounds: list[Runs] = [empty_runs()]
        left = max_samples
        while left > 0 and len(open_problems := self._open(state, planned)):
            index = int(planned[open_problems].min())
            is_ahead = state.num_models > 1 and (len(rounds) > 1 or index > int(self._rounds(state).min()))
            if is_ahead or (self.max_rounds is not None and index >= self.max_rounds):
                break
            order = np.random.default_rng([self.seed, model, index]).permutation(state.num_problems)
            due = order[(planned[order] == index) & (~state.is_excluded[order] | (index == 0))][:left]
            planned[due] += 1
            left -= len(due)
            rounds.append(np.column_stack([due, np.full(len(due), index), np.ones(len(due))]).astype(np.int32))
        return np.concatenate(rounds)

    def is_done(self, state: AllocationState) -> bool:
        """Only a budget in samples ends by itself."""
        return self.max_rounds is not None and int(self._rounds(state).min()) >= self.max_rounds

    def _rounds(self, state: AllocationState) -> np.ndarray:
        """Whole rounds planned per model, shape [models]."""
        rounds = [
            int(planned[open_problems].min()) if len(open_problems := self._open(state, planned)) else 1 << 30
            for planned in state.planned
        ]
        return np.array(rounds)

    @staticmethod
    def _open(state: AllocationState, planned: np.ndarray) -> np.ndarray:
        """Problems that can still get samples: every valid one, and an excluded one until its error row is planned."""
        return np.flatnonzero(~state.is_excluded | (planned == 0))
