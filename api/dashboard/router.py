"""The routes of the pages: read, build, render. Forms write what people want and send the reader back.

Mounted by `api/app.py`. Pages are not part of the described API. An error of the project becomes a page that says what
happened; every page carries the content policy. Cross-site forms are refused before they get here (`api/guard.py`).
"""

from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse

from api.context import AppContext, Context
from api.dashboard import pages
from api.dashboard.assets import static_routes
from api.dashboard.comparison_routes import add_comparison_routes
from api.dashboard.render import CONTENT_SECURITY_POLICY, make_dashboard_environment, render
from api.dashboard.training_routes import add_training_routes
from api.dashboard.views import charts, comparison, jobs, lists, samples
from api.problem import field_problems, field_text
from service.errors import InvalidInput, IsoflopError, NotFound
from service.jobs import Desired

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_DESIRED = {"pause": Desired.pause, "resume": Desired.run, "cancel": Desired.cancel}
_SEE_OTHER = 303


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors of the project answered by an error page."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as invalid:
                error: IsoflopError = InvalidInput(field_text(field_problems(invalid.errors())))
            except IsoflopError as refused:
                error = refused
            page = _error_page(request.app.state.context, error)
            return HTMLResponse(render(page), status_code=error.status, headers=HEADERS)

        return handle


async def _form(request: Request) -> dict[str, str]:
    """Fields of an urlencoded form, the last value of each."""
    fields = parse_qs((await request.body()).decode("utf-8", errors="replace"), max_num_fields=20)
    return {name: values[-1] for name, values in fields.items()}


Form = Annotated[dict[str, str], Depends(_form)]
OptionalJobIds = Annotated[Sequence[str], Query(max_length=8)]
JobIds = Annotated[list[str], Query(min_length=1, max_length=8)]
Fragment = Annotated[str | None, Query(max_length=10)]


def make_router() -> APIRouter:
    """The pages, with templates compiled once and completion lengths read once."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    environment = make_dashboard_environment()
    lengths = charts.LengthCache()

    def show(page: pages.Page, fragment: str | None) -> HTMLResponse:
        html = render(page, is_fragment=fragment is not None, environment=environment)
        return HTMLResponse(html, headers=HEADERS)

    @router.get("/")
    def overview(context: Context, fragment: Fragment = None) -> HTMLResponse:
        return show(jobs.overview_page(context, datetime.now(UTC)), fragment)

    @router.get("/jobs/{job_id}")
    def job(context: Context, job_id: str, fragment: Fragment = None) -> HTMLResponse:
        return show(jobs.job_page(context, lengths, job_id, datetime.now(UTC)), fragment)

    @router.get("/jobs/{job_id}/samples")
    def job_samples(
        context: Context,
        job_id: str,
        show_only: Annotated[str, Query(alias="show", max_length=40)] = "all",
        arm: Annotated[str, Query(max_length=200)] = "",
        cursor: Annotated[str, Query(max_length=40)] = "",
        sample: Annotated[str | None, Query(max_length=100)] = None,
        fragment: Fragment = None,
    ) -> HTMLResponse:
        page = samples.samples_page(
            context, job_id, datetime.now(UTC), shown=show_only, arm=arm, cursor=cursor, sample_id=sample
        )
        return show(page, fragment)

    @router.get("/compare")
    def compare(context: Context, jobs: OptionalJobIds = (), fragment: Fragment = None) -> HTMLResponse:
        now = datetime.now(UTC)
        if not jobs:
            return show(comparison.choose_page(context, "", now), fragment)
        try:
            return show(comparison.comparison_page(context, jobs, now), fragment)
        except (InvalidInput, NotFound) as error:
            response = show(comparison.choose_page(context, str(error), now), fragment)
            response.status_code = error.status
            return response

    for path, build in (
        ("/workers", lists.workers_page),
        ("/models", lists.models_page),
        ("/problems", lists.problems_page),
        ("/usage", lists.usage_page),
    ):
        router.add_api_route(path, _simple(build, show), methods=["GET"])
    add_training_routes(router, show)
    add_comparison_routes(router, show)
    router.add_api_route("/compare/report.{form}", download_report, methods=["GET"])
    router.add_api_route("/jobs/{job_id}/{action}", change_job, methods=["POST"])
    router.add_api_route("/workers/{model:path}/scale", scale_pool, methods=["POST"])
    router.routes.extend(static_routes())
    return router


def _simple(
    build: Callable[[AppContext, datetime], pages.Page], show: Callable[[pages.Page, str | None], HTMLResponse]
) -> Callable[..., HTMLResponse]:
    def handle(context: Context, fragment: Fragment = None) -> HTMLResponse:
        return show(build(context, datetime.now(UTC)), fragment)

    return handle


def change_job(context: Context, job_id: str, action: str) -> RedirectResponse:
    """Pauses, resumes or cancels a job."""
    if action not in _DESIRED:
        raise InvalidInput(f"action: got {action!r}, allowed: {', '.join(_DESIRED)}")
    context.store.jobs.set_desired(job_id, _DESIRED[action])
    context.wake()
    return RedirectResponse(f"/jobs/{job_id}", status_code=_SEE_OTHER)


def scale_pool(context: Context, model: str, form: Form) -> RedirectResponse:
    """Scales a pool, to nothing when it is drained."""
    wanted = "0" if "drain" in form else form.get("replicas", "")
    version = form.get("etag", "").strip('"')
    for name, text in (("replicas", wanted), ("etag", version)):
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise InvalidInput(f"{name}: got {text[:40]!r}, allowed: a whole number")
    replicas = int(wanted)
    minimum = min(replicas, context.store.catalogue.pool(model).minimum)
    context.store.catalogue.change_pool(model, replicas=replicas, minimum=minimum, version=int(version))
    context.wake()
    return RedirectResponse("/workers", status_code=_SEE_OTHER)


def download_report(context: Context, form: str, jobs: JobIds) -> Response:
    """A comparison as a file to keep."""
    text = comparison.comparison_file(context, jobs, form, datetime.now(UTC))
    headers = {"Content-Disposition": f'attachment; filename="report.{form}"', "X-Content-Type-Options": "nosniff"}
    return Response(text, media_type=comparison.MEDIA_TYPES[form], headers=headers)


def _error_page(context: AppContext, error: IsoflopError) -> pages.ErrorPage:
    return pages.ErrorPage(
        shell=jobs.shell_of(context, "", datetime.now(UTC)),
        status=error.status,
        title=error.title,
        detail=str(error),
        next_step="The overview lists every job; `isoflop status` does so in a terminal.",
    )
