"""Meters of hosts and attempts: where device time went, kept so that it outlives a controller.

Consumes what hosts report; changes the meters in the records of living hosts and of tasks in flight. A meter that runs
is written every `METER_S`, so ticks stay as cheap as they were; what ends is read for the last time as it ends. Of a
process that is gone, what came after its last word is not known: up to `METER_S` of its work counts as idle.
"""

import dataclasses

from service.cluster import AttemptReport, AttemptState, HostReport
from service.devices import NO_DEVICES, ONE_CORE, Devices
from service.planner.draft import Draft
from service.planner.plan import HostView
from service.receipts import Usage
from service.tasks import Task
from service.work import TaskKind

METER_S = 10.0


def read_host(draft: Draft, before: HostView, host: HostView, report: HostReport | None) -> HostView:
    """The host with its meters as of now, if they are due.

    Args:
        before: the record that the tick began with.
    """
    held_s = (draft.now - host.created_at).total_seconds()
    is_first_ready = host.has_been_ready and not before.has_been_ready
    if held_s - before.held_s < METER_S and host.state is before.state and not is_first_ready:
        return host
    # what died before a new controller heard of it has meters of 0 there
    said = HostReport(state=host.state) if report is None else report
    return dataclasses.replace(
        host,
        held_s=held_s,
        start_s=before.start_s if before.has_been_ready else held_s,
        busy_s=max(before.busy_s, said.busy_s),
        swap_s=max(before.swap_s, said.swap_s),
        num_swaps=max(before.num_swaps, said.num_swaps),
    )


def read_attempt(draft: Draft, task: Task, report: AttemptReport) -> Task:
    """The task with the time of its attempt as of now, if it is due or the task changes anyway."""
    # a receipt that is known already comes again until its acknowledgement has arrived
    changes = report.state is not AttemptState.running or any(r.part >= task.num_parts for r in report.receipts)
    is_due = changes or report.busy_s - task.busy_s >= METER_S
    return draft.put_task(dataclasses.replace(task, busy_s=report.busy_s)) if is_due else task


def lost_time(draft: Draft, task: Task) -> Usage:
    """Time of an attempt whose process is gone that is in none of its parts, as far as it was heard of."""
    return Usage.of_time(max(0.0, task.busy_s - task.written_s), devices_of(draft, task))


def devices_of(draft: Draft, task: Task) -> Devices:
    """What the task's host holds; a core where it is not known any more, or the task itself holds one there."""
    job = draft.jobs.get(task.job_id)
    if task.kind is TaskKind.generate and job is not None and job.model_of(task.arm).endpoint is not None:
        return NO_DEVICES
    host = draft.hosts.get(str(task.host))
    return host.devices if host is not None and host.devices.count else ONE_CORE
