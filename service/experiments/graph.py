"""A comparison as a graph: which jobs, selections and finetunes come next, from those that are there.

Pure. A node has a key that says what it is for, `draw/<arm>@<n>` or `train/<student>/<arm>@<n>/seed-<s>`, and becomes
due when what it needs has succeeded. Its document follows from the comparison and from results of earlier nodes alone,
so that the same comparison asks for the same nodes again, and a longer one only for those it has more.

    draw/<reference>@<n> -> draw/<arm>@<n> -> select/<arm>@<n> -> train/<student>/<arm>@<n>/seed-<s>[/lr-<r>]
        -> validate/.../step-<k> -> greedy, majority and transfer of the best checkpoint
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from service.currency import Budget, Currency, to_amount
from service.experiments.spec import (
    ArmSpec,
    ComparisonSpec,
    ComparisonWork,
    EvaluationSpec,
    EvaluationWork,
    MatchBy,
    ResolvedSet,
    Split,
    StudentSpec,
)
from service.finetunes import FinetuneSpec
from service.jobs import Desired, JobSpec, Phase, Resolved, SamplingSpec
from service.models import ModelSpec
from service.selection.spec import SelectionSource, SelectionSpec
from service.work import FinetuneWork, SelectSource, SelectWork

NodeSpec = JobSpec | SelectionSpec | FinetuneSpec
NodeWork = Resolved | SelectWork | FinetuneWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Something to submit."""

    key: str
    spec: NodeSpec
    work: NodeWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A node that was submitted, and what is known of it.

    Args:
        is_shared: another comparison that goes on needs it as well.
        useful_flops: exact accounting, of a job that draws data.
        num_samples: committed rows of a job.
        num_correct: those whose answer is right.
        checkpoints: of a finetune, by step.
        dataset: path and sha256 of a selection's training set.
    """

    id: str
    phase: Phase
    desired: Desired = Desired.run
    is_shared: bool = False
    useful_flops: float = 0.0
    useful_flops_paper: float = 0.0
    num_samples: int = 0
    num_correct: int = 0
    checkpoints: tuple[ModelSpec, ...] = ()
    dataset: tuple[str, str] | None = None

    @property
    def is_done(self) -> bool:
        """Whether its results are there."""
        return self.phase.is_done

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.num_correct / self.num_samples if self.num_samples else 0.0


Children = Mapping[str, Child]
ManifestPath = Callable[[str], str]
"""Where the last manifest of a job lies, by its id."""


def due_nodes(spec: ComparisonSpec, work: ComparisonWork, children: Children, manifest: ManifestPath) -> list[Node]:
    """Nodes that can be submitted now and were not yet, in the order in which they should run."""
    return [node for node in _possible(spec, work, children, manifest) if node.key not in children]


def due_of_evaluation(spec: EvaluationSpec, work: EvaluationWork, children: Children) -> list[Node]:
    """The jobs that measure one model: one greedy completion a problem, and several that vote."""
    nodes = [
        _evaluation(spec, what, work.model, work.problems, num_samples, spec.max_problems)
        for what, num_samples in (("greedy", 1), *_votes(spec))
    ]
    return [node for node in nodes if node.key not in children]


def count_nodes(spec: ComparisonSpec) -> int:
    """How many nodes the comparison has when it is complete."""
    cells = len(spec.budgets) * len(spec.arms)
    runs = cells * len(spec.students) * len(spec.seeds)
    trained = runs * len(spec.learning_rates)
    num_tests = len(_tests(spec))
    bases = len({student.base for student in spec.students})
    return cells * 2 + trained * (1 + spec.training.num_checkpoints) + (runs + bases) * num_tests


def best_checkpoint(
    spec: ComparisonSpec, children: Children, student: StudentSpec, arm: ArmSpec, num_samples: int, seed: int
) -> ModelSpec | None:
    """The checkpoint with the highest validation accuracy over steps and learning rates, the earliest of equals.

    None while any of them is not measured.
    """
    best: tuple[float, ModelSpec] | None = None
    for rate in spec.learning_rates:
        key = train_key(spec, student, arm, num_samples, seed, rate)
        run = children.get(key)
        if run is None or not run.is_done:
            return None
        for checkpoint in run.checkpoints:
            measured = children.get(_validate_key(key, checkpoint))
            if measured is None or not measured.is_done:
                return None
            if best is None or measured.accuracy > best[0]:
                best = (measured.accuracy, checkpoint)
    return None if best is None else best[1]


def cell(arm: str, num_samples: int) -> str:
    """Name of an arm at a budget."""
    return f"{arm}@{num_samples}"


def run_name(student: str, arm: str, num_samples: int, seed: int) -> str:
    """Name of one student trained with one seed on one arm's data."""
    return f"{student}/{cell(arm, num_samples)}/seed-{seed}"


