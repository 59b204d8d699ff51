"""Which nodes a comparison asks for, and when."""

import dataclasses
from collections import Counter
from contextlib import nullcontext

import pytest

from service.artifacts import checkpoint_model
from service.checkpoints import checkpoint_steps
from service.currency import Budget, Currency
from service.errors import InvalidInput
from service.experiments.graph import best_checkpoint, count_nodes, due_nodes, planned_nodes
from service.experiments.nodes import Child, Node, budget_of
from service.experiments.spec import (
    ArmSpec,
    ComparisonSpec,
    ComparisonWork,
    EvaluateSpec,
    JudgeSpec,
    Lengths,
    MatchBy,
    ResolvedSet,
    Split,
    StudentSpec,
)
from service.finetunes import FinetuneSpec, TrainingSpec
from service.jobs import AllocationSpec, JobSpec, Phase, Resolved
from service.models import ModelSpec
from service.pricing import Price
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
LARGE_ARM = ArmSpec(name="large", models=("large",))
STAR = ArmSpec(name="star", models=("small",), rounds=3, allocation=AllocationSpec(strategy="adastar", collect=7))
RUN = "self/star@4/seed-0"


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
            child = Child(id=f"select-{number}", phase=Phase.succeeded, dataset=("/set.parquet", "0"), num_rows=7)
        elif isinstance(node.work, FinetuneWork):
            training = node.work.training
            steps = checkpoint_steps(training.steps, training.num_checkpoints)
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


def test_arm_that_keeps_what_is_judged_right_asks_a_judge_before_it_selects() -> None:
    judge = JudgeSpec(model="large", template="{question} {completion}?", votes=3)
    judged = ArmSpec(name="judged", models=("small",), keep=Keep.judged)
    graph = Graph(make_spec(arms=(*make_spec().arms, judged), judge=judge))
    graph.due()
    graph.succeed("draw/large@4", useful_flops=3e9)
    graph.due()
    for key in ("draw/small@4", "draw/judged@4"):
        graph.succeed(key)

    assert "ask/judged@4" in graph.due()
    assert not {"select/judged@4", "judge/judged@4", "ask/small@4"} & set(graph.nodes)
    graph.succeed("ask/judged@4", id="select-5-a", dataset=("/asked/part.parquet", "abc"))
    graph.due()
    asked, job = graph.nodes["ask/judged@4"].spec, graph.nodes["judge/judged@4"]
    assert isinstance(asked, SelectionSpec)
    assert (asked.keep, asked.ask, asked.judges) == (Keep.correct, judge.template, ())
    assert isinstance(job.spec, JobSpec)
    assert isinstance(job.work, Resolved)
    assert (job.spec.problems, job.spec.models, job.spec.stage) == ("select-5-a", ("large",), "judge")
    assert (job.spec.budget.limit, job.work.num_problems) == (3 * 7, 7)
    assert job.work.problems_path == "/asked/questions.parquet"
    graph.succeed("judge/judged@4", id="job-9")
    graph.due()
    selected = graph.nodes["select/judged@4"]
    assert isinstance(selected.spec, SelectionSpec)
    assert isinstance(selected.work, SelectWork)
    assert (selected.spec.keep, selected.spec.judges) == (Keep.judged, ("job-9",))
    assert [(each.job_id, each.problems_path) for each in selected.work.judges] == [
        ("job-9", "/asked/questions.parquet")
    ]
    graph.finish()
    assert Counter(key.partition("/")[0] for key in graph.children) == planned_nodes(graph.spec)


def test_rounds_that_keep_what_is_judged_right_ask_in_every_round() -> None:
    judge = JudgeSpec(model="large", template="{question} {completion}?")
    star = dataclasses.replace(STAR, keep=Keep.judged)
    graph = Graph(make_spec(arms=(LARGE_ARM, star), judge=judge))

    graph.finish()

    assert sorted(key for key in graph.children if key.startswith("judge/")) == [
        f"judge/{RUN}/round-2",
        f"judge/{RUN}/round-3",
        "judge/star@4",
    ]
    assert Counter(key.partition("/")[0] for key in graph.children) == planned_nodes(graph.spec)


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
        make_spec(students=()),
        make_spec(problems={split: f"sums/{split}" for split in Split if split is not Split.transfer}),
        make_spec(arms=(STAR, LARGE_ARM), seeds=(0, 1), learning_rates=(1e-3, 1e-2)),
    ):
        graph = Graph(spec)
        graph.finish()
        assert Counter(key.partition("/")[0] for key in graph.children) == planned_nodes(spec)
        assert len(graph.children) == count_nodes(spec)


def test_longer_comparison_asks_only_for_what_it_has_more() -> None:
    graph = Graph(make_spec())
    graph.finish()
    before = dict(graph.nodes)

    graph.spec = make_spec(seeds=(0, 1))
    more = graph.due()

    assert more == ["train/self/small@4/seed-1", "train/self/large@4/seed-1"]
    assert all(graph.nodes[key] == node for key, node in before.items())


def run_of_rounds(**changes: object) -> Graph:
    """The graph of an arm that trains itself, done."""
    graph = Graph(make_spec(arms=(dataclasses.replace(STAR, **changes), LARGE_ARM)))  # type: ignore[arg-type]
    graph.finish()
    return graph


