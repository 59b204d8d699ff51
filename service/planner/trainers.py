"""Trainers: processes that hold the training libraries and take one student after the other.

One finetune starts in seconds on a trainer that is warm and in half a minute on one that is not, so a trainer stays
for a while after its last. Consumes waiting finetunes and places on the cluster; starts and ends trainer hosts.
"""

from service.cluster import HostKind, HostSpec
from service.planner.demand import waiting_finetunes
from service.planner.draft import Draft
from service.planner.failing import fail_artifact
from service.planner.health import MAX_LOAD_FAILURES, failed_starts, next_name, num_tries
from service.planner.places import free_places, has_gpus
from service.planner.plan import HostView
from service.planner.pools import stop_resting

TRAINER_IDLE_S = 300.0
"""A trainer without work is ended after this long; a comparison's next student comes within it."""
MAX_TRAINER_STARTS = 3
"""Trainers in a row that may die before they are ready where the last one says why: that does not change by trying.
Those that merely vanish (killed, preempted, their node gone) may be as many as engines (`MAX_LOAD_FAILURES`)."""


def scale_trainers(draft: Draft) -> None:
    """Starts a trainer while finetunes want one, ends those that have rested, fails finetunes that no trainer takes."""
    waiting = waiting_finetunes(draft)
    failed = failed_starts(draft, HostKind.trainer)
    if draft.seen.is_draining:
        stop_resting(draft, HostKind.trainer)
    elif not waiting:
        for host in draft.staying_hosts(HostKind.trainer):
            if draft.rested_s(host) > TRAINER_IDLE_S:
                draft.stop_host(host.name)
    elif failed and num_tries(failed[0].name) >= (MAX_TRAINER_STARTS if _reason(failed) else MAX_LOAD_FAILURES):
        reason = _reason(failed) or "its process is gone"
        for artifact in waiting:
            fail_artifact(draft, artifact.id, f"no trainer starts: {reason}")
    else:
        _start_missing(draft, len(waiting), failed)


def _reason(failed: list[HostView]) -> str | None:
    return next((host.error for host in failed if host.error), None)


def _start_missing(draft: Draft, num_waiting: int, failed: list[HostView]) -> None:
    staying = draft.staying_hosts(HostKind.trainer)
    missing = min(num_waiting, _most_trainers(draft)) - len(staying)
    gpus = 1.0 if has_gpus(draft) else 0.0
    if None in draft.granted:
        draft.num_reserved -= 1
    places = free_places(draft) if has_gpus(draft) else missing
    for _ in range(min(missing, places)):
        name = next_name(draft, "train", failed)
        draft.start_host(HostSpec(name=name, kind=HostKind.trainer, num_cpus=0.5, num_gpus=gpus))


def _most_trainers(draft: Draft) -> int:
    """One on a machine without GPUs, whose cores the engines and scorers share; else one a GPU."""
    return int(sum(node.num_gpus for node in draft.seen.observation.nodes)) if has_gpus(draft) else 1
