"""Who gets credit, who gives it back, and when a budget is called spent."""

import dataclasses

import numpy as np
import pytest

from service.cluster import AttemptReport, AttemptState, HostReport, HostState, Observation
from service.currency import Budget, Currency
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


def drafted(simulation: Simulation, *, currency: Currency, limit: int, attempts: list[tuple[int, dict]]) -> Draft:
    """A tick in which each attempt, on an engine of its own, holds some credit and reports the rest."""
    submitted = simulation.submit(budget=Budget(currency=currency, limit=limit))
    snapshot = simulation.store.snapshot()
    (job,) = snapshot.jobs
    runs = np.array([[0, 0, 200]], dtype=np.int32)
    tasks, hosts = [], {}
    for order, (credit, facts) in enumerate(attempts):
        task = Task(
            id=f"{submitted.id}-{order}",
            job_id=submitted.id,
            kind=TaskKind.generate,
            order=order,
            model="m",
            arm="m",
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
            **facts,
        )
        tasks.append(task)
        hosts[str(task.host)] = HostReport(state=HostState.ready, attempts=(report,))
    account = dataclasses.replace(job.account, reserved=sum(credit for credit, _ in attempts))
    return Draft(
        snapshot=dataclasses.replace(snapshot, jobs=(dataclasses.replace(job, account=account),), tasks=tuple(tasks)),
        seen=Seen(observation=Observation(hosts=hosts)),
        states={},
        now=simulation.start,
        options=simulation.options,
    )


def grants(draft: Draft) -> dict[str, float]:
    """Credit by host, of the hosts that are told something."""
    return {name: grant.credit for name, orders in draft.build().orders.items() for grant in orders.grants}


@pytest.mark.parametrize(("used", "closing"), [(0.0, None), (100.0, "budget spent")])
def test_budget_is_not_called_spent_while_an_earlier_attempt_holds_credit_it_can_use(simulation, used, closing):
    # the first waits for its weights to be swapped in, the second on another engine for credit
    first = {"used": used, "next_worst": 1.0 if used else 0.0, "wanted": 100.0}
    second = {"next_worst": 1.0, "wanted": 100.0}
    draft = drafted(simulation, currency=Currency.samples, limit=100, attempts=[(100, first), (0, second)])

    grant_credit(draft)

    (job,) = draft.jobs.values()
    assert job.closing == closing


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        # 10,000 of the first attempt's 30,000 are used and 5,000 in flight: it has no use for the rest
        (100_000, {}),
        (64_000, {"h0": 15_000.0}),
    ],
)
def test_credit_of_an_attempt_that_draws_no_more_comes_back_once_less_is_left_than_is_in_flight(
    simulation, limit, expected
):
    draining = {"used": 10_000.0, "inflight_worst": 5_000.0, "wanted": 15_000.0, "waiting": 0}
    drawing = {"used": 0.0, "inflight_worst": 30_000.0, "wanted": 31_000.0, "waiting": 50}
    draft = drafted(simulation, currency=Currency.tokens, limit=limit, attempts=[(30_000, draining), (31_000, drawing)])

    grant_credit(draft)

    assert grants(draft) == expected


def test_credit_called_back_is_free_only_when_the_host_says_that_it_no_longer_holds_it(simulation):
    draining = {"used": 10_000.0, "inflight_worst": 5_000.0, "wanted": 15_000.0}
    draft = drafted(simulation, currency=Currency.tokens, limit=30_000, attempts=[(30_000, draining)])

    grant_credit(draft)

    (account,) = (job.account for job in draft.jobs.values())
    assert (account.available, account.reserved) == (0, 30_000)


def test_little_credit_that_an_attempt_does_not_want_stays_where_it_is(simulation):
    drawing = {"used": 0.0, "inflight_worst": 28_000.0, "wanted": 28_000.0, "waiting": 1}
    draft = drafted(simulation, currency=Currency.tokens, limit=30_000, attempts=[(30_000, drawing)])

    grant_credit(draft)

    assert grants(draft) == {}