def test_round_is_drawn_by_the_best_checkpoint_of_the_one_before() -> None:
    graph = run_of_rounds()

    for round_, draw in ((2, f"draw/{RUN}/round-2"), (3, f"draw/{RUN}/round-3")):
        before = best_checkpoint(
            graph.spec, graph.children, graph.spec.students[0], graph.spec.arms[0], 4, 0, round_ - 1
        )
        spec = graph.nodes[draw].spec
        assert isinstance(spec, JobSpec)
        assert before is not None
        assert spec.models == (before.name,)
        assert spec.stage == "generate"
        assert before.pool == "small"


def test_arm_matched_by_usd_gets_what_the_reference_usefully_spent() -> None:
    arm = ArmSpec(name="small", models=("small",), match=MatchBy.usd)
    reference = Child(id="job-1", phase=Phase.succeeded, useful_nano_usd=86_400_123.0)

    found = budget_of(make_spec(), WORK, arm, 4, reference)

    assert found == Budget(currency=Currency.usd, limit=86_400_123)
    assert budget_of(make_spec(), WORK, arm, 4, None) is None


def test_arm_that_is_free_is_not_matched_by_usd_unless_a_cap_ends_it() -> None:
    free = ComparisonWork(models=(LARGE, dataclasses.replace(SMALL, price=Price(input_usd=0, output_usd=0))), sets=SETS)
    arm = ArmSpec(name="small", models=("small",), match=MatchBy.usd)

    with pytest.raises(InvalidInput, match="small: got match by usd with small, which is free"):
        budget_of(make_spec(), free, arm, 4, None)
    capped = dataclasses.replace(arm, allocation=AllocationSpec(strategy="until_correct", max_samples=8))
    assert budget_of(make_spec(), free, capped, 4, None) is None


@pytest.mark.parametrize(("useful_flops", "said"), [(2e6, "nothing for each of 3 rounds"), (3e6, None)])
def test_rounds_that_the_reference_leaves_nothing_for_are_refused(useful_flops: float, said: str | None) -> None:
    spec = make_spec(arms=(LARGE_ARM, STAR))
    drawn = Child(id="job-1-aa", phase=Phase.succeeded, useful_flops=useful_flops)

    with pytest.raises(InvalidInput, match=said) if said else nullcontext():
        assert budget_of(spec, WORK, STAR, 4, drawn) == Budget(currency=Currency.flops, limit=3)


def test_rounds_share_the_budget_and_the_steps_to_the_last_unit() -> None:
    graph = run_of_rounds()
    draws = [graph.nodes[key].spec for key in ("draw/star@4", f"draw/{RUN}/round-2", f"draw/{RUN}/round-3")]
    trainings = [graph.nodes[f"train/{RUN}/round-{round_}"].work for round_ in (1, 2, 3)]

    assert sum(spec.budget.limit for spec in draws if isinstance(spec, JobSpec)) == 3000  # 3e9 FLOPs in MFLOP
    assert [work.training.steps for work in trainings if isinstance(work, FinetuneWork)] == [6, 7, 7]


def test_adastar_learns_of_all_rounds_before() -> None:
    graph = run_of_rounds()
    ids = [graph.children[key].id for key in ("draw/star@4", f"draw/{RUN}/round-2")]
    last, first = graph.nodes[f"draw/{RUN}/round-3"].spec, graph.nodes["draw/star@4"].spec
    assert isinstance(last, JobSpec)
    assert isinstance(first, JobSpec)

    assert last.allocation == AllocationSpec(strategy="adastar", collect=7, history=tuple(ids))
    assert last.seed == first.seed, "of equal keys the same problem comes first in every round"
    assert first.allocation.history == ()


def test_other_strategies_are_told_no_history_and_draw_in_another_order_each_round() -> None:
    graph = run_of_rounds(allocation=AllocationSpec())
    specs = [graph.nodes[f"draw/{RUN}/round-{round_}"].spec for round_ in (2, 3)]

    assert [(spec.allocation, spec.seed) for spec in specs if isinstance(spec, JobSpec)] == [
        (AllocationSpec(), 1),
        (AllocationSpec(), 2),
    ]


def test_warm_start_trains_on_from_the_checkpoint_a_cold_one_from_the_base() -> None:
    warm, cold = run_of_rounds(), run_of_rounds(warm_start=False)
    drawn_by = warm.nodes[f"draw/{RUN}/round-2"].spec
    assert isinstance(drawn_by, JobSpec)

    bases = [graph.nodes[f"train/{RUN}/round-2"].spec for graph in (warm, cold)]
    assert [spec.base for spec in bases if isinstance(spec, FinetuneSpec)] == [drawn_by.models[0], "small"]


def test_student_is_measured_after_each_round_and_wholly_after_the_last() -> None:
    graph = run_of_rounds()

    tests = {key for key in graph.nodes if key.partition("/")[0] in ("greedy", "majority", "transfer")}
    assert {key for key in tests if "star" in key} == {
        f"greedy/{RUN}/round-1",
        f"greedy/{RUN}/round-2",
        *(f"{what}/{RUN}" for what in ("greedy", "majority", "transfer")),
    }


def test_nominal_matching_needs_nothing_to_have_run() -> None:
    half = dataclasses.replace(COST, parameters=COST.parameters // 2)
    work = dataclasses.replace(WORK, models=(LARGE, dataclasses.replace(SMALL, cost=half)))
    spec = make_spec(match=MatchBy.nominal_paper, lengths=Lengths(prompt_tokens=8, completion_tokens=16))

    draws = {node.key: node.spec for node in due_nodes(spec, work, {}, manifest) if node.key.startswith("draw/")}
    found = draws["draw/small@4"]
    assert isinstance(found, JobSpec)
    assert (found.budget.currency, found.budget.limit) == (Currency.samples, 80)
