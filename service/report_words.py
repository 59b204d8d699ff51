"""A comparison in words: table rows, a headline, sentences. Every form of a report takes its text from here.

Every number says whether it is absolute or relative and how many problems it rests on, an interval stands beside its
estimate, and a difference whose interval includes zero is called "not significant". Computes no statistics itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from service import wording
from service.report import Arm, Comparison, Form, Matched, Measured, MetricLine
from service.stats import Estimate, NotEstimable, is_significant

MATCHED_WITHIN = 0.02
"""Arms whose useful FLOPs differ by more are not called matched."""
NOT_SIGNIFICANT = "not significant"
"""What stands behind a difference whose interval includes zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the comparison table, as text.

    Args:
        basis: "absolute" or what it is relative to.
        values: one cell an arm.
        differences: one cell for each arm after the first.
        is_headline: a finding rather than bookkeeping.
    """

    label: str
    basis: str
    values: tuple[str, ...]
    differences: tuple[str, ...]
    explanation: str
    is_headline: bool = False


def comparison_rows(comparison: Comparison) -> list[Row]:
    """The comparison table, what was spent first, then what it gave, then what was lost."""
    return [*_spend_rows(comparison), *_metric_rows(comparison), _waste_row(comparison)]


def arm_heading(arm: Arm) -> str:
    """An arm's name with its size: `smaller (196k)`."""
    return f"{arm.name} ({parameters_text(arm.parameters) if arm.parameters else wording.UNKNOWN})"


def parameters_text(parameters: int | None) -> str:
    """A model's size as people say it: `593k`, `9.24B`; of a model elsewhere it may be unknown."""
    if not parameters:
        return wording.UNKNOWN
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}{letter}"
    return str(parameters)


def headline(comparison: Comparison) -> str:
    """The answer in one line: how well the arms match, and the differences that are one."""
    if len(comparison.arms) < 2:
        return "One arm only: there is nothing to compare it with."
    reference = comparison.arms[0]
    gap = max(_gap(arm.useful_flops, reference.useful_flops) for arm in comparison.arms[1:])
    start = f"At equal {comparison.matched_by}" if gap <= MATCHED_WITHIN else f"At useful FLOPs {_gap_text(gap)} apart"
    return f"{start}, {'; '.join(_verdict(comparison, index) for index in range(len(comparison.arms) - 1))}."


def _verdict(comparison: Comparison, index: int) -> str:
    """What one arm has against the first, without intervals."""
    pairs = [(line, line.differences[index]) for line in comparison.metrics if line.matched is Matched.budget]
    real = [
        f"{line.label} {_difference(line, d)}" for line, d in pairs if isinstance(d, Estimate) and is_significant(d)
    ]
    arms = f"{_quoted(comparison.arms[index + 1].name)} against {_quoted(comparison.arms[0].name)}"
    if not any(isinstance(d, Estimate) for _, d in pairs):
        return f"{arms}: not measured"
    if not real:
        return f"{arms}: no significant difference"
    others = len(pairs) - len(real)
    rest = f"; {wording.plural(others, 'other difference')} {NOT_SIGNIFICANT}" if others else ""
    return f"{arms}: {'; '.join(real)}{rest}"


def _quoted(name: str) -> str:
    """A name that a sentence cannot swallow."""
    return f"“{name}”" if " " in name else name


def findings(comparison: Comparison) -> list[str]:
    """The comparison in sentences, the matching first and then one for each difference that was measured."""
    if len(comparison.arms) < 2:
        return ["One arm only: there is nothing to compare it with."]
    reference = comparison.arms[0]
    sentences = [f"{_matching_sentence(comparison)} on {wording.plural(comparison.num_problems, 'problem')}."]
    for index, arm in enumerate(comparison.arms[1:]):
        sentences += [_finding(arm, reference, line, line.differences[index]) for line in comparison.metrics]
    return sentences


