"""Generated requests from the OpenAPI description: none may break the service, every answer must be described."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

SLOW_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
HEADERS = {"Host": "127.0.0.1"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_openapi_generated_requests_get_described_answers(
    world, client: TestClient, job_document, run_jobs, mode: schemathesis.GenerationMode
) -> None:
    job_id = client.post("/v1/jobs", json=job_document(models=["simulated"])).json()["id"]
    run_jobs(world)
    schema = schemathesis.openapi.from_asgi("/openapi.json", world.app, headers=HEADERS)
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]

    for operation in operations:
        if mode.is_negative and not (operation.query or operation.headers or operation.body):
            continue  # any text is a path parameter: nothing in the request can be wrong

        @settings(max_examples=12, deadline=None, suppress_health_check=SLOW_CHECKS, database=None)
        @given(case=operation.as_strategy(generation_mode=mode), is_aimed=booleans())
        def call(case: schemathesis.Case, is_aimed: bool) -> None:
            if is_aimed:
                aim(case, job_id)
            case.call_and_validate(checks=CHECKS, headers=HEADERS)

        call()

    assert len(operations) > 15


def aim(case: schemathesis.Case, job_id: str) -> None:
    """Puts names that exist into a request, or every one of them would end at the first look-up."""
    for name, value in {"job_id": job_id, "model": "small", "name": "sums/train"}.items():
        if name in case.path_parameters:
            case.path_parameters[name] = value
    if isinstance(case.body, dict) and {"problems", "models"} <= set(case.body):
        case.body |= {"problems": "sums/train", "models": ["small"]}
