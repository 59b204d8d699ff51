"""Figures and a comparison made by hand, and what all example pages share. Nothing here was measured."""

import math
from datetime import UTC, datetime, timedelta

from api.dashboard import pages
from service import figures, report
from service.stats import Estimate, NotEstimable

NOW = datetime(2026, 3, 1, 14, 5, 9, tzinfo=UTC)
MODELS = ("gsm-mini-large", "gsm-mini-small")
COLOURS = figures.assign_colours(MODELS)

DOCUMENT = """\
name: gsm-mini small, 30 samples worth
problems: gsm-mini/train
models: [gsm-mini-small]
budget: {flops: 1.31e12}
accounting: exact
allocation: {strategy: uniform}
prompt: {template: plain}
sampling: {temperature: 0.7, max_tokens: auto}
scorers: [math_answer, steps]
seed: 0
"""
VERSIONS = (("isoflop", "0.1.0"), ("vllm", "0.32.0"), ("ray", "2.60.0"), ("transformers", "5.19.0"))


def shell(active: str) -> pages.Shell:
    """The frame around an example."""
    return pages.Shell(
        active=active, now=NOW, version="isoflop 0.1.0", tick_age_s=0.4, identity="local operator", can_operate=True
    )


def curve(name: str, model: str, *, scale: float, rate: float, flops: float, points: int) -> figures.Curve:
    """A curve that rises like pass@k does."""
    drawn: list[figures.CurvePoint] = []
    for k in range(1, points + 1):
        value = scale * (1 - math.exp(-rate * k**0.6))
        half = 0.028 * scale
        drawn.append(
            figures.CurvePoint(flops=flops * k, value=value, low=value - half, high=value + half, k=k, num_problems=400)
        )
    return figures.Curve(name=name, model=model, points=tuple(drawn))


def quality_figures() -> tuple[figures.Figure, ...]:
    """The four figures of a comparison."""
    large, small = MODELS
    return (
        figures.coverage_figure(
            [
                curve("larger", large, scale=0.93, rate=0.75, flops=3.3e8, points=10),
                curve("smaller", small, scale=0.97, rate=0.42, flops=1.1e8, points=30),
            ],
            COLOURS,
            accounting="exact",
        ),
        figures.verified_coverage_figure(
            [
                curve("larger", large, scale=0.90, rate=0.75, flops=3.3e8, points=10),
                curve("smaller", small, scale=0.90, rate=0.42, flops=1.1e8, points=30),
            ],
            COLOURS,
            accounting="exact",
            checker="exact step checker",
        ),
        figures.diversity_figure(
            [
                curve("larger", large, scale=5.4, rate=0.26, flops=3.3e8, points=10),
                curve("smaller", small, scale=7.4, rate=0.17, flops=1.1e8, points=30),
            ],
            COLOURS,
            accounting="exact",
            rule="exact text",
        ),
        figures.false_positive_figure(
            [
                figures.RateBar(name="larger", model=large, value=0.021, low=0.017, high=0.026, num_items=5124),
                figures.RateBar(name="smaller", model=small, value=0.038, low=0.035, high=0.042, num_items=10165),
            ],
            COLOURS,
            checker="exact step checker",
        ),
    )


def spend_figure() -> figures.Figure:
    """Half an hour of spending by two models in two stages."""
    buckets = [
        figures.SpendBucket(start=NOW - timedelta(minutes=30 - m), model=model, stage=stage, flops=flops)
        for m in range(30)
        for model, stage, flops in (
            (MODELS[0], "generate", 3.1e10 * (m < 17) * (0.8 + 0.3 * math.sin(m))),
            (MODELS[1], "generate", 3.4e10 * (m >= 15) * (0.9 + 0.2 * math.cos(2 * m))),
            (MODELS[1], "evaluate", 0.6e10 * (m > 24)),
        )
    ]
    return figures.spend_figure(buckets, COLOURS, bucket="minute")


