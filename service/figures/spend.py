"""Where FLOPs went: over time by model and stage, and against a job's limit.

Amounts are settled ones; what is merely reserved is drawn apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service import wording
from service.figures.base import (
    MARGIN_LEGEND_PX,
    NEUTRAL,
    OKABE_ITO,
    SHORT_PX,
    Figure,
    FigureTable,
    Json,
    flops_axis,
    layout_of,
    legend_above,
    plain_text,
    translucent,
    utc,
)

# generating is what budgets are for and stays plain; a stage that is not listed is dotted
_PATTERN_BY_STAGE = {"generate": "", "evaluate": "/", "finetune": "x", "judge": "-", "pilot": "\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendBucket:
    """FLOPs settled in one time bucket that begins at `start` (UTC)."""

    start: datetime
    model: str
    stage: str
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint:
    """A job's account at one moment, in natural units of its currency."""

    at: datetime
    spent: float
    reserved: float


def spend_figure(buckets: Sequence[SpendBucket], colours: Mapping[str, str], *, bucket: str) -> Figure:
    """FLOPs over time, stacked by model (colour) and stage (pattern); `bucket` names the width, e.g. "minute"."""
    starts = sorted({b.start for b in buckets})
    flops_by_cell: dict[tuple[str, str, datetime], float] = {}
    for b in buckets:
        cell = (b.model, b.stage, b.start)
        flops_by_cell[cell] = flops_by_cell.get(cell, 0.0) + b.flops
    totals = {start: sum(v for (_, _, s), v in flops_by_cell.items() if s == start) for start in starts}
    data: list[Json] = []
    for model, stage in dict.fromkeys((b.model, b.stage) for b in sorted(buckets, key=lambda b: (b.model, b.stage))):
        data.append(
            {
                "type": "bar",
                "name": f"{model} · {stage}",
                "x": [utc(s) for s in starts],
                "y": [flops_by_cell.get((model, stage, s), 0.0) for s in starts],
                "marker": {
                    "color": colours.get(model, NEUTRAL),
                    "pattern": {"shape": _PATTERN_BY_STAGE.get(stage, "."), "fillmode": "overlay"},
                },
                "hovertemplate": (
                    f"<b>{plain_text(model)}</b> · {stage}<br>%{{y:.3e}} FLOPs"
                    "<br>%{x|%Y-%m-%d %H:%M} UTC<extra></extra>"
                ),
            }
        )
    layout = layout_of(
        x={"title": {"text": "time (UTC)"}, "type": "date"},
        y={"title": {"text": f"FLOPs per {bucket}"}, **flops_axis(max(totals.values(), default=0.0))},
        right=16,
        height=SHORT_PX,
        top=MARGIN_LEGEND_PX,
    )
    layout |= {"barmode": "stack", "bargap": 0.15, "legend": legend_above()}
    rows = tuple(
        (f"{start:%Y-%m-%d %H:%M}", model, stage, wording.flops(value))
        for (model, stage, start), value in sorted(flops_by_cell.items(), key=lambda item: (item[0][2], *item[0][:2]))
        if value > 0
    )
    return Figure(
        key="spend",
        title=f"FLOPs spent per {bucket}, by model and stage",
        note="Settled amounts; colour is the model, pattern the stage.",
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=("from (UTC)", "model", "stage", "FLOPs"), rows=rows),
    )


def burn_down_figure(points: Sequence[BudgetPoint], *, limit: float, unit: str) -> Figure:
    """Spent and reserved against the limit over time, in the budget's own `unit`, e.g. "FLOPs"."""
    times: list[Json] = [utc(p.at) for p in points]
    data: list[Json] = []
    if points:
        data = [
            _area("spent", times, [p.spent for p in points], OKABE_ITO[0]),
            _area("reserved", times, [p.reserved for p in points], OKABE_ITO[4]),
        ]
    layout = layout_of(
        x={"title": {"text": "time (UTC)"}, "type": "date"},
        y={"title": {"text": unit}, **flops_axis(limit, stop=1.12 * limit)},
        right=16,
        height=SHORT_PX,
        top=MARGIN_LEGEND_PX,
    )
    layout |= {
        "legend": legend_above(),
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": limit,
                "y1": limit,
                "line": {"width": 1.5, "dash": "dash", "color": NEUTRAL},
            }
        ],
        "annotations": [
            {
                "xref": "paper",
                "x": 0,
                "y": limit,
                "text": f"limit {wording.flops(limit)} {unit}",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
            }
        ],
    }
    rows = tuple(
        (wording.timestamp(p.at), wording.flops(p.spent), wording.flops(p.reserved), wording.percent(p.spent / limit))
        for p in points
    )
    return Figure(
        key="burn-down",
        title=f"{unit} spent and reserved against the limit, over time",
        note="Reserved is the worst case of samples in the engine; it is given back when they end.",
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=("time", f"spent [{unit}]", f"reserved [{unit}]", "spent of limit"), rows=rows),
    )


def _area(name: str, times: list[Json], values: Sequence[float], colour: str) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": times,
        "y": list(values),
        "stackgroup": "budget",
        "line": {"width": 1.5, "color": colour},
        "fillcolor": translucent(colour, 0.35),
        "hovertemplate": f"{name} %{{y:.3e}}<br>%{{x|%H:%M:%S}} UTC<extra></extra>",
    }
