"""Selections and finetunes: one task each, from submission to the end. Comparisons are in `comparisons.py`.

Consumes what hosts say about the tasks of artifacts; produces task moves, parts, usage, checkpoints in the catalogue,
submissions and phases. A finetune commits its checkpoints one by one, so an attempt that is lost costs what came after
the last of them, and the next one goes on from there.
"""

import dataclasses
import os
from datetime import timedelta

from service.artifacts import ArtifactKind, checkpoint_model
from service.cluster import Acknowledge, AttemptReport, AttemptState, HostKind, HostState, Stop, StopMode
from service.jobs import Desired, Phase
from service.planner.comparisons import advance_comparison
from service.planner.draft import Draft
from service.planner.heard import Heard, hear
from service.planner.plan import ArtifactView
from service.planner.submit import attempt_dir
from service.receipts import Receipt
from service.tasks import MAX_FAILED, MAX_LOST, Task, TaskState, move
from service.work import AttemptSpec, FinetuneWork, SelectWork, TaskKind


def fold_artifacts(draft: Draft) -> None:
    """Brings tasks of artifacts up to date with their hosts' last reports."""
    for task in list(draft.tasks.values()):
        artifact = draft.artifacts.get(task.job_id)
        if artifact is None or not task.state.is_in_flight:
            continue
        heard = hear(draft, task)
        if isinstance(heard, AttemptReport):
            _fold_report(draft, artifact, task, heard)
        elif heard is Heard.gone:
            _fold_loss(draft, artifact, task)
        elif heard is Heard.unsent:
            draft.submit(str(task.host), _attempt(draft, artifact, task))


def advance_artifacts(draft: Draft) -> None:
    """Creates, leases and stops their tasks, and ends artifacts that have nothing left to do."""
    for artifact in list(draft.artifacts.values()):
        if artifact.kind.has_children:
            advance_comparison(draft, artifact)
            continue
        tasks = draft.job_tasks(artifact.id)
        is_aborting = artifact.desired is Desired.cancel or artifact.error is not None
        should_run = artifact.desired is Desired.run and not is_aborting and not draft.seen.is_draining
        if not artifact.has_task and should_run:
            _create(draft, artifact)
        for task in tasks:
            if task.state is TaskState.pending and is_aborting:
                draft.put_task(move(task, TaskState.cancelled))
            elif task.state is TaskState.pending and should_run:
                _lease(draft, artifact, task)
            elif task.state.is_in_flight and not should_run:
                _stop(draft, artifact, task, is_aborting=is_aborting)
        draft.change_artifact(artifact.id, phase=_phase(draft, artifact))


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
    if task.not_before is not None and task.not_before > draft.now:
        return
    kind = HostKind.trainer if artifact.kind is ArtifactKind.finetune else HostKind.dispatcher
    # a trainer takes one student at a time; a dispatcher queues what it cannot run at once
    limit = 1 if kind is HostKind.trainer else draft.options.scores_in_flight
    for host in draft.living_hosts(kind):
        if host.state is HostState.ready and not host.is_stopping and len(draft.tasks_on(host.name)) < limit:
            task = draft.put_task(move(task, TaskState.submitted, host=host.name, submitted_at=draft.now, error=None))
            draft.submit(host.name, _attempt(draft, artifact, task))
            return
    waited_s = (draft.now - (task.not_before or task.created_at or draft.now)).total_seconds()
    if task.error is None and waited_s > draft.options.wait_event_s:
        # `error` remembers that it was said, until the task is leased
        draft.put_task(dataclasses.replace(task, error=f"waits for a {kind}"))
        draft.event(
            artifact.id, "waiting", f"{task.id} has waited over {draft.options.wait_event_s:.0f} s for a {kind}"
        )


def _attempt(draft: Draft, artifact: ArtifactView, task: Task) -> AttemptSpec:
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


def _stop(draft: Draft, artifact: ArtifactView, task: Task, *, is_aborting: bool) -> None:
    """Ends an attempt. A leaving controller lets a selection finish: it takes seconds, and cannot be taken up again."""
    if is_aborting or artifact.kind is ArtifactKind.finetune:
        mode = StopMode.abort if is_aborting else StopMode.finish
        draft.stop(str(task.host), Stop(attempt_id=task.attempt_id, mode=mode))


