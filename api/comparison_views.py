"""Comparisons as they go out."""

from api.artifact_views import measured, parent_fields
from api.resolve_comparison import comparison_document
from api.wire.comparisons import ArmResult, ComparisonOut, ResultsOut, RoundResult, StudentResult
from service.artifacts import Artifact
from service.experiments.graph import count_nodes
from service.experiments.results import ArmFound, RoundFound, StudentFound, collect_results
from service.experiments.spec import ComparisonSpec
from service.jobs import Phase
from service.store import Store


def comparison_out(store: Store, artifact: Artifact) -> ComparisonOut:
    """A comparison as it goes out."""
    assert isinstance(artifact.spec, ComparisonSpec)
    fields = parent_fields(store, artifact)
    return ComparisonOut(
        **fields,
        document=comparison_document(artifact.spec),
        nodes=count_nodes(artifact.spec),
        nodes_done=sum(Phase(child.phase).is_done for child in fields["children"]),
    )


def results_out(store: Store, artifact: Artifact) -> ResultsOut:
    """What a comparison has found so far."""
    assert isinstance(artifact.spec, ComparisonSpec)
    results = collect_results(store, artifact.id, artifact.spec)
    return ResultsOut(
        arms=[_arm(found) for found in results.arms],
        students=[_student(found) for found in results.students],
        rounds=[_round(found) for found in results.rounds],
    )


def _arm(found: ArmFound) -> ArmResult:
    return ArmResult(
        arm=found.arm,
        samples_per_problem=found.num_samples,
        job=found.job_id,
        samples=found.samples,
        correct=found.correct,
        useful_flops=found.useful_flops,
        rows=found.rows,
        judge_flops=found.judge_flops,
    )


def _student(found: StudentFound) -> StudentResult:
    return StudentResult(
        student=found.student,
        arm=found.arm,
        samples_per_problem=found.num_samples,
        measure=found.measure,
        num_seeds=len(found.by_seed),
        num_problems=found.num_problems,
        accuracy=measured(found.accuracy),
        by_seed=list(found.by_seed),
        base=found.base,
        difference=None if found.difference is None else measured(found.difference.estimate),
        is_difference=None if found.difference is None else found.difference.is_difference,
        p_value=None if found.difference is None else found.difference.p_value,
        false_positive_rate=found.false_positive_rate,
    )


def _round(found: RoundFound) -> RoundResult:
    return RoundResult(
        student=found.student,
        arm=found.arm,
        samples_per_problem=found.num_samples,
        round=found.round,
        samples=found.samples,
        correct=found.correct,
        rows=found.rows,
        draw_flops=found.draw_flops,
        train_flops=found.train_flops,
        accuracy=None if found.accuracy is None else measured(found.accuracy),
    )
