"""Pools that share a place: what turns cost, that nobody starves, that nothing waits for itself."""

import dataclasses
import itertools

import pytest

from service.cluster import HostKind, NodeStatus
from service.currency import Budget, Currency, to_amount
from service.endpoints import EndpointOptions
from service.finetunes import FinetuneSpec, TrainingSpec
from service.jobs import AllocationSpec, Job, JobSpec, Phase, Resolved
from service.models import EngineOptions
from service.planner.health import START_LIMIT_S
from service.work import FinetuneWork, TaskKind
from tests.simulation.world import Simulation

LOAD_S = 1.0
TURN_S = 9 * 2 * LOAD_S


def make_world(tmp_path, *, places: int | None = 1, gpus: float = 0.0, num_problems: int = 40, **world) -> Simulation:
    """A machine whose places are limited, with a second model `n`."""
    simulation = Simulation(tmp_path, num_problems=num_problems, load_s=LOAD_S, **world)
    simulation.cluster.num_gpus = gpus
    simulation.options = dataclasses.replace(simulation.options, places_per_node=places)
    simulation.controller = simulation.new_controller()
    add_model(simulation, "n")
    return simulation


def add_model(simulation: Simulation, name: str, **engine) -> None:
    model = dataclasses.replace(
        simulation.model, name=name, revision=f"sha256:{name}", engine=EngineOptions(**engine)
    )  # fmt: skip
    simulation.store.catalogue.register_model(model)


def submit(
    simulation: Simulation,
    *models: str,
    samples: int = 0,
    flops: int = 0,
    scorers: tuple[str, ...] = ("answer",),
    **allocation: object,
) -> Job:
    budget = Budget(currency=Currency.flops, limit=flops) if flops else Budget(currency=Currency.samples, limit=samples)
    spec = JobSpec(
        name="-".join(models),
        problems="p",
        models=models,
        budget=budget,
        scorers=scorers,
        allocation=AllocationSpec(**allocation),  # type: ignore[arg-type]
    )
    resolved = Resolved(
        models=tuple(simulation.store.catalogue.model(name) for name in models),
        problems_path="problems",
        num_problems=simulation.problems.num_problems,
        problems_fingerprint="f",
    )
    return simulation.store.jobs.submit(spec, resolved, now=simulation.controller_now())


def submit_finetune(simulation: Simulation, number: int) -> str:
    spec = FinetuneSpec(
        name=f"student {number}", base="n", dataset="select-1-000000", training=TrainingSpec(seed=number)
    )
    work = FinetuneWork(
        base=simulation.store.catalogue.model("n"), dataset_path="d", dataset_sha256="0", training=spec.training
    )
    return simulation.store.artifacts.submit(spec, work, now=simulation.controller_now()).id


def run(simulation: Simulation, *jobs: Job, finetunes: tuple[str, ...] = (), most_s: float = 300.0) -> None:
    """Until all have ended."""
    store = simulation.store
    while simulation.cluster.now < most_s:
        simulation.tick(0.5)
        phases = [store.jobs.get(job.id).phase for job in jobs] + [
            store.artifacts.get(name).phase for name in finetunes
        ]
        if all(phase.is_terminal for phase in phases):
            assert set(phases) == {Phase.succeeded}, [event.message for event in store.reads.events()[-8:]]
            return
    raise AssertionError([event.message for event in store.reads.events()[-20:]])


def advance(simulation: Simulation, seconds: float) -> None:
    until = simulation.cluster.now + seconds
    while simulation.cluster.now < until:
        simulation.cluster.advance(0.5)
        simulation.controller.tick()


def starts(simulation: Simulation) -> list[str]:
    """Models and "trainer" in the order in which engines and trainers started."""
    hosts = [host for host in simulation.store.reads.hosts() if host.kind is not HostKind.dispatcher]
    return [host.model or "trainer" for host in sorted(hosts, key=lambda host: host.created_at)]


def first_sample_at(simulation: Simulation, job: Job) -> float:
    parts = simulation.store.reads.parts(job.id, TaskKind.generate)
    return min((part.committed_at - simulation.start).total_seconds() for part in parts)


