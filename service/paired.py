"""How sure a mean over problems and seeds is, and the difference of two.

Values come as [seeds, problems]: every seed's student answers the same problems. Seeds and problems are resampled
independently of each other, since they cross (the pigeonhole bootstrap: Owen, Annals of Applied Statistics 2007). It
counts the chance in a single answer three times and is wide on purpose: of two equal arms with 3 seeds on 500 problems
its interval held the truth in 99 % of 200 simulated comparisons where students of one arm differ by up to 1 point
(standard deviation of their accuracies), in 97 % at 2 points and in 88 % at 4 points, for then three seeds are few.
With one seed only problems can be resampled: the interval says nothing of how another seed would have come out, and
held the truth in 94, 82 and 60 % (at 0, 2 and 4 points). Needs numpy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.stats import CONFIDENCE, Estimate, mcnemar_exact

Floats = npt.NDArray[np.float64]

_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
_CHUNK_VALUES = 4_000_000  # of one chunk of resamples: about 32 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A difference of two means over the same problems.

    Args:
        estimate: the difference with its interval; `n` counts problems.
        num_seeds: seeds that both sides have; 1 where each side had other ones and was averaged first.
        p_value: exact McNemar test of one seed's right and wrong answers; None for several seeds or values between.
    """

    estimate: Estimate
    num_seeds: int
    p_value: float | None

    @property
    def is_difference(self) -> bool:
        """Whether it may be called one: the interval excludes zero."""
        return self.estimate.low > 0 or self.estimate.high < 0


def mean_of_runs(values: Floats, *, resamples: int, seed: int) -> Estimate:
    """Mean over seeds and problems with its interval.

    Args:
        values: [seeds, problems].

    Raises:
        ValueError: no seed or no problem.
    """
    _require_table(values)
    low, high = np.quantile(_resampled_means(values, resamples=resamples, seed=seed), _TAILS)
    return Estimate(float(values.mean()), float(low), float(high), values.shape[1])


def compare_runs(a: Floats, b: Floats, *, resamples: int, seed: int) -> Comparison:
    """Mean of a minus mean of b, paired by problem, and by seed where both have the same number of them.

    Args:
        a: [seeds, problems].
        b: [seeds, problems] on the same problems in the same order, row i with the same seed as row i of `a`.

    Raises:
        ValueError: other problems, or none.
    """
    _require_table(a)
    _require_table(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"need the same problems on both sides, got {a.shape[1]} and {b.shape[1]}")
    is_paired = len(a) == len(b)
    difference = a - b if is_paired else (a.mean(axis=0) - b.mean(axis=0))[None]
    estimate = mean_of_runs(difference, resamples=resamples, seed=seed)
    return Comparison(estimate=estimate, num_seeds=len(difference), p_value=_mcnemar(a, b))


def _mcnemar(a: Floats, b: Floats) -> float | None:
    if len(a) != 1 or len(b) != 1 or not all(np.isin(values, (0.0, 1.0)).all() for values in (a, b)):
        return None
    return mcnemar_exact(int((a > b).sum()), int((b > a).sum()))


def _resampled_means(values: Floats, *, resamples: int, seed: int) -> Floats:
    num_seeds, num_problems = values.shape
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // num_problems)
    means: list[Floats] = []
    for first in range(0, resamples, chunk):
        size = min(chunk, resamples - first)
        rows = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size) / num_seeds
        columns = generator.multinomial(num_problems, np.full(num_problems, 1 / num_problems), size=size)
        means.append(((rows @ values) * columns).sum(axis=1) / num_problems)
    return np.concatenate(means)


def _require_table(values: Floats) -> None:
    if values.ndim != 2 or not values.size:
        raise ValueError(f"need values by seed and problem, got shape {values.shape}")
