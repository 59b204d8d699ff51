"""The report of a comparison as files: HTML that opens offline, Markdown, JSON, PNG figures, or all of them as a zip.

Every form takes its words from `report_text`; JSON has the numbers behind them too.
"""

import dataclasses
import io
import zipfile
from collections.abc import Sequence

from service.experiments.report import Report
from service.experiments.report_tables import Table
from service.experiments.report_text import ReportText, report_text
from service.figures import Figure
from service.figures.png import render_png
from service.report_files import as_json, markdown_row
from service.report_html import inlined, make_environment
from service.report_words import arm_heading

SCHEMA_VERSION = 1
FORMS = {"html": "text/html", "md": "text/markdown", "json": "application/json", "zip": "application/zip"}
"""Forms of a report and their media types."""


def render_report(form: str, report: Report, figures: Sequence[Figure], *, plotly_js: str) -> bytes:
    """The report in one of `FORMS`.

    Args:
        plotly_js: source of plotly.min.js, for the forms that hold HTML.
    """
    match form:
        case "html":
            return render_html(report, figures, plotly_js=plotly_js).encode()
        case "md":
            return render_markdown(report).encode()
        case "json":
            return to_json(report, figures).encode()
        case "zip":
            return to_zip(report, figures, plotly_js=plotly_js)
        case other:
            raise ValueError(f"form: got {other!r}, allowed: {', '.join(FORMS)}")


def render_html(report: Report, figures: Sequence[Figure], *, plotly_js: str) -> str:
    """One file that needs no network."""
    template = make_environment().get_template("experiment_report.html")
    return template.render(text=report_text(report), figures=figures, **inlined(plotly_js))


def to_json(report: Report, figures: Sequence[Figure]) -> str:
    """Numbers as numbers, and what people read of them."""
    text = report_text(report)
    students = [
        dataclasses.asdict(found)
        | {"is_difference": None if found.difference is None else found.difference.is_difference}
        for found in report.found
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "report": dataclasses.asdict(report) | {"found": students},
        "headline": text.headline,
        "findings": text.findings,
        "limits": text.limits,
        "tables": {
            **{
                table.key: dataclasses.asdict(table)
                for table in (text.students, text.rounds, text.arm_costs, text.costs)
                if table
            },
            **{f"data-{table.num_samples}": [dataclasses.asdict(row) for row in table.rows] for table in text.data},
        },
        "figures": {figure.key: dataclasses.asdict(figure.table) | {"title": figure.title} for figure in figures},
    }
    return as_json(document)


def to_zip(report: Report, figures: Sequence[Figure], *, plotly_js: str) -> bytes:
    """Everything: `report.html`, `report.md`, `report.json` and `figures/<key>.png`."""
    drawn = [figure for figure in figures if not figure.is_empty]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.html", render_html(report, figures, plotly_js=plotly_js))
        archive.writestr("report.md", render_markdown(report, drawn))
        archive.writestr("report.json", to_json(report, figures))
        for figure in drawn:
            archive.writestr(f"figures/{figure.key}.png", render_png(figure))
    return out.getvalue()


def render_markdown(report: Report, drawn: Sequence[Figure] = ()) -> str:
    """The report as Markdown.

    Args:
        drawn: figures that lie as PNG in `figures/` beside it.
    """
    text = report_text(report)
    lines = [f"# {text.title}", "", text.headline, "", *(f"- {sentence}" for sentence in text.findings), ""]
    lines += [text.rule, ""]
    if text.has_students:
        lines += _table(text.students)
    if text.rounds is not None:
        lines += _table(text.rounds)
    for figure in drawn:
        lines += [f"![{figure.title}](figures/{figure.key}.png)", ""]
    lines += _data(text)
    lines += _table(text.arm_costs)
    lines += _table(text.costs)
    lines += ["## What these numbers do not say", "", *(f"- {sentence}" for sentence in text.limits), ""]
    lines += ["## How it was made", "", *(f"- {name}: {value}" for name, value in text.made), ""]
    lines += ["```yaml", text.document.rstrip(), "```", ""]
    for table in text.data:
        for arm in table.comparison.arms:
            lines += [f"### Job {arm.job_id}: {arm.name} at budget {table.num_samples}", ""]
            lines += ["```yaml", arm.document.rstrip(), "```", ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    if not table.rows:
        return [f"## {table.title}", "", table.empty, ""]
    rules = ["---:" if is_number else "---" for is_number in table.numbers]
    return [
        f"## {table.title}",
        "",
        markdown_row(table.columns),
        markdown_row(rules),
        *(markdown_row(row) for row in table.rows),
        "",
        table.footnote,
        "",
    ]


def _data(text: ReportText) -> list[str]:
    lines: list[str] = []
    for table in text.data:
        arms = table.comparison.arms
        heads = [arm_heading(arm) for arm in arms]
        heads += [f"{arm.name} against {arms[0].name}" for arm in arms[1:]]
        lines += [f"## What budget {table.num_samples} bought", "", markdown_row(["", *heads, "basis"])]
        lines += [markdown_row(["---", *["---:"] * len(heads), "---"])]
        lines += [markdown_row([row.label, *row.values, *row.differences, row.basis]) for row in table.rows]
        lines += ["", "Brackets are 95 % intervals over problems.", ""]
    return lines
