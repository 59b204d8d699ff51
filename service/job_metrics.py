"""Metrics of a job from its committed files: reads columns through the manifest's shards, never row by row.

A sample counts once it is committed *and* scored, so that live figures never mix the two. Results are cached until
another score shard is committed; a page may ask as often as it likes.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from service.cluster import TaskKind
from service.errors import CorruptFile
from service.metrics import MetricsSummary, ScoredSamples, summarise
from service.shards import read_receipt
from service.store import Store
from service.store.reads import Part

KS = (1, 2, 3, 5, 10, 15, 30, 60, 90, 100, 200, 300, 1000)
"""Numbers of samples that metrics are quoted at, as far as a job reaches."""
RESAMPLES = 1000
_SHARD_COLUMNS = ["problem_index", "sample_index", "flops", "finish_reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """Metrics of one job as of `num_score_parts` committed score shards; `summary` is None before the first."""

    job_id: str
    num_score_parts: int
    summary: MetricsSummary | None


class MetricsCache:
    """The last metrics of each job. Thread-safe; two threads may compute the same one at once, which is harmless."""

    def __init__(self, *, capacity: int = 64) -> None:
        self._found: dict[str, JobMetrics] = {}
        self._capacity = capacity
        self._lock = threading.Lock()

    def get(self, store: Store, job_id: str) -> JobMetrics:
        """Metrics of the job, computed anew only when more is scored."""
        num_parts = store.reads.count_parts(job_id, TaskKind.score)
        with self._lock:
            known = self._found.get(job_id)
        if known is not None and known.num_score_parts == num_parts:
            return known
        fresh = job_metrics(store, job_id)
        with self._lock:
            self._found.pop(job_id, None)
            while len(self._found) >= self._capacity:
                del self._found[next(iter(self._found))]
            self._found[job_id] = fresh
        return fresh


def job_metrics(store: Store, job_id: str, *, resamples: int = RESAMPLES) -> JobMetrics:
    """Metrics of everything of the job that is committed and scored.

    Raises:
        NotFound: no such job.
        CorruptFile: a committed file is missing or does not fit its scores.
    """
    scores = store.reads.parts(job_id, TaskKind.score)
    job = store.jobs.get(job_id)
    if not scores:
        return JobMetrics(job_id=job_id, num_score_parts=0, summary=None)
    samples = load_samples(store, job_id, scores=scores)
    deepest = int(np.bincount(samples.problem).max()) if len(samples.problem) else 0
    even = None if job.spec.allocation.strategy == "uniform" else 1
    ks = tuple(k for k in KS if k <= (even or deepest)) or (1,)
    summary = summarise(samples, ks=ks, resamples=resamples, seed=job.spec.seed, even_samples=even)
    return JobMetrics(job_id=job_id, num_score_parts=len(scores), summary=summary)


def load_samples(store: Store, job_id: str, *, scores: list[Part] | None = None) -> ScoredSamples:
    """Every scored sample of a job as columns, in the order in which shards were committed.

    Rows that stand for an error count as samples that are not correct.
    """
    resolved = store.jobs.resolved(job_id)
    scores = store.reads.parts(job_id, TaskKind.score) if scores is None else scores
    by_source = {(part.source_attempt, part.source_part): part for part in scores}
    shards = [s for s in store.reads.parts(job_id, TaskKind.generate) if (s.attempt_id, s.part) in by_source]
    loaded = [_load_shard(shard, by_source[shard.attempt_id, shard.part]) for shard in shards]
    names = ("problem", "sample_index", "correct", "steps", "solution", "equations", "flops", "truncated")
    columns = {name: np.concatenate([item[name] for item in loaded]) for name in names}
    return ScoredSamples(
        **columns, num_problems=resolved.num_problems, level=_levels(resolved.problems_path, resolved.num_problems)
    )


def _load_shard(shard: Part, score: Part) -> dict[str, np.ndarray]:
    table = pq.read_table(shard.path, columns=_SHARD_COLUMNS)
    delta = read_receipt(Path(score.path)).delta
    problem = table["problem_index"].to_numpy().astype(np.int32)
    sample_index = table["sample_index"].to_numpy().astype(np.int32)
    if delta is None or not (
        np.array_equal(delta.problem, problem) and np.array_equal(delta.sample_index, sample_index)
    ):
        raise CorruptFile(f"{score.path}: its samples are not those of {shard.path}")
    return {
        "problem": problem,
        "sample_index": sample_index,
        "correct": delta.is_correct,
        "steps": delta.steps,
        "solution": delta.solution,
        "equations": _equations(score, problem, sample_index),
        "flops": table["flops"].to_numpy(),
        "truncated": np.asarray(table["finish_reason"].to_numpy(zero_copy_only=False) == "length"),
    }


def _equations(score: Part, problem: np.ndarray, sample_index: np.ndarray) -> np.ndarray:
    """Equation keys in the order of the shard: a score file has one row a sample and scorer."""
    table = pq.read_table(score.path, columns=["problem_index", "sample_index", "equations_key"])
    rows = (table["problem_index"].to_numpy().astype(np.int64) << 32) | table["sample_index"].to_numpy()
    wanted = (problem.astype(np.int64) << 32) | sample_index
    order = np.argsort(rows, kind="stable")
    positions = order[np.searchsorted(rows[order], wanted)]
    return table["equations_key"].to_numpy()[positions].astype(np.uint64)


def _levels(problems_path: str, num_problems: int) -> np.ndarray | None:
    column = pq.read_table(problems_path, columns=["level"])["level"].slice(0, num_problems)
    if column.null_count:
        return None
    return column.to_numpy().astype(np.int16)
