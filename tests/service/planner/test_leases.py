"""Which task gets a place on an engine."""

import dataclasses

import numpy as np
import pytest

from service.currency import Budget, Currency
from service.jobs import Job
from service.planner.draft import Draft
from service.planner.plan import Seen
from service.planner.work import lease_tasks
from service.tasks import Task, TaskState
from service.work import TaskKind
from tests.simulation.world import Simulation


@pytest.fixture
def simulation(tmp_path):
    made = Simulation(tmp_path)
    yield made
    made.store.close()


def make_task(job: Job, order: int, **changes: object) -> Task:
    runs = np.array([[order, 0, 4]], dtype=np.int32)
    task = Task(
        id=f"{job.id}-{order}", job_id=job.id, kind=TaskKind.generate, order=order, model="m", arm="m", runs=runs
    )
    return dataclasses.replace(task, **changes)  # type: ignore[arg-type]


def lease(simulation: Simulation, *tasks: Task) -> dict[int, TaskState]:
    snapshot = dataclasses.replace(simulation.store.snapshot(), tasks=tasks)
    seen = Seen(observation=simulation.cluster.observe())
    draft = Draft(snapshot=snapshot, seen=seen, states={}, now=simulation.start, options=simulation.options)
    lease_tasks(draft)
    return {task.order: task.state for task in draft.tasks.values()}


def test_suspect_of_an_older_job_is_not_kept_waiting_by_the_tasks_of_a_younger_one(simulation):
    older, younger = (simulation.submit(budget=Budget(currency=Currency.samples, limit=4000)) for _ in range(2))
    while not all(job.prepared for job in simulation.store.snapshot().jobs) or not simulation.engines():
        simulation.tick()
    for _ in range(8):
        simulation.tick()
    (engine,) = simulation.engines()
    suspect = make_task(older, 1, num_failed=1)
    running = make_task(younger, 2, state=TaskState.running, host=engine)
    waiting = make_task(younger, 3)

    assert lease(simulation, running, waiting)[3] is TaskState.submitted
    assert lease(simulation, suspect, running, waiting) == {
        1: TaskState.pending,
        2: TaskState.running,
        3: TaskState.pending,
    }
    assert lease(simulation, suspect, waiting) == {1: TaskState.submitted, 3: TaskState.pending}
