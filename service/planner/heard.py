"""What a host's last report says of a task in flight."""

from enum import Enum

from service.cluster import AttemptReport, HostState
from service.planner.draft import Draft
from service.tasks import Task, TaskState


class Heard(Enum):
    """What is known where there is no report of the attempt."""

    nothing = "nothing"
    """The host says nothing of it for now; it may still write."""
    unsent = "unsent"
    """The host lives and was never told of it."""
    gone = "gone"
    """No process has it any more and none will."""


def hear(draft: Draft, task: Task) -> AttemptReport | Heard:
    """The report of the task's current attempt, or why there is none."""
    host = draft.report(task.host)
    if host is None or host.state is HostState.dead:
        return Heard.gone
    if host.state in (HostState.starting, HostState.unreachable, HostState.failed):
        # It may still write; only a confirmed death frees the attempt. A host with attempts is `starting` to a new
        # controller that has not heard of it yet, so that its list of attempts says nothing.
        return Heard.nothing
    for report in host.attempts:
        if report.attempt_id == task.attempt_id:
            return report
    if task.state is TaskState.running:
        return Heard.gone  # the host lives but has forgotten the attempt: it will never report it again
    return Heard.nothing if task.attempt_id in draft.seen.recently_sent else Heard.unsent
