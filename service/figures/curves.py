"""Curves over FLOPs per problem: coverage, verified coverage, diversity.

Lines carry their names at their ends and their 95 % intervals as bands.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service import wording
from service.figures.base import (
    HEIGHT_PX,
    MARGIN_BOTTOM_PX,
    MARGIN_TOP_PX,
    NEUTRAL,
    Figure,
    FigureTable,
    Json,
    Spec,
    flops_axis,
    interval_text,
    layout_of,
    plain_text,
    translucent,
)

_LABEL_GAP_PX = 17.0
_CHARACTER_PX = 7.2
_LOG_SPAN = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One point of a curve over FLOPs.

    Args:
        flops: mean cost per problem [FLOPs].
        value: the estimate.
        low: lower end of its 95 % interval; None where none could be computed.
        high: upper end.
        k: samples per problem.
        num_problems: problems with at least k samples.
    """

    flops: float
    value: float
    low: float | None
    high: float | None
    k: int
    num_problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line with its band. `model` decides the colour, `name` is what readers see."""

    name: str
    model: str
    points: tuple[CurvePoint, ...]


def coverage_figure(curves: Sequence[Curve], colours: Mapping[str, str], *, accounting: str) -> Figure:
    """pass@k (coverage) against mean FLOPs per problem."""
    return _curve_figure(
        key="coverage",
        title="Share of problems with a correct answer, against FLOPs spent per problem",
        note="pass@k (coverage), unbiased; bands are 95 % intervals over problems.",
        y_title="pass@k (coverage)",
        curves=curves,
        colours=colours,
        accounting=accounting,
        is_share=True,
    )


def verified_coverage_figure(
    curves: Sequence[Curve], colours: Mapping[str, str], *, accounting: str, checker: str
) -> Figure:
    """Coverage that counts a sample only when its reasoning holds as well, judged by `checker`."""
    return _curve_figure(
        key="verified-coverage",
        title="Share of problems with a correct answer and valid reasoning, against FLOPs spent per problem",
        note=f"Verified pass@k: answer and reasoning hold ({checker}); bands are 95 % intervals over problems.",
        y_title="verified pass@k",
        curves=curves,
        colours=colours,
        accounting=accounting,
        is_share=True,
    )


def diversity_figure(curves: Sequence[Curve], colours: Mapping[str, str], *, accounting: str, rule: str) -> Figure:
    """Unique correct solutions per problem; `rule` says when two solutions are the same."""
    return _curve_figure(
        key="diversity",
        title="Unique correct solutions per problem, against FLOPs spent per problem",
        note=f"Diversity, unbiased under subsampling; two solutions are the same by {rule}.",
        y_title="unique correct solutions per problem",
        curves=curves,
        colours=colours,
        accounting=accounting,
        is_share=False,
    )


def _curve_figure(
    *,
    key: str,
    title: str,
    note: str,
    y_title: str,
    curves: Sequence[Curve],
    colours: Mapping[str, str],
    accounting: str,
    is_share: bool,
) -> Figure:
    drawn = [c for c in curves if c.points]
    xs = [p.flops for c in drawn for p in c.points]
    is_log = _is_log(xs)
    bottom, top = _value_range(drawn, is_share=is_share)
    traces: list[Json] = []
    for curve in drawn:
        colour = colours.get(curve.model, NEUTRAL)
        if all(p.low is not None and p.high is not None for p in curve.points):
            traces.append(_band(curve, colour))
        traces.append(_line(curve, colour, dash=_dash(curve, drawn), unit=y_title))
    layout = layout_of(
        x={"title": {"text": f"FLOPs per problem ({accounting})"}, **_flops_axis(xs, is_log=is_log)},
        y={"title": {"text": y_title}, "range": [bottom, top], "tickformat": ".2~f" if is_share else ".1~f"},
        right=_label_margin([c.name for c in drawn]),
    )
    layout["annotations"] = _end_labels(drawn, colours, bottom=bottom, top=top, is_log=is_log)
    return Figure(
        key=key, title=title, note=note, spec={"data": traces, "layout": layout}, table=_curve_table(curves, y_title)
    )


def _line(curve: Curve, colour: str, *, dash: str, unit: str) -> Json:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": curve.name,
        "x": [p.flops for p in curve.points],
        "y": [p.value for p in curve.points],
        "customdata": [[p.k, p.num_problems, interval_text(p.low, p.high)] for p in curve.points],
        "hovertemplate": (
            f"<b>{plain_text(curve.name)}</b><br>{unit} %{{y:.3f}} %{{customdata[2]}}<br>%{{x:.3e}} FLOPs per problem"
            "<br>k = %{customdata[0]}, n = %{customdata[1]} problems<extra></extra>"
        ),
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"color": colour, "size": 6},
        "showlegend": False,
    }


def _band(curve: Curve, colour: str) -> Json:
    """The interval as one closed outline: there along the upper end, back along the lower one."""
    outline = (*curve.points, *reversed(curve.points))
    ys: list[Json] = [*(p.high for p in curve.points), *(p.low for p in reversed(curve.points))]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [p.flops for p in outline],
        "y": ys,
        "fill": "toself",
        "fillcolor": translucent(colour, 0.16),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _dash(curve: Curve, curves: Sequence[Curve]) -> str:
    """Solid for a model's first curve; later curves of the same colour differ by dash."""
    same = [c.name for c in curves if c.model == curve.model]
    return ("solid", "dash", "dot", "dashdot")[same.index(curve.name) % 4]