def _finding(arm: Arm, reference: Arm, line: MetricLine, difference: Measured) -> str:
    name, other = _quoted(arm.name), _quoted(reference.name)
    if isinstance(difference, NotEstimable):
        return f"{line.label}: no verdict on {name} against {other}, {difference.reason}."
    size = f"{difference_text(line, difference, with_verdict=False)}, n = {difference.n:,}"
    if not is_significant(difference):
        return f"{line.label}: no significant difference between {name} and {other} ({size})."
    direction = "higher" if difference.value > 0 else "lower"
    return f"{line.label}: {direction} for {name} than for {other} ({size})."


def _matching_sentence(comparison: Comparison) -> str:
    gaps = [_gap(arm.useful_flops, comparison.arms[0].useful_flops) for arm in comparison.arms[1:]]
    widest = max(gaps)
    if not widest <= MATCHED_WITHIN:
        return f"Not matched: useful FLOPs ({comparison.accounting} accounting) differ by up to {_gap_text(widest)}"
    matched = f"Matched on {comparison.matched_by} ({comparison.accounting} accounting)"
    return f"{matched}, useful FLOPs within {_gap_text(widest)}"


def _spend_rows(comparison: Comparison) -> list[Row]:
    arms, reference = comparison.arms, comparison.arms[0]
    accounting = f"absolute, {comparison.accounting}"

    def row(
        label: str, basis: str, value: Callable[[Arm], str], difference: Callable[[Arm], str], explanation: str
    ) -> Row:
        return Row(
            label=label,
            basis=basis,
            values=tuple(map(value, arms)),
            differences=tuple(map(difference, arms[1:])),
            explanation=explanation,
        )

    return [
        row(
            "FLOPs reserved",
            accounting,
            lambda a: wording.UNKNOWN if a.reserved_flops is None else wording.flops(a.reserved_flops),
            lambda _: "",
            "Promised to samples that have not ended; 0 once a job has.",
        ),
        row(
            "useful FLOPs",
            accounting,
            lambda a: wording.flops(a.useful_flops),
            lambda a: _match_text(a.useful_flops, reference.useful_flops),
            "FLOPs of samples that ended by themselves; truncated, lost and dropped ones are waste.",
        ),
        row(
            "FLOPs spent",
            accounting,
            lambda a: wording.flops(a.spent_flops),
            lambda a: _relative_text(a.spent_flops, reference.spent_flops),
            "All settled FLOPs: useful ones and waste.",
        ),
        row(
            f"{' / '.join(sorted({arm.device for arm in arms} - {''})) or 'device'}-hours",
            "absolute, engines busy drawing",
            lambda a: _hours_text(a, with_device=len({arm.device for arm in arms} - {""}) > 1),
            lambda a: _hours_difference(a, reference),
            "Time that engines drew, times the devices they held: GPUs, or cores where there was none. Loading, idling "
            "and swaps of weights are not in it.",
        ),
        row(
            "samples",
            "absolute",
            lambda a: wording.count(a.samples),
            lambda a: _times_text(a.samples, reference.samples),
            "Rows drawn, one completion each.",
        ),
        row(
            "tokens/s",
            "absolute",
            lambda a: wording.count(a.tokens_per_s),
            lambda _: "",
            "Completion tokens per second of engine time.",
        ),
    ]


def _metric_rows(comparison: Comparison) -> list[Row]:
    rows: list[Row] = []
    for line in comparison.metrics:
        numbers = list(dict.fromkeys(v.n for v in line.values if isinstance(v, Estimate)))
        behind = f"n = {' / '.join(f'{n:,}' for n in numbers)}" if numbers else "not measured"
        if line.matched is Matched.number:
            behind = f"at equal numbers of samples, {behind}"
        rows.append(
            Row(
                label=line.label,
                basis=f"absolute, {behind}; difference {'relative' if line.is_relative else 'absolute'}",
                values=tuple(measured_text(line.form, value) for value in line.values),
                differences=tuple(difference_text(line, d) for d in line.differences),
                explanation=line.explanation,
                is_headline=bool(numbers) and line.matched is Matched.budget,
            )
        )
    return rows


