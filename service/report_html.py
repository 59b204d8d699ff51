"""A comparison as one HTML file that opens offline.

Owns how templates under `service/assets` are rendered, for the report here and for the pages of the dashboard. Every
value is escaped; an undefined variable is an error, never an empty place. Imports no plotly: its script is handed in.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import jinja2
from markupsafe import Markup

from service import wording
from service.figures import Figure
from service.report import Comparison
from service.report_words import arm_heading, comparison_rows, findings, headline

ASSETS_DIR = Path(__file__).parent / "assets"


def make_environment(*template_dirs: Path) -> jinja2.Environment:
    """A strict, escaping environment that finds the shared templates and those in `template_dirs`, the latter first."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*template_dirs, ASSETS_DIR]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = cast("dict[str, Callable[..., object]]", environment.filters)  # pyright: ignore[reportUnknownMemberType]
    filters |= {"json_block": json_block, "timestamp": wording.timestamp, "arm_heading": arm_heading}
    return environment


def json_block(value: object) -> Markup:
    """JSON for a `<script type="application/json">`: no character sequence in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def render_html(comparison: Comparison, figures: Sequence[Figure], *, plotly_js: str) -> str:
    """The report as a single file.

    Args:
        plotly_js: the source of plotly.min.js (`plotly.offline.get_plotlyjs()`), about 4.8 MB.
    """
    template = make_environment().get_template("report.html")
    return template.render(
        comparison=comparison,
        headline=headline(comparison),
        findings=findings(comparison),
        rows=comparison_rows(comparison),
        figures=figures,
        **inlined(plotly_js),
    )


def inlined(plotly_js: str) -> dict[str, Markup]:
    """Styles and scripts of a file that opens offline, by the names its template uses."""
    return {
        "styles": Markup(_asset("base.css") + _asset("report.css")),
        "theme_script": Markup(_asset("theme.js")),
        "figures_script": Markup(_asset("figures.js")),
        "plotly_script": Markup(plotly_js),
    }


def _asset(name: str) -> str:
    return (ASSETS_DIR / name).read_text(encoding="utf-8")
