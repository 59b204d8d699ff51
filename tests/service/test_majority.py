"""maj@k against a count over all subsets, hand-made elections, and what it must equal where it is something known."""

import itertools
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import majority
from service.errors import CorruptFile, InvalidInput
from service.estimators import pass_at_k
from service.majority import Votes, load_votes, maj_at_k, majority_per_problem
from service.records import SCORE_SCHEMA, ScoreRow
from service.stats import Estimate, NotEstimable

RIGHT = 7


def votes(*problems: list[int], right: tuple[int, ...] = (RIGHT,)) -> Votes:
    """One list of answers a problem; -1 is a sample without one."""
    answer = np.array([a for answers in problems for a in answers], dtype=np.int64)
    problem = np.array([p for p, answers in enumerate(problems) for _ in answers], dtype=np.int64)
    return Votes(problem=problem, answer=answer, correct=np.isin(answer, right), num_problems=len(problems))


def by_subsets(answers: list[int], k: int, right: tuple[int, ...] = (RIGHT,)) -> float:
    """The definition, word for word."""
    won = 0.0
    subsets = list(itertools.combinations(answers, k))
    for subset in subsets:
        counts = Counter(answer for answer in subset if answer >= 0)
        top = [answer for answer, count in counts.items() if count == max(counts.values())]
        won += sum(answer in right for answer in top) / len(top) if top else 0.0
    return won / len(subsets)


ANSWERS = st.lists(st.sampled_from([-1, RIGHT, 8, 9, 10]), min_size=1, max_size=9)


@given(problems=st.lists(ANSWERS, min_size=1, max_size=4), k=st.integers(1, 6), chunk=st.sampled_from([1, 4096]))
def test_majority_equals_a_count_over_all_subsets(problems: list[list[int]], k: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(majority, "_CHUNK_WAYS", chunk * (k + 1) ** 2)
        found = majority_per_problem(votes(*problems), k)

    for value, answers in zip(found, problems, strict=True):
        if len(answers) < k:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(by_subsets(answers, k), abs=1e-12)


@given(answers=ANSWERS, k=st.integers(1, 6))
def test_majority_two_ways_to_be_right_add_up(answers: list[int], k: int) -> None:
    right = (RIGHT, 9)
    value = majority_per_problem(votes(answers, right=right), k)[0]
    assert len(answers) < k or value == pytest.approx(by_subsets(answers, k, right), abs=1e-12)


@given(problems=st.lists(ANSWERS, min_size=1, max_size=4))
def test_majority_of_one_is_pass_at_1(problems: list[list[int]]) -> None:
    n = np.array([len(answers) for answers in problems])
    c = np.array([answers.count(RIGHT) for answers in problems])
    assert majority_per_problem(votes(*problems), 1) == pytest.approx(pass_at_k(n, c, 1), abs=1e-12)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([RIGHT, RIGHT, 8, 9], 1.0),
        ([RIGHT, 8, 8, 9], 0.0),
        ([RIGHT, RIGHT, 8, 8], 0.5),
        ([RIGHT, 8, 9, 10], 0.25),
        ([RIGHT, -1, -1, -1], 1.0),
        ([-1, -1, -1, -1], 0.0),
        ([RIGHT, RIGHT, 8, 8, 9, 9], 1 / 3),
    ],
)
def test_majority_of_all_samples_leaves_only_ties_to_chance(answers: list[int], expected: float) -> None:
    assert majority_per_problem(votes(answers), len(answers))[0] == pytest.approx(expected, abs=1e-12)


def test_majority_of_many_samples_agrees_with_drawing_subsets() -> None:
    rng = np.random.default_rng(5)
    answers = rng.choice([RIGHT, 8, 9, 10, -1], size=200, p=[0.35, 0.3, 0.15, 0.1, 0.1])
    drawn = np.stack([rng.permutation(answers)[:16] for _ in range(20_000)])
    counts = np.stack([(drawn == answer).sum(axis=1) for answer in (RIGHT, 8, 9, 10)], axis=1)
    is_top = counts == counts.max(axis=1, keepdims=True)
    simulated = (is_top[:, 0] / is_top.sum(axis=1)).mean()

    # 20,000 draws have a standard error below .0036
    assert majority_per_problem(votes(answers.tolist()), 16)[0] == pytest.approx(simulated, abs=0.015)


