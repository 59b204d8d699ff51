"""/v1/models, /v1/problems, /v1/pools: registration, roots, ETags."""

import dataclasses
import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.artifacts import checkpoint_model
from tests.api.conftest import model_spec


def _model_dir(root: Path, name: str = "model") -> Path:
    path = root / name
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def test_register_model_under_a_root_stores_model_and_pool(world, client: TestClient) -> None:
    path = _model_dir(world.root)

    response = client.post(
        "/v1/models", json={"name": "lab/new", "path": str(path), "engine": {"max_num_seqs": 8, "dtype": "float32"}}
    )

    model = response.json()
    assert response.status_code == 201
    assert (model["name"], model["path"], model["engine"]["max_num_seqs"]) == ("lab/new", str(path), 8)
    assert model["flops_per_token"] == pytest.approx(2e5 + 1e4 + 100 * 129)
    assert client.get("/v1/models/lab/new").json() == model
    assert model in client.get("/v1/models").json()["items"]
    assert client.get("/v1/pools/lab/new").json()["replicas"] == 1
    assert world.num_wakes == 1


def test_register_model_again_changes_nothing_but_other_content_is_409(world, client: TestClient) -> None:
    body = {"name": "new", "path": str(_model_dir(world.root))}

    assert client.post("/v1/models", json=body).status_code == 201
    assert client.post("/v1/models", json=body).status_code == 201
    assert client.post("/v1/models", json=body | {"engine": {"max_num_seqs": 3}}).status_code == 409


def test_register_model_again_reads_its_files_again_and_jobs_keep_what_they_had(
    world, client: TestClient, job_document
) -> None:
    path = _model_dir(world.root)
    as_once = dataclasses.replace(model_spec("new"), path="/moved", revision="sha256:inspected")
    world.store.catalogue.register_model(as_once)
    world.store.catalogue.register_model(
        checkpoint_model(as_once, "finetune-1-aa", step=5, path="/5/checkpoint.json", sha256="5")
    )
    job_id = client.post("/v1/jobs", json=job_document(models=["new"])).json()["id"]
    (path / "generation_config.json").write_text('{"top_k": 20}')

    assert client.post("/v1/models", json={"name": "new", "path": str(path)}).status_code == 201

    known = {name: world.store.catalogue.model(name) for name in ("new", "finetune-1-aa/step-5")}
    assert [spec.sampling.top_k for spec in known.values()] == [20, 20]
    assert [spec.path for spec in known.values()] == [str(path), "/5"]
    assert world.store.jobs.resolved(job_id).models == (as_once,)


def test_register_model_with_a_price_shows_it_and_another_price_goes_by_patch(world, client: TestClient) -> None:
    price = {"input_usd": 0.3, "output_usd": 2.5, "cached_usd": None}
    body = {"name": "lab/new", "path": str(_model_dir(world.root)), "price": price}

    assert client.post("/v1/models", json=body).json()["price"] == price
    assert client.post("/v1/models", json={key: body[key] for key in ("name", "path")}).json()["price"] == price
    other = client.post("/v1/models", json=body | {"price": price | {"output_usd": 3.0}})
    changed = client.patch("/v1/models/lab/new", json={"price": price | {"output_usd": 3.0}})

    assert (other.status_code, changed.status_code) == (409, 200)
    assert "changed by PATCH /v1/models/lab/new" in other.json()["detail"]
    assert client.get("/v1/models/lab/new").json()["price"]["output_usd"] == 3.0
    assert client.patch("/v1/models/nope", json={"price": None}).status_code == 404


SERVER = {"base_url": "http://127.0.0.1:8000/v1", "model": "big"}


