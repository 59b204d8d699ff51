"""Usage, health, Prometheus, guards, and the OpenAPI description."""

import csv
import dataclasses
import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient


@pytest.fixture
def reader(finished):
    world, _ = finished
    with world.client() as client:
        yield client


def test_usage_sums_agree_however_they_are_grouped(reader: TestClient, finished) -> None:
    totals = set()
    for by in ("job", "model,outcome", "stage,outcome", "job,model,stage,outcome", ""):
        items = reader.get("/v1/usage", params={"by": by}).json()["items"]
        totals.add((sum(i["samples"] for i in items), round(sum(i["flops"] for i in items))))
        assert all(set(by.split(",")) - {""} == set(item) & {"job", "model", "stage", "outcome"} for item in items)

    assert len(totals) == 1
    _, job_id = finished
    assert reader.get("/v1/usage", params={"by": "job", "job": job_id}).json()["items"][0]["job"] == job_id


def test_usage_csv_has_the_same_numbers(reader: TestClient) -> None:
    listed = reader.get("/v1/usage", params={"bucket": "minute"}).json()["items"]

    response = reader.get("/v1/usage", params={"bucket": "minute", "format": "csv"})

    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert response.headers["content-type"].startswith("text/csv")
    assert [float(row["flops"]) for row in rows] == [item["flops"] for item in listed]
    assert all(row["minute"] for row in rows)


def test_device_time_of_a_job_is_the_same_in_its_document_its_usage_and_for_prometheus(reader: TestClient) -> None:
    job = reader.get("/v1/jobs").json()["items"][0]
    rows = reader.get("/v1/usage", params={"job": job["id"], "by": "stage"}).json()["items"]

    devices = job["progress"]["devices"]

    assert devices["cpu_hours"] == pytest.approx(sum(row["cpu_s"] for row in rows) / 3600) != 0
    assert devices["gpu_hours"] == 0
    by_stage = {row["stage"]: row["cpu_s"] / 3600 for row in rows if row["cpu_s"]}
    assert {stage: hours["cpu_hours"] for stage, hours in devices["by_stage"].items()} == pytest.approx(by_stage)
    text = reader.get("/metrics").text
    assert "isoflop_cpu_seconds_total{" in text
    parts = re.findall(r'isoflop_held_device_seconds_total\{device="cpu",kind="generator",.*part="(\w+)"', text)
    assert sorted(set(parts)) == ["busy", "idle", "load", "swap"]


@pytest.mark.parametrize("params", [{"by": "user"}, {"bucket": "hour"}, {"format": "xml"}])
def test_usage_bad_parameter_is_422(reader: TestClient, params: dict[str, str]) -> None:
    assert reader.get("/v1/usage", params=params).status_code == 422


def test_usage_of_a_job_that_does_not_exist_is_404(reader: TestClient) -> None:
    assert reader.get("/v1/usage", params={"job": "none"}).status_code == 404


def _with_status(world, **changes: object) -> None:
    world.status = dataclasses.replace(world.status, **changes)


def test_health_ticking_loop_is_ok_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").status_code == 200


def test_health_silent_loop_is_503(world, client: TestClient) -> None:
    _with_status(world, tick_age_s=31.0)

    response = client.get("/healthz")

    assert (response.status_code, response.json()["status"]) == (503, "silent")
    assert client.get("/readyz").status_code == 503


def test_health_before_the_first_tick_is_healthy_but_not_ready(world, client: TestClient) -> None:
    _with_status(world, last_tick_at=None, tick_age_s=60.0, num_ticks=0)

    assert client.get("/healthz").status_code == 200
    assert client.get("/healthz").json()["status"] == "starting"
    assert client.get("/readyz").status_code == 503


def test_health_without_a_tick_after_the_grace_is_503(world, client: TestClient) -> None:
    _with_status(world, last_tick_at=None, tick_age_s=500.0, num_ticks=0)
    long_ago = datetime.now(UTC) - timedelta(seconds=500)
    world.app.state.context = dataclasses.replace(world.app.state.context, started_at=long_ago)

    assert client.get("/healthz").status_code == 503


