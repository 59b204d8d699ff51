"""/v1/jobs over a real store: what is accepted, what is refused and in which words."""

import dataclasses
import json
import math
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from api.wire.job_document import MAX_USD
from service.currency import Currency
from service.sampling import ModelSampling
from service.scoring import SCORERS
from tests.api.conftest import model_spec
from tests.slow_hosts import slow_hosts

Document = Callable[..., dict[str, object]]


def test_submit_good_document_stores_the_resolved_job(world, client: TestClient, job_document: Document) -> None:
    response = client.post("/v1/jobs", json=job_document(sampling={"max_tokens": 32}, scorers=["math_answer", "steps"]))

    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["phase"] == "queued"
    assert job["num_problems"] == 6
    sampling = job["document"]["sampling"]
    assert {name: value for name, value in sampling.items() if value} == {"temperature": 0.7, "max_tokens": 32}
    assert sampling["top_p"] is None, "the model's own"
    assert job["document"]["name"] == "sums/train by small"
    assert job["progress"]["budget"] == {
        "currency": "samples",
        "unit": "samples",
        "limit": 12.0,
        "spent": 0.0,
        "reserved": 0.0,
        "overshoot": 0.0,
        "used_fraction": 0.0,
    }
    assert world.num_wakes == 1


def test_submit_resolved_document_again_asks_for_the_same(world, client: TestClient, job_document: Document) -> None:
    first = client.post(
        "/v1/jobs",
        json=job_document(
            budget={"flops": 5e9},
            accounting="paper",
            allocation={"strategy": "until_correct", "k": 2, "max_samples": 9},
            prompt={
                "template": "Q: {question}\nA:",
                "system": "Be brief.",
                "few_shot": {"examples": [{"question": "1+1", "solution": "2"}], "choice": "per_problem"},
            },
            sampling={"stop": ["\n"], "top_p": 0.9},
            max_problems=3,
            seed=7,
        ),
    ).json()
    second = client.post("/v1/jobs", json=first["document"]).json()

    specs = [world.store.jobs.get(job["id"]).spec for job in (first, second)]
    assert specs[0] == specs[1]
    assert specs[0].budget.currency is Currency.flops_paper
    assert specs[0].allocation.target_correct == 2
    assert specs[0].prompt.few_shot.num_shots == 1


@pytest.mark.parametrize(
    ("budget", "currency", "limit"),
    [
        ({"flops": 2e12}, Currency.flops, 2_000_000),
        ({"flops": 2_500_000_999}, Currency.flops, 2_500),
        ({"tokens": 1e6}, Currency.tokens, 1_000_000),
        ({"samples_per_problem": 30}, Currency.samples, 180),
    ],
)
def test_submit_budget_becomes_whole_ledger_units(
    world, client: TestClient, job_document: Document, budget: dict[str, float], currency: Currency, limit: int
) -> None:
    job_id = client.post("/v1/jobs", json=job_document(budget=budget)).json()["id"]

    stored = world.store.jobs.get(job_id).spec.budget
    assert (stored.currency, stored.limit) == (currency, limit)


def test_submit_max_problems_shrinks_the_job(world, client: TestClient, job_document: Document) -> None:
    job_id = client.post("/v1/jobs", json=job_document(max_problems=4)).json()["id"]

    assert world.store.jobs.resolved(job_id).num_problems == 4
    assert world.store.jobs.get(job_id).spec.budget.limit == 8


