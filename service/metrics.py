"""Metrics of a set of scored samples: coverage, diversity, false positives, each with its interval.

Invariant: every estimate says on how many problems it rests; what cannot be told is NotEstimable, not a number. Metrics
that need the samples of a problem to be exchangeable (the `@k` ones) are apart from those of what a job realised.
Needs numpy; the formulas are in estimators, the intervals in stats, the curves in curves.
"""

from dataclasses import dataclass

import numpy as np

from service.curves import ExpectedPoint, RealisedPoint, expected_curve, realised_curve
from service.estimators import (
    STEPS_INVALID,
    STEPS_UNKNOWN,
    Bools,
    Counting,
    Floats,
    SameSolution,
    ScoredSamples,
    counted,
    coverage_per_problem,
    diversity_per_problem,
    pass_at_k,
    per_problem,
    unique_solutions,
)
from service.stats import Estimate, NotEstimable, bootstrap_ratios

__all__ = [
    "AtK",
    "Counting",
    "LevelSummary",
    "MetricsSummary",
    "SameSolution",
    "ScoredSamples",
    "coverage",
    "coverage_per_problem",
    "diversity_at_k",
    "diversity_per_problem",
    "expected_curve",
    "false_positive_rate",
    "judged_share",
    "pass_at_k",
    "realised_coverage",
    "realised_curve",
    "summarise",
]

DEFAULT_RESAMPLES = 1000

Measured = Estimate | NotEstimable


@dataclass(frozen=True, slots=True, kw_only=True)
class AtK:
    """A metric at k samples per problem; problems with fewer than k samples are left out and counted."""

    k: int
    estimate: Measured
    undefined_problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSummary:
    """Metrics of the problems of one difficulty level."""

    level: int
    num_problems: int
    coverage: tuple[AtK, ...]
    verified_coverage: tuple[AtK, ...]
    realised_coverage: Measured
    false_positive_rate: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSummary:
    """Everything a job or arm is judged by; `dataclasses.asdict` of it is JSON.

    `verified_coverage` counts unjudged reasoning as invalid, `not_refuted_coverage` as valid: the truth lies between.
    `false_positive_rate` is among right answers whose reasoning was judged, `judged_share` says how many those are. The
    `@k` metrics and `curve` use the first `even_samples` samples per problem where an adaptive job gave that number,
    and all samples otherwise; the `realised_` ones always use all.
    """

    num_problems: int
    sampled_problems: int
    num_samples: int
    num_correct: int | NotEstimable
    num_verified: int | NotEstimable
    total_flops: float
    even_samples: int | None
    truncated_share: Measured
    flops_per_problem: Measured
    flops_per_correct: Measured
    flops_per_unique_correct: Measured
    flops_per_verified_unique_correct: Measured
    false_positive_rate: Measured
    judged_share: Measured
    coverage: tuple[AtK, ...]
    verified_coverage: tuple[AtK, ...]
    not_refuted_coverage: tuple[AtK, ...]
    diversity_exact: tuple[AtK, ...]
    diversity_equations: tuple[AtK, ...]
    verified_diversity_exact: tuple[AtK, ...]
    verified_diversity_equations: tuple[AtK, ...]
    realised_coverage: Measured
    realised_verified_coverage: Measured
    realised_unique_exact: Measured
    realised_unique_equations: Measured
    realised_verified_unique_exact: Measured
    by_level: tuple[LevelSummary, ...]
    curve: tuple[ExpectedPoint, ...]
    realised_curve: tuple[RealisedPoint, ...]


class _Batch:
    """Collects numerators and denominators per problem, so that one bootstrap serves all metrics of a summary."""

    def __init__(self, num_problems: int) -> None:
        self._ones = np.ones(num_problems)
        self._columns: dict[str, tuple[Floats, Floats]] = {}

    def ratio(self, name: str, numerator: Floats, denominator: Floats) -> None:
        """A ratio of sums over problems."""
        self._columns[name] = (numerator, denominator)

    def mean(self, name: str, values: Floats, chosen: Bools | None = None) -> None:
        """A mean over the chosen problems (all by default) where the value is not NaN."""
        is_defined = ~np.isnan(values) if chosen is None else ~np.isnan(values) & chosen
        self.ratio(name, np.where(is_defined, values, 0.0), is_defined * self._ones)

    def estimates(self, *, resamples: int, seed: int) -> dict[str, Measured]:
        """The estimate of each metric by name."""
        numerators, denominators = (np.stack(column, axis=1) for column in zip(*self._columns.values(), strict=True))
        found = bootstrap_ratios(numerators, denominators, resamples=resamples, seed=seed)
        return dict(zip(self._columns, found, strict=True))


