"""Imports: jobs whose samples come from files. One task, from submission to the files' rows.

Consumes what `heard` makes of what dispatchers say; produces the task, its plan once the files are read, usage and a
line for people. Invariant: an import spends nothing. Its account has a limit of zero, and what its samples once cost
stands in their rows and parts, never in the ledger or among what this cluster used.
"""

import dataclasses

import numpy as np

from service.jobs import Phase
from service.planner.draft import Draft
from service.planner.plan import JobView, StateChange
from service.receipts import Receipt
from service.tasks import Task, count_samples, to_runs
from service.wording import plural
from service.work import TaskKind


def advance_import(draft: Draft, job: JobView) -> None:
    """Creates the task of a new import; closes one whose rows are committed."""
    if job.next_order == 0:
        order = draft.new_task_order(job.id)
        draft.put_task(
            Task(
                id=f"{job.id}-{order}",
                job_id=job.id,
                kind=TaskKind.import_,
                order=order,
                model=job.spec.models[0],
                arm=job.spec.models[0],
                created_at=draft.now,
            )
        )
        draft.change_job(job.id, phase=Phase.running)
    elif job.closing is None and not draft.job_tasks(job.id, TaskKind.import_):
        draft.change_job(job.id, closing="plan complete")


def commit_import(draft: Draft, task: Task, receipt: Receipt) -> None:
    """Takes a part of an import: its samples are the plan, and its cost is nobody's here."""
    job = draft.jobs[task.job_id]
    if receipt.indices is None:
        raise ValueError(f"import task {task.id}: a receipt without indices")
    planned = to_runs(receipt.indices)
    runs = planned if task.runs is None else np.concatenate([task.runs, planned])
    draft.put_task(dataclasses.replace(task, runs=runs, num_planned=count_samples(runs)))
    draft.change_state(StateChange(job_id=job.id, arm=0, planned=planned))
    draft.record_usage(task, "useful", dataclasses.replace(receipt.usage, **_NOT_SPENT))
    draft.change_job(
        job.id,
        num_samples=job.num_samples + receipt.rows,
        num_errors=job.num_errors + receipt.usage.errors,
    )
    if receipt.part == 0:
        draft.event(job.id, "imported", _words(receipt.facts))


_NOT_SPENT = {
    "flops": 0.0,
    "flops_paper": 0.0,
    "truncated_flops": 0.0,
    "truncated_flops_paper": 0.0,
    "nano_usd": 0.0,
    "truncated_nano_usd": 0.0,
}


def _words(facts: dict[str, float]) -> str:
    rows, unmatched, empty, repeats = (int(facts.get(name, 0)) for name in ("rows", "unmatched", "empty", "repeats"))
    words = [plural(rows, "row")]
    words += [f"{plural(unmatched, 'row')} of no problem left out"] if unmatched else []
    words += [f"{plural(empty, 'row')} without a completion"] if empty else []
    words += (
        [f"{plural(repeats, 'row')} with a completion that another sample of the problem has too"] if repeats else []
    )
    return ", ".join(words)
