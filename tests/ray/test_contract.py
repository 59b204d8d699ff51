"""One contract for both clusters: what `service.cluster` promises, against the local twin and against Ray."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.cluster import AttemptState, HostState, Orders, Stop, StopMode
from service.shards import check_file
from service.work import ScoreWork, TaskKind

NewDriver = Callable[..., Any]
Drawn = Callable[[Sequence[str]], list[tuple[int, int]]]


def planned(world: Any) -> list[tuple[int, int]]:
    return sorted((problem, first + i) for problem, first, count in world.runs for i in range(count))


def test_generator_with_credit_draws_the_plan_once_and_forgets_when_told(
    new_driver: NewDriver, world: Any, drawn: Drawn
) -> None:
    driver = new_driver()
    host = driver.start(world.generator())
    assert host.pid is not None
    assert host.node is not None
    driver.submit("gen", world.generate())

    report = driver.until_over("gen", "task.1")

    assert report.state is AttemptState.succeeded
    for receipt in report.receipts:
        check_file(receipt.path, receipt.sha256)
    assert drawn([receipt.path for receipt in report.receipts]) == planned(world)
    driver.forget("gen", "task.1", len(report.receipts))
    driver.submit("gen", world.generate("task.2"))
    driver.until_over("gen", "task.2")
    assert driver.attempt("gen", "task.1") is None


def test_generator_waits_for_credit_and_goes_on_with_a_newer_grant(new_driver: NewDriver, world: Any) -> None:
    driver = new_driver()
    driver.start(world.generator())
    driver.submit("gen", world.generate(), credit=5)

    waiting = driver.until_attempt("gen", "task.1", lambda report: report.used == 5)
    assert (waiting.state, waiting.admitted, waiting.next_worst) == (AttemptState.running, 5, 1.0)

    driver.grant("gen", "task.1", 1e9)
    report = driver.until_over("gen", "task.1")
    assert (report.state, report.finished) == (AttemptState.succeeded, world.num_planned)


def test_dispatcher_prepares_and_scores(new_driver: NewDriver, world: Any) -> None:
    driver = new_driver()
    driver.start(world.dispatcher())
    driver.start(world.generator())
    driver.submit("gen", world.generate())
    driver.submit("disp", world.prepare("prepare.2"))
    shard = driver.until_over("gen", "task.1").receipts[0]
    work = ScoreWork(
        model="sim",
        shard_path=shard.path,
        shard_sha256=shard.sha256,
        problems_path=world.problems_path,
        scorers=("math_answer",),
    )
    driver.submit("disp", world.attempt("score.1", TaskKind.score, work))

    prepared, scored = driver.until_over("disp", "prepare.2"), driver.until_over("disp", "score.1")

    assert prepared.error is scored.error is None
    assert prepared.receipts[0].facts["num_errors"] == 0
    assert scored.receipts[0].delta.is_correct.any()
    verdicts = pq.read_table(scored.receipts[0].path)["verdict"].to_pylist()
    assert set(verdicts) <= {"correct", "incorrect"}


def test_dispatcher_attempt_that_cannot_be_done_fails_with_its_reason(new_driver: NewDriver, world: Any) -> None:
    driver = new_driver()
    driver.start(world.dispatcher())
    wrong = ScoreWork(
        model="sim",
        shard_path=str(world.directory / "gone.parquet"),
        shard_sha256=hashlib.sha256(b"").hexdigest(),
        problems_path=world.problems_path,
        scorers=("math_answer",),
    )
    driver.submit("disp", world.attempt("score.1", TaskKind.score, wrong))
    driver.submit("disp", world.prepare("prepare.2", template="no place for it"))

    lost, refused = driver.until_over("disp", "score.1"), driver.until_over("disp", "prepare.2")

    assert (lost.state, lost.is_retriable) == (AttemptState.failed, True)
    assert "gone.parquet: missing" in lost.error
    assert (refused.state, refused.is_retriable) == (AttemptState.failed, False)
    assert "'no place for it' has no {question}" in refused.error


def test_stopped_attempt_returns_exactly_what_it_did_not_draw(
    new_driver: NewDriver, world: Any, slow: Callable[..., Any], drawn: Drawn
) -> None:
    driver = new_driver(make_host=slow())
    driver.start(world.generator())
    driver.submit("gen", world.generate())
    driver.until_attempt("gen", "task.1", lambda report: report.finished > 0)

    driver.cluster.send("gen", Orders(stops=(Stop(attempt_id="task.1", mode=StopMode.finish),)))
    report = driver.until_over("gen", "task.1")

    assert report.state is AttemptState.stopped
    rest = [tuple(pair) for pair in report.returned.tolist()]
    assert rest
    assert sorted([*drawn([receipt.path for receipt in report.receipts]), *rest]) == planned(world)


def test_host_stopped_gracefully_writes_what_runs_ends_and_is_forgotten(
    new_driver: NewDriver, world: Any, slow: Callable[..., Any], drawn: Drawn
) -> None:
    driver = new_driver(make_host=slow())
    driver.start(world.generator())
    driver.submit("gen", world.generate())
    running = driver.until_attempt("gen", "task.1", lambda report: report.finished > 0)

    driver.cluster.stop_host("gen", is_forced=False)
    report = driver.until_over("gen", "task.1")
    assert report.state is AttemptState.stopped
    assert len(drawn([receipt.path for receipt in report.receipts])) >= running.admitted
    assert driver.host("gen").state is HostState.draining
    driver.forget("gen", "task.1", len(report.receipts))

    assert driver.until_state("gen", HostState.dead).attempts == ()
    driver.cluster.stop_host("gen", is_forced=False)
    assert driver.host("gen") is None


@pytest.mark.parametrize("is_ordered", [True, False], ids=["forced stop", "kill -9"])
def test_killed_host_is_dead_and_its_finished_parts_are_salvaged(
    new_driver: NewDriver, world: Any, slow: Callable[..., Any], drawn: Drawn, is_ordered: bool
) -> None:
    driver = new_driver(make_host=slow())
    driver.start(world.generator())
    spec = world.generate(flush_rows=2)
    driver.submit("gen", spec)
    seen = driver.until_attempt("gen", "task.1", lambda report: len(report.receipts) >= 2)

    if is_ordered:
        driver.cluster.stop_host("gen", is_forced=True)
    else:
        driver.kill("gen")
    driver.until_state("gen", HostState.dead)

    salvaged = driver.cluster.salvage("task.1", spec.out_dir, 0)
    hashes = [receipt.sha256 for receipt in salvaged]
    assert hashes[: len(seen.receipts)] == [receipt.sha256 for receipt in seen.receipts]
    assert [receipt.sha256 for receipt in driver.cluster.salvage("task.1", spec.out_dir, 1)] == hashes[1:]
    parts = sorted(Path(spec.out_dir).glob("part-*.parquet"))
    assert [receipt.path for receipt in salvaged] == [str(path) for path in parts]
    samples = drawn([receipt.path for receipt in salvaged])
    assert len(samples) == len(set(samples)) >= 4


# by design the engine's thread ends loudly, so that the traceback is in the host's log
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_engine_that_cannot_be_built_is_heard_of_and_ends_its_host(
    new_driver: NewDriver, world: Any, broken: Callable[[], Any]
) -> None:
    driver = new_driver(make_host=broken())
    driver.cluster.start_host(world.generator())

    report = driver.until_state("gen", HostState.dead)

    assert "the weights are for another model" in report.error


def test_host_name_is_used_once(new_driver: NewDriver, world: Any) -> None:
    driver = new_driver()
    first = driver.start(world.generator())
    driver.cluster.start_host(world.generator())
    assert driver.until_state("gen", HostState.ready).pid == first.pid

    driver.cluster.stop_host("gen", is_forced=True)
    driver.until_state("gen", HostState.dead)
    driver.cluster.start_host(world.generator())
    assert driver.host("gen").state is HostState.dead

    driver.cluster.stop_host("gen", is_forced=True)
    driver.cluster.start_host(world.generator())
    assert driver.host("gen") is None


def test_orders_for_a_host_that_does_not_exist_are_lost(new_driver: NewDriver, world: Any) -> None:
    driver = new_driver()

    driver.submit("nobody", world.generate())
    driver.cluster.stop_host("nobody", is_forced=True)

    assert driver.cluster.observe().hosts == {}
    assert driver.cluster.observe().nodes[0].num_cpus >= 1
