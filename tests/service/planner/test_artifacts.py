"""A selection's and a finetune's way from submission to the end, with a scripted cluster and a real database."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.artifacts import Artifact
from service.cluster import (
    AttemptReport,
    AttemptState,
    HostKind,
    HostReport,
    HostState,
    NodeStatus,
    Observation,
    StopMode,
)
from service.errors import Conflict
from service.finetunes import FinetuneSpec, TrainingSpec
from service.jobs import Desired, Phase
from service.models import ModelSpec
from service.planner import Options, Plan, Seen, plan
from service.planner.trainers import TRAINER_IDLE_S
from service.receipts import Receipt, Usage
from service.selection.spec import SelectionSource, SelectionSpec
from service.store import Store
from service.work import AttemptSpec, FinetuneWork, SelectSource, SelectWork, TaskKind
from tests.databases import new_store
from tests.simulation.world import COST

STUDENT = ModelSpec(name="m", path="/models/m", revision="sha256:0", context_len=64, cost=COST)
TRAINING = TrainingSpec(steps=40, num_checkpoints=2)


@dataclass(kw_only=True)
class ScriptedCluster:
    """What hosts are said to say; ticks are real plans on a real database."""

    store: Store
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    hosts: dict[str, HostReport] = field(default_factory=dict)
    submitted: dict[str, AttemptSpec] = field(default_factory=dict)
    salvaged: dict[str, tuple[Receipt, ...]] = field(default_factory=dict)
    last: Plan = field(default_factory=Plan)
    num_gpus: float = 0.0

    def tick(self, *, seconds: float = 1.0, is_draining: bool = False) -> Plan:
        self.now += timedelta(seconds=seconds)
        nodes = (NodeStatus(id="n", num_cpus=2.0, num_gpus=self.num_gpus),)
        seen = Seen(
            observation=Observation(hosts=dict(self.hosts), nodes=nodes),
            salvaged=self.salvaged,
            is_draining=is_draining,
        )
        self.last = plan(
            snapshot=self.store.snapshot(), seen=seen, states={}, now=self.now, options=Options(data_dir="data")
        )
        self.store.commit(self.last, self.now)
        for spec in self.last.start_hosts:
            self.hosts[spec.name] = HostReport(state=HostState.ready)
        for name, orders in self.last.orders.items():
            self.submitted |= {attempt.attempt_id: attempt for attempt in orders.submits}
            for attempt in orders.submits:
                self.report(name, AttemptReport(attempt_id=attempt.attempt_id, state=AttemptState.running))
            forgotten = {order.attempt_id for order in orders.acknowledges if order.is_forgotten}
            left = tuple(report for report in self.hosts[name].attempts if report.attempt_id not in forgotten)
            self.hosts[name] = HostReport(state=self.hosts[name].state, attempts=left)
        return self.last

    def report(self, host: str, report: AttemptReport) -> None:
        self.hosts[host] = HostReport(state=HostState.ready, attempts=(report,))

    def host(self, kind: HostKind) -> str:
        (name,) = [host.name for host in self.store.snapshot().hosts if host.kind is kind]
        return name

    def stops(self) -> list[StopMode]:
        return [stop.mode for orders in self.last.orders.values() for stop in orders.stops]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ScriptedCluster]:
    store = new_store(tmp_path)
    store.take_over("test")
    store.catalogue.register_model(STUDENT)
    yield ScriptedCluster(store=store)
    store.close()


def submit_selection(cluster: ScriptedCluster) -> Artifact:
    spec = SelectionSpec(name="correct ones", sources=(SelectionSource(job="job-1-aa"),))
    source = SelectSource(job_id="job-1-aa", manifest_path="manifest.json", problems_path="problems.parquet")
    return cluster.store.artifacts.submit(spec, SelectWork(spec=spec, sources=(source,), held_out=()), now=cluster.now)


def submit_finetune(cluster: ScriptedCluster) -> Artifact:
    spec = FinetuneSpec(name="student", base="m", dataset="select-1-aa", training=TRAINING)
    work = FinetuneWork(base=STUDENT, dataset_path="set.parquet", dataset_sha256="0", training=TRAINING)
    return cluster.store.artifacts.submit(spec, work, now=cluster.now)


def checkpoint(attempt_id: str, part: int, step: int) -> Receipt:
    return Receipt(
        part=part,
        path=f"data/{attempt_id}/checkpoint-{step}/checkpoint.json",
        sha256=f"{attempt_id}-{part}",
        rows=640,
        usage=Usage(flops=1e9, flops_paper=2e9, busy_s=3.0),
        facts={"step": float(step), "loss": 0.5},
    )


def start(cluster: ScriptedCluster, artifact: Artifact, kind: HostKind) -> tuple[str, str]:
    """Ticks until the artifact's attempt is on a host: the host's name and the attempt's id."""
    for _ in range(4):
        cluster.tick()
    (attempt_id,) = [attempt.attempt_id for attempt in cluster.submitted.values() if attempt.job_id == artifact.id]
    return cluster.host(kind), attempt_id


