"""Long samples: lengths far below their limit, engines that hold hundreds, and a budget that must not wait for them.

Thinned from `isoflop bench long-samples`: fewer engines, and a control loop that looks four hundred times less often.
"""

import math
from pathlib import Path

import pytest

from api.local.bench_long_samples import LongSamples, LongSamplesResult, bench_long_samples


def simulate(directory: Path, **given: object) -> LongSamplesResult:
    arguments = {"engines": 2, "max_num_seqs": 128, "step_tokens": 2048, "flush_s": 1200.0, **given}
    directory.mkdir(exist_ok=True)
    return bench_long_samples(directory, LongSamples(**arguments))  # type: ignore[arg-type]


def test_engines_of_long_samples_are_full_until_the_budget_is_nearly_spent(tmp_path):
    result = simulate(tmp_path, budget_worst=30.0)
    assert result.busy >= 0.95
    assert min(result.busy_bands[1:19]) >= 0.95
    assert 0.999 <= result.spent <= 1.0


def test_two_models_of_long_samples_are_both_full_until_the_budget_is_nearly_spent(tmp_path):
    result = simulate(tmp_path, engines=1, models=("a", "b"), budget_worst=8.0)
    assert min(result.busy_bands[1:14]) >= 0.95
    assert 0.998 <= result.spent <= 1.0


def test_budget_of_200_worst_cases_is_used_to_99_percent(tmp_path):
    result = simulate(tmp_path, engines=1, max_num_seqs=32, budget_worst=200 / 32)
    assert 0.99 <= result.spent <= 1.0


def test_samples_that_fit_into_a_budget_are_as_long_as_they_would_be_without_one(tmp_path):
    runs = [simulate(tmp_path / f"{s}", engines=1, max_num_seqs=256, budget_worst=5.0, seed=s) for s in range(2)]
    mean = math.fsum(run.mean_tokens for run in runs) / len(runs)
    standard_error = math.sqrt(math.fsum(run.standard_error**2 for run in runs)) / len(runs)
    assert standard_error < 0.01 * mean
    assert mean == pytest.approx(runs[0].true_mean_tokens, abs=3.3 * standard_error)  # 99.9 % of the time
