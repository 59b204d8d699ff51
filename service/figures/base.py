"""What every figure shares: its type, its table, the colours of models and the plain layout.

Owns the rule that a colour belongs to a model. Imports nothing but the standard library.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Spec: TypeAlias = "dict[str, Json]"

# Okabe & Ito (2008), ordered by contrast on white and on near-black; black is left to text, yellow comes last.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
NEUTRAL = "#8a8f98"
HEIGHT_PX = 340
SHORT_PX = 300
MARGIN_TOP_PX, MARGIN_BOTTOM_PX, MARGIN_LEFT_PX = 12, 56, 64
MARGIN_LEGEND_PX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureTable:
    """The numbers of a figure as text, one tuple a row, as many cells as columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart and its table.

    Args:
        key: unique on a page; also the HTML id.
        title: the axes in words.
        note: how to read it and what the numbers rest on; may be empty.
        spec: plotly `data` and `layout`; `data` is empty when there is nothing to show yet.
    """

    key: str
    title: str
    note: str
    spec: Spec
    table: FigureTable

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.spec["data"]


def assign_colours(models: Sequence[str]) -> dict[str, str]:
    """A colour for each model. Give all models in the order they were registered: a new one then changes no old one.

    After seven models colours repeat; curves then differ by dash, bars by their names.
    """
    distinct = list(dict.fromkeys(models))
    return {model: OKABE_ITO[i % len(OKABE_ITO)] for i, model in enumerate(distinct)}


def layout_of(*, x: Spec, y: Spec, right: float, height: int = HEIGHT_PX, top: int = MARGIN_TOP_PX) -> Spec:
    """A layout without colours; `right` leaves room for names at line ends [px]."""
    margin: Json = {"t": top, "b": MARGIN_BOTTOM_PX, "l": MARGIN_LEFT_PX, "r": right}
    return {
        "height": height,
        "margin": margin,
        "xaxis": {"zeroline": False, "automargin": True, **x},
        "yaxis": {"zeroline": False, **y},
        "hovermode": "closest",
        "dragmode": False,
    }


def flops_axis(highest: float, *, stop: float | None = None) -> Spec:
    """A linear axis from 0 whose ticks are written as amounts are written everywhere else: `5e8`, `1.5e9`.

    Args:
        highest: largest value drawn.
        stop: end of the axis; a little over `highest` by default.
    """
    end = stop if stop is not None else 1.03 * highest
    if end <= 0:
        return {"type": "linear", "range": [0, 1], "tickvals": [0], "ticktext": ["0"]}
    step = _nice_step(end / 5)
    ticks = [i * step for i in range(math.floor(end / step) + 1)]
    return {"type": "linear", "range": [0, end], "tickvals": [*ticks], "ticktext": [_tick_text(t) for t in ticks]}


def _nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is at least `rough`."""
    scale = 10.0 ** math.floor(math.log10(rough))
    return next(m * scale for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * scale >= rough * (1 - 1e-9))


def _tick_text(value: float) -> str:
    """`1.5e9`; small values in full."""
    if value < 1e5:
        return f"{value:,g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def legend_above() -> Json:
    """A legend in one line above the plot."""
    return {"traceorder": "normal", "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}


def interval_text(low: float | None, high: float | None) -> str:
    """`[.85, .91]` with three digits; empty where there is no interval."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def translucent(colour: str, alpha: float) -> str:
    """A `#rrggbb` colour as rgba."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def utc(moment: datetime) -> str:
    """A UTC moment as plotly reads it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}"


def plain_text(name: str) -> str:
    """A name that plotly shows as it is, where it would read tags."""
    return html.escape(name, quote=False)