def drawn_by(simulation: Simulation, job: Job) -> dict[str, int]:
    tasks = [task for task in simulation.store.reads.tasks(job.id) if task.kind is TaskKind.generate]
    totals = dict.fromkeys(job.spec.models, 0)
    for task in tasks:
        totals[task.model] += len(simulation.store.reads.committed(task.id))
    return totals


def test_two_jobs_on_one_place_alternate_and_lose_a_tenth_of_the_time_to_loads(tmp_path):
    simulation = make_world(tmp_path)
    older, younger = submit(simulation, "m", samples=2600), submit(simulation, "n", samples=1800)

    run(simulation, older, younger)

    loads = starts(simulation)
    assert all(one != other for one, other in itertools.pairwise(loads))
    assert len(loads) >= 4
    assert len(loads) * LOAD_S <= 0.1 * simulation.cluster.now
    assert first_sample_at(simulation, younger) < 1.5 * TURN_S
    for job in (older, younger):
        simulation.audit_rows(job)


def test_short_job_behind_a_long_one_waits_for_one_turn_only_and_gives_the_place_back(tmp_path):
    simulation = make_world(tmp_path)
    older = submit(simulation, "m", samples=1600)
    simulation.tick(0.5)
    younger = submit(simulation, "n", samples=40)

    run(simulation, older, younger)

    assert starts(simulation) == ["m", "n", "m"]
    turns = [event.message for event in simulation.store.reads.events() if event.kind == "turn_taken"]
    assert "its turn of 18 s is over" in turns[0]
    assert "it has no work" in turns[1]
    assert simulation.store.catalogue.pool("m").num_turns == 1
    assert simulation.store.catalogue.pool("m").load_s == LOAD_S


def test_waiting_pool_is_told_of_once_and_keeps_its_turn_when_the_controller_is_replaced(tmp_path):
    simulation = make_world(tmp_path)
    submit(simulation, "m", samples=1600)
    for _ in range(10):
        simulation.tick(0.5)
    submit(simulation, "n", samples=400)
    for _ in range(10):
        simulation.tick(0.5)
    since = simulation.store.catalogue.pool("n").waiting_since
    simulation.controller = simulation.new_controller()
    for _ in range(10):
        simulation.tick(0.5)

    assert since is not None
    assert simulation.store.catalogue.pool("n").waiting_since == since
    (said,) = [event.message for event in simulation.store.reads.events() if event.kind == "turn_waits"]
    assert "n waits for a place; taken by generate-m-" in said


def test_two_models_of_a_uniform_job_draw_in_long_stretches_and_equally_often_in_the_end(tmp_path):
    simulation = make_world(tmp_path)
    limit = to_amount(Currency.flops, 40 * 2 * 20 * simulation.worst_sample(Currency.flops))

    job = submit(simulation, "m", "n", flops=limit)
    run(simulation, job)

    drawn = drawn_by(simulation, job)
    assert sum(drawn.values()) > 40 * 2 * 20
    assert abs(drawn["m"] - drawn["n"]) <= 3 * 40
    assert len(starts(simulation)) <= 8


def test_two_models_of_an_adaptive_job_load_at_most_once_for_each_sample_of_a_problem(tmp_path):
    simulation = make_world(tmp_path, score_s=5.0, solve_rate=(0.3,))

    job = submit(simulation, "m", "n", samples=800, strategy="until_correct", max_samples=6)
    run(simulation, job)

    assert len(starts(simulation)) <= 7


def test_finetunes_and_a_job_share_one_gpu_without_waiting_for_each_other_for_ever(tmp_path):
    simulation = make_world(tmp_path, gpus=1.0, places=None, train_s=10.0)
    job = submit(simulation, "m", samples=1600)
    for _ in range(20):
        simulation.tick(0.5)
    finetunes = tuple(submit_finetune(simulation, number) for number in range(3))

    run(simulation, job, finetunes=finetunes)

    loads = starts(simulation)
    assert loads[:3] == ["m", "trainer", "m"]
    # a turn of 18 s fits two finetunes of 10 s; the third waits for the next one
    assert loads.count("trainer") == 2


