"""DispatcherHost with attempts that end when the test says so; and the real attempts in threads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.cluster import Acknowledge, AttemptReport, AttemptState, HostState, Orders, Stop, StopMode
from service.currency import Currency
from service.errors import CorruptFile, InvalidInput
from service.flops import ForwardCost
from service.jobs import PromptSpec
from service.models import EngineOptions, ModelSpec
from service.receipts import Receipt, Usage
from service.records import PROBLEM_SCHEMA, ProblemRow
from service.sampling import SamplingSpec
from service.work import AttemptSpec, GenerateWork, PrepareWork, ScoreWork, TaskKind
from workers.dispatcher import DispatcherHost, Handle, run_attempt, thread_launcher
from workers.host_attempts import Failure

MODEL = ModelSpec(
    name="sim",
    path="",
    revision="sha256:0",
    context_len=128,
    cost=ForwardCost(
        body_flops_per_token=1e6,
        head_flops_per_token=1e5,
        attention=(),
        parameters=500_000,
        active_parameters=500_000,
        embedding_parameters=0,
    ),
    engine=EngineOptions(simulated=True),
)
RECEIPT = Receipt(part=0, path="x", sha256="0", rows=1, usage=Usage(busy_s=2.0))


@dataclass
class Controlled:
    """A handle that is done when somebody sets an outcome."""

    outcome: Receipt | Failure | None = None
    is_cancelled: bool = False

    def is_done(self) -> bool:
        return self.outcome is not None

    def result(self) -> Receipt | Failure:
        assert self.outcome is not None
        return self.outcome

    def cancel(self) -> None:
        self.is_cancelled = True
        self.outcome = Failure(error="killed", is_retriable=True)


@dataclass
class Launcher:
    """Remembers what was launched."""

    handles: dict[str, Controlled] = field(default_factory=dict)

    def __call__(self, spec: AttemptSpec) -> Handle:
        assert spec.attempt_id not in self.handles, f"{spec.attempt_id} was launched twice"
        return self.handles.setdefault(spec.attempt_id, Controlled())


def attempt(name: str, out_dir: str = "nowhere") -> AttemptSpec:
    work = ScoreWork(model="m", shard_path="s", shard_sha256="0", problems_path="p", scorers=("math_answer",))
    return AttemptSpec(attempt_id=name, job_id="job", kind=TaskKind.score, work=work, out_dir=out_dir)


def reports(host: DispatcherHost, orders: Orders | None = None) -> dict[str, AttemptReport]:
    return {report.attempt_id: report for report in host.exchange(orders or Orders()).attempts}


def submit(host: DispatcherHost, *names: str) -> dict[str, AttemptReport]:
    return reports(host, Orders(submits=tuple(attempt(name) for name in names)))


def test_dispatcher_runs_a_bounded_number_in_order_of_submission() -> None:
    launcher = Launcher()
    host = DispatcherHost(launch=launcher, max_running=2)

    submit(host, "a.1", "b.1", "c.1", "d.1")
    assert list(launcher.handles) == ["a.1", "b.1"]

    launcher.handles["b.1"].outcome = RECEIPT
    assert host.exchange(Orders()).running_requests == 2
    assert list(launcher.handles) == ["a.1", "b.1", "c.1"]


def test_dispatcher_reports_each_outcome_until_it_is_acknowledged() -> None:
    launcher = Launcher()
    host = DispatcherHost(launch=launcher, max_running=3)
    assert submit(host, "a.1", "b.1", "c.1")["a.1"].state is AttemptState.running

    launcher.handles["a.1"].outcome = RECEIPT
    launcher.handles["b.1"].outcome = Failure.of(InvalidInput("max_tokens is too large"))
    launcher.handles["c.1"].outcome = Failure.of(CorruptFile("s: missing"))

    for _ in range(2):
        seen = reports(host)
        assert (seen["a.1"].state, seen["a.1"].receipts) == (AttemptState.succeeded, (RECEIPT,))
        assert (seen["b.1"].state, seen["b.1"].is_retriable) == (AttemptState.failed, False)
        assert seen["b.1"].error == "InvalidInput: max_tokens is too large"
        assert (seen["c.1"].state, seen["c.1"].is_retriable) == (AttemptState.failed, True)
    assert host.exchange(Orders()).busy_s == 2.0

    acknowledged = reports(host, Orders(acknowledges=(Acknowledge(attempt_id="a.1", num_parts=1),)))
    assert acknowledged["a.1"].receipts == ()
    forget = Acknowledge(attempt_id="a.1", num_parts=1, is_forgotten=True)
    assert "a.1" not in reports(host, Orders(acknowledges=(forget,)))


def test_dispatcher_repeated_orders_launch_nothing_twice() -> None:
    launcher = Launcher()
    host = DispatcherHost(launch=launcher, max_running=4)

    submit(host, "a.1")
    submit(host, "a.1")
    reports(host, Orders(acknowledges=(Acknowledge(attempt_id="a.1", num_parts=0, is_forgotten=True),)))

    assert submit(host, "a.1") == {}
    assert launcher.handles["a.1"].is_cancelled


@pytest.mark.parametrize("mode", list(StopMode))
def test_dispatcher_stop_ends_what_waits_and_aborts_what_runs(mode: StopMode) -> None:
    launcher = Launcher()
    host = DispatcherHost(launch=launcher, max_running=1)
    submit(host, "running.1", "waiting.1")

    stops = tuple(Stop(attempt_id=name, mode=mode) for name in ("running.1", "waiting.1", "unknown.1"))
    seen = reports(host, Orders(stops=stops))

    assert seen["waiting.1"].state is AttemptState.stopped
    expected = AttemptState.stopped if mode is StopMode.abort else AttemptState.running
    assert seen["running.1"].state is expected


def test_dispatcher_result_that_was_already_there_counts_though_stopped() -> None:
    launcher = Launcher()
    host = DispatcherHost(launch=launcher)
    submit(host, "a.1")
    launcher.handles["a.1"].cancel = lambda: None  # type: ignore[method-assign]

    reports(host, Orders(stops=(Stop(attempt_id="a.1", mode=StopMode.abort),)))
    launcher.handles["a.1"].outcome = RECEIPT

    assert reports(host)["a.1"].state is AttemptState.succeeded


def test_dispatcher_drain_finishes_what_runs_and_takes_nothing_more() -> None:
    launcher = Launcher()
    host = DispatcherHost(launch=launcher, max_running=1)
    submit(host, "a.1", "b.1")

    host.drain()
    assert host.exchange(Orders()).state is HostState.draining
    assert not host.is_drained
    assert submit(host, "c.1")["c.1"].state is AttemptState.stopped
    launcher.handles["a.1"].outcome = RECEIPT

    assert host.is_drained
    assert reports(host)["b.1"].state is AttemptState.stopped
    assert list(launcher.handles) == ["a.1"]


def test_dispatcher_generate_attempt_is_refused_and_not_retried() -> None:
    runs = np.zeros((0, 3), dtype=np.int32)
    work = GenerateWork(
        model=MODEL, prepared_path="p", sampling=SamplingSpec(), currency=Currency.flops, runs=runs, seed=0
    )
    spec = AttemptSpec(attempt_id="g.1", job_id="job", kind=TaskKind.generate, work=work, out_dir="nowhere")

    report = reports(DispatcherHost(launch=Launcher()), Orders(submits=(spec,)))["g.1"]

    assert (report.state, report.is_retriable) == (AttemptState.failed, False)
    assert "prepare, score, select and import" in str(report.error)


def prepare_attempt(directory: Path) -> AttemptSpec:
    row = ProblemRow(problem_id="p0", question="2+3?", reference="#### 5", level=None, structure=None)
    pq.write_table(pa.Table.from_pylist([asdict(row)], schema=PROBLEM_SCHEMA), directory / "problems.parquet")
    work = PrepareWork(
        model=MODEL,
        problems_path=str(directory / "problems.parquet"),
        num_problems=1,
        prompt=PromptSpec(),
        sampling=SamplingSpec(max_tokens=8),
        seed=0,
    )
    out_dir = str(directory / "p.1")
    return AttemptSpec(attempt_id="p.1", job_id="job", kind=TaskKind.prepare, work=work, out_dir=out_dir)


def test_run_attempt_twice_gives_the_same_receipt_and_one_file(tmp_path: Path) -> None:
    spec = prepare_attempt(tmp_path)

    first, second = run_attempt(spec), run_attempt(spec)

    assert (first.path, first.sha256, first.facts) == (second.path, second.sha256, second.facts)
    assert [path.name for path in (tmp_path / "p.1").iterdir()] == ["part-00000.parquet"]


def test_thread_launcher_brings_receipts_and_errors_back(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        launch = thread_launcher(pool)
        good, bad = launch(prepare_attempt(tmp_path)), launch(attempt("s.1", out_dir=str(tmp_path / "s.1")))

    assert good.is_done()
    assert isinstance(good.result(), Receipt)
    assert bad.result() == Failure(error="CorruptFile: s: missing", is_retriable=True)