def test_register_endpoint_is_a_model_of_unknown_flops_that_takes_usd(client: TestClient, job_document) -> None:
    price = {"input_usd": 3.5, "output_usd": 10.5}
    body = {"name": "lab/api", "endpoint": SERVER, "context_len": 4096, "price": price}

    model = client.post("/v1/models", json=body).json()
    document = job_document(models=["lab/api"], sampling={"max_tokens": 64})
    plan = client.post("/v1/jobs?dry_run=true", json=document | {"budget": {"usd": 2}}).json()
    refused = client.post("/v1/jobs", json=document | {"budget": {"flops": 1e12}})
    no_device = client.post("/v1/jobs", json=document | {"budget": {"gpu_hours": 1}})

    assert (model["source"], model["path"], model["context_len"]) == ("endpoint", "", 4096)
    assert [model[name] for name in ("parameters", "flops_per_token", "cost")] == [None] * 3
    assert (model["endpoint"]["prompt_form"], model["endpoint"]["api_key_env"]) == ("text", "LAB_KEY")
    assert model["revision"].startswith("endpoint:")
    # two tries may be charged
    assert plan["cost_per_sample"][0]["worst_case_to"] == 2 * ((4096 - 64) * 3500 + 64 * 10500) / 1e9
    assert "lab/api, which needs FLOP coefficients, which are unknown; allowed: tokens" in refused.json()["detail"]
    assert "got gpu_hours with lab/api, which needs an engine here" in no_device.json()["detail"]
    assert client.get("/v1/pools/lab/api").json()["replicas"] == 1
    assert client.get("/models").status_code == 200
    assert client.post("/v1/models", json=body).status_code == 201
    assert client.post("/v1/models", json=body | {"context_len": 1024}).status_code == 409


def test_register_endpoint_with_parameters_has_paper_accounting_alone(client: TestClient, job_document) -> None:
    body = {"name": "api", "endpoint": SERVER, "context_len": 256, "parameters": 27_000_000_000}
    client.post("/v1/models", json=body)
    document = job_document(models=["api"], budget={"flops": 1e15}, sampling={"max_tokens": 64})

    exact = client.post("/v1/jobs?dry_run=true", json=document)
    paper = client.post("/v1/jobs?dry_run=true", json=document | {"accounting": "paper"})

    assert exact.status_code == 422
    assert "allowed: flops with accounting paper, tokens, samples_per_problem" in exact.json()["detail"]
    assert paper.json()["cost_per_sample"][0]["worst_case_to"] == 2 * 2 * 27e9 * 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"endpoint": SERVER | {"base_url": "http://evil.example/v1"}},
            "allowed: http://127.0.0.1:8000/v1, https://open",
        ),
        ({"endpoint": SERVER | {"base_url": "http://u:p@127.0.0.1:8000/v1"}}, "credentials in it"),
        ({"endpoint": SERVER | {"api_key_env": "PATH"}}, "unknown field"),
        ({"endpoint": SERVER | {"prompt_form": "token_ids"}}, "allowed: text, or a path"),
        ({"endpoint": SERVER | {"max_lost_tries": 0}}, "greater than or equal to 1"),
        ({"context_len": None}, "context_len: got nothing"),
        ({"engine": {}}, "engine or endpoint"),
        ({"endpoint": None}, "a path, or an endpoint"),
        ({"path": "/etc"}, "allowed: a path under"),
    ],
)
def test_register_endpoint_that_does_not_do_is_422(client: TestClient, change: dict[str, object], said: str) -> None:
    response = client.post("/v1/models", json={"name": "api", "endpoint": SERVER, "context_len": 256} | change)

    assert response.status_code == 422
    assert said in response.text


def test_endpoint_cannot_be_trained_and_is_not_told_what_it_does_not_know(client: TestClient, job_document) -> None:
    client.post("/v1/models", json={"name": "api", "endpoint": SERVER, "context_len": 256})
    document = job_document(models=["api"], sampling={"max_tokens": 64, "top_k": 5})

    response = client.post("/v1/jobs", json=document | {"budget": {"tokens": 100_000}})

    assert response.status_code == 422
    assert "got top_k with api, whose server speaks plain OpenAI" in response.json()["detail"]


