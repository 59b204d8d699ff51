"""What only a real cluster can show: who outlives whom."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.cluster import AttemptReport, AttemptState, HostState
from service.errors import InvalidInput
from service.work import AttemptSpec
from workers.hosts import Process
from workers.ray_cluster import RayCluster
from workers.ray_head import RayHead, find_head, start_head

pytestmark = pytest.mark.ray

NewCluster = Callable[..., RayCluster]

CONTROLLER = """
import pickle, sys, time
from service.cluster import Grant, HostState, Orders
from workers.ray_cluster import RayCluster

address, token_path, namespace, host, attempt = pickle.load(sys.stdin.buffer)
cluster = RayCluster(address=address, token_path=token_path, namespace=namespace)
cluster.start_host(host)
while cluster.observe().hosts[host.name].state is not HostState.ready:
    time.sleep(0.05)
grant = Grant(attempt_id=attempt.attempt_id, version=1, credit=5.0)
cluster.send(host.name, Orders(submits=(attempt,), grants=(grant,)))
while not any(report.used == 5 for report in cluster.observe().hosts[host.name].attempts):
    time.sleep(0.05)
print("drawn", flush=True)
time.sleep(600)
"""


def test_attempt_goes_on_after_its_controller_was_killed(
    ray_cluster: NewCluster, connected: RayHead, world: Any, drive: Callable[..., Any]
) -> None:
    namespace = ray_cluster()._namespace
    request = pickle.dumps(
        (connected.address, connected.token_path, namespace, world.generator(), world.generate(flush_rows=3))
    )
    with subprocess.Popen([sys.executable, "-c", CONTROLLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(request)
        first.stdin.close()
        assert first.stdout.readline() == b"drawn\n"
        first.kill()

    driver = drive(ray_cluster())
    report = driver.until_attempt("gen", "task.1", lambda report: report.used == 5)
    assert report.state is AttemptState.running
    assert driver.cluster.observe().hosts["gen"].is_inherited
    driver.version = 1
    driver.grant("gen", "task.1", 1e9)
    over = driver.until_over("gen", "task.1")

    assert (over.state, over.finished) == (AttemptState.succeeded, world.num_planned)
    assert [receipt.part for receipt in over.receipts] == list(range(len(over.receipts)))


def test_orders_of_an_earlier_controller_count_no_more(
    ray_cluster: NewCluster, world: Any, drive: Callable[..., Any]
) -> None:
    earlier = drive(ray_cluster())
    earlier.start(world.generator())
    later = drive(ray_cluster())
    later.until_state("gen", HostState.ready)

    earlier.submit("gen", world.generate("stale.1"))
    later.submit("gen", world.generate("task.1"))
    later.until_over("gen", "task.1")

    assert later.attempt("gen", "stale.1") is None
    earlier.until_attempt("gen", "task.1", lambda report: report.state is AttemptState.succeeded)
    assert later.attempt("gen", "stale.1") is None


def test_host_that_died_unseen_is_dead_for_the_next_controller(
    ray_cluster: NewCluster, world: Any, drive: Callable[..., Any]
) -> None:
    first = ray_cluster()
    pid = drive(first).start(world.generator()).pid
    first.close()
    os.kill(pid, signal.SIGKILL)

    second = drive(ray_cluster())
    report = second.until_state("gen", HostState.dead)
    assert report.pid == pid
    second.cluster.start_host(world.generator())
    assert second.host("gen").state is HostState.dead

    second.cluster.stop_host("gen", is_forced=False)
    assert second.host("gen") is None


def test_host_that_does_not_answer_is_unreachable_and_comes_back(
    ray_cluster: NewCluster, world: Any, drive: Callable[..., Any]
) -> None:
    driver = drive(ray_cluster(unreachable_s=1.0))
    pid = driver.start(world.generator()).pid

    os.kill(pid, signal.SIGSTOP)
    driver.until_state("gen", HostState.unreachable)
    os.kill(pid, signal.SIGCONT)

    assert driver.until_state("gen", HostState.ready).pid == pid


def draw_something(driver: Any, world: Any) -> tuple[psutil.Process, AttemptSpec, AttemptReport]:
    """A generator that has finished some samples of an attempt: its process, the attempt, and what it said of it."""
    pid = driver.start(world.generator()).pid
    spec = world.generate()
    driver.submit("gen", spec)
    running = driver.until_attempt("gen", "task.1", lambda report: report.finished > 0)
    return psutil.Process(pid), spec, running


def test_host_that_hears_from_nobody_writes_what_it_has_and_ends(
    ray_cluster: NewCluster,
    world: Any,
    slow: Callable[..., Any],
    drive: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    cluster = ray_cluster(make_host=slow(), silence_s=0.5)
    process, spec, running = draw_something(drive(cluster), world)

    cluster.close()

    wait_until(lambda: not process.is_running(), "the silent host to end")
    salvaged = cluster.salvage("task.1", spec.out_dir, 0)
    assert sum(receipt.rows for receipt in salvaged) >= running.finished


def test_silent_host_whose_engine_is_stuck_leaves_what_was_finished_to_the_next_controller(
    ray_cluster: NewCluster,
    world: Any,
    stuck: Callable[..., Any],
    drive: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    cluster = ray_cluster(make_host=stuck(), silence_s=3.0, stuck_s=0.5, close_s=0.5)
    process, spec, running = draw_something(drive(cluster), world)
    cluster.close()

    wait_until(lambda: not process.is_running(), "the stuck host to end")

    driver = drive(ray_cluster())
    driver.until_state("gen", HostState.dead)
    salvaged = driver.cluster.salvage("task.1", spec.out_dir, 0)
    assert sum(receipt.rows for receipt in salvaged) == running.finished


def test_host_that_waits_for_resources_is_ended_in_good_order(
    ray_cluster: NewCluster, world: Any, drive: Callable[..., Any]
) -> None:
    driver = drive(ray_cluster())
    driver.cluster.start_host(dataclasses.replace(world.generator(), num_cpus=1000.0))
    assert driver.host("gen").state is HostState.starting

    driver.cluster.stop_host("gen", is_forced=False)

    assert driver.until_state("gen", HostState.dead).error is None


def test_cluster_address_of_another_head_is_refused(connected: RayHead) -> None:
    with pytest.raises(InvalidInput, match=f"connected to the Ray cluster {connected.address}"):
        RayCluster(address="127.0.0.2:1")


def test_head_is_found_again_and_ends_with_all_it_started(
    connected: RayHead, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert find_head(connected.temp_dir) == connected
    directory = tmp_path_factory.mktemp("second")
    assert find_head(directory) is None

    second = start_head(directory, num_cpus=1)
    head = psutil.Process(second.process.pid)
    family = [Process(pid=each.pid, started_at=each.create_time()) for each in [head, *head.children(recursive=True)]]
    try:
        assert find_head(directory) == second
        assert second.address != connected.address
        assert second.token_path.stat().st_mode & 0o777 == 0o600
    finally:
        second.stop()

    # a zombie that its new parent has not collected yet runs no more
    assert [process.pid for process in family if process.is_alive()] == []
    assert find_head(directory) is None
    assert connected.is_alive()


def test_head_directory_too_long_for_sockets_gets_a_short_stand_in(tmp_path: Path, monkeypatch: Any) -> None:
    from workers import ray_head

    long = tmp_path / ("x" * 80)
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    short = ray_head._short(long)
    assert len(str(short)) <= 42
    assert short == ray_head._short(long) != ray_head._short(tmp_path / ("y" * 80))

    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(InvalidInput, match="set TMPDIR to a shorter one"):
        start_head(long, num_cpus=1)


def test_cluster_that_nobody_runs_is_unreachable() -> None:
    program = (
        "from service.errors import Unreachable\n"
        "from workers.ray_cluster import RayCluster\n"
        "try:\n    RayCluster(address='127.0.0.2:1')\n"
        "except Unreachable as error:\n    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "no Ray cluster answers at 127.0.0.2:1" in answer.stdout
