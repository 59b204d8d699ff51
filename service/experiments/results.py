"""What a comparison has found: what each arm's budget bought, and what students made of it.

Accuracies are per problem and seed, so that arms are compared on the same problems under the same seeds. Everything is
read from committed scores; a cell is complete when every seed of it is measured, and is left out before.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.experiments.evaluation import (
    RESAMPLES,
    SEED,
    accuracy_by_problem,
    done,
    false_positives,
    job_key,
)
from service.experiments.graph import cell, data_name, measured_name, run_name, train_keys
from service.experiments.nodes import Child
from service.experiments.spec import ArmSpec, ComparisonSpec, Split, StudentSpec
from service.paired import Comparison, compare_runs, mean_of_runs
from service.stats import Estimate
from service.store import Store

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFound:
    """What an arm's budget bought.

    Args:
        num_samples: samples a problem of the reference arm: which budget.
        rows: of its training set; None before it is made.
        dataset: that set's file.
        judge_flops: useful FLOPs of having its samples judged.
    """

    arm: str
    num_samples: int
    job_id: str
    samples: int
    correct: int
    useful_flops: float
    rows: int | None
    dataset: str | None
    judge_flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFound:
    """One student on one arm's data, over all seeds, by one measure.

    Args:
        measure: "greedy", "maj@k" or "transfer".
        accuracy: mean over problems and seeds with its interval.
        by_seed: mean over problems, one a seed.
        base: the same measure of the student before training.
        difference: to the reference arm's student, paired by problem and seed; None for the reference itself.
        false_positives: of greedy right answers, the share whose steps do not hold; None without a step check.
    """

    student: str
    arm: str
    num_samples: int
    measure: str
    num_problems: int
    accuracy: Estimate
    by_seed: tuple[float, ...]
    base: float | None
    difference: Comparison | None
    false_positives: Estimate | None

    @property
    def false_positive_rate(self) -> float | None:
        """The value of `false_positives` alone."""
        return None if self.false_positives is None else self.false_positives.value


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFound:
    """One round of an arm's self-training of one student. Amounts are means over the runs, one a seed.

    Args:
        samples: drawn for this round.
        correct: of these, with a right answer.
        rows: of the training set.
        draw_flops: useful FLOPs of drawing; the first round's data is drawn once for all students.
        train_flops: useful FLOPs of training, over all learning rates.
        accuracy: greedy on the test set after the round, over problems and seeds; None until every seed is measured.
    """

    student: str
    arm: str
    num_samples: int
    round: int
    num_runs: int
    samples: float
    correct: float
    rows: float
    draw_flops: float
    train_flops: float
    accuracy: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that is known so far."""

    arms: tuple[ArmFound, ...]
    students: tuple[StudentFound, ...]
    rounds: tuple[RoundFound, ...] = ()


def collect_results(store: Store, comparison_id: str, spec: ComparisonSpec) -> Results:
    """Reads what a comparison's children have found so far.

    Raises:
        CorruptFile: a committed file of scores cannot be read.
    """
    children = store.reads.children(comparison_id)
    return Results(
        arms=tuple(
            found
            for num_samples in spec.budgets
            for arm in spec.arms
            if (found := _arm(children, arm, num_samples)) is not None
        ),
        students=tuple(_students(store, children, spec)),
        rounds=tuple(_rounds(store, children, spec)),
    )


def _arm(children: Mapping[str, Child], arm: ArmSpec, num_samples: int) -> ArmFound | None:
    drawn = children.get(f"draw/{cell(arm.name, num_samples)}")
    if drawn is None or not drawn.is_done:
        return None
    selected = done(children, f"select/{cell(arm.name, num_samples)}")
    judged = done(children, f"judge/{cell(arm.name, num_samples)}")
    return ArmFound(
        arm=arm.name,
        num_samples=num_samples,
        job_id=drawn.id,
        samples=drawn.num_samples,
        correct=drawn.num_correct,
        useful_flops=drawn.useful_flops,
        rows=None if selected is None else selected.num_rows,
        dataset=None if selected is None or selected.dataset is None else selected.dataset[0],
        judge_flops=0.0 if judged is None else judged.useful_flops,
    )


def _students(store: Store, children: Mapping[str, Child], spec: ComparisonSpec) -> list[StudentFound]:
    reader = _Reader(store, children, spec)
    found: list[StudentFound] = []
    for student in spec.students:
        for num_samples in spec.budgets:
            for measure in reader.measures():
                runs = {arm.name: reader.runs(student, arm, num_samples, measure) for arm in spec.arms}
                reference = runs[spec.reference]
                for arm, values in runs.items():
                    if values is None:
                        continue
                    is_compared = arm != spec.reference and reference is not None
                    found.append(
                        StudentFound(
                            student=student.name,
                            arm=arm,
                            num_samples=num_samples,
                            measure=measure,
                            num_problems=values.shape[1],
                            accuracy=mean_of_runs(values, resamples=RESAMPLES, seed=SEED),
                            by_seed=tuple(values.mean(axis=1).tolist()),
                            base=reader.base(student, measure),
                            difference=compare_runs(values, reference, resamples=RESAMPLES, seed=SEED)
                            if is_compared and reference is not None
                            else None,
                            false_positives=reader.false_positives(student, arm, num_samples)
                            if measure == "greedy"
                            else None,
                        )
                    )
    return found


