"""Per-problem estimators over scored samples: pass@k, unique solutions, counts. Columns in, columns out.

Invariant: no Python loop over samples or problems. Estimates are unbiased if the samples of a problem are
exchangeable, as they are unless results decided how many to draw; an undefined value is NaN, never 0. Needs numpy;
imports only the error tree.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from service.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

STEPS_VALID, STEPS_INVALID, STEPS_UNKNOWN = 1, 0, -1


class Counting(StrEnum):
    """Which samples count as solving their problem."""

    ANSWER = "answer"  # the answer is right
    VERIFIED = "verified"  # and the reasoning was found valid; unjudged reasoning counts as invalid
    NOT_REFUTED = "not_refuted"  # and the reasoning was not found invalid; unjudged reasoning counts as valid


class SameSolution(StrEnum):
    """Which solutions count as one: the de-duplication rule that is part of a diversity metric's name."""

    EXACT = "exact"
    EQUATIONS = "equations"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSamples:
    """Scored samples as columns; rows in the order in which they were committed.

    Attributes:
        problem: int32 [N], index of the problem, 0..num_problems-1.
        sample_index: int32 [N], number of the sample within its problem.
        correct: bool [N], the answer is right; a truncated sample without one is not.
        steps: int8 [N], 1 valid, 0 invalid, -1 unknown.
        solution: uint64 [N], exact key.
        equations: uint64 [N], key of the sequence of calculations.
        flops: float64 [N].
        truncated: bool [N].
        num_problems: problems of the set, sampled or not.
        level: int16 [num_problems] difficulty, or None.

    Raises:
        InvalidInput: if the columns differ in length or a value is out of range.
    """

    problem: Ints
    sample_index: Ints
    correct: Bools
    steps: Ints
    solution: Ints
    equations: Ints
    flops: Floats
    truncated: Bools
    num_problems: int
    level: Ints | None

    def __post_init__(self) -> None:
        columns = ("problem", "sample_index", "correct", "steps", "solution", "equations", "flops", "truncated")
        lengths = {name: len(getattr(self, name)) for name in columns}
        if len(set(lengths.values())) != 1:
            raise InvalidInput(f"columns of scored samples differ in length: {lengths}")
        if self.num_problems < 1:
            raise InvalidInput(f"num_problems is {self.num_problems}, must be at least 1")
        if len(self.problem) and not 0 <= self.problem.min() <= self.problem.max() < self.num_problems:
            got = f"{self.problem.min()}..{self.problem.max()}"
            raise InvalidInput(f"problem indices {got} must lie in 0..{self.num_problems - 1}")
        if len(self.steps) and not -1 <= self.steps.min() <= self.steps.max() <= 1:
            raise InvalidInput(f"steps {self.steps.min()}..{self.steps.max()} must be 1 valid, 0 invalid or -1 unknown")
        if self.level is not None and len(self.level) != self.num_problems:
            raise InvalidInput(f"{len(self.level)} levels for {self.num_problems} problems")

    def rows(self, chosen: Bools | Ints) -> "ScoredSamples":
        """The chosen rows, by mask or by index, of the same problems."""
        return ScoredSamples(
            problem=self.problem[chosen],
            sample_index=self.sample_index[chosen],
            correct=self.correct[chosen],
            steps=self.steps[chosen],
            solution=self.solution[chosen],
            equations=self.equations[chosen],
            flops=self.flops[chosen],
            truncated=self.truncated[chosen],
            num_problems=self.num_problems,
            level=self.level,
        )


def pass_at_k(n: Ints, c: Ints, k: int) -> Floats:
    """Probability that k of n samples, drawn without replacement, hold one of the c right ones; NaN where n < k.

    1 - C(n - c, k) / C(n, k), as a product that neither overflows nor cancels.

    Args:
        n: samples per item.
        c: right ones among them, 0 <= c <= n.
        k: >= 1.
    Source: Chen et al. 2021 (arXiv:2107.03374), section 2.1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")
    n, c = np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64)
    if np.any(c < 0) or np.any(c > n):
        raise ValueError("need 0 <= c <= n for every item")
    # items share few distinct (n, c), so the product runs over those
    width = int(c.max(initial=0)) + 1
    pairs, pair_of_item = np.unique(n * width + c, return_inverse=True)
    total, wrong = pairs // width, pairs // width - pairs % width
    missed = np.ones(len(pairs))
    for i in range(k):
        np.multiply(missed, np.maximum(wrong - i, 0) / np.maximum(total - i, 1), out=missed)
    return np.where(total < k, np.nan, 1.0 - missed)[pair_of_item.reshape(n.shape)]


def counted(samples: ScoredSamples, counting: Counting) -> Bools:
    """Bool [N]: which samples count as right."""
    if counting is Counting.VERIFIED:
        return samples.correct & (samples.steps == STEPS_VALID)
    if counting is Counting.NOT_REFUTED:
        return samples.correct & (samples.steps != STEPS_INVALID)
    return samples.correct


def per_problem(samples: ScoredSamples, values: Floats | Bools | None = None) -> Floats:
    """Sum of `values` (1 each by default) over the samples of each problem, float64 [num_problems]."""
    weights = None if values is None else values.astype(float)
    return np.bincount(samples.problem, weights=weights, minlength=samples.num_problems).astype(float)


def coverage_per_problem(samples: ScoredSamples, k: int, counting: Counting = Counting.ANSWER) -> Floats:
    """pass@k of each problem [num_problems]; NaN where it has fewer than k samples."""
    n = per_problem(samples).astype(np.int64)
    return pass_at_k(n, per_problem(samples, counted(samples, counting)).astype(np.int64), k)


@dataclass(frozen=True, slots=True)
class UniqueSolutions:
    """The distinct right solutions: of which problem, and how many samples gave each."""

    problem: Ints
    multiplicity: Ints
    first_row: Ints

    def per_problem(self, num_problems: int) -> Floats:
        """Number of distinct right solutions collected per problem."""
        return np.bincount(self.problem, minlength=num_problems).astype(float)

    def at_k(self, n: Ints, k: int) -> Floats:
        """Expected number of them among k samples of each problem; NaN where it has fewer than k.

        A solution given by m of n samples is met with probability 1 - C(n - m, k) / C(n, k).

        Args:
            n: samples per problem [num_problems].
        """
        met = pass_at_k(n[self.problem], self.multiplicity, k)
        found = np.bincount(self.problem, weights=np.nan_to_num(met), minlength=len(n))
        return np.where(n < k, np.nan, found)


def unique_solutions(samples: ScoredSamples, rule: SameSolution, counting: Counting) -> UniqueSolutions:
    """Distinct solutions among the samples that count as right. O(N log N)."""
    rows = np.flatnonzero(counted(samples, counting))
    keys = (samples.solution if rule is SameSolution.EXACT else samples.equations)[rows]
    problem = samples.problem[rows]
    order = np.lexsort((keys, problem))  # stable, so the first row of a group is the first committed
    keys, problem = keys[order], problem[order]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = (keys[1:] != keys[:-1]) | (problem[1:] != problem[:-1])
    starts = np.flatnonzero(is_first)
    return UniqueSolutions(problem[starts], np.diff(np.append(starts, len(rows))), rows[order[starts]])


def diversity_per_problem(
    samples: ScoredSamples,
    k: int,
    rule: SameSolution = SameSolution.EXACT,
    counting: Counting = Counting.ANSWER,
) -> Floats:
    """Expected distinct right solutions among k samples of each problem; NaN where it has fewer than k."""
    n = per_problem(samples).astype(np.int64)
    return unique_solutions(samples, rule, counting).at_k(n, k)
