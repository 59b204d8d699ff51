"""TrainerHost with training that goes one step whenever the test lets it."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.checkpoints import write_checkpoint
from service.cluster import Acknowledge, AttemptReport, AttemptState, HostReport, HostState, Orders, Stop, StopMode
from service.devices import Devices
from service.errors import InvalidInput
from service.receipts import Receipt, Usage
from service.work import AttemptSpec, FinetuneWork, ScoreWork, TaskKind
from tests.workers.finetune_work import finetune_attempt, finetune_work
from workers.trainer import Progress, TrainerHost

PATIENCE_S = 20.0


@dataclass(frozen=True)
class FakeLine:
    step: int
    tokens: int


@dataclass
class FakeTraining:
    """Stands for `workers.finetune.finetune`: each command lets the run on by one step, or breaks it."""

    commands: "queue.Queue[str | BaseException]" = field(default_factory=queue.Queue)
    begun: list[str] = field(default_factory=list)

    def __call__(
        self,
        work: FinetuneWork,
        out_dir: str | Path,
        *,
        on_log: Callable[[Progress], None],
        on_checkpoint: Callable[[Receipt], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.begun.append(Path(out_dir).name)
        for step in range(1, work.training.steps + 1):
            command = self.commands.get(timeout=PATIENCE_S)
            if isinstance(command, BaseException):
                raise command
            if command == "end":
                return
            on_log(FakeLine(step, 10 * step))
            if step % 2 == 0:
                on_checkpoint(receipt(part=step // 2 - 1, step=step))
            if should_stop():
                return

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.commands.put("step")


@dataclass
class Rig:
    training: FakeTraining = field(default_factory=FakeTraining)

    def __post_init__(self) -> None:
        self.host = TrainerHost(load=lambda: self.training, node="n1")

    def until(self, is_reached: Callable[[HostReport], bool], orders: Orders | None = None) -> HostReport:
        """Exchanges until the report says so; the thread that trains needs a moment for what it was told."""
        report = self.host.exchange(orders or Orders())
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached(report):
            assert time.monotonic() < deadline, f"not reached: {report}"
            threading.Event().wait(0.002)
            report = self.host.exchange(Orders())
        return report


@pytest.fixture
def rig() -> Generator[Rig, None, None]:
    rig = Rig()
    rig.host.start()
    yield rig
    rig.training.advance(50)
    rig.host.close(PATIENCE_S)


def receipt(*, part: int, step: int) -> Receipt:
    usage = Usage(prompt_tokens=1, busy_s=1.0)
    return Receipt(part=part, path="x", sha256="0", rows=1, usage=usage, facts={"step": float(step), "loss": 1.0})


def submits(*specs: AttemptSpec) -> Orders:
    return Orders(submits=specs)


def attempt_of(report: HostReport, name: str) -> AttemptReport:
    return next(attempt for attempt in report.attempts if attempt.attempt_id == name)


def is_in(name: str, state: AttemptState) -> Callable[[HostReport], bool]:
    return lambda report: attempt_of(report, name).state is state


def has_done(name: str, steps: int) -> Callable[[HostReport], bool]:
    return lambda report: attempt_of(report, name).finished == steps


def test_trainer_is_loading_until_its_libraries_are_there() -> None:
    is_loaded = threading.Event()
    training = FakeTraining()

    def load() -> FakeTraining:
        is_loaded.wait(PATIENCE_S)
        return training

    rig = Rig()
    rig.host = TrainerHost(load=load)
    assert rig.host.state is HostState.starting
    rig.host.start()
    loading = rig.host.exchange(Orders())
    assert loading.state is HostState.loading
    assert loading.load_s is not None
    is_loaded.set()
    ready = rig.until(lambda report: report.state is HostState.ready)
    assert ready.load_s is not None
    assert ready.load_s >= loading.load_s
    rig.host.close(PATIENCE_S)


def test_trainer_whose_libraries_cannot_be_loaded_is_failed_and_returns_its_attempts(tmp_path: Path) -> None:
    def load() -> FakeTraining:
        raise ImportError("no module named trl")

    rig = Rig()
    rig.host = TrainerHost(load=load)
    rig.host.start()
    report = rig.until(lambda report: report.state is HostState.failed, submits(finetune_attempt(tmp_path, "a.1")))
    assert report.error == "ImportError: no module named trl"
    assert attempt_of(report, "a.1").state is AttemptState.stopped


def test_trainer_reports_steps_and_checkpoints_while_it_trains(rig: Rig, tmp_path: Path) -> None:
    rig.training.advance(3)
    report = rig.until(has_done("a.1", 3), submits(finetune_attempt(tmp_path, "a.1")))
    running = attempt_of(report, "a.1")
    assert (running.state, running.admitted, running.finished) == (AttemptState.running, 4, 3)
    assert [part.part for part in running.receipts] == [0]
    assert report.running_requests == 1
    assert report.total_tokens == 20

    rig.training.advance(1)
    report = rig.until(is_in("a.1", AttemptState.succeeded))
    assert [part.part for part in attempt_of(report, "a.1").receipts] == [0, 1]
    assert report.running_requests == 0


def test_trainer_trains_one_attempt_after_another_in_order_of_submission(rig: Rig, tmp_path: Path) -> None:
    specs = [finetune_attempt(tmp_path, name) for name in ("a.1", "b.1", "c.1")]
    rig.training.advance(6)
    report = rig.until(has_done("b.1", 2), submits(*specs))
    assert rig.training.begun == ["a.1", "b.1"]
    assert attempt_of(report, "c.1").state is AttemptState.running
    assert attempt_of(report, "c.1").finished == 0


def test_attempt_submitted_twice_is_trained_once_even_after_it_was_forgotten(rig: Rig, tmp_path: Path) -> None:
    spec = finetune_attempt(tmp_path, "a.1")
    rig.training.advance(4)
    rig.until(is_in("a.1", AttemptState.succeeded), submits(spec, spec))
    rig.host.exchange(submits(spec))
    forget = Acknowledge(attempt_id="a.1", num_parts=2, is_forgotten=True)
    assert rig.host.exchange(Orders(acknowledges=(forget,))).attempts == ()
    assert rig.host.exchange(submits(spec)).attempts == ()
    assert rig.training.begun == ["a.1"]


def test_acknowledged_checkpoints_are_not_reported_again_and_still_count(rig: Rig, tmp_path: Path) -> None:
    rig.training.advance(2)
    rig.until(has_done("a.1", 2), submits(finetune_attempt(tmp_path, "a.1")))
    rig.host.exchange(Orders(acknowledges=(Acknowledge(attempt_id="a.1", num_parts=1),)))
    rig.training.advance(2)
    report = rig.until(is_in("a.1", AttemptState.succeeded))
    assert [part.part for part in attempt_of(report, "a.1").receipts] == [1]


@pytest.mark.parametrize("mode", list(StopMode))
def test_stopped_attempt_ends_after_its_step_and_keeps_its_checkpoint(rig: Rig, tmp_path: Path, mode: StopMode) -> None:
    rig.training.advance(2)
    rig.until(has_done("a.1", 2), submits(finetune_attempt(tmp_path, "a.1")))
    rig.host.exchange(Orders(stops=(Stop(attempt_id="a.1", mode=mode),)))
    rig.training.advance(1)
    stopped = attempt_of(rig.until(is_in("a.1", AttemptState.stopped)), "a.1")
    assert (stopped.finished, len(stopped.receipts), stopped.error) == (3, 1, None)
    assert rig.host.exchange(Orders()).state is HostState.ready


def test_stopped_attempt_accounts_for_all_its_time_on_the_gpus_it_held(tmp_path: Path) -> None:
    now = 0.0
    rig = Rig()
    rig.host = TrainerHost(load=lambda: rig.training, clock=lambda: now, devices=Devices(gpus=2))
    rig.host.start()
    rig.until(lambda report: report.state is HostState.ready)
    rig.training.advance(2)
    rig.until(has_done("a.1", 2), submits(finetune_attempt(tmp_path, "a.1")))  # its checkpoint says that it took 1 s
    now = 7.0
    assert attempt_of(rig.host.exchange(Orders()), "a.1").busy_s == 7.0
    rig.host.exchange(Orders(stops=(Stop(attempt_id="a.1", mode=StopMode.finish),)))
    rig.training.advance(1)
    report = rig.until(is_in("a.1", AttemptState.stopped))

    stopped = attempt_of(report, "a.1")
    assert stopped.wasted == Usage(busy_s=6.0, gpu_s=12.0)
    assert stopped.busy_s == report.busy_s == 7.0
    rig.host.close(PATIENCE_S)


def test_attempt_stopped_at_its_last_step_has_succeeded(rig: Rig, tmp_path: Path) -> None:
    rig.training.advance(3)
    rig.until(has_done("a.1", 3), submits(finetune_attempt(tmp_path, "a.1")))
    rig.host.exchange(Orders(stops=(Stop(attempt_id="a.1", mode=StopMode.finish),)))
    rig.training.advance(1)
    rig.until(is_in("a.1", AttemptState.succeeded))


def test_work_that_stays_wrong_fails_for_good_and_the_next_attempt_is_trained(rig: Rig, tmp_path: Path) -> None:
    specs = [finetune_attempt(tmp_path, name) for name in ("a.1", "b.1")]
    rig.training.commands.put(InvalidInput("the training set is empty"))
    rig.training.advance(4)
    report = rig.until(is_in("b.1", AttemptState.succeeded), submits(*specs))
    failed = attempt_of(report, "a.1")
    assert (failed.state, failed.is_retriable) == (AttemptState.failed, False)
    assert failed.error == "InvalidInput: the training set is empty"


def test_unknown_exception_fails_attempt_and_host_and_returns_what_waits(rig: Rig, tmp_path: Path) -> None:
    specs = [finetune_attempt(tmp_path, name) for name in ("a.1", "b.1")]
    rig.training.advance(2)
    rig.training.commands.put(RuntimeError("device-side assert"))
    report = rig.until(lambda report: report.state is HostState.failed, submits(*specs))
    failed = attempt_of(report, "a.1")
    assert (failed.state, failed.is_retriable, len(failed.receipts)) == (AttemptState.failed, True, 1)
    assert attempt_of(report, "b.1").state is AttemptState.stopped
    assert report.error == "a.1 raised RuntimeError: device-side assert"
    assert rig.training.begun == ["a.1"]


def test_training_that_ends_without_its_last_checkpoint_has_failed(rig: Rig, tmp_path: Path) -> None:
    rig.training.advance(3)
    rig.training.commands.put("end")
    failed = attempt_of(rig.until(is_in("a.1", AttemptState.failed), submits(finetune_attempt(tmp_path, "a.1"))), "a.1")
    assert failed.is_retriable
    assert failed.error == "training ended at step 3 of 4, its last checkpoint at 2"


def test_attempt_that_finds_the_last_checkpoint_made_by_one_before_has_succeeded(rig: Rig, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.1" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    write_checkpoint(checkpoint, receipt(part=1, step=4), {})
    rig.training.commands.put("end")
    work = finetune_work(resume_from=str(checkpoint))
    report = rig.until(is_in("a.2", AttemptState.succeeded), submits(finetune_attempt(tmp_path, "a.2", work)))

    found = attempt_of(report, "a.2")
    assert (found.finished, found.receipts) == (4, ())


def test_drained_trainer_ends_after_the_step_and_takes_no_more(rig: Rig, tmp_path: Path) -> None:
    specs = [finetune_attempt(tmp_path, name) for name in ("a.1", "b.1")]
    rig.training.advance(2)
    rig.until(has_done("a.1", 2), submits(*specs))
    rig.host.drain()
    assert not rig.host.is_drained
    assert rig.host.exchange(submits(finetune_attempt(tmp_path, "c.1"))).state is HostState.draining
    rig.training.advance(1)
    report = rig.until(lambda _: rig.host.is_drained)
    assert [attempt.state for attempt in report.attempts] == [AttemptState.stopped] * 3
    assert rig.training.begun == ["a.1"]


def test_forgotten_attempt_is_ended_and_makes_room_for_the_next(rig: Rig, tmp_path: Path) -> None:
    specs = [finetune_attempt(tmp_path, name) for name in ("a.1", "b.1")]
    rig.training.advance(1)
    rig.until(has_done("a.1", 1), submits(*specs))
    forget = Acknowledge(attempt_id="a.1", num_parts=0, is_forgotten=True)
    report = rig.host.exchange(Orders(acknowledges=(forget,)))
    assert [attempt.attempt_id for attempt in report.attempts] == ["b.1"]
    rig.training.advance(1 + 4)
    rig.until(is_in("b.1", AttemptState.succeeded))


def test_trainer_refuses_other_work(rig: Rig) -> None:
    work = ScoreWork(model="m", shard_path="s", shard_sha256="0", problems_path="p", scorers=("math_answer",))
    spec = AttemptSpec(attempt_id="a.1", job_id="job", kind=TaskKind.score, work=work, out_dir="nowhere")
    refused = attempt_of(rig.host.exchange(submits(spec)), "a.1")
    assert (refused.state, refused.is_retriable) == (AttemptState.failed, False)
    assert refused.error == "InvalidInput: a trainer runs finetune attempts, got score"
