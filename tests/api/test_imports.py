"""Old completions become a finished job: judged, measured, selected and reported without an engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.verify import verify_directory

NUM_PROBLEMS, NUM_SAMPLES = 6, 3


def old_rows() -> list[dict[str, Any]]:
    """Three completions a problem: right, right with a wrong step, wrong."""
    return [
        {"problem_id": f"p{i}", "response": text}
        for i in range(NUM_PROBLEMS)
        for text in (f"{i}+1={i + 1}. #### {i + 1}", f"{i}+1={i + 3}. #### {i + 1}", f"{i}+2={i + 2}. #### {i + 2}")
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def submit(world, client: TestClient) -> Callable[..., Any]:
    """Submits an import of rows; keywords replace fields of its document."""

    def post(rows: list[dict[str, Any]], name: str = "old.jsonl", *, dry_run: bool = False, **fields: object) -> Any:
        document: dict[str, object] = {
            "files": [write(world.root / name, rows)],
            "problems": "sums/train",
            "model": "simulated",
            "scorers": ["math_answer", "steps"],
        }
        document |= fields
        document = {name: value for name, value in document.items() if value is not None}
        return client.post("/v1/imports", params={"dry_run": dry_run}, json=document)

    return post


def samples_of(world, job_id: str) -> pa.Table:
    manifest = json.loads((world.settings.data_dir / "jobs" / job_id / "manifest.json").read_text())
    base = world.settings.data_dir / "jobs" / job_id
    return pa.concat_tables([pq.read_table(base / shard["path"]) for shard in manifest["shards"]])


def test_import_becomes_a_finished_job_that_verifies_and_spends_nothing(world, client, submit, run_jobs) -> None:
    answer = submit(old_rows())
    assert answer.status_code == 201, answer.text
    job_id = answer.json()["id"]

    run_jobs(world)

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["phase"] == "succeeded", job["error"]
    assert job["progress"]["samples"] == NUM_PROBLEMS * NUM_SAMPLES
    assert job["progress"]["flops"]["spent"] == job["progress"]["budget"]["spent"] == 0
    assert job["imported"]["flops"] > 0
    assert job["imported"]["files"][0]["name"] == "old.jsonl"
    report = verify_directory(world.settings.data_dir / "jobs" / job_id)
    assert report.faults == ()
    assert (report.rows, report.planned, report.withdrawn) == (18, 18, 0)
    assert report.score_rows == 36
    assert report.recomputed_flops == pytest.approx(job["imported"]["flops"])
