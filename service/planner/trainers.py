"""Trainers: processes that hold the training libraries and take one student after the other.

One finetune starts in seconds on a trainer that is warm and in half a minute on one that is not, so a trainer stays
for a while after its last. Consumes waiting finetunes and places on the cluster; starts and ends trainer hosts.
"""

import re

from service.artifacts import ArtifactKind
from service.cluster import HostKind, HostSpec, HostState
from service.jobs import Desired
from service.planner.draft import Draft
from service.planner.plan import HostView
from service.planner.pools import free_places, has_gpus, make_room

TRAINER_IDLE_S = 300.0
"""A trainer without work is ended after this long; a comparison's next student comes within it."""
MAX_TRAINER_STARTS = 3
"""Trainers in a row that may die before they are ready; the reason does not change by trying."""


def scale_trainers(draft: Draft) -> None:
    """Starts a trainer while finetunes want one, ends those that have rested, fails finetunes that no trainer takes."""
    waiting = [
        artifact
        for artifact in draft.artifacts.values()
        if artifact.kind is ArtifactKind.finetune
        and artifact.desired is Desired.run
        and artifact.error is None
        and draft.job_tasks(artifact.id)
    ]
    alive = [host for host in draft.living_hosts(HostKind.trainer) if not host.is_stopping]
    if draft.seen.is_draining or not waiting:
        for host in alive:
            if draft.seen.is_draining or _has_rested(draft, host):
                _end(draft, host)
        return
    dead = [host for host in draft.hosts.values() if host.kind is HostKind.trainer and host.state is HostState.dead]
    failures = max((_tries(host.name) for host in dead if not host.has_been_ready), default=0)
    if failures >= MAX_TRAINER_STARTS:
        reason = next((host.error for host in dead if host.error), None) or "its process is gone"
        for artifact in waiting:
            draft.change_artifact(artifact.id, error=f"no trainer starts: {reason}")
        return
    missing = min(len(waiting), _most_trainers(draft)) - len(alive)
    places = free_places(draft) if has_gpus(draft) else missing
    for _ in range(min(missing, places)):
        _start(draft, failures)
    if not alive and places <= 0:
        make_room(draft, None)


def _most_trainers(draft: Draft) -> int:
    """One on a machine without GPUs, whose cores the engines and scorers share; else one a GPU."""
    return int(sum(node.num_gpus for node in draft.seen.observation.nodes)) if has_gpus(draft) else 1


def _start(draft: Draft, failures: int) -> None:
    name = f"train-{draft.num_hosts_ever + 1}" + (f"-try-{failures + 1}" if failures else "")
    view = HostView(
        name=name,
        kind=HostKind.trainer,
        model=None,
        state=HostState.starting,
        is_stopping=False,
        has_been_ready=False,
        created_at=draft.now,
    )
    gpus = 1.0 if has_gpus(draft) else 0.0
    draft.start_host(view, HostSpec(name=name, kind=HostKind.trainer, num_cpus=0.5, num_gpus=gpus))


def _end(draft: Draft, host: HostView) -> None:
    # one that was never ready has no work to finish, and may never get that far
    if not draft.tasks_on(host.name):
        draft.stop_host(host.name, is_forced=not host.has_been_ready)


def _has_rested(draft: Draft, host: HostView) -> bool:
    return host.idle_since is not None and (draft.now - host.idle_since).total_seconds() > TRAINER_IDLE_S


def _tries(name: str) -> int:
    """How many trainers in a row this one is, if none of them started: its name keeps the count across restarts."""
    found = re.fullmatch(r"train-\d+-try-(\d+)", name)
    return int(found[1]) if found else 1
