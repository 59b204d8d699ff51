"""A job document becomes a JobSpec: every default filled in, every name checked, the budget in ledger units.

All that can go wrong with a document is said here, before anything is stored or spent. Must not import workers: what a
prompt costs in tokens is known only after it is prepared, so amounts here are bounds, and say so.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from api.resolve_arms import arms_document, check_arms, to_arms
from api.resolve_judges import questions_of
from api.resolve_parts import (
    allocation_document,
    check_scorers,
    prompt_document,
    sampling_document,
    to_allocation,
    to_resolved_set,
)
from api.wire.job_document import BudgetDocument, JobDocument
from service import wording
from service.currency import (
    MS_PER_HOUR,
    Budget,
    Currency,
    can_price,
    from_amount,
    missing_for,
    stated,
    stated_amount,
    worst_case,
)
from service.devices import SECONDS_PER_HOUR
from service.errors import BudgetTooSmall, InvalidInput, NotFound
from service.experiments.spec import ResolvedSet
from service.flops import MFLOP
from service.jobs import JobSpec, Resolved
from service.measures import Measures
from service.models import ModelSpec
from service.pricing import NANO_USD
from service.store import Store
from service.store.catalogue import is_selection_id


def to_job_spec(document: JobDocument, store: Store) -> tuple[JobSpec, Resolved]:
    """The job that the document asks for and what its names stand for now.

    Raises:
        UnknownName: a problem set, model, strategy or scorer that does not exist.
        NotFound: problems named like a selection that does not exist.
        Conflict: a selection that is not made.
        InvalidInput: a field that contradicts the catalogue or another field.
        BudgetTooSmall: the budget does not pay one sample.
    """
    problems = _problems(document.problems, store)
    arms = to_arms(document)
    models = tuple(store.catalogue.model(name) for name in arms.models)
    num_problems = min(problems.num_problems, document.max_problems or problems.num_problems)
    allocation = to_allocation(document.allocation)
    spec = JobSpec(
        name=document.name or f"{document.problems} by {', '.join(arms.models)}"[:200],
        problems=document.problems,
        models=arms.models,
        budget=_budget(document.budget, document.accounting, num_problems),
        allocation=allocation,
        prompt=arms.prompt,
        sampling=arms.sampling,
        arms=arms.arms,
        scorers=tuple(document.scorers),
        seed=document.seed,
        max_problems=document.max_problems,
        stage=document.stage,
    )
    if spec.stage != "generate" and len(arms.arms) > 1:
        raise InvalidInput(
            f"arms: got {len(arms.arms)} with stage {spec.stage!r}, allowed: one prompt and one sampling"
        )
    check_arms(document, spec.all_arms, models)
    check_scorers(spec, num_problems)
    _check_budget(spec, models)
    _check_history(spec, problems.fingerprint, num_problems, store)
    resolved = Resolved(
        models=models,
        problems_path=problems.path,
        num_problems=num_problems,
        problems_fingerprint=problems.fingerprint,
    )
    return spec, resolved


def _problems(name: str, store: Store) -> ResolvedSet:
    return questions_of(name, store) if is_selection_id(name) else to_resolved_set(store.catalogue.problem_set(name))


def _check_history(spec: JobSpec, fingerprint: str, num_problems: int, store: Store) -> None:
    """Earlier rounds count problems by their place in the set, so it has to be the same one, and by their verdicts."""
    allocation = spec.allocation
    if len(set(allocation.history)) < len(allocation.history):
        raise InvalidInput("allocation.history: got a job twice, allowed: each job once, the oldest first")
    for job_id in allocation.history:
        try:
            job, resolved = store.jobs.get(job_id), store.jobs.resolved(job_id)
        except NotFound:
            raise InvalidInput(f"allocation.history: got {job_id!r}, allowed: ids of jobs") from None
        if not job.phase.is_done:
            raise InvalidInput(f"allocation.history: got {job_id!r}, which is {job.phase}, allowed: jobs that are done")
        if (resolved.problems_fingerprint, resolved.num_problems) != (fingerprint, num_problems):
            raise InvalidInput(
                f"allocation.history: got {job_id!r}, which drew from other problems; allowed: jobs on all the "
                f"{num_problems:,} problems of this one"
            )
        measures = Measures.of(job.spec.scorers)
        if not measures.has_answers or (allocation.counts == "verified" and not measures.has_steps):
            raise InvalidInput(
                f"allocation.history: got {job_id!r}, scored by {', '.join(job.spec.scorers) or 'nothing'}; allowed: "
                f"jobs with the verdicts that count here ({allocation.counts})"
            )


def document_of(spec: JobSpec, num_problems: int) -> dict[str, Any]:
    """The resolved document of a job, in the form of a job file: submitting it again asks for the same."""
    return {
        "name": spec.name,
        "problems": spec.problems,
        **_drawn_with(spec),
        "budget": _budget_document(spec.budget, num_problems),
        "accounting": "paper" if spec.budget.currency is Currency.flops_paper else "exact",
        "allocation": allocation_document(spec.allocation),
        "scorers": list(spec.scorers),
        "seed": spec.seed,
        "max_problems": spec.max_problems,
        "stage": spec.stage,
    }


def _drawn_with(spec: JobSpec) -> dict[str, Any]:
    if spec.arms:
        return arms_document(spec.models, spec.arms)
    return {
        "models": list(spec.models),
        "prompt": prompt_document(spec.prompt),
        "sampling": sampling_document(spec.sampling),
    }


def cost_bounds(currency: Currency, model: ModelSpec, max_tokens: int | None) -> tuple[float, float]:
    """Worst case of one sample with the cheapest and with the dearest prompt the context allows [cost units].

    With a fixed `max_tokens` a prompt has 1 to `context_len - max_tokens` tokens, and longer ones cost more. Without
    one a completion fills the context, the total is constant, and only what counts sampled tokens alone differs.
    """
    longest = model.context_len - (max_tokens or 1)
    costs = [
        worst_case(currency, model.pricing, prompt_tokens=prompt, max_tokens=max_tokens or model.context_len - prompt)
        for prompt in (1, longest)
    ]
    return min(costs), max(costs)


_HAIR = 1e-6
"""Of a millisecond: hours in a document are floats, and one that was made of whole milliseconds must give them back."""


def _budget(document: BudgetDocument, accounting: str, num_problems: int) -> Budget:
    if document.flops is not None:
        currency = Currency.flops_paper if accounting == "paper" else Currency.flops
        # rounded down: a hard limit of less than asked for keeps what was promised, one MFLOP more would not
        limit = math.floor(document.flops) // MFLOP
        if limit < 1:
            raise BudgetTooSmall(f"budget.flops: got {document.flops:.4g}, allowed: at least {MFLOP:,} (1 MFLOP)")
        return Budget(currency=currency, limit=limit)
    if document.tokens is not None:
        return Budget(currency=Currency.tokens, limit=document.tokens)
    if document.usd is not None:
        limit = math.floor(Decimal(str(document.usd)) * NANO_USD)
        if limit < 1:
            raise BudgetTooSmall(f"budget.usd: got {document.usd:g}, allowed: at least {1 / NANO_USD:g}")
        return Budget(currency=Currency.usd, limit=limit)
    if document.gpu_hours is not None:
        limit = math.floor(document.gpu_hours * MS_PER_HOUR + _HAIR)
        if limit < 1000:
            raise BudgetTooSmall(
                f"budget.gpu_hours: got {document.gpu_hours:.4g}, allowed: at least {1 / SECONDS_PER_HOUR:.3g} (1 s)"
            )
        return Budget(currency=Currency.gpu_hours, limit=limit)
    if document.samples_per_problem is not None:
        limit = round(document.samples_per_problem * num_problems)
        if limit < 1:
            raise BudgetTooSmall(
                f"budget.samples_per_problem: got {document.samples_per_problem:g}, allowed for "
                f"{wording.plural(num_problems, 'problem')}: at least {1 / num_problems:g}, which is one sample"
            )
        return Budget(currency=Currency.samples, limit=limit)
    raise AssertionError("BudgetDocument holds exactly one amount")


def _budget_document(budget: Budget, num_problems: int) -> dict[str, float]:
    match budget.currency:
        case Currency.flops | Currency.flops_paper:
            return {"flops": from_amount(budget.currency, budget.limit)}
        case Currency.tokens:
            return {"tokens": budget.limit}
        case Currency.usd:
            return {"usd": stated_amount(budget.currency, budget.limit)}
        case Currency.gpu_hours:
            return {"gpu_hours": stated_amount(budget.currency, budget.limit)}
        case Currency.samples:
            whole, rest = divmod(budget.limit, num_problems)
            return {"samples_per_problem": budget.limit / num_problems if rest else whole}


def check_priced(field: str, currency: Currency, models: Iterable[ModelSpec]) -> None:
    """Refuses a currency that a model's samples have no cost in.

    Args:
        field: where the currency stands in its document.

    Raises:
        InvalidInput: a model lacks a price or FLOPs; the message names both and what could be used.
    """
    models = tuple(models)
    for model in models:
        if (missing := missing_for(currency, model.pricing)) is not None:
            allowed = [each for each in Currency if all(can_price(each, one.pricing) for one in models)]
            words = ", ".join(_FIELDS_OF_CURRENCIES[each] for each in allowed)
            raise InvalidInput(
                f"{field}: got {_FIELDS_OF_CURRENCIES[currency]} with {model.name}, which needs {missing}; "
                f"allowed: {words}"
            )


_FIELDS_OF_CURRENCIES = {
    Currency.flops: "flops",
    Currency.flops_paper: "flops with accounting paper",
    Currency.tokens: "tokens",
    Currency.samples: "samples_per_problem",
    Currency.usd: "usd",
    Currency.gpu_hours: "gpu_hours",
}


def _check_budget(spec: JobSpec, models: Iterable[ModelSpec]) -> None:
    """Refuses what cannot pay a sample whatever the prompts are; the planner knows the real ones later."""
    currency = spec.budget.currency
    check_priced("budget", currency, models)
    if currency.is_soft:
        return
    if currency is Currency.usd:
        _check_ends(spec, models)
    model_by_name = {model.name: model for model in models}
    cheapest = {
        arm.name: cost_bounds(currency, model_by_name[arm.model], arm.sampling.max_tokens)[0] for arm in spec.all_arms
    }
    name = min(cheapest, key=lambda arm: cheapest[arm])
    limit = from_amount(currency, spec.budget.limit)
    if cheapest[name] > limit:
        raise BudgetTooSmall(
            f"budget: got {wording.amount(stated(currency, limit), currency)}, allowed: at least "
            f"{wording.amount(stated(currency, cheapest[name]), currency)}, what one sample of {name} may cost with "
            "the cheapest possible prompt; every sample reserves its worst case, so lower sampling.max_tokens or raise "
            "the budget"
        )


def _check_ends(spec: JobSpec, models: Iterable[ModelSpec]) -> None:
    """Refuses a budget in USD that a free model would never spend; `collect` may ask for more than can be solved."""
    free = [model.name for model in models if model.price is not None and model.price.is_free]
    if free and spec.allocation.max_samples is None:
        raise InvalidInput(
            f"budget: got usd with {', '.join(free)}, which is free, so that the budget would never end the job; "
            "allowed: a price above 0, another budget such as samples_per_problem, or allocation.max_samples with "
            "until_correct or adastar"
        )
