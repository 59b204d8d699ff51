"""What the scorers of a job can tell, and what they cannot: metrics that nothing measured are NotEstimable.

Invariant: a job without an answer scorer has no coverage and no correct samples, one without the steps scorer has no
verified metric; neither is ever 0. Needs no store.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from service.curves import ExpectedPoint, RealisedPoint
from service.metrics import AtK, LevelSummary, MetricsSummary
from service.report import MetricLine
from service.stats import NotEstimable

STEPS_SCORER = "steps"
NO_ANSWERS = NotEstimable("the job has no scorer of answers")
NO_STEPS = NotEstimable("the job has no scorer of steps")
NOTHING_SCORED = NotEstimable("no sample is scored yet")
NO_SCORERS = NotEstimable("the job has no scorers")
NO_FLOPS = NotEstimable(
    "FLOPs of a model without known coefficients: an endpoint that declares none, or one that was imported unregistered"
)

_NEED_ANSWERS = (
    "num_correct",
    "flops_per_correct",
    "flops_per_unique_correct",
    "coverage",
    "diversity_exact",
    "diversity_equations",
    "realised_coverage",
    "realised_unique_exact",
    "realised_unique_equations",
)
_NEED_STEPS = (
    "num_verified",
    "flops_per_verified_unique_correct",
    "false_positive_rate",
    "judged_share",
    "verified_coverage",
    "not_refuted_coverage",
    "verified_diversity_exact",
    "verified_diversity_equations",
    "realised_verified_coverage",
    "realised_verified_unique_exact",
)
"""These need answers too: reasoning counts only where the answer is right."""
_NEED_FLOPS = (
    "flops_per_problem",
    "flops_per_correct",
    "flops_per_unique_correct",
    "flops_per_verified_unique_correct",
)
LINES_WITHOUT_STEPS = ("coverage", "unique_correct", "coverage_at_k", "unique_correct_at_k")
"""Keys of the lines of a comparison that need answers alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is judged of each sample."""

    has_answers: bool
    has_steps: bool

    @classmethod
    def of(cls, scorers: Sequence[str]) -> "Measures":
        """What the scorers of a job judge."""
        return cls(
            has_answers=any(name != STEPS_SCORER for name in scorers),
            has_steps=STEPS_SCORER in scorers,
        )

    @property
    def missing_answers(self) -> NotEstimable | None:
        """Why metrics of answers cannot be told; None where they can."""
        return None if self.has_answers else NO_ANSWERS if self.has_steps else NO_SCORERS

    @property
    def missing_steps(self) -> NotEstimable | None:
        """Why metrics of reasoning cannot be told; None where they can."""
        return self.missing_answers or (None if self.has_steps else NO_STEPS)


def only_measured(summary: MetricsSummary, measures: Measures) -> MetricsSummary:
    """The summary with what nothing measured marked as such."""
    for reason, names in ((measures.missing_answers, _NEED_ANSWERS), (measures.missing_steps, _NEED_STEPS)):
        if reason is not None:
            changes = {name: _without(getattr(summary, name), reason) for name in names}
            changes["by_level"] = tuple(_level(level, names, reason) for level in summary.by_level)
            summary = dataclasses.replace(summary, **changes)
    # no steps are told without answers, so this also covers the jobs that lack answers
    if measures.missing_steps is None:
        return summary
    return dataclasses.replace(
        summary,
        curve=tuple(_point(point, measures) for point in summary.curve),
        realised_curve=tuple(_realised(point) for point in summary.realised_curve) if measures.has_answers else (),
    )


def without_flops(summary: MetricsSummary) -> MetricsSummary:
    """The summary of samples whose FLOPs nobody knows: what would be per FLOP says so, curves have no FLOPs (NaN)."""
    return dataclasses.replace(summary, **dict.fromkeys(_NEED_FLOPS, NO_FLOPS))


def only_measured_line(line: MetricLine, judged: Sequence[tuple[Measures, int]]) -> MetricLine:
    """A line of a comparison with the arms marked that nothing measured.

    Args:
        judged: of each arm, what is judged and how many samples are scored.
    """
    reasons = [_reason(line, measures, num_scored) for measures, num_scored in judged]
    return dataclasses.replace(
        line,
        values=tuple(reason or value for reason, value in zip(reasons, line.values, strict=True)),
        differences=tuple(
            reasons[0] or reason or value for reason, value in zip(reasons[1:], line.differences, strict=True)
        ),
    )


def _reason(line: MetricLine, measures: Measures, num_scored: int) -> NotEstimable | None:
    lacks = measures.missing_answers if line.key in LINES_WITHOUT_STEPS else measures.missing_steps
    return lacks or (None if num_scored else NOTHING_SCORED)


def _without(value: object, reason: NotEstimable) -> object:
    if isinstance(value, tuple):
        return tuple(dataclasses.replace(point, estimate=reason) for point in cast("tuple[AtK, ...]", value))
    return reason


def _level(level: LevelSummary, names: Sequence[str], reason: NotEstimable) -> LevelSummary:
    mine = [field.name for field in dataclasses.fields(level) if field.name in names]
    changes = {name: _without(getattr(level, name), reason) for name in mine}
    return dataclasses.replace(level, **changes)  # type: ignore[arg-type]


def _point(point: ExpectedPoint, measures: Measures) -> ExpectedPoint:
    missing, unverified = measures.missing_answers, measures.missing_steps
    return dataclasses.replace(
        point,
        coverage=missing or point.coverage,
        diversity=missing or point.diversity,
        verified_coverage=unverified or point.verified_coverage,
        verified_diversity=unverified or point.verified_diversity,
    )


def _realised(point: RealisedPoint) -> RealisedPoint:
    # the curve holds plain numbers: one that is not defined is NaN, which goes out as null
    return dataclasses.replace(point, verified_coverage=math.nan, verified_unique_solutions_per_problem=math.nan)
