import numpy as np
import numpy.typing as npt
import pytest

from service.paired import compare_runs, mean_of_runs
from service.stats import mcnemar_exact


def test_mean_of_runs_of_one_seed_has_the_interval_of_a_problem_bootstrap() -> None:
    values = np.random.default_rng(0).binomial(1, 0.4, size=(1, 400)).astype(float)

    found = mean_of_runs(values, resamples=4000, seed=1)

    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.005)
    assert found.n == 400


def test_mean_of_runs_counts_the_spread_of_seeds() -> None:
    """Two seeds that are all right and all wrong: no number of problems makes their mean sure."""
    values = np.stack([np.ones(1000), np.zeros(1000)])

    found = mean_of_runs(values, resamples=2000, seed=0)

    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_mean_of_runs_covers_the_truth_about_as_often_as_it_says() -> None:
    """Problems and seeds have effects of their own; the interval holds the true mean in at least nine of ten draws."""
    generator = np.random.default_rng(3)
    hits = 0
    for number in range(200):
        chance = 0.5 + generator.normal(0, 0.05, size=(8, 1)) + generator.normal(0, 0.15, size=(1, 120))
        values = generator.binomial(1, chance.clip(0, 1)).astype(float)
        found = mean_of_runs(values, resamples=400, seed=number)
        hits += found.low <= 0.5 <= found.high

    assert hits >= 180


@pytest.mark.parametrize(("seed_sd", "at_least"), [(0.0, 0.95), (0.02, 0.93)])
def test_compare_runs_of_equal_arms_with_three_seeds_is_seldom_called_a_difference(
    seed_sd: float, at_least: float
) -> None:
    generator = np.random.default_rng(5)

    def arm(problems: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        chance = problems + generator.normal(0, seed_sd, size=(3, 1))
        return generator.binomial(1, chance.clip(0, 1)).astype(float)

    held = 0
    for number in range(200):
        problems = 0.45 + generator.normal(0, 0.25, size=(1, 300))
        held += not compare_runs(arm(problems), arm(problems), resamples=300, seed=number).is_difference

    assert held / 200 >= at_least


def test_compare_runs_pairs_problems_so_that_hard_ones_do_not_blur() -> None:
    hard = np.linspace(0, 1, 300)[None]
    a, b = np.clip(hard + 0.02, 0, 1), hard

    found = compare_runs(a, b, resamples=1000, seed=0)

    assert found.estimate.value == pytest.approx(np.mean(a - b))
    assert found.is_difference
    assert found.num_seeds == 1
    assert found.p_value is None


def test_compare_runs_of_equal_runs_is_no_difference() -> None:
    values = np.random.default_rng(0).binomial(1, 0.4, size=(3, 50)).astype(float)

    found = compare_runs(values, values, resamples=200, seed=0)

    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (0.0, 0.0, 0.0)
    assert not found.is_difference


def test_compare_runs_of_two_checkpoints_gives_mcnemar() -> None:
    a = np.array([[1.0] * 10 + [0.0] * 10])
    b = np.array([[0.0] * 8 + [1.0] * 4 + [0.0] * 8])

    found = compare_runs(a, b, resamples=200, seed=0)

    assert found.p_value == mcnemar_exact(8, 2)
    assert found.estimate.value == pytest.approx(0.3)


def test_compare_runs_with_other_seeds_compares_their_means() -> None:
    a, b = np.ones((3, 10)), np.zeros((2, 10))

    found = compare_runs(a, b, resamples=100, seed=0)

    assert (found.estimate.value, found.num_seeds) == (1.0, 1)


@pytest.mark.parametrize(("a", "b"), [((1, 3), (1, 4)), ((0, 3), (1, 3)), ((1, 0), (1, 0))])
def test_compare_runs_of_other_problems_or_none_is_refused(a: tuple[int, int], b: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"same problems|by seed and problem"):
        compare_runs(np.zeros(a), np.zeros(b), resamples=10, seed=0)
