"""What is the local twin's own; what it shares with Ray is in tests/ray/test_contract.py.

The life of a host process (`workers.hosts.HostRunner`) is tested here too, on a clock of its own.
"""

import threading

import pytest

from service.cluster import (
    Acknowledge,
    AttemptReport,
    AttemptState,
    Grant,
    HostKind,
    HostReport,
    HostSpec,
    HostState,
    Orders,
    Stop,
    StopMode,
)
from service.endpoints import EndpointOptions
from service.errors import InvalidInput
from service.forward_cost import UNKNOWN_COST
from service.models import ModelSpec
from tests.workers.generate_attempts import COST
from workers.hosts import HostRunner, Process, engine_factory, make_host, merged
from workers.local_cluster import LocalCluster

GENERATOR = HostSpec(name="generator", kind=HostKind.generator)
TRAINER = HostSpec(name="trainer", kind=HostKind.trainer)
DISPATCHER = HostSpec(name="dispatcher", kind=HostKind.dispatcher)
ELSEWHERE = HostSpec(
    name="elsewhere",
    kind=HostKind.generator,
    model=ModelSpec(
        name="m",
        path="",
        revision="endpoint:1",
        context_len=512,
        cost=UNKNOWN_COST,
        endpoint=EndpointOptions(base_url="https://host/v1", model="m"),
    ),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A host in whatever state a test puts it."""

    def __init__(self) -> None:
        self.state = HostState.ready
        self.attempts: tuple[AttemptReport, ...] = ()
        self.taken: list[Orders] = []
        self.is_drained = False
        self.is_draining = False
        self.is_closed = False
        self.is_saved = False
        self.total_tokens = 0

    def start(self) -> None:
        pass

    def exchange(self, orders: Orders) -> HostReport:
        if orders != Orders():
            self.taken.append(orders)
        return HostReport(state=self.state, attempts=self.attempts, total_tokens=self.total_tokens)

    def drain(self) -> None:
        self.is_draining = True

    def save(self) -> None:
        self.is_saved = True

    def close(self, timeout_s: float = 60.0) -> None:
        self.is_closed = True


def grant(version: int) -> Orders:
    return Orders(grants=(Grant(attempt_id="t.1", version=version, credit=1.0),))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def host() -> Scripted:
    return Scripted()


def runner_of(host: Scripted, clock: Clock, spec: HostSpec) -> HostRunner:
    return HostRunner(host, spec=spec, end_process=lambda: None, silence_s=100.0, stuck_s=30.0, clock=clock)


@pytest.fixture
def runner(host: Scripted, clock: Clock) -> HostRunner:
    return runner_of(host, clock, GENERATOR)


def test_runner_calls_that_come_late_give_facts_but_no_orders(runner: HostRunner, host: Scripted) -> None:
    runner.exchange("a", 1, grant(1))
    runner.exchange("a", 3, grant(3))
    assert runner.exchange("a", 2, grant(2)).report.state is HostState.ready
    runner.exchange("a", 3, grant(4))

    assert host.taken == [grant(1), grant(3)]


def test_runner_orders_of_a_connection_that_was_replaced_count_no_more(runner: HostRunner, host: Scripted) -> None:
    runner.exchange("old", 1, grant(1))
    runner.exchange("new", 1, grant(2))
    runner.exchange("old", 2, grant(3), should_drain=True)
    runner.exchange("new", 2, grant(4))

    assert host.taken == [grant(1), grant(2), grant(4)]
    assert not host.is_draining


def test_runner_failed_host_ends_soon_after_somebody_heard(runner: HostRunner, host: Scripted, clock: Clock) -> None:
    host.state = HostState.failed
    assert not runner.is_over()
    clock.now = 4.0
    assert not runner.is_over()

    runner.exchange("a", 1, Orders())

    assert runner.is_over()


def test_runner_failed_host_that_nobody_hears_of_ends_after_five_seconds(
    runner: HostRunner, host: Scripted, clock: Clock
) -> None:
    host.state = HostState.failed
    assert not runner.is_over()
    clock.now = 5.1
    assert runner.is_over()


def test_runner_silent_host_that_is_stuck_saves_what_it_has_and_ends(
    runner: HostRunner, host: Scripted, clock: Clock
) -> None:
    for clock.now in (101.0, 130.0):
        assert not runner.is_over()
        assert not host.is_saved

    clock.now = 132.0

    assert runner.is_over()
    assert host.is_saved


def test_runner_silent_host_that_makes_tokens_may_finish(runner: HostRunner, host: Scripted, clock: Clock) -> None:
    for clock.now in (101.0, 125.0, 150.0, 175.0):
        host.total_tokens += 1
        assert not runner.is_over()
    assert not host.is_saved


def test_runner_silent_trainer_has_time_to_end_a_long_step_and_to_write_its_checkpoint(
    host: Scripted, clock: Clock
) -> None:
    runner = runner_of(host, clock, TRAINER)
    for clock.now in (101.0, 132.0, 101.0 + 12 * 30.0):
        assert not runner.is_over()
    clock.now += 1.0
    assert runner.is_over()


@pytest.mark.parametrize("spec", [DISPATCHER, ELSEWHERE], ids=lambda spec: spec.name)
def test_runner_silent_host_that_may_work_without_tokens_finishes_however_long_it_takes(
    host: Scripted, clock: Clock, spec: HostSpec
) -> None:
    runner = runner_of(host, clock, spec)
    for clock.now in (101.0, 2000.0, 4000.0):
        assert not runner.is_over()
    assert host.is_draining
    assert not host.is_saved

    host.is_drained = True

    assert runner.is_over()


def test_runner_host_that_is_stuck_while_a_controller_calls_goes_on(
    runner: HostRunner, host: Scripted, clock: Clock
) -> None:
    for clock.now in (90.0, 180.0, 270.0):
        runner.exchange("a", int(clock.now), Orders())
        assert not runner.is_over()
    assert not host.is_draining


def test_runner_silence_drains_then_ends(runner: HostRunner, host: Scripted, clock: Clock) -> None:
    clock.now = 99.0
    assert not runner.is_over()
    assert not host.is_draining
    clock.now = 101.0
    assert not runner.is_over()
    assert host.is_draining

    host.attempts = (AttemptReport(attempt_id="t.1", state=AttemptState.stopped),)
    host.is_drained = True

    assert runner.is_over()


def test_runner_drained_host_waits_until_its_attempts_are_forgotten(
    runner: HostRunner, host: Scripted, clock: Clock
) -> None:
    host.attempts = (AttemptReport(attempt_id="t.1", state=AttemptState.stopped),)
    host.is_drained = True
    assert not runner.is_over()

    runner.exchange("a", 1, Orders(), should_drain=True)
    assert not runner.is_over()
    host.attempts = ()
    assert runner.is_over()


def test_runner_drained_host_does_not_wait_for_ever(runner: HostRunner, host: Scripted, clock: Clock) -> None:
    host.attempts = (AttemptReport(attempt_id="t.1", state=AttemptState.stopped),)
    host.is_drained = True
    runner.drain()
    assert not runner.is_over()
    clock.now = 31.0
    assert runner.is_over()


def test_runner_of_a_drained_dispatcher_keeps_what_it_finished_until_it_is_silent(host: Scripted, clock: Clock) -> None:
    runner = runner_of(host, clock, DISPATCHER)
    host.attempts = (AttemptReport(attempt_id="t.1", state=AttemptState.succeeded),)
    host.is_drained = True
    runner.drain()
    clock.now = 31.0
    assert not runner.is_over()
    clock.now = 101.0
    assert runner.is_over()


def test_runner_that_ends_closes_its_host_first(host: Scripted) -> None:
    has_ended = threading.Event()
    runner = HostRunner(host, spec=TRAINER, end_process=has_ended.set)
    host.attempts = (AttemptReport(attempt_id="t.1", state=AttemptState.running),)
    runner.start()

    runner.abandon()

    assert has_ended.wait(10.0)
    assert host.is_closed
    assert host.taken == [Orders(stops=(Stop(attempt_id="t.1", mode=StopMode.abort),))]


def test_merged_orders_keep_their_order() -> None:
    acknowledge = Acknowledge(attempt_id="t.1", num_parts=1)

    both = merged([grant(1), Orders(acknowledges=(acknowledge,)), grant(2)])

    assert [each.version for each in both.grants] == [1, 2]
    assert both.acknowledges == (acknowledge,)
    assert merged([]) == Orders()


def test_process_is_told_from_another_with_its_number() -> None:
    current = Process.current()
    assert current.is_alive()
    assert not Process(pid=current.pid, started_at=current.started_at - 60.0).is_alive()
    assert not Process(pid=2**22 + 1, started_at=current.started_at).is_alive()


def test_generator_without_a_model_is_refused_by_name() -> None:
    spec = HostSpec(name="gen-1", kind=HostKind.generator)
    with pytest.raises(ValueError, match="gen-1: a generator needs a model"):
        make_host(spec, lambda _: pytest.fail("nothing to launch"), None, 1)


def test_engine_of_a_server_that_wants_a_key_is_not_made_without_one() -> None:
    endpoint = EndpointOptions(base_url="http://127.0.0.1:1/v1", model="m", api_key_env="LAB_KEY")
    model = ModelSpec(name="api", path="", revision="r", context_len=64, cost=COST, endpoint=endpoint)
    spec = HostSpec(name="gen-1", kind=HostKind.generator, model=model)

    with pytest.raises(InvalidInput, match=r"api: needs the key of http://127.0.0.1:1/v1, got none"):
        engine_factory(spec, {"http://127.0.0.1:2/v1": "other"})()


def test_local_cluster_closed_leaves_no_thread_of_its_hosts() -> None:
    before = set(threading.enumerate())
    cluster = LocalCluster()
    cluster.start_host(HostSpec(name="disp", kind=HostKind.dispatcher))
    assert cluster.observe().hosts["disp"].state is HostState.ready

    cluster.close()

    for thread in set(threading.enumerate()) - before:
        thread.join(10.0)
    assert set(threading.enumerate()) <= before
