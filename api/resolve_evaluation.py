"""An evaluation document becomes an EvaluationSpec: names checked, defaults filled in. Must not import workers."""

from typing import Any

from api.resolve_parts import (
    check_sampling,
    check_scorers,
    evaluate_document,
    prompt_document,
    sampling_document,
    to_evaluate,
    to_prompt,
    to_resolved_set,
    to_sampling,
)
from api.wire.evaluations import EvaluationDocument
from service.currency import Budget, Currency
from service.errors import InvalidInput
from service.experiments.spec import EvaluationSpec, EvaluationWork
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
        evaluate=to_evaluate(document.evaluate),
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
    check_sampling("sampling", spec.sampling, [model])
    return spec, EvaluationWork(model=model, problems=to_resolved_set(problems))


def evaluation_document(spec: EvaluationSpec) -> dict[str, Any]:
    """The resolved document of an evaluation: submitting it again asks for the same."""
    return {
        "name": spec.name,
        "model": spec.model,
        "problems": spec.problems,
        "evaluate": evaluate_document(spec.evaluate),
        "prompt": prompt_document(spec.prompt),
        "sampling": sampling_document(spec.sampling),
        "scorers": list(spec.scorers),
        "seed": spec.seed,
        "max_problems": spec.max_problems,
    }
