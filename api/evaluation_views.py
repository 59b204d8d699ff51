"""Evaluations as they go out."""

from api.artifact_views import measured, parent_fields
from api.resolve_evaluation import evaluation_document
from api.wire.evaluations import EvaluationOut, EvaluationResultsOut, ModelResult
from service.artifacts import Artifact
from service.experiments.evaluation import evaluation_results
from service.experiments.spec import EvaluationSpec
from service.store import Store


def evaluation_out(store: Store, artifact: Artifact) -> EvaluationOut:
    """An evaluation as it goes out, without what it has found: for that every score has to be read."""
    assert isinstance(artifact.spec, EvaluationSpec)
    return EvaluationOut(**parent_fields(store, artifact), document=evaluation_document(artifact.spec))


def evaluation_results_out(store: Store, artifact: Artifact) -> EvaluationResultsOut:
    """What an evaluation has found so far."""
    assert isinstance(artifact.spec, EvaluationSpec)
    return EvaluationResultsOut(
        measures=[
            ModelResult(
                measure=found.measure,
                num_problems=found.num_problems,
                accuracy=measured(found.accuracy),
                false_positive_rate=found.false_positive_rate,
            )
            for found in evaluation_results(store, artifact.id, artifact.spec)
        ]
    )
