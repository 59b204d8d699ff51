"""Which hosts should exist: a dispatcher while there is work, engines where their models are wanted.

A pool is named after the model that its engines load, and serves every checkpoint of that model too
(`ModelSpec.pool`): what is said of pools here is said of all of them together.

The planner, not Ray, arbitrates: it counts engine places, lets pools that need the same place take turns, oldest job
first, and names work that has waited too long. A host name is used once; a restarted engine is a new host.
"""

import re

from service.cluster import HostKind, HostSpec, HostState
from service.models import ModelSpec
from service.planner.demand import waiting_finetunes, wanted_pools
from service.planner.draft import Draft
from service.planner.health import failed_starts, next_name
from service.planner.plan import PoolView

TURN_S = 3.0
"""An engine that has had no task for this long has nothing coming: tasks follow one another within a tick."""


def scale_pools(draft: Draft) -> None:
    """Starts and stops hosts."""
    if draft.seen.is_draining:
        stop_resting(draft, HostKind.generator)
        return
    _ensure_dispatcher(draft)
    wanted = wanted_pools(draft)
    for name in list(draft.pools):
        _stop_surplus(draft, draft.pools[name], is_wanted=name in wanted)
    places = free_places(draft)
    order = [*wanted, *(name for name, pool in draft.pools.items() if pool.minimum and name not in wanted)]
    for name in order:
        pool = draft.pools[name]
        target = pool.replicas if name in wanted else min(pool.minimum, pool.replicas)
        while len(draft.staying_hosts(HostKind.generator, name)) < target and places >= _places_taken(draft, name):
            _start_engine(draft, name)
            places -= _places_taken(draft, name)
        if name in wanted and target > 0 and not draft.staying_hosts(HostKind.generator, name):
            make_room(draft, name)


def num_places(draft: Draft) -> int:
    """Places for engines on the cluster: its GPUs where there are any, else its CPU cores, at least one."""
    nodes = draft.seen.observation.nodes
    if has_gpus(draft):
        return int(sum(node.num_gpus for node in nodes))
    return max(1, int(sum(node.num_cpus for node in nodes)))


def free_places(draft: Draft) -> int:
    """Places that no engine and no trainer takes. Trainers take none where there are no GPUs: they share the cores."""
    engines = sum(_places_taken(draft, str(host.model)) for host in draft.living_hosts(HostKind.generator))
    return num_places(draft) - engines - (len(draft.living_hosts(HostKind.trainer)) if has_gpus(draft) else 0)


def has_gpus(draft: Draft) -> bool:
    """Whether engines run on GPUs."""
    return any(node.num_gpus >= 1 for node in draft.seen.observation.nodes)


def _places_taken(draft: Draft, pool: str) -> int:
    """Places one engine of the pool takes: as many GPUs as it is spread over, or one core."""
    spec = _model_spec(draft, pool)
    return spec.engine.tensor_parallel_size if spec is not None and has_gpus(draft) else 1


def _stop_surplus(draft: Draft, pool: PoolView, *, is_wanted: bool) -> None:
    alive = draft.staying_hosts(HostKind.generator, pool.model)
    idle = [host for host in alive if host.idle_since is not None]
    surplus = len(alive) - pool.replicas
    for host in [*idle, *(host for host in alive if host not in idle)][: max(0, surplus)]:
        draft.stop_host(host.name)
    if is_wanted:
        return
    left = draft.staying_hosts(HostKind.generator, pool.model)
    rested = [host for host in left if draft.rested_s(host) > pool.idle_s]
    for host in rested[: max(0, len(left) - min(pool.minimum, pool.replicas))]:
        draft.stop_host(host.name)


def stop_resting(draft: Draft, kind: HostKind) -> None:
    """A leaving controller ends hosts that have handed everything back; its successor will not miss them."""
    for host in draft.staying_hosts(kind):
        if not draft.tasks_on(host.name):
            draft.stop_host(host.name)


def make_room(draft: Draft, waiting: str | None) -> None:
    """A wanted pool has no engine, or finetunes no trainer, and no place is left: an idle host of another sort leaves.

    One that is wanted too leaves once it has rested a while: what wants it may be waiting for the other one.

    Args:
        waiting: the pool, or None for a trainer.
    """
    living = draft.living_hosts(HostKind.generator)
    if has_gpus(draft):
        living += draft.living_hosts(HostKind.trainer)
    if any(host.is_stopping for host in living):
        return  # a place is about to be free
    wanted = {*wanted_pools(draft), *([None] if waiting_finetunes(draft) else [])}
    for host in living:
        if host.idle_since is None or host.model == waiting or not host.has_been_ready:
            continue
        if host.model not in wanted or draft.rested_s(host) > TURN_S:
            draft.event(None, "turn_taken", f"{host.name} leaves so that {waiting or 'a trainer'} can load")
            draft.stop_host(host.name)
            return


def _start_engine(draft: Draft, pool: str) -> None:
    spec = _model_spec(draft, pool)
    if spec is None:
        return
    name = f"generate-{_slug(pool)}-{draft.num_hosts_ever + 1}"
    num_gpus = float(spec.engine.tensor_parallel_size) if has_gpus(draft) else 0.0
    draft.start_host(HostSpec(name=name, kind=HostKind.generator, model=spec, num_cpus=0.5, num_gpus=num_gpus))


def _model_spec(draft: Draft, pool: str) -> ModelSpec | None:
    """What the pool's engines load: the model itself, though the jobs may name its checkpoints alone."""
    known = [*(spec for job in draft.jobs.values() for spec in job.models), *draft.snapshot.kept_models]
    return next((spec for spec in known if spec.name == pool), None)


def _ensure_dispatcher(draft: Draft) -> None:
    living = draft.living_hosts(HostKind.dispatcher)
    # a dead one on the list is resting after a failed start
    has_work = bool(draft.jobs or draft.artifacts)
    if not has_work or any(not host.is_stopping or host.state is HostState.dead for host in living):
        return
    name = next_name(draft, "dispatch", failed_starts(draft, HostKind.dispatcher))
    draft.start_host(HostSpec(name=name, kind=HostKind.dispatcher, num_cpus=0.01))


def _slug(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-").lower()
