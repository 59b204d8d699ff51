"""Manifests written beside the loop: when they are due, how they fail, and what counts as the last one."""

import json
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta

import pytest

from service.currency import Budget, Currency
from service.jobs import JobSpec
from service.manifest import manifest_path
from service.manifest_writer import INTERVAL, SHARE_OF_TIME, ManifestWriter
from service.store import Store
from service.store.control import Resolved

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
    opened = Store.open(f"sqlite:///{tmp_path}/isoflop.db")
    yield opened
    opened.close()


def submit(store):
    spec = JobSpec(name="job", problems="p", models=("m",), budget=Budget(currency=Currency.samples, limit=10))
    resolved = Resolved(models=(), problems_path="p", num_problems=1, problems_fingerprint="sha256:0")
    return store.jobs.submit(spec, resolved, now=NOW).id


def test_writer_renews_every_minute_and_less_often_where_writing_takes_long(tmp_path, store):
    job_id, executor = submit(store), HeldExecutor()
    writer = ManifestWriter(store, data_dir=str(tmp_path), executor=executor)
    due = NOW + INTERVAL + timedelta(seconds=1)

    writer.renew(job_id, NOW)
    assert not executor.held
    writer.renew(job_id, due)
    writer.renew(job_id, due + INTERVAL)
    assert len(executor.held) == 1, "one at a time"
    executor.release()
    written = due + timedelta(seconds=30)
    assert writer.collect({job_id}, written) == frozenset()
    writer.renew(job_id, written + INTERVAL + timedelta(seconds=1))
    assert not executor.held, "writing took 30 s"
    writer.renew(job_id, written + SHARE_OF_TIME * timedelta(seconds=30) + timedelta(seconds=1))
    assert len(executor.held) == 1
    assert json.loads(manifest_path(str(tmp_path), job_id).read_text())["is_sealed"] is False


def test_writer_seals_only_with_a_manifest_begun_after_it_was_asked(tmp_path, store):
    job_id, executor = submit(store), HeldExecutor()
    writer = ManifestWriter(store, data_dir=str(tmp_path), executor=executor)
    due = NOW + INTERVAL + timedelta(seconds=1)

    writer.renew(job_id, NOW)
    writer.renew(job_id, due)
    writer.seal(job_id, due)
    executor.release()
    assert writer.collect({job_id}, due) == frozenset()
    writer.seal(job_id, due)
    assert writer.collect({job_id}, due) == frozenset()
    executor.release()
    assert writer.collect({job_id}, due) == {job_id}
    assert json.loads(manifest_path(str(tmp_path), job_id).read_text())["is_sealed"] is True


def test_writer_that_cannot_write_says_so_and_may_be_asked_again(tmp_path, store):
    job_id, executor = submit(store), HeldExecutor()
    (tmp_path / "file").touch()
    writer = ManifestWriter(store, data_dir=str(tmp_path / "file"), executor=executor)

    writer.seal(job_id, NOW)
    executor.release()
    with pytest.raises(NotADirectoryError):
        writer.collect({job_id}, NOW)
    assert writer.collect({job_id}, NOW) == frozenset()
    writer.seal(job_id, NOW)
    assert len(executor.held) == 1
