"""Intervals and tests: known values, and how often an interval holds the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stats import (
    Estimate,
    NotEstimable,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_ratios,
    corrected_prevalence,
    is_significant,
    mcnemar_exact,
    paired_difference,
    paired_ratio_difference,
    wilson_interval,
)


def estimate_of(measured: Estimate | NotEstimable) -> Estimate:
    assert isinstance(measured, Estimate), measured
    return measured


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_published_values(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, trials)

    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(trials=st.integers(1, 10**6), data=st.data())
def test_wilson_interval_holds_the_value_inside_0_and_1(trials: int, data: st.DataObject) -> None:
    interval = wilson_interval(data.draw(st.integers(0, trials)), trials)

    assert 0 <= interval.low <= interval.value <= interval.high <= 1


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_interval_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


def test_bootstrap_mean_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(300):
        interval = estimate_of(bootstrap_mean(rng.beta(0.5, 0.8, 120), resamples=300, seed=trial))
        held += interval.low <= 0.5 / 1.3 <= interval.high

    assert 0.90 <= held / 300 <= 0.985


def test_bootstrap_mean_width_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, 2000)

    interval = estimate_of(bootstrap_mean(values, resamples=2000, seed=0))

    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)


def test_bootstrap_mean_leaves_undefined_problems_out() -> None:
    interval = estimate_of(bootstrap_mean(np.array([1.0, np.nan, 3.0]), resamples=200, seed=0))

    assert (interval.value, interval.n) == (2.0, 2)
    assert 1.0 <= interval.low <= interval.high <= 3.0


def test_bootstrap_mean_of_nothing_is_not_estimable() -> None:
    assert isinstance(bootstrap_mean(np.array([np.nan]), resamples=10, seed=0), NotEstimable)
    assert isinstance(bootstrap_mean(np.array([]), resamples=10, seed=0), NotEstimable)


def test_bootstrap_ratio_is_of_sums_not_the_mean_of_ratios() -> None:
    interval = estimate_of(bootstrap_ratio(np.array([1.0, 0.0]), np.array([1.0, 9.0]), resamples=100, seed=0))

    assert interval.value == pytest.approx(0.1)


def test_bootstrap_ratios_in_many_chunks_equal_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    tops, bottoms = rng.random((50, 2)), rng.random((50, 2)) + 0.5
    whole = bootstrap_ratios(tops, bottoms, resamples=101, seed=7)

    monkeypatch.setattr("service.stats._CHUNK_WEIGHTS", 150)
    chunked = bootstrap_ratios(tops, bottoms, resamples=101, seed=7)

    for one, other in zip(whole, chunked, strict=True):
        assert estimate_of(one).low == pytest.approx(estimate_of(other).low)
        assert estimate_of(one).high == pytest.approx(estimate_of(other).high)


def test_bootstrap_other_seed_gives_another_interval_and_the_same_value() -> None:
    values = np.random.default_rng(4).random(30)

    one, same, other = (estimate_of(bootstrap_mean(values, resamples=50, seed=seed)) for seed in (1, 1, 2))

    assert one == same
    assert (one.value, one.low) != (other.value, other.low)
    assert one.value == other.value


def test_paired_difference_finds_a_small_shift_that_unpaired_intervals_miss() -> None:
    rng = np.random.default_rng(5)
    b = rng.random(200)
    a = b + 0.02 + rng.normal(0, 0.02, 200)

    difference = estimate_of(paired_difference(a, b, resamples=500, seed=0))
    mean_a, mean_b = (estimate_of(bootstrap_mean(arm, resamples=500, seed=0)) for arm in (a, b))

    assert is_significant(difference)
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert mean_a.low < mean_b.high


def test_paired_difference_of_equal_arms_is_significant_about_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(6)
    false_alarms = sum(
        is_significant(paired_difference(rng.random(100), rng.random(100), resamples=300, seed=trial))
        for trial in range(300)
    )

    assert false_alarms / 300 <= 0.10


def test_paired_difference_uses_problems_defined_in_both_arms() -> None:
    a, b = np.array([1.0, np.nan, 1.0]), np.array([0.0, 0.0, np.nan])

    assert paired_difference(a, b, resamples=10, seed=0) == Estimate(1.0, 1.0, 1.0, 1)


def test_paired_difference_other_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="same problems"):
        paired_difference(np.zeros(3), np.zeros(4), resamples=10, seed=0)


def test_paired_ratio_difference_is_the_difference_of_the_ratios_of_sums() -> None:
    rng = np.random.default_rng(7)
    judged_a, judged_b = rng.integers(1, 20, 300).astype(float), rng.integers(1, 20, 300).astype(float)
    wrong_a, wrong_b = rng.binomial(judged_a.astype(int), 0.2), rng.binomial(judged_b.astype(int), 0.05)

    found = estimate_of(
        paired_ratio_difference(
            (wrong_a.astype(float), judged_a), (wrong_b.astype(float), judged_b), resamples=400, seed=0
        )
    )

    assert found.value == pytest.approx(wrong_a.sum() / judged_a.sum() - wrong_b.sum() / judged_b.sum())
    assert found.low < 0.15 < found.high
    assert is_significant(found)


def test_paired_ratio_difference_with_an_empty_arm_is_not_estimable() -> None:
    nothing = (np.zeros(3), np.zeros(3))

    assert isinstance(paired_ratio_difference(nothing, (np.ones(3), np.ones(3)), resamples=5, seed=0), NotEstimable)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.01, 0.2, False), (0.0, 0.2, False)]
)
def test_is_significant_only_when_the_interval_excludes_zero(low: float, high: float, expected: bool) -> None:
    assert is_significant(Estimate((low + high) / 2, low, high, 10)) is expected
    assert is_significant(NotEstimable("nothing")) is False


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375)])
def test_mcnemar_exact_is_a_two_sided_sign_test(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_exact(only_a, only_b) == p
    assert mcnemar_exact(only_b, only_a) == p


def counts(hits: int, trials: int, num_problems: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Items spread evenly over problems."""
    share = np.full(num_problems, 1 / num_problems)
    return hits * share, trials * share


