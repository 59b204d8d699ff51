"""A new controller on a cluster whose hosts it knows by name before it has heard a word from them."""

import threading

import pytest

from service.cluster import HostKind, HostReport, HostState, Observation
from service.currency import Budget, Currency
from service.errors import AlreadyRunning
from service.fake_cluster import FakeCluster
from service.jobs import Phase
from service.store import Store
from tests.simulation.world import Simulation


class _SilentCluster(FakeCluster):
    """The same hosts through a new connection: `starting`, without attempts, for the first few looks."""

    def __init__(self, cluster: FakeCluster, *, num_silent: int) -> None:
        super().__init__(cluster.world)
        self.hosts, self.record, self.now = cluster.hosts, cluster.record, cluster.now
        self._num_silent = num_silent

    def observe(self) -> Observation:
        seen = super().observe()
        if self._num_silent == 0:
            return seen
        self._num_silent -= 1
        return Observation(hosts={name: HostReport(state=HostState.starting) for name in seen.hosts}, nodes=seen.nodes)


def test_hosts_not_heard_of_yet_keep_their_attempts(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40 * 20))
    while not simulation.store.reads.account(job.id).spent:
        simulation.tick()
    simulation.cluster = _SilentCluster(simulation.cluster, num_silent=3)
    simulation.controller = simulation.new_controller()
    job = simulation.run(job)
    assert job.phase is Phase.succeeded
    simulation.audit_rows(job)
    assert {task.attempt for task in simulation.store.reads.tasks(job.id)} == {1}
    assert "lost" not in {row.outcome for row in simulation.store.reads.usage(job_id=job.id)}


def test_new_controller_has_a_dispatcher_of_its_own_and_keeps_the_engine(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40 * 20))
    while not simulation.store.reads.account(job.id).spent:
        simulation.tick()
    engines, (earlier,) = simulation.engines(), simulation.cluster.living(HostKind.dispatcher)
    simulation.cluster.change_controller()
    simulation.controller = simulation.new_controller()
    job = simulation.run(job)
    assert job.phase is Phase.succeeded
    simulation.audit_rows(job)
    assert simulation.engines() == engines
    (later,) = simulation.cluster.living(HostKind.dispatcher)
    assert later != earlier
    assert {task.attempt for task in simulation.store.reads.tasks(job.id)} == {1}, "a part went to the one that leaves"


def test_loop_that_another_controller_has_replaced_ends_before_it_changes_anything(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    replaced = simulation.controller
    Store(simulation.store.engine).take_over("another machine")
    with pytest.raises(AlreadyRunning, match="another machine"):
        replaced.run(threading.Event())
    assert simulation.store.jobs.get(job.id).phase is Phase.queued
    assert simulation.cluster.hosts == {}
