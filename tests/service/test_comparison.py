"""What arms are compared by: everything their budgets bought, and as many samples of each."""

import numpy as np
import pytest

from service.comparison import metric_lines, same_number_lines
from service.errors import InvalidInput
from service.estimators import ScoredSamples, coverage_per_problem
from service.report import Matched, MetricLine
from service.stats import Estimate, bootstrap_mean, paired_difference


def samples(right: list[list[int]]) -> ScoredSamples:
    """One row a sample: 1 right with valid steps, 2 right with invalid steps, 0 wrong."""
    problem = np.repeat(np.arange(len(right), dtype=np.int32), [len(row) for row in right])
    kinds = np.array([kind for row in right for kind in row], dtype=np.int64)
    index = np.array([i for row in right for i in range(len(row))], dtype=np.int32)
    return ScoredSamples(
        problem=problem,
        sample_index=index,
        correct=kinds > 0,
        steps=np.select([kinds == 1, kinds == 2], [1, 0], -1).astype(np.int8),
        solution=index.astype(np.uint64),
        equations=index.astype(np.uint64),
        flops=np.ones(len(kinds)),
        truncated=np.zeros(len(kinds), dtype=np.bool_),
        num_problems=len(right),
        level=None,
    )


FEW = samples([[1, 0], [0, 0], [1, 1], [2, 0]])
MANY = samples([[1, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1], [2, 2, 0, 0]])


def by_key(lines: tuple[MetricLine, ...]) -> dict[str, MetricLine]:
    return {line.key: line for line in lines}


def value(found: object) -> float:
    assert isinstance(found, Estimate)
    return found.value


def test_metric_lines_count_everything_the_budget_bought() -> None:
    lines = by_key(metric_lines([FEW, MANY], seed=0))

    assert [value(v) for v in lines["coverage"].values] == [0.75, 1.0]
    assert [value(v) for v in lines["verified_coverage"].values] == [0.5, 0.75]
    assert value(lines["coverage"].differences[0]) == 0.25
    assert value(lines["unique_correct"].differences[0]) == pytest.approx(9 / 4 - 1)
    assert [value(v) for v in lines["false_positive_rate"].values] == [1 / 4, 2 / 9]
    assert {line.matched for line in lines.values()} == {Matched.budget}


def test_metric_lines_have_the_intervals_of_each_metric_alone() -> None:
    lines = by_key(metric_lines([FEW, MANY], seed=3))
    few, many = np.array([1.0, 0, 1, 1]), np.array([1.0, 1, 1, 1])

    assert lines["coverage"].values == tuple(bootstrap_mean(v, resamples=2000, seed=3) for v in (few, many))
    assert lines["coverage"].differences == (paired_difference(many, few, resamples=2000, seed=3),)


def test_arms_are_compared_at_the_number_of_samples_that_both_have() -> None:
    lines = by_key(same_number_lines([FEW, MANY], seed=0))

    assert lines["coverage_at_k"].label == "pass@2"
    assert value(lines["coverage_at_k"].values[1]) == pytest.approx(coverage_per_problem(MANY, 2).mean())
    assert value(lines["coverage_at_k"].differences[0]) == pytest.approx((5 / 6 + 1 / 2 + 1 + 5 / 6) / 4 - 0.75)
    assert {line.matched for line in lines.values()} == {Matched.number}


def test_arms_with_as_many_samples_have_nothing_more_to_compare() -> None:
    assert same_number_lines([FEW, FEW], seed=0) == ()


def test_problem_without_samples_does_not_spoil_the_others() -> None:
    sparse = samples([[1, 0], [], [1, 1], [0, 0]])

    lines = by_key(same_number_lines([sparse, MANY], seed=0))

    assert isinstance(lines["unique_correct_at_k"].differences[0], Estimate)
    assert lines["coverage_at_k"].differences[0].n == 3  # type: ignore[union-attr]


def test_arms_over_different_problems_are_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be paired"):
        metric_lines([FEW, samples([[1]])], seed=0)
