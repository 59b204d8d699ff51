"""A comparison as Markdown and as JSON; `service.report_html` makes the HTML."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from service.figures import Figure
from service.report import Comparison
from service.report_words import arm_heading, comparison_rows, findings, headline

SCHEMA_VERSION = 1


def render_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: sentences, table, how it was made."""
    heads = [arm_heading(a) for a in comparison.arms]
    heads += [f"{a.name} against {comparison.arms[0].name}" for a in comparison.arms[1:]]
    lines = [
        f"# {comparison.title}",
        "",
        headline(comparison),
        "",
        *(f"- {sentence}" for sentence in findings(comparison)),
        "",
    ]
    lines += [markdown_row(["", *heads, "basis"]), markdown_row(["---", *["---:"] * len(heads), "---"])]
    lines += [markdown_row([r.label, *r.values, *r.differences, r.basis]) for r in comparison_rows(comparison)]
    lines += ["", *(f"> {note}" for note in comparison.notes), "", "## How the data was made", ""]
    lines += [f"- problems: {comparison.problems}, {comparison.num_problems:,}, {comparison.fingerprint}"]
    lines += [f"- seed: {comparison.seed}", f"- reasoning judged by: {comparison.checker}"]
    lines += [f"- {name}: {version}" for name, version in comparison.versions]
    for arm in comparison.arms:
        lines += ["", f"### {arm.name}: job {arm.job_id}", "", "```yaml", arm.document.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def to_json(comparison: Comparison, figures: tuple[Figure, ...] = ()) -> str:
    """Everything a report shows, machine-readable: numbers as numbers, and the same rows as text."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "comparison": dataclasses.asdict(comparison),
        "findings": findings(comparison),
        "rows": [dataclasses.asdict(row) for row in comparison_rows(comparison)],
        "tables": {figure.key: dataclasses.asdict(figure.table) for figure in figures},
    }
    return as_json(document)


def as_json(document: object) -> str:
    """A report's document as JSON text, with null for what cannot be told."""
    return json.dumps(_known(document), indent=2, ensure_ascii=False, default=encode, allow_nan=False) + "\n"


def _known(value: Any) -> Any:
    """The same document with None in the place of NaN, which JSON has no form for."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        return {name: _known(entry) for name, entry in entries.items()}
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        return [_known(item) for item in items]
    return value


def encode(value: object) -> str:
    """What JSON has no form for.

    Raises:
        TypeError: a value that no report holds.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a report holds numbers, text and UTC datetimes; got {type(value).__name__}")


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
