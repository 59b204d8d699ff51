"""A figure as a PNG for papers and slides: the same specification that pages draw, drawn by matplotlib.

Covers what the figures of reports use: lines, bands, markers with intervals, horizontal bars, reference lines,
labels. A specification that uses more is an error, never a picture that lacks something. White ground, black text.
Imports matplotlib when it draws, for it takes a third of a second.
"""

import html
import io
import re
from typing import Any, TypeAlias, cast

from service.figures.base import Figure

Axes: TypeAlias = Any
"""A matplotlib Axes, whose stubs leave half of its keywords open."""

_WIDTH_IN = 7.6
_PX_PER_IN = 88.0
_DPI = 160
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "x": "X", "star": "*"}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
_INK = "#222222"
_Dict = dict[str, Any]


def render_png(figure: Figure) -> bytes:
    """The figure as PNG. One without data says so.

    Raises:
        ValueError: a kind of trace or axis that this module does not draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    layout = cast(_Dict, figure.spec["layout"])
    canvas: Any = Canvas(figsize=(_WIDTH_IN, layout["height"] / _PX_PER_IN + 0.5), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    if figure.is_empty:
        axes.axis("off")
        axes.text(0.5, 0.5, "nothing to show yet", ha="center", va="center", transform=axes.transAxes)
    else:
        _draw(axes, cast("list[_Dict]", figure.spec["data"]), layout)
    out = io.BytesIO()
    canvas.savefig(out, format="png")
    return out.getvalue()


def _draw(axes: Axes, traces: list[_Dict], layout: _Dict) -> None:
    rows = _categories(traces, layout)
    for trace in traces:
        match trace["type"]:
            case "scatter":
                _scatter(axes, trace, rows)
            case "bar" if trace.get("orientation") == "h":
                _bars(axes, trace, rows)
            case other:
                raise ValueError(f"traces: got {other!r}, allowed: scatter, horizontal bar")
    for shape in layout.get("shapes", []):
        axes.axvline(shape["x0"], color=shape["line"]["color"], linestyle="--", linewidth=1.2, zorder=0)
    for note in layout.get("annotations", []):
        _label(axes, note)
    _axis(axes, layout["xaxis"], "x")
    _axis(axes, layout["yaxis"], "y")
    if rows:
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.4, -0.9)
    axes.grid(axis="x" if rows else "both", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_INK)
    if any(trace.get("showlegend") for trace in traces):
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=8, borderaxespad=0.2)


def _categories(traces: list[_Dict], layout: _Dict) -> dict[str, int]:
    """Rows of a categorical axis by name, the first one on top; none of another axis."""
    axis = layout["yaxis"]
    if axis.get("type") != "category":
        return {}
    names = axis.get("categoryarray") or [name for trace in traces for name in trace["y"]]
    return {name: row for row, name in enumerate(dict.fromkeys(names))}


def _scatter(axes: Axes, trace: _Dict, rows: dict[str, int]) -> None:
    xs, ys = trace["x"], [rows[y] for y in trace["y"]] if rows else trace["y"]
    label = trace.get("name", "") if trace.get("showlegend") else "_nolegend_"
    if trace.get("fill") == "toself":
        colour, alpha = _rgba(trace["fillcolor"])
        axes.fill(xs, ys, color=colour, alpha=alpha, linewidth=0)
        return
    line, marker = trace.get("line", {}), trace.get("marker", {})
    if "lines" in trace["mode"]:
        bars = trace.get("error_y")
        axes.errorbar(
            xs,
            ys,
            yerr=None if bars is None else [bars["arrayminus"], bars["array"]],
            label=label,
            color=line["color"],
            linewidth=line.get("width", 1.5) * 0.8,
            linestyle=_DASHES[line.get("dash", "solid")],
            # many points are small dots; those with a mark of their own are few
            marker=_MARKERS[marker.get("symbol", "circle")] if "markers" in trace["mode"] else "",
            markersize=5.5 if "symbol" in marker else 3.5,
            elinewidth=0.9,
            capsize=2.5,
        )
        return
    symbols = marker["symbol"]
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        name, _, is_open = symbols[i].partition("-open") if "-open" in symbols[i] else (symbols[i], "", None)
        bars = trace.get("error_x")
        axes.errorbar(
            x,
            y,
            xerr=None if bars is None else [[bars["arrayminus"][i]], [bars["array"][i]]],
            label=label if i == 0 else "_nolegend_",
            marker=_MARKERS[name],
            markersize=marker["size"] * 0.65,
            color=marker["color"][i],
            markerfacecolor="white" if is_open is not None else marker["color"][i],
            ecolor=_INK,
            elinewidth=1.0,
            capsize=2.5,
            linestyle="",
        )


def _bars(axes: Axes, trace: _Dict, rows: dict[str, int]) -> None:
    bars = trace.get("error_x")
    for i, (name, value) in enumerate(zip(trace["y"], trace["x"], strict=True)):
        axes.barh(
            rows[name],
            value,
            height=trace.get("width", 0.5),
            color=trace["marker"]["color"][i],
            hatch=_HATCHES[i % len(_HATCHES)],
            edgecolor="white",
            xerr=None if bars is None else [[bars["arrayminus"][i]], [bars["array"][i]]],
            error_kw={"ecolor": _INK, "capsize": 2.5, "linewidth": 1.0},
        )


def _label(axes: Axes, note: _Dict) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", note["text"])).removeprefix("● ")  # the dot that only HTML colours
    x = 10 ** note["x"] if axes.get_xscale() == "log" else note["x"]
    axes.annotate(
        text,
        (x, note["y"]),
        xycoords=("data", "axes fraction") if note.get("yref") == "paper" else "data",
        xytext=(note.get("xshift", 0) * 0.72, note.get("yshift", 0) * 0.72),
        textcoords="offset points",
        ha=note.get("xanchor", "left"),
        va={"top": "top", "bottom": "bottom"}.get(note.get("yanchor", ""), "center"),
        fontsize=8,
        color=_INK,
        annotation_clip=False,
    )


def _axis(axes: Axes, axis: _Dict, name: str) -> None:
    kind = axis.get("type", "linear")
    if kind not in ("linear", "log", "category"):
        raise ValueError(f"{name} axis: got {kind!r}, allowed: linear, log, category")
    title = html.unescape(axis.get("title", {}).get("text", ""))
    (axes.set_xlabel if name == "x" else axes.set_ylabel)(title, fontsize=8.5, color=_INK)
    if kind == "category":
        return
    if kind == "log":
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    if axis.get("rangemode") == "tozero":
        (axes.set_xlim if name == "x" else axes.set_ylim)(0)
    if "range" in axis:
        low, high = (10**v if kind == "log" else v for v in axis["range"])
        (axes.set_xlim if name == "x" else axes.set_ylim)(low, high)
    if "tickvals" in axis:
        own = axes.xaxis if name == "x" else axes.yaxis
        own.set_ticks(axis["tickvals"], labels=axis["ticktext"])
    elif "%" in axis.get("tickformat", ""):
        from matplotlib.ticker import PercentFormatter

        (axes.xaxis if name == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1.0, decimals=None))


def _rgba(text: str) -> tuple[tuple[float, float, float], float]:
    """`rgba(r,g,b,a)` as matplotlib reads it."""
    red, green, blue, alpha = (float(part) for part in text.removeprefix("rgba(").rstrip(")").split(","))
    return (red / 255, green / 255, blue / 255), alpha
