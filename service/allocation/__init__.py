"""Allocation strategies: who gets the next FLOPs. The registry is a dict literal.

A strategy is one frozen dataclass whose fields are its configuration and whose two methods read an `AllocationState`.
It sees answers and declared cheap checks, never the checker used for reporting.
"""

from collections.abc import Callable

from service.allocation.state import AllocationState, Strategy
from service.allocation.uniform import Uniform
from service.allocation.until_correct import UntilCorrect
from service.errors import UnknownName
from service.jobs import JobSpec

STRATEGIES: dict[str, Callable[[JobSpec, int], Strategy]] = {
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
    return STRATEGIES[spec.allocation.strategy](spec, num_problems)


__all__ = ["STRATEGIES", "AllocationState", "Strategy", "strategy_for"]
