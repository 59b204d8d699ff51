"""A comparison is worded honestly, and its forms (rows, Markdown, JSON, HTML) hold the same numbers."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from service import figures, report, report_files, report_words
from service.report_html import json_block, render_html
from service.stats import Estimate, NotEstimable

PLOTLY_JS = "window.Plotly = {react: function () {}};"
COVERAGES = (Estimate(0.884, 0.852, 0.912, 400), Estimate(0.909, 0.881, 0.934, 400))
HIGHER = Estimate(0.025, 0.001, 0.049, 400)


def make_arm(name: str = "larger", **changes: object) -> report.Arm:
    arm = report.Arm(
        name=name,
        models=(f"gsm-{name}",),
        parameters=593_280,
        job_id=f"job-{name}",
        budget="1.31e12 FLOPs",
        reserved_flops=0.0,
        spent_flops=1.31e12,
        useful_flops=1.31e12,
        waste=(report.Waste(reason="truncated", flops=3.93e9),),
        device_hours=0.021,
        device="CPU",
        samples=4000,
        errors=0,
        completion_tokens=112_000,
        tokens_per_s=1481.0,
        document="name: example\n",
    )
    return dataclasses.replace(arm, **changes)  # type: ignore[arg-type]


def make_line(
    *,
    label: str = "pass@k (coverage)",
    form: report.Form = report.Form.share,
    values: tuple[report.Measured, ...] = COVERAGES,
    difference: report.Measured = HIGHER,
    is_relative: bool = False,
) -> report.MetricLine:
    return report.MetricLine(
        key="coverage",
        label=label,
        explanation="Share of problems with a correct answer.",
        form=form,
        values=values,
        differences=(difference,),
        is_relative=is_relative,
    )


def make_comparison(*metrics: report.MetricLine, **changes: object) -> report.Comparison:
    comparison = report.Comparison(
        title="small against large",
        problems="gsm-mini/test",
        fingerprint="sha256:51f2",
        num_problems=400,
        matched_by="useful FLOPs",
        accounting="exact",
        checker="step checker",
        seed=0,
        created_at=datetime(2026, 3, 1, 14, tzinfo=UTC),
        arms=(make_arm(), make_arm("smaller", parameters=196_224, useful_flops=1.3097e12, samples=12_071)),
        metrics=metrics or (make_line(),),
        versions=(("isoflop", "0.1.0"),),
    )
    return dataclasses.replace(comparison, **changes)  # type: ignore[arg-type]


def row_by_label(comparison: report.Comparison) -> dict[str, report_words.Row]:
    return {row.label: row for row in report_words.comparison_rows(comparison)}


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (report.Form.share, Estimate(0.884, 0.852, 0.912, 400), ".884 [.85, .91]"),
        (report.Form.rate, Estimate(0.038, 0.035, 0.042, 10165), "3.8 % [3.5, 4.2]"),
        (report.Form.number, Estimate(5.49, 5.14, 5.83, 400), "5.49 [5.14, 5.83]"),
        (report.Form.flops, Estimate(1.31e9, 1.2e9, 1.4e9, 400), "1.31e9 [1.20e9, 1.40e9]"),
        (report.Form.share, NotEstimable("no judge"), "not measured"),
    ],
)
def test_estimate_stands_with_its_interval(form: report.Form, value: report.Measured, text: str) -> None:
    assert report_words.measured_text(form, value) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (make_line(), "+.025 [+.001, +.049]"),
        (make_line(difference=Estimate(-0.008, -0.034, 0.019, 400)), "-.008 [-.034, +.019], not significant"),
        (
            make_line(form=report.Form.rate, difference=Estimate(0.017, 0.009, 0.026, 400)),
            "+1.7 points [+0.9, +2.6]",
        ),
        (
            make_line(form=report.Form.number, difference=Estimate(0.57, 0.5, 0.64, 400), is_relative=True),
            "+57 % [+50, +64]",
        ),
        (make_line(difference=Estimate(0.0, 0.0, 0.0, 400)), "+.000 [+.000, +.000], not significant"),
        (make_line(difference=NotEstimable("no judge")), "not measured"),
    ],
)
def test_difference_is_called_one_only_when_its_interval_excludes_zero(line: report.MetricLine, text: str) -> None:
    assert report_words.difference_text(line, line.differences[0]) == text


def test_rows_have_a_cell_for_every_arm_and_every_difference() -> None:
    rows = report_words.comparison_rows(make_comparison())

    assert {len(row.values) for row in rows} == {2}
    assert {len(row.differences) for row in rows} == {1}
    assert all(row.basis and row.explanation for row in rows)


def test_rows_say_how_close_the_match_is_and_what_was_wasted() -> None:
    rows = row_by_label(make_comparison())

    assert rows["useful FLOPs"].differences == ("matched to 0.02 %",)
    assert rows["samples"].differences == ("× 3.02",)
    assert rows["waste"].values == ("0.3 % truncated", "0.3 % truncated")
    assert rows["pass@k (coverage)"].basis == "absolute, n = 400; difference absolute"


def test_arms_far_apart_are_not_called_matched() -> None:
    comparison = make_comparison(arms=(make_arm(), make_arm("smaller", useful_flops=0.9 * 1.31e12)))

    assert row_by_label(comparison)["useful FLOPs"].differences == ("not matched, -10.00 %",)
    assert report_words.findings(comparison)[0] == (
        "Not matched: useful FLOPs (exact accounting) differ by up to 10.00 % on 400 problems."
    )


def test_rows_name_the_device_whose_hours_they_count() -> None:
    arms = (make_arm(device="GPU", device_hours=12.25), make_arm("smaller", device="", device_hours=None))

    rows = row_by_label(make_comparison(arms=arms))

    assert rows["GPU-hours"].values == ("12.2", "unknown")
    assert rows["GPU-hours"].differences == ("unknown",)


def test_hours_of_gpus_are_not_held_against_hours_of_cores() -> None:
    arms = (make_arm(device="GPU", device_hours=2.0), make_arm("smaller", device="CPU", device_hours=1.0))

    row = row_by_label(make_comparison(arms=arms))["CPU / GPU-hours"]

    assert (row.values, row.differences) == (("2 GPU", "1 CPU"), ("other devices",))


def test_rows_write_small_hours_with_three_figures_and_large_changes_whole() -> None:
    rows = row_by_label(
        make_comparison(arms=(make_arm(device_hours=0.005844), make_arm("smaller", device_hours=0.01628)))
    )

    assert rows["CPU-hours"].values == ("0.00584", "0.0163")
    assert rows["CPU-hours"].differences == ("+179 %",)


def test_findings_name_direction_size_and_n() -> None:
    sentences = report_words.findings(
        make_comparison(
            make_line(),
            make_line(label="verified coverage", difference=Estimate(-0.008, -0.034, 0.019, 400)),
            make_line(label="judged", difference=NotEstimable("no judge was configured")),
        )
    )

    assert sentences == [
        "Matched on useful FLOPs (exact accounting), useful FLOPs within 0.02 % on 400 problems.",
        "pass@k (coverage): higher for smaller than for larger (+.025 [+.001, +.049], n = 400).",
        "verified coverage: no significant difference between smaller and larger (-.008 [-.034, +.019], n = 400).",
        "judged: no verdict on smaller against larger, no judge was configured.",
    ]


def test_findings_quote_names_that_a_sentence_would_swallow() -> None:
    arms = (make_arm("demo, larger model"), make_arm("smaller"))

    assert report_words.findings(make_comparison(arms=arms))[1] == (
        "pass@k (coverage): higher for smaller than for “demo, larger model” (+.025 [+.001, +.049], n = 400)."
    )


def test_headline_names_the_match_and_the_real_differences() -> None:
    none = Estimate(-0.008, -0.034, 0.019, 400)
    more = Estimate(0.57, 0.5, 0.64, 400)
    unique = make_line(label="unique correct", form=report.Form.number, difference=more, is_relative=True)

    assert report_words.headline(make_comparison(make_line(), unique, make_line(difference=none))) == (
        "At equal useful FLOPs, smaller against larger: pass@k (coverage) +.025; unique correct +57 %; "
        "1 other difference not significant."
    )
    assert report_words.headline(make_comparison(make_line(difference=none))) == (
        "At equal useful FLOPs, smaller against larger: no significant difference."
    )


def test_headline_of_arms_far_apart_does_not_claim_equal_compute() -> None:
    comparison = make_comparison(arms=(make_arm(), make_arm("smaller", useful_flops=0.8 * 1.31e12)))

    assert report_words.headline(comparison).startswith("At useful FLOPs 20.00 % apart, smaller against larger: ")


def test_findings_of_a_single_arm_claim_nothing() -> None:
    line = dataclasses.replace(make_line(), values=(Estimate(0.9, 0.8, 1.0, 400),), differences=())

    assert report_words.findings(make_comparison(line, arms=(make_arm(),))) == [
        "One arm only: there is nothing to compare it with."
    ]


@pytest.mark.parametrize(
    ("parameters", "text"), [(593_280, "593k"), (1_500_000, "1.5M"), (9_241_705_984, "9.24B"), (12, "12")]
)
def test_parameters_are_written_as_people_say_them(parameters: int, text: str) -> None:
    assert report_words.parameters_text(parameters) == text


def test_markdown_table_has_every_row_with_equal_cells() -> None:
    comparison = make_comparison(make_line(label="a|b"))
    table = [line for line in report_files.render_markdown(comparison).splitlines() if line.startswith("|")]
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in table]

    assert len(table) == 2 + len(report_words.comparison_rows(comparison))
    assert len(set(cells)) == 1


def test_markdown_holds_the_job_document_and_the_versions() -> None:
    text = report_files.render_markdown(make_comparison())

    assert "```yaml\nname: example\n```" in text
    assert "- isoflop: 0.1.0" in text


def test_json_holds_numbers_as_numbers() -> None:
    document = json.loads(report_files.to_json(make_comparison(), quality_figures()))

    assert document["comparison"]["arms"][1]["useful_flops"] == 1.3097e12
    assert document["comparison"]["metrics"][0]["differences"][0] == {
        "value": 0.025,
        "low": 0.001,
        "high": 0.049,
        "n": 400,
    }
    assert document["comparison"]["created_at"] == "2026-03-01T14:00:00+00:00"
    assert document["tables"]["coverage"]["rows"][0][0] == "smaller"


def test_json_has_null_for_what_nobody_can_tell() -> None:
    unknown = make_comparison(arms=(make_arm(spent_flops=float("nan")), make_arm("smaller")))

    assert json.loads(report_files.to_json(unknown))["comparison"]["arms"][0]["spent_flops"] is None


def quality_figures() -> tuple[figures.Figure, ...]:
    point = figures.CurvePoint(flops=1e9, value=0.9, low=0.87, high=0.93, k=10, num_problems=400)
    curve = figures.Curve(name="smaller", model="gsm-smaller", points=(point,))
    return (figures.coverage_figure([curve], figures.assign_colours(["gsm-smaller"]), accounting="exact"),)


class Elements(HTMLParser):
    """Collects what a document would fetch, and its scripts by type."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.json_blocks: list[str] = []
        self._is_json = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self._is_json = tag == "script" and attributes.get("type") == "application/json"
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        if self._is_json:
            self.json_blocks.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_json = False


def test_html_fetches_nothing_and_carries_figures_as_json() -> None:
    elements = Elements()
    elements.feed(render_html(make_comparison(), quality_figures(), plotly_js=PLOTLY_JS))

    assert elements.fetched == []
    assert [json.loads(block) for block in elements.json_blocks] == [figure.spec for figure in quality_figures()]


def test_html_has_every_cell_of_the_table() -> None:
    comparison = make_comparison()
    html = render_html(comparison, quality_figures(), plotly_js=PLOTLY_JS)

    for row in report_words.comparison_rows(comparison):
        for cell in (row.label, *row.values, *row.differences):
            assert cell in html


def test_html_escapes_what_people_named() -> None:
    html = render_html(make_comparison(title="<script>alert(1)</script>"), (), plotly_js=PLOTLY_JS)

    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_json_block_cannot_end_its_script_element() -> None:
    value = {"name": "</script><!-- & \u2028"}
    block = str(json_block(value))

    assert "<" not in block
    assert "&" not in block
    assert json.loads(block) == value
