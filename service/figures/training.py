"""How a training set came out of its samples, and how a student learned from it.

Bars count rows, so their axis is linear and begins at 0; what a filter dropped is drawn behind what it left. A curve of
training has the colour of the model that is trained.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from service import wording
from service.figures.base import (
    HEIGHT_PX,
    MARGIN_LEGEND_PX,
    NEUTRAL,
    OKABE_ITO,
    SHORT_PX,
    Figure,
    FigureTable,
    Json,
    layout_of,
    legend_above,
    translucent,
)

_ROW_PX = 30
_MEANS_SHOWN = 40
_FEWEST_AVERAGED = 4
"""A mean of fewer steps lies on the curve itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterBar:
    """Rows that a filter left, in all and of each source; the first bar is everything there was."""

    name: str
    rows: int
    rows_by_source: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPoint:
    """One line of a training log; `loss` in nats a completion token."""

    step: int
    loss: float
    learning_rate: float
    epoch: float


def filters_figure(filters: Sequence[FilterBar], sources: Sequence[str]) -> Figure:
    """Rows left after each filter, in the order in which they are applied; `sources` name the columns of the table."""
    names = [each.name.replace("_", " ") for each in filters]
    dropped = [before.rows - after.rows for before, after in itertools.pairwise([*filters[:1], *filters])]
    data: list[Json] = []
    if filters:
        data = [
            {
                "type": "bar",
                "orientation": "h",
                "name": "left",
                "y": [*names],
                "x": [each.rows for each in filters],
                "marker": {"color": OKABE_ITO[0]},
                "text": [f"{each.rows:,}" for each in filters],
                "textposition": "auto",
                "hovertemplate": "%{y}: %{x:,} rows left<extra></extra>",
            },
            {
                "type": "bar",
                "orientation": "h",
                "name": "dropped by this filter",
                "y": [*names],
                "x": [*dropped],
                "marker": {"color": translucent(NEUTRAL, 0.35)},
                "text": [f"-{count:,}" if count else "" for count in dropped],
                "textposition": "outside",  # beside the bar text has the colour of the page, light or dark
                "hovertemplate": "%{y}: %{x:,} rows dropped<extra></extra>",
            },
        ]
    layout = layout_of(
        x={"title": {"text": "rows"}, "type": "linear", "range": [0, 1.12 * max((f.rows for f in filters), default=1)]},
        y={"type": "category", "autorange": "reversed", "automargin": True},
        right=16,
        height=max(SHORT_PX, MARGIN_LEGEND_PX + 60 + _ROW_PX * len(filters)),
        top=MARGIN_LEGEND_PX,
    )
    layout |= {"barmode": "stack", "bargap": 0.25, "legend": legend_above()}
    shares = [each.rows / filters[0].rows if filters[0].rows else 0.0 for each in filters]
    return Figure(
        key="filters",
        title="Rows left after each filter, in the order in which they are applied",
        note="The lighter part is what a filter dropped of what the one before it had left.",
        spec={"data": data, "layout": layout},
        table=FigureTable(
            columns=("after", "rows left", "dropped", "of all", *sources),
            rows=tuple(
                (name, f"{each.rows:,}", f"{count:,}", wording.percent(share), *(f"{n:,}" for n in each.rows_by_source))
                for name, each, count, share in zip(names, filters, dropped, shares, strict=True)
            ),
        ),
    )


def loss_figure(points: Sequence[LossPoint], *, colour: str, checkpoints: Sequence[int]) -> Figure:
    """Loss by optimizer step, with a trailing mean once there are many, and where the checkpoints lie.

    Args:
        checkpoints: steps after which one is committed.
    """
    finite = [point for point in points if math.isfinite(point.loss)]
    width = len(finite) // _MEANS_SHOWN
    width = width if width >= _FEWEST_AVERAGED else 1
    means = _trailing_means([point.loss for point in finite], width)
    steps: list[Json] = [point.step for point in finite]
    data: list[Json] = []
    if finite:
        is_thin = width > 1
        data.append(_line("loss", steps, [p.loss for p in finite], translucent(colour, 0.4 if is_thin else 1.0), 1.5))
    if width > 1:
        data.append(_line(f"mean of {width}", steps, means, colour, 2.5))
    by_step = {point.step: mean for point, mean in zip(finite, means, strict=True)}
    marked = [step for step in checkpoints if step in by_step]
    if marked:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "checkpoint",
                "x": [*marked],
                "y": [by_step[step] for step in marked],
                "marker": {"size": 9, "symbol": "diamond", "color": colour},
                "hovertemplate": "checkpoint at step %{x:,}<extra></extra>",
            }
        )
    layout = layout_of(
        x={"title": {"text": "optimizer step"}},
        y={"title": {"text": "loss [nats a completion token]"}},
        right=16,
        height=HEIGHT_PX,
        top=MARGIN_LEGEND_PX,
    )
    layout |= {"legend": legend_above(), "showlegend": True}
    return Figure(
        key="loss",
        title="Loss on completions, by optimizer step",
        note="Of the examples of each step, before the step; prompts have no loss.",
        spec={"data": data, "layout": layout},
        table=FigureTable(
            columns=("step", "loss", "passes over the data"),
            rows=tuple((f"{p.step:,}", f"{p.loss:.4g}", f"{p.epoch:.2f}") for p in points),
        ),
    )


def learning_rate_figure(points: Sequence[LossPoint], *, colour: str) -> Figure:
    """Learning rate by optimizer step."""
    steps: list[Json] = [point.step for point in points]
    data: list[Json] = []
    if points:
        data = [_line("learning rate", steps, [point.learning_rate for point in points], colour, 2.0)]
    layout = layout_of(
        x={"title": {"text": "optimizer step"}},
        y={"title": {"text": "learning rate"}, "rangemode": "tozero", "exponentformat": "e", "automargin": True},
        right=16,
        height=HEIGHT_PX,
        top=MARGIN_LEGEND_PX,
    )
    return Figure(
        key="learning-rate",
        title="Learning rate, by optimizer step",
        note="",
        spec={"data": data, "layout": layout | {"showlegend": False}},
        table=FigureTable(
            columns=("step", "learning rate"),
            rows=tuple((f"{point.step:,}", f"{point.learning_rate:.3g}") for point in points),
        ),
    )


def _line(name: str, x: list[Json], y: Sequence[float], colour: str, width: float) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": [*y],
        "line": {"width": width, "color": colour},
        "hovertemplate": f"step %{{x:,}}: {name} %{{y:.4g}}<extra></extra>",
    }


def _trailing_means(values: Sequence[float], width: int) -> list[float]:
    """Mean of each value and up to `width - 1` before it."""
    means: list[float] = []
    total = 0.0
    for number, value in enumerate(values):
        total += value - (values[number - width] if number >= width else 0.0)
        means.append(total / min(number + 1, width))
    return means
