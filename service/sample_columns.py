"""Scored samples as columns: sample shards joined with their score shards, whoever lists them.

Pages list shards from the database, reports from a manifest; both read them here. Columns only, never row by row,
except where a caller brings a checker of its own that needs the text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from service.errors import CorruptFile
from service.metrics import ScoredSamples
from service.shards import read_receipt

Judge = Callable[[int, str], bool]
"""Problem index and completion to whether its reasoning is right; asked about right answers only."""

_SHARD_COLUMNS = ["problem_index", "sample_index", "flops", "finish_reason"]
_DTYPES: dict[str, npt.DTypeLike] = {
    "problem": np.int32,
    "sample_index": np.int32,
    "correct": np.bool_,
    "steps": np.int8,
    "solution": np.uint64,
    "equations": np.uint64,
    "flops": np.float64,
    "truncated": np.bool_,
}
"""Types of the columns of a job without a scored shard, which has the same columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPair:
    """Paths of a sample shard and of its score shard."""

    samples: str
    scores: str


def load_scored(
    pairs: Sequence[ShardPair], *, problems_path: str, num_problems: int, judge: Judge | None = None
) -> ScoredSamples:
    """All rows of the shards, in their order. Rows that stand for an error count as samples that are not correct.

    Args:
        judge: replaces the step check of the scores, for reports with a checker that strategies must not see.

    Raises:
        CorruptFile: a score shard does not fit its samples.
    """
    loaded = [_load(pair, judge) for pair in pairs]
    columns: dict[str, Any] = {
        name: np.concatenate([item[name] for item in loaded]) if loaded else np.empty(0, dtype)
        for name, dtype in _DTYPES.items()
    }
    return ScoredSamples(**columns, num_problems=num_problems, level=_levels(problems_path, num_problems))


def _load(pair: ShardPair, judge: Judge | None) -> dict[str, npt.NDArray[np.generic]]:
    table = pq.read_table(pair.samples, columns=[*_SHARD_COLUMNS, *(["completion"] if judge else [])])
    delta = read_receipt(Path(pair.scores)).delta
    problem = table["problem_index"].to_numpy().astype(np.int32)
    sample_index = table["sample_index"].to_numpy().astype(np.int32)
    if delta is None or not (
        np.array_equal(delta.problem, problem) and np.array_equal(delta.sample_index, sample_index)
    ):
        raise CorruptFile(f"{pair.scores}: its samples are not those of {pair.samples}")
    steps = delta.steps
    if judge is not None:
        steps = np.full(len(problem), -1, dtype=np.int8)
        completions = table["completion"]
        for row in np.flatnonzero(delta.is_correct).tolist():
            steps[row] = judge(int(problem[row]), completions[row].as_py())
    return {
        "problem": problem,
        "sample_index": sample_index,
        "correct": delta.is_correct,
        "steps": steps,
        "solution": delta.solution,
        "equations": _equations(pair.scores, problem, sample_index),
        "flops": table["flops"].to_numpy(),
        "truncated": np.asarray(table["finish_reason"].to_numpy(zero_copy_only=False) == "length"),
    }


def _equations(
    path: str, problem: npt.NDArray[np.int32], sample_index: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint64]:
    """Equation keys in the order of the shard: a score file has one row a sample and scorer."""
    table = pq.read_table(path, columns=["problem_index", "sample_index", "equations_key"])
    rows = (table["problem_index"].to_numpy().astype(np.int64) << 32) | table["sample_index"].to_numpy()
    wanted = (problem.astype(np.int64) << 32) | sample_index
    order = np.argsort(rows, kind="stable")
    positions = order[np.searchsorted(rows[order], wanted)]
    return table["equations_key"].to_numpy()[positions].astype(np.uint64)


def _levels(problems_path: str, num_problems: int) -> npt.NDArray[np.int16] | None:
    column = pq.read_table(problems_path, columns=["level"])["level"].slice(0, num_problems)
    if column.null_count:
        return None
    return column.to_numpy().astype(np.int16)
