"""Places for engines and trainers: how many there are, and who takes them.

A place is a GPU, or a logical CPU core where there is no GPU; an operator may allow fewer on each node. There is never
more than one engine on a GPU: each takes the share of its memory that its options name, and nobody checks that two
such shares fit. An engine over several GPUs needs them on one node.
"""

from dataclasses import dataclass

from service.cluster import HostKind, NodeStatus
from service.models import ModelSpec
from service.planner.draft import Draft
from service.planner.plan import HostView


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Places among which an engine can choose: those of a node, or all of them where it needs one alone.

    Args:
        free: that nobody takes and that are kept for nobody; fewer than none where a node was lost.
        leaving: of hosts that were told to leave; each takes its place until it is gone.
        holders: hosts that take the others.
    """

    free: int
    leaving: int
    holders: tuple[HostView, ...]


def num_places(draft: Draft) -> int:
    """Places on the cluster, at least one."""
    return max(1, sum(_places_on(draft, node) for node in draft.seen.observation.nodes))


def most_on_one_node(draft: Draft) -> int:
    """Places of the largest node, at least one: no engine can be spread over more."""
    return max([1, *(_places_on(draft, node) for node in draft.seen.observation.nodes)])


def free_places(draft: Draft, needed: int = 1) -> int:
    """Most places that are free for an engine that needs so many together."""
    return max((room.free for room in rooms(draft, needed)), default=0)


def rooms(draft: Draft, needed: int) -> list[Room]:
    """Where an engine that needs so many places may find them, the emptiest first."""
    nodes = draft.seen.observation.nodes
    holders = place_holders(draft)
    if needed <= 1 or len(nodes) <= 1:
        return [_room(draft, num_places(draft), holders)]
    known = {node.id for node in nodes}
    # until it is known where a host is, it may be anywhere
    astray = sum(places_of(draft, host) for host in holders if host.node not in known)
    found = [
        _room(draft, _places_on(draft, node) - astray, [host for host in holders if host.node == node.id])
        for node in nodes
    ]
    return sorted(found, key=lambda room: -(room.free + room.leaving))


def _room(draft: Draft, size: int, holders: list[HostView]) -> Room:
    leaving = sum(places_of(draft, host) for host in holders if host.is_stopping)
    staying = tuple(host for host in holders if not host.is_stopping)
    taken = leaving + sum(places_of(draft, host) for host in staying)
    return Room(free=size - taken - draft.num_reserved, leaving=leaving, holders=staying)


def _places_on(draft: Draft, node: NodeStatus) -> int:
    limit = draft.options.places_per_node
    number = int(node.num_gpus if has_gpus(draft) else node.num_cpus)
    return number if limit is None else min(number, limit)


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


def missing_places(draft: Draft, pool: str) -> str:
    """What keeps an engine of the pool from ever starting here, for people; nothing if it can."""
    needed, most = places_taken(draft, pool), most_on_one_node(draft)
    return f", which needs {needed} places on one node; the most that one has: {most}" if needed > most else ""


def model_spec(draft: Draft, pool: str) -> ModelSpec | None:
    """What the pool's engines load: the model itself, though the jobs may name its checkpoints alone."""
    known = [*(spec for job in draft.jobs.values() for spec in job.models), *draft.snapshot.kept_models]
    return next((spec for spec in known if spec.name == pool), None)
