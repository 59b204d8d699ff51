"""What the samples are like: false positives, lengths and how completions ended.

Counts of a bin and shares with intervals; nothing is estimated here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service import wording
from service.figures.base import (
    MARGIN_LEGEND_PX,
    NEUTRAL,
    SHORT_PX,
    Figure,
    FigureTable,
    Json,
    interval_text,
    layout_of,
    legend_above,
    plain_text,
)

_PALER, _PALEST = 0.4, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBar:
    """A share with its interval, `num_items` it was estimated from."""

    name: str
    model: str
    value: float | None
    low: float | None
    high: float | None
    num_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBin:
    """Samples of one model or arm whose completions have `low` <= tokens < `high`."""

    name: str
    low: int
    high: int
    stopped: int
    truncated: int


def false_positive_figure(bars: Sequence[RateBar], colours: Mapping[str, str], *, checker: str) -> Figure:
    """Share of answer-correct solutions whose reasoning is wrong, with intervals."""
    known = [b for b in bars if b.value is not None]
    values: list[Json] = [b.value for b in known]
    data: list[Json] = []
    if known:
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": [b.name for b in known],
                "x": values,
                "width": 0.5,
                "marker": {"color": [colours.get(b.model, NEUTRAL) for b in known]},
                "error_x": _error_bars(known),
                "customdata": [[interval_text(b.low, b.high), b.num_items] for b in known],
                "hovertemplate": "<b>%{y}</b><br>%{x:.2%} %{customdata[0]}<br>n = %{customdata[1]:,}<extra></extra>",
                "showlegend": False,
            }
        )
    layout = layout_of(
        x={"title": {"text": "false positives [% of correct answers]"}, "tickformat": ".1~%", "rangemode": "tozero"},
        y={"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
        right=24,
        height=110 + 44 * max(1, len(known)),
    )
    table = FigureTable(
        columns=("series", "false positive rate", "95 % interval", "n correct answers judged"),
        rows=tuple(
            (
                b.name,
                wording.percent(b.value, digits=2),
                interval_text(b.low, b.high) or "no interval",
                wording.count(b.num_items),
            )
            for b in bars
        ),
    )
    return Figure(
        key="false-positives",
        title="Right answers with wrong reasoning, as a share of right answers",
        note=f"Judged by {checker}; whiskers are 95 % intervals.",
        spec={"data": data, "layout": layout},
        table=table,
    )


def _error_bars(bars: Sequence[RateBar]) -> Json:
    up: list[Json] = [0.0 if b.high is None or b.value is None else b.high - b.value for b in bars]
    down: list[Json] = [0.0 if b.low is None or b.value is None else b.value - b.low for b in bars]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5, "width": 5}


def length_figure(bins: Sequence[LengthBin], colours: Mapping[str, str], *, of: str = "model") -> Figure:
    """How long completions are and which were cut: stopped samples plain, truncated ones hatched.

    Of names that share a colour each later one is paler.

    Args:
        of: what each name is one of.
    """
    data: list[Json] = []
    shown: list[str] = []
    for name in dict.fromkeys(b.name for b in bins):
        own = [b for b in bins if b.name == name]
        colour = colours.get(name, NEUTRAL)
        opacity = max(_PALEST, 1 - _PALER * shown.count(colour))
        shown.append(colour)
        for finish, pattern in (("stopped", ""), ("truncated", "/")):
            numbers = [b.stopped if finish == "stopped" else b.truncated for b in own]
            if not any(numbers):
                continue
            data.append(
                {
                    "type": "bar",
                    "name": f"{name} · {finish}",
                    "opacity": opacity,
                    "x": [(b.low + b.high) / 2 for b in own],
                    "width": [b.high - b.low for b in own],
                    "y": list(numbers),
                    "customdata": [[b.low, b.high - 1] for b in own],
                    "marker": {
                        "color": colour,
                        "pattern": {"shape": pattern},
                        "line": {"width": 0},
                    },
                    "hovertemplate": (
                        f"<b>{plain_text(name)}</b> · {finish}<br>%{{y:,}} samples"
                        "<br>%{customdata[0]} to %{customdata[1]} tokens<extra></extra>"
                    ),
                }
            )
    layout = layout_of(
        x={"title": {"text": "completion length [tokens]"}, "rangemode": "tozero"},
        y={"title": {"text": "samples"}, "rangemode": "tozero"},
        right=16,
        height=SHORT_PX,
        top=MARGIN_LEGEND_PX,
    )
    layout |= {"barmode": "stack", "bargap": 0.04, "legend": legend_above()}
    rows = tuple(
        (b.name, f"{b.low} to {b.high - 1}", wording.count(b.stopped), wording.count(b.truncated)) for b in bins
    )
    return Figure(
        key="lengths",
        title="How long completions are, and how they ended",
        note="Truncated: cut at max_tokens, counted as incorrect and as waste.",
        spec={"data": data, "layout": layout},
        table=FigureTable(columns=(of, "tokens", "stopped", "truncated"), rows=rows),
    )
