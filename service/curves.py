"""Quality against compute: the curves that compare models, from scored samples.

Invariant: a curve says what it is. `expected_curve` is what k samples per problem would give on average, an unbiased
estimate for the part of a job that was sampled evenly; `realised_curve` is what a job had at each moment, the only
curve an adaptive job has. Needs numpy.
"""

from dataclasses import dataclass

import numpy as np

from service.estimators import (
    Counting,
    Floats,
    Ints,
    SameSolution,
    ScoredSamples,
    counted,
    pass_at_k,
    per_problem,
    unique_solutions,
)
from service.stats import Estimate, NotEstimable, bootstrap_ratios

MAX_POINTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPoint:
    """What k samples per problem give on average, and cost.

    Attributes:
        k: samples per problem.
        flops_per_problem: mean FLOPs of k samples of a problem.
        coverage: share of problems solved.
        verified_coverage: the same, counting only right reasoning.
        diversity: distinct right solutions per problem (exact text).
        verified_diversity: the same, counting only right reasoning.
    """

    k: int
    flops_per_problem: float
    coverage: Estimate | NotEstimable
    verified_coverage: Estimate | NotEstimable
    diversity: Estimate | NotEstimable
    verified_diversity: Estimate | NotEstimable


@dataclass(frozen=True, slots=True, kw_only=True)
class RealisedPoint:
    """What a job had when its first `num_samples` samples were committed; shares and means are over all problems."""

    num_samples: int
    flops_per_problem: float
    coverage: float
    verified_coverage: float
    unique_solutions_per_problem: float
    verified_unique_solutions_per_problem: float


def curve_ks(depth: int) -> tuple[int, ...]:
    """Values of k from 1 to `depth`: all of them, or MAX_POINTS at even ratios."""
    if depth <= MAX_POINTS:
        return tuple(range(1, depth + 1))
    return tuple(int(k) for k in np.unique(np.round(np.geomspace(1, depth, MAX_POINTS))))


def even_depth(samples: ScoredSamples) -> int:
    """The largest k for which every sampled problem has k samples; 0 if nothing was sampled."""
    n = per_problem(samples)
    return int(n[n > 0].min()) if len(samples.problem) else 0


def expected_curve(samples: ScoredSamples, *, resamples: int, seed: int) -> tuple[ExpectedPoint, ...]:
    """Coverage and diversity against mean FLOPs, for k = 1 up to the depth every sampled problem reaches."""
    ks = curve_ks(even_depth(samples))
    if not ks:
        return ()
    n = per_problem(samples).astype(np.int64)
    is_sampled = n > 0
    flops_per_sample = per_problem(samples, samples.flops)[is_sampled] / n[is_sampled]
    columns: list[Floats] = []
    for counting in (Counting.ANSWER, Counting.VERIFIED):
        right = per_problem(samples, counted(samples, counting)).astype(np.int64)
        columns += [pass_at_k(n, right, k) for k in ks]
        unique = unique_solutions(samples, SameSolution.EXACT, counting)
        columns += [unique.at_k(n, k) for k in ks]
    values = np.nan_to_num(np.stack(columns, axis=1))
    defined = np.repeat(is_sampled.astype(float)[:, None], values.shape[1], axis=1)
    estimates = bootstrap_ratios(values, defined, resamples=resamples, seed=seed)
    coverage, diversity, verified, verified_diversity = (estimates[i * len(ks) : (i + 1) * len(ks)] for i in range(4))
    return tuple(
        ExpectedPoint(
            k=k,
            flops_per_problem=k * float(flops_per_sample.mean()),
            coverage=coverage[i],
            verified_coverage=verified[i],
            diversity=diversity[i],
            verified_diversity=verified_diversity[i],
        )
        for i, k in enumerate(ks)
    )


def realised_curve(
    samples: ScoredSamples, order: Ints | None = None, *, num_points: int = MAX_POINTS
) -> tuple[RealisedPoint, ...]:
    """The state of a job after every `1/num_points` of its samples.

    Args:
        samples: all samples of the job.
        order: [N] position of each row in the order of commitment; the order of the rows by default.
        num_points: at most so many points, the last one at the end.
    """
    num_samples = len(samples.problem)
    if num_samples == 0:
        return ()
    if order is not None:
        samples = samples.rows(np.argsort(order, kind="stable"))
    ends = np.unique(np.round(np.linspace(0, num_samples, num_points + 1)[1:]).astype(np.int64))
    ends = ends[ends > 0]

    def reached(first_rows: Ints) -> Floats:
        return np.searchsorted(np.sort(first_rows), ends, side="left") / samples.num_problems

    flops = np.cumsum(samples.flops)[ends - 1] / samples.num_problems
    columns: list[Floats] = []
    for counting in (Counting.ANSWER, Counting.VERIFIED):
        rows = np.flatnonzero(counted(samples, counting))
        first_of_problem = rows[np.unique(samples.problem[rows], return_index=True)[1]]
        columns.append(reached(first_of_problem))
        columns.append(reached(unique_solutions(samples, SameSolution.EXACT, counting).first_row))
    return tuple(
        RealisedPoint(
            num_samples=int(end),
            flops_per_problem=float(flops[i]),
            coverage=float(columns[0][i]),
            verified_coverage=float(columns[2][i]),
            unique_solutions_per_problem=float(columns[1][i]),
            verified_unique_solutions_per_problem=float(columns[3][i]),
        )
        for i, end in enumerate(ends)
    )
