"""What a compute-matched comparison measures: arms on the same problems, paired by problem.

The figures of an arm are *realised*: with everything its budget bought, each problem is solved or not. For an arm with
k samples on every problem that is pass@k; arms matched on FLOPs differ in k, which is the point. Differences are
paired bootstraps over problems, the first arm is the reference.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.curves import even_depth, expected_curve
from service.errors import InvalidInput
from service.estimators import (
    STEPS_INVALID,
    STEPS_UNKNOWN,
    Counting,
    SameSolution,
    ScoredSamples,
    counted,
    coverage_per_problem,
    diversity_per_problem,
    per_problem,
    unique_solutions,
)
from service.figures import Curve, CurvePoint
from service.report import Form, Matched, Measured, MetricLine
from service.stats import Estimate, bootstrap_ratios, paired_ratio_difference

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
        _means(
            "coverage",
            "pass@k (coverage)",
            "Share of problems that at least one sample solves.",
            [_solved(arm, Counting.ANSWER) for arm in arms],
        ),
        _means(
            "verified_coverage",
            "verified coverage",
            "Coverage that counts only samples whose reasoning is right too.",
            [_solved(arm, Counting.VERIFIED) for arm in arms],
        ),
        _numbers(
            "unique_correct",
            "unique correct",
            "Different right solutions per problem, by exact text.",
            [_unique(arm, Counting.ANSWER) for arm in arms],
        ),
        _numbers(
            "verified_unique_correct",
            "verified unique correct",
            "Different right solutions per problem whose reasoning is right too.",
            [_unique(arm, Counting.VERIFIED) for arm in arms],
        ),
        _false_positive_rates(arms),
        _false_positives_per_problem(arms),
    ]
    return _estimated(lines, seed=seed, resamples=resamples)


def same_number_lines(
    arms: Sequence[ScoredSamples], *, seed: int, resamples: int = RESAMPLES
) -> tuple[MetricLine, ...]:
    """The same arms at equal numbers of samples: expected coverage and diversity of k samples a problem.

    k is what the arm with the fewest samples has of every problem, and what k of more samples would give is unbiased.
    Only for arms whose samples of a problem are exchangeable. Empty where numbers are equal anyway, or k is 0.
    """
    depths = [even_depth(arm) for arm in arms]
    k = min(depths, default=0)
    if k == 0 or max(depths) == k:
        return ()
    lines = [
        _means(
            "coverage_at_k",
            f"pass@{k}",
            f"Share of problems that {k} samples solve, whatever they cost.",
            [coverage_per_problem(arm, k) for arm in arms],
        ),
        _means(
            "verified_coverage_at_k",
            f"verified pass@{k}",
            f"Share of problems that {k} samples solve with right reasoning, whatever they cost.",
            [coverage_per_problem(arm, k, Counting.VERIFIED) for arm in arms],
        ),
        _numbers(
            "unique_correct_at_k",
            f"unique correct of {k}",
            f"Different right solutions among {k} samples of a problem, by exact text.",
            [diversity_per_problem(arm, k) for arm in arms],
        ),
    ]
    found = _estimated(lines, seed=seed, resamples=resamples)
    return tuple(dataclasses.replace(line, matched=Matched.number) for line in found)


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


_Ratio = tuple[Floats, Floats]
"""Numerator and denominator by problem, of a mean or rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line before its estimates: a ratio of sums over problems for each arm.

    Args:
        differences: ratios to the first arm; None where each is a difference of two ratios.
    """

    key: str
    label: str
    explanation: str
    form: Form
    is_relative: bool
    values: list[_Ratio]
    differences: list[_Ratio] | None


def _estimated(lines: Sequence[_Line], *, seed: int, resamples: int) -> tuple[MetricLine, ...]:
    """All lines from one set of resamples: with 10^5 problems, drawing them is what takes the time."""
    ratios = [ratio for line in lines for ratio in (*line.values, *(line.differences or ()))]
    numerators, denominators = (np.stack(columns, axis=1) for columns in zip(*ratios, strict=True))
    found: Iterator[Measured] = iter(bootstrap_ratios(numerators, denominators, resamples=resamples, seed=seed))

    def made(line: _Line) -> MetricLine:
        values = tuple(next(found) for _ in line.values)
        if line.differences is not None:
            differences = tuple(next(found) for _ in line.differences)
        else:
            differences = tuple(
                paired_ratio_difference(value, line.values[0], resamples=resamples, seed=seed)
                for value in line.values[1:]
            )
        return MetricLine(
            key=line.key,
            label=line.label,
            explanation=line.explanation,
            form=line.form,
            values=values,
            differences=differences,
            is_relative=line.is_relative,
        )

    return tuple(made(line) for line in lines)


def _mean(values: Floats) -> _Ratio:
    """The mean of values by problem; NaN marks a problem without one."""
    is_defined = ~np.isnan(values)
    return np.where(is_defined, values, 0.0), is_defined.astype(np.float64)


def _means(key: str, label: str, explanation: str, values: list[Floats], form: Form = Form.share) -> _Line:
    return _Line(
        key=key,
        label=label,
        explanation=explanation,
        form=form,
        is_relative=False,
        values=[_mean(value) for value in values],
        differences=[_mean(value - values[0]) for value in values[1:]],
    )


def _numbers(key: str, label: str, explanation: str, values: list[Floats]) -> _Line:
    def relative(value: Floats) -> _Ratio:
        is_defined = ~np.isnan(value - values[0])
        return np.where(is_defined, value - values[0], 0.0), np.where(is_defined, values[0], 0.0)

    return _Line(
        key=key,
        label=label,
        explanation=explanation,
        form=Form.number,
        is_relative=True,
        values=[_mean(value) for value in values],
        differences=[relative(value) for value in values[1:]],
    )


def _false_positive_rates(arms: Sequence[ScoredSamples]) -> _Line:
    return _Line(
        key="false_positive_rate",
        label="false positives",
        explanation="Share of right answers whose reasoning is wrong, among those that were judged.",
        form=Form.rate,
        is_relative=False,
        values=[_false_positives(arm) for arm in arms],
        differences=None,
    )


def _false_positives_per_problem(arms: Sequence[ScoredSamples]) -> _Line:
    """Pooled, problems with many right answers weigh most, and those are easy ones; here every problem weighs one."""
    values: list[Floats] = []
    for arm in arms:
        wrong, judged = _false_positives(arm)
        values.append(np.divide(wrong, judged, out=np.full(len(judged), np.nan), where=judged > 0))
    return _means(
        "false_positive_rate_per_problem",
        "false positives, mean over problems",
        "That share within each problem that has a judged right answer, averaged over these problems.",
        values,
        Form.rate,
    )


def _solved(samples: ScoredSamples, counting: Counting) -> Floats:
    return (per_problem(samples, counted(samples, counting)) > 0).astype(np.float64)


def _unique(samples: ScoredSamples, counting: Counting) -> Floats:
    return unique_solutions(samples, SameSolution.EXACT, counting).per_problem(samples.num_problems)


def _false_positives(samples: ScoredSamples) -> tuple[Floats, Floats]:
    judged = samples.correct & (samples.steps != STEPS_UNKNOWN)
    return per_problem(samples, judged & (samples.steps == STEPS_INVALID)), per_problem(samples, judged)
