"""A comparison as a graph: which jobs, selections and finetunes come next, from those that are there.

Pure. A node has a key that says what it is for, `draw/<arm>@<n>` or `train/<student>/<arm>@<n>/seed-<s>`, and becomes
due when what it needs has succeeded. A longer comparison asks only for the nodes it has more.

    draw/<reference>@<n> -> draw/<arm>@<n> -> select/<arm>@<n> -> train/<student>/<arm>@<n>/seed-<s>[/lr-<r>]
        -> validate/.../step-<k> -> greedy, majority and transfer of the best checkpoint

Between draw and select an arm that keeps what is judged right has `ask/<arm>@<n> -> judge/<arm>@<n>`, see `judging`.

In an arm with rounds the best checkpoint draws the data of the next round, each seed of each student its own:

    ... train/<run>/round-1 -> validate -> greedy/<run>/round-1, draw/<run>/round-2 -> select/<run>/round-2
        -> train/<run>/round-2 -> ... -> greedy/<run>, majority/<run>, transfer/<run> after the last round

Must not import the store.
"""

from collections.abc import Callable, Iterator, Mapping

from service.checkpoints import checkpoint_steps
from service.experiments.judging import selection_nodes
from service.experiments.nodes import (
    Child,
    Node,
    budget_of,
    draw_node,
    evaluation_node,
    share_of_round,
    tests_of,
    train_node,
    votes_of,
)
from service.experiments.spec import (
    ArmSpec,
    ComparisonSpec,
    ComparisonWork,
    EvaluationSpec,
    EvaluationWork,
    Split,
    StudentSpec,
)
from service.models import ModelSpec
from service.selection.spec import Keep

Children = Mapping[str, Child]
ManifestPath = Callable[[str], str]
"""Where the last manifest of a job lies, by its id."""


def due_nodes(spec: ComparisonSpec, work: ComparisonWork, children: Children, manifest: ManifestPath) -> list[Node]:
    """Nodes that can be submitted now and were not yet, in the order in which they should run."""
    return [node for node in _possible(spec, work, children, manifest) if node.key not in children]


def due_of_evaluation(spec: EvaluationSpec, work: EvaluationWork, children: Children) -> list[Node]:
    """The jobs that measure one model: one greedy completion a problem, and several that vote."""
    nodes = [
        evaluation_node(spec, what, work.model, work.problems, num_samples, spec.max_problems)
        for what, num_samples in (("greedy", 1), *votes_of(spec))
    ]
    return [node for node in nodes if node.key not in children]


def planned_nodes(spec: ComparisonSpec) -> dict[str, int]:
    """Nodes of the complete comparison by how their keys begin, in the order in which they run; none without any."""
    runs = len(spec.budgets) * len(spec.students) * len(spec.seeds)
    tested = runs * len(spec.arms) + len({student.base for student in spec.students})
    # a round after the first draws and selects for each run, and one before the last is measured once
    later = sum(runs * (arm.rounds - 1) for arm in spec.arms)
    data = {arm.name: len(spec.budgets) + runs * (arm.rounds - 1) for arm in spec.arms}
    judged = sum(data[arm.name] for arm in spec.arms if spec.keep_of(arm) is Keep.judged)
    steps = [
        share_of_round(spec.training.steps, arm.rounds, round_)
        for arm in spec.arms
        for round_ in range(1, arm.rounds + 1)
    ]
    validated = sum(len(checkpoint_steps(number, spec.training.num_checkpoints)) for number in steps)
    planned = {
        "draw": sum(data.values()),
        "ask": judged,
        "judge": judged,
        "select": sum(data.values()),
        "train": len(steps) * runs * len(spec.learning_rates),
        "validate": validated * runs * len(spec.learning_rates),
    }
    for what, _, _ in tests_of(spec):
        planned[what] = tested + (later if what == "greedy" else 0)
    return {stage: number for stage, number in planned.items() if number}


def count_nodes(spec: ComparisonSpec) -> int:
    """How many nodes the comparison has when it is complete."""
    return sum(planned_nodes(spec).values())


def best_checkpoint(
    spec: ComparisonSpec,
    children: Children,
    student: StudentSpec,
    arm: ArmSpec,
    num_samples: int,
    seed: int,
    round_: int | None = None,
) -> ModelSpec | None:
    """The checkpoint with the highest validation accuracy over steps and learning rates, the earliest of equals.

    None while any of them is not measured.

    Args:
        round_: of the arm's rounds; None is the last.
    """
    best: tuple[float, ModelSpec] | None = None
    for key in train_keys(spec, student, arm, num_samples, seed, round_ or arm.rounds):
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


def data_name(student: str, arm: ArmSpec, num_samples: int, seed: int, round_: int) -> str:
    """What a round's data is called: all students share the first round's, later ones are a run's own."""
    if round_ == 1:
        return cell(arm.name, num_samples)
    return f"{run_name(student, arm.name, num_samples, seed)}/round-{round_}"


