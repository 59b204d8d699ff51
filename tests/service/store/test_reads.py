"""Reads return windows and orders as they promise, on SQLite and on PostgreSQL."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np

from service.currency import Budget, Currency
from service.jobs import Desired, Job, JobSpec, Resolved
from service.models import ModelSpec
from service.planner import Plan
from service.planner.plan import TaskWrite, UsageWrite
from service.receipts import Usage
from service.store import Store
from service.tasks import Task
from service.work import TaskKind
from tests.simulation.world import COST

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = ModelSpec(name="m", path="/m", revision="sha256:0", context_len=64, cost=COST)


def submit(store: Store, *, name: str = "job") -> Job:
    budget = Budget(currency=Currency.flops, limit=1000)
    spec = JobSpec(name=name, problems="p", models=("m",), budget=budget)
    resolved = Resolved(models=(MODEL,), problems_path="p", num_problems=4, problems_fingerprint="f")
    return store.jobs.submit(spec, resolved)


def spend(store: Store, job: Job, at: datetime, samples: int) -> None:
    usage = Usage(samples=samples, flops=1.0 * samples)
    write = UsageWrite(job_id=job.id, model="m", stage=TaskKind.generate, outcome="useful", usage=usage)
    store.commit(Plan(usage=(write,)), at)


def test_usage_since_leaves_out_minutes_that_began_before(store: Store) -> None:
    job = submit(store)
    for minutes, samples in ((0, 1), (1, 2), (2, 4)):
        spend(store, job, NOW + timedelta(minutes=minutes), samples)
    first_minute = NOW.replace(second=0)

    def samples_since(since: datetime) -> list[int]:
        return [row.samples for row in store.reads.usage(by_minute=True, since=since)]

    assert samples_since(first_minute) == [1, 2, 4]
    assert samples_since(first_minute + timedelta(seconds=1)) == [2, 4]
    assert samples_since(NOW + timedelta(minutes=3)) == []


def test_usage_since_sums_the_rest_and_keeps_to_its_job(store: Store) -> None:
    job, other = submit(store), submit(store, name="other")
    spend(store, job, NOW, 1)
    spend(store, job, NOW + timedelta(minutes=5), 2)
    spend(store, job, NOW + timedelta(minutes=6), 4)
    spend(store, other, NOW + timedelta(minutes=6), 8)

    (row,) = store.reads.usage(job_id=job.id, since=NOW + timedelta(minutes=1))

    assert (row.job_id, row.samples, row.flops, row.bucket) == (job.id, 6, 6.0, None)


def test_newest_events_come_from_the_end_newest_first(store: Store) -> None:
    job, other = submit(store), submit(store, name="other")
    for desired in (Desired.pause, Desired.run, Desired.cancel):
        store.jobs.set_desired(job.id, desired)
    store.jobs.set_desired(other.id, Desired.cancel)
    every = store.reads.events(job_id=job.id)

    newest = store.reads.newest_events(job_id=job.id, limit=2)

    assert len(every) > 2
    assert newest == every[:-3:-1]
    assert newest[0].at.tzinfo is not None
    assert store.reads.newest_events(limit=1)[0].job_id == other.id


def test_tasks_come_without_runs_unless_asked(store: Store) -> None:
    job = submit(store)
    runs = np.array([[0, 0, 2], [1, 0, 2]], dtype=np.int32)
    task = Task(
        id=f"{job.id}-0", job_id=job.id, kind=TaskKind.generate, order=0, model="m", arm="m", runs=runs, num_planned=4
    )
    store.commit(Plan(tasks=(TaskWrite(before=None, after=task),)), NOW)

    (bare,) = store.reads.tasks(job.id)
    (whole,) = store.reads.tasks(job.id, with_runs=True)

    assert whole.runs is not None
    assert whole.runs.tolist() == runs.tolist()
    assert bare == dataclasses.replace(whole, runs=None)


def test_models_keep_the_order_of_registration(store: Store) -> None:
    for name in ("small", "large", "medium"):
        store.catalogue.register_model(dataclasses.replace(MODEL, name=name))
    store.catalogue.register_model(dataclasses.replace(MODEL, name="small"))

    assert [model.name for model in store.catalogue.models()] == ["small", "large", "medium"]


def test_reads_of_many_jobs_say_what_those_of_one_do(store: Store) -> None:
    one, two, other = (submit(store, name=name) for name in ("one", "two", "other"))
    for job, samples in ((one, 1), (two, 2), (other, 4)):
        spend(store, job, NOW, samples)
    ids = [one.id, two.id]

    assert store.reads.accounts(ids) == {job_id: store.reads.account(job_id) for job_id in ids}
    assert [(row.job_id, row.samples) for row in store.reads.usage(job_ids=ids)] == [(one.id, 1), (two.id, 2)]
    assert store.reads.count_parts_of(ids) == {}
    assert store.reads.accounts([]) == {}


def test_jobs_are_counted_by_phase_and_accounts_are_those_of_active_ones(store: Store) -> None:
    first, second = submit(store), submit(store)

    assert store.reads.count_jobs() == {"queued": 2}
    assert list(store.reads.active_accounts()) == [first.id, second.id]
