"""Places for engines and trainers: how many there are, and who takes them.

A place is a GPU, or a logical CPU core where there is no GPU; an operator may allow fewer on each node. There is never
more than one engine on a GPU: each takes the share of its memory that its options name, and nobody checks that two
such shares fit.
"""

from service.cluster import HostKind
from service.models import ModelSpec
from service.planner.draft import Draft
from service.planner.plan import HostView


def num_places(draft: Draft) -> int:
    """Places on the cluster, at least one."""
    limit = draft.options.places_per_node
    on_gpus = has_gpus(draft)
    found = [int(node.num_gpus if on_gpus else node.num_cpus) for node in draft.seen.observation.nodes]
    return max(1, sum(number if limit is None else min(number, limit) for number in found))


def free_places(draft: Draft) -> int:
    """Places that nobody takes and that are kept for nobody.

    A host that was told to leave takes its place until it is gone.
    """
    taken = sum(places_of(draft, host) for host in place_holders(draft))
    return num_places(draft) - taken - draft.num_reserved


def has_gpus(draft: Draft) -> bool:
    """Whether engines run on GPUs."""
    return any(node.num_gpus >= 1 for node in draft.seen.observation.nodes)


def place_holders(draft: Draft) -> list[HostView]:
    """Living hosts that take places. Trainers take none where there are no GPUs: they share the cores."""
    trainers = draft.living_hosts(HostKind.trainer) if has_gpus(draft) else []
    return [*draft.living_hosts(HostKind.generator), *trainers]


def places_of(draft: Draft, host: HostView) -> int:
    """Places that a host takes."""
    return 1 if host.model is None else places_taken(draft, host.model)


def places_taken(draft: Draft, pool: str) -> int:
    """Places one engine of the pool takes: as many GPUs as it is spread over, or one core; elsewhere none here."""
    spec = model_spec(draft, pool)
    if spec is not None and spec.endpoint is not None:
        return 0
    return spec.engine.tensor_parallel_size if spec is not None and has_gpus(draft) else 1


def model_spec(draft: Draft, pool: str) -> ModelSpec | None:
    """What the pool's engines load: the model itself, though the jobs may name its checkpoints alone."""
    known = [*(spec for job in draft.jobs.values() for spec in job.models), *draft.snapshot.kept_models]
    return next((spec for spec in known if spec.name == pool), None)
