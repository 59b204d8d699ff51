"""Where FLOPs went: over time by model and stage, and against a job's limit.

Amounts are settled ones; what is merely reserved is drawn apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service import wording
from service.figures.base import (
    MARGIN_LEGEND_PX,
    NEUTRAL,
    OKABE_ITO,
    SHORT_PX,
    Figure,
    FigureTable,
    Json,
    Spec,
    flops_axis,
    layout_of,
    legend_above,
    plain_text,
    translucent,
    utc,
)

_WIDTH_BY_BUCKET = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_FEWEST_BUCKETS = 15
_LEGEND_ROW_PX, _ENTRIES_IN_LINE = 19, 2
"""Where a legend needs more than a line, the figure grows by it, and not the bars shorter."""
_SHORTEST_SPAN = timedelta(seconds=10)
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
    """What a job had spent at one moment, in natural units of its currency."""

    at: datetime
    spent: float


def spend_figure(
    buckets: Sequence[SpendBucket], colours: Mapping[str, str], *, bucket: Literal["minute", "hour"]
) -> Figure:
    """FLOPs over time, stacked by model (colour) and stage (pattern); `bucket` is the width of a bar."""
    width = _WIDTH_BY_BUCKET[bucket]
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
                "offset": 0,
                "width": 0.9 * width.total_seconds() * 1000,
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
        x=_time_axis(starts, ends=width, shortest=_FEWEST_BUCKETS * width),
        y={"title": {"text": f"FLOPs per {bucket}"}, **flops_axis(max(totals.values(), default=0.0))},
        right=16,
        height=SHORT_PX + _LEGEND_ROW_PX * max(0, len(data) - _ENTRIES_IN_LINE),
        top=MARGIN_LEGEND_PX,
    )
    layout |= {"barmode": "stack", "legend": legend_above()}
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


def burn_down_figure(points: Sequence[BudgetPoint], *, reserved: float, limit: float, unit: str) -> Figure:
    """Spent over time against the limit, in the budget's own `unit`, e.g. "FLOPs".

    Args:
        points: in the order of time; `reserved` belongs to the last one.
    """
    times: list[Json] = [utc(p.at) for p in points]
    data: list[Json] = []
    if points:
        data = [_spent_area(times, [p.spent for p in points])]
        if reserved > 0:
            data.append(_reserved_now(times[-1], points[-1].spent, reserved))
    layout = layout_of(
        x=_time_axis([p.at for p in points], ends=timedelta(0), shortest=_SHORTEST_SPAN),
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
                "text": f"limit {wording.quantity(limit, unit)} {unit}",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
            }
        ],
    }
    rows = tuple(
        (wording.timestamp(p.at), wording.quantity(p.spent, unit), wording.percent(p.spent / limit)) for p in points
    )
    return Figure(
        key="burn-down",
        title=f"{unit[:1].upper()}{unit[1:]} spent against the limit, over time",
        note="Reserved now is the worst case of samples in the engine; what they do not use is given back.",
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=("time", f"spent [{unit}]", "spent of limit"), rows=rows),
    )


def _time_axis(moments: Sequence[datetime], *, ends: timedelta, shortest: timedelta) -> Spec:
    """A time axis over `moments` (the last one lasts `ends`), never shorter than `shortest`: one bar is not a wall."""
    axis: Spec = {"title": {"text": "time (UTC)"}, "type": "date"}
    if moments:
        end = max(moments) + ends
        axis["range"] = [utc(min(min(moments), end - shortest)), utc(end)]
    return axis


def _spent_area(times: list[Json], values: Sequence[float]) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "spent",
        "x": times,
        "y": list(values),
        "fill": "tozeroy",
        "line": {"width": 1.5, "color": OKABE_ITO[0]},
        "fillcolor": translucent(OKABE_ITO[0], 0.35),
        "hovertemplate": "spent %{y:.3e}<br>%{x|%H:%M:%S} UTC<extra></extra>",
    }


def _reserved_now(time: Json, spent: float, reserved: float) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "reserved now",
        "x": [time, time],
        "y": [spent, spent + reserved],
        "line": {"width": 6, "color": OKABE_ITO[4]},
        "hovertemplate": f"reserved {wording.flops(reserved)}<extra></extra>",
    }
