"""Estimates of the measured table against enumeration of every draw."""

# conftest.py puts the folder of the example on the path at run time
# pyright: reportMissingImports=false

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from gsm_mini.measures import (
    Interval,
    ProblemPool,
    expected_unique,
    false_positive_difference,
    false_positive_rate,
    false_positive_shares,
    hit_probability,
    judge_pool,
    mean_interval,
    solved_mean,
)
from gsm_mini.world import Closing, Problem, Term
from measure import JUDGES, REASONERS, write_between_marks


def test_hit_probability_equals_share_of_all_draws() -> None:
    samples = [True, True, False, False, False, False]
    draws = list(combinations(samples, 3))

    assert hit_probability(6, 2, 3) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_expected_unique_equals_mean_over_all_draws() -> None:
    samples = ["a", "a", "a", "b", None, None]
    draws = list(combinations(samples, 2))
    mean = sum(len(set(draw) - {None}) for draw in draws) / len(draws)

    assert expected_unique(6, [3, 1], 2) == pytest.approx(mean)


@pytest.mark.parametrize("k", [0, 7])
def test_hit_probability_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; allowed: 1 to 6"):
        hit_probability(6, 2, k)


def test_judge_pool_counts_texts_and_chains_of_right_answers() -> None:
    problem = Problem(
        question="Ann has 2 pens. She finds 3 more. How many pens does she have now?",
        answer=5,
        num_steps=1,
        values=(2, 3),
        terms=(Term(sign="+", factors=(0,)), Term(sign="+", factors=(1,))),
        closing=Closing(kind="none"),
    )
    pool = judge_pool(problem, ["2+3=5. #### 5", "2+3=5. #### 5", "So 2+3=5. #### 5", "2+4=5. #### 5", "2+3=6. #### 6"])

    assert (pool.num_samples, pool.correct, pool.verified) == (5, 4, 3)
    assert pool.reasons == {"ok": 3, "arith": 1}
    assert sorted(pool.texts) == [1, 1, 2]
    assert sorted(pool.chains) == [1, 3]


def test_mean_interval_holds_the_mean_and_shrinks_with_more_problems() -> None:
    few, many = (mean_interval(np.array([0.0, 1.0] * count)) for count in (20, 200))

    assert few.estimate == many.estimate == 0.5
    assert few.low < 0.5 < few.high
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("part", [REASONERS, JUDGES])
def test_write_between_marks_replaces_only_the_table_of_the_part(tmp_path: Path, part: str) -> None:
    def with_tables(tables: dict[str, str]) -> str:
        return "".join(
            f"before\n<!-- {name}: begin -->\n{text}\n<!-- {name}: end -->\n" for name, text in tables.items()
        )

    readme, old = tmp_path / "README.md", {REASONERS: "old", JUDGES: "old too"}
    readme.write_text(with_tables(old))
    write_between_marks(readme, part, "new\n")

    assert readme.read_text() == with_tables({**old, part: "new"})


def test_write_between_marks_without_marks_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no table here")

    with pytest.raises(ValueError, match="lacks the marks"):
        write_between_marks(readme, JUDGES, "new")


def pool(*, correct: int, verified: int) -> ProblemPool:
    return ProblemPool(num_samples=10, correct=correct, verified=verified, reasons={}, texts=[], chains=[])


def test_false_positive_rate_weighs_answers_and_its_shares_weigh_problems() -> None:
    # repeated, so that no bootstrap draw consists of unsolved problems only
    pools = 10 * [pool(correct=8, verified=8), pool(correct=2, verified=1), pool(correct=0, verified=0)]

    assert false_positive_rate(pools).estimate == pytest.approx(1 / 10)
    assert solved_mean(false_positive_shares(pools)).estimate == pytest.approx((0 + 1 / 2) / 2)


def test_false_positive_difference_of_equal_pools_is_exactly_zero() -> None:
    pools = [pool(correct=8, verified=7), pool(correct=2, verified=1), pool(correct=5, verified=5)]

    assert false_positive_difference(pools, pools) == Interval(estimate=0.0, low=0.0, high=0.0)
