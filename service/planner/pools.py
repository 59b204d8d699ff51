"""Which hosts should exist: a dispatcher while there is work, engines where their models are wanted.

A pool is named after the model that its engines load, and serves every checkpoint of that model too
(`ModelSpec.pool`): what is said of pools here is said of all of them together.

The planner, not Ray, arbitrates: it counts places (`places`) and lets those that need the same one take turns
(`turns`). What is left over goes to pools that want more engines or expect work, oldest job first. A host name is used
once; a restarted engine is a new host.
"""

import re

from service.cluster import HostKind, HostSpec, HostState
from service.planner.demand import wanted_pools
from service.planner.draft import Draft
from service.planner.health import failed_starts, next_name
from service.planner.places import free_places, has_gpus, model_spec, places_taken
from service.planner.plan import PoolView


def scale_pools(draft: Draft) -> None:
    """Starts and stops hosts."""
    if draft.seen.is_draining:
        stop_resting(draft, HostKind.generator)
        return
    _ensure_dispatcher(draft)
    wanted = wanted_pools(draft)
    for name in list(draft.pools):
        _stop_surplus(draft, draft.pools[name], is_wanted=name in wanted)
    for name in (name for name in wanted if name in draft.granted):
        draft.num_reserved -= places_taken(draft, name)
        _start_engine(draft, name)
    order = [*wanted, *(name for name, pool in draft.pools.items() if pool.minimum and name not in wanted)]
    for name in order:
        pool = draft.pools[name]
        target = pool.replicas if name in wanted else min(pool.minimum, pool.replicas)
        needed = places_taken(draft, name)
        while len(draft.staying_hosts(HostKind.generator, name)) < target and (
            not needed or free_places(draft, needed) >= needed
        ):
            _start_engine(draft, name)


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


def _start_engine(draft: Draft, pool: str) -> None:
    spec = model_spec(draft, pool)
    if spec is None:
        return
    name = f"generate-{_slug(pool)}-{draft.num_hosts_ever + 1}"
    is_here = spec.endpoint is None
    num_gpus = float(spec.engine.tensor_parallel_size) if has_gpus(draft) and is_here else 0.0
    num_cpus = 0.5 if is_here else 0.1
    draft.start_host(HostSpec(name=name, kind=HostKind.generator, model=spec, num_cpus=num_cpus, num_gpus=num_gpus))


def replace_inherited_dispatchers(draft: Draft) -> None:
    """Ends dispatchers of an earlier controller once what they run is done; others take what comes.

    Ray counts the tasks of a dispatcher to the controller that started it. Once that one is gone, Ray ends every
    process that is idle for a moment, and nearly each part to score waits for a new one and its imports: a job of 60
    small parts, drawn after its controller was killed, took 114 s on two cores in place of 19 s.
    """
    for host in draft.staying_hosts(HostKind.dispatcher):
        report = draft.report(host.name)
        is_inherited = report is not None and report.is_inherited and host.has_been_ready
        if is_inherited and not draft.seen.is_draining:
            draft.stop_host(host.name)


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
