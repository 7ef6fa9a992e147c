"""The chart of run-level means: a dot for each run, beside the paper's number where it has one."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segfaith.errors import SettingsError
from segfaith.results.figures.style import (
    FULL_WIDTH,
    NAMES,
    STYLE,
    Look,
    axis_label,
    canvas,
    handle,
    legend,
    literal,
    log_ticks,
    run_looks,
)
from segfaith.results.records.select import method_order
from segfaith.results.statistics.summary import TABLE_METRICS

LOGARITHMIC = 30
"""An axis is logarithmic where its positive values span more than this factor."""
FAR, FEW = 3.0, 0.1
"""Values further than `FAR` interquartile ranges from the quartiles are beyond the axis, if they are one or `FEW`, as
a share of all."""
Span = tuple[float, float]


@rc_context(STYLE)
def run_dots(
    values: pd.DataFrame,
    paper: Mapping[tuple[str, str], float] | None = None,
    labels: Mapping[str, str] = NAMES,
    metrics: Sequence[str] = TABLE_METRICS,
) -> Figure:
    """Per metric one panel, per method one line: a dot for each run's mean, a bar for their mean, an open diamond for
    the paper's mean. Values beyond the panel stand beside an arrow at its edge, see `reach`.

    Args:
        values: run-level means as `summary.run_values` gives them, of one data set.
        paper: (method, metric) to the paper's mean.
        labels: of methods.
        metrics: of the panels.

    Raises:
        SettingsError: no value is defined.
    """
    defined = set(values.loc[values["value"].notna(), "metric"])
    metrics, asked = [name for name in metrics if name in defined], metrics
    if not metrics:
        raise SettingsError(f"expected run-level means of {', '.join(asked)}; got none that is defined")
    methods, marks = method_order(values["method"]), run_looks([str(run) for run in values["run"]])
    theirs = {key: value for key, value in (paper or {}).items() if not isnan(value) and key[0] in methods}
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = canvas(FULL_WIDTH, rows * (0.19 * len(methods) + 0.62))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, metric in zip(grid, metrics, strict=False):
        mine = {name: theirs.get((name, metric), nan) for name in methods}
        _panel(panel, values[values["metric"] == metric], mine, marks)
        panel.set_title(axis_label(metric))
        panel.set_yticks(range(len(methods)), [literal(labels.get(name, name), 18) for name in methods])
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.grid(True)
    for panel in grid[len(metrics) :]:
        panel.axis("off")
    handles = [handle(run, mark) for run, mark in marks.items()]
    handles.append(Line2D([], [], color="black", linewidth=0, marker="|", markersize=8, label="mean over runs"))
    if theirs:
        handles.append(_diamond([], [], label="the paper's mean"))
    legend(figure, handles)
    return figure


def reach(values: Sequence[float]) -> Span:
    """The range that a panel shows: that of all values, or without the few that lie far beyond the others where this
    halves it at least.

    Args:
        values: at least one; NaN are left out.
    """
    known = np.array([value for value in values if not isnan(value)])
    low, high = np.percentile(known, (25, 75))
    near = known[(known >= low - FAR * (high - low)) & (known <= high + FAR * (high - low))]
    few = len(known) - len(near) <= max(1, FEW * len(known))
    chosen = near if few and 0 < np.ptp(near) <= np.ptp(known) / 2 else known
    return float(chosen.min()), float(chosen.max())


def _panel(panel: Axes, part: pd.DataFrame, paper: Mapping[str, float], marks: Mapping[str, Look]) -> None:
    """The dots of one metric."""
    means = {name: float(part.loc[part["method"] == name, "value"].mean()) for name in paper}
    shown = [*part["value"], *paper.values()]
    known = [value for value in shown if not isnan(value)]
    low, high = reach(shown)
    runs = list(marks)
    offsets = np.linspace(-0.22, 0.22, len(runs)) if len(runs) > 1 else np.zeros(1)
    dots: dict[str, list[tuple[float, float]]] = {run: [] for run in runs}
    for place, name in enumerate(paper):
        beyond: dict[bool, list[str]] = {True: [], False: []}
        own = part[part["method"] == name]
        for run, offset in zip(runs, offsets, strict=True):
            for value in own.loc[own["run"] == run, "value"].dropna():
                if low <= value <= high:
                    dots[run].append((value, place + offset))
                else:
                    beyond[value > high].append(_number(value))
        if low <= means[name] <= high:
            panel.plot([means[name]] * 2, [place - 0.36, place + 0.36], color="black", linewidth=1.1)
        elif not isnan(means[name]) and len(own) > 1:
            beyond[means[name] > high].append(f"mean {_number(means[name])}")
        if low <= paper[name] <= high:
            panel.add_line(_diamond([paper[name]], [place]))
        elif not isnan(paper[name]):
            beyond[paper[name] > high].append(f"paper {_number(paper[name])}")
        for up, words in beyond.items():
            if words:
                _arrow(panel, place, words, up=up)
    for run, spots in dots.items():
        across, down = zip(*spots, strict=True) if spots else ((), ())
        mark = marks[run]
        panel.plot(across, down, ls="", marker=mark.marker, color=mark.colour, markersize=3, zorder=1.9)
    _scale(panel, known, (low, high))


def _scale(panel: Axes, known: Sequence[float], shown: Span) -> None:
    """The axis of one metric, with room for arrows on the sides where it is cut."""
    log = shown[0] > 0 and shown[1] > LOGARITHMIC * shown[0]
    low, high = np.log(shown) if log else np.array(shown)
    air = (high - low) * 0.12 or 0.05 * abs(high) or 0.05
    left = low - air * (1 if min(known) >= shown[0] else 5)
    right = high + air * (1 if max(known) <= shown[1] else 5)
    if log:
        panel.set_xscale("log")
        panel.set_xlim(float(np.exp(left)), float(np.exp(right)))
        log_ticks(panel, 4)
    else:
        panel.set_xlim(left, right)
        panel.locator_params(axis="x", nbins=4)


def _arrow(panel: Axes, place: int, words: Sequence[str], *, up: bool) -> None:
    """An arrow at the edge of a panel, and beside it the values that lie beyond; more than two are counted."""
    values = [word for word in words if not word.startswith(("mean", "paper"))]
    runs = values if len(values) <= 2 else [f"{len(values)} runs"]
    text = ", ".join([*runs, *words[len(values) :]])
    panel.annotate(
        text,
        (1.0 if up else 0.0, place),
        (-7 if up else 7, 0),
        xycoords=panel.get_yaxis_transform(),
        textcoords="offset points",
        ha="right" if up else "left",
        va="center",
        fontsize=5.5,
        arrowprops={"arrowstyle": "->", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "color": "black"},
    )


def _number(value: float) -> str:
    return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")


def _diamond(across: Sequence[float], up: Sequence[float], label: str = "") -> Line2D:
    """An open diamond, the mark of the paper."""
    return Line2D(
        across,
        up,
        linestyle="",
        marker="D",
        markersize=4.5,
        markerfacecolor="none",
        markeredgecolor="0.35",
        markeredgewidth=0.8,
        label=label,
    )
