"""Selections and finetunes by REST: what is refused, and a selection of a job that really ran."""

from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.records import SELECTED_SCHEMA
from tests.api.conftest import World


@pytest.fixture
def ended(world: World, job_document, run_jobs) -> tuple[World, str]:
    """A service of one's own whose one job has ended."""
    with world.client() as client:
        document = job_document(models=["simulated"], sampling={"max_tokens": 40}, scorers=["math_answer", "steps"])
        job_id = client.post("/v1/jobs", json=document | {"budget": {"samples_per_problem": 4}}).json()["id"]
    run_jobs(world)
    return world, job_id


def refusal(response: Any, status: int) -> str:
    """The words of a problem document, its fields' included."""
    assert response.status_code == status, response.text
    document = response.json()
    return " ".join([document["detail"], *(str(field) for field in document.get("errors", []))])


def test_selection_of_an_ended_job_is_a_training_set(ended: tuple[World, str], run_jobs) -> None:
    world, job_id = ended
    with world.client() as client:
        made = client.post("/v1/selections", json={"sources": [{"job": job_id}], "per_problem": 1})
        assert made.status_code == 201
        assert made.headers["Location"] == f"/v1/selections/{made.json()['id']}"
        assert made.json()["phase"] == "queued"
        run_jobs(world)
        found = client.get(made.headers["Location"]).json()

        assert (found["phase"], found["error"]) == ("succeeded", None)
        table = pq.ParquetFile(found["path"]).read()
        assert table.num_rows == found["rows"] > 0
        assert set(SELECTED_SCHEMA.names) <= set(table.column_names)
        problems = table["problem_id"].to_pylist()
        assert len(set(problems)) == len(problems)
        assert [item["id"] for item in client.get("/v1/selections").json()["items"]] == [found["id"]]
        assert [item["id"] for item in client.get("/v1/jobs").json()["items"]] == [job_id]
        again = client.post("/v1/selections", json=found["document"])
        assert again.status_code == 201


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep": "best"}, "keep"),
        ({"sources": []}, "sources"),
        ({"per_problem": 0}, "per_problem"),
        ({"rows": -1}, "rows"),
        ({"problems": float("1.5")}, "problems"),
        ({"ngram": 3}, "ngram"),
        ({"held_out": ["nowhere"]}, "unknown problem set 'nowhere'; known: sums/train"),
        ({"scorer": "vibes"}, "math_answer, steps"),
        ({"filter": "x"}, "filter"),
        ({"ask": "Right?"}, "without {question} and {completion}"),
        ({"keep": "judged"}, "keep 'judged' with judges, or neither"),
        ({"judges": ["job-1-aaaaaa"]}, "keep 'judged' with judges, or neither"),
        ({"keep": "judged", "judges": ["job-1-aaaaaa"] * 2}, "judges that differ"),
    ],
)
def test_selection_document_that_is_wrong_is_refused(
    finished: tuple[World, str], changes: dict[str, Any], words: str
) -> None:
    world, job_id = finished
    with world.client() as client:
        response = client.post("/v1/selections", json={"sources": [{"job": job_id}]} | changes)

        assert words in refusal(response, 422)


def test_selection_with_shares_for_some_sources_is_refused(finished: tuple[World, str]) -> None:
    world, job_id = finished
    sources = [{"job": job_id, "share": 0.5}, {"job": "job-9-aaaaaa"}]
    with world.client() as client:
        assert "for every source or for none" in refusal(client.post("/v1/selections", json={"sources": sources}), 422)


def test_selection_of_a_job_that_runs_is_a_conflict(client: TestClient, job_document) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    response = client.post("/v1/selections", json={"sources": [{"job": job_id}]})

    assert f"job {job_id} is queued, allowed: a job that has ended" in refusal(response, 409)