def _value_range(curves: Sequence[Curve], *, is_share: bool) -> tuple[float, float]:
    values = [v for c in curves for p in c.points for v in (p.low, p.value, p.high) if v is not None]
    if not values:
        return 0.0, 1.0
    if is_share:
        low = max(0.0, math.floor(10 * (min(values) - 0.02)) / 10)
        return low, min(1.02, max(values) + 0.05 * (1 - low))
    return 0.0, 1.08 * max(max(values), 1e-9)


def _end_labels(
    curves: Sequence[Curve], colours: Mapping[str, str], *, bottom: float, top: float, is_log: bool
) -> list[Json]:
    """Names at the right ends of their lines, shifted apart where lines end close together."""
    plot_px = HEIGHT_PX - MARGIN_TOP_PX - MARGIN_BOTTOM_PX
    px_per_unit = plot_px / (top - bottom)
    ends = sorted((c.points[-1].value * px_per_unit, c.name, c) for c in curves)
    shifts = spread([height for height, _, _ in ends], gap=_LABEL_GAP_PX)
    labels: list[Json] = []
    for (height, name, curve), wanted in zip(ends, shifts, strict=True):
        end = curve.points[-1]
        labels.append(
            {
                "x": math.log10(end.flops) if is_log else end.flops,
                "y": end.value,
                "xanchor": "left",
                "yanchor": "middle",
                "xshift": 8,
                "yshift": round(wanted - height, 1),
                "showarrow": False,
                "align": "left",
                "text": f'<span style="color:{colours.get(curve.model, NEUTRAL)}">●</span> {plain_text(name)}',
            }
        )
    return labels


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Positions at least `gap` apart for ascending `heights`, each cluster centred on the mean of its members."""
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and _lowest(clusters[-1], gap) < _highest(clusters[-2], gap) + gap:
            last = clusters.pop()
            clusters[-1].extend(last)
    return [_lowest(members, gap) + i * gap for members in clusters for i in range(len(members))]


def _lowest(members: Sequence[float], gap: float) -> float:
    return sum(members) / len(members) - gap * (len(members) - 1) / 2


def _highest(members: Sequence[float], gap: float) -> float:
    return sum(members) / len(members) + gap * (len(members) - 1) / 2


def _curve_table(curves: Sequence[Curve], y_title: str) -> FigureTable:
    rows = [
        (
            curve.name,
            wording.count(p.k),
            wording.flops(p.flops),
            f"{p.value:.3f}",
            interval_text(p.low, p.high) or "no interval",
            wording.count(p.num_problems),
        )
        for curve in curves
        for p in curve.points
    ]
    columns = ("series", "k samples", "FLOPs per problem", y_title, "95 % interval", "n problems")
    return FigureTable(columns=columns, rows=tuple(rows))


def _label_margin(names: Sequence[str]) -> float:
    return 24 + _CHARACTER_PX * (2 + max((len(name) for name in names), default=0))


def _flops_axis(xs: Sequence[float], *, is_log: bool) -> Spec:
    if is_log:
        decades = [math.log10(x) for x in (min(xs), max(xs))]
        powers = range(math.floor(decades[0]), math.ceil(decades[1]) + 1)
        return {
            "type": "log",
            "range": [decades[0] - 0.1, decades[1] + 0.05],
            "tickvals": [10.0**p for p in powers],
            "ticktext": [f"1e{p}" for p in powers],
            "minor": {"dtick": "D1", "ticks": "outside"},
        }
    return flops_axis(max(xs, default=0.0))


def _is_log(xs: Sequence[float]) -> bool:
    """Over two decades a linear axis hides the small end. Zero has no logarithm."""
    return bool(xs) and min(xs) > 0 and max(xs) / min(xs) > _LOG_SPAN
