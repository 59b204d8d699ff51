"""One Ray head for the whole session, a cluster of either kind per test, and ready attempts to send to them."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
)
from service.currency import Currency
from service.flops import ForwardCost
from service.jobs import PromptSpec
from service.models import EngineOptions, ModelSpec
from service.records import PROBLEM_SCHEMA, ProblemRow
from service.sampling import SamplingSpec
from service.work import AttemptSpec, GenerateWork, PrepareWork, TaskKind
from tests.slow_hosts import slow_hosts as make_slow_hosts
from workers.dispatcher import Launch, run_attempt
from workers.engine_protocol import Engine
from workers.generator import GeneratorHost
from workers.hosts import MakeHost, RunnableHost
from workers.local_cluster import LocalCluster
from workers.ray_cluster import RayCluster
from workers.ray_head import RayHead, start_head
from workers.simulated_engine import SimulatedEngine

T = TypeVar("T")
AnyCluster = LocalCluster | RayCluster
PATIENCE_S = 60.0
NUM_PROBLEMS = 4
MAX_TOKENS = 64


def until(look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """What `look` finds, asked again until it finds something; fails with `what` when patience ends."""
    deadline = time.monotonic() + patience_s
    while (found := look()) is None or found is False:
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.02)
    return found


def stuck_hosts() -> MakeHost:
    """Generators whose engine never returns from the step after the first one that finished a sample."""

    def build(spec: HostSpec, launch: Launch, node: str | None, max_running: int) -> RunnableHost:
        class StuckEngine(SimulatedEngine):
            has_finished = False

            def step(self):  # without annotations, whose names would not be shipped
                if self.has_finished:
                    threading.Event().wait()
                finished = super().step()
                self.has_finished = bool(finished)
                return finished

        return GeneratorHost(engine_factory=lambda: StuckEngine(max_num_seqs=8, tokens_per_step=1), node=node)

    return build


def broken_hosts() -> MakeHost:
    """Generators whose engine cannot be built."""

    def build(spec: HostSpec, launch: Launch, node: str | None, max_running: int) -> RunnableHost:
        def engine() -> Engine:
            raise ValueError("the weights are for another model")

        return GeneratorHost(engine_factory=engine, node=node)

    return build


@dataclass
class World:
    """A problem set, a simulated model and attempts on them."""

    directory: Path
    model: ModelSpec
    problems_path: str
    prepared_path: str
    runs: list[list[int]] = field(default_factory=lambda: [[problem, 0, 10] for problem in range(NUM_PROBLEMS)])

    @property
    def num_planned(self) -> int:
        return sum(count for _, _, count in self.runs)

    def generator(self, name: str = "gen") -> HostSpec:
        return HostSpec(name=name, kind=HostKind.generator, model=self.model, num_cpus=0.5)

    def dispatcher(self, name: str = "disp") -> HostSpec:
        return HostSpec(name=name, kind=HostKind.dispatcher, num_cpus=0.01)

    def prepare(self, name: str = "prepare.1", template: str = "{question}\n") -> AttemptSpec:
        work = PrepareWork(
            model=self.model,
            problems_path=self.problems_path,
            num_problems=NUM_PROBLEMS,
            prompt=PromptSpec(template=template),
            sampling=SamplingSpec(max_tokens=MAX_TOKENS),
            seed=1,
        )
        return self.attempt(name, TaskKind.prepare, work)

    def generate(self, name: str = "task.1", *, flush_s: float = 30.0, flush_rows: int = 20_000) -> AttemptSpec:
        work = GenerateWork(
            model=self.model,
            prepared_path=self.prepared_path,
            sampling=SamplingSpec(max_tokens=MAX_TOKENS),
            currency=Currency.samples,
            runs=np.array(self.runs, dtype=np.int32),
            seed=7,
            flush_s=flush_s,
            flush_rows=flush_rows,
        )
        return self.attempt(name, TaskKind.generate, work)

    def attempt(self, name: str, kind: TaskKind, work: object) -> AttemptSpec:
        out_dir = str(self.directory / "attempts" / name)
        return AttemptSpec(attempt_id=name, job_id="job", kind=kind, work=work, out_dir=out_dir)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    rows = [
        ProblemRow(problem_id=f"p{i}", question=f"[answer={i}]", reference=f"#### {i}", level=None, structure=None)
        for i in range(NUM_PROBLEMS)
    ]
    problems_path = tmp_path / "problems.parquet"
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=PROBLEM_SCHEMA), problems_path)
    cost = ForwardCost(
        body_flops_per_token=1e6,
        head_flops_per_token=1e5,
        attention=(),
        parameters=500_000,
        active_parameters=500_000,
        embedding_parameters=0,
    )
    model = ModelSpec(
        name="sim",
        path="",
        revision="sha256:0",
        context_len=256,
        cost=cost,
        engine=EngineOptions(simulated=True, max_num_seqs=8),
    )
    world = World(directory=tmp_path, model=model, problems_path=str(problems_path), prepared_path="")
    world.prepared_path = run_attempt(world.prepare()).path
    return world


class Driver:
    """A controller's habits against any cluster: sends, looks, acknowledges."""

    def __init__(self, cluster: AnyCluster) -> None:
        self.cluster = cluster
        self.version = 0

    def host(self, name: str) -> HostReport | None:
        return self.cluster.observe().hosts.get(name)

    def attempt(self, host: str, attempt_id: str) -> AttemptReport | None:
        report = self.host(host)
        found = () if report is None else report.attempts
        return next((attempt for attempt in found if attempt.attempt_id == attempt_id), None)

    def start(self, spec: HostSpec) -> HostReport:
        self.cluster.start_host(spec)
        return self.until_state(spec.name, HostState.ready)

    def until_state(self, name: str, *states: HostState) -> HostReport:
        def look() -> HostReport | None:
            report = self.host(name)
            return report if report is not None and report.state in states else None

        return until(look, f"{name} to be {' or '.join(states)}, it is {self.host(name)}")

    def until_attempt(self, host: str, attempt_id: str, is_so: Callable[[AttemptReport], bool]) -> AttemptReport:
        def look() -> AttemptReport | None:
            attempt = self.attempt(host, attempt_id)
            return attempt if attempt is not None and is_so(attempt) else None

        return until(look, f"{attempt_id} on {host}, of which is known {self.host(host)}")

    def until_over(self, host: str, attempt_id: str) -> AttemptReport:
        return self.until_attempt(host, attempt_id, lambda attempt: attempt.state is not AttemptState.running)

    def submit(self, host: str, *specs: AttemptSpec, credit: float = 1e9) -> None:
        self.version += 1
        grants = tuple(Grant(attempt_id=spec.attempt_id, version=self.version, credit=credit) for spec in specs)
        self.cluster.send(host, Orders(submits=specs, grants=grants))

    def grant(self, host: str, attempt_id: str, credit: float) -> None:
        self.version += 1
        grant = Grant(attempt_id=attempt_id, version=self.version, credit=credit)
        self.cluster.send(host, Orders(grants=(grant,)))

    def forget(self, host: str, attempt_id: str, num_parts: int) -> None:
        acknowledge = Acknowledge(attempt_id=attempt_id, num_parts=num_parts, is_forgotten=True)
        self.cluster.send(host, Orders(acknowledges=(acknowledge,)))

    def kill(self, name: str) -> None:
        """kill -9 of the host's process, or the twin's picture of it."""
        if isinstance(self.cluster, LocalCluster):
            self.cluster.kill(name)
        else:
            report = self.host(name)
            assert report is not None
            assert report.pid is not None
            os.kill(report.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    head = start_head(tmp_path_factory.mktemp("ray"), num_cpus=4)
    yield head
    head.stop()


@pytest.fixture(scope="session")
def connected(head: RayHead) -> Iterator[RayHead]:
    """Keeps one connection for the session, so that no test pays for its own."""
    keeper = RayCluster(address=head.address, token_path=head.token_path, namespace="keeper")
    yield head
    keeper.close()


@pytest.fixture
def ray_cluster(connected: RayHead) -> Iterator[Callable[..., RayCluster]]:
    """Makes clusters in a namespace of this test; ends whatever they left."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    made: list[RayCluster] = []

    def make(**options: object) -> RayCluster:
        arguments = {"address": connected.address, "namespace": namespace, "token_path": connected.token_path}
        made.append(RayCluster(**(arguments | options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
    last = make()
    end_all(last)
    last.close()


def end_all(cluster: AnyCluster) -> None:
    """Kills every host and waits until each is dead."""
    for name in cluster.observe().hosts:
        cluster.stop_host(name, is_forced=True)
    driver = Driver(cluster)
    for name in cluster.observe().hosts:
        driver.until_state(name, HostState.dead)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def new_driver(request: pytest.FixtureRequest) -> Iterator[Callable[..., Driver]]:
    """`new_driver(make_host=...)` drives a cluster of either kind."""
    local: list[LocalCluster] = []

    def make(**options: object) -> Driver:
        if request.param == "ray":
            return Driver(request.getfixturevalue("ray_cluster")(**options))
        local.append(LocalCluster(**options))  # type: ignore[arg-type]
        return Driver(local[-1])

    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    yield make
    for cluster in local:
        cluster.close()


@pytest.fixture
def slow() -> Callable[..., MakeHost]:
    return make_slow_hosts


@pytest.fixture
def stuck() -> Callable[[], MakeHost]:
    return stuck_hosts


@pytest.fixture
def broken() -> Callable[[], MakeHost]:
    return broken_hosts


@pytest.fixture
def wait_until() -> Callable[..., object]:
    return until


@pytest.fixture
def drive() -> Callable[[AnyCluster], Driver]:
    return Driver


@pytest.fixture
def drawn() -> Callable[[Sequence[str]], list[tuple[int, int]]]:
    """Samples in files, sorted, for comparison with a plan."""

    def read(paths: Sequence[str]) -> list[tuple[int, int]]:
        rows = [pq.read_table(path, columns=["problem_index", "sample_index"]).to_pylist() for path in paths]
        return sorted((row["problem_index"], row["sample_index"]) for part in rows for row in part)

    return read
