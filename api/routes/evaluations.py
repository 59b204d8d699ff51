"""/v1/evaluations: submit, list, look at, results, cancel."""

from fastapi import APIRouter, Response

from api.context import Context, check_servers
from api.evaluation_views import evaluation_out, evaluation_results_out
from api.resolve_evaluation import to_evaluation
from api.routes.artifacts import Cursor, Limit, artifact_page, submit_artifact, want_of_artifact
from api.routes.jobs import IdempotencyKey
from api.wire.evaluations import EvaluationDocument, EvaluationList, EvaluationOut, EvaluationResultsOut
from service.artifacts import ArtifactKind
from service.jobs import Desired

router = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])


@router.post("", status_code=201)
def submit_evaluation(
    context: Context, response: Response, body: EvaluationDocument, idempotency_key: IdempotencyKey = None
) -> EvaluationOut:
    """Measures a model or a student's checkpoint. Jobs that measured the very same before are taken."""
    spec, work = to_evaluation(body, context.store)
    check_servers(context.settings, [work.model])
    artifact = submit_artifact(context, response, spec, work, idempotency_key, "/v1/evaluations")
    return evaluation_out(context.store, artifact)


@router.get("")
def list_evaluations(context: Context, limit: Limit = 50, cursor: Cursor = None) -> EvaluationList:
    """Evaluations, newest first."""
    page, next_cursor = artifact_page(context, ArtifactKind.evaluation, limit, cursor)
    return EvaluationList(items=[evaluation_out(context.store, item) for item in page], next_cursor=next_cursor)


@router.get("/{evaluation_id}")
def get_evaluation(context: Context, evaluation_id: str) -> EvaluationOut:
    """One evaluation: where its jobs stand, what they have cost."""
    return evaluation_out(context.store, context.store.artifacts.get(evaluation_id, ArtifactKind.evaluation))


@router.get("/{evaluation_id}/results")
def get_evaluation_results(context: Context, evaluation_id: str) -> EvaluationResultsOut:
    """What is found so far: accuracy by each measure whose job has ended, with intervals."""
    return evaluation_results_out(context.store, context.store.artifacts.get(evaluation_id, ArtifactKind.evaluation))


@router.post("/{evaluation_id}/cancel")
def cancel_evaluation(context: Context, evaluation_id: str) -> EvaluationOut:
    """Ends an evaluation and what it alone has running."""
    artifact = want_of_artifact(context, evaluation_id, ArtifactKind.evaluation, Desired.cancel)
    return evaluation_out(context.store, artifact)
