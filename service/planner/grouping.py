"""How long an arm of a job may draw at a stretch when the job's models share an engine place.

Uniform sampling goes round by round, so that all arms have drawn equally often when the budget ends. On a place that
they share each round would cost a load, so an arm goes as far ahead as leaves enough for the others to catch up.
"""

import dataclasses

from service.allocation import Strategy
from service.allocation.uniform import Uniform
from service.cluster import HostKind
from service.planner.draft import Draft
from service.planner.plan import JobView


def grouped(draft: Draft, job: JobView, strategy: Strategy) -> Strategy:
    """The strategy, with long stretches if models of the job wait for the place of another.

    Only where the order changes nothing in the end: what other strategies draw depends on what came before.
    """
    has_engine = [bool(draft.staying_hosts(HostKind.generator, spec.pool)) for spec in job.models]
    if all(has_engine) or not isinstance(strategy, Uniform):
        return strategy
    return dataclasses.replace(strategy, is_grouped=True)
