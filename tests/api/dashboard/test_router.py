"""Pages of a real store: what is shown agrees with the ledger and the files, and forms do what they say."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.dashboard.router import make_router
from service.jobs import Desired

LIST_PATHS = ("/", "/training", "/comparisons", "/workers", "/models", "/problems", "/usage")


def client_of(world: Any) -> TestClient:
    """The pages beside the application's own routes, whichever of the two mounted them."""
    app: FastAPI = world.app
    if not any(getattr(route, "path", None) == "/workers" for route in app.routes):
        app.include_router(make_router())
    return world.client()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", html, flags=re.S)))


@pytest.fixture
def client(world: Any) -> Iterator[TestClient]:
    with client_of(world) as opened:
        yield opened


@pytest.fixture
def done(finished: tuple[Any, str]) -> Iterator[tuple[TestClient, str]]:
    world, job_id = finished
    with client_of(world) as opened:
        yield opened, job_id


@pytest.mark.parametrize("path", LIST_PATHS)
def test_page_of_a_new_service_is_shown_with_its_policy(path: str, client: TestClient) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "</html>" in response.text
    assert "</html>" not in client.get(path, params={"fragment": "live"}).text


def test_everything_a_page_loads_is_served_beside_it(client: TestClient) -> None:
    loaded = re.findall(r'(?:src|href)="(/static/.+?)"', client.get("/").text)

    assert len(loaded) == 8
    assert [client.get(address).status_code for address in loaded] == [200] * 8


@pytest.mark.parametrize("path", LIST_PATHS)
def test_page_of_a_service_that_has_worked_is_shown(path: str, done: tuple[TestClient, str]) -> None:
    assert done[0].get(path).status_code == 200


def test_job_page_agrees_with_the_api(done: tuple[TestClient, str]) -> None:
    client, job_id = done
    job = client.get(f"/v1/jobs/{job_id}").json()
    text = text_of(client.get(f"/jobs/{job_id}").text)

    assert f"{job['progress']['samples']:,} samples" in text
    assert "succeeded" in text
    assert "pass@4 (coverage)" in text
    assert "budget:" in text


def test_job_page_of_an_ended_job_asks_no_more(done: tuple[TestClient, str]) -> None:
    client, job_id = done

    assert "data-poll-ms" not in client.get(f"/jobs/{job_id}").text


def test_job_page_before_the_first_score_has_every_place_that_fills_later(
    world: Any, client: TestClient, job_document: Any, run_jobs: Callable[[Any], None]
) -> None:
    job_id = client.post("/v1/jobs", json=job_document(models=["simulated"])).json()["id"]
    before = client.get(f"/jobs/{job_id}", params={"fragment": "live"}).text
    run_jobs(world)
    after = client.get(f"/jobs/{job_id}", params={"fragment": "live"}).text

    places = re.findall(r'data-live="(.+?)"', after)
    assert "metric-coverage" in places
    assert re.findall(r'data-live="(.+?)"', before) == places
    assert "data-poll-ms" in before
    assert "data-poll-ms" not in after


def test_job_page_counts_samples_of_score_tasks_not_their_scores(done: tuple[TestClient, str]) -> None:
    client, job_id = done
    rows = re.findall(r"<td>(score|generate)</td>.*?(\d+) / (\d+)", client.get(f"/jobs/{job_id}").text, flags=re.S)

    assert {kind for kind, _, _ in rows} == {"score", "generate"}
    assert all(done == planned for _, done, planned in rows)


def test_job_page_offers_only_jobs_that_can_be_compared(world: Any, client: TestClient, job_document: Any) -> None:
    one, same = (client.post("/v1/jobs", json=job_document(name=name)).json()["id"] for name in ("one", "same"))
    fewer = client.post("/v1/jobs", json=job_document(name="fewer", max_problems=2)).json()["id"]
    html = client.get(f"/jobs/{one}").text

    assert f'<option value="{same}">' in html
    assert f'<option value="{fewer}">' not in html


def test_overview_lists_the_job_and_its_flops(done: tuple[TestClient, str]) -> None:
    client, job_id = done
    html = client.get("/").text

    assert f'href="/jobs/{job_id}"' in html
    assert "Nothing is running, nothing waiting." in html
    assert "simulated · generate" in html


def test_usage_page_sums_to_the_ledger(done: tuple[TestClient, str]) -> None:
    client, _ = done
    rows = client.get("/v1/usage").json()["items"]
    tokens = sum(row["completion_tokens"] for row in rows if row["stage"] == "generate")

    assert f"{tokens:,}" in text_of(client.get("/usage").text)