def test_ready_is_503_while_draining(world, client: TestClient) -> None:
    _with_status(world, is_draining=True)

    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_prometheus_text_parses_and_agrees_with_usage(reader: TestClient) -> None:
    families = {f.name: f for f in text_string_to_metric_families(reader.get("/metrics").text)}

    drawn = [s.value for s in families["isoflop_samples"].samples if s.labels["stage"] == "generate"]
    assert sum(drawn) == 24
    items = reader.get("/v1/usage", params={"by": "stage"}).json()["items"]
    assert sum(s.value for s in families["isoflop_flops"].samples) == pytest.approx(sum(i["flops"] for i in items))
    assert {(s.labels["phase"], s.value) for s in families["isoflop_jobs"].samples} == {("succeeded", 1.0)}
    assert families["isoflop_tick_age_seconds"].samples[0].value >= 0


def test_prometheus_shows_the_account_of_a_job_that_runs(client: TestClient, job_document) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}

    amounts = {s.labels["part"]: s.value for s in families["isoflop_budget"].samples if s.labels["job"] == job_id}
    assert amounts == {"limit": 12.0, "spent": 0.0, "reserved": 0.0}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8265", "127.0.0.1.evil.example", "", "[", "localhost@x"]
)
def test_guard_foreign_host_is_421(client: TestClient, host: str) -> None:
    response = client.get("/v1/jobs", headers={"Host": host})

    assert response.status_code == 421
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8265", "[::1]:8265", "LOCALHOST"])
def test_guard_loopback_host_passes(client: TestClient, host: str) -> None:
    assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:8265", 200)]
)
def test_guard_foreign_origin_cannot_change_anything(
    client: TestClient, job_document, origin: str, status: int
) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    response = client.post(f"/v1/jobs/{job_id}/cancel", headers={"Origin": origin})

    assert response.status_code == status
    wanted = client.get(f"/v1/jobs/{job_id}").json()["desired"]
    assert wanted == ("cancel" if status == 200 else "run")


def test_guard_body_over_the_limit_is_413_with_and_without_length(world, client: TestClient) -> None:
    large = b" " * (world.settings.max_body_bytes + 1)

    def chunks():
        yield from (large[:600_000], large[600_000:])

    headers = {"content-type": "application/json"}
    assert client.post("/v1/jobs", content=large, headers=headers).status_code == 413
    assert client.post("/v1/jobs", content=chunks(), headers=headers).status_code == 413
    assert client.get("/v1/jobs", headers={"content-length": "x"}).status_code == 413


def test_guard_answers_no_cross_origin_preflight(client: TestClient) -> None:
    response = client.options(
        "/v1/jobs", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )

    assert "access-control-allow-origin" not in response.headers


def test_post_without_json_content_type_is_refused(client: TestClient, job_document) -> None:
    # a page of another site can send text/plain without asking first, application/json it cannot
    response = client.post("/v1/jobs", content="{}", headers={"content-type": "text/plain"})

    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"
    assert "allowed: application/json" in response.json()["detail"]


def test_method_that_is_not_there_is_405_problem(client: TestClient) -> None:
    response = client.delete("/v1/jobs")

    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert "GET" in response.headers["allow"] or "POST" in response.headers["allow"]


def test_openapi_describes_every_operation_and_problem(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()

    assert schema["openapi"].startswith("3.1")
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} has no description"
            assert "application/problem+json" in operation["responses"]["422"]["content"]


def test_prometheus_counts_every_job_however_many(client: TestClient, job_document) -> None:
    for _ in range(210):
        assert client.post("/v1/jobs", json=job_document()).status_code == 201

    text = client.get("/metrics").text

    assert 'isoflop_jobs{phase="queued"} 210.0' in text
    assert text.count('part="limit"') == 210
