"""Selections and finetunes: one task each, from submission to the end. Comparisons are in `comparisons.py`.

Consumes what `heard` makes of what hosts say about the tasks of artifacts; produces usage, checkpoints in the
catalogue, submissions and phases. A finetune commits its checkpoints one by one, so an attempt that is lost costs what
came after the last of them, and the next one goes on from there.
"""

import dataclasses
import os

from service.artifacts import ArtifactKind, checkpoint_model
from service.cluster import AttemptReport, AttemptState, HostKind, HostState, Stop, StopMode
from service.jobs import Desired, Phase
from service.planner.comparisons import advance_comparison
from service.planner.draft import Draft
from service.planner.failing import fail_artifact
from service.planner.heard import Meaning, end_attempt, fold, go_again, lose_attempt
from service.planner.leases import is_early, lease, name_waiting
from service.planner.meters import lost_time
from service.planner.plan import ArtifactView
from service.planner.submit import attempt_dir
from service.planner.turns import must_yield
from service.receipts import Receipt, Usage
from service.tasks import Task, TaskState, move
from service.work import AttemptSpec, FinetuneWork, SelectWork, TaskKind


def fold_artifacts(draft: Draft) -> None:
    """Brings tasks of artifacts up to date with their hosts' last reports."""
    fold(draft, draft.artifacts, Meaning(attempt=_attempt, commit=_commit, end=_end, lose=_lose))


def advance_artifacts(draft: Draft) -> None:
    """Creates, leases and stops their tasks, and ends artifacts that have nothing left to do."""
    for artifact in list(draft.artifacts.values()):
        if artifact.kind.has_children:
            advance_comparison(draft, artifact)
            continue
        tasks = draft.job_tasks(artifact.id)
        should_run = artifact.desired is Desired.run and not artifact.is_ending and not draft.seen.is_draining
        if not artifact.has_task and should_run:
            _create(draft, artifact)
        for task in tasks:
            if task.state is TaskState.pending and artifact.is_ending:
                draft.put_task(move(task, TaskState.cancelled))
            elif task.state is TaskState.pending and should_run:
                _lease(draft, artifact, task)
            elif task.state.is_in_flight and not should_run:
                _stop(draft, artifact, task)
        phase = _phase(draft, artifact)
        if phase is not artifact.phase:
            draft.change_artifact(artifact.id, phase=phase)


def _create(draft: Draft, artifact: ArtifactView) -> None:
    work = artifact.work
    draft.put_task(
        Task(
            id=f"{artifact.id}-0",
            job_id=artifact.id,
            kind=TaskKind.finetune if isinstance(work, FinetuneWork) else TaskKind.select,
            order=0,
            model=work.base.name if isinstance(work, FinetuneWork) else "",
            num_planned=work.training.steps if isinstance(work, FinetuneWork) else 0,
            created_at=draft.now,
        )
    )


def _lease(draft: Draft, artifact: ArtifactView, task: Task) -> None:
    if is_early(draft, task):
        return
    kind = HostKind.trainer if artifact.kind is ArtifactKind.finetune else HostKind.dispatcher
    # a trainer takes one student at a time; a dispatcher queues what it cannot run at once
    limit = 1 if kind is HostKind.trainer else draft.options.scores_in_flight
    for host in draft.staying_hosts(kind):
        is_taken = len(draft.tasks_on(host.name)) >= limit or must_yield(draft, host)
        if host.state is HostState.ready and not is_taken:
            lease(draft, task, host, _attempt)
            return
    name_waiting(draft, task, f"a {kind}")


def _attempt(draft: Draft, task: Task) -> AttemptSpec:
    artifact = draft.artifacts[task.job_id]
    work = artifact.work
    assert isinstance(work, FinetuneWork | SelectWork), "a comparison has no task"
    if isinstance(work, FinetuneWork) and artifact.last_part_path is not None:
        work = dataclasses.replace(work, resume_from=os.path.dirname(artifact.last_part_path))
    return AttemptSpec(
        attempt_id=task.attempt_id,
        job_id=artifact.id,
        kind=task.kind,
        work=work,
        out_dir=attempt_dir(draft.options.data_dir, artifact.id, task.attempt_id),
    )


def _stop(draft: Draft, artifact: ArtifactView, task: Task) -> None:
    """Ends an attempt. A leaving controller lets a selection finish: it takes seconds, and cannot be taken up again."""
    if artifact.is_ending or artifact.kind is ArtifactKind.finetune:
        mode = StopMode.abort if artifact.is_ending else StopMode.finish
        draft.stop(str(task.host), Stop(attempt_id=task.attempt_id, mode=mode))


def _commit(draft: Draft, task: Task, receipt: Receipt) -> None:
    artifact = draft.change_artifact(task.job_id, last_part_path=receipt.path)
    draft.record_usage(task, "useful", receipt.usage)
    if isinstance(artifact.work, FinetuneWork):
        step = int(receipt.facts["step"])
        base, path, sha256 = artifact.work.base, receipt.path, receipt.sha256
        checkpoint = checkpoint_model(base, artifact.id, step=step, path=path, sha256=sha256)
        draft.register_model(checkpoint)
        draft.event(artifact.id, "checkpoint", f"{checkpoint.name}: loss {receipt.facts['loss']:.4g}")


def _end(draft: Draft, task: Task, report: AttemptReport) -> None:
    if report.wasted != Usage():
        # loading its model is part of a run that goes well; of one that is made again it is waste, with the steps
        outcome = "useful" if report.state is AttemptState.succeeded else "dropped"
        draft.record_usage(task, outcome, report.wasted)
    error = end_attempt(draft, task, report, is_dropped=draft.artifacts[task.job_id].is_ending)
    if error is not None:
        fail_artifact(draft, task.job_id, error)


def _lose(draft: Draft, task: Task) -> None:
    if (time := lost_time(draft, task)) != Usage():
        draft.record_usage(task, "lost", time)
    task = lose_attempt(draft, task, num_lost=task.num_lost + 1)
    error = go_again(draft, task, is_dropped=draft.artifacts[task.job_id].is_ending)
    if error is not None:
        fail_artifact(draft, task.job_id, error)


def _phase(draft: Draft, artifact: ArtifactView) -> Phase:
    tasks = draft.job_tasks(artifact.id)
    if not tasks and artifact.error is not None:
        return Phase.failed
    if not tasks and artifact.desired is Desired.cancel:
        return Phase.cancelled
    if artifact.is_ending:
        return Phase.cancelling
    if artifact.desired is Desired.pause:
        return Phase.pausing if any(task.state.is_in_flight for task in tasks) else Phase.paused
    if not tasks:
        return Phase.succeeded if artifact.has_task else Phase.queued
    has_begun = any(task.state.is_in_flight or task.attempt > 1 for task in tasks)
    return Phase.running if has_begun else Phase.queued
