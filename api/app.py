"""The HTTP application: routes, errors, guards, description. Made by `api/main.py`, and by tests with real stores.

Knows no cluster and no worker. Every error leaves as a problem document; the OpenAPI description says so.
"""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from api.context import AppContext, InspectAdapter, InspectEndpoint, InspectModel, RenderPrompt
from api.dashboard.router import make_router
from api.guard import Guard
from api.problem import MEDIA_TYPE, FieldProblem, ProblemDocument, install_error_handlers
from api.routes import artifacts, catalogue, comparisons, evaluations, imports, job_parts, jobs, pools, system, usage
from api.strict import check_request
from api.version import VERSION
from service.config import Settings
from service.status import ControllerStatus
from service.store import Store

DESCRIPTION = """Makes training data for language-model reasoners under a compute budget.

Register models and problem sets, submit a job with a budget, watch it, and read scored samples from Parquet. A budget
is hard: every sample reserves its worst case before it starts. Errors are `application/problem+json` documents that
say what was given and what is allowed."""

_PROBLEMS = {
    "400": "The request cannot be read.",
    "403": "The request comes from a page of another origin.",
    "404": "No such resource.",
    "405": "The resource has no such method.",
    "409": "The request contradicts what is stored.",
    "412": "The resource is not what If-Match says.",
    "413": "The body is too large.",
    "415": "The body is not JSON by its Content-Type.",
    "421": "The Host header names another service.",
    "422": "A name, field or budget is refused; `errors` or `allowed` say what would be accepted.",
    "428": "The change needs an If-Match.",
    "500": "The service failed; its log says why.",
}


def create_app(
    *,
    store: Store,
    settings: Settings,
    wake: Callable[[], None],
    controller_status: Callable[[], ControllerStatus],
    inspect_model: InspectModel,
    inspect_adapter: InspectAdapter,
    inspect_endpoint: InspectEndpoint,
    render_prompt: RenderPrompt,
) -> FastAPI:
    """The application over a store.

    Args:
        wake: makes the control loop look at once; called after every write.
        controller_status: the loop's latest word about itself.
        inspect_model: reads a model directory; raises InvalidInput.
        inspect_adapter: merges an adapter into its base; raises InvalidInput.
        inspect_endpoint: completes a model that a server elsewhere draws for; raises InvalidInput.
        render_prompt: the first problem's prompt; raises InvalidInput.
    """
    app = FastAPI(title="isoflop", version=VERSION, description=DESCRIPTION, docs_url=None, redoc_url=None)
    app.state.context = AppContext(
        store=store,
        settings=settings,
        wake=wake,
        controller_status=controller_status,
        inspect_model=inspect_model,
        inspect_adapter=inspect_adapter,
        inspect_endpoint=inspect_endpoint,
        render_prompt=render_prompt,
        started_at=datetime.now(UTC),
    )
    app.router.routes.extend([*_routes(), *make_router().routes])
    install_error_handlers(app)
    app.add_middleware(Guard, hosts=[settings.host], max_body_bytes=settings.max_body_bytes)
    app.openapi = lambda: _describe(app)
    return app


@functools.cache
def _routes() -> tuple[BaseRoute, ...]:
    """Every route but those of pages, which remember what they have read.

    Nearly all the time that an application takes to make is theirs, and they keep nothing of it.
    """
    router = APIRouter()
    for module in (catalogue, jobs, job_parts, imports, artifacts, evaluations, comparisons, pools, usage):
        router.include_router(module.router, dependencies=[Depends(check_request)])
    router.include_router(system.router)
    return tuple(router.routes)


def _describe(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 with every error as a problem document in place of FastAPI's own validation error."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.pop("HTTPValidationError", None)
        components.pop("ValidationError", None)
        template = "#/components/schemas/{model}"
        problem = ProblemDocument.model_json_schema(ref_template=template)
        problem.pop("$defs", None)
        components |= {"ProblemDocument": problem, "FieldProblem": FieldProblem.model_json_schema()}
        reference = {"$ref": "#/components/schemas/ProblemDocument"}
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, text in _PROBLEMS.items():
                    operation["responses"][status] = {
                        "description": text,
                        "content": {MEDIA_TYPE: {"schema": reference}},
                    }
        app.openapi_schema = schema
    return app.openapi_schema