@pytest.mark.parametrize("shown", ["all", "correct", "incorrect", "false_positive", "truncated", "failed", "unscored"])
def test_sample_browser_lists_what_the_api_lists(shown: str, done: tuple[TestClient, str]) -> None:
    client, job_id = done
    params: dict[str, Any] = {"limit": 40} | ({} if shown == "all" else {"verdict": shown})
    expected = [item["sample_id"] for item in client.get(f"/v1/jobs/{job_id}/samples", params=params).json()["items"]]

    html = client.get(f"/jobs/{job_id}/samples", params={"show": shown}).text

    assert re.findall(r'data-sample="(.+?)"', html) == expected


def test_sample_is_shown_in_full_with_verdict_prompt_and_cost(done: tuple[TestClient, str]) -> None:
    client, job_id = done
    sample = client.get(f"/v1/jobs/{job_id}/samples", params={"limit": 9}).json()["items"][8]

    text = text_of(
        client.get(f"/jobs/{job_id}/samples", params={"sample": sample["sample_id"], "fragment": "live"}).text
    )

    assert re.sub(r"\s+", " ", sample["prompt"]).strip() in text
    assert re.sub(r"\s+", " ", sample["completion"]).strip() in text
    assert f"sample {sample['sample_id']}" in text
    assert "math_answer" in text


def test_jobs_are_compared_on_a_page_and_in_files(
    world: Any, client: TestClient, job_document: Any, run_jobs: Callable[[Any], None]
) -> None:
    scorers = ["math_answer", "steps"]
    few, many = (
        client.post(
            "/v1/jobs",
            json=job_document(name=name, models=["simulated"], budget={"samples_per_problem": n}, scorers=scorers),
        ).json()["id"]
        for name, n in (("few", 4), ("many", 8))
    )
    run_jobs(world)
    query = {"jobs": [few, many]}

    page = client.get("/compare", params=query)
    document = client.get("/compare/report.json", params=query).json()
    arms = document["comparison"]["arms"]

    assert page.status_code == 200
    assert f'<option value="{many}">many</option>' in client.get(f"/jobs/{few}").text
    assert [(arm["name"], arm["samples"]) for arm in arms] == [("few", 24), ("many", 48)]
    assert arms[0]["spent_flops"] == pytest.approx(
        client.get(f"/v1/jobs/{few}").json()["progress"]["flops"]["spent"], rel=1e-12
    )
    assert "Not matched" in document["findings"][0]
    assert [metric["values"][0]["n"] for metric in document["comparison"]["metrics"][:2]] == [6, 6]
    assert "name: many" in client.get("/compare/report.md", params=query).text
    assert "attachment" in client.get("/compare/report.html", params=query).headers["content-disposition"]


@pytest.mark.parametrize("jobs", [["{job}"], ["{job}", "{job}"]], ids=["one", "twice the same"])
def test_comparison_needs_two_jobs(jobs: list[str], done: tuple[TestClient, str]) -> None:
    client, job_id = done

    assert client.get("/compare", params={"jobs": [job.format(job=job_id) for job in jobs]}).status_code == 422


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/job-9-none", 404),
        ("/jobs/job-9-none/samples", 404),
        ("/jobs/{job}/samples?show=best", 422),
        ("/jobs/{job}/samples?cursor=x", 422),
        ("/jobs/{job}/samples?sample=none", 404),
    ],
)
def test_error_is_a_page_that_says_what_happened(path: str, status: int, done: tuple[TestClient, str]) -> None:
    client, job_id = done
    response = client.get(path.format(job=job_id))

    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert "error-page" in response.text


@pytest.mark.parametrize(
    ("action", "desired"), [("pause", Desired.pause), ("resume", Desired.run), ("cancel", Desired.cancel)]
)
def test_job_form_says_what_is_wanted_and_returns(
    action: str, desired: Desired, world: Any, client: TestClient, job_document: Any
) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]
    wakes = world.num_wakes

    response = client.post(f"/jobs/{job_id}/{action}", follow_redirects=False)

    assert (response.status_code, response.headers["location"]) == (303, f"/jobs/{job_id}")
    assert world.store.jobs.get(job_id).desired is desired
    assert world.num_wakes == wakes + 1


def test_job_form_with_an_unknown_action_changes_nothing(world: Any, client: TestClient, job_document: Any) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    assert client.post(f"/jobs/{job_id}/explode").status_code == 422
    assert world.store.jobs.get(job_id).desired is Desired.run