def test_selection_that_needs_what_was_not_scored_is_refused(world: World, job_document, run_jobs) -> None:
    with world.client() as client:
        job_id = client.post("/v1/jobs", json=job_document(models=["simulated"])).json()["id"]
        run_jobs(world)

        response = client.post("/v1/selections", json={"sources": [{"job": job_id}], "keep": "verified"})

        assert "needs the scorer steps" in refusal(response, 422)


def test_selection_cancelled_before_it_began_ends(ended: tuple[World, str], run_jobs) -> None:
    world, job_id = ended
    with world.client() as client:
        selection = client.post("/v1/selections", json={"sources": [{"job": job_id}]}).json()
        assert client.post(f"/v1/selections/{selection['id']}/cancel").json()["desired"] == "cancel"
        run_jobs(world)

        assert client.get(f"/v1/selections/{selection['id']}").json()["phase"] == "cancelled"
        # a cancel that arrives twice is no conflict, as with jobs
        assert client.post(f"/v1/selections/{selection['id']}/cancel").json()["phase"] == "cancelled"


@pytest.mark.parametrize("path", ["/v1/selections/select-1-aaaaaa", "/v1/finetunes/finetune-1-aaaaaa"])
def test_artifact_that_does_not_exist_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.post(f"{path}/cancel").status_code == 404


def test_job_is_no_selection(finished: tuple[World, str]) -> None:
    world, job_id = finished
    with world.client() as client:
        assert client.get(f"/v1/selections/{job_id}").status_code == 404
        assert client.post("/v1/finetunes", json={"base": "small", "dataset": job_id}).status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"base": "tiny"}, 422, "unknown model 'tiny'"),
        ({"base": "simulated"}, 422, "has no weights"),
        ({"preset": "best"}, 422, "unknown preset 'best'; known: lora-24gb, paper-high, paper-low, tiny"),
        ({"training": {"steps": 0}}, 422, "training.steps"),
        ({"training": {"learning_rate": "high"}}, 422, "training.learning_rate"),
        ({"training": {"micro_batch_size": 5}}, 422, "a divisor of batch_size (32)"),
        ({"training": {"num_checkpoints": 300}}, 422, "allowed: 1 to steps (200)"),
        ({"training": {"max_length": 5000}}, 422, "the base's context"),
        ({"training": {"epochs": 3}}, 422, "epochs"),
    ],
)
def test_finetune_document_that_is_wrong_is_refused(
    ended: tuple[World, str], run_jobs, changes: dict[str, Any], status: int, words: str
) -> None:
    world, job_id = ended
    with world.client() as client:
        selection = client.post("/v1/selections", json={"sources": [{"job": job_id}]}).json()
        document = {"base": "small", "dataset": selection["id"], "preset": "tiny"}
        assert "a selection that succeeded" in refusal(client.post("/v1/finetunes", json=document), 409)
        run_jobs(world)

        assert words in refusal(client.post("/v1/finetunes", json=document | changes), status)


def test_finetune_is_stored_once_for_one_key(ended: tuple[World, str], run_jobs) -> None:
    world, job_id = ended
    with world.client() as client:
        selection = client.post("/v1/selections", json={"sources": [{"job": job_id}]}).json()
        run_jobs(world)
        document = {"base": "small", "dataset": selection["id"], "preset": "tiny", "training": {"steps": 8}}
        headers = {"Idempotency-Key": "once"}

        first = client.post("/v1/finetunes", json=document, headers=headers).json()
        again = client.post("/v1/finetunes", json=document, headers=headers).json()
        other = client.post("/v1/finetunes", json=document | {"name": "another"}, headers=headers)

        assert first["id"] == again["id"]
        assert other.status_code == 409
        assert first["document"]["training"]["steps"] == first["steps"] == 8
        assert (first["steps_done"], first["checkpoints"], first["flops"]) == (0, [], 0.0)
        assert client.get(f"/v1/finetunes/{first['id']}/log").json() == {"items": []}
        assert client.post(f"/v1/finetunes/{first['id']}/pause").json()["desired"] == "pause"
