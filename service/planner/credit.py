"""Who gets how much credit, and when the budget is spent.

Credit goes to a job's attempts in the order of their tasks. A finished sample cost less than its worst case, and an
attempt that has nothing more to draw has no use for the rest: once little of the budget is left, such credit is called
back (it is voided only when the host echoes the lower number). When the next sample in order cannot be paid, all that
later attempts hold but do not use comes back. When nothing is in flight any more and the sample still does not fit, the
job closes: it never skips to a cheaper sample, which would bias the data.
"""

import dataclasses

from service import wording
from service.cluster import AttemptReport, Grant, HostState
from service.currency import from_amount, stated, to_amount
from service.jobs import Desired
from service.ledger import TransferKind
from service.planner.attempts import is_over
from service.planner.draft import Draft
from service.planner.plan import JobView
from service.tasks import Task, TaskState
from service.work import TaskKind

SLACK = 0.125
"""Less credit than this share of what an attempt has in flight is not worth calling back: that costs a ledger row."""
MIN_SLICE_MS = 250
"""Least device time that is granted at once at the end of a budget [device-ms]: two exchanges of a host."""


def grant_credit(draft: Draft) -> None:
    """Grants, calls back and closes, job by job."""
    for job in list(draft.jobs.values()):
        attempts = _running_attempts(draft, job)
        attempts = [(_void_returned(draft, task, report), report) for task, report in attempts]
        if job.closing == "budget spent":
            _send_final(draft, attempts)
        elif job.desired is Desired.run and not is_over(job) and not draft.seen.is_draining:
            _grant_in_order(draft, job, attempts)
            _call_back_unwanted(draft, job, attempts)


def _running_attempts(draft: Draft, job: JobView) -> list[tuple[Task, AttemptReport]]:
    found: list[tuple[Task, AttemptReport]] = []
    for task in draft.job_tasks(job.id, TaskKind.generate):
        host = draft.report(task.host)
        if task.state is TaskState.running and host is not None and host.state is not HostState.dead:
            found += [(task, report) for report in host.attempts if report.attempt_id == task.attempt_id]
    return found


def _void_returned(draft: Draft, task: Task, report: AttemptReport) -> Task:
    """Gives back what the host says it no longer holds, and repeats a grant it has not heard."""
    currency = draft.account(task.job_id).currency
    if report.grant_version < task.grant_version:
        draft.grant(
            str(task.host),
            Grant(
                attempt_id=task.attempt_id,
                version=task.grant_version,
                credit=from_amount(currency, task.credit),
                is_final=task.is_final_sent,
            ),
        )
        return task
    held = max(to_amount(currency, report.credit_held), task.settled)
    if held >= task.credit:
        return task
    version = task.grant_version + 1
    draft.transfer(task, TransferKind.void, number=version, amount=task.credit - held)
    return _grant(draft, dataclasses.replace(task, credit=held), version)


