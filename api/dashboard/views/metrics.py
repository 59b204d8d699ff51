"""What a job page quotes of a job's metrics: the same lines before the first score and after the last."""

from collections.abc import Callable

from api.dashboard import pages
from service.measures import Measures
from service.metrics import MetricsSummary
from service.report import Form, Measured
from service.report_words import measured_text

_NONE_YET = "–"
_NOT_MEASURED = "not measured"


def metric_views(
    summary: MetricsSummary | None, measures: Measures, *, is_uniform: bool
) -> tuple[pages.MetricView, ...]:
    """The job in a few numbers.

    A uniform job is quoted at the deepest k that every sampled problem reaches, where its curves end; another one by
    what it has realised, for its results decided how often a problem was sampled.

    Args:
        summary: None before the first score; the values are then dashes, or say that nothing will measure them.
    """
    deepest = summary.curve[-1] if summary is not None and is_uniform and summary.curve else None
    coverage = f"pass@{deepest.k} (coverage)" if deepest else "coverage" if is_uniform else "problems solved"
    verified = f"verified pass@{deepest.k}" if deepest else "verified coverage" if is_uniform else "solved, verified"

    def view(
        key: str, label: str, note: str, form: Form, value: Callable[[MetricsSummary], Measured]
    ) -> pages.MetricView:
        if summary is None:
            value_text = _NONE_YET if measures.has_answers else _NOT_MEASURED
            return pages.MetricView(key=key, label=label, value=value_text, interval="", note=note)
        number, bracket, rest = measured_text(form, value(summary)).partition(" [")
        return pages.MetricView(key=key, label=label, value=number, interval=f"[{rest}" if bracket else "", note=note)

    views = [
        view(
            "coverage",
            coverage,
            "Share of problems with a correct answer.",
            Form.share,
            lambda found: deepest.coverage if deepest else found.realised_coverage,
        )
    ]
    if measures.has_steps:
        views += [
            view(
                "verified",
                verified,
                "Counting only samples whose reasoning holds; reasoning that could not be judged counts as wrong.",
                Form.share,
                lambda found: deepest.verified_coverage if deepest else found.realised_verified_coverage,
            ),
            view(
                "false-positives",
                "false positives",
                "Wrong reasoning among right answers whose reasoning was judged.",
                Form.rate,
                lambda found: found.false_positive_rate,
            ),
        ]
    views += [
        view(
            "unique",
            "unique correct per problem",
            "Distinct correct solutions, exact text.",
            Form.number,
            lambda found: found.realised_unique_exact,
        ),
        view(
            "cost",
            "FLOPs per unique correct",
            "All FLOPs of samples over distinct correct solutions.",
            Form.flops,
            lambda found: found.flops_per_unique_correct,
        ),
    ]
    return tuple(views)