def _rounds(store: Store, children: Mapping[str, Child], spec: ComparisonSpec) -> Iterator[RoundFound]:
    """Rounds that every seed has trained, of arms that have several."""
    reader = _Reader(store, children, spec)
    for student, num_samples, arm in itertools.product(spec.students, spec.budgets, spec.arms):
        for round_ in range(1, arm.rounds + 1) if arm.rounds > 1 else ():
            runs = [_run_of_round(children, spec, student, arm, num_samples, seed, round_) for seed in spec.seeds]
            amounts = np.array([run for run in runs if run is not None])
            if len(amounts) < len(runs):
                break
            samples, correct, rows, draw_flops, train_flops = amounts.mean(axis=0).tolist()
            accuracy = reader.after_round(student, arm, num_samples, round_)
            yield RoundFound(
                student=student.name,
                arm=arm.name,
                num_samples=num_samples,
                round=round_,
                num_runs=len(runs),
                samples=samples,
                correct=correct,
                rows=rows,
                draw_flops=draw_flops,
                train_flops=train_flops,
                accuracy=None if accuracy is None else mean_of_runs(accuracy, resamples=RESAMPLES, seed=SEED),
            )


def _run_of_round(
    children: Mapping[str, Child],
    spec: ComparisonSpec,
    student: StudentSpec,
    arm: ArmSpec,
    num_samples: int,
    seed: int,
    round_: int,
) -> tuple[float, float, float, float, float] | None:
    """Samples, right ones, rows, FLOPs of drawing and of training of one seed; None until it is trained."""
    data = data_name(student.name, arm, num_samples, seed, round_)
    drawn, selected = done(children, f"draw/{data}"), done(children, f"select/{data}")
    trained = [done(children, key) for key in train_keys(spec, student, arm, num_samples, seed, round_)]
    ended = [child for child in trained if child is not None]
    if drawn is None or selected is None or len(ended) < len(trained):
        return None
    train_flops = sum(child.useful_flops for child in ended)
    return drawn.num_samples, drawn.num_correct, selected.num_rows, drawn.useful_flops, train_flops


class _Reader:
    """Accuracies of evaluation jobs, each file read once."""

    def __init__(self, store: Store, children: Mapping[str, Child], spec: ComparisonSpec) -> None:
        self._store, self._children, self._spec = store, children, spec

    def measures(self) -> list[str]:
        """Names of what students are measured by."""
        votes = [f"maj@{k}" for k in self._spec.evaluate.maj_at]
        return ["greedy", *votes, *(["transfer"] if Split.transfer in self._spec.problems else [])]

    def runs(self, student: StudentSpec, arm: ArmSpec, num_samples: int, measure: str) -> Floats | None:
        """Accuracy by seed and problem [seeds, problems]; None unless every seed is measured."""
        names = [run_name(student.name, arm.name, num_samples, seed) for seed in self._spec.seeds]
        return self._all([self._accuracy(name, measure) for name in names])

    def after_round(self, student: StudentSpec, arm: ArmSpec, num_samples: int, round_: int) -> Floats | None:
        """Greedy accuracy after a round, as in `runs`."""
        names = [measured_name(student.name, arm, num_samples, seed, round_) for seed in self._spec.seeds]
        return self._all([self._accuracy(name, "greedy") for name in names])

    @staticmethod
    def _all(rows: Sequence[Floats | None]) -> Floats | None:
        known = [row for row in rows if row is not None]
        return np.stack(known) if known and len(known) == len(rows) else None

    def base(self, student: StudentSpec, measure: str) -> float | None:
        """Accuracy of the student before training."""
        values = self._accuracy(f"base/{student.base}", measure)
        return None if values is None else float(values.mean())

    def false_positives(self, student: StudentSpec, arm: str, num_samples: int) -> Estimate | None:
        """Of the right greedy answers of all seeds, the share whose steps do not hold."""
        names = [run_name(student.name, arm, num_samples, seed) for seed in self._spec.seeds]
        jobs = [done(self._children, f"greedy/{name}") for name in names]
        job_ids = [job.id for job in jobs if job is not None]
        if len(job_ids) < len(jobs):
            return None
        return false_positives(self._store, job_ids, self._spec.scorers)

    def _accuracy(self, name: str, measure: str) -> Floats | None:
        job = done(self._children, f"{job_key(measure)}/{name}")
        return None if job is None else accuracy_by_problem(self._store, job.id, self._spec.scorers, measure)
