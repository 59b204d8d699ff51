"""Who gets the places for engines: turns, engines kept without work, work that waits, an orderly leave."""

import dataclasses
import itertools

from service.cluster import HostKind, HostState
from service.currency import Budget, Currency
from service.endpoints import EndpointOptions
from service.jobs import JobSpec, Phase, Resolved
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


def test_endpoint_takes_no_place_of_a_model_that_is_loaded_here(tmp_path):
    simulation = Simulation(tmp_path, num_problems=40)
    elsewhere = dataclasses.replace(
        simulation.model, name="n", endpoint=EndpointOptions(base_url="http://127.0.0.1:1/v1", model="n")
    )
    simulation.store.catalogue.register_model(elsewhere)
    simulation.cluster.num_cpus = 1.0
    spec = JobSpec(name="two", problems="p", models=("m", "n"), budget=Budget(currency=Currency.samples, limit=40 * 4))
    resolved = Resolved(
        models=(simulation.model, elsewhere), problems_path="problems", num_problems=40, problems_fingerprint="f"
    )
    job = simulation.run(simulation.store.jobs.submit(spec, resolved, now=simulation.start))
    assert job.phase is Phase.succeeded
    hosts = [host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]
    assert sorted(str(host.model) for host in hosts) == ["m", "n"]  # each once: neither had to leave for the other
    used = {row.model: row.cpu_s for row in simulation.store.reads.usage(job_id=job.id) if row.stage == "generate"}
    assert used["n"] == 0.0 < used["m"]  # no device here works for a server elsewhere


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
    assert simulation.cluster.record.num_drawn == 400
    assert {event.kind for event in simulation.store.reads.events()}.isdisjoint({"host_lost", "task_lost"})


def test_engine_that_loads_for_ever_fails_the_job_and_says_so(tmp_path):
    simulation = Simulation(tmp_path, load_s=1e9)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    for _ in range(80):
        simulation.tick(60.0)
        for name in simulation.cluster.living(HostKind.dispatcher):
            simulation.cluster.hosts[name].ready_at = 0.0
    job = simulation.store.jobs.get(job.id)
    assert job.phase is Phase.failed
    assert job.error == "engine for m does not load: the engine was still loading after 1800 s"
    assert simulation.engines() == []


def test_engine_that_has_never_been_ready_is_ended_at_once(tmp_path):
    simulation = Simulation(tmp_path)
    simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    while not simulation.engines():
        simulation.tick()
    (name,) = simulation.engines()
    simulation.store.catalogue.change_pool("m", replicas=0)
    assert simulation.controller.tick().stop_hosts == ((name, True),)


def test_dispatcher_that_does_not_start_is_tried_again_with_growing_pauses(tmp_path):
    simulation = Simulation(tmp_path)
    job = simulation.submit(budget=Budget(currency=Currency.samples, limit=40))
    starts = []
    while simulation.cluster.now < 100.0:
        simulation.tick()
        for name in simulation.cluster.living(HostKind.dispatcher):
            starts.append(simulation.cluster.now)
            simulation.cluster.hosts[name].error = "no room on the disk"
            simulation.cluster.kill(name)
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 4.0
    assert len(starts) < 8
    failing = [e.message for e in simulation.store.reads.events() if e.kind == "dispatcher_failing"]
    assert len(failing) == len(starts) - 2
    assert "3 dispatchers in a row did not start, the last one because no room on the disk" in failing[0]
    assert simulation.run(job).phase is Phase.succeeded
    simulation.cluster.kill(simulation.cluster.living(HostKind.dispatcher)[0])
    simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=40)))
    assert "try" not in simulation.cluster.living(HostKind.dispatcher)[0]
