"""The comparison of jobs, as a page and as files to keep."""

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlencode

from api.context import AppContext
from api.dashboard import pages
from api.dashboard.assets import plotly_js_path
from api.dashboard.views.jobs import JOBS_COMPARABLE, document_text, shell_of, versions_of
from service.errors import UnknownName
from service.figures import Figure
from service.job_report import compare_jobs
from service.report import Comparison
from service.report_files import render_markdown, to_json
from service.report_html import render_html

MEDIA_TYPES = {"html": "text/html", "md": "text/markdown", "json": "application/json"}
_LABELS = {"html": "Offline report", "md": "Markdown", "json": "JSON"}


def comparison_of(context: AppContext, job_ids: Sequence[str], now: datetime) -> tuple[Comparison, tuple[Figure, ...]]:
    """Jobs compared in the order given.

    Raises:
        InvalidInput: jobs that cannot be compared.
        NotFound: no such job.
    """
    store = context.store
    found = [(store.jobs.get(job_id), store.jobs.resolved(job_id)) for job_id in job_ids]
    versions = dict(pair for _, resolved in found for pair in versions_of(resolved))
    return compare_jobs(
        store,
        job_ids,
        title=" against ".join(job.spec.name for job, _ in reversed(found)),
        documents={job.id: document_text(job, resolved) for job, resolved in found},
        versions=tuple(versions.items()),
        now=now,
    )


def comparison_page(context: AppContext, job_ids: Sequence[str], now: datetime) -> pages.ComparisonPage:
    """The comparison with links to its files."""
    comparison, figures = comparison_of(context, job_ids, now)
    query = urlencode([("jobs", job_id) for job_id in job_ids])
    return pages.ComparisonPage(
        shell=shell_of(context, "overview", now),
        comparison=comparison,
        figures=figures,
        downloads=tuple((label, f"/compare/report.{form}?{query}") for form, label in _LABELS.items()),
    )


def choose_page(context: AppContext, notice: str, now: datetime) -> pages.ChoosePage:
    """What can be compared, and why what was asked for cannot."""
    jobs = [job for _, job in context.store.jobs.list(limit=JOBS_COMPARABLE)]
    return pages.ChoosePage(
        shell=shell_of(context, "overview", now),
        notice=notice,
        jobs=tuple((job.id, f"{job.spec.name} · {job.spec.problems} · {job.id}") for job in jobs),
    )


def comparison_file(context: AppContext, job_ids: Sequence[str], form: str, now: datetime) -> str:
    """The comparison as a file: "html" (opens offline), "md" or "json".

    Raises:
        UnknownName: another form.
    """
    if form not in MEDIA_TYPES:
        raise UnknownName(kind="report format", got=form, allowed=MEDIA_TYPES)
    comparison, figures = comparison_of(context, job_ids, now)
    if form == "html":
        return render_html(comparison, figures, plotly_js=plotly_js_path().read_text(encoding="utf-8"))
    return render_markdown(comparison) if form == "md" else to_json(comparison, figures)