def test_endpoint_whose_server_is_not_allowed_any_more_is_sent_nothing(world, client: TestClient, job_document) -> None:
    client.post("/v1/models", json={"name": "api", "endpoint": SERVER, "context_len": 256})
    world.settings.endpoints.pop("http://127.0.0.1:8000/v1/")
    bodies = {
        "jobs": job_document(models=["small", "api"], sampling={"max_tokens": 64}),
        "evaluations": {"model": "api", "problems": "sums/train"},
    }

    for kind, body in bodies.items():
        response = client.post(f"/v1/{kind}", json=body)

        assert response.status_code == 422, kind
        assert "server of api: got 'http://127.0.0.1:8000/v1', allowed: https://open.ex" in response.json()["detail"]


def test_register_endpoint_again_with_another_limit_says_which(client: TestClient) -> None:
    body = {"name": "api", "endpoint": SERVER, "context_len": 256}
    client.post("/v1/models", json=body)

    limit = client.post("/v1/models", json=body | {"endpoint": SERVER | {"max_in_flight": 8}})
    context = client.post("/v1/models", json=body | {"context_len": 128, "parameters": 1000})

    assert (limit.status_code, context.status_code) == (409, 409)
    assert "'api' has other limits: max_in_flight 32 (got 8); PATCH /v1/models/api changes" in limit.json()["detail"]
    assert "context_len 256 (got 128), FLOP coefficients unknown (got of 1,000 parameters)" in context.json()["detail"]


def test_limits_of_an_endpoint_change_for_jobs_from_then_on(world, client: TestClient, job_document) -> None:
    body = {"name": "api", "endpoint": SERVER | {"requests_per_minute": 60}, "context_len": 256}
    client.post("/v1/models", json=body)
    document = job_document(models=["api"], sampling={"max_tokens": 64}, budget={"tokens": 100_000})
    before = client.post("/v1/jobs", json=document).json()["id"]

    changed = client.patch("/v1/models/api", json={"endpoint": {"max_lost_tries": 3, "requests_per_minute": None}})
    after = client.post("/v1/jobs", json=document).json()["id"]
    body["endpoint"] = SERVER
    again = client.post("/v1/models", json=body)

    assert (changed.status_code, again.status_code) == (200, 201)
    assert again.json()["endpoint"] == changed.json()["endpoint"]
    kept, new = (world.store.jobs.resolved(job_id).models[0].endpoint for job_id in (before, after))
    assert (kept.max_lost_tries, kept.requests_per_minute, kept.max_in_flight) == (2, 60.0, 32)
    assert (new.max_lost_tries, new.requests_per_minute, new.max_in_flight) == (3, None, 32)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("api", {}, "price, or endpoint with limits"),
        ("api", {"endpoint": {"max_in_flight": None}}, "null for max_in_flight"),
        ("api", {"endpoint": {"max_in_flight": 0}}, "greater than or equal to 1"),
        ("api", {"endpoint": {"base_url": "http://evil.example/v1"}}, "unknown field"),
        ("small", {"endpoint": {"max_in_flight": 4}}, "'small', which is loaded here"),
    ],
)
def test_limits_that_do_not_do_are_422(client: TestClient, name: str, body: dict[str, object], said: str) -> None:
    client.post("/v1/models", json={"name": "api", "endpoint": SERVER, "context_len": 256})

    response = client.patch(f"/v1/models/{name}", json=body)

    assert response.status_code == 422
    assert said in response.text


def test_chat_template_of_an_endpoint_without_files_is_not_looked_for(
    client: TestClient, job_document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "chat_template.jinja").write_text("of somebody else")
    monkeypatch.chdir(tmp_path)
    client.post("/v1/models", json={"name": "api", "endpoint": SERVER, "context_len": 256})

    response = client.post("/v1/jobs", json=job_document(models=["api"], prompt={"use_chat_template": True}))

    assert "prompt.use_chat_template: got true, but model api is an endpoint without a tokenizer" in response.text


