"""How hosts are doing: who is ready, dead, stuck or slow to load, and what follows for the work that waits for them.

Consumes the observation; produces the record of every host, and ends those that will not get on. An engine or trainer
that does not start fails the work that waits for it after some tries; a dispatcher is tried for ever, for all work
needs one.
"""

import dataclasses
import re

from service.cluster import HostKind, HostReport, HostState
from service.planner.demand import wants_engine
from service.planner.draft import Draft
from service.planner.failing import fail_job
from service.planner.meters import read_host
from service.planner.plan import HostView

MAX_LOAD_FAILURES = 6
"""Load failures in a row, by weight, that fail the jobs which wait for the engine."""
WEIGHT_OF_ERROR = 3
"""An engine that says why it failed counts three: the second one rules out a passing fault. One that merely vanished
while loading (killed, preempted, its node gone) counts one."""
LOAD_LIMIT_S = 1800.0
"""An engine that is still loading after this long has failed to load, though it answers [s]. Hundreds of gigabytes
from a slow disk take minutes."""
START_LIMIT_S = 120.0
"""An engine or trainer that nobody has heard of for this long after it was asked for has no room on the cluster:
somebody else takes what the planner knows as free [s]. A process starts in seconds, with a new environment in tens."""
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
        idle_since = None if draft.tasks_on(host.name) else (host.idle_since or draft.now)
        is_ready = report.state is HostState.ready
        view = dataclasses.replace(
            host,
            state=report.state,
            # a host that gets on has no error: what it once waited for must not pass for the cause of its death
            error=report.error if report.state is HostState.failed else host.error if host.is_stopping else None,
            # a new controller has heard nothing yet of hosts that have long had a process
            pid=host.pid if report.pid is None else report.pid,
            node=host.node if report.node is None else report.node,
            load_s=None if report.state is HostState.loading else report.load_s,
            has_been_ready=host.has_been_ready or is_ready,
            ready_at=host.ready_at or (draft.now if is_ready else None),
            idle_since=idle_since,
        )
        draft.hosts[host.name] = read_host(draft, host, view, report)
        _name_unstarted(draft, host)
        if is_ready and not host.has_been_ready and host.model in draft.pools:
            pool = draft.pools[host.model]
            draft.pools[host.model] = dataclasses.replace(pool, failures=0, load_s=report.load_s)
            draft.event(None, "engine_ready", f"{host.name} loaded in {report.load_s or 0.0:.1f} s")
        is_hung = report.state is HostState.unreachable or host.name in draft.seen.stuck_hosts
        if is_hung:
            _end_hung(draft, draft.hosts[host.name], was_unreachable=host.state is HostState.unreachable)
        elif report.state is HostState.loading and (report.load_s or 0.0) > LOAD_LIMIT_S:
            _end_slow(draft, draft.hosts[host.name])
        elif host.is_stopping:
            draft.stop_host(host.name)  # again: the first order may have died with a controller


def has_not_started(draft: Draft, host: HostView) -> bool:
    """Whether an engine or trainer waits for a process of its own longer than one takes to start."""
    is_waiting = host.state is HostState.starting and host.pid is None and host.kind is not HostKind.dispatcher
    return is_waiting and (draft.now - host.created_at).total_seconds() >= START_LIMIT_S


def _name_unstarted(draft: Draft, before: HostView) -> None:
    """Says once of a host that it does not start: its meters remember until when that was not so."""
    host = draft.hosts[before.name]
    if has_not_started(draft, host) and before.held_s < START_LIMIT_S <= host.held_s:
        needs = f"{host.gpus} GPUs" if host.gpus else "a process"
        draft.event(
            None,
            "host_waits",
            f"{host.name} has not started for {START_LIMIT_S:.0f} s: the cluster has no room for {needs} of it, though "
            "nobody here takes that; it gives way to what waits, and is tried for as long as nothing does",
        )


def _end_slow(draft: Draft, host: HostView) -> None:
    error = f"the engine was still loading after {LOAD_LIMIT_S:.0f} s"
    if host.error is None:
        draft.event(None, "host_ended", f"{host.name}: {error}")
    draft.hosts[host.name] = dataclasses.replace(host, error=error)
    draft.stop_host(host.name, is_forced=True)


def _end_hung(draft: Draft, host: HostView, *, was_unreachable: bool) -> None:
    is_stuck = host.name in draft.seen.stuck_hosts
    reason = "makes no tokens" if is_stuck else "does not answer"
    # the end of its process may take many ticks, and people are told once
    if host.error is None and (is_stuck or not was_unreachable):
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
    view = dataclasses.replace(host, state=HostState.dead, error=error, ended_at=ended_at)
    draft.hosts[host.name] = read_host(draft, host, view, report)
    if not is_resting:
        draft.forget_host(host.name)
    if is_wanted_end or host.state is HostState.dead:
        return
    draft.event(None, "host_lost", f"{host.name}: {error or 'its process is gone'}")
    if pauses and (failures := num_tries(host.name)) >= DISPATCHER_FAILURES_NAMED:
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
            if any(spec.pool == host.model and wants_engine(draft, job, spec.name) for spec in job.models):
                fail_job(draft, job.id, f"engine for {host.model} does not load: {error or 'no message'}")


def failed_starts(draft: Draft, kind: HostKind) -> list[HostView]:
    """Dispatchers or trainers whose end this tick learns of and that were never ready, those with most tries first."""
    ended = [host for host in draft.hosts.values() if host.kind is kind and host.ended_at == draft.now]
    return sorted((host for host in ended if not host.has_been_ready), key=lambda host: -num_tries(host.name))


def next_name(draft: Draft, prefix: str, failed: list[HostView]) -> str:
    """A name for the next dispatcher or trainer. It keeps the count of those that did not start across restarts."""
    suffix = f"-try-{num_tries(failed[0].name) + 1}" if failed else ""
    return f"{prefix}-{draft.num_hosts_ever + 1}{suffix}"


def num_tries(name: str) -> int:
    """How many of its kind in a row this one is, if none of them started; see `next_name`."""
    found = re.fullmatch(r"[a-z]+-\d+-try-(\d+)", name)
    return int(found[1]) if found else 1


def _pause_s(name: str) -> float:
    return min(LONGEST_RETRY_PAUSE_S, 2.0 ** num_tries(name))
