"""Metrics of a job from its committed files: reads columns through the manifest's shards, never row by row.

A sample counts once it is committed *and* scored, so that live figures never mix the two, and both numbers are told.
Results are cached until another score shard is committed; a page may ask as often as it likes. What the job's scorers
do not judge is marked as not measured.
"""

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.jobs import Job, is_unpriced
from service.measures import Measures, only_measured, without_flops
from service.metrics import MetricsSummary, ScoredSamples, summarise
from service.models import ModelSpec
from service.sample_columns import Judge, ShardPair, load_scored
from service.store import Store
from service.store.reads import Part
from service.work import TaskKind

KS = (1, 2, 3, 5, 10, 15, 30, 60, 90, 100, 200, 300, 1000)
"""Numbers of samples that metrics are quoted at, as far as a job reaches."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmMetrics:
    """Metrics of one arm of several; `summary` is None before its first scored shard.

    Where results decided who draws next there are no `@k` metrics: an arm saw the problems that others left.

    Args:
        temperature: of its sampling.
        num_scored: samples that the summary is of.
    """

    name: str
    model: str
    temperature: float
    num_scored: int
    summary: MetricsSummary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """Metrics of one job as of `num_score_parts` committed score shards; `summary` is None before the first.

    Args:
        scorers: what judges its samples; without any there will never be a summary.
        num_samples: samples committed.
        num_scored: those of them that the summary is of, all arms together.
        arms: each by itself, where there are several.
    """

    job_id: str
    scorers: tuple[str, ...]
    num_samples: int
    num_scored: int
    num_score_parts: int
    summary: MetricsSummary | None
    arms: tuple[ArmMetrics, ...] = ()


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
            # samples are committed before they are scored, so this number grows while the rest stays
            return dataclasses.replace(known, num_samples=store.reads.count_rows(job_id, TaskKind.generate))
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
    found = JobMetrics(
        job_id=job_id,
        scorers=job.spec.scorers,
        num_samples=0,
        num_scored=0,
        num_score_parts=len(scores),
        summary=None,
    )
    if not scores:
        return dataclasses.replace(found, num_samples=store.reads.count_rows(job_id, TaskKind.generate))
    samples, arm_of_row = load_samples_by_arm(store, job, scores=scores)
    models = store.jobs.resolved(job_id).models
    return dataclasses.replace(
        found,
        # read after the scored ones, so that there are never more of those
        num_samples=store.reads.count_rows(job_id, TaskKind.generate),
        num_scored=len(samples.problem),
        summary=_summary(job, models, samples, even=None if job.spec.allocation.is_even else 1, resamples=resamples),
        arms=_arm_metrics(job, models, samples, arm_of_row, resamples=resamples),
    )


def _summary(
    job: Job, models: Sequence[ModelSpec], samples: ScoredSamples, *, even: int | None, resamples: int
) -> MetricsSummary:
    deepest = int(np.bincount(samples.problem).max()) if len(samples.problem) else 0
    ks = tuple(k for k in KS if k <= (deepest if even is None else even)) or (1,)
    summary = summarise(samples, ks=ks, resamples=resamples, seed=job.spec.seed, even_samples=even)
    if is_unpriced(models):
        summary = without_flops(summary)
    return only_measured(summary, Measures.of(job.spec.scorers))


def _arm_metrics(
    job: Job,
    models: Sequence[ModelSpec],
    samples: ScoredSamples,
    arm_of_row: npt.NDArray[np.int64],
    *,
    resamples: int,
) -> tuple[ArmMetrics, ...]:
    arms = job.spec.all_arms
    found: list[ArmMetrics] = []
    for index, arm in enumerate(arms if len(arms) > 1 else ()):
        mine = samples.rows(arm_of_row == index)
        its_models = [model for model in models if model.name == arm.model]
        num_scored, even = len(mine.problem), None if job.spec.allocation.is_even else 0
        found.append(
            ArmMetrics(
                name=arm.name,
                model=arm.model,
                temperature=arm.sampling.temperature,
                num_scored=num_scored,
                summary=_summary(job, its_models, mine, even=even, resamples=resamples) if num_scored else None,
            )
        )
    return tuple(found)


def load_samples_by_arm(
    store: Store, job: Job, *, scores: list[Part] | None = None, judge: Judge | None = None
) -> tuple[ScoredSamples, npt.NDArray[np.int64]]:
    """`load_samples`, and the index of the arm that drew each."""
    resolved = store.jobs.resolved(job.id)
    scores = store.reads.parts(job.id, TaskKind.score) if scores is None else scores
    path_by_source = {(part.source_attempt, part.source_part): part.path for part in scores}
    shards = [
        shard
        for shard in store.reads.parts(job.id, TaskKind.generate)
        if (shard.attempt_id, shard.part) in path_by_source
    ]
    pairs = [ShardPair(samples=each.path, scores=path_by_source[each.attempt_id, each.part]) for each in shards]
    samples = load_scored(pairs, problems_path=resolved.problems_path, num_problems=resolved.num_problems, judge=judge)
    index_by_name = {arm.name: index for index, arm in enumerate(job.spec.all_arms)}
    arm_of_row = np.repeat(
        np.array([index_by_name[shard.arm] for shard in shards], dtype=np.int64), [shard.rows for shard in shards]
    )
    if len(index_by_name) > 1:
        samples = dataclasses.replace(samples, sample_index=_numbers_over_arms(samples, arm_of_row))
    return samples, arm_of_row


def _numbers_over_arms(samples: ScoredSamples, arm_of_row: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Numbers within a problem, from 0 without a gap, as arms took turns at it; each numbers its own for itself.

    The first sample of a problem is number 0 whichever arm drew it: where arms share visits, most have none of theirs.
    """
    order = np.lexsort((arm_of_row, samples.sample_index, samples.problem))
    counts = np.bincount(samples.problem, minlength=samples.num_problems)
    starts = np.cumsum(counts) - counts
    numbers = np.empty(len(order), dtype=np.int32)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return numbers


def load_samples(
    store: Store, job_id: str, *, scores: list[Part] | None = None, judge: Judge | None = None
) -> ScoredSamples:
    """Every scored sample of a job as columns, in the order in which shards were committed, numbered over all arms.

    Args:
        judge: a checker for reports that replaces the job's own step check.

    Raises:
        CorruptFile: a score shard does not fit its samples.
    """
    return load_samples_by_arm(store, store.jobs.get(job_id), scores=scores, judge=judge)[0]
