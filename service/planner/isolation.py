"""Finds the prompt an engine dies of, so that one poisonous problem costs one problem and not the job.

A task whose engines died is taken apart by problems, each half gets an engine to itself, and so on until one problem
is left: that one is refused from then on, and its samples become error rows. Takes log2(problems) engines at most for
an engine that says why it died. One that dies without a word may as well have been preempted: it takes `MAX_LOST`
deaths until a task is taken apart, one more for each half, and two for a problem that is alone.
"""

import dataclasses

import numpy as np

from service.planner.draft import Draft
from service.planner.plan import StateChange
from service.tasks import MAX_FAILED, MAX_LOST, Task, TaskState, count_samples, move
from service.work import Runs, TaskKind


def take_apart(draft: Draft, task: Task) -> bool:
    """Splits a pending task that engines died of, or refuses its only problem; False if it may run as it is."""
    runs = task.runs if task.remaining is None else task.remaining
    if not task.is_deadly or runs is None:
        return False
    problems = np.unique(runs[:, 0])
    if len(problems) <= 1:
        return _refuse(draft, task, problems)
    is_low = np.isin(runs[:, 0], problems[: len(problems) // 2])
    # the halves inherit the suspicion: another death and they are taken apart in turn
    for half in (runs[is_low], runs[~is_low]):
        _new_half(draft, task, half)
    draft.put_task(move(task, TaskState.cancelled, error="taken apart: its engines died"))
    num_died = task.num_failed + task.num_lost
    draft.event(task.job_id, "task_split", f"{task.id}: {num_died} engines died, {len(problems)} problems halved")
    return True


def _new_half(draft: Draft, task: Task, runs: Runs) -> None:
    order = draft.new_task_order(task.job_id)
    is_silent = task.num_failed < MAX_FAILED
    is_alone = bool((runs[:, 0] == runs[0, 0]).all())
    draft.put_task(
        Task(
            id=f"{task.job_id}-{order}",
            job_id=task.job_id,
            kind=TaskKind.generate,
            order=order,
            model=task.model,
            arm=task.arm,
            runs=runs,
            num_planned=count_samples(runs),
            num_failed=0 if is_silent else MAX_FAILED - 1,
            num_lost=MAX_LOST - (2 if is_alone else 1) if is_silent else 0,
            created_at=draft.now,
        )
    )


def _refuse(draft: Draft, task: Task, problems: np.ndarray) -> bool:
    """Refuses the task's only problem. False once that is committed: then it runs, and makes error rows."""
    job = draft.jobs[task.job_id]
    prepared = job.prompts_of(task.arm)
    known = np.zeros((0, 2), dtype=np.int32) if prepared.excluded is None else prepared.excluded
    if not len(problems) or problems[0] in known[:, 0]:
        return False
    refused = np.array([[problems[0], 0]], dtype=np.int32)
    draft.record_prepared(dataclasses.replace(prepared, excluded=np.concatenate([known, refused])))
    draft.change_state(StateChange(job_id=job.id, arm=job.spec.arm_index(task.arm), excluded=refused))
    draft.event(job.id, "problem_refused", f"problem index {problems[0]}: engines of {task.model} die on it")
    return True