def _fold_report(draft: Draft, artifact: ArtifactView, task: Task, report: AttemptReport) -> None:
    if task.state is TaskState.submitted:
        task = draft.put_task(move(task, TaskState.running))
    task = _commit_all(draft, artifact, task, report.receipts)
    host, attempt_id, num_parts = str(task.host), task.attempt_id, task.num_parts
    if report.state is AttemptState.running:
        if report.receipts:
            draft.acknowledge(host, Acknowledge(attempt_id=attempt_id, num_parts=num_parts))
        return
    draft.acknowledge(host, Acknowledge(attempt_id=attempt_id, num_parts=num_parts, is_forgotten=True))
    is_dropped = _is_dropped(draft.artifacts[artifact.id])
    if report.state is AttemptState.succeeded:
        draft.put_task(move(task, TaskState.succeeded))
    elif report.state is AttemptState.stopped:
        draft.put_task(move(task, TaskState.cancelled if is_dropped else TaskState.pending))
    else:
        error = report.error or "failed without a message"
        num_failed = task.num_failed + 1
        if report.is_retriable and num_failed < MAX_FAILED and not is_dropped:
            not_before = draft.now + timedelta(seconds=draft.options.retry_s)
            draft.put_task(move(task, TaskState.pending, num_failed=num_failed, not_before=not_before))
            draft.event(artifact.id, "task_retried", f"{task.id}: {error}")
        else:
            draft.put_task(move(task, TaskState.failed, num_failed=num_failed, error=error))
            _fail(draft, artifact.id, error)


def _fold_loss(draft: Draft, artifact: ArtifactView, task: Task) -> None:
    task = _commit_all(draft, artifact, task, draft.seen.salvaged.get(task.attempt_id, ()))
    host = draft.hosts.get(str(task.host))
    reason = (host.error if host else None) or f"host {task.host} is gone"
    task = draft.put_task(move(task, TaskState.lost, error=reason, num_lost=task.num_lost + 1))
    draft.event(artifact.id, "task_lost", f"{task.attempt_id}: {reason}")
    if _is_dropped(artifact):
        draft.put_task(move(task, TaskState.cancelled))
    elif task.num_lost >= MAX_LOST:
        draft.put_task(move(task, TaskState.failed))
        _fail(draft, artifact.id, f"lost {task.num_lost} attempts, the last one because {reason}")
    else:
        draft.put_task(move(task, TaskState.pending))


def _commit_all(draft: Draft, artifact: ArtifactView, task: Task, receipts: tuple[Receipt, ...]) -> Task:
    for receipt in receipts:
        if receipt.part != task.num_parts:
            continue
        draft.commit_part(task, receipt)
        draft.record_usage(task, "useful", receipt.usage)
        draft.change_artifact(artifact.id, last_part_path=receipt.path)
        if isinstance(artifact.work, FinetuneWork):
            _register(draft, artifact, artifact.work, receipt)
        task = draft.put_task(dataclasses.replace(task, num_parts=receipt.part + 1))
    return task


def _register(draft: Draft, artifact: ArtifactView, work: FinetuneWork, receipt: Receipt) -> None:
    step = int(receipt.facts["step"])
    checkpoint = checkpoint_model(work.base, artifact.id, step=step, path=receipt.path, sha256=receipt.sha256)
    draft.register_model(checkpoint)
    draft.event(artifact.id, "checkpoint", f"{checkpoint.name}: loss {receipt.facts['loss']:.4g}")


def _fail(draft: Draft, artifact_id: str, error: str) -> None:
    draft.change_artifact(artifact_id, error=error)
    draft.event(artifact_id, "job_failing", error)


def _is_dropped(artifact: ArtifactView) -> bool:
    return artifact.desired is Desired.cancel or artifact.error is not None


def _phase(draft: Draft, artifact: ArtifactView) -> Phase:
    artifact = draft.artifacts[artifact.id]
    tasks = draft.job_tasks(artifact.id)
    if not tasks and artifact.error is not None:
        return Phase.failed
    if not tasks and artifact.desired is Desired.cancel:
        return Phase.cancelled
    if artifact.desired is Desired.cancel or artifact.error is not None:
        return Phase.cancelling
    if artifact.desired is Desired.pause:
        return Phase.pausing if any(task.state.is_in_flight for task in tasks) else Phase.paused
    if not tasks:
        return Phase.succeeded if artifact.has_task else Phase.queued
    has_begun = any(task.state.is_in_flight or task.attempt > 1 for task in tasks)
    return Phase.running if has_begun else Phase.queued
