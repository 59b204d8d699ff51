"""The documents of a comparison's nodes: draws, selections, finetunes and evaluations, each from names and results.

Pure. What a node asks for follows from the comparison and from results of earlier nodes alone, so that the same
comparison asks for the same nodes again. Which of them are due is for `graph`.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.currency import Budget, Currency, to_amount
from service.errors import InvalidInput
from service.experiments.spec import (
    ArmSpec,
    ComparisonSpec,
    ComparisonWork,
    EvaluationSpec,
    MatchBy,
    ResolvedSet,
    Split,
)
from service.finetunes import FinetuneSpec
from service.flops import paper_flops, sample_flops
from service.jobs import Desired, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.selection.spec import SelectionSource, SelectionSpec
from service.work import FinetuneWork, SelectSource, SelectWork

NodeSpec = JobSpec | SelectionSpec | FinetuneSpec
NodeWork = Resolved | SelectWork | FinetuneWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Something to submit."""

    key: str
    spec: NodeSpec
    work: NodeWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A node that was submitted, and what is known of it.

    Args:
        is_shared: another comparison that goes on needs it as well.
        useful_flops: exact accounting, of a job or a finetune.
        num_samples: committed rows of a job.
        num_correct: those whose answer is right.
        checkpoints: of a finetune, by step.
        dataset: path and sha256 of a selection's training set.
        num_rows: of that set.
    """

    id: str
    phase: Phase
    desired: Desired = Desired.run
    is_shared: bool = False
    useful_flops: float = 0.0
    useful_flops_paper: float = 0.0
    useful_nano_usd: float = 0.0
    num_samples: int = 0
    num_correct: int = 0
    checkpoints: tuple[ModelSpec, ...] = ()
    dataset: tuple[str, str] | None = None
    num_rows: int = 0

    @property
    def is_done(self) -> bool:
        """Whether its results are there."""
        return self.phase.is_done

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.num_correct / self.num_samples if self.num_samples else 0.0


def budget_of(
    spec: ComparisonSpec, work: ComparisonWork, arm: ArmSpec, num_samples: int, reference: Child | None
) -> Budget | None:
    """What an arm may spend in all its rounds; None while it needs the reference arm's cost and that is not known.

    Args:
        num_samples: samples a problem of the reference arm.
        reference: the reference arm's draw.

    Raises:
        InvalidInput: the reference's amount is unknown, nothing, or too little for the arm's rounds; or the arm is
            free in what it is matched by.
    """
    by = arm.match or spec.match
    drawn = num_samples * num_train_problems(spec, work)
    if arm.name == spec.reference or by is MatchBy.number:
        return Budget(currency=Currency.samples, limit=drawn)
    if by.is_nominal:
        ratio = nominal_ratio(spec, work, arm, by)
        return Budget(currency=Currency.samples, limit=max(1, round(drawn * ratio)))
    if by is MatchBy.usd and arm.allocation.max_samples is None:
        _check_not_free(work, arm)
    if reference is None or not reference.is_done:
        return None
    currency, useful = {
        MatchBy.usd: (Currency.usd, reference.useful_nano_usd),
        MatchBy.flops: (Currency.flops, reference.useful_flops),
        MatchBy.flops_paper: (Currency.flops_paper, reference.useful_flops_paper),
    }[by]
    if not useful > 0:  # or NaN, which compares as nothing does
        got = "an amount that cannot be told" if math.isnan(useful) else "nothing"
        raise InvalidInput(
            f"arms.{arm.name}: {reference.id} of the reference {spec.reference} usefully spent {got} in {by.value}, "
            "so nothing can be matched to it; allowed: another match, or a reference that costs something in it"
        )
    limit = to_amount(currency, useful)
    if limit < arm.rounds:
        raise InvalidInput(
            f"arms.{arm.name}: {reference.id} of the reference {spec.reference} usefully spent {useful:.4g} in "
            f"{by.value}, which is nothing for each of {arm.rounds} rounds; allowed: fewer rounds, or a larger budget"
        )
    return Budget(currency=currency, limit=limit)


def _check_not_free(work: ComparisonWork, arm: ArmSpec) -> None:
    """No amount of USD would ever end what such an arm draws."""
    prices = {name: work.model(name).price for name in arm.models}
    if free := [name for name, price in prices.items() if price is not None and price.is_free]:
        raise InvalidInput(
            f"arms.{arm.name}: got match by usd with {', '.join(free)}, which is free, so that its draw would never "
            "end; allowed: another match, or allocation.max_samples"
        )


def nominal_ratio(spec: ComparisonSpec, work: ComparisonWork, arm: ArmSpec, by: MatchBy) -> float:
    """Samples of the arm for one of the reference arm, at the lengths that the document states.

    Several models of an arm draw equally many.
    """
    assert spec.lengths is not None, "checked when the document is resolved"
    lengths = spec.lengths

    def cost_of(names: Sequence[str]) -> float:
        costs = [work.model(name).cost for name in names]
        if by is MatchBy.nominal_paper:
            flops = [paper_flops(cost, lengths.completion_tokens) for cost in costs]
        else:
            flops = [
                sample_flops(
                    cost,
                    prompt_tokens=lengths.prompt_tokens,
                    cached_tokens=0,
                    completion_tokens=lengths.completion_tokens,
                )
                for cost in costs
            ]
        return sum(flops) / len(flops)

    reference = next(other for other in spec.arms if other.name == spec.reference)
    return cost_of(reference.models) / cost_of(arm.models)


def share_of_round(whole: int, rounds: int, round_: int) -> int:
    """What of a whole number falls to a round, from 1: shares differ by one at most and add up to the whole.

    Nothing falls to some where the whole is less than the rounds; whoever asks sees to that.
    """
    return whole * round_ // rounds - whole * (round_ - 1) // rounds


def draw_node(
    spec: ComparisonSpec,
    work: ComparisonWork,
    key: str,
    arm: ArmSpec,
    *,
    models: Sequence[ModelSpec],
    budget: Budget,
    title: str,
    round_: int = 1,
    history: Sequence[str] = (),
) -> Node:
    """A job that draws training data.

    Args:
        budget: of all rounds.
        history: ids of the jobs of earlier rounds.
    """
    num_problems = num_train_problems(spec, work)
    allocation = arm.allocation
    if allocation.strategy == "adastar":
        allocation = dataclasses.replace(allocation, history=tuple(history))
    job = JobSpec(
        name=title[:200],
        problems=spec.problems[Split.train],
        models=tuple(model.name for model in models),
        budget=dataclasses.replace(budget, limit=share_of_round(budget.limit, arm.rounds, round_)),
        allocation=allocation,
        prompt=spec.prompt,
        sampling=arm.sampling or spec.sampling,
        scorers=spec.scorers,
        # a round that draws a part of the problems draws another part than the one before; AdaSTaR's keys say which,
        # and of equal keys the same one comes first in every round
        seed=spec.seed if allocation.strategy == "adastar" else spec.seed + round_ - 1,
        max_problems=spec.max_problems,
    )
    return Node(key=key, spec=job, work=resolved(work.sets[Split.train], models, num_problems))


def select_node(
    spec: ComparisonSpec,
    work: ComparisonWork,
    key: str,
    arm: ArmSpec,
    *,
    drawn: Child,
    manifest_path: str,
    judges: Sequence[SelectSource] = (),
) -> Node:
    """From what a job has drawn to a training set.

    Args:
        judges: the jobs that judged the samples, of an arm that keeps what is judged right.
    """
    held_out = [work.sets[split] for split in Split if split is not Split.train and split in work.sets]
    selection = SelectionSpec(
        name=f"{key.partition('/')[2]} of {drawn.id}"[:200],
        sources=(SelectionSource(job=drawn.id),),
        keep=spec.keep_of(arm),
        duplicates=spec.selection.duplicates,
        per_problem=spec.selection.per_problem,
        rows=spec.selection.rows,
        held_out=tuple(item.name for item in held_out),
        ngram=spec.selection.ngram,
        seed=spec.seed,
        judges=tuple(judge.job_id for judge in judges),
    )
    source = SelectSource(job_id=drawn.id, manifest_path=manifest_path, problems_path=work.sets[Split.train].path)
    paths = tuple(item.path for item in held_out)
    selecting = SelectWork(spec=selection, sources=(source,), held_out=paths, judges=tuple(judges))
    return Node(key=key, spec=selection, work=selecting)


def train_node(
    spec: ComparisonSpec,
    key: str,
    *,
    base: ModelSpec,
    selected: Child,
    seed: int,
    rate: float,
    rounds: int = 1,
    round_: int = 1,
) -> Node:
    """A finetune of `base` on a training set; rounds share the steps, so that every arm takes equally many."""
    assert selected.dataset is not None, "trained on what is selected"
    path, sha256 = selected.dataset
    steps = share_of_round(spec.training.steps, rounds, round_)
    training = dataclasses.replace(spec.training, seed=seed, learning_rate=rate, steps=steps)
    finetune = FinetuneSpec(name=key.partition("/")[2][:200], base=base.name, dataset=selected.id, training=training)
    work = FinetuneWork(base=base, dataset_path=path, dataset_sha256=sha256, training=training)
    return Node(key=key, spec=finetune, work=work)


def tests_of(spec: ComparisonSpec) -> list[tuple[str, Split, int]]:
    """What a finished student is measured by: name, problems, samples of each."""
    tests = [("greedy", Split.test, 1), *((what, Split.test, number) for what, number in votes_of(spec))]
    if Split.transfer in spec.problems:
        tests.append(("transfer", Split.transfer, 1))
    return tests


def votes_of(spec: ComparisonSpec | EvaluationSpec) -> list[tuple[str, int]]:
    """The job whose samples vote, if a vote is asked for: name and samples a problem."""
    return [("majority", max(spec.evaluate.maj_at))] if spec.evaluate.maj_at else []


def evaluation_node(
    spec: ComparisonSpec | EvaluationSpec,
    key: str,
    model: ModelSpec,
    problems: ResolvedSet,
    num_samples: int,
    max_problems: int | None = None,
) -> Node:
    """A job that measures a model: one greedy completion a problem, or several that vote."""
    votes = key.partition("/")[0] == "majority"
    sampling = dataclasses.replace(spec.sampling, temperature=spec.evaluate.temperature if votes else 0.0)
    num_problems = min(problems.num_problems, max_problems or problems.num_problems)
    job = JobSpec(
        name=f"{key.partition('/')[0]} of {model.name} on {problems.name}"[:200],
        problems=problems.name,
        models=(model.name,),
        budget=Budget(currency=Currency.samples, limit=num_samples * num_problems),
        prompt=spec.prompt,
        sampling=sampling,
        scorers=spec.scorers,
        seed=spec.seed,
        max_problems=max_problems,
        stage="evaluate",
    )
    return Node(key=key, spec=job, work=resolved(problems, (model,), num_problems))


def num_train_problems(spec: ComparisonSpec, work: ComparisonWork) -> int:
    """Problems that arms draw from."""
    known = work.sets[Split.train].num_problems
    return min(known, spec.max_problems or known)


def resolved(problems: ResolvedSet, models: Sequence[ModelSpec], num_problems: int) -> Resolved:
    """What the names of a job stand for."""
    return Resolved(
        models=tuple(models),
        problems_path=problems.path,
        num_problems=num_problems,
        problems_fingerprint=problems.fingerprint,
    )
