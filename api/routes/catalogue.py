"""/v1/models and /v1/problems: what jobs can name."""

import dataclasses
from pathlib import Path

from fastapi import APIRouter

from api.context import AppContext, Context, check_links, check_server, path_under_roots, servers_of
from api.wire.catalogue import (
    ChangeModel,
    EndpointDocument,
    EngineDocument,
    ModelList,
    ModelOut,
    ProblemSetList,
    ProblemSetOut,
    RegisterModel,
    RegisterProblems,
)
from service.adapters import find_base, is_adapter, named_base
from service.endpoints import LIMITS, EndpointOptions
from service.errors import InvalidInput, NotFound, UnknownName
from service.models import EndpointSource, ModelSpec
from service.problems import ProblemSource, register_problems

router = APIRouter(prefix="/v1")


@router.get("/models", tags=["models"])
def list_models(context: Context) -> ModelList:
    """Every registered model and what its tokens cost."""
    return ModelList(items=[ModelOut.of(spec) for spec in context.store.catalogue.models()])


@router.post("/models", tags=["models"], status_code=201)
def register_model(context: Context, body: RegisterModel) -> ModelOut:
    """Registers a model directory: its files are hashed and its FLOP coefficients traced from its own code.

    The directory of a LoRA adapter is merged into its base, a registered model: `base`, or the one that the adapter
    names. Engines of the base serve it, and it costs what the base costs.

    With `endpoint` a server elsewhere draws for it. Its FLOPs are unknown unless declared, by a config.json under
    `path` or by `parameters`; then it takes budgets in USD, tokens or samples. The server is one of ISOFLOP_ENDPOINTS.

    Registering the same content under the same name again reads its files again, so that jobs from then on have what
    this release finds there, and changes nothing else; other content under it is a conflict.
    """
    path = None if body.path is None else _model_dir(context, body.path)
    if body.endpoint is not None:
        spec = context.inspect_endpoint(
            EndpointSource(
                name=body.name,
                endpoint=_endpoint(context, body.name, body.endpoint),
                path=None if path is None else str(path),
                context_len=body.context_len,
                parameters=body.parameters,
            )
        )
    else:
        assert path is not None, "a document without an endpoint has one"
        spec = _adapter(context, body, path) if is_adapter(path) else _model(context, body, path)
    price = None if body.price is None else body.price.to_price()
    stored = context.store.catalogue.register_model(dataclasses.replace(spec, price=price))
    context.wake()
    return ModelOut.of(stored)


def _model(context: AppContext, body: RegisterModel, path: Path) -> ModelSpec:
    if body.base is not None:
        raise InvalidInput(f"base: got {body.base!r}, allowed with the directory of an adapter alone; {path} is none")
    return context.inspect_model(body.name, path, (body.engine or EngineDocument()).to_options())


def _adapter(context: AppContext, body: RegisterModel, path: Path) -> ModelSpec:
    if body.engine is not None:
        raise InvalidInput("engine: got options with an adapter, allowed: none; engines of its base serve it")
    named = None if body.base is not None else named_base(path)
    base = find_base(context.store.catalogue.models(), wanted=body.base, named=named)
    return context.inspect_adapter(body.name, path, base)


def _model_dir(context: AppContext, text: str) -> Path:
    path = path_under_roots(context.settings, text, field="path")
    if not path.is_dir():
        raise InvalidInput(f"path: got {str(path)!r}, allowed: a directory with a model or an adapter")
    check_links(context.settings, path)
    return path


def _endpoint(context: AppContext, name: str, document: EndpointDocument) -> EndpointOptions:
    """The server with its key's variable, if the operator of this service has named it.

    Limits that the document leaves out stay what they are where the model is known.
    """
    options = document.to_options(None)
    check_server(context.settings, "endpoint.base_url", options.base_url)
    options = document.to_options(servers_of(context.settings)[options.base_url])
    known = next((spec.endpoint for spec in context.store.catalogue.models() if spec.name == name), None)
    if known is None:
        return options
    left_out = [field for field in LIMITS if field not in document.model_fields_set]
    return dataclasses.replace(options, **{field: getattr(known, field) for field in left_out})


@router.patch("/models/{name:path}", tags=["models"])
def change_model(context: Context, name: str, body: ChangeModel) -> ModelOut:
    """Changes the price of a model's tokens or the limits of its server, for jobs that are submitted from now on."""
    catalogue = context.store.catalogue
    try:
        if body.endpoint is not None:
            catalogue.change_limits(name, body.endpoint.model_dump(exclude_unset=True))
        if "price" in body.model_fields_set:
            catalogue.change_price(name, None if body.price is None else body.price.to_price())
        return ModelOut.of(catalogue.model(name))
    except UnknownName as error:
        raise NotFound(str(error)) from error


@router.get("/models/{name:path}", tags=["models"])
def get_model(context: Context, name: str) -> ModelOut:
    """One model."""
    try:
        return ModelOut.of(context.store.catalogue.model(name))
    except UnknownName as error:
        raise NotFound(str(error)) from error


@router.get("/problems", tags=["problems"])
def list_problems(context: Context) -> ProblemSetList:
    """Every registered problem set."""
    return ProblemSetList(items=[ProblemSetOut.of(item) for item in context.store.catalogue.problem_sets()])


@router.post("/problems", tags=["problems"], status_code=201)
def add_problems(context: Context, body: RegisterProblems) -> ProblemSetOut:
    """Registers a problem set: read once, checked row by row, kept as a copy with a fingerprint.

    Malformed rows are refused with their numbers. Other rows under a known name are a conflict.
    """
    source = ProblemSource(
        path=None if body.path is None else str(path_under_roots(context.settings, body.path, field="path")),
        dataset=body.dataset,
        subset=body.subset,
        split=body.split,
        columns={str(ours): theirs for ours, theirs in body.columns.items()},
    )
    if body.dataset is not None and Path(body.dataset).exists():
        # `datasets` would read the local directory instead, wherever the service happens to have been started
        raise InvalidInput(f"dataset: got {body.dataset!r}, which is a path here; give it as `path`")
    problems = register_problems(name=body.name, source=source, data_dir=context.settings.data_dir)
    stored = context.store.catalogue.register_problems(
        dataclasses.replace(problems, source=_shown(body, problems.source))
    )
    return ProblemSetOut.of(stored)


def _shown(body: RegisterProblems, source: str) -> str:
    return source if body.path is None else body.path


@router.get("/problems/{name:path}", tags=["problems"])
def get_problems(context: Context, name: str) -> ProblemSetOut:
    """One problem set."""
    try:
        return ProblemSetOut.of(context.store.catalogue.problem_set(name))
    except UnknownName as error:
        raise NotFound(str(error)) from error
