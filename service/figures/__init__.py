"""Every figure of pages and report: a plotly specification as plain JSON, and the table behind it.

Invariant: a figure has a title that says its axes in words, units on both axes, and a table with the same numbers.
Colours follow the model, never the order in a chart, and are always paired with a name, a dash or a pattern. Text,
grid and background colours are left out: the page sets them from its CSS variables, so one specification serves light
and dark. Imports no plotly: the reader's browser draws.
"""

from service.figures.base import NEUTRAL, OKABE_ITO, Figure, FigureTable, Json, Spec, assign_colours
from service.figures.curves import Curve, CurvePoint, coverage_figure, diversity_figure, verified_coverage_figure
from service.figures.quality import LengthBin, RateBar, false_positive_figure, length_figure
from service.figures.spend import BudgetPoint, SpendBucket, burn_down_figure, spend_figure
from service.figures.training import FilterBar, LossPoint, filters_figure, learning_rate_figure, loss_figure

__all__ = [
    "NEUTRAL",
    "OKABE_ITO",
    "BudgetPoint",
    "Curve",
    "CurvePoint",
    "Figure",
    "FigureTable",
    "FilterBar",
    "Json",
    "LengthBin",
    "LossPoint",
    "RateBar",
    "Spec",
    "SpendBucket",
    "assign_colours",
    "burn_down_figure",
    "coverage_figure",
    "diversity_figure",
    "false_positive_figure",
    "filters_figure",
    "learning_rate_figure",
    "length_figure",
    "loss_figure",
    "spend_figure",
    "verified_coverage_figure",
]
