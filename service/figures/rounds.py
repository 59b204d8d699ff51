"""Accuracy over rounds of self-training. Colour follows the model that drew the first round, the marker the arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service import wording
from service.figures.base import (
    MARGIN_LEGEND_PX,
    NEUTRAL,
    Figure,
    FigureTable,
    Json,
    interval_text,
    layout_of,
    legend_above,
)
from service.figures.students import DASHES, SYMBOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterRound:
    """Accuracy of a student after a round, with its interval.

    Args:
        line: which points are joined, e.g. student, arm and budget.
        flops: useful FLOPs of drawing and training up to here, exact accounting.
    """

    line: str
    arm: str
    model: str
    round: int
    flops: float
    value: float
    low: float
    high: float


def rounds_figure(points: Sequence[AfterRound], colours: Mapping[str, str], arms: Sequence[str]) -> Figure:
    """Greedy accuracy against the FLOPs of drawing and training so far, a mark a round."""
    data: list[Json] = []
    for number, line in enumerate(dict.fromkeys(point.line for point in points)):
        own = [point for point in points if point.line == line]
        colour = colours.get(own[0].model, NEUTRAL)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": line,
                "x": [point.flops for point in own],
                "y": [point.value for point in own],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [point.high - point.value for point in own],
                    "arrayminus": [point.value - point.low for point in own],
                    "thickness": 1.2,
                    "width": 4,
                },
                "line": {"color": colour, "width": 1.5, "dash": DASHES[number % len(DASHES)]},
                "marker": {"size": 9, "color": colour, "symbol": SYMBOLS[arms.index(own[0].arm) % len(SYMBOLS)]},
                "customdata": [[point.round, interval_text(point.low, point.high)] for point in own],
                "hovertemplate": "after round %{customdata[0]}<br>%{y:.3f} %{customdata[1]}<br>%{x:.3s} FLOPs"
                "<extra></extra>",
                "showlegend": True,
            }
        )
    layout = layout_of(
        x={"title": {"text": "useful FLOPs, drawing and training"}, "rangemode": "tozero", "exponentformat": "e"},
        y={"title": {"text": "greedy accuracy"}, "tickformat": ".2~f"},
        right=24,
        top=MARGIN_LEGEND_PX,
    )
    layout["legend"] = legend_above()
    rows = tuple(
        (
            point.line,
            wording.count(point.round),
            wording.flops(point.flops),
            wording.share(point.value),
            interval_text(point.low, point.high),
        )
        for point in points
    )
    return Figure(
        key="rounds",
        title="Greedy accuracy over rounds of self-training",
        note="Bars are 95 % intervals over problems and seeds; a mark is the mean over seeds after a round.",
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=("student", "round", "FLOPs", "accuracy", "95 % interval"), rows=rows),
    )
