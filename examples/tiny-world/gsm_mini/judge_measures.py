"""How well a judge tells right answers with wrong reasoning from those with right reasoning, as a Markdown table.

Invariant: the exact checker is the truth; every sample counts, and intervals resample problems, because samples of one
problem are not independent. Imports numpy; must not import torch, transformers or the application.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsm_mini.checker import Reason
from gsm_mini.measures import NUM_RESAMPLES, Interval
from gsm_mini.summary import table

FAULTS: tuple[Reason, ...] = ("arith", "operand", "logic", "format", "nostep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the exact checker and a judge say of one right answer; `says_valid` is None where the judge says neither."""

    problem: int
    reason: Reason
    says_valid: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRates:
    """Shares with their 95 % intervals.

    `sensitivity`: of the false positives, those that the judge rejects; `specificity`: of the solutions with right
    reasoning, those that it accepts; `balanced_accuracy`: their mean. Who says neither is wrong in both.
    """

    num_false: int
    num_valid: int
    sensitivity: Interval
    specificity: Interval
    balanced_accuracy: Interval
    rejected_by_fault: dict[Reason, tuple[int, int]]


def judge_rates(verdicts: Sequence[Verdict], seed: int = 0) -> JudgeRates:
    """Rates of a judge on right answers, with a percentile bootstrap over problems.

    Raises:
        ValueError: if there is no false positive or no solution with right reasoning.
    """
    num_problems = 1 + max(verdict.problem for verdict in verdicts)
    # rows: rejected and false, false, accepted and valid, valid
    counts = np.zeros((4, num_problems))
    by_fault: dict[Reason, tuple[int, int]] = {}
    for verdict in verdicts:
        if verdict.reason == "ok":
            counts[2:, verdict.problem] += verdict.says_valid is True, 1
        else:
            is_rejected = verdict.says_valid is False
            counts[:2, verdict.problem] += is_rejected, 1
            rejected, of_fault = by_fault.get(verdict.reason, (0, 0))
            by_fault[verdict.reason] = (rejected + is_rejected, of_fault + 1)
    num_false, num_valid = int(counts[1].sum()), int(counts[3].sum())
    if not num_false or not num_valid:
        raise ValueError(f"got {num_false} false positives and {num_valid} valid solutions; wanted some of each")
    draws = np.random.default_rng(seed).integers(0, num_problems, size=(NUM_RESAMPLES, num_problems))
    resampled = np.stack([row[draws].sum(axis=1) for row in counts])
    estimates, spreads = _rates(counts.sum(axis=1)), _rates(resampled)
    intervals = [
        Interval(estimate=float(estimate), low=float(low), high=float(high))
        for estimate, (low, high) in zip(
            estimates, (np.nanquantile(spread, [0.025, 0.975]) for spread in spreads), strict=True
        )
    ]
    return JudgeRates(
        num_false=num_false,
        num_valid=num_valid,
        sensitivity=intervals[0],
        specificity=intervals[1],
        balanced_accuracy=intervals[2],
        rejected_by_fault=by_fault,
    )


def judge_summary(rates_by_judge: dict[str, JudgeRates], samples: str) -> str:
    """The table with what it is about; a row for every judge, and of each kind of fault how many it rejects.

    Args:
        rates_by_judge: of the same samples.
        samples: whose they are.
    """
    first = next(iter(rates_by_judge.values()))
    faults: list[Reason] = [fault for fault in FAULTS if fault in first.rejected_by_fault]
    rows = [
        [
            name,
            *(_share(rate) for rate in (rates.sensitivity, rates.specificity, rates.balanced_accuracy)),
            *("{} of {}".format(*rates.rejected_by_fault[fault]) for fault in faults),
        ]
        for name, rates in rates_by_judge.items()
    ]
    return (
        f"**Judging right answers** ({samples}): {first.num_false} with wrong and {first.num_valid:,} with right "
        "reasoning by the exact checker. Sensitivity is the share of the former that is rejected, specificity that of "
        "the latter that is accepted; intervals are 95 %, from a bootstrap over problems; then the faults rejected"
        "\n\n" + table(["judge", "sensitivity", "specificity", "balanced accuracy", *faults], rows)
    )


def _rates(counts: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Sensitivity, specificity and their mean of counts [4, ...]; NaN for a resample without false positives."""
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = counts[0] / counts[1], counts[2] / counts[3]
    return [sensitivity, specificity, (sensitivity + specificity) / 2]


def _share(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