def _grant_in_order(draft: Draft, job: JobView, attempts: list[tuple[Task, AttemptReport]]) -> None:
    currency = job.account.currency
    busy_hosts = {task.host for task, report in attempts if report.inflight_worst > 0.0}
    for position, (task, report) in enumerate(attempts):
        in_use = report.used + report.inflight_worst
        # What an idle engine's next sample lacks: before it has turned over, its host may want no more than that. While
        # it is busy nothing is lacking yet, and the host's next attempt must not overtake the first.
        is_starved = report.next_worst > 0.0 and task.host not in busy_hosts
        deficit = to_amount(currency, in_use + report.next_worst) - task.credit if is_starved else 0
        busy_hosts.add(task.host)
        available = draft.account(job.id).available
        given = min(max(to_amount(currency, report.wanted) - task.credit, deficit), available)
        if currency.is_soft:
            # the end of a budget is shared out in ever smaller slices, so that engines stop at about the same time
            given = min(given, max(MIN_SLICE_MS, available // (2 * len(attempts))))
        # half a lookahead is kept as slack: topping up on every tick would write a ledger row a tick and engine
        is_low = from_amount(currency, task.credit) - in_use < (report.wanted - in_use) / 2
        if given > 0 and (is_low or deficit > 0):
            version = task.grant_version + 1
            draft.transfer(task, TransferKind.reserve, number=version, amount=given)
            _grant(draft, dataclasses.replace(task, credit=task.credit + given), version)
        elif deficit > 0 and report.grant_version == task.grant_version:
            _handle_shortage(draft, job, attempts, position)
            return


def _call_back_unwanted(draft: Draft, job: JobView, attempts: list[tuple[Task, AttemptReport]]) -> None:
    """Takes what nobody wants, once less is left than is in flight: before an engine lacks it, not after."""
    currency = job.account.currency
    in_flight = sum(report.inflight_worst for _, report in attempts)
    if draft.account(job.id).available >= to_amount(currency, in_flight):
        return
    for task, report in attempts:
        task = draft.tasks[task.id]
        unwanted = task.credit - to_amount(currency, report.wanted)
        if report.grant_version == task.grant_version and unwanted > to_amount(currency, SLACK * report.inflight_worst):
            _call_back(draft, task, keep=report.wanted)


def _handle_shortage(draft: Draft, job: JobView, attempts: list[tuple[Task, AttemptReport]], position: int) -> None:
    """The first attempt in order that waits gets what later ones do not use; without any in flight the job closes."""
    currency = job.account.currency
    is_calling_back = False
    for task, report in attempts[position + 1 :]:
        task = draft.tasks[task.id]
        unused = from_amount(currency, task.credit) - report.used - report.inflight_worst
        if report.grant_version < task.grant_version:
            is_calling_back = True
        elif to_amount(currency, report.used + report.inflight_worst) < task.credit and unused > 0.0:
            _call_back(draft, task, keep=0.0)
            is_calling_back = True
    # one that holds credit and waits for none is about to draw: its weights may be on their way
    is_quiet = all(report.inflight_worst == 0.0 and not _can_go_on(report) for _, report in attempts)
    num_in_flight = sum(task.state.is_in_flight for task in draft.job_tasks(job.id, TaskKind.generate))
    if is_quiet and not is_calling_back and num_in_flight == len(attempts):
        # every credit has come back but the one of the attempt that waits
        waiting, report = attempts[position]
        left = from_amount(currency, draft.account(job.id).available + draft.tasks[waiting.id].credit) - report.used
        draft.change_job(job.id, closing="budget spent")
        if currency.is_soft:
            draft.event(job.id, "budget_spent", "its device time is used up; what ran was finished")
            _send_final(draft, attempts)
            return
        draft.event(
            job.id,
            "budget_spent",
            f"the next sample may cost {wording.amount(stated(currency, report.next_worst), currency)}; "
            f"left: {wording.amount(stated(currency, left), currency)}",
        )
        _send_final(draft, attempts)


def _call_back(draft: Draft, task: Task, *, keep: float) -> None:
    """Asks a host to hold no more than that, or than it uses; its echo says what it does hold."""
    version = task.grant_version + 1
    draft.put_task(dataclasses.replace(task, grant_version=version))
    draft.grant(str(task.host), Grant(attempt_id=task.attempt_id, version=version, credit=keep))


def _can_go_on(report: AttemptReport) -> bool:
    return report.next_worst == 0.0 and report.credit_held > report.used


def _send_final(draft: Draft, attempts: list[tuple[Task, AttemptReport]]) -> None:
    for task, _ in attempts:
        task = draft.tasks[task.id]
        if not task.is_final_sent:
            version = task.grant_version + 1
            _grant(draft, dataclasses.replace(task, is_final_sent=True), version)


def _grant(draft: Draft, task: Task, version: int) -> Task:
    currency = draft.account(task.job_id).currency
    task = draft.put_task(dataclasses.replace(task, grant_version=version))
    draft.grant(
        str(task.host),
        Grant(
            attempt_id=task.attempt_id,
            version=version,
            credit=from_amount(currency, task.credit),
            is_final=task.is_final_sent,
        ),
    )
    return task
