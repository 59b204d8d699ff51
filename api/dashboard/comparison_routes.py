"""Routes of the comparisons' pages: the list, one of them, and what people want of it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, RedirectResponse

from api.context import Context
from api.dashboard import pages
from api.dashboard.views import experiments
from service.artifacts import ArtifactKind
from service.errors import InvalidInput
from service.jobs import Desired

Fragment = Annotated[str | None, Query(max_length=10)]
_DESIRED = {"pause": Desired.pause, "resume": Desired.run, "cancel": Desired.cancel}
_SEE_OTHER = 303


def add_comparison_routes(router: APIRouter, show: Callable[[pages.Page, str | None], HTMLResponse]) -> None:
    """Adds them to the router of the pages."""

    @router.get("/comparisons")
    def comparison_list(context: Context, fragment: Fragment = None) -> HTMLResponse:
        return show(experiments.experiments_page(context, datetime.now(UTC)), fragment)

    @router.get("/comparisons/{comparison_id}")
    def one_comparison(context: Context, comparison_id: str, fragment: Fragment = None) -> HTMLResponse:
        return show(experiments.experiment_page(context, comparison_id, datetime.now(UTC)), fragment)

    @router.post("/comparisons/{comparison_id}/{action}")
    def change_comparison(context: Context, comparison_id: str, action: str) -> RedirectResponse:
        if action not in _DESIRED:
            raise InvalidInput(f"action: got {action!r}, allowed: {', '.join(_DESIRED)}")
        context.store.artifacts.set_desired(comparison_id, _DESIRED[action], ArtifactKind.comparison)
        context.wake()
        return RedirectResponse(f"/comparisons/{comparison_id}", status_code=_SEE_OTHER)
