"""A job of four arms that really ran: simulated engine, real files, real scorers; what is told and made of each."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.forward_cost import UNKNOWN_COST
from service.job_report import compare_jobs, report_jobs
from service.models import EngineOptions
from service.planner.submit import job_dir
from service.verify import verify_directory
from tests.api.conftest import World, make_world, model_spec, work_off

ARMS = ["plain t=0.3", "plain t=0.9", "coached t=0.3", "coached t=0.9"]
DOCUMENT = {
    "problems": "sums/train",
    "models": ["simulated"],
    "budget": {"samples_per_problem": 8},
    "prompts": [{"name": "plain"}, {"name": "coached", "system": "Think."}],
    "sampling": {"temperatures": [0.3, 0.9], "max_tokens": 40},
    "scorers": ["math_answer", "steps"],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[tuple[World, TestClient, str]]:
    """A service, a client of it, and its job of four arms, which has ended."""
    world = make_world(tmp_path_factory.mktemp("arms"), empty_database)
    with world.client() as client:
        job_id = client.post("/v1/jobs", json=DOCUMENT).json()["id"]
        work_off(world)
        yield world, client, job_id
    world.store.close()


def test_arms_are_told_apart_in_rows_numbers_and_metrics(drawn) -> None:
    world, client, job_id = drawn
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["phase"] == "succeeded"
    assert [(arm["name"], arm["samples"]) for arm in job["arms"]] == [(name, 12) for name in ARMS]
    assert sum(arm["flops"] for arm in job["arms"]) == pytest.approx(job["progress"]["flops"]["spent"])
    samples = client.get(f"/v1/jobs/{job_id}/samples?limit=200").json()["items"]
    assert len({sample["sample_id"] for sample in samples}) == len({sample["seed"] for sample in samples}) == 48
    ids = {(arm["name"], arm["prompt_id"], arm["sampling_id"]) for arm in job["arms"]}
    assert {(sample["arm"], sample["prompt_id"], sample["sampling_id"]) for sample in samples} == ids
    only = client.get(f"/v1/jobs/{job_id}/samples", params={"arm": ARMS[2]}).json()["items"]
    assert {sample["arm"] for sample in only} == {ARMS[2]}
    assert all("Think." in sample["prompt"] for sample in only)
    metrics = client.get(f"/v1/jobs/{job_id}/metrics").json()
    assert [(arm["name"], arm["num_scored"]) for arm in metrics["arms"]] == [(name, 12) for name in ARMS]
    assert sum(arm["summary"]["num_correct"] for arm in metrics["arms"]) == metrics["summary"]["num_correct"]
    assert verify_directory(Path(job_dir(str(world.settings.data_dir), job_id))).faults == ()


def test_verify_finds_arms_whose_shards_go_by_each_others_names(drawn, tmp_path: Path) -> None:
    world, _, job_id = drawn
    copy = tmp_path / job_id
    shutil.copytree(job_dir(str(world.settings.data_dir), job_id), copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    swapped = {ARMS[0]: ARMS[1], ARMS[1]: ARMS[0]}
    for entry in (*manifest["tasks"], *manifest["shards"]):
        entry["arm"] = swapped.get(entry["arm"], entry["arm"])
    (copy / "manifest.json").write_text(json.dumps(manifest))

    faults = verify_directory(copy).faults

    assert sorted(fault.split(": drawn with")[0] for fault in faults) == [f"arm {name}" for name in ARMS[:2]]
    assert all("its document says ('simulated', " in fault for fault in faults)


def test_usage_lengths_and_samples_are_shown_by_arm(drawn) -> None:
    _, client, job_id = drawn
    usage = client.get(f"/v1/usage?by=arm&job={job_id}").json()["items"]
    drawn_by = {row["arm"]: row["samples"] for row in usage if row["samples"]}
    page = client.get(f"/jobs/{job_id}").text
    samples = client.get(f"/jobs/{job_id}/samples", params={"arm": ARMS[2]}).text

    assert drawn_by == dict.fromkeys(ARMS, 12)
    assert all(f"{name} · stopped" in page for name in ARMS)
    assert "12 samples" in samples.lower()
    assert 'aria-current="true">coached t=0.3</a>' in samples
    assert f"/jobs/{job_id}/samples?show=correct&amp;arm=coached%20t%3D0.3" in samples
    lines = re.findall(r'<br><span class="faint small">(.*?)</span>', samples)
    assert lines == [ARMS[2]] * 12
    assert client.get(f"/jobs/{job_id}/samples?arm=none").status_code == 422


def test_page_shows_every_arm_with_its_metrics_and_curves(drawn) -> None:
    _, client, job_id = drawn
    html = client.get(f"/jobs/{job_id}").text
    assert all(name in html for name in ARMS)
    assert "Each gets as many samples; pass@2 is at as many samples a problem in each." in html
    assert "25.0 %" in html


def test_selection_takes_the_arms_it_names_and_says_so(drawn) -> None:
    world, client, job_id = drawn
    asked = {"sources": [{"job": job_id, "arms": [ARMS[1], ARMS[2]]}], "keep": "all", "duplicates": "keep"}
    selection_id = client.post("/v1/selections", json=asked).json()["id"]
    work_off(world)
    found = client.get(f"/v1/selections/{selection_id}").json()
    assert (found["phase"], found["error"]) == ("succeeded", None)
    assert found["document"]["sources"] == asked["sources"]
    table = pq.ParquetFile(found["path"]).read()
    ids = {arm["name"]: arm for arm in client.get(f"/v1/jobs/{job_id}").json()["arms"]}
    rows = set(zip(*(table[name].to_pylist() for name in ("arm", "prompt_id", "sampling_id")), strict=True))
    assert rows == {(name, ids[name]["prompt_id"], ids[name]["sampling_id"]) for name in (ARMS[1], ARMS[2])}
    refused = client.post("/v1/selections", json={"sources": [{"job": job_id, "arms": ["warm"]}]})
    assert f"sources.arms: got 'warm', allowed of {job_id}: plain t=0.3" in refused.json()["detail"]


def test_selection_mixes_arms_of_one_job_by_their_shares(drawn) -> None:
    world, client, job_id = drawn
    sources = [{"job": job_id, "arms": [name], "share": share} for name, share in ((ARMS[0], 0.25), (ARMS[2], 0.75))]
    asked = {"sources": sources, "keep": "all", "duplicates": "keep"}
    selection_id = client.post("/v1/selections", json=asked).json()["id"]
    work_off(world)

    found = client.get(f"/v1/selections/{selection_id}").json()
    assert (found["phase"], found["error"], found["document"]["sources"]) == ("succeeded", None, sources)
    table = pq.ParquetFile(found["path"]).read()
    assert Counter(table["arm"].to_pylist()) == {ARMS[0]: 4, ARMS[2]: 12}
    assert set(table["source"].to_pylist()) == {0, 1}
    html = client.get(f"/training/selections/{selection_id}").text
    assert f"{job_id} ({ARMS[0]})" in html
    for again in ([sources[0], sources[0]], [sources[0], {"job": job_id, "share": 0.5}]):
        refused = client.post("/v1/selections", json={"sources": again})
        assert refused.status_code == 422
        assert "a job once, or with other arms each time" in refused.text


def test_arms_of_an_adaptive_job_have_no_metrics_at_k(drawn) -> None:
    world, client, _ = drawn
    document = DOCUMENT | {"allocation": {"strategy": "until_correct", "max_samples": 8}}
    job_id = client.post("/v1/jobs", json=document).json()["id"]
    work_off(world)
    metrics = client.get(f"/v1/jobs/{job_id}/metrics").json()
    first = metrics["arms"][0]["summary"]
    assert "reason" in first["coverage"][0]["estimate"]
    assert "value" in first["realised_coverage"]
    assert "value" in metrics["summary"]["coverage"][0]["estimate"]
    assert "no fair race between them" in client.get(f"/jobs/{job_id}").text


def test_truncated_samples_of_unknown_flops_are_waste_of_unknown_size(drawn) -> None:
    world, client, _ = drawn
    model = model_spec("unpriced", engine=EngineOptions(simulated=True))
    world.store.catalogue.register_model(dataclasses.replace(model, cost=UNKNOWN_COST))
    sampling = {"temperatures": [0.3, 0.9], "max_tokens": 4}
    document = DOCUMENT | {"models": ["unpriced"], "prompts": [], "sampling": sampling}
    job_id = client.post("/v1/jobs", json=document).json()["id"]
    work_off(world)

    text = client.get(f"/compare/report.json?jobs={job_id}").json()

    arms = text["arms"] if "arms" in text else text["comparison"]["arms"]
    assert [arm["waste"] for arm in arms] == [[{"reason": "truncated", "flops": None}]] * 2


def test_arms_of_a_comparison_that_took_one_job_have_one_line_with_both_names(finished) -> None:
    world, job_id = finished
    _, figures = report_jobs(
        world.store,
        [job_id, job_id],
        title="t",
        documents={job_id: ""},
        versions=(),
        now=datetime.now(UTC),
        names=("correct", "verified"),
    )
    coverage = json.loads(json.dumps(figures[0].spec))
    told = {row[0] for row in figures[0].table.rows}
    assert told == {"correct / verified"}
    assert len([trace for trace in coverage["data"] if trace.get("mode", "").startswith("lines+")]) == 1


def test_comparison_of_one_job_of_several_arms_is_between_its_arms(drawn) -> None:
    _, client, job_id = drawn
    text = client.get(f"/compare/report.json?jobs={job_id}").json()
    arms = text["arms"] if "arms" in text else text["comparison"]["arms"]
    assert [(arm["name"], arm["samples"]) for arm in arms] == [(name, 12) for name in ARMS]
    assert all(arm["useful_flops"] + sum(w["flops"] for w in arm["waste"]) == arm["spent_flops"] for arm in arms)
    page = client.get(f"/compare?jobs={job_id}")
    assert page.status_code == 200
    assert "coached t=0.9" in page.text


def test_first_sample_of_a_problem_is_whichever_arm_drew_it(drawn) -> None:
    world, client, _ = drawn
    document = DOCUMENT | {"allocation": {"strategy": "adastar"}, "budget": {"samples_per_problem": 1}}
    job_id = client.post("/v1/jobs", json=document).json()["id"]
    work_off(world)

    summary = client.get(f"/v1/jobs/{job_id}/metrics").json()["summary"]

    assert summary["num_samples"] == summary["num_problems"] == 6
    (at_one,) = summary["coverage"]
    assert at_one["estimate"]["value"] == pytest.approx(summary["realised_coverage"]["value"])


def test_model_of_unknown_flops_hides_those_of_no_other_arm(drawn) -> None:
    world, client, _ = drawn
    unknown = model_spec("unknown", engine=EngineOptions(simulated=True))
    world.store.catalogue.register_model(dataclasses.replace(unknown, cost=UNKNOWN_COST))
    document = {key: DOCUMENT[key] for key in ("problems", "budget", "scorers")}
    document |= {"models": ["simulated", "unknown"], "sampling": {"max_tokens": 40}}
    job_id = client.post("/v1/jobs", json=document).json()["id"]
    work_off(world)

    known, hidden = (arm["summary"] for arm in client.get(f"/v1/jobs/{job_id}/metrics").json()["arms"])
    assert "value" in known["flops_per_problem"]
    assert "reason" in hidden["flops_per_problem"]
    _, figures = compare_jobs(
        world.store, [job_id], title="t", documents={job_id: ""}, versions=(), now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert {row[0] for row in figures[0].table.rows} == {"simulated"}
    assert figures[0].title in client.get(f"/jobs/{job_id}").text
