"""When a budget is called spent."""

import dataclasses

import numpy as np
import pytest

from service.cluster import AttemptReport, AttemptState, HostReport, HostState, Observation
from service.currency import Budget, Currency, to_amount
from service.planner.credit import grant_credit
from service.planner.draft import Draft
from service.planner.plan import Seen
from service.tasks import Task, TaskState
from service.work import TaskKind
from tests.simulation.world import Simulation


@pytest.fixture
def simulation(tmp_path):
    made = Simulation(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize(("used", "closing"), [(0.0, None), (100.0, "budget spent")])
def test_budget_is_not_called_spent_while_an_earlier_attempt_holds_credit_it_can_use(simulation, used, closing):
    amount = to_amount(Currency.samples, 100.0)
    submitted = simulation.submit(budget=Budget(currency=Currency.samples, limit=100))
    snapshot = simulation.store.snapshot()
    (job,) = snapshot.jobs
    runs = np.array([[0, 0, 200]], dtype=np.int32)
    # the first waits for its weights to be swapped in, the second on another engine for credit
    tasks, hosts = [], {}
    for order, (credit, next_worst) in enumerate([(amount, 0.0), (0, 1.0)]):
        task = Task(
            id=f"{submitted.id}-{order}",
            job_id=submitted.id,
            kind=TaskKind.generate,
            order=order,
            model="m",
            runs=runs,
            state=TaskState.running,
            host=f"h{order}",
            credit=credit,
            grant_version=1,
        )
        report = AttemptReport(
            attempt_id=task.attempt_id,
            state=AttemptState.running,
            credit_held=float(credit),
            grant_version=1,
            used=used if credit else 0.0,
            next_worst=1.0 if used else next_worst,
            wanted=100.0,
        )
        tasks.append(task)
        hosts[str(task.host)] = HostReport(state=HostState.ready, attempts=(report,))
    job = dataclasses.replace(job, account=dataclasses.replace(job.account, reserved=amount))
    draft = Draft(
        snapshot=dataclasses.replace(snapshot, jobs=(job,), tasks=tuple(tasks)),
        seen=Seen(observation=Observation(hosts=hosts)),
        states={},
        now=simulation.start,
        options=simulation.options,
    )

    grant_credit(draft)

    assert draft.jobs[job.id].closing == closing
