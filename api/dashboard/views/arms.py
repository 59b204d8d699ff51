"""The arms of a job side by side: what each has drawn and spent, and what it gave."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from api.arm_views import usage_by_arm
from api.dashboard import pages
from api.dashboard.views import charts
from service import figures
from service.currency import in_currency
from service.job_metrics import ArmMetrics, JobMetrics
from service.jobs import DRAWING_STAGES, Job
from service.measures import Measures
from service.metrics import MetricsSummary
from service.models import ModelSpec
from service.receipts import Usage
from service.report import Form, Measured
from service.report_words import measured_text
from service.stats import NotEstimable
from service.store.reads import Part, UsageRow

CURVES_SHOWN = 12
"""More lines nobody tells apart; the table has all arms."""
_NONE_YET = ("–", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSection:
    """What a job page says of its arms; empty where there is one."""

    lines: tuple[pages.ArmLine, ...] = ()
    columns: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    label: str
    form: Form
    value: Callable[[MetricsSummary], Measured]


def arm_section(
    job: Job, models: Sequence[ModelSpec], found: JobMetrics, parts: Sequence[Part], usage: Sequence[UsageRow]
) -> ArmSection:
    """The arms of a job, each by itself.

    Args:
        models: that the job draws with.
        usage: of the job, by arm.
    """
    arms = job.spec.all_arms
    if len(arms) == 1:
        return ArmSection()
    used = usage_by_arm(parts)
    spent = {arm.name: in_currency(job.spec.budget.currency, used.get(arm.name, Usage())) for arm in arms}
    total = sum(spent.values())
    adapted = {model.name: model.adapter.base for model in models if model.adapter is not None}
    summaries = {arm.name: arm.summary for arm in found.arms}
    k = _common_k(job, found.arms)
    columns = _columns(Measures.of(job.spec.scorers), k)
    lines = tuple(
        pages.ArmLine(
            name=arm.name,
            model=arm.model,
            adapted=adapted.get(arm.model),
            temperature=arm.sampling.temperature,
            samples=used.get(arm.name, Usage()).samples,
            flops=used.get(arm.name, Usage()).flops,
            share=spent[arm.name] / total if total > 0 else 0.0,
            wasted=_wasted(arm.name, usage),
            metrics=tuple(_cell(column, summaries.get(arm.name)) for column in columns),
        )
        for arm in arms
    )
    return ArmSection(lines=lines, columns=tuple(column.label for column in columns), note=_note(job, k))


def _wasted(arm: str, usage: Sequence[UsageRow]) -> float | None:
    """Share of an arm's FLOPs that was waste; None where they are unknown, or there are none."""
    own = [row for row in usage if row.arm == arm and row.stage in DRAWING_STAGES]
    total = sum(row.flops for row in own)
    # a comparison with NaN is false
    return sum(row.flops for row in own if row.outcome != "useful") / total if total > 0 else None


def _cell(column: _Column, summary: MetricsSummary | None) -> tuple[str, str]:
    if summary is None:
        return _NONE_YET
    number, bracket, rest = measured_text(column.form, column.value(summary)).partition(" [")
    return number, f"[{rest}" if bracket else ""


def _common_k(job: Job, arms: Sequence[ArmMetrics]) -> int | None:
    """Most samples a problem that every arm has; None where results decided how many there are, or before the first."""
    if not job.spec.allocation.is_even:
        return None
    ks = [{point.k for point in arm.summary.curve} if arm.summary is not None else set[int]() for arm in arms]
    return max(set[int]().union(*ks[:1]).intersection(*ks), default=None)


def _columns(measures: Measures, k: int | None) -> list[_Column]:
    """The metrics of an arm: at equal k where there is one, else what it realised."""
    if not measures.has_answers:
        return []
    coverage = [_Column(label=f"pass@{k}", form=Form.share, value=lambda s: _at(s, k))] if k else []
    coverage += [_Column(label="solved", form=Form.share, value=lambda s: s.realised_coverage)]
    steps = (
        [_Column(label="false positives", form=Form.rate, value=lambda s: s.false_positive_rate)]
        if measures.has_steps
        else []
    )
    return [
        *coverage,
        *steps,
        _Column(label="unique correct", form=Form.number, value=lambda s: s.realised_unique_exact),
        _Column(label="FLOPs per unique correct", form=Form.flops, value=lambda s: s.flops_per_unique_correct),
    ]


def _at(summary: MetricsSummary, k: int | None) -> Measured:
    known = next((point.coverage for point in summary.curve if point.k == k), None)
    return NotEstimable(f"no curve at k = {k}") if known is None else known


def _note(job: Job, k: int | None) -> str:
    if not job.spec.allocation.is_even:
        return "Results decided what each was asked, so these are what each realised, and no fair race between them."
    equal = {"samples": "samples", "budget": "of the budget"}[job.spec.allocation.equal]
    shared = f"; pass@{k} is at as many samples a problem in each" if k else ""
    return f"Each gets as {'many' if equal == 'samples' else 'much'} {equal}{shared}."


def arm_figures(job: Job, arms: Sequence[ArmMetrics], colours: Mapping[str, str]) -> tuple[figures.Figure, ...]:
    """Coverage, verified coverage and diversity against FLOPs, a line an arm."""
    curve = charts.expected if job.spec.allocation.is_even else charts.realised
    measures = Measures.of(job.spec.scorers)
    keys, palette = _colour_keys(job, colours)
    shown = [(arm, arm.summary) for arm in arms[:CURVES_SHOWN] if arm.summary is not None]

    def of(metric: str) -> list[figures.Curve]:
        return [replace(curve(metric, keys[arm.name], summary), name=arm.name) for arm, summary in shown]

    drawn = [figures.coverage_figure(of("coverage"), palette, accounting="exact")]
    if measures.has_steps:
        drawn.append(
            figures.verified_coverage_figure(
                of("verified_coverage"), palette, accounting="exact", checker="the steps scorer"
            )
        )
    drawn.append(figures.diversity_figure(of("diversity"), palette, accounting="exact", rule="exact text"))
    return tuple(drawn)


def length_figure(
    job: Job, parts: Sequence[Part], lengths: charts.LengthCache, colours: Mapping[str, str]
) -> figures.Figure:
    """How long completions are, by arm where the document spells arms out, in the colours of the arms' lines.

    Raises:
        CorruptFile: a committed file is unreadable.
    """
    names = [arm.name for arm in job.spec.arms[:CURVES_SHOWN]]
    if len(names) < 2:
        return lengths.figure(parts, colours)
    keys, palette = _colour_keys(job, colours)
    return lengths.figure(parts, {name: palette[keys[name]] for name in names}, arms=names)


def _colour_keys(job: Job, colours: Mapping[str, str]) -> tuple[dict[str, str], Mapping[str, str]]:
    """What decides an arm's colour, and the colours: its model, its model and prompt, or itself.

    Arms of one colour differ by their dash: samplings of one prompt.
    """
    arms = job.spec.all_arms
    if not job.spec.arms:
        return {arm.name: arm.model for arm in arms}, colours
    prompts = {arm.name: next(a.name for a in arms if (a.model, a.prompt) == (arm.model, arm.prompt)) for arm in arms}
    keys = prompts if len(set(prompts.values())) > 1 else {arm.name: arm.name for arm in arms}
    return keys, figures.assign_colours(list(keys.values()))
