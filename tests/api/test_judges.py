"""Judges by REST: rows of a selection as problems of a job, a selection by what that job said, and what is refused."""

import pyarrow.parquet as pq
import pytest

from service.selection.judging import JUDGE_TEMPLATE
from tests.api.conftest import World
from tests.api.test_artifacts import refusal

ASK = "[answer=yes] {question} {completion}"
JUDGING = {
    "models": ["simulated"],
    "budget": {"samples_per_problem": 3},
    "sampling": {"max_tokens": 60},
    "scorers": ["yes_no"],
    "stage": "judge",
}


@pytest.fixture
def asked(world: World, job_document, run_jobs) -> tuple[World, str, str]:
    """A service of one's own whose one job has ended and was made questions of; ids of job and selection."""
    with world.client() as client:
        document = job_document(models=["simulated"], sampling={"max_tokens": 60}, scorers=["math_answer", "steps"])
        job_id = client.post("/v1/jobs", json=document | {"budget": {"samples_per_problem": 4}}).json()["id"]
        run_jobs(world)
        made = client.post("/v1/selections", json={"sources": [{"job": job_id}], "ask": ASK})
        assert made.status_code == 201, made.text
    run_jobs(world)
    return world, job_id, made.json()["id"]


def test_judges_from_questions_to_a_training_set(asked: tuple[World, str, str], run_jobs) -> None:
    world, job_id, selection_id = asked
    with world.client() as client:
        questions = client.get(f"/v1/selections/{selection_id}").json()
        assert (questions["judged"], questions["document"]["ask"]) == (None, ASK)
        judge = client.post("/v1/jobs", json=JUDGING | {"problems": selection_id})
        assert judge.status_code == 201, judge.text
        judge_id = judge.json()["id"]
        run_jobs(world)
        ended = client.get(f"/v1/jobs/{judge_id}").json()
        assert (ended["phase"], ended["num_problems"]) == ("succeeded", questions["rows"])
        spent = client.get("/v1/usage", params={"job": judge_id, "by": "stage"}).json()["items"]
        assert {row["stage"] for row in spent} == {"prepare", "judge", "score"}

        chosen = {"sources": [{"job": job_id}], "keep": "judged", "judges": [judge_id]}
        made = client.post("/v1/selections", json=chosen)
        assert made.status_code == 201, made.text
        run_jobs(world)
        found = client.get(made.headers["Location"]).json()

    assert (found["phase"], found["error"]) == ("succeeded", None)
    judged = found["judged"]
    assert judged["yes"] + judged["no"] + judged["undecided"] == questions["rows"]
    assert 0 < found["rows"] == judged["yes"] < questions["rows"]
    kept, before = (set(pq.read_table(made["path"])["sample_id"].to_pylist()) for made in (found, questions))
    assert kept < before
    rate = judged["false_positive_rate"]
    assert rate["low"] <= rate["value"] == judged["no"] / (judged["yes"] + judged["no"]) <= rate["high"]


def test_judges_default_question_is_the_general_one(asked: tuple[World, str, str]) -> None:
    world, job_id, _ = asked
    with world.client() as client:
        made = client.post("/v1/selections", json={"sources": [{"job": job_id}], "ask": "default"}).json()
        assert made["document"]["ask"] == JUDGE_TEMPLATE


def test_judges_that_judged_nothing_of_it_are_refused(finished: tuple[World, str]) -> None:
    world, job_id = finished
    document = {"sources": [{"job": job_id}], "keep": "judged"}
    with world.client() as client:
        answers = client.post("/v1/selections", json=document | {"judges": [job_id]})
        assert "with scorers math_answer, steps, allowed: a job with the scorer yes_no" in refusal(answers, 422)
        nobody = client.post("/v1/selections", json=document | {"judges": ["job-99-aaaaaa"]})
        assert "job-99-aaaaaa" in refusal(nobody, 404)


def test_judges_of_other_samples_or_problems_are_refused(asked: tuple[World, str, str], run_jobs) -> None:
    world, job_id, selection_id = asked
    with world.client() as client:
        plain = client.post("/v1/jobs", json=JUDGING | {"problems": "sums/train"}).json()["id"]
        judge = client.post("/v1/jobs", json=JUDGING | {"problems": selection_id}).json()["id"]
        document = {"sources": [{"job": plain}], "keep": "judged"}
        going_on = client.post("/v1/selections", json=document | {"judges": [judge]})
        assert "queued, allowed: a job that has ended" in refusal(going_on, 409)
        run_jobs(world)
        others = client.post("/v1/selections", json=document | {"judges": [judge]})
        assert f"which judged samples of {job_id}; allowed: judges of {plain}" in refusal(others, 422)
        document = {"sources": [{"job": job_id}], "keep": "judged", "judges": [plain]}
        sums = client.post("/v1/selections", json=document)
        assert "on sums/train, allowed: a job whose problems are a selection" in refusal(sums, 422)


def test_problems_that_are_a_selection_need_questions_and_an_end(asked: tuple[World, str, str]) -> None:
    world, job_id, _ = asked
    with world.client() as client:
        silent = client.post("/v1/selections", json={"sources": [{"job": job_id}]}).json()["id"]
        response = client.post("/v1/jobs", json=JUDGING | {"problems": silent})
        assert "allowed: a problem set, or a selection with `ask`" in refusal(response, 422)
        unmade = client.post("/v1/selections", json={"sources": [{"job": job_id}], "ask": ASK, "seed": 1}).json()["id"]
        response = client.post("/v1/jobs", json=JUDGING | {"problems": unmade})
        assert "queued, allowed: a selection that succeeded" in refusal(response, 409)
        response = client.post("/v1/jobs", json=JUDGING | {"problems": "select-99-aaaaaa"})
        assert "select-99-aaaaaa" in refusal(response, 404)


def test_problem_set_may_not_have_the_name_of_a_selection(world: World) -> None:
    with world.client() as client:
        response = client.post("/v1/problems", json={"name": "select-1-ab", "path": str(world.root / "sums.jsonl")})
        assert "one that no selection may get" in refusal(response, 422)
