"""maj@k: whether the answer that most of k samples give is right, in expectation over which k samples are drawn.

Owns the definition. k of a problem's M samples are drawn without replacement, all subsets alike; of the answers read in
them the most frequent one is the vote. Answers that tie for it share it: each is the vote with equal chance. A sample
of which no answer was read does not vote, and k samples without an answer elect nothing, which is not right. With
M = k there is one subset and nothing is left to chance but ties. maj@1 is pass@1.

Invariant: the expectation is exact, no subset is sampled; a problem with fewer than k samples is undefined, never 0.
Needs numpy and pyarrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import CorruptFile, InvalidInput
from service.metrics import DEFAULT_RESAMPLES, AtK
from service.scoring import Verdict
from service.stats import bootstrap_ratios

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DEFAULT_KS = (1, 4, 8, 16)
_CHUNK_WAYS = 1_000_000  # of the elections at hand: 8 MB, at k = 16 of 3,460 elections


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Samples as ballots, columns of equal length [N].

    Args:
        problem: index of the problem, 0..num_problems-1.
        answer: equal numbers are equal answers of a problem; -1 where none was read.
        correct: whether the answer is right; one right sample makes its answer a right one.
        num_problems: problems of the set, sampled or not.

    Raises:
        InvalidInput: the columns differ in length, or a problem is out of range.
    """

    problem: Ints
    answer: Ints
    correct: Bools
    num_problems: int

    def __post_init__(self) -> None:
        lengths = {len(self.problem), len(self.answer), len(self.correct)}
        if len(lengths) != 1:
            raise InvalidInput(f"columns of votes differ in length: {sorted(lengths)}")
        if len(self.problem) and not 0 <= self.problem.min() <= self.problem.max() < self.num_problems:
            got = f"{self.problem.min()}..{self.problem.max()}"
            raise InvalidInput(f"problem indices {got} must lie in 0..{self.num_problems - 1}")


@dataclass(frozen=True, slots=True)
class _Elections:
    """One row for every right answer of a problem, sorted by nothing.

    Args:
        problem: [E].
        right: samples that give the right answer [E].
        silent: samples of the problem without an answer [E].
        others: samples of each other answer of the problem, descending, 0 where there is none [E, A].
    """

    problem: Ints
    right: Ints
    silent: Ints
    others: Ints


def load_votes(score_paths: Sequence[str], *, scorer: str, num_problems: int) -> Votes:
    """The ballots of scored shards, as one scorer read them.

    Raises:
        CorruptFile: a file cannot be read.
    """
    columns = ["problem_index", "scorer", "predicted_answer", "verdict"]
    tables: list[pa.Table] = []
    for path in score_paths:
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise CorruptFile(f"{path}: cannot be read: {error}") from error
        tables.append(table.filter(pc.equal(table["scorer"], scorer)))
    if not tables:
        nothing = np.zeros(0, dtype=np.int64)
        return Votes(problem=nothing, answer=nothing, correct=nothing.astype(bool), num_problems=num_problems)
    rows = pa.concat_tables(tables)
    answers = rows["predicted_answer"].combine_chunks().dictionary_encode()
    return Votes(
        problem=rows["problem_index"].to_numpy().astype(np.int64),
        answer=answers.indices.fill_null(-1).to_numpy().astype(np.int64),
        correct=pc.equal(rows["verdict"], Verdict.CORRECT.value).fill_null(False).to_numpy(),
        num_problems=num_problems,
    )