def _waste_row(comparison: Comparison) -> Row:
    def text(arm: Arm) -> str:
        parts = [
            f"{wording.percent(w.flops / arm.spent_flops)} {w.reason}"
            for w in arm.waste
            if w.flops > 0 and arm.spent_flops > 0
        ]
        return ", ".join(parts) or "none"

    return Row(
        label="waste",
        basis="relative to FLOPs spent",
        values=tuple(text(arm) for arm in comparison.arms),
        differences=tuple("" for _ in comparison.arms[1:]),
        explanation="; ".join(f"{reason}: {words}" for reason, words in wording.WASTE_WORDS.items()) + ".",
    )


def measured_text(form: Form, value: Measured) -> str:
    """An estimate with its interval in brackets: `.884 [.85, .91]`."""
    if isinstance(value, NotEstimable):
        return "not measured"
    match form:
        case Form.rate:
            return f"{wording.percent(value.value)} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
        case Form.number:
            return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
        case Form.flops:
            return f"{wording.flops(value.value)} [{wording.flops(value.low)}, {wording.flops(value.high)}]"
        case Form.share:
            low, high = wording.share(value.low, digits=2), wording.share(value.high, digits=2)
            return f"{wording.share(value.value)} [{low}, {high}]"


def difference_text(line: MetricLine, difference: Measured, *, with_verdict: bool = True) -> str:
    """A difference with its interval; says "not significant" where the interval includes zero."""
    if isinstance(difference, NotEstimable):
        return "not measured"
    ends = (difference.low, difference.high)
    if line.is_relative:
        interval = [f"{100 * v:+.0f}" for v in ends]
    elif line.form is Form.rate:
        interval = [f"{100 * v:+.1f}" for v in ends]
    elif line.form is Form.share:
        interval = [wording.signed_share(v) for v in ends]
    else:
        interval = [f"{v:+.3g}" for v in ends]
    text = f"{_difference(line, difference)} [{', '.join(interval)}]"
    return text if is_significant(difference) or not with_verdict else f"{text}, {NOT_SIGNIFICANT}"


def _difference(line: MetricLine, difference: Estimate) -> str:
    """The difference alone, in the form of its line."""
    if line.is_relative:
        return wording.signed_percent(difference.value)
    if line.form is Form.rate:
        return wording.points(difference.value)
    return wording.signed_share(difference.value) if line.form is Form.share else f"{difference.value:+.3g}"


def _gap(value: float, reference: float) -> float:
    return abs(value - reference) / reference if reference else math.nan


def _gap_text(gap: float) -> str:
    return wording.percent(gap, digits=2)


def _match_text(value: float, reference: float) -> str:
    gap = _gap(value, reference)
    if math.isnan(gap):
        return wording.UNKNOWN
    return (
        f"matched to {_gap_text(gap)}" if gap <= MATCHED_WITHIN else f"not matched, {_relative_text(value, reference)}"
    )


def _relative_text(value: float | None, reference: float | None) -> str:
    if value is None or not reference or math.isnan(value) or math.isnan(reference):
        return wording.UNKNOWN
    percent = 100 * (value / reference - 1)
    return f"{percent:+.2f} %" if abs(percent) < 10 else f"{percent:+.0f} %"


def _times_text(value: float, reference: float) -> str:
    return f"× {value / reference:.2f}" if reference else wording.UNKNOWN


def _hours_difference(arm: Arm, reference: Arm) -> str:
    """Relative, but hours of GPUs are not held against hours of cores."""
    is_other = arm.device and reference.device and arm.device != reference.device
    return "other devices" if is_other else _relative_text(arm.device_hours, reference.device_hours)


def _hours_text(arm: Arm, *, with_device: bool) -> str:
    if arm.device_hours is None:
        return wording.UNKNOWN
    hours = f"{arm.device_hours:.3g}" if arm.device_hours < 10 else f"{arm.device_hours:,.1f}"
    return f"{hours} {arm.device}" if with_device else hours
