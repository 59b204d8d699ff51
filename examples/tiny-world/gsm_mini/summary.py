"""The measured tables as Markdown.

Owns wording and layout only; the numbers come from `measures`. Must not import torch, transformers or the application.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsm_mini.measures import (
    Interval,
    ProblemPool,
    coverage,
    false_positive_difference,
    false_positive_rate,
    false_positive_shares,
    mean_interval,
    solved_mean,
    unique_chains,
    unique_texts,
)

SMALL, LARGE = "gsm-mini-small", "gsm-mini-large"
TEMPERATURE = 0.8
PASS_AT = (1, 2, 3, 5, 10, 15, 30)
# Samples of the large and of the small model that cost the same.
EQUAL_BUDGETS = ((1, 3), (3, 9), (10, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPool:
    """Judged samples of one model on one problem set at one temperature, in the order of the set."""

    model: str
    problem_set: str
    temperature: float
    levels: Sequence[int]
    pools: Sequence[ProblemPool]
    mean_tokens: float

    @property
    def num_samples(self) -> int:
        """Samples per problem."""
        return self.pools[0].num_samples


def markdown_tables(measured: Sequence[MeasuredPool]) -> str:
    """All tables, in the order in which the README shows them."""
    small = _find(measured, SMALL, "test")
    large = _find(measured, LARGE, "test")
    sampled = [pool for pool in measured if pool.temperature > 0]
    return "\n\n".join(
        [
            f"**pass@k on the {len(small.pools)} test problems**, temperature {TEMPERATURE}, {small.num_samples} "
            f"samples a problem from the small model and {large.num_samples} from the large one",
            _pass_table([small, large]),
            f"**The same FLOPs, spent on either model** (mean completion: small {small.mean_tokens:.1f} tokens, large "
            f"{large.mean_tokens:.1f}; intervals are 95 %, from a bootstrap over problems)",
            _budget_table(small, large),
            "**False positives**: right answers with wrong reasoning, as a share of all right answers, and as the mean "
            "over problems, which is the share if one right answer of each solved problem is kept; then the faults",
            _false_positive_table(small, large),
            f"**pass@1 by number of steps**, temperature {TEMPERATURE}",
            _level_table(sampled),
            "**Greedy decoding**: right answers, and in brackets right answers with right reasoning",
            _greedy_table([pool for pool in measured if pool.temperature == 0]),
        ]
    )


def _pass_table(pools: Sequence[MeasuredPool]) -> str:
    rows: list[list[str]] = []
    for pool in pools:
        for label, verified in (("answer right", False), ("reasoning right too", True)):
            values = [coverage(pool.pools, k, verified=verified).mean() for k in PASS_AT]
            rows.append([pool.model, label, *(f"{value:.3f}" for value in values)])
    return table(["model", "counting", *(f"k = {k}" for k in PASS_AT)], rows)


def _budget_table(small: MeasuredPool, large: MeasuredPool) -> str:
    measures: tuple[tuple[str, Callable[[Sequence[ProblemPool], int], NDArray[np.float64]]], ...] = (
        ("coverage", coverage),
        ("verified coverage", lambda pools, k: coverage(pools, k, verified=True)),
        ("unique correct, by text", unique_texts),
        ("unique correct, by equations", unique_chains),
    )
    rows: list[list[str]] = []
    for large_k, small_k in EQUAL_BUDGETS:
        for label, measure in measures:
            of_large, of_small = measure(large.pools, large_k), measure(small.pools, small_k)
            difference = mean_interval(of_small - of_large)
            rows.append(
                [
                    f"{large_k} : {small_k}",
                    label,
                    f"{of_large.mean():.3f}",
                    f"{of_small.mean():.3f}",
                    _signed(difference),
                ]
            )
    return table(["samples large : small", "measure", "large", "small", "small - large"], rows)


def _false_positive_table(small: MeasuredPool, large: MeasuredPool) -> str:
    faults = ("arith", "operand", "logic", "nostep", "format")
    rows: list[list[str]] = []
    for pool in (small, large):
        counts = [sum(problem.reasons.get(fault, 0) for problem in pool.pools) for fault in faults]
        rows.append(
            [
                pool.model,
                _percent(false_positive_rate(pool.pools)),
                _percent(solved_mean(false_positive_shares(pool.pools))),
                str(sum(problem.correct for problem in pool.pools)),
                *map(str, counts),
            ]
        )
    pooled = false_positive_difference(small.pools, large.pools)
    by_problem = solved_mean(false_positive_shares(small.pools) - false_positive_shares(large.pools))
    rows.append(["small - large, in points", _points(pooled), _points(by_problem), *[""] * (1 + len(faults))])
    return table(["model", "of all right answers", "mean over problems", "right answers", *faults], rows)


def _level_table(pools: Sequence[MeasuredPool]) -> str:
    levels = sorted({level for pool in pools for level in pool.levels})
    rows: list[list[str]] = []
    for pool in pools:
        values = coverage(pool.pools, 1)
        of_level = [values[np.array(pool.levels) == level] for level in levels]
        cells = [f"{group.mean():.2f}" if len(group) else "" for group in of_level]
        rows.append([pool.model, pool.problem_set, f"{values.mean():.3f}", *cells])
    return table(["model", "problems", "all", *map(str, levels)], rows)


def _greedy_table(pools: Sequence[MeasuredPool]) -> str:
    problem_sets = list(dict.fromkeys(pool.problem_set for pool in pools))
    rows: list[list[str]] = []
    for model in dict.fromkeys(pool.model for pool in pools):
        cells: list[str] = []
        for problem_set in problem_sets:
            found = _find(pools, model, problem_set, temperature=0.0)
            right = coverage(found.pools, 1).mean()
            verified = coverage(found.pools, 1, verified=True).mean()
            cells.append(f"{right:.3f} ({verified:.3f})")
        rows.append([model, *cells])
    return table(["model", *problem_sets], rows)


def _find(
    measured: Sequence[MeasuredPool], model: str, problem_set: str, temperature: float = TEMPERATURE
) -> MeasuredPool:  # fmt: skip
    for pool in measured:
        if (pool.model, pool.problem_set, pool.temperature) == (model, problem_set, temperature):
            return pool
    raise ValueError(f"no samples of {model} on {problem_set} at temperature {temperature}")


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.2%} [{interval.low:.2%}, {interval.high:.2%}]"


def _points(interval: Interval) -> str:
    return f"{100 * interval.estimate:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