def test_engine_that_is_spread_over_two_places_gets_its_turn_beside_smaller_ones(tmp_path):
    simulation = make_world(tmp_path, gpus=2.0, places=None)
    add_model(simulation, "large", tensor_parallel_size=2)
    small = [submit(simulation, name, samples=1600) for name in ("m", "n")]
    for _ in range(10):
        simulation.tick(0.5)
    large = submit(simulation, "large", samples=400)

    run(simulation, *small, large)

    assert starts(simulation).count("large") == 1
    assert first_sample_at(simulation, large) < 2 * TURN_S


def test_pool_that_wants_more_engines_leaves_a_place_to_one_that_has_none(tmp_path):
    simulation = make_world(tmp_path, gpus=2.0, places=None)
    simulation.store.catalogue.change_pool("m", replicas=2)
    older = submit(simulation, "m", samples=3000)
    for _ in range(10):
        simulation.tick(0.5)
    younger = submit(simulation, "n", samples=800)

    run(simulation, older, younger)

    assert starts(simulation)[:3] == ["m", "m", "n"]
    assert starts(simulation).count("n") <= 2


@pytest.mark.parametrize(("gpus", "places", "expected"), [(0.0, None, 2), (0.0, 1, 1), (1.0, 4, 1), (4.0, 2, 2)])
def test_places_are_limited_by_the_operator_and_never_shared(tmp_path, gpus, places, expected):
    simulation = make_world(tmp_path, gpus=gpus, places=places)
    jobs = [submit(simulation, name, samples=4000) for name in ("m", "n")]
    for _ in range(20):
        simulation.tick(0.5)

    assert len(simulation.engines()) == expected
    assert len(jobs) == 2


def test_engine_over_two_places_is_not_overtaken_for_ever_by_small_ones_whose_turns_never_end_together(tmp_path):
    simulation = make_world(tmp_path, places=None, gpus=2.0)
    add_model(simulation, "o")
    add_model(simulation, "large", tensor_parallel_size=2)
    for name in ("m", "n", "o"):
        submit(simulation, name, samples=200_000)
        advance(simulation, TURN_S / 2)
    asked_at, large = simulation.cluster.now, submit(simulation, "large", samples=40)
    advance(simulation, 2.5 * TURN_S)
    # a turn in which others come first, and one in which those that have a place end theirs
    assert first_sample_at(simulation, large) - asked_at < 2.5 * TURN_S


def test_model_that_takes_no_place_never_leaves_for_one_that_does(tmp_path):
    simulation = make_world(tmp_path)
    server = EndpointOptions(base_url="http://127.0.0.1:1/v1", model="e")
    elsewhere = dataclasses.replace(simulation.model, name="e", revision="endpoint:0", endpoint=server)
    simulation.store.catalogue.register_model(elsewhere)
    for name in ("e", "m", "n"):
        submit(simulation, name, samples=100_000)
    advance(simulation, 3 * TURN_S)
    assert starts(simulation)[:4] == ["e", "m", "n", "m"]
    assert starts(simulation).count("e") == 1


@pytest.mark.parametrize("nodes", [[2.0], [1.0, 1.0]])
def test_engine_that_fits_on_no_node_disturbs_nobody_and_says_what_it_lacks(tmp_path, nodes):
    simulation = make_world(tmp_path, places=1, gpus=sum(nodes))
    simulation.cluster.nodes = tuple(
        NodeStatus(id=str(number), num_cpus=2.0, num_gpus=gpus) for number, gpus in enumerate(nodes)
    )
    add_model(simulation, "large", tensor_parallel_size=2)
    submit(simulation, "m", samples=100_000)
    submit(simulation, "large", samples=40)
    advance(simulation, 3 * TURN_S)
    assert starts(simulation) == ["m"]
    said = [event.message for event in simulation.store.reads.events() if event.kind == "waiting"]
    assert said[0].endswith("large, which needs 2 places on one node; the most that one has: 1")