def test_selection_runs_on_a_dispatcher_and_succeeds(cluster: ScriptedCluster) -> None:
    selection = submit_selection(cluster)
    host, attempt_id = start(cluster, selection, HostKind.dispatcher)
    assert cluster.store.artifacts.get(selection.id).phase is Phase.running

    receipt = Receipt(part=0, path="set.parquet", sha256="1", rows=7, usage=Usage(busy_s=0.1))
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.succeeded, receipts=(receipt,)))
    cluster.tick()

    assert cluster.store.artifacts.get(selection.id).phase is Phase.succeeded
    (part,) = cluster.store.reads.parts(selection.id, TaskKind.select)
    assert (part.rows, part.path) == (7, "set.parquet")
    assert cluster.store.jobs.list() == []


def test_finetune_commits_checkpoints_as_models_of_its_base(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)

    first = checkpoint(attempt_id, 0, 20)
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.running, receipts=(first,)))
    cluster.tick()
    model = cluster.store.catalogue.model(f"{student.id}/step-20")
    assert (model.base, model.pool, model.path) == ("m", "m", f"data/{attempt_id}/checkpoint-20")
    assert [pool.model for pool in cluster.store.catalogue.pools()] == ["m"]

    # reported again until it is acknowledged: committed once
    last = checkpoint(attempt_id, 1, 40)
    ended = AttemptReport(attempt_id=attempt_id, state=AttemptState.succeeded, receipts=(first, last))
    cluster.report(host, ended)
    cluster.tick()

    assert cluster.store.artifacts.get(student.id).phase is Phase.succeeded
    usage = cluster.store.reads.usage(job_id=student.id)
    assert {(row.stage, row.outcome, row.model) for row in usage} == {("finetune", "useful", "m")}
    assert sum(row.flops for row in usage) == 2e9


def test_finetune_lost_goes_on_from_its_last_checkpoint(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)
    assert isinstance(work := cluster.submitted[attempt_id].work, FinetuneWork)
    assert work.resume_from is None

    # it wrote its first checkpoint, and died before anybody heard of it
    cluster.salvaged[attempt_id] = (checkpoint(attempt_id, 0, 20),)
    cluster.hosts[host] = HostReport(state=HostState.dead)
    for _ in range(4):
        cluster.tick()

    again = f"{student.id}-0.2"
    assert isinstance(work := cluster.submitted[again].work, FinetuneWork)
    assert work.resume_from == f"data/{attempt_id}/checkpoint-20"
    cluster.report(
        cluster.host(HostKind.trainer),
        AttemptReport(attempt_id=again, state=AttemptState.succeeded, receipts=(checkpoint(again, 0, 40),)),
    )
    cluster.tick()
    assert cluster.store.artifacts.get(student.id).phase is Phase.succeeded
    assert len(cluster.store.reads.parts(student.id, TaskKind.finetune)) == 2


def test_finetune_that_fails_for_good_says_why(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)

    failed = AttemptReport(
        attempt_id=attempt_id, state=AttemptState.failed, error="InvalidInput: no rows", is_retriable=False
    )
    cluster.report(host, failed)
    cluster.tick()

    found = cluster.store.artifacts.get(student.id)
    assert (found.phase, found.error) == (Phase.failed, "InvalidInput: no rows")


def test_finetune_paused_stops_and_goes_on_when_asked(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)
    first = checkpoint(attempt_id, 0, 20)
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.running, receipts=(first,)))
    cluster.tick()

    cluster.store.artifacts.set_desired(student.id, Desired.pause)
    cluster.tick()
    assert cluster.stops() == [StopMode.finish]
    assert cluster.store.artifacts.get(student.id).phase is Phase.pausing
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.stopped))
    cluster.tick()
    assert cluster.store.artifacts.get(student.id).phase is Phase.paused

    cluster.store.artifacts.set_desired(student.id, Desired.run)
    cluster.tick()
    assert isinstance(work := cluster.submitted[f"{student.id}-0.2"].work, FinetuneWork)
    assert work.resume_from == f"data/{attempt_id}/checkpoint-20"


def test_finetune_cancelled_keeps_its_checkpoints(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)
    first = checkpoint(attempt_id, 0, 20)
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.running, receipts=(first,)))
    cluster.tick()

    cluster.store.artifacts.set_desired(student.id, Desired.cancel)
    cluster.tick()
    assert cluster.stops() == [StopMode.abort]
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.stopped))
    cluster.tick()

    assert cluster.store.artifacts.get(student.id).phase is Phase.cancelled
    assert cluster.store.catalogue.model(f"{student.id}/step-20").base == "m"
    with pytest.raises(Conflict, match="is cancelled"):
        cluster.store.artifacts.set_desired(student.id, Desired.run)


