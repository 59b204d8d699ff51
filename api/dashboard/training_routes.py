"""Routes of the training pages: the list, one training set, one student, and what people want of them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, RedirectResponse

from api.context import AppContext, Context
from api.dashboard import pages
from api.dashboard.views import finetune, selection, training
from service.artifacts import ArtifactKind
from service.errors import InvalidInput
from service.jobs import Desired

Fragment = Annotated[str | None, Query(max_length=10)]
Row = Annotated[int, Query(ge=0, lt=selection.ROWS_SHOWN)]
_DESIRED = {
    ArtifactKind.selection: {"cancel": Desired.cancel},
    ArtifactKind.finetune: {"pause": Desired.pause, "resume": Desired.run, "cancel": Desired.cancel},
}
_SEE_OTHER = 303


def add_training_routes(router: APIRouter, show: Callable[[pages.Page, str | None], HTMLResponse]) -> None:
    """Adds them to the router of the pages."""

    @router.get("/training")
    def training_list(context: Context, fragment: Fragment = None) -> HTMLResponse:
        return show(training.training_page(context, datetime.now(UTC)), fragment)

    @router.get("/training/selections/{selection_id}")
    def one_selection(context: Context, selection_id: str, row: Row = 0, fragment: Fragment = None) -> HTMLResponse:
        return show(selection.selection_page(context, selection_id, datetime.now(UTC), row=row), fragment)

    @router.get("/training/finetunes/{finetune_id}")
    def one_finetune(context: Context, finetune_id: str, fragment: Fragment = None) -> HTMLResponse:
        return show(finetune.finetune_page(context, finetune_id, datetime.now(UTC)), fragment)

    @router.post("/training/selections/{selection_id}/{action}")
    def change_selection(context: Context, selection_id: str, action: str) -> RedirectResponse:
        return _change(context, selection_id, ArtifactKind.selection, action)

    @router.post("/training/finetunes/{finetune_id}/{action}")
    def change_finetune(context: Context, finetune_id: str, action: str) -> RedirectResponse:
        return _change(context, finetune_id, ArtifactKind.finetune, action)


def _change(context: AppContext, artifact_id: str, kind: ArtifactKind, action: str) -> RedirectResponse:
    desired = _DESIRED[kind]
    if action not in desired:
        raise InvalidInput(f"action: got {action!r}, allowed: {', '.join(desired)}")
    context.store.artifacts.set_desired(artifact_id, desired[action], kind)
    context.wake()
    return RedirectResponse(f"/training/{kind}s/{artifact_id}", status_code=_SEE_OTHER)
