"""Metrics against brute force over all subsets, hand-made cases, and invariances."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.metrics import (
    AtK,
    Counting,
    SameSolution,
    ScoredSamples,
    coverage,
    coverage_per_problem,
    diversity_at_k,
    diversity_per_problem,
    expected_curve,
    false_positive_rate,
    judged_share,
    pass_at_k,
    realised_coverage,
    realised_curve,
    summarise,
)
from service.stats import Estimate, NotEstimable

Row = tuple[int, bool, int, int]  # problem, correct, steps, solution


def scored(rows: list[Row], *, num_problems: int = 3, level: list[int] | None = None) -> ScoredSamples:
    """Samples of 10 FLOPs each; the equations key is the solution's tens digit, so that 11 and 12 share one."""
    index = [sum(1 for earlier in rows[:at] if earlier[0] == row[0]) for at, row in enumerate(rows)]
    solution = np.array([row[3] for row in rows], dtype=np.uint64)
    return ScoredSamples(
        problem=np.array([row[0] for row in rows], dtype=np.int32),
        sample_index=np.array(index, dtype=np.int32),
        correct=np.array([row[1] for row in rows], dtype=bool),
        steps=np.array([row[2] for row in rows], dtype=np.int8),
        solution=solution,
        equations=solution // 10,
        flops=np.full(len(rows), 10.0),
        truncated=np.zeros(len(rows), dtype=bool),
        num_problems=num_problems,
        level=None if level is None else np.array(level, dtype=np.int16),
    )


def value_of(measured: Estimate | NotEstimable) -> float:
    assert isinstance(measured, Estimate), measured
    return measured.value


def values_of(series: tuple[AtK, ...]) -> list[float]:
    return [value_of(at_k.estimate) for at_k in series]


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([1, 0, -1]), st.integers(10, 29)),
    min_size=1,
    max_size=18,
)