def test_engine_over_two_gpus_goes_where_one_node_has_both(tmp_path):
    simulation = make_world(tmp_path, places=None, gpus=4.0)
    simulation.cluster.nodes = tuple(NodeStatus(id=name, num_cpus=2.0, num_gpus=2.0) for name in "ab")
    simulation.cluster.node_of.update({"generate-m-2": "a", "generate-n-3": "b"})
    add_model(simulation, "large", tensor_parallel_size=2)
    for name in ("m", "n"):
        submit(simulation, name, samples=20_000)
    advance(simulation, 3.0)
    large = submit(simulation, "large", samples=40)
    advance(simulation, 3.0)
    assert starts(simulation) == ["m", "n"]  # two GPUs are free, one on each node
    advance(simulation, 2 * TURN_S)
    assert simulation.store.jobs.get(large.id).phase is Phase.succeeded
    leaving = [event.message for event in simulation.store.reads.events() if event.kind == "turn_taken"]
    assert leaving[0].startswith("generate-m-2 leaves for large")  # one of them is enough


def test_finetunes_are_one_among_those_who_wait_and_come_round_as_often(tmp_path):
    simulation = make_world(tmp_path, gpus=1.0, places=None, train_s=10.0, samples_per_s=4.0)
    for name in ("m", "n"):
        submit(simulation, name, samples=20_000)
    advance(simulation, TURN_S / 2)
    for number in range(8):
        submit_finetune(simulation, number)
    advance(simulation, 8 * TURN_S)
    loads = starts(simulation)
    rounds = loads[loads.index("trainer") :]
    assert len(rounds) >= 5
    for one, two, three in zip(rounds, rounds[1:], rounds[2:], strict=False):
        assert {one, two, three} == {"m", "n", "trainer"}


def test_pool_that_wants_more_engines_takes_the_place_of_one_without_work(tmp_path):
    simulation = make_world(tmp_path, gpus=2.0, places=None)
    simulation.store.catalogue.change_pool("m", replicas=2)
    run(simulation, submit(simulation, "n", samples=40))
    older = submit(simulation, "m", samples=3_000)
    advance(simulation, 0.5)
    assert starts(simulation) == ["n", "m"]
    run(simulation, older)
    assert starts(simulation) == ["n", "m", "m"]
    (said,) = [event.message for event in simulation.store.reads.events() if event.kind == "turn_taken"]
    assert said.startswith("generate-n-2 leaves for m")
    assert "it has had no work for" in said


def test_engine_that_is_kept_without_work_stays_where_another_pool_wants_more(tmp_path):
    simulation = make_world(tmp_path, gpus=2.0, places=None)
    simulation.store.catalogue.change_pool("m", replicas=2)
    simulation.store.catalogue.change_pool("n", minimum=1)
    run(simulation, submit(simulation, "n", samples=40), submit(simulation, "m", samples=2_000))
    assert starts(simulation).count("n") == 1
    assert starts(simulation).count("m") == 1


def test_engine_without_room_on_the_cluster_is_named_once_and_gives_way_to_what_waits(tmp_path):
    simulation = make_world(tmp_path)
    simulation.cluster.without_room = frozenset({"n"})
    submit(simulation, "n", samples=40)
    advance(simulation, START_LIMIT_S / 2)
    waiting = submit(simulation, "m", samples=40)
    advance(simulation, START_LIMIT_S / 2 - 5)
    assert starts(simulation) == ["n"]
    advance(simulation, 30)
    assert simulation.store.jobs.get(waiting.id).phase is Phase.succeeded
    said = [event.message for event in simulation.store.reads.events() if event.kind == "host_waits"]
    assert len(said) == 1
    assert said[0].startswith("generate-n-2 has not started for 120 s")
    assert simulation.store.catalogue.pool("n").failures == 0  # nothing is wrong with the model


def test_engine_without_room_waits_for_it_as_long_as_nothing_else_does(tmp_path):
    simulation = make_world(tmp_path)
    simulation.cluster.without_room = frozenset({"m"})
    job = submit(simulation, "m", samples=40)
    advance(simulation, 1.5 * START_LIMIT_S)
    assert starts(simulation) == ["m"]
    assert len([event for event in simulation.store.reads.events() if event.kind == "host_waits"]) == 1
    simulation.cluster.without_room = frozenset()
    run(simulation, job, most_s=3 * START_LIMIT_S)
    assert starts(simulation) == ["m"]
