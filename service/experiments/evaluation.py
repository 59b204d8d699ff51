"""How good a model is, from the scores of jobs that measured it.

A measure is named `greedy`, `maj@k` or `transfer`; each is an accuracy by problem, so that models can be compared on
the same problems. Needs a store for where the scores lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.experiments.nodes import Child
from service.experiments.spec import EvaluationSpec
from service.majority import load_votes, majority_per_problem
from service.measures import STEPS_SCORER, Measures
from service.paired import mean_of_runs
from service.shards import read_receipt
from service.stats import Estimate, bootstrap_ratio, wilson_interval
from service.store import Store
from service.work import TaskKind

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFound:
    """What an evaluation says of its model by one measure.

    Args:
        accuracy: mean over problems with its interval, which says nothing of other seeds of the vote.
        false_positive_rate: of greedy right answers, the share whose steps do not hold; None without a step check.
    """

    measure: str
    num_problems: int
    accuracy: Estimate
    false_positive_rate: float | None


def evaluation_results(store: Store, evaluation_id: str, spec: EvaluationSpec) -> tuple[ModelFound, ...]:
    """What is measured so far.

    Raises:
        CorruptFile: a committed file of scores cannot be read.
    """
    children = store.reads.children(evaluation_id)
    found: list[ModelFound] = []
    for measure in ("greedy", *(f"maj@{k}" for k in spec.evaluate.maj_at)):
        job = done(children, job_key(measure))
        if job is None:
            continue
        values = accuracy_by_problem(store, job.id, spec.scorers, measure)
        found.append(
            ModelFound(
                measure=measure,
                num_problems=len(values),
                accuracy=mean_of_runs(values[None], resamples=RESAMPLES, seed=SEED),
                false_positive_rate=false_positive_rate(store, [job.id], spec.scorers) if measure == "greedy" else None,
            )
        )
    return tuple(found)


def job_key(measure: str) -> str:
    """Which job measures it: the key of its node, or what that begins with."""
    kind = measure.partition("@")[0]
    return "majority" if kind == "maj" else kind


def accuracy_by_problem(store: Store, job_id: str, scorers: Sequence[str], measure: str) -> Floats:
    """Accuracy of each problem [problems], from the scores of the job that measures it.

    A problem whose prompt could not be sampled is not solved.
    """
    scorer = next(scorer for scorer in scorers if scorer != STEPS_SCORER)
    paths = [part.path for part in store.reads.parts(job_id, TaskKind.score)]
    votes = load_votes(paths, scorer=scorer, num_problems=store.jobs.resolved(job_id).num_problems)
    return np.nan_to_num(majority_per_problem(votes, int(measure.partition("@")[2] or 1)))


def false_positive_rate(store: Store, job_ids: Sequence[str], scorers: Sequence[str]) -> float | None:
    """The value of `false_positives`."""
    found = false_positives(store, job_ids, scorers)
    return None if found is None else found.value


def false_positives(store: Store, job_ids: Sequence[str], scorers: Sequence[str]) -> Estimate | None:
    """Of all right answers whose steps could be judged, the share whose steps do not hold; None if there are none.

    Args:
        job_ids: one greedy job a seed, over the same problems.
    """
    if not Measures.of(scorers).has_steps or not job_ids:
        return None
    num_problems = store.jobs.resolved(job_ids[0]).num_problems
    judged, invalid = np.zeros(num_problems), np.zeros(num_problems)
    for job_id in job_ids:
        for part in store.reads.parts(job_id, TaskKind.score):
            delta = read_receipt(Path(part.path)).delta
            assert delta is not None, "a score part has a delta"
            np.add.at(judged, delta.problem, delta.is_correct & (delta.steps >= 0))
            np.add.at(invalid, delta.problem, delta.is_correct & (delta.steps == 0))
    return share_of_problems(invalid, judged)


def share_of_problems(numerator: Floats, denominator: Floats) -> Estimate | None:
    """A share of sums over problems with its interval; None where there is nothing to share.

    Where every problem weighs one, or the share is 0 or 1, of which resampling would find no spread, it is Wilson's
    interval over problems; otherwise a bootstrap over problems, whose samples of several seeds are alike.

    Args:
        numerator: [problems], at most `denominator`.
        denominator: [problems], whole numbers.
    """
    total, top = float(denominator.sum()), float(numerator.sum())
    if total == 0:
        return None
    if denominator.max() <= 1 or top in (0.0, total):
        num_problems = int((denominator > 0).sum())
        return wilson_interval(round(num_problems * top / total), num_problems)
    found = bootstrap_ratio(numerator, denominator, resamples=RESAMPLES, seed=SEED)
    return found if isinstance(found, Estimate) else None


def done(children: Mapping[str, Child], key: str) -> Child | None:
    """The child of that key if its results are there."""
    child = children.get(key)
    return child if child is not None and child.is_done else None
