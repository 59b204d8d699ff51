"""What hosts say of attempts, the same for every task: which receipts are new, what an end, a failure or a loss costs.

Consumes the observation; produces parts, task moves and acknowledgements. A report may be old or repeated: parts below
`num_parts` are known. What a receipt or an end means beyond that is for those whose tasks they are: `attempts` says it
for jobs, `artifacts` for selections and finetunes.
"""

import dataclasses
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from service.cluster import Acknowledge, AttemptReport, AttemptState, HostState
from service.planner.draft import Draft
from service.planner.meters import read_attempt
from service.receipts import Receipt
from service.tasks import MAX_FAILED, MAX_LOST, Task, TaskState, move
from service.work import AttemptSpec, TaskKind


class Heard(Enum):
    """What is known where there is no report of the attempt."""

    nothing = "nothing"
    """The host says nothing of it for now; it may still write."""
    unsent = "unsent"
    """The host lives and was never told of it."""
    gone = "gone"
    """No process has it any more and none will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What attempts mean to those whose tasks they are.

    Args:
        attempt: the current attempt of a task, to send it again.
        commit: does what a new part is worth; the part itself is committed already.
        end: moves the task of an attempt that its host says is over, with `end_attempt`.
        lose: moves the task of an attempt that nobody has any more, with `lose_attempt` and `go_again`.
    """

    attempt: Callable[[Draft, Task], AttemptSpec]
    commit: Callable[[Draft, Task, Receipt], None]
    end: Callable[[Draft, Task, AttemptReport], None]
    lose: Callable[[Draft, Task], None]


def fold(draft: Draft, owners: Container[str], meaning: Meaning) -> None:
    """Brings the owners' tasks in flight up to date with their hosts' last reports."""
    for task in list(draft.tasks.values()):
        if not task.state.is_in_flight or task.job_id not in owners:
            continue
        heard = _hear(draft, task)
        if isinstance(heard, AttemptReport):
            _fold_report(draft, task, heard, meaning)
        elif heard is Heard.gone:
            # what it left on storage is adopted
            salvaged = draft.seen.salvaged.get(task.attempt_id, ())
            meaning.lose(draft, _commit_all(draft, task, salvaged, meaning))
        elif heard is Heard.unsent:
            draft.submit(str(task.host), meaning.attempt(draft, task))


def _hear(draft: Draft, task: Task) -> AttemptReport | Heard:
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


def _fold_report(draft: Draft, task: Task, report: AttemptReport, meaning: Meaning) -> None:
    if task.state is TaskState.submitted:
        task = draft.put_task(move(task, TaskState.running))
    task = read_attempt(draft, task, report)
    task = _commit_all(draft, task, report.receipts, meaning)
    is_over = report.state is not AttemptState.running
    if is_over:
        meaning.end(draft, task, report)
    if is_over or report.receipts:
        known = Acknowledge(attempt_id=task.attempt_id, num_parts=task.num_parts, is_forgotten=is_over)
        draft.acknowledge(str(task.host), known)


def _commit_all(draft: Draft, task: Task, receipts: tuple[Receipt, ...], meaning: Meaning) -> Task:
    for receipt in receipts:
        if receipt.part == task.num_parts:
            draft.commit_part(task, receipt)
            meaning.commit(draft, task, receipt)
            task = draft.tasks[task.id]
            written_s = task.written_s + receipt.usage.busy_s
            task = draft.put_task(dataclasses.replace(task, num_parts=receipt.part + 1, written_s=written_s))
    return task


def end_attempt(draft: Draft, task: Task, report: AttemptReport, *, is_dropped: bool) -> str | None:
    """Moves a task whose attempt is over: done, to go again, or not to go again.

    Args:
        is_dropped: what is handed back is not wanted any more.

    Returns:
        Why the task has failed, or None if it has not.
    """
    is_done = task.kind is TaskKind.generate and (report.returned is None or len(report.returned) == 0)
    if report.state is AttemptState.succeeded or (report.state is AttemptState.stopped and is_done):
        draft.put_task(move(task, TaskState.succeeded))
    elif report.state is AttemptState.stopped:
        draft.put_task(move(task, TaskState.cancelled if is_dropped else TaskState.pending))
    else:
        return _retry(draft, task, report, is_dropped=is_dropped)
    return None


def _retry(draft: Draft, task: Task, report: AttemptReport, *, is_dropped: bool) -> str | None:
    error, num_failed = report.error or "failed without a message", task.num_failed + 1
    if report.is_retriable and num_failed < MAX_FAILED and not is_dropped:
        not_before = draft.now + timedelta(seconds=draft.options.retry_s)
        draft.put_task(move(task, TaskState.pending, num_failed=num_failed, not_before=not_before, error=error))
        draft.event(task.job_id, "task_retried", f"{task.id}: {error}")
        return None
    draft.put_task(move(task, TaskState.failed, num_failed=num_failed, error=error))
    return error


def lose_attempt(draft: Draft, task: Task, **counts: int) -> Task:
    """Notes that the attempt is lost.

    Args:
        counts: the task's counters that this raises, with their new values.
    """
    host = draft.hosts.get(str(task.host))
    reason = (host.error if host else None) or f"host {task.host} is gone"
    draft.event(task.job_id, "task_lost", f"{task.attempt_id}: {reason}")
    return draft.put_task(move(task, TaskState.lost, error=reason, **counts))


def go_again(draft: Draft, task: Task, *, is_dropped: bool) -> str | None:
    """Moves a lost task: to go again, or not. One that generates goes on until it is taken apart (`isolation`).

    Returns:
        Why the task has failed, or None if it has not.
    """
    if is_dropped:
        draft.put_task(move(task, TaskState.cancelled))
    elif task.num_lost >= MAX_LOST and task.kind is not TaskKind.generate:
        draft.put_task(move(task, TaskState.failed))
        return f"lost {task.num_lost} attempts, the last one because {task.error}"
    else:
        draft.put_task(move(task, TaskState.pending))
    return None