def job_figures() -> tuple[figures.Figure, ...]:
    """What a running job shows."""
    small = MODELS[1]
    points = [figures.BudgetPoint(at=NOW - timedelta(seconds=5 * (40 - i)), spent=2.03e10 * i) for i in range(41)]
    plain = curve("coverage", small, scale=0.97, rate=0.42, flops=1.1e8, points=18)
    verified = curve("verified", small, scale=0.90, rate=0.42, flops=1.1e8, points=18)
    return (
        figures.burn_down_figure(points, reserved=9e10, limit=1.31e12, unit="FLOPs"),
        figures.coverage_figure([plain, verified], COLOURS, accounting="exact"),
        figures.diversity_figure(
            [curve("unique correct", small, scale=7.4, rate=0.17, flops=1.1e8, points=18)],
            COLOURS,
            accounting="exact",
            rule="exact text",
        ),
        figures.length_figure(
            [
                figures.LengthBin(
                    name=small,
                    low=8 * i,
                    high=8 * (i + 1),
                    stopped=round(1400 * math.exp(-((i - 4) ** 2) / 6)),
                    truncated=22 if i == 15 else 0,
                )
                for i in range(16)
            ],
            COLOURS,
        ),
    )


def comparison() -> report.Comparison:
    """Two arms at equal useful FLOPs."""

    def line(
        key: str,
        label: str,
        explanation: str,
        form: report.Form,
        values: tuple[report.Measured, report.Measured],
        difference: report.Measured,
        *,
        is_relative: bool = False,
    ) -> report.MetricLine:
        return report.MetricLine(
            key=key,
            label=label,
            explanation=explanation,
            form=form,
            values=values,
            differences=(difference,),
            is_relative=is_relative,
        )

    return report.Comparison(
        title="gsm-mini small against large, high budget",
        problems="gsm-mini/validation",
        fingerprint="sha256:51f2c09a77e0b3aa",
        num_problems=400,
        matched_by="useful FLOPs",
        accounting="exact",
        checker="exact step checker",
        seed=0,
        created_at=NOW,
        arms=(
            _arm("larger", MODELS[0], parameters=593_280, samples=4_000, flops=1.3101e12, hours=0.021),
            _arm("smaller", MODELS[1], parameters=196_224, samples=12_071, flops=1.3098e12, hours=0.019),
        ),
        metrics=(
            line(
                "coverage",
                "pass@k (coverage)",
                "Share of problems with at least one correct answer.",
                report.Form.share,
                (Estimate(0.884, 0.852, 0.912, 400), Estimate(0.909, 0.881, 0.934, 400)),
                Estimate(0.025, 0.001, 0.049, 400),
            ),
            line(
                "verified_coverage",
                "verified coverage",
                "The same, counting only samples whose reasoning holds as well.",
                report.Form.share,
                (Estimate(0.867, 0.834, 0.897, 400), Estimate(0.860, 0.826, 0.893, 400)),
                Estimate(-0.008, -0.034, 0.019, 400),
            ),
            line(
                "unique",
                "unique correct",
                "Distinct correct solutions per problem, exact text.",
                report.Form.number,
                (Estimate(3.50, 3.31, 3.70, 400), Estimate(5.49, 5.14, 5.83, 400)),
                Estimate(0.57, 0.50, 0.64, 400),
                is_relative=True,
            ),
            line(
                "false_positives",
                "false positives",
                "Right answers with wrong reasoning, of right answers judged.",
                report.Form.rate,
                (Estimate(0.021, 0.017, 0.026, 5124), Estimate(0.038, 0.035, 0.042, 10165)),
                Estimate(0.017, 0.009, 0.026, 400),
            ),
            line(
                "judge",
                "false positives by an LLM judge",
                "The same, judged by a language model.",
                report.Form.rate,
                (NotEstimable("no judge was configured"), NotEstimable("no judge was configured")),
                NotEstimable("no judge was configured"),
            ),
        ),
        versions=VERSIONS,
        notes=(
            "The smaller model's samples come from one seed; a second one would show how far draws alone move them.",
        ),
    )


def _arm(name: str, model: str, *, parameters: int, samples: int, flops: float, hours: float) -> report.Arm:
    return report.Arm(
        name=name,
        models=(model,),
        parameters=parameters,
        job_id=f"job-{name}",
        budget="1.31e12 FLOPs",
        reserved_flops=0.0,
        spent_flops=flops,
        useful_flops=flops,
        waste=(report.Waste(reason="truncated", flops=0.003 * flops),),
        device_hours=hours,
        device="CPU",
        samples=samples,
        errors=0,
        completion_tokens=samples * 28,
        tokens_per_s=samples * 28 / (3600 * hours),
        document=DOCUMENT,
    )