def test_majority_of_a_thousand_samples_neither_overflows_nor_cancels() -> None:
    always, even = [RIGHT] * 1000, [RIGHT, 8] * 500
    found = majority_per_problem(votes(always, even), 16)
    assert found == pytest.approx([1.0, 0.5], rel=1e-12)


def test_maj_at_k_has_intervals_and_counts_problems_without_enough_samples() -> None:
    problems = [[RIGHT, RIGHT, 8, RIGHT], [8, 8, RIGHT, 9], [RIGHT]]
    one, four, eight = maj_at_k(votes(*problems), (1, 4, 8), resamples=500, seed=1)

    assert isinstance(one.estimate, Estimate)
    assert one.estimate.value == pytest.approx((3 / 4 + 1 / 4 + 1) / 3)
    assert one.estimate.low <= one.estimate.value <= one.estimate.high
    assert (one.k, one.undefined_problems, one.estimate.n) == (1, 0, 3)
    assert isinstance(four.estimate, Estimate)
    assert (four.estimate.value, four.undefined_problems, four.estimate.n) == (pytest.approx(0.5), 1, 2)
    assert isinstance(eight.estimate, NotEstimable)
    assert eight.undefined_problems == 3


def test_maj_at_k_same_seed_gives_the_same_intervals() -> None:
    rng = np.random.default_rng(0)
    ballots = votes(*rng.choice([RIGHT, 8, 9], size=(40, 16)).tolist())
    assert maj_at_k(ballots, seed=3) == maj_at_k(ballots, seed=3)
    assert [at_k.k for at_k in maj_at_k(ballots)] == [1, 4, 8, 16]
    assert maj_at_k(ballots, ()) == ()


def test_votes_without_a_sample_are_undefined_and_not_zero() -> None:
    found = maj_at_k(votes([], []), (1,))[0]
    assert isinstance(found.estimate, NotEstimable)
    assert found.undefined_problems == 2


def test_votes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"differ in length: \[1, 2\]"):
        Votes(problem=np.zeros(2, int), answer=np.zeros(1, int), correct=np.zeros(2, bool), num_problems=1)
    with pytest.raises(InvalidInput, match=r"problem indices 0\.\.3 must lie in 0\.\.2"):
        Votes(problem=np.array([0, 3]), answer=np.zeros(2, int), correct=np.zeros(2, bool), num_problems=3)
    with pytest.raises(ValueError, match="k is 0"):
        majority_per_problem(votes([RIGHT]), 0)


def test_load_votes_reads_one_scorers_answers_from_all_shards(tmp_path: Path) -> None:
    def shard(name: str, rows: list[tuple[int, str, str | None, str | None]]) -> str:
        table = [
            asdict(
                ScoreRow(
                    sample_id="s",
                    problem_index=problem,
                    sample_index=0,
                    scorer=scorer,
                    scorer_version="1",
                    predicted_answer=answer,
                    expected_answer="5",
                    verdict=verdict,
                    steps=None,
                    explanation="",
                    solution_key=0,
                    equations_key=0,
                )
            )
            for problem, scorer, answer, verdict in rows
        ]
        pq.write_table(pa.Table.from_pylist(table, schema=SCORE_SCHEMA), tmp_path / name)
        return str(tmp_path / name)

    first = [(0, "math_answer", "5", "correct"), (0, "math_answer", "6", "incorrect"), (0, "steps", None, None)]
    second = [(0, "math_answer", "5", "correct"), (1, "math_answer", None, "unparsable")]
    ballots = load_votes([shard("a", first), shard("b", second)], scorer="math_answer", num_problems=3)

    assert ballots.problem.tolist() == [0, 0, 0, 1]
    assert ballots.correct.tolist() == [True, False, True, False]
    assert ballots.answer[0] == ballots.answer[2] != ballots.answer[1]
    assert ballots.answer[3] == -1
    assert majority_per_problem(ballots, 3)[0] == 1.0
    assert len(load_votes([], scorer="math_answer", num_problems=1).problem) == 0
    with pytest.raises(CorruptFile, match="missing: cannot be read"):
        load_votes([str(tmp_path / "missing")], scorer="math_answer", num_problems=1)
