"""Figures say what they show, keep a model's colour, and stand on a table with the same numbers."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import figures
from service.figures.base import flops_axis
from service.figures.curves import spread

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLOURS = figures.assign_colours(["larger", "smaller"])


def make_curve(
    name: str = "smaller",
    *,
    model: str = "smaller",
    flops: tuple[float, ...] = (1e8, 2e8, 4e8),
    values: tuple[float, ...] = (0.4, 0.6, 0.7),
    half_width: float | None = 0.03,
) -> figures.Curve:
    return figures.Curve(
        name=name,
        model=model,
        points=tuple(
            figures.CurvePoint(
                flops=x,
                value=y,
                low=None if half_width is None else y - half_width,
                high=None if half_width is None else y + half_width,
                k=i + 1,
                num_problems=400,
            )
            for i, (x, y) in enumerate(zip(flops, values, strict=True))
        ),
    )


FILTERS = [
    figures.FilterBar(name="samples", rows=100, rows_by_source=(60, 40)),
    figures.FilterBar(name="keep", rows=30, rows_by_source=(30, 0)),
    figures.FilterBar(name="per_problem", rows=30, rows_by_source=(30, 0)),
]


def make_log(steps: int = 3) -> list[figures.LossPoint]:
    return [
        figures.LossPoint(step=step, loss=1.0 / step, learning_rate=1e-3 / step, epoch=step / 2)
        for step in range(1, steps + 1)
    ]


def coverage(*curves: figures.Curve) -> figures.Figure:
    return figures.coverage_figure(curves, COLOURS, accounting="exact")


def drawn(figure: figures.Figure) -> Any:
    """The specification as a browser gets it."""
    return json.loads(json.dumps(figure.spec, allow_nan=False))


def every_figure() -> list[figures.Figure]:
    curve = make_curve()
    return [
        coverage(curve),
        figures.verified_coverage_figure([curve], COLOURS, accounting="exact", checker="steps"),
        figures.diversity_figure([curve], COLOURS, accounting="paper", rule="exact text"),
        figures.false_positive_figure(
            [figures.RateBar(name="smaller", model="smaller", value=0.038, low=0.035, high=0.042, num_items=10165)],
            COLOURS,
            checker="steps",
        ),
        figures.spend_figure(
            [figures.SpendBucket(start=NOON, model="smaller", stage="generate", flops=1e9)], COLOURS, bucket="minute"
        ),
        figures.burn_down_figure([figures.BudgetPoint(at=NOON, spent=1e9)], reserved=1e8, limit=1e10, unit="FLOPs"),
        figures.length_figure([figures.LengthBin(name="smaller", low=0, high=8, stopped=7, truncated=1)], COLOURS),
        figures.filters_figure(FILTERS, ["job-1", "job-2"]),
        figures.loss_figure(make_log(), colour=COLOURS["smaller"], checkpoints=[2]),
        figures.learning_rate_figure(make_log(), colour=COLOURS["smaller"]),
    ]


def empty_figures() -> list[figures.Figure]:
    return [
        coverage(),
        figures.diversity_figure([], COLOURS, accounting="exact", rule="exact text"),
        figures.false_positive_figure([], COLOURS, checker="steps"),
        figures.spend_figure([], COLOURS, bucket="minute"),
        figures.burn_down_figure([], reserved=0.0, limit=1e10, unit="FLOPs"),
        figures.length_figure([], COLOURS),
    ]


@pytest.mark.parametrize("figure", every_figure(), ids=lambda f: f.key)
def test_figure_has_title_table_and_named_axes(figure: figures.Figure) -> None:
    layout = drawn(figure)["layout"]

    assert figure.title
    assert not figure.is_empty
    assert figure.table.rows
    assert {len(row) for row in figure.table.rows} == {len(figure.table.columns)}
    assert "title" in layout["xaxis"]
    assert "paper_bgcolor" not in layout, "colours of the page belong to the page"


def test_figure_keys_are_distinct() -> None:
    keys = [figure.key for figure in every_figure()]

    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("figure", [*every_figure(), *empty_figures()], ids=lambda f: f"{f.key}-{len(f.table.rows)}")
def test_figure_spec_is_strict_json_without_nan(figure: figures.Figure) -> None:
    assert drawn(figure) == figure.spec


@pytest.mark.parametrize("figure", empty_figures(), ids=lambda f: f.key)
def test_figure_without_data_says_so(figure: figures.Figure) -> None:
    assert figure.is_empty
    assert figure.table.rows == ()


def test_colours_a_new_model_changes_no_old_one() -> None:
    before = figures.assign_colours(["larger", "smaller"])
    after = figures.assign_colours(["larger", "smaller", "newest"])

    assert before.items() <= after.items()
    assert len(set(after.values())) == 3


def test_curves_of_one_model_share_its_colour_and_differ_by_dash() -> None:
    figure = coverage(make_curve("coverage"), make_curve("verified"), make_curve("larger", model="larger"))
    lines = [trace for trace in drawn(figure)["data"] if "markers" in trace["mode"]]
    looks = [(trace["line"]["color"], trace["line"]["dash"]) for trace in lines]

    assert looks == [(COLOURS["smaller"], "solid"), (COLOURS["smaller"], "dash"), (COLOURS["larger"], "solid")]


@pytest.mark.parametrize(
    ("flops", "kind"),
    [((1e8, 1e9, 1e10), "linear"), ((1e8, 1e9, 1.01e10), "log"), ((0.0, 1e9, 1e12), "linear")],
    ids=["two decades", "more than two decades", "zero has no logarithm"],
)
def test_flops_axis_is_logarithmic_beyond_two_decades(flops: tuple[float, ...], kind: str) -> None:
    assert drawn(coverage(make_curve(flops=flops)))["layout"]["xaxis"]["type"] == kind


def test_band_is_drawn_only_where_every_point_has_an_interval() -> None:
    def bands(figure: figures.Figure) -> int:
        return sum(trace.get("fill") == "toself" for trace in drawn(figure)["data"])

    assert bands(coverage(make_curve())) == 1
    assert bands(coverage(make_curve(half_width=None))) == 0


def test_curve_table_has_values_and_intervals_of_the_line() -> None:
    table = coverage(make_curve(values=(0.4, 0.6, 0.7))).table

    assert table.rows[1] == ("smaller", "2", "2.00e8", "0.600", "[0.570, 0.630]", "400")


def test_name_with_markup_is_shown_not_obeyed() -> None:
    label = drawn(coverage(make_curve("<b>a&b</b>")))["layout"]["annotations"][0]["text"]

    assert label.endswith("&lt;b&gt;a&amp;b&lt;/b&gt;")


def test_end_labels_of_lines_that_end_together_stand_apart() -> None:
    close = [make_curve(f"curve {i}", values=(0.4, 0.6, 0.7 + 0.001 * i), half_width=None) for i in range(3)]
    layout = drawn(coverage(*close))["layout"]
    shifts = [label["yshift"] for label in layout["annotations"]]

    assert shifts[1] - shifts[0] > 15
    assert shifts[2] - shifts[1] > 15


@given(st.lists(st.floats(0, 400), max_size=8).map(sorted))
def test_spread_keeps_order_gap_and_centre(heights: list[float]) -> None:
    moved = spread(heights, gap=17.0)

    assert len(moved) == len(heights)
    assert all(b - a >= 17.0 - 1e-6 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-6)


@given(st.floats(1.0, 1e24))
def test_flops_axis_has_a_few_round_ticks_that_fit(highest: float) -> None:
    axis: Any = flops_axis(highest)
    ticks, texts = axis["tickvals"], axis["ticktext"]

    assert 3 <= len(ticks) <= 7
    assert ticks[0] == 0.0
    assert ticks[-1] <= axis["range"][1]
    assert [float(text.replace(",", "")) for text in texts] == pytest.approx(ticks)


def test_spend_buckets_of_one_cell_add_up_and_empty_ones_stay_out_of_the_table() -> None:
    later = NOON + timedelta(minutes=1)
    figure = figures.spend_figure(
        [
            figures.SpendBucket(start=NOON, model="smaller", stage="generate", flops=1e9),
            figures.SpendBucket(start=NOON, model="smaller", stage="generate", flops=2e9),
            figures.SpendBucket(start=later, model="smaller", stage="generate", flops=0.0),
        ],
        COLOURS,
        bucket="minute",
    )

    assert figure.table.rows == (("2026-03-01 12:00", "smaller", "generate", "3.00e9"),)
    assert drawn(figure)["data"][0]["y"] == [3e9, 0.0]


def test_stages_of_one_model_differ_by_pattern() -> None:
    figure = figures.spend_figure(
        [
            figures.SpendBucket(start=NOON, model="smaller", stage=stage, flops=1e9)
            for stage in ("generate", "evaluate", "finetune")
        ],
        COLOURS,
        bucket="hour",
    )
    patterns = [trace["marker"]["pattern"]["shape"] for trace in drawn(figure)["data"]]

    assert len(set(patterns)) == 3
    assert {trace["marker"]["color"] for trace in drawn(figure)["data"]} == {COLOURS["smaller"]}


def test_false_positive_rate_that_could_not_be_told_is_in_the_table_not_in_the_chart() -> None:
    figure = figures.false_positive_figure(
        [figures.RateBar(name="larger", model="larger", value=None, low=None, high=None, num_items=0)],
        COLOURS,
        checker="steps",
    )

    assert figure.is_empty
    assert figure.table.rows == (("larger", "unknown", "no interval", "0"),)


def test_filters_figure_draws_what_each_filter_dropped_behind_what_it_left() -> None:
    figure = figures.filters_figure(FILTERS, ["job-1", "job-2"])
    left, dropped = drawn(figure)["data"]

    assert left["x"] == [100, 30, 30]
    assert dropped["x"] == [0, 70, 0]
    assert left["y"] == ["samples", "keep", "per problem"]
    assert figure.table.columns[-2:] == ("job-1", "job-2")
    assert figure.table.rows[1] == ("keep", "30", "70", "30.0 %", "30", "0")


def test_filters_figure_of_nothing_is_empty() -> None:
    assert figures.filters_figure([], []).is_empty


@pytest.mark.parametrize(("steps", "names"), [(3, ["loss", "checkpoint"]), (200, ["loss", "mean of 5", "checkpoint"])])
def test_loss_figure_shows_a_mean_once_there_are_many_steps(steps: int, names: list[str]) -> None:
    figure = figures.loss_figure(make_log(steps), colour="#0072B2", checkpoints=[2, 900])
    data = drawn(figure)["data"]

    assert [trace["name"] for trace in data] == names
    assert data[-1]["x"] == [2], "a checkpoint whose step is not logged has no place on the curve"
    assert len(figure.table.rows) == steps


def test_loss_figure_mean_is_of_the_steps_before() -> None:
    mean = drawn(figures.loss_figure(make_log(200), colour="#0072B2", checkpoints=[]))["data"][1]

    assert mean["y"][0] == 1.0
    assert mean["y"][99] == pytest.approx(sum(1 / step for step in range(96, 101)) / 5)


def test_loss_figure_leaves_out_what_cannot_be_drawn() -> None:
    log = [*make_log(), figures.LossPoint(step=4, loss=float("nan"), learning_rate=1e-4, epoch=2.0)]
    figure = figures.loss_figure(log, colour="#0072B2", checkpoints=[])

    assert drawn(figure)["data"][0]["x"] == [1, 2, 3]
    assert figure.table.rows[-1][:2] == ("4", "nan")


def test_lengths_of_arms_of_one_colour_are_told_apart_by_how_pale_they_are() -> None:
    bins = [figures.LengthBin(name=name, low=0, high=8, stopped=7, truncated=0) for name in ("a", "b", "c")]
    made = figures.length_figure(bins, {"a": "#111111", "b": "#111111", "c": "#222222"}, of="arm")

    data = json.loads(json.dumps(made.spec))["data"]
    assert [trace["opacity"] for trace in data] == [1.0, 0.6, 1.0]
    assert made.table.columns[0] == "arm"