def test_samplings_that_a_server_is_told_alike_are_one_arm_too_many(client: TestClient, job_document) -> None:
    document = job_document(models=["api"], samplings=[{"name": "few", "top_k": 5}, {"name": "many", "top_k": 50}])
    for name, options in (("api", {"drops_unsupported": True}), ("knows", {"dialect": "vllm"})):
        client.post("/v1/models", json={"name": name, "endpoint": SERVER | options, "context_len": 256})

    refused = client.post("/v1/jobs", json=document)

    assert refused.status_code == 422
    assert "got 'few' and 'many', which draw the same" in refused.json()["detail"]
    assert client.post("/v1/jobs", json=document | {"models": ["knows"]}).status_code == 201


@pytest.mark.parametrize("change", [{"input_usd": -1}, {"input_usd": "1"}, {"cached_usd": 2}, {"input_usd": 1e-9}])
def test_price_that_is_none_is_422(client: TestClient, change: dict[str, object]) -> None:
    response = client.patch("/v1/models/small", json={"price": {"input_usd": 1, "output_usd": 1} | change})

    assert response.status_code == 422
    assert f"price.{next(iter(change))}" in response.text


@pytest.mark.parametrize("name", ["", "a b", "../up", "/abs", "a//b", "x" * 201, "a\n", "é", ".hidden"])
def test_register_model_bad_name_is_422(world, client: TestClient, name: str) -> None:
    response = client.post("/v1/models", json={"name": name, "path": str(_model_dir(world.root))})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "name"


@pytest.mark.parametrize("text", ["/etc", "/", "relative", "../..", "~", "{root}/../data", "{root}/link", "\0"])
def test_register_model_outside_the_roots_is_422_naming_them(world, client: TestClient, text: str) -> None:
    (world.root / "link").symlink_to("/etc")

    response = client.post("/v1/models", json={"name": "new", "path": text.format(root=world.root)})

    assert response.status_code == 422
    assert "NUL" in response.text or str(world.root) in response.json()["detail"]


def test_register_model_that_is_no_model_is_422(world, client: TestClient) -> None:
    (world.root / "empty").mkdir()

    for path in (world.root / "empty", world.root / "missing", world.root / "sums.jsonl"):
        response = client.post("/v1/models", json={"name": "new", "path": str(path)})
        assert response.status_code == 422
        assert "allowed:" in response.json()["detail"]


@pytest.mark.parametrize("place", ["outside", "nowhere"])
def test_register_model_with_weights_behind_a_link_is_422(world, client: TestClient, tmp_path, place: str) -> None:
    directory = world.root / "linked"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"weights")
    (directory / "model.safetensors").symlink_to(outside if place == "outside" else world.root / "nothing")

    response = client.post("/v1/models", json={"name": "linked", "path": str(directory)})

    assert response.status_code == 422
    assert "model.safetensors" in response.json()["detail"]
    assert "allowed: " in response.json()["detail"]


def test_register_model_with_links_inside_the_roots_is_accepted(world, client: TestClient) -> None:
    (world.root / "blobs").mkdir()
    (world.root / "blobs" / "1").write_text("{}")
    (world.root / "snapshot").mkdir()
    (world.root / "snapshot" / "config.json").symlink_to("../blobs/1")

    response = client.post("/v1/models", json={"name": "linked", "path": str(world.root / "snapshot")})

    assert response.status_code == 201


