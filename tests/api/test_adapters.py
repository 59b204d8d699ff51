"""Adapters in the catalogue: which base they are for, and how they show where models do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.artifacts import checkpoint_model
from service.models import AdapterSource
from tests.api.conftest import World, model_spec, work_off

PRICE = {"input_usd": 0.3, "output_usd": 2.5, "cached_usd": None}


def adapter_dir(root: Path, name: str = "tuned", **config: Any) -> Path:
    path = root / name
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | config))
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    return path


def test_register_adapter_is_a_model_of_the_pool_and_the_cost_of_its_base(world: World, client: TestClient) -> None:
    path = adapter_dir(world.root)
    client.patch("/v1/models/small", json={"price": PRICE})

    response = client.post("/v1/models", json={"name": "lab/tuned", "path": str(path), "base": "small"})

    model, base = response.json(), client.get("/v1/models/small").json()
    assert response.status_code == 201
    assert (model["source"], model["pool"], base["source"], base["pool"]) == ("adapter", "small", "path", "small")
    assert model["adapter"] == {"base": "small", "path": str(path), "revision": "sha256:adapter"}
    for field in ("flops_per_token", "cost", "parameters", "context_len", "engine", "price"):
        assert model[field] == base[field]
    assert model["price"] == PRICE
    assert client.get("/v1/models/lab/tuned").json() == model
    assert client.get("/v1/pools/lab/tuned").status_code == 404
    assert world.store.catalogue.model("lab/tuned").is_student is False


@pytest.mark.parametrize("named", ["org/large", "/models/org/large", "/models/x/../org/large", "somebody/cached"])
def test_register_adapter_finds_the_base_that_it_names(world: World, client: TestClient, named: str) -> None:
    cached = "/cache/models--somebody--cached/snapshots/0f92a3"
    world.store.catalogue.register_model(model_spec("mirrored", path=cached))
    path = adapter_dir(world.root, base_model_name_or_path=named)

    model = client.post("/v1/models", json={"name": "tuned", "path": str(path)}).json()

    assert model["adapter"]["base"] == ("mirrored" if named == "somebody/cached" else "org/large")


@pytest.mark.parametrize(
    ("named", "body", "message"),
    [
        (
            "elsewhere/base",
            {},
            "names 'elsewhere/base', which is no registered model's name or path; allowed: small, or",
        ),
        (None, {}, "base: got nothing, and adapter_config.json names no base; allowed: small, org/large, twin"),
        ("/models/small", {}, "names '/models/small', which here are small, twin; allowed: one of them"),
        (
            "/a\0b",
            {},
            r"adapter_config.json: base_model_name_or_path: got '/a\x00b', allowed: a path or a name; embedded",
        ),
        ("/\ud800", {}, r"adapter_config.json: base_model_name_or_path: got '/\ud800', allowed: a path or a name; "),
        ("simulated", {}, "base: got 'simulated', which is simulated and loads no weights; allowed: small, org/large"),
        ("small", {"base": "simulated"}, "base: got 'simulated', which is simulated and loads no weights; allowed:"),
        ("small", {"base": "api"}, "base: got 'api', whose weights are at a server; allowed: small, org/large, twin"),
        ("small", {"base": "huge"}, "unknown model 'huge'; known: org/large, small, twin"),
        ("small", {"engine": {"dtype": "float32"}}, "engine: got options with an adapter, allowed: none; engines of"),
        ("small", {"name": "finetune-1-0a/step-5"}, "allowed: one that no checkpoint of a finetune may get"),
    ],
)
def test_register_adapter_whose_base_cannot_be_told_is_422_naming_what_is_allowed(
    world: World, client: TestClient, named: str | None, body: dict[str, Any], message: str
) -> None:
    world.store.catalogue.register_model(model_spec("twin", path="/models/small"))
    server = {"base_url": "http://127.0.0.1:8000/v1", "model": "big"}
    client.post("/v1/models", json={"name": "api", "endpoint": server, "context_len": 256})
    path = adapter_dir(world.root, base_model_name_or_path=named)

    response = client.post("/v1/models", json={"name": "tuned", "path": str(path)} | body)

    assert response.status_code == 422
    assert message in response.json()["detail"]
    assert "tuned" not in [model["name"] for model in client.get("/v1/models").json()["items"]]


def test_register_base_with_what_is_no_adapter_is_422(world: World, client: TestClient) -> None:
    (world.root / "model").mkdir()
    (world.root / "model" / "config.json").write_text("{}")
    server = {"base_url": "http://127.0.0.1:8000/v1", "model": "big"}

    model = client.post("/v1/models", json={"name": "m", "path": str(world.root / "model"), "base": "small"})
    endpoint = client.post("/v1/models", json={"name": "m", "endpoint": server, "base": "small"})

    assert (model.status_code, endpoint.status_code) == (422, 422)
    assert "base: got 'small', allowed with the directory of an adapter alone; " in model.json()["detail"]
    assert "allowed: base or endpoint" in endpoint.text


def test_register_adapter_config_that_is_none_is_422_naming_the_file(world: World, client: TestClient) -> None:
    for text, message in (("{", "not readable as JSON"), ("[]", "must hold a JSON object, got list")):
        path = world.root / f"broken-{len(text)}"
        path.mkdir()
        (path / "adapter_config.json").write_text(text)

        response = client.post("/v1/models", json={"name": "tuned", "path": str(path)})

        assert response.status_code == 422
        assert f"{path}/adapter_config.json: {message}" in response.json()["detail"]


def test_adapter_beside_its_bases_config_is_an_adapter_and_beside_weights_a_model(
    world: World, client: TestClient
) -> None:
    path = adapter_dir(world.root, base_model_name_or_path="small")
    (path / "config.json").write_text("{}")
    assert client.post("/v1/models", json={"name": "tuned", "path": str(path)}).json()["source"] == "adapter"

    (path / "model-00001-of-00002.safetensors").write_bytes(b"weights")
    assert client.post("/v1/models", json={"name": "whole", "path": str(path)}).json()["source"] == "path"


def test_register_adapter_again_keeps_its_price_and_another_base_is_409(world: World, client: TestClient) -> None:
    path = adapter_dir(world.root)
    body = {"name": "tuned", "path": str(path), "base": "small"}
    first = client.post("/v1/models", json=body).json()
    client.patch("/v1/models/small", json={"price": PRICE})
    moved = path.rename(world.root / "moved")

    again = client.post("/v1/models", json=body | {"path": str(moved)})
    other = client.post("/v1/models", json=body | {"path": str(moved), "base": "org/large"})

    assert again.status_code == 201
    assert (first["price"], again.json()["price"]) == (None, None)
    assert again.json()["adapter"] == first["adapter"] | {"path": str(moved)}
    assert other.status_code == 409
    assert "adapter.base small (got org/large)" in other.json()["detail"]


def test_adapter_of_a_checkpoint_is_served_by_the_engines_of_the_base(world: World, client: TestClient) -> None:
    checkpoint = model_spec("finetune-3-0a/step-9", base="small")
    world.store.catalogue.register_model(checkpoint)
    body = {"name": "tuned", "path": str(adapter_dir(world.root)), "base": checkpoint.name}

    model = client.post("/v1/models", json=body).json()

    assert (model["adapter"]["base"], model["pool"]) == (checkpoint.name, "small")


@pytest.fixture
def tuned(world: World) -> str:
    """An adapter on the simulated model, which only tests have."""
    source = AdapterSource(path="/adapters/tuned", revision="sha256:adapter", base="simulated")
    base = world.store.catalogue.model("simulated")
    model = model_spec("tuned", engine=base.engine, base="simulated", adapter=source)
    return world.store.catalogue.register_model(model).name


def test_job_of_base_and_adapter_draws_both_at_the_same_cost_and_its_page_says_so(
    world: World, client: TestClient, tuned: str, job_document: Callable[..., dict[str, object]]
) -> None:
    document = job_document(models=["simulated", tuned], sampling={"max_tokens": 40})

    plan = client.post("/v1/jobs", params={"dry_run": "true"}, json=document).json()
    job_id = client.post("/v1/jobs", json=document).json()["id"]
    work_off(world)

    assert [arm["adapter_on"] for arm in plan["arms"]] == [None, "simulated"]
    base, adapted = plan["cost_per_sample"]
    assert base["worst_case_to"] == adapted["worst_case_to"]
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["phase"] == "succeeded"
    assert [(arm["name"], arm["samples"]) for arm in job["arms"]] == [("simulated", 6), (tuned, 6)]
    assert {host.model for host in world.store.reads.hosts() if host.model} == {"simulated"}
    page = client.get(f"/jobs/{job_id}").text
    assert "adapter on simulated" in page
    assert "(adapter sha256:adapter on simulated)" in page


def test_models_page_has_adapters_as_models_of_their_own(client: TestClient, tuned: str) -> None:
    page = client.get("/models").text

    assert f"<b>{tuned}</b>" in page
    assert "adapter on simulated" in page
    assert "/adapters/tuned" in page
    assert "4 models; a token of org/large costs" in page


def test_student_of_an_adapter_is_no_adapter(world: World, client: TestClient, tuned: str) -> None:
    base = world.store.catalogue.model(tuned)
    student = checkpoint_model(base, "finetune-7-0a", step=3, path="/x/checkpoint.json", sha256="1")
    world.store.catalogue.register_model(student)

    assert (student.adapter, student.base, student.is_student) == (None, "simulated", True)
    assert client.get("/models").status_code == 200
