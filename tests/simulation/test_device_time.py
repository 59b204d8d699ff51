"""Device time in the control loop: what engines worked is some job's, what they held is on the record of hosts."""

import dataclasses

import pytest

from service.cluster import HostKind
from service.currency import Budget, Currency
from service.jobs import Job
from service.planner.meters import METER_S
from tests.simulation.world import Simulation


def time_by_outcome(simulation: Simulation, job: Job) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in simulation.store.reads.usage(job_id=job.id):
        if row.stage == "generate":
            found[row.outcome] = found.get(row.outcome, 0.0) + row.cpu_s
    return found


def submit(simulation: Simulation, num_samples: int, model: str = "m") -> Job:
    return simulation.submit(budget=Budget(currency=Currency.samples, limit=num_samples), models=(model,))


def test_jobs_that_share_an_engine_account_for_all_its_time_and_none_twice(tmp_path):
    simulation = Simulation(tmp_path)
    first, second = submit(simulation, 300), submit(simulation, 150)
    simulation.run(first)
    simulation.run(second)
    times = [sum(time_by_outcome(simulation, job).values()) for job in (first, second)]
    assert sum(times) == pytest.approx(simulation.cluster.record.busy_s)
    assert times[0] > times[1] > 0


def test_meters_of_hosts_add_up_to_their_lives_and_survive_a_controller(tmp_path):
    simulation = Simulation(tmp_path)
    job = submit(simulation, 800)
    for _ in range(40):
        simulation.tick()
    simulation.controller = simulation.new_controller()
    simulation.run(job)
    for _ in range(int(2 * METER_S / 0.25)):
        simulation.tick()

    (time,) = simulation.store.reads.device_time()

    (host,) = [host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]
    assert (time.kind, time.model, time.device, time.num_hosts) == (HostKind.generator, "m", "cpu", 1)
    assert sum(time.parts().values()) == pytest.approx(time.held_s)
    assert time.busy_s == pytest.approx(simulation.cluster.record.busy_s)
    assert time.start_s == pytest.approx(simulation.world.load_s, abs=0.5)
    assert time.idle_s > METER_S
    lived_s = simulation.cluster.now - (host.created_at - simulation.start).total_seconds()
    assert lived_s - METER_S <= time.held_s <= lived_s


def test_meters_of_hosts_that_left_in_good_order_have_all_that_they_worked(tmp_path):
    simulation = Simulation(tmp_path)
    simulation.store.catalogue.register_model(dataclasses.replace(simulation.model, name="n", revision="sha256:n"))
    simulation.options = dataclasses.replace(simulation.options, places_per_node=1)
    simulation.controller = simulation.new_controller()
    jobs = [submit(simulation, 300, model) for model in ("m", "n")]
    for job in jobs:
        simulation.run(job)
    for _ in range(int(2 * METER_S / 0.25)):
        simulation.tick()

    held = simulation.store.reads.device_time()

    assert {time.model for time in held} == {"m", "n"}
    assert sum(time.busy_s for time in held) == pytest.approx(simulation.cluster.record.busy_s)
    assert sum(sum(time_by_outcome(simulation, job).values()) for job in jobs) == pytest.approx(
        simulation.cluster.record.busy_s
    )


@pytest.mark.parametrize("has_new_controller", [False, True])
def test_lost_attempt_is_charged_the_time_it_was_heard_of(tmp_path, has_new_controller):
    simulation = Simulation(tmp_path, samples_per_s=4.0, flush_rows=1000)
    job = submit(simulation, 300)
    for _ in range(120):
        simulation.tick()
    before_s = simulation.cluster.record.busy_s
    simulation.cluster.kill(simulation.engines()[0])
    if has_new_controller:
        simulation.controller = simulation.new_controller()
    simulation.tick()

    lost_s = time_by_outcome(simulation, job)["lost"]

    assert before_s - METER_S - 0.5 <= lost_s <= before_s
    simulation.run(job)
    total_s = sum(time_by_outcome(simulation, job).values())
    assert total_s == pytest.approx(simulation.cluster.record.busy_s - before_s + lost_s)


def test_held_time_of_hosts_that_ended_before_a_moment_is_left_out(tmp_path):
    simulation = Simulation(tmp_path)
    simulation.run(submit(simulation, 80))
    simulation.store.catalogue.change_pool("m", idle_s=1.0)
    for _ in range(60):
        simulation.tick()
    (host,) = [host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]
    assert host.ended_at is not None

    assert simulation.store.reads.device_time(since=simulation.start)
    assert host.held_s == (host.ended_at - host.created_at).total_seconds()
    assert simulation.store.reads.device_time(since=host.ended_at.replace(year=2027)) == []
