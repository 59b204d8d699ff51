"""Which hosts should exist: a dispatcher while there is work, engines where their models are wanted.

A pool is named after the model that its engines load, and serves every checkpoint of that model too
(`ModelSpec.pool`): what is said of pools here is said of all of them together.

The planner, not Ray, arbitrates: it counts engine places, lets pools that need the same place take turns, oldest job
first, and names work that has waited too long. A host name is used once; a restarted engine is a new host.
"""

import dataclasses
import re

from service.artifacts import ArtifactKind
from service.cluster import HostKind, HostReport, HostSpec, HostState
from service.jobs import Desired
from service.models import ModelSpec
from service.planner.attempts import fail_job
from service.planner.draft import Draft
from service.planner.plan import HostView, JobView, PoolView
from service.tasks import Task
from service.work import TaskKind

TURN_S = 3.0
"""An engine that has had no task for this long has nothing coming: tasks follow one another within a tick."""
MAX_LOAD_FAILURES = 6
"""Load failures in a row, by weight, that fail the jobs which wait for the engine."""
WEIGHT_OF_ERROR = 3
"""An engine that says why it failed counts three: the second one rules out a passing fault. One that merely vanished
while loading (killed, preempted, its node gone) counts one."""
LOAD_LIMIT_S = 1800.0
"""An engine that is still loading after this long has failed to load, though it answers [s]. Hundreds of gigabytes
from a slow disk take minutes."""
LONGEST_RETRY_PAUSE_S = 60.0
"""Between two dispatchers that do not start: 2 s after the first, twice that after each further one, up to this."""
DISPATCHER_FAILURES_NAMED = 3
"""Dispatchers in a row that did not start until people are told: by then it is no accident."""


def fold_hosts(draft: Draft) -> None:
    """Brings the record of every host up to date with what the cluster says."""
    for host in list(draft.hosts.values()):
        report = draft.report(host.name)
        if report is None or report.state is HostState.dead:
            _fold_death(draft, host, report)
            continue
        is_busy = any(task.host == host.name for task in draft.tasks.values() if task.state.is_in_flight)
        idle_since = None if is_busy else (host.idle_since or draft.now)
        is_ready = report.state is HostState.ready
        draft.hosts[host.name] = dataclasses.replace(
            host,
            state=report.state,
            # a host that gets on has no error: what it once waited for must not pass for the cause of its death
            error=report.error if report.state is HostState.failed else host.error if host.is_stopping else None,
            pid=report.pid,
            node=report.node,
            load_s=None if report.state is HostState.loading else report.load_s,
            has_been_ready=host.has_been_ready or is_ready,
            idle_since=idle_since,
        )
        if is_ready and not host.has_been_ready and host.model in draft.pools:
            draft.pools[host.model] = dataclasses.replace(draft.pools[host.model], failures=0)
            draft.event(None, "engine_ready", f"{host.name} loaded in {report.load_s or 0.0:.1f} s")
        is_hung = report.state is HostState.unreachable or host.name in draft.seen.stuck_hosts
        if is_hung:
            _end_hung(draft, draft.hosts[host.name])
        elif report.state is HostState.loading and (report.load_s or 0.0) > LOAD_LIMIT_S:
            _end_slow(draft, draft.hosts[host.name])
        elif host.is_stopping:
            _end(draft, host.name)  # again: the first order may have died with a controller


def _end(draft: Draft, name: str) -> None:
    """Ends a host in good order. One that was never ready has no work to finish, and may never get that far."""
    draft.stop_host(name, is_forced=not draft.hosts[name].has_been_ready)


def _end_slow(draft: Draft, host: HostView) -> None:
    error = f"the engine was still loading after {LOAD_LIMIT_S:.0f} s"
    if host.error is None:
        draft.event(None, "host_ended", f"{host.name}: {error}")
    draft.hosts[host.name] = dataclasses.replace(host, error=error)
    draft.stop_host(host.name, is_forced=True)


