"""How jobs and artifacts begin to fail: the first reason stays, what they have in flight is aborted in the same tick.

They end once nothing of theirs is left (`work.end_jobs`, `artifacts.advance_artifacts`).
"""

from service.planner.draft import Draft


def fail_job(draft: Draft, job_id: str, error: str) -> None:
    """Marks a job as failing; its other attempts are aborted by `work.wind_down`."""
    if draft.jobs[job_id].error is None:
        draft.change_job(job_id, error=error, closing="failed")
        draft.event(job_id, "job_failing", error)


def fail_artifact(draft: Draft, artifact_id: str, error: str) -> None:
    """Marks an artifact as failing; its attempt or children are aborted by `artifacts.advance_artifacts`."""
    if draft.artifacts[artifact_id].error is None:
        draft.change_artifact(artifact_id, error=error)
        draft.event(artifact_id, "job_failing", error)