def train_key(
    spec: ComparisonSpec, student: StudentSpec, arm: ArmSpec, num_samples: int, seed: int, rate: float
) -> str:
    """Key of a finetune; its learning rate stands in it only where there are several."""
    name = f"train/{run_name(student.name, arm.name, num_samples, seed)}"
    return name if len(spec.learning_rates) == 1 else f"{name}/lr-{rate:g}"


def _possible(spec: ComparisonSpec, work: ComparisonWork, children: Children, manifest: ManifestPath) -> Iterator[Node]:
    for num_samples in spec.budgets:
        yield from _draws(spec, work, children, num_samples)
    for base in dict.fromkeys(student.base for student in spec.students):
        yield from _test_nodes(spec, work, f"base/{base}", work.model(base))
    for num_samples in spec.budgets:
        for arm in spec.arms:
            yield from _selection(spec, work, children, arm, num_samples, manifest)
            for student in spec.students:
                for seed in spec.seeds:
                    yield from _run(spec, work, children, student, arm, num_samples, seed)


def _draws(spec: ComparisonSpec, work: ComparisonWork, children: Children, num_samples: int) -> Iterator[Node]:
    reference = children.get(f"draw/{cell(spec.reference, num_samples)}")
    num_problems = _num_problems(spec, work)
    for arm in sorted(spec.arms, key=lambda arm: arm.name != spec.reference):
        by = arm.match or spec.match
        if arm.name == spec.reference or by is MatchBy.number:
            budget = Budget(currency=Currency.samples, limit=num_samples * num_problems)
        elif reference is None or not reference.is_done:
            continue
        elif by is MatchBy.flops:
            budget = Budget(currency=Currency.flops, limit=to_amount(Currency.flops, reference.useful_flops))
        else:
            limit = to_amount(Currency.flops_paper, reference.useful_flops_paper)
            budget = Budget(currency=Currency.flops_paper, limit=limit)
        job = JobSpec(
            name=f"{arm.name}, {num_samples} samples' worth of {spec.reference}"[:200],
            problems=spec.problems[Split.train],
            models=arm.models,
            budget=budget,
            allocation=arm.allocation,
            prompt=spec.prompt,
            sampling=arm.sampling or spec.sampling,
            scorers=spec.scorers,
            seed=spec.seed,
            max_problems=spec.max_problems,
        )
        models = tuple(work.model(name) for name in arm.models)
        resolved = _resolved(work.sets[Split.train], models, num_problems)
        yield Node(key=f"draw/{cell(arm.name, num_samples)}", spec=job, work=resolved)


def _selection(
    spec: ComparisonSpec,
    work: ComparisonWork,
    children: Children,
    arm: ArmSpec,
    num_samples: int,
    manifest: ManifestPath,
) -> Iterator[Node]:
    drawn = children.get(f"draw/{cell(arm.name, num_samples)}")
    if drawn is None or not drawn.is_done:
        return
    held_out = [work.sets[split] for split in Split if split is not Split.train and split in work.sets]
    selection = SelectionSpec(
        name=f"{cell(arm.name, num_samples)} of {drawn.id}"[:200],
        sources=(SelectionSource(job=drawn.id),),
        keep=arm.keep or spec.selection.keep,
        duplicates=spec.selection.duplicates,
        per_problem=spec.selection.per_problem,
        rows=spec.selection.rows,
        held_out=tuple(item.name for item in held_out),
        ngram=spec.selection.ngram,
        seed=spec.seed,
    )
    source = SelectSource(job_id=drawn.id, manifest_path=manifest(drawn.id), problems_path=work.sets[Split.train].path)
    paths = tuple(item.path for item in held_out)
    yield Node(
        key=f"select/{cell(arm.name, num_samples)}",
        spec=selection,
        work=SelectWork(spec=selection, sources=(source,), held_out=paths),
    )