@pytest.mark.parametrize(
    ("change", "kind", "got", "allowed"),
    [
        ({"models": ["small", "huge"]}, "model", "huge", ["org/large", "simulated", "small"]),
        ({"problems": "sums/test"}, "problem set", "sums/test", ["sums/train"]),
        ({"allocation": {"strategy": "greedy"}}, "strategy", "greedy", ["adastar", "uniform", "until_correct"]),
        ({"scorers": ["vibes"]}, "scorer", "vibes", sorted(SCORERS)),
    ],
)
def test_submit_unknown_name_is_422_with_known_ones(
    client: TestClient,
    job_document: Document,
    change: dict[str, object],
    kind: str,
    got: str,
    allowed: list[str],
) -> None:
    response = client.post("/v1/jobs", json=job_document(**change))

    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:isoflop:problem:unknown-name"
    assert (problem["kind"], problem["got"], problem["allowed"]) == (kind, got, allowed)


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"budgett": {}}, "budgett", "did you mean 'budget'"),
        ({"sampling": {"temprature": 1.0}}, "sampling.temprature", "did you mean 'temperature'"),
        ({"sampling": {"temperature": 2.5}}, "sampling.temperature", "2"),
        ({"sampling": {"structure": {}}}, "sampling.structure", "exactly one of json_schema, regex, choice"),
        ({"sampling": {"structure": {"regex": "(", "choice": ["a"]}}}, "sampling.structure", "exactly one of"),
        ({"sampling": {"structure": {"regex": "("}}}, "sampling.structure", "a regular expression"),
        ({"sampling": {"structure": {"choice": []}}}, "sampling.structure.choice", "1"),
        ({"prompt": {"template_kwargs": {"enable_thinking": True}}}, "prompt", "use_chat_template: true alone"),
        (
            {"prompt": {"use_chat_template": True, "template_kwargs": {"chat_template": "{{ x }}"}}},
            "prompt",
            "names of arguments that a chat template asks for",
        ),
        ({"prompt": {"reasoning_tags": {"open": "<t>"}}}, "prompt.reasoning_tags.close", ""),
        ({"prompt": {"reasoning_tags": {"open": "t>", "close": "</t>"}}}, "prompt.reasoning_tags", "neither contains"),
        ({"prompt": {"reasoning_tags": {"open": "<t>", "close": "<t>"}}}, "prompt.reasoning_tags", "neither contains"),
        ({"prompt": {"use_chat_template": True, "template_kwargs": {"bos_token": "x"}}}, "prompt", "ends in _token"),
        (
            {"prompt": {"use_chat_template": True, "template_kwargs": {"x": [1]}}},
            "prompt.template_kwargs.x",
            "true, false, a finite number, or a text",
        ),
        (
            {"prompt": {"use_chat_template": True, "template_kwargs": {"x": 1 << 80}}},
            "prompt.template_kwargs.x",
            "true",
        ),
        ({"sampling": {"structure": {"regex": "a\0"}}}, "sampling.structure.regex", "without NUL"),
        ({"prompt": {"few_shot": {"shots": 1}}}, "prompt.few_shot.shots", "num_shots"),
        ({"budget": {"flops": 0}}, "budget.flops", "greater than 0"),
        ({"budget": {"flops": -1e9}}, "budget.flops", "greater than 0"),
        ({"budget": {"flops": 1e31}}, "budget.flops", "less than or equal to 9"),
        ({"budget": {"flops": True}}, "budget.flops", "number"),
        ({"budget": {"flops": "2e12"}}, "budget.flops", "number"),
        ({"budget": {"tokens": 0}}, "budget.tokens", "greater than or equal to 1"),
        ({"budget": {"tokens": 10.5}}, "budget.tokens", "integer"),
        ({"budget": {"samples_per_problem": -3}}, "budget.samples_per_problem", "greater than 0"),
        ({"budget": {"usd": 0}}, "budget.usd", "greater than 0"),
        ({"budget": {"usd": 1e8}}, "budget.usd", "less than or equal to 4"),
        ({"budget": {"gpu_hours": 0}}, "budget.gpu_hours", "greater than 0"),
        ({"budget": {"cpu_hours": 2}}, "budget", "gpu_hours, which are CPU-hours where engines hold no GPU"),
        ({"budget": {}}, "budget", "exactly one of flops, tokens, samples_per_problem"),
        ({"budget": {"flops": 1e12, "tokens": 5}}, "budget", "exactly one of"),
        ({"models": []}, "models", "at least 1 item"),
        ({"models": ["small", "small"]}, "body", "models that differ"),
        ({"models": "small"}, "models", "list"),
        ({"accounting": "paper"}, "body", "only with budget.flops"),
        ({"prompt": {"template": "no field"}}, "prompt", "{question}"),
        ({"prompt": {"template": "{question:>999999999}"}}, "prompt", "{question}"),
        ({"prompt": {"template": "{question.__class__}"}}, "prompt", "{question}"),
        ({"prompt": {"few_shot": {"num_shots": 2}}}, "prompt.few_shot", "at most 0"),
        ({"sampling": {"max_tokens": 0}}, "sampling", "at least 1"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p", "greater than 0"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"name": "a\u0000b"}, "name", "without NUL"),
        ({"allocation": {"k": 1, "target_correct": 1}}, "allocation", "one of target_correct and k"),
    ],
)
def test_submit_bad_field_is_422_with_field_and_allowed(
    client: TestClient, job_document: Document, change: dict[str, object], field: str, allowed: str
) -> None:
    response = client.post("/v1/jobs", json=job_document(**change))

    problem = response.json()
    assert response.status_code == 422
    assert [error["field"] for error in problem["errors"] if allowed in error["allowed"]][:1] == [field], problem
    assert problem["errors"][0]["got"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 400])
