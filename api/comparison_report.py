"""The report of a comparison as the service gives it: report, figures and files, with what stands around it.

One place for the REST route and the page. Must not import workers.
"""

import dataclasses
from datetime import datetime

import yaml

from api.artifact_views import finetune_log
from api.context import AppContext
from api.dashboard.assets import plotly_js_path
from api.resolve import document_of
from api.resolve_comparison import comparison_document
from api.version import VERSION, commit
from service.artifacts import Artifact, ArtifactKind
from service.errors import UnknownName
from service.experiments.report import Report
from service.experiments.report_figures import report_figures
from service.experiments.report_files import FORMS, render_report
from service.experiments.report_source import Surroundings
from service.experiments.spec import ComparisonSpec
from service.figures import Figure, assign_colours
from service.manifest import package_versions
from service.planner.submit import manifest_path


def report_of(context: AppContext, artifact: Artifact, now: datetime) -> tuple[Report, tuple[Figure, ...]]:
    """The report of a comparison as of now, with all its figures.

    Raises:
        CorruptFile: a committed file is missing or unreadable.
    """
    spec, store, settings = artifact.spec, context.store, context.settings
    assert isinstance(spec, ComparisonSpec)

    def job_document(job_id: str) -> str:
        job, resolved = store.jobs.get(job_id), store.jobs.resolved(job_id)
        return _yaml(document_of(job.spec, resolved.num_problems))

    around = Surroundings(
        document=_yaml(comparison_document(spec)),
        job_document=job_document,
        log=lambda finetune_id: finetune_log(settings, store.artifacts.get(finetune_id, ArtifactKind.finetune)),
        manifest=lambda job_id: manifest_path(str(settings.data_dir), job_id),
        versions=(*package_versions().items(), *_own_version()),
    )
    report, drawn = context.reports.get(store, artifact, around, now)
    report = dataclasses.replace(report, created_at=now)
    colours = assign_colours([model.name for model in store.catalogue.models()])
    models = {arm.name: arm.models[0] for arm in spec.arms}
    return report, report_figures(report, drawn, colours, models)


def report_file(context: AppContext, comparison_id: str, form: str, now: datetime) -> bytes:
    """The report as a file.

    Raises:
        NotFound: no such comparison.
        UnknownName: a form that there is not.
        CorruptFile: a committed file is missing or unreadable.
    """
    if form not in FORMS:
        raise UnknownName(kind="report format", got=form, allowed=FORMS)
    artifact = context.store.artifacts.get(comparison_id, ArtifactKind.comparison)
    report, figures = report_of(context, artifact, now)
    script = plotly_js_path().read_text(encoding="utf-8") if form in ("html", "zip") else ""
    return render_report(form, report, figures, plotly_js=script)


def _own_version() -> tuple[tuple[str, str], ...]:
    known = commit()
    return (("isoflop", VERSION), *((("commit of isoflop", known),) if known else ()))


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