def _run(
    spec: ComparisonSpec,
    work: ComparisonWork,
    children: Children,
    student: StudentSpec,
    arm: ArmSpec,
    num_samples: int,
    seed: int,
) -> Iterator[Node]:
    """Training, validation and tests of one student on one arm's data with one seed."""
    selected = children.get(f"select/{cell(arm.name, num_samples)}")
    if selected is None or selected.dataset is None:
        return
    name = run_name(student.name, arm.name, num_samples, seed)
    for rate in spec.learning_rates:
        training = dataclasses.replace(spec.training, seed=seed, learning_rate=rate)
        finetune = FinetuneSpec(name=name[:200], base=student.base, dataset=selected.id, training=training)
        path, sha256 = selected.dataset
        base = work.model(student.base)
        key = train_key(spec, student, arm, num_samples, seed, rate)
        yield Node(
            key=key,
            spec=finetune,
            work=FinetuneWork(base=base, dataset_path=path, dataset_sha256=sha256, training=training),
        )
        run = children.get(key)
        for checkpoint in run.checkpoints if run is not None else ():
            yield _evaluation(spec, _validate_key(key, checkpoint), checkpoint, work.sets[Split.validation], 1)
    best = best_checkpoint(spec, children, student, arm, num_samples, seed)
    if best is not None:
        yield from _test_nodes(spec, work, name, best)


def _test_nodes(spec: ComparisonSpec, work: ComparisonWork, name: str, model: ModelSpec) -> Iterator[Node]:
    for what, split, num_samples in _tests(spec):
        yield _evaluation(spec, f"{what}/{name}", model, work.sets[split], num_samples)


def _tests(spec: ComparisonSpec) -> list[tuple[str, Split, int]]:
    """What a finished student is measured by: name, problems, samples of each."""
    tests = [("greedy", Split.test, 1), *((what, Split.test, number) for what, number in _votes(spec))]
    if Split.transfer in spec.problems:
        tests.append(("transfer", Split.transfer, 1))
    return tests


def _votes(spec: ComparisonSpec | EvaluationSpec) -> list[tuple[str, int]]:
    """The job whose samples vote, if a vote is asked for: name and samples a problem."""
    return [("majority", max(spec.evaluate.maj_at))] if spec.evaluate.maj_at else []


def _evaluation(
    spec: ComparisonSpec | EvaluationSpec,
    key: str,
    model: ModelSpec,
    problems: ResolvedSet,
    num_samples: int,
    max_problems: int | None = None,
) -> Node:
    """A job that measures a model: one greedy completion a problem, or several that vote."""
    votes = key.partition("/")[0] == "majority"
    sampling = SamplingSpec(
        temperature=spec.evaluate.temperature if votes else 0.0,
        max_tokens=spec.sampling.max_tokens,
        stop=spec.sampling.stop,
    )
    num_problems = min(problems.num_problems, max_problems or problems.num_problems)
    job = JobSpec(
        name=f"{key.partition('/')[0]} of {model.name} on {problems.name}"[:200],
        problems=problems.name,
        models=(model.name,),
        budget=Budget(currency=Currency.samples, limit=num_samples * num_problems),
        prompt=spec.prompt,
        sampling=sampling,
        scorers=spec.scorers,
        seed=spec.seed,
        max_problems=max_problems,
        stage="evaluate",
    )
    return Node(key=key, spec=job, work=_resolved(problems, (model,), num_problems))


def _validate_key(train: str, checkpoint: ModelSpec) -> str:
    return f"validate/{train.removeprefix('train/')}/{checkpoint.name.rpartition('/')[2]}"


def _resolved(problems: ResolvedSet, models: tuple[ModelSpec, ...], num_problems: int) -> Resolved:
    return Resolved(
        models=models,
        problems_path=problems.path,
        num_problems=num_problems,
        problems_fingerprint=problems.fingerprint,
    )


def _num_problems(spec: ComparisonSpec, work: ComparisonWork) -> int:
    known = work.sets[Split.train].num_problems
    return min(known, spec.max_problems or known)
