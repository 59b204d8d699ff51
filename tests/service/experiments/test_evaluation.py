"""False positives of students: how sure a share over problems and seeds is."""

import numpy as np
import pytest

from service.experiments.evaluation import share_of_problems
from service.stats import wilson_interval


def test_share_of_one_seed_has_the_interval_of_a_proportion() -> None:
    denominator = np.array([1.0, 1, 1, 0, 1, 1])
    numerator = np.array([0.0, 1, 0, 0, 0, 0])

    assert share_of_problems(numerator, denominator) == wilson_interval(1, 5)


def test_share_that_is_zero_is_not_taken_for_certain() -> None:
    found = share_of_problems(np.zeros(50), np.full(50, 3.0))

    assert found == wilson_interval(0, 50)
    assert found is not None
    assert found.high > 0.05


def test_share_over_seeds_is_as_sure_as_problems_are_not_as_samples() -> None:
    numerator = np.array([3.0, 3] + [0.0] * 38)

    found = share_of_problems(numerator, np.full(40, 3.0))

    assert found is not None
    assert found.value == pytest.approx(0.05)
    assert found.high - found.low > wilson_interval(6, 120).high - wilson_interval(6, 120).low


def test_share_of_nothing_is_none() -> None:
    assert share_of_problems(np.zeros(3), np.zeros(3)) is None
