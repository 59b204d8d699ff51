"""Evaluation documents as specs, and evaluations as they go out."""

from typing import Any

from api.resolve_parts import check_scorers, prompt_document, sampling_document, to_prompt, to_sampling, to_votes
from api.wire.comparisons import ChildOut, Measured
from api.wire.evaluations import EvaluationDocument, EvaluationOut, ModelResult
from service.artifacts import Artifact
from service.currency import Budget, Currency
from service.errors import InvalidInput
from service.experiments.evaluation import evaluation_results
from service.experiments.spec import EvaluateSpec, EvaluationSpec, EvaluationWork, ResolvedSet
from service.jobs import JobSpec
from service.measures import Measures
from service.store import Store


def to_evaluation(document: EvaluationDocument, store: Store) -> tuple[EvaluationSpec, EvaluationWork]:
    """The evaluation that the document asks for and what its names stand for now.

    Raises:
        UnknownName: a model, problem set or scorer that does not exist.
        InvalidInput: no scorer of answers, or sizes of votes that make no sense.
    """
    model, problems = store.catalogue.model(document.model), store.catalogue.problem_set(document.problems)
    spec = EvaluationSpec(
        name=document.name or f"{document.model} on {document.problems}"[:200],
        model=document.model,
        problems=document.problems,
        evaluate=EvaluateSpec(maj_at=to_votes(document.evaluate.maj_at), temperature=document.evaluate.temperature),
        prompt=to_prompt(document.prompt),
        sampling=to_sampling(document.sampling),
        scorers=tuple(document.scorers),
        seed=document.seed,
        max_problems=document.max_problems,
    )
    budget = Budget(currency=Currency.samples, limit=1)
    job = JobSpec(name=spec.name, problems=spec.problems, models=(spec.model,), budget=budget, scorers=spec.scorers)
    check_scorers(job, problems.num_problems)
    if not Measures.of(spec.scorers).has_answers:
        raise InvalidInput(f"scorers: got {', '.join(spec.scorers) or 'none'}, allowed: one that judges answers")
    max_tokens = spec.sampling.max_tokens
    if max_tokens is not None and max_tokens >= model.context_len:
        raise InvalidInput(f"sampling.max_tokens: got {max_tokens}, allowed: 1 to {model.context_len - 1}")
    resolved = ResolvedSet(
        name=problems.name,
        path=problems.path,
        num_problems=problems.num_problems,
        fingerprint=problems.fingerprint,
    )
    return spec, EvaluationWork(model=model, problems=resolved)


def evaluation_document(spec: EvaluationSpec) -> dict[str, Any]:
    """The resolved document of an evaluation: submitting it again asks for the same."""
    return {
        "name": spec.name,
        "model": spec.model,
        "problems": spec.problems,
        "evaluate": {"maj_at": list(spec.evaluate.maj_at), "temperature": spec.evaluate.temperature},
        "prompt": prompt_document(spec.prompt),
        "sampling": sampling_document(spec.sampling),
        "scorers": list(spec.scorers),
        "seed": spec.seed,
        "max_problems": spec.max_problems,
    }


def evaluation_out(store: Store, artifact: Artifact, *, with_results: bool = True) -> EvaluationOut:
    """An evaluation as it goes out; lists leave out results, for which every score has to be read."""
    assert isinstance(artifact.spec, EvaluationSpec)
    children = store.reads.child_phases(artifact.id)
    return EvaluationOut(
        id=artifact.id,
        name=artifact.spec.name,
        phase=artifact.phase,
        desired=artifact.desired,
        created_at=artifact.created_at,
        ended_at=artifact.ended_at,
        error=artifact.error,
        document=evaluation_document(artifact.spec),
        flops_by_stage=store.reads.flops_by_stage([child_id for _, child_id, _ in children]),
        children=[ChildOut(key=key, id=child_id, phase=phase) for key, child_id, phase in children],
        results=None
        if not with_results
        else [
            ModelResult(
                measure=found.measure,
                num_problems=found.num_problems,
                accuracy=Measured(value=found.accuracy.value, low=found.accuracy.low, high=found.accuracy.high),
                false_positive_rate=found.false_positive_rate,
            )
            for found in evaluation_results(store, artifact.id, artifact.spec)
        ],
    )
