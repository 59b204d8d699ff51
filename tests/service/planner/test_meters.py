"""What meters cost: rows are written for what is new."""

import pytest

from service.currency import Budget, Currency
from service.planner.attempts import fold_reports
from service.planner.draft import Draft
from service.planner.plan import Plan, Seen
from service.work import TaskKind
from tests.simulation.world import Simulation


@pytest.fixture
def simulation(tmp_path):
    made = Simulation(tmp_path, flush_rows=20)
    yield made
    made.store.close()


def folded(simulation: Simulation) -> Plan:
    """A tick that does nothing but hear of attempts."""
    draft = Draft(
        snapshot=simulation.store.snapshot(),
        seen=Seen(observation=simulation.cluster.observe()),
        states={},
        now=simulation.controller_now(),
        options=simulation.options,
    )
    fold_reports(draft)
    return draft.build()


def test_parts_that_are_known_already_rewrite_no_task_however_often_they_are_reported(simulation):
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=400))
    while not simulation.store.reads.parts(job.id, TaskKind.generate):
        simulation.tick()

    plan = folded(simulation)

    acknowledged = [ack.num_parts for orders in plan.orders.values() for ack in orders.acknowledges]
    assert acknowledged == [1]
    assert plan.tasks == ()
    while not (writes := [write.after for write in plan.tasks if write.after.kind is TaskKind.generate]):
        simulation.cluster.advance(0.25)
        plan = folded(simulation)
    (task,) = writes
    said = {attempt.attempt_id: attempt for attempt in simulation.cluster.observe().hosts[str(task.host)].attempts}
    assert (task.num_parts, task.busy_s) == (2, said[task.attempt_id].busy_s)