@pytest.mark.parametrize(
    ("form", "replicas"), [({"replicas": "3"}, 3), ({"replicas": "3", "drain": "yes"}, 0)], ids=["scale", "drain"]
)
def test_pool_form_scales_the_pool_of_a_model_with_a_slash(
    form: dict[str, str], replicas: int, world: Any, client: TestClient
) -> None:
    shown = re.search(
        r'action="/workers/org/large/scale">\s*<input type="hidden" name="etag" value="(.+?)"',
        client.get("/workers").text,
    )
    assert shown is not None

    response = client.post(
        "/workers/org/large/scale", data={**form, "etag": unescape(shown[1])}, follow_redirects=False
    )

    assert response.status_code == 303
    assert world.store.catalogue.pool("org/large").replicas == replicas


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"replicas": "2", "etag": '"99"'}, 409),
        ({"replicas": "-1", "etag": '"1"'}, 422),
        ({"replicas": "many", "etag": '"1"'}, 422),
        ({"replicas": "2"}, 422),
    ],
    ids=["somebody was faster", "negative", "no number", "no etag"],
)
def test_pool_form_that_cannot_be_followed_changes_nothing(
    form: dict[str, str], status: int, world: Any, client: TestClient
) -> None:
    assert client.post("/workers/org/large/scale", data=form).status_code == status
    assert world.store.catalogue.pool("org/large").replicas == 1


def test_form_of_a_foreign_page_is_refused(world: Any, client: TestClient, job_document: Any) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    response = client.post(f"/jobs/{job_id}/cancel", headers={"Origin": "http://elsewhere.example"})

    assert response.status_code == 403
    assert world.store.jobs.get(job_id).desired is Desired.run


def test_pages_stay_out_of_the_described_api(client: TestClient) -> None:
    assert all(
        path.startswith(("/v1/", "/metrics", "/healthz", "/readyz"))
        for path in client.get("/openapi.json").json()["paths"]
    )


def _run(world: Any, client: TestClient, run_jobs: Callable[[Any], None], *documents: dict[str, object]) -> list[str]:
    ids = [client.post("/v1/jobs", json=document).json()["id"] for document in documents]
    run_jobs(world)
    return ids


def test_what_no_scorer_measures_is_shown_as_not_measured(
    world: Any, client: TestClient, job_document: Any, run_jobs: Callable[[Any], None]
) -> None:
    steps, nothing, answers = _run(
        world,
        client,
        run_jobs,
        *(job_document(models=["simulated"], scorers=scorers) for scorers in (["steps"], [], ["math_answer"])),
    )

    values = {
        job: re.findall(r'data-live="metric-[\w-]+">(.+?)<', client.get(f"/jobs/{job}").text)
        for job in (steps, nothing, answers)
    }
    assert set(values[steps]) == set(values[nothing]) == {"not measured"}
    assert values[answers][0] != "not measured"
    assert "12 of 12 scored" in client.get(f"/jobs/{answers}").text
    assert "no scorers: nothing is scored" in client.get(f"/jobs/{nothing}").text
    summary = client.get(f"/v1/jobs/{steps}/metrics").json()["summary"]
    for name in ("num_correct", "realised_coverage", "flops_per_correct", "false_positive_rate", "judged_share"):
        assert summary[name] == {"reason": "the job has no scorer of answers"}, name
    assert all("reason" in point["estimate"] for point in summary["coverage"])
    assert all("reason" in point["coverage"] for point in summary["curve"])
    found = client.get(f"/v1/jobs/{answers}/metrics").json()
    assert found["summary"]["realised_verified_coverage"] == {"reason": "the job has no scorer of steps"}
    assert (found["num_scored"], found["num_samples"], found["scorers"]) == (12, 12, ["math_answer"])
    assert "data-poll-ms" not in client.get(f"/jobs/{nothing}").text


def test_jobs_without_scores_are_compared_without_numbers_for_them(
    world: Any, client: TestClient, job_document: Any, run_jobs: Callable[[Any], None]
) -> None:
    scored, never = _run(
        world,
        client,
        run_jobs,
        job_document(models=["simulated"]),
        job_document(models=["simulated"], scorers=[]),
    )
    unscored = client.post("/v1/jobs", json=job_document(models=["simulated"])).json()["id"]
    query = {"jobs": [scored, never, unscored]}

    page, report = client.get("/compare", params=query), client.get("/compare/report.json", params=query).json()

    assert page.status_code == 200
    assert f"{never}: not measured, the job has no scorers." in unescape(page.text)
    for line in report["comparison"]["metrics"]:
        assert "value" in line["values"][0]
        assert line["values"][1:] == [{"reason": "the job has no scorers"}, {"reason": "no sample is scored yet"}]
        assert line["differences"] == line["values"][1:]


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 200, "Reference"),
        ("?jobs=job-9-none&jobs=job-8-none", 404, "no job 'job-9-none'"),
        ("?jobs=job-9-none", 404, "no job 'job-9-none'"),
        ("/report.json", 422, "jobs: got nothing"),
    ],
)
def test_comparison_of_nothing_is_a_page_that_says_how_to_fill_it(
    query: str, status: int, says: str, client: TestClient, job_document: Any
) -> None:
    for name in ("one", "two"):
        client.post("/v1/jobs", json=job_document(name=name))

    response = client.get(f"/compare{query}")

    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert says in unescape(response.text)


def test_comparison_of_a_service_without_jobs_says_how_to_make_some(client: TestClient) -> None:
    assert "isoflop submit" in client.get("/compare").text
