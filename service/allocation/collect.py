"""A stop for any strategy: the job ends once it has collected so many right answers.

The stop of self-training, where a round needs as many examples as its training takes. Never more samples are
outstanding than answers are missing, so that what is in flight cannot overshoot.
"""

from dataclasses import dataclass

from service.allocation.state import AllocationState, Runs, Strategy, empty_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Goes by another strategy until there is enough.

    Args:
        strategy: says what comes next.
        wanted: right answers over all problems and arms, each counted as `AllocationSpec.counts` says, >= 1.
    """

    strategy: Strategy
    wanted: int

    @property
    def is_adaptive(self) -> bool:
        """Scores say when it is over."""
        return True

    @property
    def is_cascade(self) -> bool:
        """As the strategy says."""
        return self.strategy.is_cascade

    def next_runs(self, state: AllocationState, *, arm: int, max_samples: int) -> Runs:
        """What the strategy says, at most as many as answers are missing."""
        room = self.most_now(state)
        if room <= 0:
            return empty_runs()
        return self.strategy.next_runs(state, arm=arm, max_samples=min(max_samples, room))

    def most_now(self, state: AllocationState) -> int:
        """As many as answers are missing."""
        return self.wanted - state.num_counted - int(state.outstanding().sum())

    def is_done(self, state: AllocationState) -> bool:
        """Whether there is enough, or the strategy has nothing more to ask for."""
        return state.num_counted >= self.wanted or self.strategy.is_done(state)
