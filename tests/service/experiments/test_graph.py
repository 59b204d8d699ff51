"""Which nodes a comparison asks for, and when."""

import dataclasses

from service.artifacts import checkpoint_model
from service.currency import Currency
from service.experiments.graph import Child, Node, best_checkpoint, count_nodes, due_nodes
from service.experiments.spec import (
    ArmSpec,
    ComparisonSpec,
    ComparisonWork,
    EvaluateSpec,
    MatchBy,
    ResolvedSet,
    Split,
    StudentSpec,
)
from service.finetunes import FinetuneSpec, TrainingSpec
from service.jobs import JobSpec, Phase
from service.models import ModelSpec
from service.selection.spec import Keep, SelectionSpec
from service.work import FinetuneWork, SelectWork
from tests.simulation.world import COST

LARGE = ModelSpec(name="large", path="/large", revision="sha256:l", context_len=64, cost=COST)
SMALL = dataclasses.replace(LARGE, name="small", path="/small", revision="sha256:s")
SETS = {
    split: ResolvedSet(name=f"sums/{split}", path=f"/{split}.parquet", num_problems=10, fingerprint="f")
    for split in Split
}
WORK = ComparisonWork(models=(LARGE, SMALL), sets=SETS)


def make_spec(**changes: object) -> ComparisonSpec:
    spec = ComparisonSpec(
        name="small against large",
        problems={split: f"sums/{split}" for split in Split},
        match=MatchBy.flops,
        reference="large",
        budgets=(4,),
        arms=(ArmSpec(name="small", models=("small",)), ArmSpec(name="large", models=("large",))),
        students=(StudentSpec(name="self", base="small"),),
        training=TrainingSpec(steps=20, num_checkpoints=2),
        learning_rates=(1e-3,),
        seeds=(0,),
        evaluate=EvaluateSpec(maj_at=(1, 4)),
    )
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def manifest(job_id: str) -> str:
    return f"/jobs/{job_id}/manifest.json"


class Graph:
    """Submits what is due and lets it succeed."""

    def __init__(self, spec: ComparisonSpec) -> None:
        self.spec = spec
        self.children: dict[str, Child] = {}
        self.nodes: dict[str, Node] = {}

    def due(self) -> list[str]:
        nodes = due_nodes(self.spec, WORK, self.children, manifest)
        self.nodes |= {node.key: node for node in nodes}
        return [node.key for node in nodes]

    def succeed(self, key: str, **facts: object) -> None:
        node = self.nodes[key]
        number = len(self.children) + 1
        child = Child(id=f"job-{number}", phase=Phase.succeeded, num_samples=10, num_correct=5)
        if isinstance(node.spec, SelectionSpec):
            child = Child(id=f"select-{number}", phase=Phase.succeeded, dataset=("/set.parquet", "0"))
        elif isinstance(node.work, FinetuneWork):
            steps = (10, 20)
            found = [
                checkpoint_model(node.work.base, f"finetune-{number}", step=step, path=f"/{step}/c.json", sha256="0")
                for step in steps
            ]
            child = Child(id=f"finetune-{number}", phase=Phase.succeeded, checkpoints=tuple(found))
        self.children[key] = dataclasses.replace(child, **facts)  # type: ignore[arg-type]

    def finish(self) -> None:
        while keys := self.due():
            for key in keys:
                self.succeed(key, **({"useful_flops": 3e9} if key.startswith("draw/") else {}))


def test_reference_draws_first_and_the_other_arm_gets_what_it_usefully_spent() -> None:
    graph = Graph(make_spec())

    assert [key for key in graph.due() if key.startswith("draw")] == ["draw/large@4"]
    graph.succeed("draw/large@4", useful_flops=3.2e9, useful_flops_paper=9e9)
    graph.due()

    reference, other = graph.nodes["draw/large@4"].spec, graph.nodes["draw/small@4"].spec
    assert isinstance(reference, JobSpec)
    assert isinstance(other, JobSpec)
    assert (reference.budget.currency, reference.budget.limit) == (Currency.samples, 40)
    assert (other.budget.currency, other.budget.limit) == (Currency.flops, 3200)
    assert (other.models, other.stage) == (("small",), "generate")


def test_arm_matched_by_number_waits_for_nobody() -> None:
    by_number = ArmSpec(name="small", models=("small",), match=MatchBy.number)
    graph = Graph(make_spec(arms=(by_number, ArmSpec(name="large", models=("large",)))))

    assert [key for key in graph.due() if key.startswith("draw")] == ["draw/large@4", "draw/small@4"]
    spec = graph.nodes["draw/small@4"].spec
    assert isinstance(spec, JobSpec)
    assert (spec.budget.currency, spec.budget.limit) == (Currency.samples, 40)