def _end_hung(draft: Draft, host: HostView) -> None:
    is_stuck = host.name in draft.seen.stuck_hosts
    reason = "makes no tokens" if is_stuck else "does not answer"
    if host.error is None:
        draft.event(None, "host_ended", f"{host.name} {reason}")
    # one that hangs while loading has failed to load; one that was ready is blamed only for making no tokens
    if is_stuck or not host.has_been_ready:
        draft.hosts[host.name] = dataclasses.replace(host, error=f"the engine {reason}")
    draft.stop_host(host.name, is_forced=True)


def _fold_death(draft: Draft, host: HostView, report: HostReport | None) -> None:
    error = (report.error if report else None) or host.error
    is_wanted_end = host.is_stopping and error is None
    # a dispatcher that did not start stays on the list for its pause, so that the next one waits for it
    pauses = host.kind is HostKind.dispatcher and not host.has_been_ready and not is_wanted_end
    is_resting = pauses and (draft.now - host.created_at).total_seconds() < _pause_s(host.name)
    ended_at = None if is_resting else draft.now
    draft.hosts[host.name] = dataclasses.replace(host, state=HostState.dead, error=error, ended_at=ended_at)
    if not is_resting:
        draft.forget_host(host.name)
    if is_wanted_end or host.state is HostState.dead:
        return
    draft.event(None, "host_lost", f"{host.name}: {error or 'its process is gone'}")
    if pauses and (failures := _tries(host.name)) >= DISPATCHER_FAILURES_NAMED:
        draft.event(
            None,
            "dispatcher_failing",
            f"{failures} dispatchers in a row did not start, the last one because {error or 'its process is gone'}; "
            f"nothing is prepared or scored; the next one starts within {_pause_s(host.name):.0f} s",
        )
    if host.has_been_ready or host.model not in draft.pools:
        return
    pool = draft.pools[host.model]
    failures = pool.failures + (WEIGHT_OF_ERROR if error else 1)
    draft.pools[host.model] = dataclasses.replace(pool, failures=failures)
    if failures >= MAX_LOAD_FAILURES:
        draft.pools[host.model] = dataclasses.replace(pool, failures=0)
        for job in list(draft.jobs.values()):
            if any(spec.pool == host.model and _wants_engine(draft, job, spec.name) for spec in job.models):
                fail_job(draft, job.id, f"engine for {host.model} does not load: {error or 'no message'}")


def scale_pools(draft: Draft) -> None:
    """Starts and stops hosts."""
    if draft.seen.is_draining:
        _stop_resting(draft)
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
        while len(_alive(draft, name)) < target and places >= _places_taken(draft, name):
            _start_engine(draft, name)
            places -= _places_taken(draft, name)
        if name in wanted and target > 0 and not _alive(draft, name):
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


def pool_of(draft: Draft, task: Task) -> str:
    """Name of the pool whose engines serve the task."""
    job = draft.jobs.get(task.job_id)
    specs = () if job is None else job.models
    return next((spec.pool for spec in specs if spec.name == task.model), task.model)


def _places_taken(draft: Draft, pool: str) -> int:
    """Places one engine of the pool takes: as many GPUs as it is spread over, or one core."""
    spec = _model_spec(draft, pool)
    return spec.engine.tensor_parallel_size if spec is not None and has_gpus(draft) else 1


def _stop_resting(draft: Draft) -> None:
    """A leaving controller ends generators that have handed everything back; its successor will not miss them."""
    for host in draft.living_hosts(HostKind.generator):
        if not host.is_stopping and not draft.tasks_on(host.name):
            _end(draft, host.name)


def wanted_pools(draft: Draft) -> list[str]:
    """Pools with work: those with tasks first, for others may be waiting for them; then those of the oldest job."""
    wanted: list[str] = []
    for job in draft.jobs.values():
        for spec in job.models:
            if spec.pool in draft.pools and spec.pool not in wanted and _wants_engine(draft, job, spec.name):
                wanted.append(spec.pool)
    generates = [task for task in draft.tasks.values() if task.kind is TaskKind.generate]
    busy = {pool_of(draft, task) for task in generates if not task.state.is_terminal}
    return sorted(wanted, key=lambda pool: pool not in busy)