@pytest.mark.parametrize(
    ("error", "num_tries", "words"),
    [("ImportError: no trl", 3, "ImportError: no trl"), (None, 6, "its process is gone")],
)
def test_finetunes_fail_when_no_trainer_starts_sooner_where_it_says_why(
    cluster: ScriptedCluster, error: str | None, num_tries: int, words: str
) -> None:
    student = submit_finetune(cluster)
    for _ in range(20):
        cluster.tick()
        for name in cluster.hosts:
            if name.startswith("train-"):
                cluster.hosts[name] = HostReport(state=HostState.dead, error=error)

    found = cluster.store.artifacts.get(student.id)
    assert (found.phase, found.error) == (Phase.failed, f"no trainer starts: {words}")
    assert sum(name.startswith("train-") for name in cluster.hosts) == num_tries


def test_trainer_leaves_when_it_has_rested(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.succeeded))
    cluster.tick()
    cluster.tick(seconds=TRAINER_IDLE_S / 2)
    assert cluster.last.stop_hosts == ()

    cluster.tick(seconds=TRAINER_IDLE_S + 1.0)

    assert (host, False) in cluster.last.stop_hosts


def test_leaving_controller_lets_a_finetune_stop_at_a_step(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, attempt_id = start(cluster, student, HostKind.trainer)

    cluster.tick(is_draining=True)
    assert cluster.stops() == [StopMode.finish]
    cluster.report(host, AttemptReport(attempt_id=attempt_id, state=AttemptState.stopped))
    cluster.tick(is_draining=True)

    (task,) = cluster.store.snapshot().tasks
    assert task.state.value == "pending"


def test_trainer_waits_for_the_only_gpu_until_its_idle_engine_has_left(cluster: ScriptedCluster) -> None:
    cluster.num_gpus = 1.0
    cluster.store.catalogue.change_pool("m", minimum=1)
    cluster.tick()
    (engine,) = cluster.hosts
    assert engine.startswith("generate-m")
    cluster.tick()

    submit_finetune(cluster)
    cluster.tick()
    cluster.tick()
    assert (engine, False) in cluster.last.stop_hosts
    assert [name for name in cluster.hosts if name.startswith("train-")] == []
    cluster.hosts[engine] = HostReport(state=HostState.dead)
    cluster.tick()
    cluster.tick()

    # the pool's minimum has to wait: the finetune was there first
    assert [host.kind for host in cluster.store.snapshot().hosts if host.kind is not HostKind.dispatcher] == [
        HostKind.trainer
    ]


def test_trainer_shares_the_cores_where_there_are_no_gpus(cluster: ScriptedCluster) -> None:
    cluster.store.catalogue.change_pool("m", replicas=2, minimum=2)
    cluster.tick()
    submit_finetune(cluster)
    for _ in range(3):
        cluster.tick()

    kinds = [host.kind for host in cluster.store.snapshot().hosts]
    assert (kinds.count(HostKind.generator), kinds.count(HostKind.trainer)) == (2, 1)


def test_finetune_paused_before_it_began_begins_when_resumed(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    cluster.store.artifacts.set_desired(student.id, Desired.pause)
    cluster.tick()
    assert cluster.store.artifacts.get(student.id).phase is Phase.paused

    cluster.store.artifacts.set_desired(student.id, Desired.run)
    cluster.tick()
    assert cluster.store.artifacts.get(student.id).phase is Phase.queued
    start(cluster, student, HostKind.trainer)
    assert cluster.store.artifacts.get(student.id).phase is Phase.running


def test_finetune_that_waits_for_a_trainer_is_queued(cluster: ScriptedCluster) -> None:
    first, second = submit_finetune(cluster), submit_finetune(cluster)
    for _ in range(4):
        cluster.tick()

    phases = [cluster.store.artifacts.get(artifact.id).phase for artifact in (first, second)]
    assert phases == [Phase.running, Phase.queued]


def test_finetune_that_was_lost_says_once_that_it_waits_for_the_next_trainer(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, _ = start(cluster, student, HostKind.trainer)
    cluster.hosts[host] = HostReport(state=HostState.dead, error="killed")
    cluster.tick()
    for _ in range(3):
        for name in cluster.hosts:
            if name != host and name.startswith("train-"):
                cluster.hosts[name] = HostReport(state=HostState.loading, load_s=1.0)
        cluster.tick(seconds=20.0)

    events = cluster.store.reads.events(job_id=student.id)
    assert [event.message for event in events if event.kind == "waiting"] == [
        f"{student.id}-0 has waited over 30 s for a trainer"
    ]


def test_finetune_cancelled_as_it_is_lost_does_not_go_again(cluster: ScriptedCluster) -> None:
    student = submit_finetune(cluster)
    host, _ = start(cluster, student, HostKind.trainer)
    cluster.store.artifacts.set_desired(student.id, Desired.cancel)
    cluster.hosts[host] = HostReport(state=HostState.dead)
    cluster.tick()

    assert cluster.store.artifacts.get(student.id).phase is Phase.cancelled
    assert cluster.store.snapshot().tasks == ()