def majority_per_problem(votes: Votes, k: int) -> Floats:
    """maj@k of each problem [num_problems]; NaN where it has fewer than k samples.

    Args:
        k: samples that vote, >= 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")
    num_samples = np.bincount(votes.problem, minlength=votes.num_problems)
    elections = _elections(votes)
    is_held = num_samples[elections.problem] >= k
    columns = [elections.right, elections.silent, num_samples[elections.problem], *elections.others.T]
    # problems share few distinct counts, so each of these is computed once
    distinct, which = np.unique(np.stack(columns, axis=1)[is_held], axis=0, return_inverse=True)
    chunk = max(1, _CHUNK_WAYS // (k + 1) ** 2)
    won = np.concatenate(
        [np.zeros(0), *(_won(distinct[start : start + chunk], k) for start in range(0, len(distinct), chunk))]
    )
    found = np.bincount(elections.problem[is_held], weights=won[which.reshape(-1)], minlength=votes.num_problems)
    # a sum of parts of a probability; rounding must not take it past the whole
    return np.where(num_samples < k, np.nan, np.minimum(found, 1.0))


def maj_at_k(
    votes: Votes, ks: tuple[int, ...] = DEFAULT_KS, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> tuple[AtK, ...]:
    """maj@k: mean over the problems with at least k samples, with 95 % intervals of one bootstrap over problems."""
    if not ks:
        return ()
    values = np.stack([majority_per_problem(votes, k) for k in ks], axis=1)
    is_defined = ~np.isnan(values)
    found = bootstrap_ratios(np.nan_to_num(values), is_defined.astype(float), resamples=resamples, seed=seed)
    return tuple(
        AtK(k=k, estimate=estimate, undefined_problems=int(np.count_nonzero(~is_defined[:, column])))
        for column, (k, estimate) in enumerate(zip(ks, found, strict=True))
    )


def _elections(votes: Votes) -> _Elections:
    """Counts of every problem with a right answer, seen from each of its right answers."""
    has_answer = votes.answer >= 0
    silent = np.bincount(votes.problem[~has_answer], minlength=votes.num_problems)
    width = int(votes.answer.max(initial=0)) + 1
    pairs, pair_of_vote, counts = np.unique(
        votes.problem[has_answer] * width + votes.answer[has_answer], return_inverse=True, return_counts=True
    )
    problem = pairs // width
    is_right = np.bincount(pair_of_vote, weights=votes.correct[has_answer], minlength=len(pairs)) > 0
    order = np.lexsort((-counts, problem))
    problem, counts, is_right = problem[order], counts[order], is_right[order]
    first = np.searchsorted(problem, np.arange(votes.num_problems))
    column = np.arange(len(problem)) - first[problem]
    table = np.zeros((votes.num_problems, int(column.max(initial=0)) + 1), dtype=np.int64)
    table[problem, column] = counts
    rights = np.flatnonzero(is_right)
    others = table[problem[rights]]
    others[np.arange(len(rights)), column[rights]] = 0
    return _Elections(problem[rights], counts[rights], silent[problem[rights]], -np.sort(-others, axis=1))


def _won(elections: Ints, k: int) -> Floats:
    """Probability that the right answer is the vote, of each election [E]: columns right, silent, samples, others.

    Counts subsets by generating functions: with j ballots for the right answer, every other answer has i < j ballots,
    or j and ties. `ways[e, s, t]` is the number of ways to draw s ballots that are not for it with t answers tied.
    """
    right, silent, samples, others = elections[:, 0], elections[:, 1], elections[:, 2], elections[:, 3:]
    choose = _binomials(int(samples.max(initial=0)), k)
    won = np.zeros(len(elections))
    for j in range(1, min(k, int(right.max(initial=0))) + 1):
        rest = k - j
        ways = np.zeros((len(elections), rest + 1, rest // j + 1))
        ways[:, :, 0] = choose[silent, : rest + 1]
        for counts in others.T:
            if not counts.any():
                break  # counts descend, so the columns after this one are empty too
            drawn = ways * choose[counts, 0][:, None, None]
            for i in range(1, min(j - 1, rest, int(counts.max())) + 1):
                drawn[:, i:] += ways[:, : rest + 1 - i] * choose[counts, i][:, None, None]
            if j <= rest:
                drawn[:, j:, 1:] += ways[:, : rest + 1 - j, :-1] * choose[counts, j][:, None, None]
            ways = drawn
        shares = 1.0 / np.arange(1, ways.shape[2] + 1)
        won += choose[right, j] * (ways[:, rest] @ shares)
    return won / choose[samples, k]


def _binomials(most: int, k: int) -> Floats:
    """C(n, i) for n in 0..most and i in 0..k; floats, exact up to 2^53 and right to 15 digits beyond."""
    table = np.zeros((most + 1, k + 1))
    table[:, 0] = 1.0
    for i in range(1, k + 1):
        table[1:, i] = np.cumsum(table[:-1, i - 1])
    return table