def measured_name(student: str, arm: ArmSpec, num_samples: int, seed: int, round_: int) -> str:
    """What a student is called after a round; after the last one it is the run's name alone."""
    name = run_name(student, arm.name, num_samples, seed)
    return name if round_ == arm.rounds else f"{name}/round-{round_}"


def train_key(
    spec: ComparisonSpec,
    student: StudentSpec,
    arm: ArmSpec,
    num_samples: int,
    seed: int,
    rate: float,
    round_: int = 1,
) -> str:
    """Key of a finetune; its round and learning rate stand in it only where there are several."""
    name = f"train/{run_name(student.name, arm.name, num_samples, seed)}"
    name = name if arm.rounds == 1 else f"{name}/round-{round_}"
    return name if len(spec.learning_rates) == 1 else f"{name}/lr-{rate:g}"


def train_keys(
    spec: ComparisonSpec, student: StudentSpec, arm: ArmSpec, num_samples: int, seed: int, round_: int
) -> list[str]:
    """Keys of the finetunes of one round of a run, one a learning rate."""
    return [train_key(spec, student, arm, num_samples, seed, rate, round_) for rate in spec.learning_rates]


def _possible(spec: ComparisonSpec, work: ComparisonWork, children: Children, manifest: ManifestPath) -> Iterator[Node]:
    for num_samples in spec.budgets:
        yield from _draws(spec, work, children, num_samples)
    for base in dict.fromkeys(student.base for student in spec.students):
        yield from _test_nodes(spec, work, f"base/{base}", work.model(base))
    for num_samples in spec.budgets:
        for arm in spec.arms:
            name = cell(arm.name, num_samples)
            yield from selection_nodes(spec, work, children, arm, name, manifest)
            for student in spec.students:
                for seed in spec.seeds:
                    yield from _run(spec, work, children, manifest, student, arm, num_samples, seed)


def _draws(spec: ComparisonSpec, work: ComparisonWork, children: Children, num_samples: int) -> Iterator[Node]:
    reference = children.get(f"draw/{cell(spec.reference, num_samples)}")
    for arm in sorted(spec.arms, key=lambda arm: arm.name != spec.reference):
        budget = budget_of(spec, work, arm, num_samples, reference)
        if budget is not None:
            key = f"draw/{cell(arm.name, num_samples)}"
            # no arm's name: two arms that ask for the same samples draw them once
            title = f"{' and '.join(arm.models)}, {num_samples} samples' worth of {spec.reference}"
            models = [work.model(name) for name in arm.models]
            yield draw_node(spec, work, key, arm, models=models, budget=budget, title=title)


def _run(
    spec: ComparisonSpec,
    work: ComparisonWork,
    children: Children,
    manifest: ManifestPath,
    student: StudentSpec,
    arm: ArmSpec,
    num_samples: int,
    seed: int,
) -> Iterator[Node]:
    """Training, validation and tests of one student on one arm's data with one seed, round after round."""
    start = work.model(student.base)
    drawn: list[str] = []
    for round_ in range(1, arm.rounds + 1):
        data = data_name(student.name, arm, num_samples, seed, round_)
        if round_ > 1:
            reference = children.get(f"draw/{cell(spec.reference, num_samples)}")
            budget = budget_of(spec, work, arm, num_samples, reference)
            assert budget is not None, "the first round was drawn with it"
            yield draw_node(
                spec,
                work,
                f"draw/{data}",
                arm,
                models=[start],
                budget=budget,
                title=data,
                round_=round_,
                history=drawn,
            )
            yield from selection_nodes(spec, work, children, arm, data, manifest)
        selected = children.get(f"select/{data}")
        if selected is None or selected.dataset is None:
            return
        drawn.append(children[f"draw/{data}"].id)
        base = start if arm.warm_start else work.model(student.base)
        for rate in spec.learning_rates:
            key = train_key(spec, student, arm, num_samples, seed, rate, round_)
            yield train_node(
                spec, key, base=base, selected=selected, seed=seed, rate=rate, rounds=arm.rounds, round_=round_
            )
            run = children.get(key)
            for checkpoint in run.checkpoints if run is not None else ():
                measured = _validate_key(key, checkpoint)
                if measured not in children:  # most nodes by far are these, and not made only to be thrown away
                    yield evaluation_node(spec, measured, checkpoint, work.sets[Split.validation], 1)
        best = best_checkpoint(spec, children, student, arm, num_samples, seed, round_)
        if best is None:
            return
        name = measured_name(student.name, arm, num_samples, seed, round_)
        if round_ == arm.rounds:
            yield from _test_nodes(spec, work, name, best)
        else:
            yield evaluation_node(spec, f"greedy/{name}", best, work.sets[Split.test], 1)
        start = best


def _test_nodes(spec: ComparisonSpec, work: ComparisonWork, name: str, model: ModelSpec) -> Iterator[Node]:
    for what, split, num_samples in tests_of(spec):
        yield evaluation_node(spec, f"{what}/{name}", model, work.sets[split], num_samples)


def _validate_key(train: str, checkpoint: ModelSpec) -> str:
    return f"validate/{train.removeprefix('train/')}/{checkpoint.name.rpartition('/')[2]}"
