"""Who gets the places for engines: turns, engines kept without work, work that waits, an orderly leave."""

import dataclasses

from service.cluster import HostKind, HostState
from service.currency import Budget, Currency
from service.jobs import JobSpec, Phase
from service.store.control import Resolved
from tests.simulation.world import Simulation


def make_two_model_job(simulation: Simulation, *, num_cpus: float):
    simulation.cluster.num_cpus = num_cpus
    other = dataclasses.replace(simulation.model, name="n", revision="sha256:2")
    simulation.store.catalogue.register_model(other)
    spec = JobSpec(name="two", problems="p", models=("m", "n"), budget=Budget(currency=Currency.samples, limit=40 * 4))
    resolved = Resolved(
        models=(simulation.model, other), problems_path="problems", num_problems=40, problems_fingerprint="f"
    )
    return simulation.store.jobs.submit(spec, resolved, now=simulation.start)


def test_two_models_on_one_place_take_turns_until_the_job_ends(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40)
    job = simulation.run(make_two_model_job(simulation, num_cpus=1.0))
    assert job.phase is Phase.succeeded
    assert len(simulation.samples(job)) == 160
    for host in simulation.store.reads.hosts():
        assert host.error is None


def test_two_models_on_two_places_load_once_each(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40)
    simulation.run(make_two_model_job(simulation, num_cpus=2.0))
    hosts = [host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]
    assert sorted(str(host.model) for host in hosts) == ["m", "n"]


def test_pool_with_a_minimum_loads_before_any_job(tmp_path):
    simulation = Simulation(tmp_path)
    simulation.store.catalogue.change_pool("m", minimum=1)
    for _ in range(12):
        simulation.tick()
    (host,) = [host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]
    assert host.state is HostState.ready


def test_scaling_to_zero_stops_the_engine_and_scaling_up_goes_on(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=400))
    for _ in range(20):
        simulation.tick()
    simulation.store.catalogue.change_pool("m", replicas=0)
    for _ in range(10):
        simulation.tick()
    assert simulation.engines() == []
    simulation.store.catalogue.change_pool("m", replicas=2)
    job = simulation.run(job)
    assert len(simulation.samples(job)) == 400
    simulation.audit_rows(job)


def test_task_that_waits_for_an_engine_is_named_once(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    simulation.store.catalogue.change_pool("m", replicas=0)
    for _ in range(200):
        simulation.tick()
    waiting = [event for event in simulation.store.reads.events(job_id=job.id) if event.kind == "waiting"]
    assert len(waiting) == 1
    assert "an engine for m" in waiting[0].message


def test_drained_controller_leaves_no_engine_that_its_successor_would_miss(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=400))
    for _ in range(20):
        simulation.tick()
    simulation.controller.drain()
    for _ in range(20):
        simulation.tick()
    assert simulation.controller.is_quiet()
    assert simulation.engines() == []
    simulation.controller = simulation.new_controller()
    job = simulation.run(job)
    assert simulation.cluster.num_drawn == 400
    assert {event.kind for event in simulation.store.reads.events()}.isdisjoint({"host_lost", "task_lost"})