def test_submit_budget_that_is_no_finite_number_is_422(client: TestClient, number: str) -> None:
    body = f'{{"problems": "sums/train", "models": ["small"], "budget": {{"flops": {number}}}}}'

    response = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "budget.flops"


@pytest.mark.parametrize("change", [{"budget": {"flops": 2e6}}, {"budget": {"flops": 5.0}}, {"budget": {"tokens": 20}}])
def test_submit_budget_below_one_sample_says_what_one_costs(
    client: TestClient, job_document: Document, change: dict[str, object]
) -> None:
    response = client.post("/v1/jobs", json=job_document(**change))

    assert response.status_code == 422
    assert response.json()["type"] == "urn:isoflop:problem:budget-too-small"
    assert "allowed: at least" in response.json()["detail"]


def test_submit_budget_in_usd_without_a_price_says_what_could_be_used(
    client: TestClient, job_document: Document
) -> None:
    response = client.post("/v1/jobs", json=job_document(budget={"usd": 5}))

    assert response.status_code == 422
    assert response.json()["detail"] == (
        "budget: got usd with small, which needs a price, which was never stated; allowed: flops, flops with "
        "accounting paper, tokens, samples_per_problem, gpu_hours"
    )


@pytest.mark.parametrize(
    ("price", "allocation", "status"),
    [
        ((0, 0), {}, 422),
        ((0, 0), {"equal": "budget"}, 422),
        ((0, 0), {"collect": 3}, 422),
        ((0, 0), {"strategy": "until_correct", "max_samples": 4}, 201),
        ((0, 2), {}, 201),
        ((2, 0), {}, 201),
    ],
)
def test_submit_budget_in_usd_with_a_free_model_needs_a_cap(
    client: TestClient,
    job_document: Document,
    price: tuple[float, float],
    allocation: dict[str, object],
    status: int,
) -> None:
    client.patch("/v1/models/small", json={"price": {"input_usd": price[0], "output_usd": price[1]}})

    response = client.post("/v1/jobs", json=job_document(budget={"usd": 1}, allocation=allocation))

    assert response.status_code == status
    if status == 422:
        assert response.json()["detail"].startswith("budget: got usd with small, which is free, so that the budget")


def test_most_usd_is_what_single_nanos_can_still_be_told_apart_at() -> None:
    assert math.ulp(MAX_USD) < 0.5e-9


