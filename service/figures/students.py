"""What students made of their data: accuracies, differences to the reference, training losses.

Colour follows the model that drew the data, the marker the arm, so that grey prints and colour-blind readers lose
nothing; a difference that is one has a filled marker, another one a hollow one. Nothing is estimated here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service import wording
from service.figures.base import (
    MARGIN_LEGEND_PX,
    NEUTRAL,
    Figure,
    FigureTable,
    Json,
    Spec,
    interval_text,
    layout_of,
    legend_above,
    plain_text,
)

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
"""Markers of arms, in their order."""
DASHES = ("solid", "dash", "dot", "dashdot")
_ROW_PX = 26
_FRAME_PX = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A number with its interval, in a row of its own.

    Args:
        row: what the row is called.
        group: rows of a group stand together, under its name; also what the base line belongs to.
        arm: decides the marker.
        model: decides the colour.
        is_one: of differences, whether the interval excludes zero.
        by_seed: the same number for each seed, if there are several.
        basis: what it rests on, e.g. "250 problems, 3 seeds".
    """

    group: str
    row: str
    arm: str
    model: str
    value: float
    low: float
    high: float
    basis: str
    is_one: bool = True
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The losses of one run, by step."""

    name: str
    arm: str
    model: str
    points: tuple[tuple[int, float], ...]


def accuracy_figure(
    student: str,
    dots: Sequence[Dot],
    colours: Mapping[str, str],
    arms: Sequence[str],
    *,
    key: str,
    base: float | None,
    base_name: str,
) -> Figure:
    """Greedy accuracy of one student by arm and budget; the line is the student before training."""
    data = _dots(dots, colours, arms, is_hollow=False)
    data += _seed_dots(dots, colours, arms)
    layout = _layout(dots, "greedy accuracy", tickformat=".2~f")
    values = [v for dot in dots for v in (dot.low, dot.high, *dot.by_seed)]
    if base is not None and dots:
        layout |= _line_at(base, f"before training {wording.share(base)}")
        values.append(base)
    _set_range(layout, values)
    note = f"Bars are 95 % intervals over problems and seeds; the line is {base_name} before training."
    if any(len(dot.by_seed) > 1 for dot in dots):
        note += " Small marks are single seeds."
    columns = ("data", "accuracy", "95 % interval", "rests on")
    rows = tuple((_label(dot), wording.share(dot.value), interval_text(dot.low, dot.high), dot.basis) for dot in dots)
    return Figure(
        key=key,
        title=f"Greedy accuracy of {student}, by the data it learnt from",
        note=note,
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=columns, rows=rows),
    )


def difference_figure(
    dots: Sequence[Dot], colours: Mapping[str, str], arms: Sequence[str], *, reference: str
) -> Figure:
    """Accuracy on an arm's data minus accuracy on the reference arm's, with intervals: a forest plot."""
    layout = _layout(dots, "difference in accuracy", tickformat="+.2~f")
    if dots:
        layout |= _line_at(0.0, "")
    _set_range(layout, [0.0, *(v for dot in dots for v in (dot.low, dot.high))])
    rows = tuple(
        (
            _label(dot),
            wording.signed_share(dot.value),
            f"[{dot.low:+.3f}, {dot.high:+.3f}]",
            "yes" if dot.is_one else "no",
            dot.basis,
        )
        for dot in dots
    )
    return Figure(
        key="differences",
        title=f"Difference of students to those on {reference}'s data",
        note="Absolute, paired by problem and seed, with 95 % intervals. Filled: the interval excludes zero; "
        "hollow: it does not.",
        spec={"data": _dots(dots, colours, arms, is_hollow=True), "layout": layout},
        table=FigureTable(columns=("student", "difference", "95 % interval", "differs", "rests on"), rows=rows),
    )


def run_losses_figure(traces: Sequence[Trace], colours: Mapping[str, str], arms: Sequence[str]) -> Figure:
    """Training loss of every run by step: one colour and dash an arm."""
    data: list[Json] = []
    for trace in traces:
        if not trace.points:
            continue
        is_first = not any(isinstance(d, dict) and d["legendgroup"] == trace.arm for d in data)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": trace.arm,
                "legendgroup": trace.arm,
                "showlegend": is_first,
                "x": [step for step, _ in trace.points],
                "y": [loss for _, loss in trace.points],
                "line": {
                    "color": colours.get(trace.model, NEUTRAL),
                    "width": 1.2,
                    "dash": DASHES[_index(trace.arm, arms) % len(DASHES)],
                },
                "hovertemplate": f"<b>{plain_text(trace.name)}</b><br>step %{{x}}<br>loss %{{y:.4f}}<extra></extra>",
            }
        )
    layout = layout_of(
        x={"title": {"text": "optimizer step"}, "rangemode": "tozero"},
        y={"title": {"text": "loss of completions [nats per token]"}, "rangemode": "tozero"},
        right=16,
        top=MARGIN_LEGEND_PX,
    )
    layout["legend"] = legend_above()
    rows = tuple(
        (trace.name, wording.count(trace.points[-1][0]), f"{trace.points[0][1]:.4f}", f"{trace.points[-1][1]:.4f}")
        for trace in traces
        if trace.points
    )
    return Figure(
        key="losses",
        title="Training loss, by optimizer step",
        note="Each line is one run; arms differ in colour and dash. Losses on different data do not rank students.",
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=("run", "last step", "first loss", "last loss"), rows=rows),
    )


def _dots(dots: Sequence[Dot], colours: Mapping[str, str], arms: Sequence[str], *, is_hollow: bool) -> list[Json]:
    """One trace an arm, so that the legend names its marker."""
    data: list[Json] = []
    for arm in dict.fromkeys(dot.arm for dot in dots):
        own = [dot for dot in dots if dot.arm == arm]
        symbol = SYMBOLS[_index(arm, arms) % len(SYMBOLS)]
        up: list[Json] = [dot.high - dot.value for dot in own]
        down: list[Json] = [dot.value - dot.low for dot in own]
        colour: list[Json] = [colours.get(dot.model, NEUTRAL) for dot in own]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": arm,
                "x": [dot.value for dot in own],
                "y": [_label(dot) for dot in own],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": up,
                    "arrayminus": down,
                    "thickness": 1.5,
                    "width": 5,
                },
                "marker": {
                    "size": 10,
                    "color": colour,
                    "symbol": [f"{symbol}-open" if is_hollow and not dot.is_one else symbol for dot in own],
                    "line": {"width": 1.5, "color": colour},
                },
                "customdata": [[interval_text(dot.low, dot.high), dot.basis] for dot in own],
                "hovertemplate": "<b>%{y}</b><br>%{x:.3f} %{customdata[0]}<br>%{customdata[1]}<extra></extra>",
                "showlegend": True,
            }
        )
    return data


def _seed_dots(dots: Sequence[Dot], colours: Mapping[str, str], arms: Sequence[str]) -> list[Json]:
    points = [(dot, value) for dot in dots if len(dot.by_seed) > 1 for value in dot.by_seed]
    if not points:
        return []
    colour: list[Json] = [colours.get(dot.model, NEUTRAL) for dot, _ in points]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "single seeds",
            "x": [value for _, value in points],
            "y": [_label(dot) for dot, _ in points],
            "marker": {
                "size": 5,
                "color": colour,
                "symbol": [f"{SYMBOLS[_index(dot.arm, arms) % len(SYMBOLS)]}-open" for dot, _ in points],
                "line": {"width": 1, "color": colour},
            },
            "hovertemplate": "%{y}<br>%{x:.3f}, one seed<extra></extra>",
            "showlegend": False,
        }
    ]


def _label(dot: Dot) -> str:
    return f"{dot.group} · {dot.row}" if dot.group else dot.row


def _index(arm: str, arms: Sequence[str]) -> int:
    return arms.index(arm) if arm in arms else 0


def _layout(dots: Sequence[Dot], title: str, *, tickformat: str) -> Spec:
    labels: list[Json] = [*dict.fromkeys(_label(dot) for dot in dots)]
    layout = layout_of(
        x={"title": {"text": title}, "tickformat": tickformat, "nticks": 5, "tickangle": 0},
        y={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": labels,
            "range": [len(labels) - 0.4, -0.9],
            "automargin": True,
            "title": {"text": ""},
        },
        right=24,
        height=_FRAME_PX + _ROW_PX * max(2, len(labels)),
        top=MARGIN_LEGEND_PX,
    )
    layout["legend"] = legend_above()
    return layout


def _set_range(layout: Spec, values: Sequence[float]) -> None:
    """An axis that ends a little beyond what is drawn: accuracies are far from 0 and 1."""
    axis = layout["xaxis"]
    assert isinstance(axis, dict), "layout_of makes it one"
    pad = max(0.01, 0.06 * (max(values) - min(values))) if values else 0.0
    axis["range"] = [min(values) - pad, max(values) + pad] if values else [0, 1]


def _line_at(value: float, text: str) -> Spec:
    shape: Json = {
        "type": "line",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": value,
        "x1": value,
        "line": {"width": 1.5, "dash": "dash", "color": NEUTRAL},
    }
    label: Json = {
        "x": value,
        "y": 1,
        "yref": "paper",
        "text": text,
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "top",
        "xshift": 4,
    }
    return {"shapes": [shape], "annotations": [label] if text else []}