def coverage(
    samples: ScoredSamples,
    ks: tuple[int, ...],
    verified: bool = False,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> tuple[AtK, ...]:
    """coverage@k: mean over problems of the probability that k of its samples hold a right one.

    Args:
        samples: the samples; those of a problem must be exchangeable.
        ks: numbers of samples per problem.
        verified: count only samples whose reasoning was found valid.
    """
    counting = Counting.VERIFIED if verified else Counting.ANSWER
    return _at_ks({k: coverage_per_problem(samples, k, counting) for k in ks}, resamples=resamples, seed=seed)


def diversity_at_k(
    samples: ScoredSamples,
    ks: tuple[int, ...],
    rule: SameSolution = SameSolution.EXACT,
    verified: bool = False,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> tuple[AtK, ...]:
    """diversity@k: mean over problems of the expected number of distinct right solutions among k samples."""
    counting = Counting.VERIFIED if verified else Counting.ANSWER
    values = {k: diversity_per_problem(samples, k, rule, counting) for k in ks}
    return _at_ks(values, resamples=resamples, seed=seed)


def false_positive_rate(samples: ScoredSamples, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0) -> Measured:
    """Share with wrong reasoning among right answers whose reasoning could be judged."""
    batch = _Batch(samples.num_problems)
    batch.ratio("rate", *_false_positives(samples))
    return batch.estimates(resamples=resamples, seed=seed)["rate"]


def judged_share(samples: ScoredSamples, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0) -> Measured:
    """Share of right answers whose reasoning could be judged."""
    batch = _Batch(samples.num_problems)
    batch.ratio("share", _false_positives(samples)[1], per_problem(samples, samples.correct))
    return batch.estimates(resamples=resamples, seed=seed)["share"]


def realised_coverage(
    samples: ScoredSamples, verified: bool = False, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> Measured:
    """Share of all problems with at least one right sample, however many samples each was given."""
    batch = _Batch(samples.num_problems)
    batch.mean("share", _is_solved(samples, Counting.VERIFIED if verified else Counting.ANSWER))
    return batch.estimates(resamples=resamples, seed=seed)["share"]


def summarise(
    samples: ScoredSamples, *, ks: tuple[int, ...], resamples: int, seed: int, even_samples: int | None = None
) -> MetricsSummary:
    """All metrics of one job or arm, with 95 % intervals from one bootstrap over problems.

    Args:
        samples: all scored samples, in the order of commitment.
        ks: numbers of samples per problem for the `@k` metrics.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.
        even_samples: for an adaptive job, the number of first samples per problem that it gave to every problem (its
            pilot); None if all samples were allocated without looking at results.
    """
    even = samples if even_samples is None else samples.rows(samples.sample_index < even_samples)
    at_k = _values_at_k(even, ks)
    levels = () if samples.level is None else tuple(int(level) for level in np.unique(samples.level))
    batch = _Batch(samples.num_problems)
    _add_realised(batch, samples)
    for (metric, k), values in at_k.items():
        batch.mean(f"{metric}@{k}", values)
        for level in levels if metric in ("coverage", "verified_coverage") else ():
            batch.mean(f"{metric}@{k}/{level}", values, samples.level == level)
    for level in levels:
        _add_level(batch, samples, level)
    found = batch.estimates(resamples=resamples, seed=seed)

    def series(metric: str, suffix: str = "", among: Bools | None = None) -> tuple[AtK, ...]:
        return tuple(
            AtK(
                k=k,
                estimate=found[f"{metric}@{k}{suffix}"],
                undefined_problems=_undefined(at_k[metric, k] if among is None else at_k[metric, k][among]),
            )
            for k in ks
        )

    return MetricsSummary(
        num_problems=samples.num_problems,
        sampled_problems=int(np.count_nonzero(per_problem(samples))),
        num_samples=len(samples.problem),
        num_correct=int(samples.correct.sum()),
        num_verified=int(counted(samples, Counting.VERIFIED).sum()),
        total_flops=float(samples.flops.sum()),
        even_samples=even_samples,
        truncated_share=found["truncated_share"],
        flops_per_problem=found["flops_per_problem"],
        flops_per_correct=found["flops_per_correct"],
        flops_per_unique_correct=found["flops_per_unique_correct"],
        flops_per_verified_unique_correct=found["flops_per_verified_unique_correct"],
        false_positive_rate=found["false_positive_rate"],
        judged_share=found["judged_share"],
        coverage=series("coverage"),
        verified_coverage=series("verified_coverage"),
        not_refuted_coverage=series("not_refuted_coverage"),
        diversity_exact=series("diversity_exact"),
        diversity_equations=series("diversity_equations"),
        verified_diversity_exact=series("verified_diversity_exact"),
        verified_diversity_equations=series("verified_diversity_equations"),
        realised_coverage=found["realised_coverage"],
        realised_verified_coverage=found["realised_verified_coverage"],
        realised_unique_exact=found["realised_unique_exact"],
        realised_unique_equations=found["realised_unique_equations"],
        realised_verified_unique_exact=found["realised_verified_unique_exact"],
        by_level=tuple(
            LevelSummary(
                level=level,
                num_problems=int(np.count_nonzero(samples.level == level)),
                coverage=series("coverage", f"/{level}", samples.level == level),
                verified_coverage=series("verified_coverage", f"/{level}", samples.level == level),
                realised_coverage=found[f"realised_coverage/{level}"],
                false_positive_rate=found[f"false_positive_rate/{level}"],
            )
            for level in levels
        ),
        curve=expected_curve(even, resamples=resamples, seed=seed),
        realised_curve=realised_curve(samples),
    )


def _values_at_k(samples: ScoredSamples, ks: tuple[int, ...]) -> dict[tuple[str, int], Floats]:
    """Per-problem values [num_problems] of every `@k` metric, by name and k."""
    n = per_problem(samples).astype(np.int64)
    values: dict[tuple[str, int], Floats] = {}
    for name, counting in (
        ("coverage", Counting.ANSWER),
        ("verified_coverage", Counting.VERIFIED),
        ("not_refuted_coverage", Counting.NOT_REFUTED),
    ):
        right = per_problem(samples, counted(samples, counting)).astype(np.int64)
        values |= {(name, k): pass_at_k(n, right, k) for k in ks}
    for prefix, counting in (("", Counting.ANSWER), ("verified_", Counting.VERIFIED)):
        for rule in SameSolution:
            unique = unique_solutions(samples, rule, counting)
            values |= {(f"{prefix}diversity_{rule.value}", k): unique.at_k(n, k) for k in ks}
    return values


def _add_realised(batch: _Batch, samples: ScoredSamples) -> None:
    """Metrics over all samples, whoever decided to draw them."""
    num_problems = samples.num_problems
    flops, right = per_problem(samples, samples.flops), per_problem(samples, samples.correct)
    unique = {
        (rule, counting): unique_solutions(samples, rule, counting).per_problem(num_problems)
        for rule in SameSolution
        for counting in (Counting.ANSWER, Counting.VERIFIED)
    }
    exact, exact_verified = unique[SameSolution.EXACT, Counting.ANSWER], unique[SameSolution.EXACT, Counting.VERIFIED]
    false_positives, judged = _false_positives(samples)
    batch.ratio("truncated_share", per_problem(samples, samples.truncated), per_problem(samples))
    batch.mean("flops_per_problem", flops)
    batch.ratio("flops_per_correct", flops, right)
    batch.ratio("flops_per_unique_correct", flops, exact)
    batch.ratio("flops_per_verified_unique_correct", flops, exact_verified)
    batch.ratio("false_positive_rate", false_positives, judged)
    batch.ratio("judged_share", judged, right)
    batch.mean("realised_coverage", _is_solved(samples, Counting.ANSWER))
    batch.mean("realised_verified_coverage", _is_solved(samples, Counting.VERIFIED))
    batch.mean("realised_unique_exact", exact)
    batch.mean("realised_unique_equations", unique[SameSolution.EQUATIONS, Counting.ANSWER])
    batch.mean("realised_verified_unique_exact", exact_verified)


def _add_level(batch: _Batch, samples: ScoredSamples, level: int) -> None:
    is_of_level = samples.level == level
    false_positives, judged = _false_positives(samples)
    batch.mean(f"realised_coverage/{level}", _is_solved(samples, Counting.ANSWER), is_of_level)
    batch.ratio(f"false_positive_rate/{level}", false_positives * is_of_level, judged * is_of_level)


def _false_positives(samples: ScoredSamples) -> tuple[Floats, Floats]:
    """Per problem: right answers with invalid reasoning, and right answers whose reasoning was judged."""
    judged = samples.correct & (samples.steps != STEPS_UNKNOWN)
    return per_problem(samples, judged & (samples.steps == STEPS_INVALID)), per_problem(samples, judged)


def _is_solved(samples: ScoredSamples, counting: Counting) -> Floats:
    return (per_problem(samples, counted(samples, counting)) > 0).astype(float)


def _undefined(values: Floats) -> int:
    return int(np.count_nonzero(np.isnan(values)))


def _at_ks(values: dict[int, Floats], *, resamples: int, seed: int) -> tuple[AtK, ...]:
    if not values:
        return ()
    batch = _Batch(len(next(iter(values.values()))))
    for k, column in values.items():
        batch.mean(str(k), column)
    found = batch.estimates(resamples=resamples, seed=seed)
    return tuple(
        AtK(k=k, estimate=found[str(k)], undefined_problems=_undefined(column)) for k, column in values.items()
    )