def test_job_in_usd_keeps_the_price_it_was_submitted_with(world, client: TestClient, job_document: Document) -> None:
    client.patch("/v1/models/small", json={"price": {"input_usd": 0.5, "output_usd": 2, "cached_usd": 0.05}})
    document = job_document(budget={"usd": 0.01}, sampling={"max_tokens": 64})

    plan = client.post("/v1/jobs?dry_run=true", json=document).json()
    job = client.post("/v1/jobs", json=document).json()
    client.patch("/v1/models/small", json={"price": None})

    (cost,) = plan["cost_per_sample"]
    assert (plan["currency"], plan["limit"]) == ("usd", 0.01)
    assert cost["price"] == {"input_usd": 0.5, "output_usd": 2.0, "cached_usd": 0.05}
    assert cost["worst_case_to"] == cost["worst_case_usd"] == ((256 - 64) * 500 + 64 * 2000) / 1e9
    assert cost["samples_at_worst_case"] == int(0.01 // cost["worst_case_to"])
    assert job["progress"]["budget"] == {
        "currency": "usd",
        "unit": "USD",
        "limit": 0.01,
        "spent": 0.0,
        "reserved": 0.0,
        "overshoot": 0.0,
        "used_fraction": 0.0,
    }
    assert job["document"]["budget"] == {"usd": 0.01}
    assert world.store.jobs.resolved(job["id"]).models[0].price.output_usd == 2.0
    assert client.get("/v1/models/small").json()["price"] is None


def test_job_of_device_time_passes_its_limit_and_says_by_how_much(
    world, client: TestClient, job_document: Document, run_jobs
) -> None:
    document = job_document(models=["simulated"], budget={"gpu_hours": 1.0 / 3600})
    plan = client.post("/v1/jobs?dry_run=true", json=document).json()
    assert (plan["currency"], plan["limit"], plan["cost_per_sample"]) == ("gpu_hours", 1 / 3600, [])
    submitted = client.post("/v1/jobs", json=document).json()
    assert submitted["document"]["budget"] == {"gpu_hours": 1 / 3600}
    assert submitted["progress"]["budget"]["unit"] == "device-hours"
    run_jobs(world, slow_hosts(step_s=0.005))

    job = client.get(f"/v1/jobs/{submitted['id']}").json()

    budget = job["progress"]["budget"]
    assert job["phase"] == "succeeded"
    assert budget["unit"] == "CPU-hours"
    assert budget["overshoot"] == pytest.approx(max(0.0, budget["spent"] - budget["limit"]))
    drawing = job["progress"]["devices"]["by_stage"]["generate"]["cpu_hours"]
    assert budget["spent"] == pytest.approx(drawing, rel=0.05)  # rounded up once an attempt
    assert 0.9 <= budget["used_fraction"] <= 2.0
    text = client.get(f"/jobs/{job['id']}").text
    assert "CPU-hours" in text
    assert ("beyond it" in text) is (budget["overshoot"] > 0)


def test_submit_budget_below_one_sample_in_usd_says_what_one_costs(client: TestClient, job_document: Document) -> None:
    client.patch("/v1/models/small", json={"price": {"input_usd": 0.5, "output_usd": 2}})

    response = client.post("/v1/jobs", json=job_document(budget={"usd": 1e-8}))

    assert response.json()["detail"].startswith("budget: got 0.00000001 USD, allowed: at least 0.0001295 USD, what one")


def test_submit_budget_of_exactly_one_sample_is_accepted(client: TestClient, job_document: Document) -> None:
    document = job_document(budget={"tokens": 33}, sampling={"max_tokens": 32})

    assert client.post("/v1/jobs", json=document).status_code == 201
    document = job_document(budget={"tokens": 32}, sampling={"max_tokens": 32})
    assert client.post("/v1/jobs", json=document).status_code == 422


@pytest.mark.parametrize(("max_tokens", "status"), [(255, 201), (256, 422), (100_000, 422)])
def test_submit_max_tokens_must_leave_room_for_a_prompt(
    client: TestClient, job_document: Document, max_tokens: int, status: int
) -> None:
    response = client.post("/v1/jobs", json=job_document(sampling={"max_tokens": max_tokens}))

    assert response.status_code == status
    if status == 422:
        assert "allowed: 1 to 255" in response.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"allocation": {"strategy": "until_correct"}, "scorers": []},
        {"allocation": {"strategy": "until_correct"}, "scorers": ["steps"]},
        {"allocation": {"strategy": "until_correct", "counts": "verified"}},
        {"allocation": {"strategy": "adastar"}, "scorers": []},
        {"allocation": {"strategy": "adastar", "counts": "verified"}},
        {"allocation": {"strategy": "until_correct", "k": 5, "max_samples": 2}},
    ],
)
def test_submit_strategy_that_could_never_work_is_422(
    client: TestClient, job_document: Document, change: dict[str, object]
) -> None:
    response = client.post("/v1/jobs", json=job_document(**change))

    assert response.status_code == 422
    assert response.json()["type"] == "urn:isoflop:problem:invalid-input"


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"text"', '{"name": "\\ud800"}', b"\xff\xfe"])
def test_submit_body_that_is_no_document_is_422(client: TestClient, body: str | bytes) -> None:
    response = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_submit_fifty_times_at_once_with_one_key_makes_one_job(
    world, client: TestClient, job_document: Document
) -> None:
    start = threading.Barrier(50)

    def submit(_: int) -> tuple[int, str]:
        start.wait()
        response = client.post("/v1/jobs", json=job_document(), headers={"Idempotency-Key": "one"})
        return response.status_code, response.json()["id"]

    with ThreadPoolExecutor(50) as pool:
        answers = set(pool.map(submit, range(50)))

    assert len(answers) == 1
    assert next(iter(answers))[0] == 201
    assert len(world.store.jobs.list()) == 1


