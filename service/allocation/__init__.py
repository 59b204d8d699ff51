"""Allocation strategies: who gets the next FLOPs. The registry is a dict literal.

A strategy is one frozen dataclass whose fields are its configuration and whose two methods read an `AllocationState`.
It sees answers and declared cheap checks, never the checker used for reporting.
"""

from collections.abc import Callable

from service.allocation.adastar import AdaStar, visits_after
from service.allocation.collect import Collect
from service.allocation.state import AllocationState, PastRound, Strategy
from service.allocation.uniform import Uniform
from service.allocation.until_correct import UntilCorrect
from service.errors import UnknownName
from service.jobs import JobSpec

STRATEGIES: dict[str, Callable[[JobSpec, int], Strategy]] = {
    "adastar": AdaStar.for_job,
    "uniform": Uniform.for_job,
    "until_correct": UntilCorrect.for_job,
}


def strategy_for(spec: JobSpec, num_problems: int) -> Strategy:
    """The configured strategy of a job.

    Raises:
        UnknownName: no such strategy.
        InvalidInput: a field that the strategy does not accept.
    """
    if spec.allocation.strategy not in STRATEGIES:
        raise UnknownName(kind="strategy", got=spec.allocation.strategy, allowed=STRATEGIES)
    strategy = STRATEGIES[spec.allocation.strategy](spec, num_problems)
    wanted = spec.allocation.collect
    return strategy if wanted is None else Collect(strategy=strategy, wanted=wanted)


__all__ = ["STRATEGIES", "AllocationState", "PastRound", "Strategy", "strategy_for", "visits_after"]
