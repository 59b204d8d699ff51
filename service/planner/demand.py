"""Which work waits for which hosts, from jobs, artifacts and their tasks."""

from service.artifacts import ArtifactKind
from service.jobs import Desired
from service.planner.draft import Draft
from service.planner.plan import ArtifactView, JobView
from service.tasks import Task, TaskState
from service.work import TaskKind


def wanted_pools(draft: Draft) -> list[str]:
    """Pools with work: those with tasks first, for others may be waiting for them; then those of the oldest job."""
    wanted: list[str] = []
    for job in draft.jobs.values():
        for spec in job.models:
            if spec.pool in draft.pools and spec.pool not in wanted and wants_engine(draft, job, spec.name):
                wanted.append(spec.pool)
    generates = [task for task in draft.tasks.values() if task.kind is TaskKind.generate]
    busy = {pool_of(draft, task) for task in generates if not task.state.is_terminal}
    return sorted(wanted, key=lambda pool: pool not in busy)


def wants_engine(draft: Draft, job: JobView, model: str) -> bool:
    """Whether the job has samples of the model to draw, or may come to have some."""
    if job.error is not None or job.desired is not Desired.run or job.spec.imported is not None:
        return False
    has_tasks = any(task.model == model for task in draft.job_tasks(job.id, TaskKind.generate))
    return has_tasks or job.closing is None


def pending_pools(draft: Draft) -> list[str]:
    """Wanted pools that have tasks which no engine is at, in the order of `wanted_pools`."""
    running = {job.id for job in draft.jobs.values() if job.desired is Desired.run}
    generates = [task for task in draft.tasks.values() if task.kind is TaskKind.generate and task.job_id in running]
    pending = {pool_of(draft, task) for task in generates if task.state is TaskState.pending}
    return [pool for pool in wanted_pools(draft) if pool in pending]


def pool_of(draft: Draft, task: Task) -> str:
    """Name of the pool whose engines serve the task."""
    job = draft.jobs.get(task.job_id)
    specs = () if job is None else job.models
    return next((spec.pool for spec in specs if spec.name == task.model), task.model)


def waiting_finetunes(draft: Draft) -> list[ArtifactView]:
    """Finetunes with work for a trainer, whether one is at it or not; oldest first."""
    return [
        artifact
        for artifact in draft.artifacts.values()
        if artifact.kind is ArtifactKind.finetune
        and artifact.desired is Desired.run
        and not artifact.is_ending
        and draft.job_tasks(artifact.id)
    ]


def pending_finetunes(draft: Draft) -> list[Task]:
    """Tasks of finetunes that no trainer is at."""
    tasks = [task for artifact in waiting_finetunes(draft) for task in draft.job_tasks(artifact.id)]
    return [task for task in tasks if task.state is TaskState.pending]