def test_submit_other_document_under_a_used_key_is_409(client: TestClient, job_document: Document) -> None:
    headers = {"Idempotency-Key": "k1"}
    client.post("/v1/jobs", json=job_document(), headers=headers)

    response = client.post("/v1/jobs", json=job_document(seed=1), headers=headers)

    assert response.status_code == 409
    assert "another document" in response.json()["detail"]


def test_dry_run_prices_the_job_and_stores_nothing(world, client: TestClient, job_document: Document) -> None:
    document = job_document(models=["small", "org/large"], budget={"flops": 1e10}, sampling={"max_tokens": 64})
    response = client.post("/v1/jobs?dry_run=true", json=document)

    plan = response.json()
    assert response.status_code == 200
    assert plan["is_dry_run"] is True
    assert plan["model_revisions"] == {"small": "sha256:small", "org/large": "sha256:org/large"}
    small, large = plan["cost_per_sample"]
    assert small["worst_case_from"] < small["nominal"] <= small["worst_case_to"]
    assert small["samples_at_worst_case"] == int(1e10 // small["worst_case_to"])
    assert small["nominal_completion_tokens"] == 64
    assert large["worst_case_to"] > 2.5 * small["worst_case_to"]
    assert [arm["name"] for arm in plan["arms"]] == ["small", "org/large"]
    assert plan["arms"][0]["first_prompt"] == "What is 0 + 1? [answer=1]\n"
    assert plan["arms"][0]["sampling"] == {
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 64,
        "stop": [],
        "structure": None,
    }
    assert world.store.jobs.list() == []
    assert world.num_wakes == 0


def test_dry_run_says_what_each_model_is_told(world, client: TestClient, job_document: Document) -> None:
    own = ModelSampling(top_p=0.8, top_k=20)
    world.store.catalogue.register_model(dataclasses.replace(model_spec("opinionated"), sampling=own))
    sampling = {"top_k": 5, "structure": {"choice": ["a", "b"]}}
    plan = client.post(
        "/v1/jobs?dry_run=true", json=job_document(models=["small", "opinionated"], sampling=sampling)
    ).json()

    told = {arm["name"]: arm["sampling"] for arm in plan["arms"]}
    assert [(told[name]["top_p"], told[name]["top_k"]) for name in ("small", "opinionated")] == [(1.0, 5), (0.8, 5)]
    assert plan["document"]["sampling"]["top_p"] is None
    again = client.post("/v1/jobs?dry_run=true", json=plan["document"])
    assert again.json()["document"] == plan["document"]


def test_list_jobs_pages_newest_first_without_repeats(client: TestClient, job_document: Document) -> None:
    ids = [client.post("/v1/jobs", json=job_document(seed=seed)).json()["id"] for seed in range(5)]

    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/jobs", params=params).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == ids[::-1]


def test_pause_resume_cancel_follow_each_other(world, client: TestClient, job_document: Document) -> None:
    job_id = client.post("/v1/jobs", json=job_document()).json()["id"]

    assert client.post(f"/v1/jobs/{job_id}/pause").json()["desired"] == "pause"
    assert client.post(f"/v1/jobs/{job_id}/resume").json()["desired"] == "run"
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["desired"] == "cancel"
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    refused = client.post(f"/v1/jobs/{job_id}/resume")
    assert refused.status_code == 409
    assert "is being cancelled" in refused.json()["detail"]
    assert world.num_wakes == 5


@pytest.mark.parametrize(
    "path", ["", "/samples", "/metrics", "/events", "/tasks", "/files", "/cancel", "/pause", "/resume"]
)
def test_job_that_does_not_exist_is_404(client: TestClient, path: str) -> None:
    verb = client.post if path in ("/cancel", "/pause", "/resume") else client.get

    for job_id in ("job-9", "%25"):
        response = verb(f"/v1/jobs/{job_id}{path}")
        assert response.status_code == 404
        assert response.json()["type"] == "urn:isoflop:problem:not-found"


@pytest.mark.parametrize(
    ("allocation", "got"),
    [
        ({"max_samples": 3}, "got max_samples with strategy 'uniform'"),
        ({"strategy": "uniform", "k": 2, "counts": "verified"}, "got k, counts with"),
        ({"target_correct": 1}, "got target_correct with"),
    ],
)
def test_submit_field_of_another_strategy_is_422(
    client: TestClient, job_document: Document, allocation: dict[str, object], got: str
) -> None:
    response = client.post("/v1/jobs", json=job_document(allocation=allocation))

    assert response.status_code == 422
    assert got in response.json()["detail"]


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"tokenizer_config.json": "{}"}, 422),
        ({"tokenizer_config.json": '{"chat_template": null}'}, 422),
        ({}, 422),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, 201),
        ({"tokenizer_config.json": "{}", "chat_template.jinja": "{{ messages }}"}, 201),
    ],
)
def test_submit_chat_template_that_the_model_lacks_is_422(
    world, client: TestClient, job_document: Document, files: dict[str, str], status: int
) -> None:
    directory = world.root / "chatty"
    directory.mkdir()
    for name, text in ({"config.json": "{}"} | files).items():
        (directory / name).write_text(text)
    assert client.post("/v1/models", json={"name": "chatty", "path": str(directory)}).status_code == 201

    response = client.post("/v1/jobs", json=job_document(models=["chatty"], prompt={"use_chat_template": True}))

    assert response.status_code == status
    assert status == 201 or "prompt.use_chat_template: got true, but model chatty" in response.json()["detail"]


