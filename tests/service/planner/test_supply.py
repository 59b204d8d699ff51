"""How many tasks an engine gets: as many as have samples for it, beside those whose last samples it is finishing."""

import dataclasses

import numpy as np
import pytest

from service.allocation import AllocationState
from service.cluster import AttemptReport, AttemptState, HostKind, HostReport, HostState, Observation
from service.currency import Budget, Currency
from service.planner.draft import Draft
from service.planner.plan import HostView, Seen
from service.planner.work import create_tasks, lease_tasks
from service.tasks import Task, TaskState
from service.work import TaskKind
from tests.simulation.world import Simulation


@pytest.fixture
def simulation(tmp_path):
    made = Simulation(tmp_path)
    yield made
    made.store.close()


def drafted(simulation: Simulation, waiting: list[int], *, draining_per_engine: int = 32) -> Draft:
    """A tick of a job whose one engine runs a task for each of `waiting`: how many samples have not entered it."""
    submitted = simulation.submit(budget=Budget(currency=Currency.tokens, limit=1_000_000))
    while not simulation.store.snapshot().jobs[0].prepared:
        simulation.tick()
    snapshot = simulation.store.snapshot()
    runs = np.array([[0, 0, 200]], dtype=np.int32)
    tasks = tuple(
        Task(
            id=f"{submitted.id}-9{order}",
            job_id=submitted.id,
            kind=TaskKind.generate,
            order=90 + order,
            model="m",
            arm="m",
            runs=runs,
            state=TaskState.running,
            host="h",
        )
        for order in range(len(waiting))
    )
    reports = tuple(
        AttemptReport(attempt_id=task.attempt_id, state=AttemptState.running, waiting=number)
        for task, number in zip(tasks, waiting, strict=True)
    )
    host = HostView(
        name="h",
        kind=HostKind.generator,
        model="m",
        state=HostState.ready,
        is_stopping=False,
        has_been_ready=True,
        created_at=simulation.start,
    )
    return Draft(
        snapshot=dataclasses.replace(snapshot, tasks=tasks, hosts=(host,)),
        seen=Seen(observation=Observation(hosts={"h": HostReport(state=HostState.ready, attempts=reports)})),
        states={submitted.id: AllocationState(num_arms=1, num_problems=40)},
        now=simulation.start,
        options=dataclasses.replace(simulation.options, draining_per_engine=draining_per_engine),
    )


@pytest.mark.parametrize(
    ("waiting", "is_leased"),
    [([5, 7], False), ([0, 7], True), ([0, 0, 0, 0], True), ([0, 5, 7], False)],
)
def test_an_engine_gets_another_task_unless_two_have_samples_for_it(simulation, waiting, is_leased):
    draft = drafted(simulation, waiting)
    create_tasks(draft)
    lease_tasks(draft)
    submitted = [task for task in draft.tasks.values() if task.state is TaskState.submitted]
    assert bool(submitted) is is_leased


def test_an_engine_that_finishes_many_tasks_gets_no_other_one(simulation):
    draft = drafted(simulation, [0, 0, 0], draining_per_engine=3)
    create_tasks(draft)
    lease_tasks(draft)
    assert not [task for task in draft.tasks.values() if task.state is TaskState.submitted]
