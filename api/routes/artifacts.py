"""/v1/selections and /v1/finetunes: submit, list, look at, pause, resume, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.artifact_views import finetune_log, finetune_out, selection_out
from api.context import AppContext, Context
from api.resolve_artifacts import to_finetune, to_selection
from api.routes.jobs import IdempotencyKey
from api.wire.artifacts import (
    FinetuneDocument,
    FinetuneList,
    FinetuneOut,
    LogOut,
    SelectionDocument,
    SelectionList,
    SelectionOut,
)
from api.wire.base import MAX_INT
from service.artifacts import Artifact, ArtifactKind, ArtifactSpec, ArtifactWork
from service.jobs import Desired

router = APIRouter(prefix="/v1")

Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[int | None, Query(ge=1, le=MAX_INT, description="`next_cursor` of the page before.")]


@router.post("/selections", tags=["selections"], status_code=201)
def submit_selection(
    context: Context, response: Response, body: SelectionDocument, idempotency_key: IdempotencyKey = None
) -> SelectionOut:
    """Makes a training set of the samples of finished jobs."""
    spec, work = to_selection(body, context.store, str(context.settings.data_dir))
    artifact = submit_artifact(context, response, spec, work, idempotency_key, "/v1/selections")
    return selection_out(context.store, artifact)


@router.get("/selections", tags=["selections"])
def list_selections(context: Context, limit: Limit = 50, cursor: Cursor = None) -> SelectionList:
    """Selections, newest first."""
    page, next_cursor = artifact_page(context, ArtifactKind.selection, limit, cursor)
    return SelectionList(items=[selection_out(context.store, item) for item in page], next_cursor=next_cursor)


@router.get("/selections/{selection_id}", tags=["selections"])
def get_selection(context: Context, selection_id: str) -> SelectionOut:
    """One selection: how many rows each filter left, and where the training set is."""
    return selection_out(context.store, context.store.artifacts.get(selection_id, ArtifactKind.selection))


@router.post("/selections/{selection_id}/cancel", tags=["selections"])
def cancel_selection(context: Context, selection_id: str) -> SelectionOut:
    """Ends a selection that is not made yet."""
    return selection_out(context.store, want_of_artifact(context, selection_id, ArtifactKind.selection, Desired.cancel))


@router.post("/finetunes", tags=["finetunes"], status_code=201)
def submit_finetune(
    context: Context, response: Response, body: FinetuneDocument, idempotency_key: IdempotencyKey = None
) -> FinetuneOut:
    """Trains a student on a selection. Its checkpoints become models that jobs can name."""
    spec, work = to_finetune(body, context.store)
    artifact = submit_artifact(context, response, spec, work, idempotency_key, "/v1/finetunes")
    return finetune_out(context.store, context.settings, artifact)


@router.get("/finetunes", tags=["finetunes"])
def list_finetunes(context: Context, limit: Limit = 50, cursor: Cursor = None) -> FinetuneList:
    """Finetunes, newest first."""
    page, next_cursor = artifact_page(context, ArtifactKind.finetune, limit, cursor)
    items = [finetune_out(context.store, context.settings, item) for item in page]
    return FinetuneList(items=items, next_cursor=next_cursor)


@router.get("/finetunes/{finetune_id}", tags=["finetunes"])
def get_finetune(context: Context, finetune_id: str) -> FinetuneOut:
    """One finetune: how far it is, what it has cost, its checkpoints."""
    artifact = context.store.artifacts.get(finetune_id, ArtifactKind.finetune)
    return finetune_out(context.store, context.settings, artifact)


@router.get("/finetunes/{finetune_id}/log", tags=["finetunes"])
def get_finetune_log(context: Context, finetune_id: str) -> LogOut:
    """Loss, learning rate and pace by step, so far."""
    artifact = context.store.artifacts.get(finetune_id, ArtifactKind.finetune)
    return LogOut(items=finetune_log(context.settings, artifact))


@router.post("/finetunes/{finetune_id}/cancel", tags=["finetunes"])
def cancel_finetune(context: Context, finetune_id: str) -> FinetuneOut:
    """Ends a finetune; its committed checkpoints stay."""
    return _change_finetune(context, finetune_id, Desired.cancel)


@router.post("/finetunes/{finetune_id}/pause", tags=["finetunes"])
def pause_finetune(context: Context, finetune_id: str) -> FinetuneOut:
    """Stops training at the next step; resume goes on from the last checkpoint."""
    return _change_finetune(context, finetune_id, Desired.pause)


@router.post("/finetunes/{finetune_id}/resume", tags=["finetunes"])
def resume_finetune(context: Context, finetune_id: str) -> FinetuneOut:
    """Goes on from the last checkpoint."""
    return _change_finetune(context, finetune_id, Desired.run)


def _change_finetune(context: AppContext, finetune_id: str, desired: Desired) -> FinetuneOut:
    artifact = want_of_artifact(context, finetune_id, ArtifactKind.finetune, desired)
    return finetune_out(context.store, context.settings, artifact)


def want_of_artifact(context: AppContext, artifact_id: str, kind: ArtifactKind, desired: Desired) -> Artifact:
    """Stores what people want of an artifact, and wakes the loop."""
    artifact = context.store.artifacts.set_desired(artifact_id, desired, kind)
    context.wake()
    return artifact


def submit_artifact(
    context: AppContext,
    response: Response,
    spec: ArtifactSpec,
    work: ArtifactWork,
    idempotency_key: str | None,
    path: str,
) -> Artifact:
    """Stores an artifact, wakes the loop, and says where it is."""
    artifact = context.store.artifacts.submit(spec, work, idempotency_key=idempotency_key)
    context.wake()
    response.headers["Location"] = f"{path}/{artifact.id}"
    return artifact


def artifact_page(
    context: AppContext, kind: ArtifactKind, limit: int, cursor: int | None
) -> tuple[list[Artifact], str | None]:
    """A page of artifacts, and the cursor of the next."""
    found = context.store.artifacts.list(kind, limit=limit + 1, before=cursor)
    page = found[:limit]
    return [artifact for _, artifact in page], str(page[-1][0]) if len(found) > limit else None
