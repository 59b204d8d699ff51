"""Jobs on checkpoints: the engines of their base serve them, and the budget holds while weights are swapped."""

import dataclasses
import itertools

import pytest

from service.cluster import HostKind, HostState
from service.currency import Budget, Currency, to_amount
from service.jobs import Job, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.work import TaskKind
from tests.simulation.world import Simulation


def checkpoints(simulation: Simulation, num: int) -> tuple[ModelSpec, ...]:
    found = tuple(
        dataclasses.replace(simulation.model, name=f"m-{i}", revision=f"sha256:{i}", base="m") for i in range(num)
    )
    for model in found:
        simulation.store.catalogue.register_model(model)
    return found


def submit(simulation: Simulation, models: tuple[ModelSpec, ...], budget: Budget) -> Job:
    spec = JobSpec(name="evaluation", problems="p", models=tuple(model.name for model in models), budget=budget)
    resolved = Resolved(models=models, problems_path="problems", num_problems=40, problems_fingerprint="f")
    return simulation.store.jobs.submit(spec, resolved, now=simulation.start)


def drawn(simulation: Simulation, job: Job) -> list[tuple[str, int, int]]:
    """Model, problem and sample index of every committed sample."""
    tasks = [task for task in simulation.store.reads.tasks(job.id) if task.kind is TaskKind.generate]
    return [(task.model, *pair) for task in tasks for pair in simulation.store.reads.committed(task.id).tolist()]


def generators(simulation: Simulation) -> list[str]:
    return [host.name for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]


def test_job_on_checkpoints_alone_is_served_by_one_engine_of_their_base(tmp_path):
    simulation = Simulation(tmp_path)
    models = checkpoints(simulation, 3)

    job = simulation.run(submit(simulation, models, Budget(currency=Currency.samples, limit=120)))

    (name,) = generators(simulation)
    host = simulation.cluster.hosts[name]
    assert job.phase is Phase.succeeded
    assert host.spec.model == simulation.model
    assert host.num_swaps >= 3
    assert sorted(drawn(simulation, job)) == [(f"m-{i}", problem, 0) for i in range(3) for problem in range(40)]


def test_base_and_its_checkpoint_share_an_engine_and_another_model_has_its_own(tmp_path):
    simulation = Simulation(tmp_path)
    other = dataclasses.replace(simulation.model, name="n", revision="sha256:n")
    simulation.store.catalogue.register_model(other)
    models = (simulation.model, *checkpoints(simulation, 1), other)

    job = simulation.run(submit(simulation, models, Budget(currency=Currency.samples, limit=240)))

    assert job.phase is Phase.succeeded
    hosts = [host for host in simulation.store.reads.hosts() if host.kind is HostKind.generator]
    assert sorted(str(host.model) for host in hosts) == ["m", "n"]


@pytest.mark.parametrize("currency", [Currency.flops, Currency.samples])
@pytest.mark.parametrize("replicas", [1, 2])
def test_budget_is_spent_to_the_end_though_swaps_take_long(tmp_path, currency, replicas):
    simulation = Simulation(tmp_path, swap_s=3.0)
    simulation.store.catalogue.change_pool("m", replicas=replicas)
    models = checkpoints(simulation, 2)
    worst = simulation.worst_sample(currency)
    job = submit(simulation, models, Budget(currency=currency, limit=to_amount(currency, 200 * worst)))

    job = simulation.run(job)

    assert len(drawn(simulation, job)) == len(set(drawn(simulation, job)))
    account = simulation.account(job)
    assert account.limit is not None
    left = account.limit - account.spent
    assert job.phase is Phase.succeeded
    assert left <= to_amount(currency, worst)


def test_engine_that_does_not_load_fails_the_jobs_of_its_checkpoints(tmp_path):
    simulation = Simulation(tmp_path)
    job = submit(simulation, checkpoints(simulation, 1), Budget(currency=Currency.samples, limit=40))
    for _ in range(40):
        simulation.tick()
        for name in simulation.engines():
            simulation.cluster.hosts[name].error = "model.safetensors: missing"
            simulation.cluster.kill(name)

    job = simulation.store.jobs.get(job.id)
    assert job.phase is Phase.failed
    assert job.error == "engine for m does not load: model.safetensors: missing"


def test_engine_that_dies_of_a_checkpoint_problem_is_found_out(tmp_path):
    simulation = Simulation(tmp_path, poison=frozenset({7}))
    models = checkpoints(simulation, 2)

    job = simulation.run(submit(simulation, models, Budget(currency=Currency.samples, limit=160)))

    assert job.phase is Phase.finished_with_errors
    rows = drawn(simulation, job)
    assert len(rows) == len(set(rows))
    assert sum(problem != 7 for _, problem, _ in rows) == 2 * 39 * 2
    # what of it was planned before it was refused, and one row at least, stands as an error
    assert {model for model, problem, _ in rows if problem == 7} == {model.name for model in models}
    refused = [
        event.message for event in simulation.store.reads.events(job_id=job.id) if event.kind == "problem_refused"
    ]
    assert len(refused) == 2
    assert all("problem index 7" in message for message in refused)


def test_idle_engine_of_a_base_is_kept_while_a_checkpoint_is_wanted(tmp_path):
    simulation = Simulation(tmp_path)
    simulation.store.catalogue.change_pool("m", idle_s=1.0)
    models = checkpoints(simulation, 2)
    limits = itertools.repeat(Budget(currency=Currency.samples, limit=40))

    for model, limit in zip(models, limits, strict=False):
        simulation.run(submit(simulation, (model,), limit))

    assert len(generators(simulation)) == 1
    for _ in range(20):
        simulation.tick()
    assert simulation.engines() == []


def test_pool_kept_without_work_serves_a_checkpoint_at_once(tmp_path):
    simulation = Simulation(tmp_path)
    simulation.store.catalogue.change_pool("m", minimum=1)
    for _ in range(12):
        simulation.tick()
    (engine,) = simulation.engines()

    job = simulation.run(submit(simulation, checkpoints(simulation, 1), Budget(currency=Currency.samples, limit=40)))

    assert job.phase is Phase.succeeded
    assert simulation.engines() == [engine]
    assert simulation.cluster.hosts[engine].state is HostState.ready
