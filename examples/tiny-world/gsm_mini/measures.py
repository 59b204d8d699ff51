"""What the measured table reports: judged pools of samples, unbiased estimates at a budget, bootstrap intervals.

Invariant: every estimate is a mean over problems of a number per problem, and intervals resample problems, because
samples of one problem are not independent. Imports numpy; must not import torch, transformers or the application.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from gsm_mini.checker import chain_key, check
from gsm_mini.world import Problem

NUM_RESAMPLES = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemPool:
    """All samples of one model for one problem, judged.

    `correct` counts right answers, `verified` those with right reasoning; `texts` and `chains` count the samples of
    each distinct right solution, by text and by equations alone.
    """

    num_samples: int
    correct: int
    verified: int
    reasons: Mapping[str, int]
    texts: Sequence[int]
    chains: Sequence[int]


def judge_pool(problem: Problem, completions: Sequence[str]) -> ProblemPool:
    """Judge all completions of a problem with the exact checker."""
    reasons: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    chains: Counter[tuple[str, ...]] = Counter()
    for completion, count in Counter(completions).items():
        result = check(problem, completion)
        if result.answer_correct:
            reasons[result.reason] += count
            texts[completion] += count
            chains[chain_key(completion)] += count
    return ProblemPool(
        num_samples=len(completions),
        correct=reasons.total(),
        verified=reasons["ok"],
        reasons=reasons,
        texts=list(texts.values()),
        chains=list(chains.values()),
    )


def hit_probability(num_samples: int, num_hits: int, k: int) -> float:
    """Probability that k of the samples, drawn without replacement, contain a hit (unbiased pass@k, arXiv:2107.03374).

    Raises:
        ValueError: if k is not in 1 to `num_samples`.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}; allowed: 1 to {num_samples}, the number of samples")
    return 1.0 - comb(num_samples - num_hits, k) / comb(num_samples, k)


def expected_unique(num_samples: int, counts: Sequence[int], k: int) -> float:
    """Expected number of distinct solutions among k of the samples; `counts` are the samples of each distinct one."""
    return sum(hit_probability(num_samples, count, k) for count in counts)


def coverage(pools: Sequence[ProblemPool], k: int, *, verified: bool = False) -> NDArray[np.float64]:
    """pass@k per problem; with `verified`, only right reasoning counts."""
    hits = [pool.verified if verified else pool.correct for pool in pools]
    return np.array([hit_probability(pool.num_samples, hit, k) for pool, hit in zip(pools, hits, strict=True)])


def unique_chains(pools: Sequence[ProblemPool], k: int) -> NDArray[np.float64]:
    """Expected distinct right solutions per problem among k samples, told apart by their equations."""
    return np.array([expected_unique(pool.num_samples, pool.chains, k) for pool in pools])


def unique_texts(pools: Sequence[ProblemPool], k: int) -> NDArray[np.float64]:
    """Expected distinct right solutions per problem among k samples, told apart by their text."""
    return np.array([expected_unique(pool.num_samples, pool.texts, k) for pool in pools])


def mean_interval(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """The mean over problems, with a percentile bootstrap over problems."""
    return ratio_interval(values, np.ones_like(values), seed)


def ratio_interval(numerators: NDArray[np.float64], denominators: NDArray[np.float64], seed: int = 0) -> Interval:
    """The ratio of two sums over problems, with a percentile bootstrap over problems."""
    draws = _resamples(len(numerators), seed)
    estimate = numerators.sum() / denominators.sum()
    return _percentiles(estimate, numerators[draws].sum(axis=1) / denominators[draws].sum(axis=1))


def false_positive_rate(pools: Sequence[ProblemPool]) -> Interval:
    """Share of the right answers whose reasoning is wrong."""
    return ratio_interval(*_false_and_right(pools))


def false_positive_difference(pools: Sequence[ProblemPool], others: Sequence[ProblemPool]) -> Interval:
    """Rate of `pools` minus rate of `others`, which belong to the same problems in the same order."""
    (false, right), (other_false, other_right) = _false_and_right(pools), _false_and_right(others)
    draws = _resamples(len(pools), seed=0)
    rates = false[draws].sum(axis=1) / right[draws].sum(axis=1)
    other_rates = other_false[draws].sum(axis=1) / other_right[draws].sum(axis=1)
    return _percentiles(false.sum() / right.sum() - other_false.sum() / other_right.sum(), rates - other_rates)


def false_positive_shares(pools: Sequence[ProblemPool]) -> NDArray[np.float64]:
    """False positive rate per problem; NaN where no answer is right.

    Its mean is the rate among solutions when one right answer of each problem is kept.
    """
    return np.array([1.0 - pool.verified / pool.correct if pool.correct else np.nan for pool in pools])


def solved_mean(values: NDArray[np.float64]) -> Interval:
    """The mean over the problems that have a value, with a bootstrap over those problems."""
    return mean_interval(values[~np.isnan(values)])


def _false_and_right(pools: Sequence[ProblemPool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    right = np.array([pool.correct for pool in pools], dtype=np.float64)
    verified = np.array([pool.verified for pool in pools], dtype=np.float64)
    return right - verified, right


def _resamples(num_problems: int, seed: int) -> NDArray[np.int64]:
    """Positions of problems drawn with replacement [resample, problem]."""
    return np.random.default_rng(seed).integers(0, num_problems, size=(NUM_RESAMPLES, num_problems))


def _percentiles(estimate: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(estimate=float(estimate), low=float(low), high=float(high))
