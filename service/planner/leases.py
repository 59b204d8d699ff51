"""How a pending task gets to a host, the same for every task. Which host it is, `work` and `artifacts` say."""

import dataclasses
from collections.abc import Callable

from service.planner.draft import Draft
from service.planner.plan import HostView
from service.tasks import Task, TaskState, move
from service.work import AttemptSpec


def is_early(draft: Draft, task: Task) -> bool:
    """Whether the task rests after a failure."""
    return task.not_before is not None and task.not_before > draft.now


def lease(draft: Draft, task: Task, host: HostView, attempt: Callable[[Draft, Task], AttemptSpec]) -> None:
    """Gives a task to a host.

    Args:
        attempt: the task's current attempt, once it has a host.
    """
    task = draft.put_task(move(task, TaskState.submitted, host=host.name, submitted_at=draft.now, error=None))
    draft.submit(host.name, attempt(draft, task))


def name_waiting(draft: Draft, task: Task, what: str) -> None:
    """Says once of a task what it waits for; `error` remembers that it was said, until the task is leased."""
    since, said = task.not_before or task.created_at or draft.now, f"waits for {what}"
    if task.error != said and (draft.now - since).total_seconds() > draft.options.wait_event_s:
        draft.put_task(dataclasses.replace(task, error=said))
        draft.event(task.job_id, "waiting", f"{task.id} has waited over {draft.options.wait_event_s:.0f} s for {what}")
