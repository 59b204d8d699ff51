"""Training pages of a real store: a selection that was made, a finetune with a log and a checkpoint on disk."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.artifact_views import finetune_log, last_log_entry
from api.dashboard.views.finetune import eta
from service.artifacts import Artifact, ArtifactKind, checkpoint_model
from service.jobs import Desired
from service.work import FinetuneWork
from tests.api.conftest import World, make_world, work_off
from tests.api.dashboard.test_router import text_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[tuple[World, str, str, str]]:
    """World, job, selection, and a finetune that two attempts have worked on. Tests only read it."""
    world = make_world(tmp_path_factory.mktemp("trained"), empty_database)
    document = {"problems": "sums/train", "models": ["simulated"], "sampling": {"max_tokens": 40}}
    document |= {"scorers": ["math_answer", "steps"], "budget": {"samples_per_problem": 4}, "name": "sums"}
    with world.client() as client:
        job_id = client.post("/v1/jobs", json=document).json()["id"]
        work_off(world)
        body = {"sources": [{"job": job_id}], "per_problem": 1, "name": "one each"}
        selection_id = client.post("/v1/selections", json=body).json()["id"]
        work_off(world)
        training = {"steps": 40, "num_checkpoints": 2}
        run = {"base": "small", "dataset": selection_id, "preset": "tiny", "training": training, "name": "student"}
        finetune_id = client.post("/v1/finetunes", json=run).json()["id"]
    write_log(world, finetune_id, 1, range(1, 31))
    write_log(world, finetune_id, 2, range(21, 26), cut='{"step": 26, "lo')
    artifact = world.store.artifacts.get(finetune_id)
    assert isinstance(artifact.work, FinetuneWork)
    checkpoint = checkpoint_model(artifact.work.base, finetune_id, step=20, path="/runs/c/checkpoint.json", sha256="0")
    world.store.catalogue.register_model(checkpoint)
    yield world, job_id, selection_id, finetune_id
    world.store.close()


def write_log(world: World, finetune_id: str, attempt: int, steps: range, cut: str = "") -> None:
    directory = world.settings.data_dir / "jobs" / finetune_id / "attempts" / f"{finetune_id}-0.{attempt}"
    directory.mkdir(parents=True)
    lines = [
        json.dumps(
            {
                "step": step,
                "loss": 1 / step,
                "learning_rate": 1e-4,
                "grad_norm": None,
                "tokens": 100 * step,
                "seconds": 0.5 * (step - steps.start),
                "epoch": step / 10,
            }
        )
        for step in steps
    ]
    (directory / "log.jsonl").write_text("\n".join(lines) + "\n" + cut)


@pytest.fixture
def client(trained: tuple[World, str, str, str]) -> Iterator[TestClient]:
    with trained[0].client() as opened:
        yield opened


def artifact_of(trained: tuple[World, str, str, str]) -> Artifact:
    return trained[0].store.artifacts.get(trained[3], ArtifactKind.finetune)


def test_training_page_lists_both_kinds_with_how_far_they_are(
    trained: tuple[World, str, str, str], client: TestClient
) -> None:
    _, job_id, selection_id, finetune_id = trained
    html = client.get("/training").text
    text = text_of(html)

    rows = client.get(f"/v1/selections/{selection_id}").json()["rows"]
    assert f"{rows} of 24" in text
    assert "25 of 40" in text
    for path in (f"/training/selections/{selection_id}", f"/training/finetunes/{finetune_id}", f"/jobs/{job_id}"):
        assert f'href="{path}"' in html


def test_selection_page_agrees_with_the_file(trained: tuple[World, str, str, str], client: TestClient) -> None:
    _, job_id, selection_id, finetune_id = trained
    made = client.get(f"/v1/selections/{selection_id}").json()
    html = client.get(f"/training/selections/{selection_id}").text
    text = text_of(html)

    for name, rows in made["rows_after"].items():
        assert re.search(rf"{name.replace('_', ' ')} [^\d]*(at most 1 )?{rows:.0f} ", text), name
    assert made["path"] in text
    assert f'href="/training/finetunes/{finetune_id}"' in html
    assert f'href="/jobs/{job_id}"' in html
    assert len(re.findall(r"<tr data-sample=", html)) == made["rows"]
    assert "data-poll-ms" not in html


def test_selection_page_shows_the_row_asked_for(trained: tuple[World, str, str, str], client: TestClient) -> None:
    path = f"/training/selections/{trained[2]}"
    first, second = (client.get(path, params={"row": row, "fragment": "live"}).text for row in (0, 1))

    assert "row 0 ·" in text_of(first)
    assert "row 1 ·" in text_of(second)
    assert client.get(path, params={"row": 99}).status_code == 404
    assert client.get(path, params={"row": 1000}).status_code == 422


def test_selection_page_of_a_file_that_is_gone_says_so(
    world: World, job_document: Any, run_jobs: Any, client: TestClient
) -> None:
    document = job_document(models=["simulated"], sampling={"max_tokens": 40}, scorers=["math_answer"])
    with world.client() as mine:
        job_id = mine.post("/v1/jobs", json=document).json()["id"]
        run_jobs(world)
        selection_id = mine.post("/v1/selections", json={"sources": [{"job": job_id}], "keep": "all"}).json()["id"]
        before = mine.get(f"/training/selections/{selection_id}").text
        run_jobs(world)
        Path(mine.get(f"/v1/selections/{selection_id}").json()["path"]).unlink()

        assert "data-poll-ms" in before
        assert "not a readable Parquet file" in mine.get(f"/training/selections/{selection_id}").text
        assert mine.get("/training").status_code == 200


def test_finetune_page_draws_the_log_of_all_attempts(trained: tuple[World, str, str, str], client: TestClient) -> None:
    html = client.get(f"/training/finetunes/{trained[3]}").text
    text = text_of(html)

    assert "25 of 40 steps, loss 0.04" in text
    assert html.count('data-figure="spec-') == 2
    assert ">25</span>)</summary>" in html
    assert "lora_rank" not in text.split("Hyperparameters")[1].split("Events")[0].split("Finetune document")[0]


def test_log_is_read_from_its_end_as_it_is_read_in_full(trained: tuple[World, str, str, str]) -> None:
    artifact, settings = artifact_of(trained), trained[0].settings
    log = finetune_log(settings, artifact)

    assert [entry["step"] for entry in log] == list(range(1, 26))
    assert log[20]["seconds"] == 0.0, "an attempt that went on replaces what came after its checkpoint"
    assert last_log_entry(settings, artifact) == log[-1]
    assert last_log_entry(settings, dataclasses.replace(artifact, id="finetune-99-aaaaaa")) is None


def test_eta_follows_the_attempt_that_runs(trained: tuple[World, str, str, str]) -> None:
    log = finetune_log(trained[0].settings, artifact_of(trained))

    assert eta(log, 40) == pytest.approx(15 * 0.5)
    assert eta(log[:21], 40) is None, "one line of an attempt has no pace"
    assert eta([], 40) is None


def test_job_page_names_the_training_sets_made_of_it(trained: tuple[World, str, str, str], client: TestClient) -> None:
    html = client.get(f"/jobs/{trained[1]}").text

    assert "Training sets made of it:" in html
    assert f'href="/training/selections/{trained[2]}"' in html


def test_models_page_folds_checkpoints_under_their_base(
    trained: tuple[World, str, str, str], client: TestClient
) -> None:
    html = client.get("/models").text

    assert text_of(html).count("sha256:") == 3, "a row for each registered model and none for a checkpoint"
    assert "3 models and 1 checkpoint;" in html
    assert re.search(rf'<a href="/training/finetunes/{trained[3]}"[^>]*>student</a>.*?step 20', html)


def test_usage_page_leads_to_the_page_of_each_kind(trained: tuple[World, str, str, str], client: TestClient) -> None:
    html = client.get("/usage").text

    assert f'<a href="/training/selections/{trained[2]}">one each</a>' in html
    assert f'<a href="/jobs/{trained[1]}">sums</a>' in html


@pytest.mark.parametrize(
    ("action", "desired"), [("pause", Desired.pause), ("resume", Desired.run), ("cancel", Desired.cancel)]
)
def test_finetune_forms_say_what_people_want(
    world: World, job_document: Any, run_jobs: Any, action: str, desired: Desired
) -> None:
    document = job_document(models=["simulated"], sampling={"max_tokens": 40}, scorers=["math_answer"])
    with world.client() as client:
        job_id = client.post("/v1/jobs", json=document).json()["id"]
        run_jobs(world)
        selection_id = client.post("/v1/selections", json={"sources": [{"job": job_id}], "keep": "all"}).json()["id"]
        run_jobs(world)
        run = {"base": "small", "dataset": selection_id, "preset": "tiny"}
        path = f"/training/finetunes/{client.post('/v1/finetunes', json=run).json()['id']}"
        if action == "resume":
            client.post(f"{path}/pause")

        response = client.post(f"{path}/{action}", follow_redirects=False)

        assert (response.status_code, response.headers["location"]) == (303, path)
        assert world.store.artifacts.get(path.rpartition("/")[2]).desired is desired
        assert client.post(f"{path}/stop").status_code == 422


def test_selection_takes_no_pause_and_a_wrong_kind_is_not_found(
    trained: tuple[World, str, str, str], client: TestClient
) -> None:
    _, job_id, selection_id, finetune_id = trained

    assert client.post(f"/training/selections/{selection_id}/pause").status_code == 422
    assert client.post(f"/training/selections/{selection_id}/cancel").status_code == 409
    assert client.get(f"/training/selections/{finetune_id}").status_code == 404
    assert client.get(f"/training/finetunes/{job_id}").status_code == 404
