"""Intervals and tests: how sure a number of a report is.

Invariant: everything is a function of its arguments and a seed. The unit of resampling is the problem, never the
sample, because samples of one problem are alike. Needs numpy; imports nothing of the project.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
# weights of one chunk of resamples: about 32 MB, so that 10^6 problems also fit
_CHUNK_WEIGHTS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: the point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        n: units the estimate rests on, problems unless stated otherwise.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class NotEstimable:
    """Stands where an Estimate would, when the data cannot tell; never a zero or a NaN that could be taken for one."""

    reason: str


def wilson_interval(successes: int, trials: int) -> Estimate:
    """A proportion with its Wilson score interval; `n` counts trials.

    Raises:
        ValueError: unless 0 <= successes <= trials and trials > 0.
    Source: Wilson 1927; Brown, Cai and DasGupta 2001 recommend it for n from about 10.
    """
    if not 0 <= successes <= trials or trials <= 0:
        raise ValueError(f"need 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    share, z2 = successes / trials, _Z * _Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # at 0 and at all successes the ends are exactly 0 and 1; rounding must not cut the value off
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), trials)


def bootstrap_ratios(
    numerators: Floats, denominators: Floats, *, resamples: int, seed: int
) -> list[Estimate | NotEstimable]:
    """Ratios of sums over problems with percentile intervals of a problem bootstrap, many at once.

    A mean over the problems where a value is defined is the sum of values (0 where undefined) over the number of
    problems where it is. All columns see the same resamples.

    Args:
        numerators: [problems, metrics].
        denominators: [problems, metrics], >= 0.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        One per metric; `n` counts the problems with a denominator above 0. NotEstimable where there is none.
    """
    if numerators.shape != denominators.shape or numerators.ndim != 2:
        raise ValueError(f"need two equal [problems, metrics] shapes, got {numerators.shape}, {denominators.shape}")
    num_problems, num_metrics = numerators.shape
    ratios = np.full((resamples, num_metrics), np.nan)
    done = 0
    for weights in _resampled_weights(num_problems, resamples=resamples, seed=seed):
        top, bottom = weights @ numerators, weights @ denominators
        np.divide(top, bottom, out=ratios[done : done + len(weights)], where=bottom > 0)
        done += len(weights)
    return [
        _percentile_estimate(numerators[:, metric], denominators[:, metric], ratios[:, metric])
        for metric in range(num_metrics)
    ]


def bootstrap_mean(values: Floats, *, resamples: int, seed: int) -> Estimate | NotEstimable:
    """Mean of per-problem values; NaN marks a problem where the value is undefined."""
    is_defined = ~np.isnan(values)
    return bootstrap_ratio(np.where(is_defined, values, 0.0), is_defined.astype(float), resamples=resamples, seed=seed)


def bootstrap_ratio(numerator: Floats, denominator: Floats, *, resamples: int, seed: int) -> Estimate | NotEstimable:
    """Ratio of sums of per-problem values, such as a false positive rate."""
    return bootstrap_ratios(numerator[:, None], denominator[:, None], resamples=resamples, seed=seed)[0]


def corrected_prevalence(
    *,
    positive: tuple[Floats, Floats],
    sensitivity: tuple[Floats, Floats],
    specificity: tuple[Floats, Floats],
    resamples: int,
    seed: int,
) -> Estimate | NotEstimable:
    """A share as an imperfect test finds it, corrected for the test's errors; a problem bootstrap of all three shares.

    (p + specificity - 1) / (sensitivity + specificity - 1), within 0 and 1. A resample in which the test says no more
    than chance says nothing of the share, and is left out.

    Args:
        positive: [problems] items found positive, and items tested.
        sensitivity: found positive, of items known to be so.
        specificity: found negative, of items known to be so.
    Source: Rogan and Gladen 1978.
    """
    sums = np.stack([*positive, *sensitivity, *specificity], axis=1)
    value, is_test = _corrected(sums.sum(axis=0)[None])
    if (sums.sum(axis=0)[1::2] == 0).any():
        return NotEstimable("the test was not held against both kinds of items, or tested nothing")
    if not is_test[0]:
        return NotEstimable("the test says no more than chance")
    drawn = np.concatenate([w @ sums for w in _resampled_weights(len(sums), resamples=resamples, seed=seed)])
    values, are_tests = _corrected(drawn)
    low, high = np.quantile(values[are_tests], _TAILS) if are_tests.any() else (value[0], value[0])
    num_problems = int(np.count_nonzero(positive[1]))
    return Estimate(float(value[0]), min(float(value[0]), float(low)), max(float(value[0]), float(high)), num_problems)


def _corrected(sums: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The corrected share of each row of six sums, and whether the test says anything there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, found, cleared = (sums[:, at] / sums[:, at + 1] for at in (0, 2, 4))
        gain = found + cleared - 1
        is_test = gain > 0  # not where one of them is undefined
        return np.clip((p + cleared - 1) / gain, 0.0, 1.0), is_test


def paired_difference(a: Floats, b: Floats, *, resamples: int, seed: int) -> Estimate | NotEstimable:
    """Mean of a - b over the problems where both are defined (not NaN).

    Args:
        a: [problems] values of one arm.
        b: [problems] values of the other arm on the same problems, in the same order.
    """
    _require_same_problems(a, b)
    return bootstrap_mean(a - b, resamples=resamples, seed=seed)


def paired_ratio_difference(
    a: tuple[Floats, Floats], b: tuple[Floats, Floats], *, resamples: int, seed: int
) -> Estimate | NotEstimable:
    """Difference of two ratios of sums (numerator, denominator) on the same problems, resampled together."""
    for values in (a[1], b[0], b[1]):
        _require_same_problems(a[0], values)
    sums = np.stack([a[0], a[1], b[0], b[1]], axis=1)
    total = sums.sum(axis=0)
    if total[1] <= 0 or total[3] <= 0:
        return NotEstimable("one arm has nothing to take a ratio of")
    drawn = np.concatenate([w @ sums for w in _resampled_weights(len(sums), resamples=resamples, seed=seed)])
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    if not len(drawn):
        return NotEstimable("no resample had anything to take a ratio of")
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3], _TAILS)
    return Estimate(float(total[0] / total[1] - total[2] / total[3]), float(low), float(high), len(sums))


def is_significant(difference: Estimate | NotEstimable) -> bool:
    """Whether a difference may be called one: its interval excludes zero."""
    return isinstance(difference, Estimate) and (difference.low > 0 or difference.high < 0)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p value of McNemar's test for two checkpoints on the same items: twice the smaller binomial tail.

    Args:
        only_a: items that only the first solves, >= 0.
        only_b: items that only the second solves, >= 0.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts are >= 0, got {only_a}, {only_b}")
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(discordant, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**discordant)


_TAILS = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])


def _resampled_weights(num_problems: int, *, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each problem occurs in each bootstrap sample, in chunks [resamples, problems]; rows are multinomial."""
    rng = np.random.default_rng(seed)
    per_chunk = max(1, _CHUNK_WEIGHTS // max(1, num_problems))
    for start in range(0, resamples if num_problems else 0, per_chunk):
        rows = min(per_chunk, resamples - start)
        drawn = rng.integers(num_problems, size=(rows, num_problems))
        drawn += np.arange(rows)[:, None] * num_problems
        counts = np.bincount(drawn.ravel(), minlength=rows * num_problems)
        yield counts.reshape(rows, num_problems).astype(float)


def _percentile_estimate(numerator: Floats, denominator: Floats, ratios: Floats) -> Estimate | NotEstimable:
    total = float(denominator.sum())
    drawn = ratios[~np.isnan(ratios)]
    if total <= 0 or not len(drawn):
        return NotEstimable("no problem to measure it on")
    low, high = np.quantile(drawn, _TAILS)
    return Estimate(float(numerator.sum()) / total, float(low), float(high), int(np.count_nonzero(denominator)))


def _require_same_problems(a: Floats, b: Floats) -> None:
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"need values of the same problems in the same order, got shapes {a.shape} and {b.shape}")