@given(n=st.integers(1, 9), data=st.data())
def test_pass_at_k_equals_the_share_of_subsets_with_a_right_sample(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    share = sum(any(i < c for i in subset) for subset in subsets) / len(subsets)

    assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(share, abs=1e-12)


def test_pass_at_k_fewer_samples_than_k_is_nan_for_that_item_only() -> None:
    values = pass_at_k(np.array([0, 1, 2, 3]), np.array([0, 1, 1, 3]), 2)

    assert np.isnan(values).tolist() == [True, True, False, False]
    assert values[2:].tolist() == [1.0, 1.0]


def test_pass_at_k_huge_counts_neither_overflow_nor_cancel() -> None:
    n, k = 10**6, 1000

    value = pass_at_k(np.array([n]), np.array([1]), k)[0]

    assert value == pytest.approx(k / n, rel=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"must be|need"):
        pass_at_k(np.array([n]), np.array([c]), k)


@settings(max_examples=60)
@given(rows=ROWS, k=st.integers(1, 4), counting=st.sampled_from(Counting), rule=st.sampled_from(SameSolution))
def test_estimators_equal_the_mean_over_all_subsets_of_k_samples(
    rows: list[Row], k: int, counting: Counting, rule: SameSolution
) -> None:
    samples = scored(rows)
    found_coverage = coverage_per_problem(samples, k, counting)
    found_diversity = diversity_per_problem(samples, k, rule, counting)
    allowed_steps = {Counting.ANSWER: (1, 0, -1), Counting.VERIFIED: (1,), Counting.NOT_REFUTED: (1, -1)}[counting]
    for problem in range(3):
        subsets = list(itertools.combinations([row for row in rows if row[0] == problem], k))
        right = [
            {
                solution if rule is SameSolution.EXACT else solution // 10
                for _, ok, steps, solution in subset
                if ok and steps in allowed_steps
            }
            for subset in subsets
        ]
        if not subsets:
            assert np.isnan(found_coverage[problem])
            assert np.isnan(found_diversity[problem])
        else:
            assert found_coverage[problem] == pytest.approx(np.mean([bool(r) for r in right]), abs=1e-12)
            assert found_diversity[problem] == pytest.approx(np.mean([len(r) for r in right]), abs=1e-12)


def test_coverage_counts_problems_without_k_samples_as_undefined() -> None:
    samples = scored([(0, True, 1, 10), (0, False, 1, 11), (1, False, 1, 10)])

    at_1, at_2 = coverage(samples, (1, 2))

    assert (at_1.undefined_problems, at_2.undefined_problems) == (1, 2)
    assert values_of((at_1, at_2)) == [0.25, 1.0]
    assert isinstance(at_1.estimate, Estimate)
    assert at_1.estimate.n == 2


def test_coverage_no_problem_with_k_samples_is_not_estimable() -> None:
    (at_2,) = coverage(scored([(0, True, 1, 10)]), (2,))

    assert isinstance(at_2.estimate, NotEstimable)
    assert at_2.undefined_problems == 3


def test_verified_coverage_counts_valid_reasoning_only() -> None:
    samples = scored([(0, True, 1, 10), (1, True, 0, 10), (2, True, -1, 10)])

    assert values_of(coverage(samples, (1,))) == [1.0]
    assert values_of(coverage(samples, (1,), verified=True)) == [pytest.approx(1 / 3)]


def test_diversity_rules_differ_in_what_is_one_solution() -> None:
    samples = scored([(0, True, 1, 11), (0, True, 1, 12), (0, True, 0, 21), (0, False, 1, 31)], num_problems=1)

    assert values_of(diversity_at_k(samples, (4,))) == [3.0]
    assert values_of(diversity_at_k(samples, (4,), SameSolution.EQUATIONS)) == [2.0]
    assert values_of(diversity_at_k(samples, (4,), SameSolution.EQUATIONS, verified=True)) == [1.0]


def test_same_key_in_two_problems_is_two_solutions() -> None:
    samples = scored([(0, True, 1, 10), (1, True, 1, 10)], num_problems=2)

    assert values_of(diversity_at_k(samples, (1,))) == [1.0]


def test_false_positive_rate_is_among_judged_right_answers() -> None:
    samples = scored([(0, True, 1, 10), (0, True, 0, 11), (1, True, -1, 10), (1, False, 0, 11), (2, True, 1, 10)])

    assert value_of(false_positive_rate(samples)) == pytest.approx(1 / 3)
    assert value_of(judged_share(samples)) == pytest.approx(3 / 4)


def test_false_positive_rate_without_judged_answers_is_not_estimable() -> None:
    assert isinstance(false_positive_rate(scored([(0, True, -1, 10), (1, False, 0, 10)])), NotEstimable)


def test_realised_coverage_counts_unsampled_problems_as_unsolved() -> None:
    samples = scored([(0, True, 0, 10), (1, False, 1, 10)], num_problems=4)

    assert value_of(realised_coverage(samples)) == 0.25
    assert value_of(realised_coverage(samples, verified=True)) == 0.0


@given(rows=ROWS, k=st.integers(1, 3))
def test_verified_metrics_never_exceed_plain_ones_and_bounds_hold(rows: list[Row], k: int) -> None:
    samples = scored(rows)
    verified, upper, plain = (
        coverage_per_problem(samples, k, counting)
        for counting in (Counting.VERIFIED, Counting.NOT_REFUTED, Counting.ANSWER)
    )

    defined = ~np.isnan(plain)
    assert np.all(verified[defined] <= upper[defined] + 1e-12)
    assert np.all(upper[defined] <= plain[defined] + 1e-12)
    assert np.all(plain[defined] <= diversity_per_problem(samples, k)[defined] + 1e-12)


def test_expected_curve_goes_up_to_the_depth_all_sampled_problems_reach() -> None:
    rows = [(0, True, 1, 10), (0, False, 1, 11), (0, False, 1, 12), (1, True, 0, 10), (1, True, 0, 11)]

    curve = expected_curve(scored(rows), resamples=50, seed=0)

    assert [point.k for point in curve] == [1, 2]
    assert [point.flops_per_problem for point in curve] == [10.0, 20.0]
    assert [value_of(point.coverage) for point in curve] == [pytest.approx(2 / 3), pytest.approx(5 / 6)]
    assert [value_of(point.verified_coverage) for point in curve] == [pytest.approx(1 / 6), pytest.approx(1 / 3)]
    assert [value_of(point.diversity) for point in curve] == [pytest.approx(2 / 3), pytest.approx(4 / 3)]


def test_expected_curve_of_nothing_is_empty() -> None:
    assert expected_curve(scored([]), resamples=10, seed=0) == ()
    assert realised_curve(scored([])) == ()


@given(rows=ROWS)
def test_realised_curve_equals_a_replay(rows: list[Row]) -> None:
    curve = realised_curve(scored(rows), num_points=len(rows))

    assert [point.num_samples for point in curve] == list(range(1, len(rows) + 1))
    for point in curve:
        right = [row for row in rows[: point.num_samples] if row[1]]
        verified = [row for row in right if row[2] == 1]
        assert point.flops_per_problem == pytest.approx(10 * point.num_samples / 3)
        assert point.coverage == pytest.approx(len({row[0] for row in right}) / 3)
        assert point.verified_coverage == pytest.approx(len({row[0] for row in verified}) / 3)
        assert point.unique_solutions_per_problem == pytest.approx(len({(row[0], row[3]) for row in right}) / 3)
        assert point.verified_unique_solutions_per_problem == pytest.approx(
            len({(row[0], row[3]) for row in verified}) / 3
        )


def test_realised_curve_follows_the_order_of_commitment() -> None:
    samples = scored([(0, True, 1, 10), (1, False, 1, 10)])

    first, _ = realised_curve(samples, order=np.array([1, 0]), num_points=2)

    assert first.coverage == 0.0


def test_summarise_adaptive_job_takes_at_k_from_its_even_part() -> None:
    # every problem got one sample, only the unsolved one got more: the naive pass@1 would be too low
    rows = [(0, True, 1, 10), (1, False, 1, 10), (1, True, 1, 11), (1, False, 1, 12), (1, False, 1, 13)]
    samples = scored(rows, num_problems=2)

    naive = summarise(samples, ks=(1,), resamples=20, seed=0)
    summary = summarise(samples, ks=(1,), resamples=20, seed=0, even_samples=1)

    assert values_of(naive.coverage) == [0.625]
    assert values_of(summary.coverage) == [0.5]
    assert value_of(summary.realised_coverage) == 1.0
    assert summary.curve[-1].k == 1
    assert summary.realised_curve[-1].num_samples == 5


def test_summarise_by_level_adds_up_to_the_whole() -> None:
    rows = [(0, True, 1, 10), (1, True, 0, 10), (2, False, 1, 10)]
    summary = summarise(scored(rows, level=[1, 1, 5]), ks=(1, 2), resamples=100, seed=0)

    easy, hard = summary.by_level
    assert (easy.level, easy.num_problems, hard.level, hard.num_problems) == (1, 2, 5, 1)
    assert value_of(easy.coverage[0].estimate) == 1.0
    assert value_of(hard.coverage[0].estimate) == 0.0
    assert value_of(easy.verified_coverage[0].estimate) == 0.5
    assert value_of(easy.false_positive_rate) == 0.5
    assert isinstance(hard.false_positive_rate, NotEstimable)
    assert (easy.coverage[1].undefined_problems, hard.coverage[1].undefined_problems) == (2, 1)
    assert values_of(summary.coverage[:1]) == [pytest.approx(2 / 3)]


def test_summarise_costs_are_per_right_and_per_distinct_right_solution() -> None:
    rows = [(0, True, 1, 10), (0, True, 1, 10), (0, True, 0, 11), (1, False, 1, 10)]

    summary = summarise(scored(rows), ks=(1,), resamples=20, seed=0)

    assert summary.total_flops == 40.0
    assert value_of(summary.flops_per_problem) == pytest.approx(40 / 3)
    assert value_of(summary.flops_per_correct) == pytest.approx(40 / 3)
    assert value_of(summary.flops_per_unique_correct) == 20.0
    assert value_of(summary.flops_per_verified_unique_correct) == 40.0
    assert (summary.num_correct, summary.num_verified, summary.sampled_problems) == (3, 2, 2)


def test_summarise_of_nothing_says_so_in_strict_json() -> None:
    summary = summarise(scored([]), ks=(1,), resamples=10, seed=0)

    text = json.dumps(dataclasses.asdict(summary), allow_nan=False)

    assert isinstance(summary.coverage[0].estimate, NotEstimable)
    assert isinstance(summary.truncated_share, NotEstimable)
    assert json.loads(text)["num_samples"] == 0


@given(rows=ROWS, seed=st.integers(0, 5))
@settings(max_examples=25)
def test_summarise_is_deterministic_and_strict_json(rows: list[Row], seed: int) -> None:
    samples = scored(rows, level=[1, 2, 2])

    summary = summarise(samples, ks=(1, 3), resamples=30, seed=seed)

    assert summary == summarise(samples, ks=(1, 3), resamples=30, seed=seed)
    assert json.dumps(dataclasses.asdict(summary), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": np.array([0, 3])}, r"0\.\.3 must lie in 0\.\.2"),
        ({"problem": np.array([-1, 0])}, r"-1\.\.0 must lie"),
        ({"flops": np.array([1.0])}, "differ in length"),
        ({"steps": np.array([0, 2])}, r"steps 0\.\.2"),
        ({"level": np.array([1])}, "1 levels for 3 problems"),
        ({"num_problems": 0}, "at least 1"),
    ],
)
def test_scored_samples_inconsistent_columns_are_refused(change: dict[str, object], message: str) -> None:
    samples = scored([(0, True, 1, 10), (1, True, 1, 10)])

    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(samples, **change)  # pyright: ignore[reportArgumentType]
