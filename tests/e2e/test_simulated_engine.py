"""The whole pipeline with real files on the local cluster; only the engine is simulated."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.allocation import AllocationState
from service.cluster import HostKind
from service.controller import rebuild_state
from service.currency import Budget, Currency
from service.errors import InvalidInput
from service.job_metrics import job_metrics
from service.jobs import AllocationSpec, Desired, Phase
from service.shards import read_receipt
from service.stats import Estimate
from service.verify import verify_directory
from service.work import TaskKind
from tests.e2e.builders import World
from tests.slow_hosts import slow_hosts
from workers.hosts import make_host
from workers.local_cluster import LocalCluster


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


@pytest.fixture
def cluster(request) -> Iterator[LocalCluster]:
    cluster = LocalCluster(make_host=getattr(request, "param", make_host))
    yield cluster
    cluster.close()


def test_samples_budget_makes_scored_rows_that_verify(world, cluster):
    job = world.run(world.controller(cluster), world.submit())
    assert job.phase is Phase.succeeded, job.error
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert (report.rows, report.planned, report.withdrawn, report.score_rows) == (200, 200, 0, 400)
    summary = job_metrics(world.store, job.id).summary
    assert summary is not None
    assert isinstance(summary.realised_coverage, Estimate)
    assert 0.5 < summary.realised_coverage.value <= 1.0
    assert summary.num_samples == 200


def test_flop_budget_is_used_to_99_percent_and_never_passed(world, cluster):
    limit = 30_000
    job = world.run(world.controller(cluster), world.submit(budget=Budget(currency=Currency.flops, limit=limit)))
    account = world.store.reads.account(job.id)
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert 0.97 * limit <= account.spent <= limit
    assert account.reserved == 0
    assert report.recomputed_flops <= limit * 1e6


@pytest.mark.parametrize("cluster", [slow_hosts()], indirect=True)
def test_device_time_is_used_up_and_the_overshoot_is_on_record(world, cluster):
    limit = 3000
    job = world.run(world.controller(cluster), world.submit(budget=Budget(currency=Currency.gpu_hours, limit=limit)))
    assert job.phase is Phase.succeeded, job.error
    account = world.store.reads.account(job.id)
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert (report.spent, report.limit) == (account.used, limit)
    assert account.reserved == 0
    drawn = [row for row in world.store.reads.usage(job_id=job.id) if row.stage == "generate"]
    assert account.used == pytest.approx(1000 * sum(row.cpu_s for row in drawn), abs=20)
    assert 0.9 * limit <= account.used <= 1.5 * limit
    assert report.rows == sum(row.samples for row in drawn) > 0


def test_until_correct_spends_less_than_uniform_on_solved_problems(world, cluster):
    controller = world.controller(cluster)
    allocation = AllocationSpec(strategy="until_correct", target_correct=1, max_samples=10)
    job = world.run(
        controller,
        world.submit(budget=Budget(currency=Currency.samples, limit=500), allocation=allocation),
    )
    assert job.phase is Phase.succeeded
    assert verify_directory(world.job_dir(job)).faults == ()
    view_rows = sum(part.rows for part in world.store.reads.parts(job.id, TaskKind.generate))
    summary = job_metrics(world.store, job.id).summary
    assert summary is not None
    assert view_rows == summary.num_samples < 500
    assert summary.even_samples == 1


def test_cancel_ends_the_job_and_what_is_there_verifies(world, cluster):
    controller = world.controller(cluster)
    job = world.submit(budget=Budget(currency=Currency.flops, limit=10_000_000))
    world.run_until(controller, lambda: bool(world.store.reads.parts(job.id, TaskKind.generate)), job)
    world.store.jobs.set_desired(job.id, Desired.cancel)
    job = world.run(controller, job)
    assert job.phase is Phase.cancelled
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert report.rows > 0
    assert world.store.reads.account(job.id).reserved == 0


def test_engine_killed_in_the_middle_loses_and_doubles_nothing(world, cluster):
    controller = world.controller(cluster)
    job = world.submit(budget=Budget(currency=Currency.samples, limit=50 * 60))
    world.run_until(controller, lambda: bool(world.store.reads.parts(job.id, TaskKind.generate)), job)
    (engine,) = [host.name for host in world.store.snapshot().hosts if host.kind is HostKind.generator]
    cluster.kill(engine)
    job = world.run(controller, job)
    assert job.phase is Phase.succeeded
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert report.rows == 3000


def test_new_controller_takes_over_in_the_middle(world, cluster):
    first = world.controller(cluster)
    job = world.submit(budget=Budget(currency=Currency.samples, limit=50 * 40))
    world.run_until(first, lambda: bool(world.store.reads.parts(job.id, TaskKind.generate)), job)
    job = world.run(world.controller(cluster), job)
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert report.rows == 2000
    assert "lost" not in {row.outcome for row in world.store.reads.usage(job_id=job.id)}


def test_rebuilt_state_equals_the_one_that_was_folded(world, cluster):
    controller = world.controller(cluster)
    allocation = AllocationSpec(strategy="until_correct", target_correct=2, max_samples=8)
    job = world.submit(budget=Budget(currency=Currency.samples, limit=400), allocation=allocation)
    world.run_until(controller, lambda: len(world.store.reads.parts(job.id, TaskKind.score)) >= 2, job)
    folded = controller.state_of(job.id)
    rebuilt = rebuild_state(world.store, world.store.snapshot().jobs[0], lambda path: read_receipt(Path(path)))
    for name in ("planned", "scored", "correct", "verified", "num_unique", "is_excluded"):
        assert (getattr(folded, name) == getattr(rebuilt, name)).all(), name
    assert isinstance(folded, AllocationState)


@pytest.fixture
def finished(world, cluster):
    """A verified job and a copy of its directory to damage."""
    job = world.run(world.controller(cluster), world.submit())
    return world.job_dir(job)


def test_verify_names_a_shard_with_a_flipped_bit(finished):
    shard = finished / json.loads((finished / "manifest.json").read_text())["shards"][0]["path"]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    faults = verify_directory(finished).faults
    assert any(shard.name in fault and "sha256" in fault for fault in faults)


def test_verify_names_a_shard_that_is_missing_and_the_samples_it_held(finished):
    shard = finished / json.loads((finished / "manifest.json").read_text())["shards"][0]["path"]
    shard.unlink()
    faults = verify_directory(finished).faults
    assert any("missing" in fault for fault in faults)
    assert any("planned samples have no row" in fault for fault in faults)


def test_verify_finds_rows_listed_twice(finished):
    path = finished / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"].append(manifest["shards"][0])
    path.write_text(json.dumps(manifest))
    assert any("twice" in fault for fault in verify_directory(finished).faults)


def test_verify_finds_flops_that_do_not_follow_from_tokens(finished):
    path = finished / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["models"][0]["cost"]["body_flops_per_token"] *= 1.01
    path.write_text(json.dumps(manifest))
    assert any("do not follow from their tokens" in fault for fault in verify_directory(finished).faults)


def test_verify_finds_a_ledger_that_does_not_add_up(finished):
    path = finished / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["account"]["spent"] -= 1
    path.write_text(json.dumps(manifest))
    assert any("settlements add up" in fault for fault in verify_directory(finished).faults)


def test_verify_of_a_job_that_ended_names_a_shard_that_was_never_scored(finished):
    path = finished / "manifest.json"
    manifest = json.loads(path.read_text())
    left_out = manifest["scores"].pop()
    path.write_text(json.dumps(manifest))
    (fault,) = verify_directory(finished).faults
    assert f"{left_out['source_attempt']}/part-{left_out['source_part']:05d}.parquet: was never scored" in fault
    path.write_text(json.dumps(manifest | {"is_sealed": False}))
    assert verify_directory(finished).faults == (), "while a job runs, scores follow"


def test_verify_finds_an_attempt_whose_rows_are_not_listed(finished):
    path = finished / "manifest.json"
    manifest = json.loads(path.read_text())
    gone = manifest["shards"][-1]["attempt"]
    manifest["shards"] = [shard for shard in manifest["shards"] if shard["attempt"] != gone]
    manifest["scores"] = [score for score in manifest["scores"] if score["source_attempt"] != gone]
    for task in manifest["tasks"]:
        if gone.startswith(f"{task['id']}."):
            task["state"] = "cancelled"  # as if the job had ended before it was drawn
    path.write_text(json.dumps(manifest))
    faults = verify_directory(finished).faults
    assert any(gone in fault and "ledger settled" in fault for fault in faults)


def test_verify_reads_manifests_of_the_release_before(finished):
    path = finished / "manifest.json"
    manifest = json.loads(path.read_text())
    (finished / manifest["plan"]["path"]).rename(finished / "plan.parquet")
    for key in ("plan", "is_sealed", "error"):
        del manifest[key]
    path.write_text(json.dumps(manifest | {"manifest_version": 1}))
    assert verify_directory(finished).faults == ()


def test_verify_works_on_a_moved_copy(finished, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(finished, copy)
    assert verify_directory(copy).faults == ()


def test_sample_rows_can_be_read_by_anybody(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    table = pq.read_table(finished / manifest["shards"][0]["path"])
    assert {"sample_id", "prompt", "completion", "flops", "finish_reason"} <= set(table.column_names)


def test_verify_names_a_plan_or_prompts_that_are_damaged(finished):
    prompts = finished / json.loads((finished / "manifest.json").read_text())["prepared"][0]["path"]
    prompts.write_bytes(prompts.read_bytes()[:-10])
    (plan,) = finished.glob("plan-*.parquet")
    plan.write_bytes(b"nothing")
    faults = verify_directory(finished).faults
    assert any(plan.name in fault and "sha256" in fault for fault in faults)
    assert any(prompts.name in fault and "sha256" in fault for fault in faults)


@pytest.mark.parametrize("text", ["[]", "null", '{"manifest_version": 2}', '{"manifest_version": 2, "models": 3}'])
def test_verify_of_something_that_is_no_manifest_says_so(finished, text):
    (finished / "manifest.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"manifest\.json"):
        verify_directory(finished)
