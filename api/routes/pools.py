"""/v1/pools: engines of one model, what operators scale. ETag and If-Match keep two of them from undoing each other."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from api.context import AppContext, Context
from api.problem import response_for
from api.strict import PreconditionRequired
from api.wire.catalogue import ChangePool, PoolList, PoolOut
from service.cluster import HostKind, HostState
from service.errors import Conflict, InvalidInput, NotFound, UnknownName
from service.planner.plan import PoolView

router = APIRouter(prefix="/v1/pools", tags=["pools"])
_PRECONDITION_FAILED = 412


@router.get("")
def list_pools(context: Context) -> PoolList:
    """Every pool, by model."""
    return PoolList(items=[_pool_out(context, pool) for pool in context.store.catalogue.pools()])


@router.get("/{model:path}")
def get_pool(context: Context, response: Response, model: str) -> PoolOut:
    """One pool. Its ETag goes back as If-Match with a change."""
    pool = _find(context, model)
    response.headers["ETag"] = etag(pool)
    return _pool_out(context, pool)


@router.patch("/{model:path}", response_model=PoolOut)
def change_pool(
    context: Context,
    request: Request,
    response: Response,
    model: str,
    body: ChangePool,
    if_match: Annotated[
        str | None,
        Header(
            max_length=100,
            description="ETag of the pool as you saw it; another one stored is a 412. `*` for whatever is stored; "
            "none at all is a 428.",
        ),
    ] = None,
) -> PoolOut | Response:
    """Scales a pool. The control loop starts engines, or drains and stops them."""
    _find(context, model)
    if if_match is None:
        raise PreconditionRequired(
            "If-Match: got nothing, allowed: the ETag of GET /v1/pools/<model>, or * for whatever is stored"
        )
    version = None if if_match == "*" else _version(if_match)
    try:
        pool = context.store.catalogue.change_pool(
            model, replicas=body.replicas, minimum=body.min, idle_s=body.idle_s, version=version
        )
    except Conflict as error:
        return response_for(
            error, instance=request.url.path, status=error.status if version is None else _PRECONDITION_FAILED
        )
    context.wake()
    response.headers["ETag"] = etag(pool)
    return _pool_out(context, pool)


def etag(pool: PoolView) -> str:
    """The pool's version as an ETag."""
    return f'"{pool.version}"'


def _version(text: str) -> int:
    bare = text.strip().removeprefix("W/").strip('"')
    if not (bare.isascii() and bare.isdecimal() and len(bare) < 19):
        raise InvalidInput(f"If-Match: got {text!r}, allowed: the ETag of GET /v1/pools/<model>, or *")
    return int(bare)


def _find(context: AppContext, model: str) -> PoolView:
    try:
        return context.store.catalogue.pool(model)
    except UnknownName as error:
        raise NotFound(str(error)) from error


def _pool_out(context: AppContext, pool: PoolView) -> PoolOut:
    living = Counter(
        host.state.value
        for host in context.store.reads.hosts()
        if host.kind is HostKind.generator
        and host.model == pool.model
        and host.ended_at is None
        and host.state is not HostState.dead
    )
    return PoolOut.of(pool, dict(living))
