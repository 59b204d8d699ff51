"""What belongs to a job, read from one that really ran: simulated engine, real files, real scorers."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.shards import file_sha256
from tests.api.conftest import work_off


@pytest.fixture
def reader(finished):
    world, job_id = finished
    with world.client() as client:
        yield client, f"/v1/jobs/{job_id}"


def _all_samples(client: TestClient, path: str, **params: str | int) -> list[dict]:
    found, cursor = [], None
    while True:
        page = client.get(f"{path}/samples", params=params | ({"cursor": cursor} if cursor else {})).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_job_that_ended_adds_up(reader) -> None:
    client, path = reader

    job = client.get(path).json()

    progress = job["progress"]
    assert job["phase"] == "succeeded"
    assert progress["samples"] == 24
    assert progress["parts"] == progress["parts_scored"] >= 1
    assert progress["budget"]["spent"] == progress["budget"]["limit"] == 24
    assert progress["budget"]["used_fraction"] == 1.0
    flops = progress["flops"]
    assert flops["spent"] == pytest.approx(flops["useful"] + sum(flops["wasted_by_reason"].values()))
    assert progress["tokens_per_s"] > 0
    assert progress["eta_s"] is None


@pytest.mark.parametrize("limit", [1, 5, 24, 200])
def test_samples_pages_give_every_sample_once(reader, limit: int) -> None:
    client, path = reader

    samples = _all_samples(client, path, limit=limit)

    assert len({sample["sample_id"] for sample in samples}) == len(samples) == 24
    assert {(s["problem_id"], s["sample_index"]) for s in samples} == {(f"p{p}", i) for p in range(6) for i in range(4)}
    assert all({score["scorer"] for score in s["scores"]} == {"math_answer", "steps"} for s in samples)


def test_samples_flops_add_up_to_the_ledger(reader) -> None:
    client, path = reader

    total = sum(sample["flops"] for sample in _all_samples(client, path))

    assert client.get(path).json()["progress"]["flops"]["spent"] == pytest.approx(total)


def test_samples_verdict_filter_keeps_exactly_those(reader) -> None:
    client, path = reader
    samples = _all_samples(client, path)

    def verdict(sample: dict) -> str:
        return next(s["verdict"] for s in sample["scores"] if s["scorer"] == "math_answer")

    for wanted in ("correct", "incorrect", "incomplete", "unparsable"):
        expected = [s["sample_id"] for s in samples if verdict(s) == wanted]
        assert [s["sample_id"] for s in _all_samples(client, path, verdict=wanted, limit=3)] == expected
    assert any(verdict(sample) == "correct" for sample in samples)
    truncated = [s["sample_id"] for s in samples if s["finish_reason"] == "length"]
    assert [s["sample_id"] for s in _all_samples(client, path, verdict="truncated")] == truncated
    assert _all_samples(client, path, verdict="unscored") == []
    assert _all_samples(client, path, verdict="failed") == []


def test_samples_problem_and_id_filters_combine(reader) -> None:
    client, path = reader

    mine = _all_samples(client, path, problem="p3")

    assert [sample["problem_id"] for sample in mine] == ["p3"] * 4
    one = _all_samples(client, path, sample_id=mine[2]["sample_id"])
    assert one == [mine[2]]
    assert _all_samples(client, path, problem="p3", sample_id="0" * 32) == []
    assert _all_samples(client, path, problem="none") == []
    assert _all_samples(client, path, model="other") == []


@pytest.mark.parametrize(
    "params",
    [{"verdict": "good"}, {"cursor": "x"}, {"cursor": "1.2.3"}, {"cursor": "-1.0"}, {"limit": 0}, {"limit": 201}],
)
def test_samples_bad_parameter_is_422_with_allowed(reader, params: dict[str, object]) -> None:
    client, path = reader

    response = client.get(f"{path}/samples", params=params)

    assert response.status_code == 422
    assert "allowed" in response.json()["detail"] or "known" in response.json()["detail"]


def test_samples_cursor_of_another_job_is_422(world, client: TestClient, job_document, run_jobs) -> None:
    mine, other = (client.post("/v1/jobs", json=job_document(models=["simulated"])).json()["id"] for _ in range(2))
    run_jobs(world)
    cursor = client.get(f"/v1/jobs/{other}/samples", params={"limit": 1}).json()["next_cursor"]

    response = client.get(f"/v1/jobs/{mine}/samples", params={"cursor": cursor})

    assert client.get(f"/v1/jobs/{other}/samples", params={"cursor": cursor}).status_code == 200
    assert response.status_code == 422
    assert f"allowed: a `next_cursor` of an earlier page of {mine}" in response.json()["detail"]


@pytest.mark.parametrize(("part", "cursor"), [("files", 10**6), ("tasks", 10**6)])
def test_cursor_that_no_page_of_the_job_gave_is_422(reader, part: str, cursor: int) -> None:
    client, path = reader

    response = client.get(f"{path}/{part}", params={"cursor": cursor})

    assert response.status_code == 422
    assert f"cursor: got '{cursor}', allowed: a `next_cursor` of an earlier page of job-" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/samples?limt=3",
            "got 'limt', allowed: arm, cursor, limit, model, problem, sample_id, verdict (did you mean",
        ),
        ("/metrics?k=3", "got 'k', allowed: no parameter at all"),
        ("/tasks?state=running&host=a", "got 'host', allowed: cursor, limit, state"),
        ("/events?since=3", "got 'since', allowed: after, limit"),
    ],
)
def test_unknown_query_parameter_is_422_naming_the_known_ones(reader, path: str, words: str) -> None:
    client, job = reader

    response = client.get(job + path)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]


def test_every_route_under_v1_refuses_an_unknown_query_parameter(reader) -> None:
    client, job = reader
    paths = {
        (
            method.upper(),
            path.replace("{job_id}", job.rpartition("/")[2]).replace("{name}", "x").replace("{model}", "x"),
        )
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    }

    found = {(method, path): client.request(method, f"{path}?nonsense=1").json()["detail"] for method, path in paths}

    assert len(found) > 15
    assert all(detail.startswith("query: got 'nonsense'") for detail in found.values()), found


def test_metrics_are_json_without_nan(reader) -> None:
    client, path = reader

    response = client.get(f"{path}/metrics")

    metrics = json.loads(response.text, parse_constant=pytest.fail)
    assert response.status_code == 200
    assert metrics["summary"]["num_samples"] == 24
    assert metrics["summary"]["num_problems"] == 6
    assert 0 < metrics["summary"]["realised_coverage"]["value"] <= 1


def test_metrics_before_the_first_score_are_empty(client: TestClient, job_document) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    assert client.get(f"/v1/jobs/{job_id}/metrics").json()["summary"] is None


def test_events_page_by_id_and_tell_the_story(reader) -> None:
    client, path = reader

    events = client.get(f"{path}/events").json()
    first = client.get(f"{path}/events", params={"limit": 1}).json()
    rest = client.get(f"{path}/events", params={"after": first["next_after"]}).json()

    assert events["items"][0]["kind"] == "submitted"
    assert first["items"] + rest["items"] == events["items"]
    assert client.get(f"{path}/events", params={"after": 10**9}).json() == {"items": [], "next_after": 10**9}
    every = client.get("/v1/events").json()["items"]
    assert [event for event in every if event["job_id"]] == events["items"]


def _stream(client: TestClient, path: str, **headers: str) -> list[tuple[str, str | None, dict]]:
    """Every message of an event stream that ends: name, id, data."""
    text = client.get(f"{path}/events", headers={"Accept": "text/event-stream", **headers}).text
    messages = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        messages.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return messages


def test_event_stream_of_an_ended_job_ends(reader) -> None:
    client, path = reader
    listed = client.get(f"{path}/events").json()["items"]

    messages = _stream(client, path)

    assert [data for name, _, data in messages if name == "event"] == listed
    assert [data["samples"] for name, _, data in messages if name == "progress"] == [24]
    assert messages[-1][0] == "end"
    assert messages[-1][2] == {"phase": "succeeded"}


def test_event_stream_resumes_after_last_event_id(reader) -> None:
    client, path = reader
    listed = client.get(f"{path}/events").json()["items"]

    resumed = _stream(client, path, **{"Last-Event-ID": str(listed[0]["id"])})

    assert [data for name, _, data in resumed if name == "event"] == listed[1:]
    refused = client.get(f"{path}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "x"})
    assert refused.status_code == 422


def test_tasks_page_in_order(reader) -> None:
    client, path = reader

    tasks = client.get(f"{path}/tasks").json()["items"]
    first = client.get(f"{path}/tasks", params={"limit": 1}).json()
    second = client.get(f"{path}/tasks", params={"limit": 1, "cursor": first["next_cursor"]}).json()

    assert [task["order"] for task in tasks] == list(range(len(tasks)))
    assert {task["kind"] for task in tasks} == {"prepare", "generate", "score"}
    assert {task["state"] for task in tasks} == {"succeeded"}
    assert first["items"] + second["items"] == tasks[:2]
    assert client.get(f"{path}/tasks", params={"state": "failed"}).json()["items"] == []


def test_files_are_there_with_their_hashes(finished, reader) -> None:
    client, path = reader
    _, job_id = finished

    files = client.get(f"{path}/files").json()["items"]
    scores = client.get("/v1/scores", params={"job": job_id}).json()["items"]

    assert sum(file["rows"] for file in files if file["kind"] == "generate") == 24
    assert scores == [file for file in files if file["kind"] == "score"]
    assert sum(file["rows"] for file in scores) == 48
    for file in files:
        assert file_sha256(file["path"]) == file["sha256"]
        assert pq.read_metadata(file["path"]).num_rows == file["rows"]


def test_samples_of_a_file_that_vanished_name_it(world, client: TestClient, job_document, run_jobs) -> None:
    job_id = client.post("/v1/jobs", json=job_document(models=["simulated"])).json()["id"]
    run_jobs(world)
    path = client.get(f"/v1/jobs/{job_id}/files", params={"kind": "generate"}).json()["items"][0]["path"]
    Path(path).unlink()

    response = client.get(f"/v1/jobs/{job_id}/samples")

    assert response.status_code == 500
    assert response.json()["type"] == "urn:isoflop:problem:corrupt-file"
    assert path in response.json()["detail"]


def test_history_of_a_job_that_ended_is_taken_once_and_on_the_same_problems_only(finished) -> None:
    world, job_id = finished
    document = {"problems": "sums/train", "models": ["simulated"], "budget": {"samples_per_problem": 1}}

    def submit(client: TestClient, *history: str, **changes: object) -> str:
        allocation = {"strategy": "adastar", "history": history}
        body = document | {"allocation": allocation} | changes
        response = client.post("/v1/jobs", params={"dry_run": True}, json=body)
        return "taken" if response.status_code == 200 else response.text

    with world.client() as client:
        assert submit(client, job_id) == "taken"
        assert "got a job twice" in submit(client, job_id, job_id)
        assert "drew from other problems" in submit(client, job_id, max_problems=3)
        assert "allowed: ids of jobs" in submit(client, "job-0-none")


def test_history_without_the_verdicts_that_count_is_refused(world) -> None:
    document = {"problems": "sums/train", "models": ["simulated"], "budget": {"samples_per_problem": 1}}
    with world.client() as client:
        first = client.post("/v1/jobs", json=document | {"scorers": ["math_answer"]}).json()["id"]
        work_off(world)
        allocation = {"strategy": "adastar", "history": [first], "counts": "verified"}
        body = document | {"allocation": allocation, "scorers": ["math_answer", "steps"]}
        response = client.post("/v1/jobs", params={"dry_run": True}, json=body)

    assert response.status_code == 422
    assert "scored by math_answer; allowed: jobs with the verdicts that count here (verified)" in response.text
