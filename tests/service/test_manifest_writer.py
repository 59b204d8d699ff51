"""Manifests written beside the loop: when they are due, how they fail, and what counts as the last one."""

import json
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from service.currency import Budget, Currency
from service.jobs import JobSpec, Resolved
from service.manifest import write_manifest
from service.manifest_writer import INTERVAL, RETRY, SHARE_OF_TIME, ManifestWriter
from service.planner import Plan
from service.planner.plan import TaskWrite
from service.planner.submit import manifest_path
from service.tasks import Task
from service.work import TaskKind
from tests.databases import new_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class HeldExecutor(Executor):
    """Keeps calls until they are released."""

    def __init__(self):
        self.held = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.held.append((future, lambda: fn(*args, **kwargs)))
        return future

    def release(self):
        for future, call in self.held:
            try:
                future.set_result(call())
            except OSError as error:
                future.set_exception(error)
        self.held.clear()


@pytest.fixture
def store(tmp_path):
    opened = new_store(tmp_path)
    yield opened
    opened.close()


def submit(store):
    spec = JobSpec(name="job", problems="p", models=("m",), budget=Budget(currency=Currency.samples, limit=10))
    resolved = Resolved(models=(), problems_path="p", num_problems=1, problems_fingerprint="sha256:0")
    return store.jobs.submit(spec, resolved, now=NOW).id


@pytest.fixture
def writer_and_executor(tmp_path, store):
    executor = HeldExecutor()
    return ManifestWriter(store, data_dir=str(tmp_path), executor=executor), executor


def is_sealed(tmp_path, job_id):
    return json.loads(Path(manifest_path(str(tmp_path), job_id)).read_text())["is_sealed"]


def test_writer_renews_every_minute_one_at_a_time(tmp_path, store, writer_and_executor):
    (writer, executor), job_id = writer_and_executor, submit(store)

    writer.renew(job_id, NOW)
    assert not executor.held
    writer.renew(job_id, NOW + INTERVAL)
    writer.renew(job_id, NOW + 2 * INTERVAL)
    assert len(executor.held) == 1
    executor.release()
    assert writer.collect({job_id}, NOW + 3 * INTERVAL).sealed == frozenset()
    assert is_sealed(tmp_path, job_id) is False
    writer.renew(job_id, NOW + 3.5 * INTERVAL)
    assert not executor.held
    writer.renew(job_id, NOW + 4 * INTERVAL)
    assert len(executor.held) == 1


def test_writer_that_takes_long_is_asked_less_often(store, writer_and_executor):
    (writer, executor), job_id = writer_and_executor, submit(store)

    writer.renew(job_id, NOW)
    writer.renew(job_id, NOW + INTERVAL)
    (future, _), took_s = executor.held.pop(), 30.0
    future.set_result(took_s)
    writer.collect({job_id}, NOW)
    writer.renew(job_id, NOW + SHARE_OF_TIME * timedelta(seconds=29))
    assert not executor.held
    writer.renew(job_id, NOW + SHARE_OF_TIME * timedelta(seconds=30))
    assert len(executor.held) == 1


def test_writer_seals_only_with_a_manifest_begun_after_it_was_asked(tmp_path, store, writer_and_executor):
    (writer, executor), job_id = writer_and_executor, submit(store)

    writer.renew(job_id, NOW)
    writer.renew(job_id, NOW + INTERVAL)
    writer.seal(job_id, NOW + INTERVAL)
    executor.release()
    assert writer.collect({job_id}, NOW + INTERVAL).sealed == frozenset()
    writer.seal(job_id, NOW + INTERVAL)
    assert writer.collect({job_id}, NOW + INTERVAL).sealed == frozenset()
    executor.release()
    assert writer.collect({job_id}, NOW + INTERVAL).sealed == {job_id}
    assert is_sealed(tmp_path, job_id) is True


def test_writer_that_cannot_write_says_so_and_tries_again_after_a_while(tmp_path, store):
    job_id, other, executor = submit(store), submit(store), HeldExecutor()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / job_id).touch()  # no directory can be made there
    writer = ManifestWriter(store, data_dir=str(tmp_path), executor=executor)

    for each in (job_id, other):
        writer.seal(each, NOW)
    executor.release()
    written = writer.collect({job_id, other}, NOW)
    assert written.sealed == {other}
    assert list(written.errors) == [job_id]
    assert writer.collect({job_id, other}, NOW).errors == {}
    writer.seal(job_id, NOW + RETRY / 2)
    assert not executor.held
    writer.seal(job_id, NOW + RETRY)
    assert len(executor.held) == 1


def test_plan_of_a_manifest_outlives_the_next_one_and_not_the_one_after(tmp_path, store):
    job_id = submit(store)
    directory = tmp_path / "jobs" / job_id
    plans = []
    for order in range(4):
        runs = np.array([[0, order, 1]], dtype=np.int32)
        task = Task(
            id=f"{job_id}-{order}", job_id=job_id, kind=TaskKind.generate, order=order, model="m", arm="m", runs=runs
        )
        store.commit(Plan(tasks=(TaskWrite(before=None, after=task),)), NOW)
        write_manifest(store, job_id, data_dir=str(tmp_path))
        plans.append(json.loads((directory / "manifest.json").read_text())["plan"]["path"])
    assert len(set(plans)) == 4
    assert {path.name for path in directory.glob("plan-*")} == set(plans[-2:])


def test_last_manifest_takes_what_killed_attempts_left_with_it(tmp_path, store, writer_and_executor):
    (writer, executor), job_id = writer_and_executor, submit(store)
    attempts = Path(manifest_path(str(tmp_path), job_id)).parent / "attempts"
    for name in ("t.1.unfinished", "t.2"):
        (attempts / name).mkdir(parents=True)

    writer.renew(job_id, NOW)
    writer.renew(job_id, NOW + INTERVAL)
    executor.release()
    assert len(list(attempts.iterdir())) == 2
    writer.collect([job_id], NOW + INTERVAL)
    writer.seal(job_id, NOW + INTERVAL)
    executor.release()

    assert [path.name for path in attempts.iterdir()] == ["t.2"]
