"""/v1/comparisons: submit, list, look at, results, pause, resume, cancel."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.comparison_report import report_file
from api.comparison_views import comparison_out, results_out
from api.context import AppContext, Context, check_servers
from api.resolve_comparison import comparison_document, to_comparison
from api.routes.artifacts import Cursor, Limit, artifact_page, submit_artifact, want_of_artifact
from api.routes.jobs import IdempotencyKey
from api.wire.comparisons import ComparisonDocument, ComparisonDryRun, ComparisonList, ComparisonOut, ResultsOut
from service.artifacts import ArtifactKind
from service.experiments.graph import count_nodes
from service.experiments.report_files import FORMS
from service.jobs import Desired

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])


@router.post("", status_code=201, responses={200: {"model": ComparisonDryRun, "description": "A dry run."}})
def submit_comparison(
    context: Context,
    response: Response,
    body: ComparisonDocument,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Plan only: what it would take; nothing is stored.")] = False,
) -> ComparisonOut | ComparisonDryRun:
    """Submits a comparison. What an earlier one has made of the very same documents is taken from there."""
    spec, work = to_comparison(body, context.store)
    check_servers(context.settings, work.models)
    if dry_run:
        response.status_code = 200
        return ComparisonDryRun(document=comparison_document(spec), nodes=count_nodes(spec))
    artifact = submit_artifact(context, response, spec, work, idempotency_key, "/v1/comparisons")
    return comparison_out(context.store, artifact)


@router.get("")
def list_comparisons(context: Context, limit: Limit = 50, cursor: Cursor = None) -> ComparisonList:
    """Comparisons, newest first."""
    page, next_cursor = artifact_page(context, ArtifactKind.comparison, limit, cursor)
    return ComparisonList(items=[comparison_out(context.store, item) for item in page], next_cursor=next_cursor)


@router.get("/{comparison_id}")
def get_comparison(context: Context, comparison_id: str) -> ComparisonOut:
    """One comparison: how far it is, what it has cost, what it consists of."""
    return comparison_out(context.store, context.store.artifacts.get(comparison_id, ArtifactKind.comparison))


@router.get("/{comparison_id}/results")
def get_results(context: Context, comparison_id: str) -> ResultsOut:
    """What is found so far: what each arm's budget bought, and what students made of it."""
    return results_out(context.store, context.store.artifacts.get(comparison_id, ArtifactKind.comparison))


@router.get(
    "/{comparison_id}/report.{form}",
    response_class=Response,
    responses={200: {"content": {media_type: {} for media_type in FORMS.values()}, "description": "The file."}},
)
def get_report(context: Context, comparison_id: str, form: str) -> Response:
    """What is found so far as a file to keep: `html` (opens offline), `md`, `json`, or `zip` with PNG figures too."""
    body = report_file(context, comparison_id, form, datetime.now(UTC))
    headers = {"Content-Disposition": f'attachment; filename="report.{form}"', "X-Content-Type-Options": "nosniff"}
    return Response(body, media_type=FORMS[form], headers=headers)


@router.post("/{comparison_id}/cancel")
def cancel_comparison(context: Context, comparison_id: str) -> ComparisonOut:
    """Ends a comparison and what it alone has running; what is finished stays."""
    return _change(context, comparison_id, Desired.cancel)


@router.post("/{comparison_id}/pause")
def pause_comparison(context: Context, comparison_id: str) -> ComparisonOut:
    """Pauses a comparison and what it alone has running."""
    return _change(context, comparison_id, Desired.pause)


@router.post("/{comparison_id}/resume")
def resume_comparison(context: Context, comparison_id: str) -> ComparisonOut:
    """Goes on."""
    return _change(context, comparison_id, Desired.run)


def _change(context: AppContext, comparison_id: str, desired: Desired) -> ComparisonOut:
    return comparison_out(context.store, want_of_artifact(context, comparison_id, ArtifactKind.comparison, desired))
