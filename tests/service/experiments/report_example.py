"""A report made by hand: two arms, two budgets, two students, three seeds. Nothing here was measured."""

import dataclasses
from datetime import UTC, datetime

from service import report
from service.experiments.report import (
    ArmFacts,
    BudgetBought,
    LossCurve,
    ModelUsed,
    Progress,
    Report,
    SetUsed,
    Stage,
    StageCost,
    Teacher,
)
from service.experiments.report_figures import report_figures
from service.experiments.results import StudentFound
from service.experiments.spec import MatchBy, Split
from service.figures import Curve, CurvePoint, Figure, assign_colours, coverage_figure
from service.finetunes import TrainingSpec
from service.paired import Comparison
from service.stats import Estimate

NOW = datetime(2026, 3, 1, 14, 5, 9, tzinfo=UTC)
MODELS = {"larger": "gsm-large", "smaller": "gsm-small"}
COLOURS = assign_colours(list(MODELS.values()))


def arm(name: str, *, parameters: int, samples: int, flops: float = 1.31e12) -> report.Arm:
    return report.Arm(
        name=name,
        models=(MODELS[name],),
        parameters=parameters,
        job_id=f"job-{name}",
        budget="1.31e12 FLOPs",
        reserved_flops=0.0,
        spent_flops=flops,
        useful_flops=flops,
        waste=(report.Waste(reason="truncated", flops=3.93e9),),
        device_hours=0.02,
        device="CPU",
        samples=samples,
        errors=0,
        completion_tokens=112_000,
        tokens_per_s=1481.0,
        document="name: example\n",
    )


def line(key: str, label: str, difference: Estimate, *, is_relative: bool = False) -> report.MetricLine:
    return report.MetricLine(
        key=key,
        label=label,
        explanation="Share of problems with a correct answer.",
        form=report.Form.number if is_relative else report.Form.share,
        values=(Estimate(0.884, 0.852, 0.912, 400), Estimate(0.909, 0.881, 0.934, 400)),
        differences=(difference,),
        is_relative=is_relative,
    )


def bought(num_samples: int, *, flops: float = 1.3098e12) -> BudgetBought:
    """A budget whose coverage differs, and whose verified coverage does not."""
    data = report.Comparison(
        title="small against large",
        problems="gsm-mini/train",
        fingerprint="sha256:51f2",
        num_problems=400,
        matched_by="useful FLOPs",
        accounting="exact",
        checker="the steps scorer",
        seed=0,
        created_at=NOW,
        arms=(
            arm("larger", parameters=593_280, samples=400 * num_samples),
            arm("smaller", parameters=196_224, samples=1200 * num_samples, flops=flops),
        ),
        metrics=(
            line("coverage", "pass@k (coverage)", Estimate(0.025, 0.001, 0.049, 400)),
            line("verified_coverage", "verified coverage", Estimate(-0.008, -0.034, 0.019, 400)),
            line("unique_correct", "unique correct", Estimate(0.57, 0.5, 0.64, 400), is_relative=True),
            dataclasses.replace(
                line("coverage_at_k", f"pass@{num_samples}", Estimate(-0.1, -0.13, -0.07, 400)),
                matched=report.Matched.number,
            ),
        ),
        versions=(("isoflop", "0.1.0"),),
    )
    return BudgetBought(
        num_samples=num_samples,
        data=data,
        facts=(
            facts("larger", None, samples=num_samples, rows=2000),
            facts("smaller", MatchBy.flops, samples=2.98 * num_samples, rows=None),
        ),
    )


def facts(name: str, match: MatchBy | None, *, samples: float, rows: int | None) -> ArmFacts:
    return ArmFacts(
        arm=name,
        match=match,
        planned_samples=samples,
        samples=samples,
        granted=1.31e12,
        spent=1.3098e12,
        currency="flops",
        useful_flops_paper=6.1e11,
        useful_usd=0.0123,
        rows=rows,
        repeats=None if rows is None else 6400 / rows,
    )