def test_arm_matched_in_paper_accounting_gets_the_reference_cost_in_it() -> None:
    graph = Graph(make_spec(match=MatchBy.flops_paper))
    graph.due()
    graph.succeed("draw/large@4", useful_flops=1.0, useful_flops_paper=7e9)
    graph.due()

    spec = graph.nodes["draw/small@4"].spec
    assert isinstance(spec, JobSpec)
    assert (spec.budget.currency, spec.budget.limit) == (Currency.flops_paper, 7000)


def test_selection_holds_out_everything_students_are_measured_on() -> None:
    graph = Graph(make_spec())
    graph.due()
    graph.succeed("draw/large@4", useful_flops=3e9)
    graph.due()

    work = graph.nodes["select/large@4"].work
    assert isinstance(work, SelectWork)
    assert work.held_out == ("/validation.parquet", "/test.parquet", "/transfer.parquet")
    assert work.sources[0].manifest_path == manifest(graph.children["draw/large@4"].id)


def test_arm_with_its_own_rule_selects_by_it() -> None:
    verified = ArmSpec(name="clean", models=("small",), match=MatchBy.number, keep=Keep.verified)
    graph = Graph(make_spec(arms=(verified, ArmSpec(name="large", models=("large",)))))
    graph.finish()

    spec = graph.nodes["select/clean@4"].spec
    assert isinstance(spec, SelectionSpec)
    assert spec.keep is Keep.verified


def test_runs_of_one_student_differ_in_data_and_seed_alone() -> None:
    graph = Graph(make_spec(seeds=(0, 1), learning_rates=(1e-3, 3e-3)))
    graph.finish()

    runs = {key: node.spec for key, node in graph.nodes.items() if key.startswith("train/")}
    assert len(runs) == 2 * 2 * 2
    specs = [spec for spec in runs.values() if isinstance(spec, FinetuneSpec)]
    assert {(spec.training.seed, spec.training.learning_rate) for spec in specs} == {
        (seed, rate) for seed in (0, 1) for rate in (1e-3, 3e-3)
    }
    assert {spec.training.steps for spec in specs} == {20}


def test_tests_wait_for_every_checkpoint_and_take_the_best_by_validation() -> None:
    spec = make_spec()
    graph = Graph(spec)
    while keys := [key for key in graph.due() if not key.startswith("validate/")]:
        for key in keys:
            graph.succeed(key, **({"useful_flops": 3e9} if key.startswith("draw/") else {}))
    arm, student = spec.arms[0], spec.students[0]
    first, second = (f"validate/self/small@4/seed-0/step-{step}" for step in (10, 20))

    graph.succeed(first, num_correct=3)
    assert best_checkpoint(spec, graph.children, student, arm, 4, 0) is None
    assert "greedy/self/small@4/seed-0" not in graph.due()
    graph.succeed(second, num_correct=2)

    best = best_checkpoint(spec, graph.children, student, arm, 4, 0)
    assert best is not None
    assert best.name.endswith("/step-10")
    assert "greedy/self/small@4/seed-0" in graph.due()
    greedy, vote = (graph.nodes[f"{what}/self/small@4/seed-0"].spec for what in ("greedy", "majority"))
    assert isinstance(greedy, JobSpec)
    assert isinstance(vote, JobSpec)
    assert (greedy.sampling.temperature, greedy.budget.limit, greedy.stage) == (0.0, 10, "evaluate")
    assert (vote.sampling.temperature, vote.budget.limit) == (0.7, 40)
    assert greedy.models == vote.models == (best.name,)


def test_equal_checkpoints_the_earlier_one_wins() -> None:
    spec = make_spec()
    graph = Graph(spec)
    graph.finish()

    best = best_checkpoint(spec, graph.children, spec.students[0], spec.arms[1], 4, 0)

    assert best is not None
    assert best.name.endswith("/step-10")


def test_graph_ends_with_as_many_nodes_as_were_counted() -> None:
    for spec in (
        make_spec(),
        make_spec(budgets=(1, 4), seeds=(0, 1, 2), learning_rates=(1e-3, 1e-2)),
        make_spec(evaluate=EvaluateSpec(maj_at=())),
        make_spec(problems={split: f"sums/{split}" for split in Split if split is not Split.transfer}),
    ):
        graph = Graph(spec)
        graph.finish()
        assert len(graph.children) == count_nodes(spec)


def test_longer_comparison_asks_only_for_what_it_has_more() -> None:
    graph = Graph(make_spec())
    graph.finish()
    before = dict(graph.nodes)

    graph.spec = make_spec(seeds=(0, 1))
    more = graph.due()

    assert more == ["train/self/small@4/seed-1", "train/self/large@4/seed-1"]
    assert all(graph.nodes[key] == node for key, node in before.items())
