"""How jobs and artifacts begin to fail: the first reason stays, what they have in flight is aborted in the same tick.

They end once nothing of theirs is left (`work.end_jobs`, `artifacts.advance_artifacts`).
"""

from service.planner.draft import Draft

HOPELESS_ERRORS = 100
"""Samples of an arm, all of them errors, that fail its job: nothing that its model still costs will buy anything."""


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


def fail_hopeless_jobs(draft: Draft) -> None:
    """Fails jobs of which an arm has drawn nothing but errors: a server that answers nonsense is paid all the same.

    Engines that die of problems make error rows of all samples of those, and `isolation` bounds what they cost.
    """
    for job in list(draft.jobs.values()):
        state = draft.states.get(job.id)
        if state is None or job.closing is not None or job.num_engine_deaths:
            continue
        # one row of each excluded problem is an error that says nothing of the model
        errors = state.num_errors_by_arm - state.is_excluded.sum()
        for arm, drawn, failed in zip(job.spec.all_arms, state.num_drawn_by_arm, errors, strict=True):
            if not drawn and failed >= HOPELESS_ERRORS:
                fail_job(
                    draft,
                    job.id,
                    f"all {failed} samples of {arm.name} are errors, at most {HOPELESS_ERRORS - 1} may be before the "
                    f"first that is none; what they say: isoflop samples {job.id} --verdict failed",
                )
                break
