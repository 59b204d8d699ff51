"""plan(snapshot, seen, states, now, options) -> Plan: pure and deterministic, the heart of the control loop.

The order inside a tick matters: hosts before attempts (a dead host loses its attempts), receipts before credit (a
settlement frees nothing but a void does), ended work before new work, phases last.
"""

from datetime import datetime

from service.allocation import AllocationState
from service.planner.artifacts import advance_artifacts, fold_artifacts
from service.planner.attempts import fold_reports
from service.planner.credit import grant_credit
from service.planner.draft import Draft
from service.planner.failing import fail_hopeless_jobs, fail_job
from service.planner.health import fold_hosts
from service.planner.options import Options
from service.planner.plan import Plan, Seen, Snapshot
from service.planner.pools import replace_inherited_dispatchers, scale_pools
from service.planner.trainers import scale_trainers
from service.planner.turns import take_turns
from service.planner.work import create_tasks, end_jobs, lease_tasks, wind_down


def plan(
    *, snapshot: Snapshot, seen: Seen, states: dict[str, AllocationState], now: datetime, options: Options
) -> Plan:
    """Everything to change and to order in this tick.

    Args:
        states: allocation state of every active job, as of the last commit; read only.
    """
    draft = Draft(snapshot=snapshot, seen=seen, states=states, now=now, options=options)
    fold_hosts(draft)
    fold_reports(draft)
    fold_artifacts(draft)
    for job_id, error in seen.broken_jobs.items():
        if job_id in draft.jobs:
            fail_job(draft, job_id, error)
    fail_hopeless_jobs(draft)
    for job_id, error in seen.manifest_errors.items():
        draft.event(job_id, "manifest_failed", f"cannot write the manifest, tried again: {error}")
    wind_down(draft)
    grant_credit(draft)
    create_tasks(draft)
    replace_inherited_dispatchers(draft)
    lease_tasks(draft)
    advance_artifacts(draft)
    take_turns(draft)
    scale_trainers(draft)
    scale_pools(draft)
    end_jobs(draft)
    return draft.build()


__all__ = ["Options", "Plan", "Seen", "Snapshot", "plan"]