def student(
    name: str,
    data: str,
    *,
    value: float,
    difference: Estimate | None = None,
    num_samples: int = 1,
    measure: str = "greedy",
    seeds: int = 3,
) -> StudentFound:
    return StudentFound(
        student=name,
        arm=data,
        num_samples=num_samples,
        measure=measure,
        num_problems=250,
        accuracy=Estimate(value, value - 0.05, value + 0.05, 250),
        by_seed=tuple(value + 0.01 * (seed - 1) for seed in range(seeds)),
        base=0.41,
        difference=None
        if difference is None
        else Comparison(estimate=difference, num_seeds=seeds, p_value=0.03 if seeds == 1 else None),
        false_positives=Estimate(0.021, 0.008, 0.053, 130) if measure == "greedy" else None,
    )


BETTER, SAME = Estimate(0.06, 0.02, 0.1, 250), Estimate(0.01, -0.03, 0.05, 250)


def example_report(**changes: object) -> Report:
    """Everything is done; of four differences of students one is one."""
    made = Report(
        id="compare-1-0a1b2c",
        title="smaller against larger model",
        created_at=NOW,
        progress=Progress(phase="succeeded", nodes=60, nodes_done=60),
        match=MatchBy.flops,
        reference="larger",
        arms=("larger", "smaller"),
        students=(("distillation", "gsm-early"), ("self-improvement", "gsm-small")),
        budgets=(1, 5),
        seeds=(0, 1, 2),
        seed=0,
        learning_rates=(6e-4,),
        training=TrainingSpec(steps=200, num_checkpoints=4),
        accounting="exact",
        checker="the steps scorer",
        judge=None,
        ngram=13,
        adaptive_arms=(),
        rounds_of={},
        teachers={
            "distillation": {"larger": Teacher.larger, "smaller": Teacher.larger},
            "self-improvement": {"larger": Teacher.larger, "smaller": Teacher.itself},
        },
        sets=(
            SetUsed(split=Split.train, name="gsm-mini/train", num_problems=400, fingerprint="sha256:51f2"),
            SetUsed(split=Split.validation, name="gsm-mini/validation", num_problems=200, fingerprint="sha256:51f3"),
            SetUsed(split=Split.test, name="gsm-mini/test", num_problems=250, fingerprint="sha256:51f4"),
        ),
        models=(ModelUsed(name="gsm-large", parameters=593_280, revision="sha256:9c0e"),),
        bought=(bought(1), bought(5)),
        found=tuple(
            student(
                name,
                data,
                value=0.5 + (0.06 if is_better else 0.01) * (data == "smaller"),
                difference=None if data == "larger" else BETTER if is_better else SAME,
                num_samples=num_samples,
            )
            for name in ("distillation", "self-improvement")
            for num_samples in (1, 5)
            for is_better in [name == "self-improvement" and num_samples == 5]
            for data in ("larger", "smaller")
        ),
        rounds=(),
        costs=(
            cost(Stage.draw, "larger", flops=1.31e12, wasted=3.93e9),
            cost(Stage.draw, "smaller", flops=1.3098e12, wasted=0.0),
            cost(Stage.greedy, "", flops=2e10, wasted=0.0),
        ),
        losses=(
            LossCurve(
                run="seed-0",
                student="distillation",
                arm="larger",
                model="gsm-large",
                num_samples=1,
                points=((1, 0.9), (100, 0.5), (200, 0.4)),
            ),
        ),
        document="name: smaller against larger model\n",
        versions=(("isoflop", "0.1.0"), ("vllm", "0.32.0")),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def cost(stage: Stage, arm_name: str, *, flops: float, wasted: float) -> StageCost:
    return StageCost(
        stage=stage,
        arm=arm_name,
        num_nodes=2,
        samples=4000,
        flops=flops,
        wasted_flops=wasted,
        flops_paper=flops / 2,
        gpu_s=0.0,
        cpu_s=75.0,
    )


def empty_report() -> Report:
    """A comparison that was just submitted."""
    return example_report(
        progress=Progress(phase="queued", nodes=60, nodes_done=0), bought=(), found=(), costs=(), losses=()
    )


def example_figures(made: Report) -> tuple[Figure, ...]:
    """All figures of a report, with one curve of the data where any was drawn."""
    points = (CurvePoint(flops=1e8, value=0.4, low=0.3, high=0.5, k=1, num_problems=400),) * 2
    curve = Curve(name="smaller", model="gsm-small", points=points)
    drawn = [coverage_figure([curve], COLOURS, accounting="exact")] if made.bought else []
    return report_figures(made, drawn, COLOURS, MODELS)