def _wants_engine(draft: Draft, job: JobView, model: str) -> bool:
    if job.error is not None or job.desired is not Desired.run:
        return False
    has_tasks = any(task.model == model for task in draft.job_tasks(job.id, TaskKind.generate))
    return has_tasks or job.closing is None


def _alive(draft: Draft, pool: str) -> list[HostView]:
    return [host for host in draft.living_hosts(HostKind.generator, pool) if not host.is_stopping]


def _stop_surplus(draft: Draft, pool: PoolView, *, is_wanted: bool) -> None:
    alive = _alive(draft, pool.model)
    idle = [host for host in alive if host.idle_since is not None]
    surplus = len(alive) - pool.replicas
    for host in [*idle, *(host for host in alive if host not in idle)][: max(0, surplus)]:
        _end(draft, host.name)
    if is_wanted:
        return
    rested = [h for h in idle if h.idle_since and (draft.now - h.idle_since).total_seconds() > pool.idle_s]
    spare = len(_alive(draft, pool.model)) - min(pool.minimum, pool.replicas)
    for host in [host for host in rested if not draft.hosts[host.name].is_stopping][: max(0, spare)]:
        _end(draft, host.name)


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
    wanted = {*wanted_pools(draft), *([None] if wants_trainer(draft) else [])}
    for host in living:
        if host.idle_since is None or host.model == waiting or not host.has_been_ready:
            continue
        rested_s = (draft.now - host.idle_since).total_seconds()
        if host.model not in wanted or rested_s > TURN_S:
            draft.event(None, "turn_taken", f"{host.name} leaves so that {waiting or 'a trainer'} can load")
            _end(draft, host.name)
            return


def wants_trainer(draft: Draft) -> bool:
    """Whether a finetune has work for a trainer."""
    return any(
        artifact.kind is ArtifactKind.finetune
        and artifact.desired is Desired.run
        and artifact.error is None
        and draft.job_tasks(artifact.id)
        for artifact in draft.artifacts.values()
    )


def _start_engine(draft: Draft, pool: str) -> None:
    spec = _model_spec(draft, pool)
    if spec is None:
        return
    name = f"generate-{_slug(pool)}-{draft.num_hosts_ever + 1}"
    host = HostSpec(
        name=name,
        kind=HostKind.generator,
        model=spec,
        num_cpus=0.5,
        num_gpus=float(spec.engine.tensor_parallel_size) if has_gpus(draft) else 0.0,
    )
    draft.start_host(_new_view(draft, name, HostKind.generator, pool), host)


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
    ended = [host for host in draft.hosts.values() if host.kind is HostKind.dispatcher and host.ended_at == draft.now]
    failures = max((_tries(host.name) for host in ended if not host.has_been_ready), default=0)
    name = f"dispatch-{draft.num_hosts_ever + 1}" + (f"-try-{failures + 1}" if failures else "")
    view = _new_view(draft, name, HostKind.dispatcher, None)
    draft.start_host(view, HostSpec(name=name, kind=HostKind.dispatcher, num_cpus=0.01))


def _tries(name: str) -> int:
    """How many dispatchers in a row this one is, if none of them started: its name keeps the count across restarts."""
    found = re.fullmatch(r"dispatch-\d+-try-(\d+)", name)
    return int(found[1]) if found else 1


def _pause_s(name: str) -> float:
    return min(LONGEST_RETRY_PAUSE_S, 2.0 ** _tries(name))


def _new_view(draft: Draft, name: str, kind: HostKind, model: str | None) -> HostView:
    return HostView(
        name=name,
        kind=kind,
        model=model,
        state=HostState.starting,
        is_stopping=False,
        has_been_ready=False,
        created_at=draft.now,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-").lower()
