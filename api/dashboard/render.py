"""A page becomes HTML here, and nowhere else.

Owns which template belongs to which page and the filters templates write numbers with. Rendering is pure: no store, no
clock (a page carries its own `now`), no network. A variable that a page does not have is an error.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from api.dashboard import pages
from service import report_words, wording
from service.report_html import make_environment

TEMPLATES_DIR = Path(__file__).parent / "templates"

TEMPLATES: dict[type[Any], str] = {
    pages.OverviewPage: "overview.html",
    pages.JobPage: "job.html",
    pages.SamplesPage: "samples.html",
    pages.WorkersPage: "workers.html",
    pages.ModelsPage: "models.html",
    pages.ProblemsPage: "problems.html",
    pages.UsagePage: "usage.html",
    pages.TrainingPage: "training.html",
    pages.SelectionPage: "selection.html",
    pages.FinetunePage: "finetune.html",
    pages.ExperimentsPage: "comparisons.html",
    pages.ExperimentPage: "comparison_detail.html",
    pages.ComparisonPage: "comparison_page.html",
    pages.ChoosePage: "compare_choose.html",
    pages.ErrorPage: "error.html",
}

NAVIGATION = (
    ("overview", "/", "Overview"),
    ("training", "/training", "Training"),
    ("comparisons", "/comparisons", "Comparisons"),
    ("workers", "/workers", "Workers"),
    ("models", "/models", "Models"),
    ("problems", "/problems", "Problems"),
    ("usage", "/usage", "Usage"),
)


@jinja2.pass_context
def _ago(context: jinja2.runtime.Context, moment: datetime | None) -> str:
    return wording.ago(moment, context["now"])


FILTERS: dict[str, Callable[..., str]] = {
    "flops": wording.flops,
    "quantity": wording.quantity,
    "usd": wording.usd,
    "count": wording.count,
    "percent": wording.percent,
    "duration": wording.duration,
    "hours": wording.hours,
    "ago": _ago,
    "parameters": report_words.parameters_text,
}

# Plotly writes a style element of its own, hence 'unsafe-inline' for styles; scripts come from this service alone.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def make_dashboard_environment() -> jinja2.Environment:
    """The environment of the pages: the report's, with the dashboard's templates, filters and words."""
    environment = make_environment(TEMPLATES_DIR)
    environment.filters.update(FILTERS)
    environment.globals.update(
        navigation=NAVIGATION,
        job_words=wording.JOB_WORDS,
        task_words=wording.TASK_WORDS,
        artifact_words=wording.ARTIFACT_WORDS,
        stage_words=wording.STAGE_WORDS,
        host_words=wording.HOST_WORDS,
        waste_words=wording.WASTE_WORDS,
        findings=report_words.findings,
        headline=report_words.headline,
        comparison_rows=report_words.comparison_rows,
    )
    return environment


def render(page: pages.Page, *, is_fragment: bool = False, environment: jinja2.Environment | None = None) -> str:
    """HTML of a page.

    Args:
        is_fragment: leave out the frame, for a page that is already open and asks for what has changed.
        environment: from `make_dashboard_environment`, which keeps compiled templates; made anew without it.
    """
    environment = environment or make_dashboard_environment()
    template = environment.get_template(TEMPLATES[type(page)])
    frame = "fragment.html" if is_fragment else "layout.html"
    return template.render(page=page, frame=frame, now=page.shell.now)
