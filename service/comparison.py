"""What a compute-matched comparison measures: arms on the same problems, paired by problem.

The figures of an arm are *realised*: with everything its budget bought, each problem is solved or not. For an arm with
k samples on every problem that is pass@k; arms matched on FLOPs differ in k, which is the point. Differences are
paired bootstraps over problems, the first arm is the reference.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.curves import expected_curve
from service.errors import InvalidInput
from service.estimators import (
    STEPS_INVALID,
    STEPS_UNKNOWN,
    Counting,
    SameSolution,
    ScoredSamples,
    counted,
    per_problem,
    unique_solutions,
)
from service.figures import Curve, CurvePoint
from service.report import Form, Measured, MetricLine
from service.stats import Estimate, bootstrap_mean, bootstrap_ratio, paired_difference, paired_ratio_difference

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000


def metric_lines(arms: Sequence[ScoredSamples], *, seed: int, resamples: int = RESAMPLES) -> tuple[MetricLine, ...]:
    """Coverage, verified coverage, unique correct solutions and false positives of every arm, with differences.

    Raises:
        InvalidInput: arms over different numbers of problems.
    """
    if len({arm.num_problems for arm in arms}) != 1:
        raise InvalidInput(f"arms over {[arm.num_problems for arm in arms]} problems cannot be paired")
    lines = [
        _mean_line(
            "coverage",
            "pass@k (coverage)",
            "Share of problems that at least one sample solves.",
            [_solved(arm, Counting.ANSWER) for arm in arms],
            seed=seed,
            resamples=resamples,
        ),
        _mean_line(
            "verified_coverage",
            "verified coverage",
            "Coverage that counts only samples whose reasoning is right too.",
            [_solved(arm, Counting.VERIFIED) for arm in arms],
            seed=seed,
            resamples=resamples,
        ),
        _number_line(
            "unique_correct",
            "unique correct",
            "Different right solutions per problem, by exact text.",
            [_unique(arm, Counting.ANSWER) for arm in arms],
            seed=seed,
            resamples=resamples,
        ),
        _number_line(
            "verified_unique_correct",
            "verified unique correct",
            "Different right solutions per problem whose reasoning is right too.",
            [_unique(arm, Counting.VERIFIED) for arm in arms],
            seed=seed,
            resamples=resamples,
        ),
        _false_positive_line(arms, seed=seed, resamples=resamples),
        _false_positives_per_problem_line(arms, seed=seed, resamples=resamples),
    ]
    return tuple(lines)


def coverage_curves(
    name: str, model: str, samples: ScoredSamples, *, seed: int, resamples: int = RESAMPLES
) -> dict[str, Curve]:
    """One arm's lines of the coverage, verified coverage and diversity figures, by those names."""
    points = expected_curve(samples, resamples=resamples, seed=seed)
    return {
        metric: _curve(name, model, [(p.k, p.flops_per_problem, getattr(p, metric)) for p in points])
        for metric in ("coverage", "verified_coverage", "diversity")
    }


def _curve(name: str, model: str, points: Sequence[tuple[int, float, Measured]]) -> Curve:
    return Curve(
        name=name,
        model=model,
        points=tuple(
            CurvePoint(flops=flops, value=value.value, low=value.low, high=value.high, k=k, num_problems=value.n)
            for k, flops, value in points
            if isinstance(value, Estimate)
        ),
    )


def _mean_line(
    key: str, label: str, explanation: str, values: list[Floats], *, seed: int, resamples: int
) -> MetricLine:
    return MetricLine(
        key=key,
        label=label,
        explanation=explanation,
        form=Form.share,
        values=tuple(bootstrap_mean(value, resamples=resamples, seed=seed) for value in values),
        differences=tuple(paired_difference(v, values[0], resamples=resamples, seed=seed) for v in values[1:]),
        is_relative=False,
    )


def _number_line(
    key: str, label: str, explanation: str, values: list[Floats], *, seed: int, resamples: int
) -> MetricLine:
    reference = values[0]
    return MetricLine(
        key=key,
        label=label,
        explanation=explanation,
        form=Form.number,
        values=tuple(bootstrap_mean(value, resamples=resamples, seed=seed) for value in values),
        differences=tuple(
            bootstrap_ratio(value - reference, reference, resamples=resamples, seed=seed) for value in values[1:]
        ),
        is_relative=True,
    )


def _false_positive_line(arms: Sequence[ScoredSamples], *, seed: int, resamples: int) -> MetricLine:
    ratios = [_false_positives(arm) for arm in arms]
    return MetricLine(
        key="false_positive_rate",
        label="false positives",
        explanation="Share of right answers whose reasoning is wrong, among those that were judged.",
        form=Form.rate,
        values=tuple(bootstrap_ratio(*ratio, resamples=resamples, seed=seed) for ratio in ratios),
        differences=tuple(
            paired_ratio_difference(ratio, ratios[0], resamples=resamples, seed=seed) for ratio in ratios[1:]
        ),
        is_relative=False,
    )


def _false_positives_per_problem_line(arms: Sequence[ScoredSamples], *, seed: int, resamples: int) -> MetricLine:
    """Pooled, problems with many right answers weigh most, and those are easy ones; here every problem weighs one."""
    values: list[Floats] = []
    for arm in arms:
        wrong, judged = _false_positives(arm)
        values.append(np.divide(wrong, judged, out=np.full(len(judged), np.nan), where=judged > 0))
    return MetricLine(
        key="false_positive_rate_per_problem",
        label="false positives, mean over problems",
        explanation="That share within each problem that has a judged right answer, averaged over these problems.",
        form=Form.rate,
        values=tuple(bootstrap_mean(value, resamples=resamples, seed=seed) for value in values),
        differences=tuple(paired_difference(v, values[0], resamples=resamples, seed=seed) for v in values[1:]),
        is_relative=False,
    )


def _solved(samples: ScoredSamples, counting: Counting) -> Floats:
    return (per_problem(samples, counted(samples, counting)) > 0).astype(np.float64)


def _unique(samples: ScoredSamples, counting: Counting) -> Floats:
    return unique_solutions(samples, SameSolution.EXACT, counting).per_problem(samples.num_problems)


def _false_positives(samples: ScoredSamples) -> tuple[Floats, Floats]:
    judged = samples.correct & (samples.steps != STEPS_UNKNOWN)
    return per_problem(samples, judged & (samples.steps == STEPS_INVALID)), per_problem(samples, judged)
