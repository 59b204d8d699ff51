"""The database keeps the promises by itself: CHECK, fencing, uniqueness; on SQLite and on PostgreSQL."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from service.currency import Budget, Currency
from service.errors import Conflict, InvalidInput, NotFound, StaleAttempt, UnknownName
from service.experiments.nodes import Node
from service.jobs import Desired, Job, JobSpec, Resolved
from service.ledger import Transfer, TransferKind
from service.models import ModelSpec
from service.planner import Plan
from service.planner.plan import NodeWrite, PartWrite, TaskWrite, UsageWrite
from service.problems import ProblemSet
from service.receipts import Receipt, Usage
from service.store import Store, schema
from service.store.database import MIGRATIONS, migrate
from service.tasks import Task, TaskState, move
from service.work import TaskKind
from tests.simulation.world import COST

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = ModelSpec(name="m", path="/m", revision="sha256:0", context_len=64, cost=COST)


def make_spec(name: str = "job", limit: int = 1000) -> JobSpec:
    return JobSpec(name=name, problems="p", models=("m",), budget=Budget(currency=Currency.flops, limit=limit))


def submit(store: Store, *, key: str | None = None, spec: JobSpec | None = None, model: ModelSpec = MODEL) -> Job:
    resolved = Resolved(models=(model,), problems_path="p", num_problems=4, problems_fingerprint="f")
    return store.jobs.submit(spec or make_spec(), resolved, idempotency_key=key)


def make_task(job: Job, **changes: object) -> Task:
    runs = np.array([[0, 0, 2], [1, 0, 2]], dtype=np.int32)
    task = Task(
        id=f"{job.id}-0", job_id=job.id, kind=TaskKind.generate, order=0, model="m", arm="m", runs=runs, num_planned=4
    )
    return dataclasses.replace(task, **changes)  # type: ignore[arg-type]


def transfer(job: Job, kind: TransferKind, amount: int, number: int = 0, attempt: str = "t.1") -> Transfer:
    return Transfer(account=f"{job.id}:flops", attempt_id=attempt, kind=kind, number=number, amount=amount)


def test_snapshot_returns_what_was_committed(store):
    job = submit(store)
    task = make_task(job)
    store.commit(Plan(tasks=(TaskWrite(before=None, after=task),)), NOW)
    snapshot = store.snapshot()
    assert [view.id for view in snapshot.jobs] == [job.id]
    assert snapshot.jobs[0].spec == make_spec()
    assert snapshot.tasks[0].runs is not None
    assert snapshot.tasks[0].runs.tolist() == [[0, 0, 2], [1, 0, 2]]


def test_commit_reservation_beyond_the_limit_is_refused_whole(store):
    job = submit(store)
    store.commit(Plan(transfers=(transfer(job, TransferKind.reserve, 900),)), NOW)
    too_much = Plan(
        tasks=(TaskWrite(before=None, after=make_task(job)),),
        transfers=(transfer(job, TransferKind.reserve, 101, number=1),),
    )
    with pytest.raises(IntegrityError):
        store.commit(too_much, NOW)
    assert store.reads.account(job.id).reserved == 900
    assert store.reads.tasks(job.id) == []


def test_commit_the_same_transfer_twice_is_refused(store):
    job = submit(store)
    plan = Plan(transfers=(transfer(job, TransferKind.reserve, 10),))
    store.commit(plan, NOW)
    with pytest.raises(IntegrityError):
        store.commit(plan, NOW)
    assert store.reads.account(job.id).reserved == 10


def test_64_threads_racing_for_one_budget_never_pass_its_limit(store):
    job = submit(store)

    def reserve(number: int) -> bool:
        try:
            store.commit(Plan(transfers=(transfer(job, TransferKind.reserve, 70, number=number),)), NOW)
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(64) as pool:
        granted = sum(pool.map(reserve, range(64)))
    assert granted == 14  # 14 * 70 = 980, the 15th would pass 1000
    assert store.reads.account(job.id).reserved == 980


def test_commit_task_that_moved_on_is_stale_and_changes_nothing(store):
    job = submit(store)
    task = make_task(job)
    store.commit(Plan(tasks=(TaskWrite(before=None, after=task),)), NOW)
    submitted = move(task, TaskState.submitted, host="h")
    store.commit(Plan(tasks=(TaskWrite(before=task, after=submitted),)), NOW)
    late = Plan(
        tasks=(TaskWrite(before=task, after=move(task, TaskState.cancelled)),),
        transfers=(transfer(job, TransferKind.reserve, 5),),
    )
    with pytest.raises(StaleAttempt, match="not current"):
        store.commit(late, NOW)
    assert store.reads.tasks(job.id)[0].state is TaskState.submitted
    assert store.reads.account(job.id).reserved == 0


def test_second_attempt_gets_only_what_is_not_committed(store):
    job = submit(store)
    task = make_task(job, state=TaskState.running, host="h")
    receipt = Receipt(
        part=0, path="x", sha256="0", rows=1, usage=Usage(samples=1), indices=np.array([[0, 1]], dtype=np.int32)
    )
    store.commit(
        Plan(
            tasks=(TaskWrite(before=None, after=task),),
            parts=(PartWrite(task=task, attempt_id=task.attempt_id, receipt=receipt),),
        ),
        NOW,
    )
    store.commit(Plan(tasks=(TaskWrite(before=task, after=move(task, TaskState.pending)),)), NOW)
    (again,) = store.snapshot().tasks
    assert again.attempt == 2
    assert again.remaining is not None
    assert again.remaining.tolist() == [[0, 0, 1], [1, 0, 1], [1, 1, 1]]


def test_usage_adds_up_within_a_minute_and_over_minutes(store):
    job = submit(store)
    write = UsageWrite(
        job_id=job.id, model="m", stage=TaskKind.generate, outcome="useful", usage=Usage(samples=2, flops=5.0)
    )
    store.commit(Plan(usage=(write, write)), NOW)
    store.commit(Plan(usage=(write,)), NOW.replace(minute=9))
    (total,) = store.reads.usage(job_id=job.id)
    assert (total.samples, total.flops) == (6, 15.0)
    assert [row.samples for row in store.reads.usage(by_minute=True)] == [4, 2]
    store.commit(Plan(usage=tuple(dataclasses.replace(write, arm=arm) for arm in ("warm", "cold"))), NOW)
    assert [(row.arm, row.samples) for row in store.reads.usage(by_arm=True)] == [("", 6), ("cold", 2), ("warm", 2)]
    assert [row.samples for row in store.reads.usage()] == [10]


def test_submit_fifty_times_with_one_key_makes_one_job(store):
    with ThreadPoolExecutor(50) as pool:
        jobs = list(pool.map(lambda _: _submit_or_retry(store), range(50)))
    assert len({job.id for job in jobs}) == 1
    assert len(store.jobs.list()) == 1


def _submit_or_retry(store: Store) -> Job:
    return submit(store, key="one-key")


def test_submit_one_key_with_another_document_conflicts(store):
    submit(store, key="k")
    with pytest.raises(Conflict, match="another document"):
        submit(store, key="k", spec=make_spec("other"))


def test_desired_of_unknown_or_cancelled_jobs_is_refused(store):
    job = submit(store)
    with pytest.raises(NotFound, match="nope"):
        store.jobs.set_desired("nope", Desired.pause)
    store.jobs.set_desired(job.id, Desired.cancel)
    with pytest.raises(Conflict, match="being cancelled"):
        store.jobs.set_desired(job.id, Desired.run)


def test_register_other_content_under_a_known_name_conflicts(store):
    store.catalogue.register_model(MODEL)
    assert store.catalogue.register_model(MODEL) == MODEL
    with pytest.raises(Conflict, match="another name"):
        store.catalogue.register_model(dataclasses.replace(MODEL, revision="sha256:1"))
    problems = ProblemSet(name="p", path="p", fingerprint="a", num_problems=1, source="s")
    store.catalogue.register_problems(problems)
    with pytest.raises(Conflict, match="other problems"):
        store.catalogue.register_problems(dataclasses.replace(problems, fingerprint="b"))


def test_register_checkpoint_has_no_pool_and_a_base_that_is_registered(store):
    checkpoint = dataclasses.replace(MODEL, name="tuned", revision="sha256:1", base=MODEL.name)
    with pytest.raises(UnknownName):
        store.catalogue.register_model(checkpoint)
    store.catalogue.register_model(MODEL)

    assert store.catalogue.register_model(checkpoint) == store.catalogue.register_model(checkpoint) == checkpoint

    assert store.catalogue.models() == [MODEL, checkpoint]
    assert [pool.model for pool in store.catalogue.pools()] == [MODEL.name]
    with pytest.raises(Conflict):
        store.catalogue.register_model(dataclasses.replace(checkpoint, base=None))
    with pytest.raises(InvalidInput, match=f"checkpoint of '{MODEL.name}'"):
        store.catalogue.register_model(dataclasses.replace(checkpoint, name="again", base="tuned"))


def test_snapshot_knows_the_base_that_engines_load_for_a_checkpoint(store):
    store.catalogue.register_model(MODEL)
    checkpoint = dataclasses.replace(MODEL, name="tuned", revision="sha256:1", base=MODEL.name)
    store.catalogue.register_model(checkpoint)
    assert store.snapshot().kept_models == ()

    submit(store, model=checkpoint)

    assert store.snapshot().kept_models == (MODEL,)


@pytest.mark.parametrize("name", ["finetune-7-0a1b2c/step-20", "finetune-7-0a1b2c/step-x"])
def test_register_model_under_a_name_that_a_checkpoint_may_get_is_refused(store, name):
    with pytest.raises(InvalidInput, match="no checkpoint"):
        store.catalogue.register_model(dataclasses.replace(MODEL, name=name))


def test_submissions_and_nodes_of_comparisons_at_the_same_time_get_numbers_of_their_own(store):
    store.catalogue.register_model(MODEL)
    work = Resolved(models=(MODEL,), problems_path="p", num_problems=4, problems_fingerprint="f")
    parent = submit(store)  # any row of the table may have children here

    def commit_node(number: int) -> None:
        node = Node(key=f"greedy/{number}", spec=make_spec(f"node {number}"), work=work)
        store.commit(Plan(nodes=(NodeWrite(comparison_id=parent.id, node=node),)), NOW)

    with ThreadPoolExecutor(17) as pool:
        made = [pool.submit(submit, store, spec=make_spec(f"by hand {number}")) for number in range(64)]
        nodes = pool.submit(lambda: [commit_node(number) for number in range(20)])
        assert len({future.result().id for future in made}) == 64
        nodes.result()

    numbers = [number for number, _ in store.jobs.list(limit=200)]
    assert sorted(numbers) == list(range(1, 86))


def test_change_pool_with_an_old_version_conflicts(store):
    store.catalogue.register_model(MODEL)
    seen = store.catalogue.pool("m")
    changed = store.catalogue.change_pool("m", replicas=3, version=seen.version)
    assert changed.replicas == 3
    with pytest.raises(Conflict, match=f"version {seen.version}"):
        store.catalogue.change_pool("m", replicas=1, version=seen.version)


def test_migrations_lead_to_the_schema_the_code_uses(store):
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_database_from_before_arms_names_them_after_models(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/old.db")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.execute(
            text(
                "INSERT INTO jobs (id, number, name, document, resolved, request_sha256, desired, phase, created_at) "
                "VALUES ('job-1', 1, 'j', '{}', '{}', '', 'run', 'running', '2026-01-01')"
            )
        )
        connection.execute(
            text("INSERT INTO prepared (job_id, model, path, sha256, facts) VALUES ('job-1', 'm', 'p', '', '{}')")
        )
        columns = 'id, job_id, kind, "order", model, state, attempt, num_planned, credit, settled, settled_value'
        columns += ", grant_version, is_final_sent, num_parts, num_lost, num_failed, created_at"
        values = "'t', 'job-1', 'generate', 0, 'm', 'pending', 1, 4, 0, 0, 0.0, 0, 0, 0, 0, 0, '2026-01-01'"
        connection.execute(text(f"INSERT INTO tasks ({columns}) VALUES ({values})"))
        columns = "job_id, model, stage, outcome, bucket, samples, errors, truncated, prompt_tokens, cached_tokens"
        columns += ", completion_tokens, flops, flops_paper, busy_s"
        values = "'job-1', 'm', 'generate', 'useful', '2026-01-01', 7, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0"
        connection.execute(text(f"INSERT INTO usage ({columns}) VALUES ({values})"))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT arm, model FROM tasks")).one() == ("m", "m")
        assert connection.execute(text("SELECT arm FROM prepared")).scalar_one() == "m"
        assert connection.execute(text("SELECT arm, samples FROM usage")).one() == ("m", 7)
        assert "arm" in inspect(connection).get_pk_constraint("usage")["constrained_columns"]
    engine.dispose()
