"""Turns a task into the attempt a host runs.

Pure: the same task gives the same attempt, so sending one twice is harmless.
"""

import os

from service.planner.options import Options
from service.planner.plan import JobView, Prepared
from service.tasks import Task
from service.work import AttemptSpec, GenerateWork, ImportWork, PrepareWork, ScoreWork, TaskKind


def attempt_spec(task: Task, job: JobView, options: Options) -> AttemptSpec:
    """The task's current attempt, complete with paths.

    Raises:
        ValueError: a score task without a shard, a generate task without runs, or a task of another kind.
    """
    return AttemptSpec(
        attempt_id=task.attempt_id,
        job_id=job.id,
        kind=task.kind,
        work=_work(task, job, options),
        out_dir=attempt_dir(options.data_dir, job.id, task.attempt_id),
    )


def attempt_dir(data_dir: str, job_id: str, attempt_id: str) -> str:
    """The only directory the attempt writes to."""
    return os.path.join(job_dir(data_dir, job_id), "attempts", attempt_id)


def job_dir(data_dir: str, job_id: str) -> str:
    """Everything a job has on storage."""
    return os.path.join(data_dir, "jobs", job_id)


def manifest_path(data_dir: str, job_id: str) -> str:
    """Where a job's manifest lies."""
    return os.path.join(job_dir(data_dir, job_id), "manifest.json")


def _work(task: Task, job: JobView, options: Options) -> PrepareWork | GenerateWork | ImportWork | ScoreWork:
    spec, arm, model = job.spec, job.spec.arm(task.arm), job.model_of(task.arm)
    match task.kind:
        case TaskKind.prepare:
            return PrepareWork(
                model=model,
                problems_path=job.problems_path,
                num_problems=job.num_problems,
                prompt=arm.prompt,
                sampling=arm.sampling.resolved_for(model.sampling),
                seed=spec.seed,
            )
        case TaskKind.generate:
            runs = task.runs if task.remaining is None else task.remaining
            if runs is None:
                raise ValueError(f"task {task.id}: generate without runs")
            return GenerateWork(
                model=model,
                prepared_path=job.prompts_of(task.arm).path,
                sampling=arm.sampling.resolved_for(model.sampling),
                currency=job.account.currency,
                runs=runs,
                seed=spec.seed,
                flush_s=_flush_s(task, job, options),
                refused=_refused(job.prompts_of(task.arm)),
                arm=arm.name,
            )
        case TaskKind.import_:
            if spec.imported is None:
                raise ValueError(f"task {task.id}: import for a job that draws its samples")
            return ImportWork(
                spec=spec.imported,
                paths=job.import_paths,
                model=model,
                problems_path=job.problems_path,
                num_problems=job.num_problems,
                prompt=arm.prompt,
                sampling=arm.sampling.resolved_for(model.sampling),
            )
        case TaskKind.score:
            if task.source is None:
                raise ValueError(f"task {task.id}: score without a shard")
            return ScoreWork(
                model=task.model,
                shard_path=task.source.path,
                shard_sha256=task.source.sha256,
                problems_path=job.problems_path,
                scorers=spec.scorers,
                tags=arm.prompt.reasoning_tags,
            )
        case TaskKind.select | TaskKind.finetune:
            raise ValueError(f"task {task.id}: a {task.kind} task belongs to no generation job")


def _refused(prepared: Prepared) -> tuple[int, ...]:
    return () if prepared.excluded is None else tuple(prepared.excluded[:, 0].tolist())


def _flush_s(task: Task, job: JobView, options: Options) -> float:
    """Seconds between parts. Depends on what is stored, so that an attempt sent twice is the same attempt."""
    if not job.spec.allocation.is_even or task.submitted_at is None:
        return options.adaptive_flush_s
    age_s = (task.submitted_at - job.created_at).total_seconds()
    return min(options.flush_s, max(options.adaptive_flush_s, age_s / 10))