def test_corrected_prevalence_undoes_the_errors_of_the_test() -> None:
    # 0.3 of 1,000 are so; found are 0.8 of these and 0.1 of the others: 0.31, and (0.31 + 0.9 - 1) / 0.7 = 0.3
    found = estimate_of(
        corrected_prevalence(
            positive=counts(310, 1000),
            sensitivity=counts(800, 1000),
            specificity=counts(900, 1000),
            resamples=100,
            seed=0,
        )
    )
    assert (found.value, found.n) == (pytest.approx(0.3), 100)


@given(
    hits=st.lists(st.tuples(*[st.integers(0, 5)] * 6), min_size=1, max_size=12),
)
def test_corrected_prevalence_holds_the_value_inside_0_and_1(hits: list[tuple[int, ...]]) -> None:
    columns = np.array(hits, dtype=float).T
    positive, sensitivity, specificity = ((columns[at], columns[at] + columns[at + 1]) for at in (0, 2, 4))
    found = corrected_prevalence(
        positive=positive, sensitivity=sensitivity, specificity=specificity, resamples=50, seed=1
    )
    if isinstance(found, Estimate):
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "reason"),
    [((0, 0), (9, 10), "not held against both"), ((1, 2), (1, 2), "no more than chance")],
)
def test_corrected_prevalence_without_a_test_that_tells_is_not_estimable(
    sensitivity: tuple[int, int], specificity: tuple[int, int], reason: str
) -> None:
    found = corrected_prevalence(
        positive=counts(3, 10), sensitivity=counts(*sensitivity), specificity=counts(*specificity), resamples=9, seed=0
    )
    assert isinstance(found, NotEstimable)
    assert reason in found.reason