def test_submit_chat_template_with_a_simulated_model_is_422(client: TestClient, job_document: Document) -> None:
    document = job_document(models=["simulated"], prompt={"use_chat_template": True})

    assert client.post("/v1/jobs", json=document).status_code == 422


def test_job_whose_prompts_are_all_too_long_says_how_long_and_what_fits(
    world, client: TestClient, job_document: Document, run_jobs
) -> None:
    document = job_document(models=["simulated"], prompt={"template": "word " * 2000 + "{question}"})
    job_id = client.post("/v1/jobs", json=document).json()["id"]
    run_jobs(world)

    job = client.get(f"/v1/jobs/{job_id}").json()

    assert job["phase"] == "failed"
    assert (
        "none of the 6 problems can be sampled: simulated takes prompts of 1 to 255 tokens, these have " in job["error"]
    )
    lengths = [int(text.replace(",", "")) for text in re.findall(r"these have ([\d,]+) to ([\d,]+);", job["error"])[0]]
    assert 255 < lengths[0] <= lengths[1]


@pytest.mark.parametrize(("asked", "limit"), [(2, 12), (0.5, 3), (13 / 6, 13)])
def test_budget_of_a_fraction_of_samples_comes_back_as_one_that_asks_for_the_same(
    client: TestClient, asked: float, limit: int
) -> None:
    body = {"problems": "sums/train", "models": ["simulated"], "budget": {"samples_per_problem": asked}}
    plan = client.post("/v1/jobs", params={"dry_run": True}, json=body | {"sampling": {"max_tokens": 40}}).json()
    again = client.post("/v1/jobs", params={"dry_run": True}, json=plan["document"]).json()

    assert again["document"] == plan["document"]
    assert round(plan["document"]["budget"]["samples_per_problem"] * 6) == limit


def test_budget_of_less_than_one_sample_is_refused(client: TestClient) -> None:
    body = {"problems": "sums/train", "models": ["simulated"], "budget": {"samples_per_problem": 0.01}}
    response = client.post("/v1/jobs", json=body)

    assert response.status_code == 422
    assert "allowed for 6 problems: at least 0.166667, which is one sample" in response.text


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt": {"use_chat_template": true, "template_kwargs": {"x": NaN}}}',
        '{"prompt": {"use_chat_template": true, "template_kwargs": {"x": 1e999}}}',
        '{"prompt": {"use_chat_template": true, "template_kwargs": {"x": "\\ud800"}}}',
        '{"sampling": {"structure": {"json_schema": {"a\\ud800": "\\udfff"}}}}',
        '{"sampling": {"structure": {"json_schema": {"a": 1e999}}}}',
        '{"sampling": {"structure": {"choice": ["\\udfff"]}}}',
        '{"sampling": {"stop": ["\\udfff"]}}',
        '{"prompt": {"system": "\\ud800"}}',
    ],
)
def test_submit_what_no_database_can_hold_is_refused_and_nothing_is_stored(
    client: TestClient, job_document: Document, body: str
) -> None:
    text = json.dumps(job_document())
    response = client.post("/v1/jobs", content=f"{text[:-1]}, {body[1:]}", headers={"content-type": "application/json"})

    assert response.status_code in (400, 422), response.text
    assert client.get("/v1/jobs").json()["items"] == []