def test_register_problems_with_mapped_columns_stores_them(world, client: TestClient) -> None:
    path = world.root / "other.jsonl"
    path.write_text('{"q": "1+1?", "a": "2"}\n{"q": "2+2?", "a": "4"}\n')
    body = {"name": "other/test", "path": str(path), "columns": {"question": "q", "answer": "a"}}

    response = client.post("/v1/problems", json=body)

    assert response.status_code == 201
    assert response.json()["num_problems"] == 2
    assert client.get("/v1/problems/other/test").json() == response.json()
    path.write_text('{"q": "1+1?", "a": "3"}\n')
    assert client.post("/v1/problems", json=body).status_code == 409


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"question": "1+1?"}', "row 1"),
        (b"not json", "not JSON"),
        (b"", "no rows"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"question": "", "answer": 1}', "not empty"),
    ],
)
def test_register_problems_malformed_is_422_with_reason(world, client: TestClient, content: bytes, words: str) -> None:
    (world.root / "bad.jsonl").write_bytes(content)

    response = client.post("/v1/problems", json={"name": "bad", "path": str(world.root / "bad.jsonl")})

    assert response.status_code == 422
    assert words in response.json()["detail"]


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"path": "/etc/passwd"},
        {"path": "x.jsonl", "dataset": "gsm8k"},
        {"dataset": "../secrets"},
        {"dataset": "https://example.org/x"},
        {"dataset": "/etc"},
        {"dataset": "gsm8k", "columns": {"cost": "x"}},
    ],
)
def test_register_problems_bad_source_is_422(client: TestClient, source: dict[str, object]) -> None:
    assert client.post("/v1/problems", json={"name": "bad", **source}).status_code == 422


def test_register_problems_dataset_that_is_a_local_path_is_422(
    world, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    (world.root / "local").mkdir()

    response = client.post("/v1/problems", json={"name": "bad", "dataset": "local"})

    assert response.status_code == 422
    assert "give it as `path`" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/models/none", "/v1/problems/a/b", "/v1/pools/none", "/v1/nothing", "/v1"])
def test_get_what_does_not_exist_is_404(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_pool_changes_with_its_etag(world, client: TestClient) -> None:
    seen = client.get("/v1/pools/org/large")

    response = client.patch(
        "/v1/pools/org/large",
        json={"replicas": 3, "min": 1, "idle_s": 5},
        headers={"If-Match": seen.headers["etag"]},
    )

    pool = response.json()
    assert response.status_code == 200
    assert (pool["replicas"], pool["min"], pool["idle_s"]) == (3, 1, 5.0)
    assert response.headers["etag"] != seen.headers["etag"]
    assert client.get("/v1/pools/org/large").headers["etag"] == response.headers["etag"]
    assert world.num_wakes == 1


def test_pool_change_with_an_old_etag_is_412_and_changes_nothing(client: TestClient) -> None:
    old = client.get("/v1/pools/small").headers["etag"]
    client.patch("/v1/pools/small", json={"replicas": 2}, headers={"If-Match": "*"})

    response = client.patch("/v1/pools/small", json={"replicas": 9}, headers={"If-Match": old})

    assert response.status_code == 412
    assert response.json()["status"] == 412
    assert client.get("/v1/pools/small").json()["replicas"] == 2


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"replicas": -1}, {}),
        ({"replicas": 5000}, {}),
        ({"replicas": 1, "min": 2}, {}),
        ({"idle_s": -1}, {}),
        ({"replicas": 1.5}, {}),
        ({"size": 1}, {}),
        ({"replicas": 1}, {"If-Match": "soon"}),
    ],
)
def test_pool_bad_change_is_422(client: TestClient, body: dict[str, object], headers: dict[str, str]) -> None:
    response = client.patch("/v1/pools/small", json=body, headers={"If-Match": "*"} | headers)

    assert response.status_code == 422


def test_pool_change_without_an_etag_is_428_and_changes_nothing(client: TestClient) -> None:
    response = client.patch("/v1/pools/small", json={"replicas": 9})

    assert response.status_code == 428
    assert response.json()["type"] == "urn:isoflop:problem:precondition-required"
    assert "allowed: the ETag" in response.json()["detail"]
    assert client.get("/v1/pools/small").json()["replicas"] == 1


def test_catalogue_documents_are_json_all_through(client: TestClient) -> None:
    for path in ("/v1/models", "/v1/problems", "/v1/pools"):
        items = json.loads(client.get(path).text, parse_constant=pytest.fail)["items"]
        assert items
