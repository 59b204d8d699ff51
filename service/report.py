"""A compute-matched comparison as data: what each arm spent and gave, and how the arms differ.

Its words are `service.report_words`, its files `service.report_files` and `service.report_html`.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from service.stats import Estimate, NotEstimable


class Form(StrEnum):
    """How a metric is written."""

    share = "share"
    """`.884`, a share of problems; differences absolute."""
    rate = "rate"
    """`3.8 %`, a share of samples; differences in points."""
    number = "number"
    """`5.49`, a mean number; differences relative."""
    flops = "flops"
    """`1.31e12`, a cost; differences relative."""


class Matched(StrEnum):
    """What is equal between the arms of a line."""

    budget = "budget"
    """Everything that each arm's budget bought."""
    number = "number"
    """As many samples of every arm, whatever they cost."""


Measured: TypeAlias = Estimate | NotEstimable


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLine:
    """One metric over all arms.

    Args:
        label: the field's word for it.
        explanation: one sentence for somebody who meets it first here.
        values: one for each arm, in their order.
        differences: one for each arm after the first, against the first, paired by problem.
        is_relative: whether differences are divided by the first arm's value.
    """

    key: str
    label: str
    explanation: str
    form: Form
    values: tuple[Measured, ...]
    differences: tuple[Measured, ...]
    is_relative: bool
    matched: Matched = Matched.budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Waste:
    """FLOPs spent on nothing that is kept. `reason` is a key of `wording.WASTE_WORDS`."""

    reason: str
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side of a comparison: what it was and what it used.

    Args:
        models: generator models; the first one gives the arm its colour.
        parameters: of the largest model.
        reserved_flops: still reserved, 0.0 once the job has ended; like all FLOPs here in the comparison's accounting.
            None while samples of a budget that is not in FLOPs are out.
        spent_flops: settled, waste included.
        useful_flops: of samples that ended by themselves: what matching holds equal.
        device_hours: busy time of engines times the devices they held; None where not measured.
        device: what those hours are of: "GPU", or "CPU" where no GPU was held; "" where not measured.
        budget: the job's limit in words, e.g. "1.31e12 FLOPs".
        document: the resolved job document as YAML.
    """

    name: str
    models: tuple[str, ...]
    parameters: int
    job_id: str
    budget: str
    reserved_flops: float | None
    spent_flops: float
    useful_flops: float
    waste: tuple[Waste, ...]
    device_hours: float | None
    device: str
    samples: int
    errors: int
    completion_tokens: int
    tokens_per_s: float | None
    document: str

    @property
    def wasted_flops(self) -> float:
        """FLOPs of all waste together."""
        return math.fsum(w.flops for w in self.waste)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Arms on the same problems, matched by one currency. The first arm is the reference.

    Args:
        matched_by: what was held equal, e.g. "useful FLOPs".
        accounting: which FLOPs, e.g. "exact".
        fingerprint: of the problem set.
        checker: what judged the reasoning.
        versions: packages and their versions.
        notes: what a reader must know to judge the numbers, one sentence each.
    """

    title: str
    problems: str
    fingerprint: str
    num_problems: int
    matched_by: str
    accounting: str
    checker: str
    seed: int
    created_at: datetime
    arms: tuple[Arm, ...]
    metrics: tuple[MetricLine, ...]
    versions: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
