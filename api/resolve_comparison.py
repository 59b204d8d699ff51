"""A comparison document becomes a ComparisonSpec: every name checked, every default filled in.

All that can be wrong is said before anything is spent; jobs, selections and finetunes follow from the result alone.
Must not import workers.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from api.chat_templates import check_chat_template
from api.resolve_artifacts import to_training
from api.resolve_judges import judge_document, to_judge
from api.resolve_parts import (
    allocation_document,
    check_sampling,
    check_scorers,
    evaluate_document,
    prompt_document,
    sampling_document,
    to_allocation,
    to_evaluate,
    to_prompt,
    to_resolved_set,
    to_sampling,
)
from api.wire.comparisons import ComparisonDocument, MatchDocument
from service.currency import Budget, Currency, missing_for
from service.errors import InvalidInput
from service.experiments.graph import count_nodes
from service.experiments.nodes import budget_of, num_train_problems
from service.experiments.spec import (
    ArmSpec,
    ComparisonSpec,
    ComparisonWork,
    JudgeSpec,
    Lengths,
    MatchBy,
    SelectionRules,
    Split,
    StudentSpec,
)
from service.jobs import JobSpec
from service.measures import Measures
from service.models import ModelSpec
from service.selection.spec import Duplicates, Keep
from service.store import Store

MAX_NODES = 20_000
"""Nodes of a comparison: far more than anybody waits for, and few enough to look at in a tick."""
MAX_SAMPLES = 1_000_000
"""Samples a problem, as many as a job may ask for."""


def to_comparison(document: ComparisonDocument, store: Store) -> tuple[ComparisonSpec, ComparisonWork]:
    """The comparison that the document asks for and what its names stand for now.

    Raises:
        UnknownName: a problem set, model, strategy, scorer or preset that does not exist.
        InvalidInput: a field that contradicts the catalogue or another field.
    """
    sets = {
        split: store.catalogue.problem_set(name)
        for split in Split
        if (name := getattr(document.problems, split.value)) is not None
    }
    _check_disjoint({split: item.name for split, item in sets.items()})
    drawing = itertools.chain.from_iterable(arm.models for arm in document.arms)
    judging = [] if document.judge is None else [document.judge.model]
    names = dict.fromkeys([*drawing, *(student.base for student in document.students), *judging])
    models = tuple(store.catalogue.model(name) for name in names)
    arms = tuple(
        ArmSpec(
            name=arm.name,
            models=tuple(arm.models),
            allocation=to_allocation(arm.allocation),
            sampling=None if arm.sampling is None else to_sampling(arm.sampling),
            keep=None if arm.keep is None else Keep(arm.keep),
            match=None if arm.match is None else MatchBy(arm.match),
            rounds=arm.rounds,
            warm_start=arm.warm_start,
        )
        for arm in document.arms
    )
    by = document.match.samples_per_problem
    budgets = tuple(by) if isinstance(by, list) else (by,)
    training = to_training(document.finetune.preset, document.finetune.training)
    spec = ComparisonSpec(
        name=document.name,
        problems={split: item.name for split, item in sets.items()},
        match=MatchBy(document.match.by),
        reference=_reference(document),
        budgets=budgets,
        arms=arms,
        students=tuple(StudentSpec(name=student.name, base=student.base) for student in document.students),
        training=training,
        learning_rates=tuple(document.finetune.learning_rates) or (training.learning_rate,),
        seeds=tuple(range(training.seed, training.seed + document.finetune.seeds)),
        selection=SelectionRules(
            keep=Keep(document.select.keep),
            duplicates=Duplicates(document.select.duplicates),
            per_problem=document.select.per_problem,
            rows=document.select.rows,
            ngram=document.select.ngram,
        ),
        evaluate=to_evaluate(document.evaluate),
        prompt=to_prompt(document.prompt),
        sampling=to_sampling(document.sampling),
        scorers=tuple(document.scorers),
        seed=document.seed,
        max_problems=document.max_problems,
        lengths=_lengths(document.match, arms),
        judge=None if document.judge is None else to_judge(document.judge),
    )
    work = ComparisonWork(models=models, sets={split: to_resolved_set(item) for split, item in sets.items()})
    _check(spec, work)
    return spec, work


def _reference(document: ComparisonDocument) -> str:
    wanted = document.match.reference
    found = [arm.name for arm in document.arms if wanted == arm.name]
    found = found or [arm.name for arm in document.arms if arm.models == [wanted]]
    if len(found) != 1:
        allowed = ", ".join(arm.name for arm in document.arms)
        raise InvalidInput(f"match.reference: got {wanted!r}, allowed: an arm ({allowed}), or the model of one arm")
    return found[0]


def _lengths(match: MatchDocument, arms: Sequence[ArmSpec]) -> Lengths | None:
    is_needed = MatchBy(match.by).is_nominal or any(arm.match is not None and arm.match.is_nominal for arm in arms)
    stated = (match.prompt_tokens, match.completion_tokens)
    if not is_needed and stated != (None, None):
        raise InvalidInput("match: got lengths, allowed without nominal matching: neither of them, it measures")
    if match.prompt_tokens is None or match.completion_tokens is None:
        if is_needed:
            raise InvalidInput("match: nominal matching needs prompt_tokens and completion_tokens [tokens a sample]")
        return None
    return Lengths(prompt_tokens=match.prompt_tokens, completion_tokens=match.completion_tokens)


def _check_disjoint(names: dict[Split, str]) -> None:
    for (one, name), (other, same) in itertools.combinations(names.items(), 2):
        if name == same:
            raise InvalidInput(f"problems.{other}: got {same!r}, which is problems.{one} too; allowed: another set")


def _check_sizes(spec: ComparisonSpec) -> None:
    """Refuses what the database could not hold, or a tick not look at."""
    if any(not 1 <= budget <= MAX_SAMPLES for budget in spec.budgets) or len(set(spec.budgets)) < len(spec.budgets):
        raise InvalidInput(
            f"match.samples_per_problem: got {list(spec.budgets)}, allowed: numbers >= 1 that differ, at most "
            f"{MAX_SAMPLES}"
        )
    rates = spec.learning_rates
    # keys of nodes have them in this form: two that read alike would be one node
    if any(not 0 < rate <= 10 for rate in rates) or len({f"{rate:g}" for rate in rates}) < len(rates):
        raise InvalidInput(
            f"finetune.learning_rates: got {list(rates)}, allowed: above 0, at most 10, that differ in six digits"
        )
    if (nodes := count_nodes(spec)) > MAX_NODES:
        raise InvalidInput(
            f"comparison: got {nodes:,} jobs, selections and finetunes, allowed: {MAX_NODES:,}; fewer budgets, arms, "
            "students, seeds, learning_rates or num_checkpoints make fewer"
        )


def _check_rounds(spec: ComparisonSpec, work: ComparisonWork, arm: ArmSpec) -> None:
    if arm.allocation.history:
        raise InvalidInput(f"arms.{arm.name}.allocation.history: allowed: leave it out, rounds fill it in")
    if arm.rounds == 1:
        return
    # without students nobody would draw the second round; with too small a budget, nothing
    budget = budget_of(spec, work, arm, min(spec.budgets), None)  # None: measured later
    smallest = min(spec.budgets) * num_train_problems(spec, work) if budget is None else budget.limit
    most = 1 if not spec.students or arm.name == spec.reference else min(spec.training.steps, smallest)
    if arm.rounds > most:
        why = "with these steps and budgets"
        if not spec.students or arm.name == spec.reference:
            why = "of the reference arm" if spec.students else "without students"
        raise InvalidInput(f"arms.{arm.name}.rounds: got {arm.rounds}, allowed {why}: 1 to {most}")


def _check(spec: ComparisonSpec, work: ComparisonWork) -> None:
    _check_sizes(spec)
    for arm in spec.arms:
        check_scorers(_as_job(spec, arm), work.sets[Split.train].num_problems)
        _check_rounds(spec, work, arm)
        keep = spec.keep_of(arm)
        if keep is Keep.judged and spec.judge is None:
            raise InvalidInput(f"arms.{arm.name}: keep 'judged' needs `judge`, which says who judges")
        if keep is Keep.verified and not Measures.of(spec.scorers).has_steps:
            raise InvalidInput(f"arms.{arm.name}: keep 'verified' needs 'steps' among the scorers")
    if not Measures.of(spec.scorers).has_answers:
        raise InvalidInput(f"scorers: got {', '.join(spec.scorers) or 'none'}, allowed: one that judges answers")
    if spec.judge is not None:
        _check_judge(spec, spec.judge, work)
    for arm in spec.arms:
        _check_match(spec, arm, work)
    check_chat_template("prompt", spec.prompt, _models_of(spec, work, spec.arms))
    check_sampling(
        "sampling", spec.sampling, _models_of(spec, work, [arm for arm in spec.arms if arm.sampling is None])
    )
    for arm in spec.arms:
        if arm.sampling is not None:
            # students draw the later rounds
            drawing = [*arm.models, *(student.base for student in spec.students if arm.rounds > 1)]
            check_sampling(f"arms.{arm.name}.sampling", arm.sampling, map(work.model, drawing))
    for student in spec.students:
        _check_base(f"students.{student.name}", work.model(student.base))


def _models_of(spec: ComparisonSpec, work: ComparisonWork, arms: Iterable[ArmSpec]) -> list[ModelSpec]:
    """Models of the arms, and bases of students, who are measured as the comparison says; not the judge."""
    asked = {*itertools.chain.from_iterable(arm.models for arm in arms), *(each.base for each in spec.students)}
    return [model for model in work.models if model.name in asked]


def _check_base(field: str, base: ModelSpec) -> None:
    if base.endpoint is not None:
        raise InvalidInput(f"{field}: base {base.name!r} is an endpoint, whose weights are elsewhere")
    if base.engine.simulated:
        raise InvalidInput(f"{field}: base {base.name!r} is simulated and has no weights")
    if base.base is not None:
        kind = "checkpoint" if base.is_student else "adapter"
        raise InvalidInput(f"{field}: got {kind} {base.name!r}, allowed: a registered model with engines of its own")


_CURRENCIES = {
    MatchBy.flops: Currency.flops,
    MatchBy.nominal: Currency.flops,
    MatchBy.flops_paper: Currency.flops_paper,
    MatchBy.nominal_paper: Currency.flops_paper,
    MatchBy.usd: Currency.usd,
}


def _check_match(spec: ComparisonSpec, arm: ArmSpec, work: ComparisonWork) -> None:
    """Refuses matching by what a model of the arm or of the reference cannot be priced in."""
    currency = _CURRENCIES.get(arm.match or spec.match)
    if arm.name == spec.reference or currency is None:
        return
    reference = next(other for other in spec.arms if other.name == spec.reference)
    drawing = [*reference.models, *arm.models, *(each.base for each in spec.students if arm.rounds > 1)]
    for model in map(work.model, drawing):
        if (missing := missing_for(currency, model.pricing)) is not None:
            raise InvalidInput(
                f"arms.{arm.name}: got match by {arm.match or spec.match} with {model.name}, which needs {missing}; "
                "allowed: number, or what all models of the arm and of the reference can be priced in"
            )


def _check_judge(spec: ComparisonSpec, judge: JudgeSpec, work: ComparisonWork) -> None:
    if not any(spec.keep_of(arm) is Keep.judged for arm in spec.arms):
        raise InvalidInput("judge: got one that nobody asks, allowed with keep 'judged' of an arm or of select")
    if judge.keep is Keep.verified and not Measures.of(spec.scorers).has_steps:
        raise InvalidInput("judge.keep: 'verified' needs 'steps' among the scorers")
    check_chat_template("judge.prompt", judge.prompt, [work.model(judge.model)])
    check_sampling("judge.sampling", judge.sampling, [work.model(judge.model)])


def _as_job(spec: ComparisonSpec, arm: ArmSpec) -> JobSpec:
    """A job like those that the arm will submit, as far as strategies and scorers look at it."""
    return JobSpec(
        name=arm.name,
        problems=spec.problems[Split.train],
        models=arm.models,
        budget=Budget(currency=Currency.samples, limit=1),
        allocation=arm.allocation,
        scorers=spec.scorers,
    )


def comparison_document(spec: ComparisonSpec) -> dict[str, Any]:
    """The resolved document of a comparison: submitting it again asks for the same."""
    training = dataclasses.asdict(spec.training) | {"method": spec.training.method.value}
    return {
        "name": spec.name,
        "problems": {split.value: name for split, name in spec.problems.items()},
        "match": {
            "by": spec.match.value,
            "reference": spec.reference,
            "samples_per_problem": list(spec.budgets),
            **({} if spec.lengths is None else dataclasses.asdict(spec.lengths)),
        },
        "arms": [
            {
                "name": arm.name,
                "models": list(arm.models),
                "allocation": allocation_document(arm.allocation),
                "sampling": None if arm.sampling is None else sampling_document(arm.sampling),
                "keep": None if arm.keep is None else arm.keep.value,
                "match": None if arm.match is None else arm.match.value,
                "rounds": arm.rounds,
                "warm_start": arm.warm_start,
            }
            for arm in spec.arms
        ],
        "students": [{"name": student.name, "base": student.base} for student in spec.students],
        "select": {
            "keep": spec.selection.keep.value,
            "duplicates": spec.selection.duplicates.value,
            "per_problem": spec.selection.per_problem,
            "rows": spec.selection.rows,
            "ngram": spec.selection.ngram,
        },
        "finetune": {
            "training": training,
            "seeds": len(spec.seeds),
            "learning_rates": list(spec.learning_rates),
        },
        "evaluate": evaluate_document(spec.evaluate),
        "prompt": prompt_document(spec.prompt),
        "sampling": sampling_document(spec.sampling),
        "scorers": list(spec.scorers),
        "seed": spec.seed,
        "max_problems": spec.max_problems,
        "judge": None if spec.judge is None else judge_document(spec.judge),
    }
