"""Charts of one data set from tables of results: the trade-off, runs, curves over k, randomisation.

Every chart is a function from a table to a `Figure` on an Agg canvas; none touches pyplot.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from segfaith.constants import CONTROLS
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.style import (
    COLUMN_WIDTH,
    FULL_WIDTH,
    STYLE,
    Look,
    axis_label,
    canvas,
    handle,
    legend,
    literal,
    looks,
    run_looks,
)
from segfaith.results.records.select import method_order
from segfaith.results.statistics.summary import TABLE_METRICS


def pareto(points: Any, better: Sequence[Literal["higher", "lower"]]) -> list[bool]:
    """Which points no other point beats: as good in every objective and better in one. NaN is never on the front.

    Args:
        points: (points, objectives).
        better: the direction of each objective.
    """
    signs = np.array([1.0 if one == "higher" else -1.0 for one in better])
    values = np.asarray(points, dtype=float).reshape(-1, len(signs)) * signs
    return [
        bool(np.isfinite(one).all()) and not any(((other >= one).all() and (other > one).any()) for other in values)
        for one in values
    ]


@rc_context(STYLE)
def tradeoff(values: pd.DataFrame, faithfulness: str = "tdd_gain") -> Figure:
    """Faithfulness against runtime (log) and against stability, with the Pareto front of each panel.

    Points are means over runs, bars one standard deviation (n - 1). A filled marker is on the front of all three
    objectives together. Controls explain nothing: their faithfulness alone is drawn, as lines of reference.

    Args:
        values: run-level means as `tables.run_values` gives them, of one data set.
        faithfulness: the metric of the vertical axis.

    Raises:
        SettingsError: no method has all three metrics.
    """
    metrics = (faithfulness, "stability", "runtime_s")
    table = values[values["metric"].isin(metrics)]
    grouped = table.groupby(["method", "metric"], sort=False)["value"]
    averages = grouped.mean().unstack().reindex(columns=list(metrics))
    ordered = method_order(table["method"])
    own = [name for name in ordered if name.partition("@")[0] not in CONTROLS]
    levels = averages[faithfulness].dropna()
    controls = {name: float(levels[name]) for name in ordered if name not in own and name in levels}
    means = averages.reindex(own).dropna()
    spreads = grouped.std(ddof=1).unstack().reindex(index=means.index, columns=list(metrics)).fillna(0.0)
    if means.empty:
        raise SettingsError(f"expected a method with {', '.join(metrics)}; got none (is stability measured?)")
    look, lines = looks(list(means.index)), looks(list(controls))
    best = dict(zip(means.index, pareto(means.to_numpy(), [_better(name) for name in metrics]), strict=True))
    figure = canvas(FULL_WIDTH, 2.6)
    axes = figure.subplots(1, 2, sharey=True)
    axes[0].set_xscale("log")
    axes[0].set_ylabel(axis_label(faithfulness))
    for panel, metric in zip(axes, ("runtime_s", "stability"), strict=True):
        for name, level in controls.items():
            panel.axhline(level, color=lines[name].colour, linestyle=lines[name].line, linewidth=1.4)
        for name, mark in look.items():
            _point(panel, means.loc[name], spreads.loc[name], (metric, faithfulness), mark, best[name])
        _front(panel, means, metric, faithfulness)
        panel.margins(x=0.1)
        panel.set_xlabel(axis_label(metric))
        panel.grid(True)
    handles = [handle(name, mark, filled=best[name]) for name, mark in look.items()]
    handles.append(Line2D([], [], color="0.5", linewidth=0.9, label="Pareto front"))
    for name, one in lines.items():
        handles.append(Line2D([], [], color=one.colour, linestyle=one.line, label=literal(name)))
    legend(figure, handles)
    return figure


@rc_context(STYLE)
def run_dots(values: pd.DataFrame) -> Figure:
    """Per metric one panel, per method one line of dots: a dot for each run's mean, a bar for their mean.

    Args:
        values: run-level means as `tables.run_values` gives them, of one data set.

    Raises:
        SettingsError: no value is defined.
    """
    metrics = [name for name in TABLE_METRICS if name in set(values.loc[values["value"].notna(), "metric"])]
    if not metrics:
        raise SettingsError(f"expected run-level means of {', '.join(TABLE_METRICS)}; got none that is defined")
    methods, marks = method_order(values["method"]), run_looks([str(run) for run in values["run"]])
    runs = list(marks)
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = canvas(FULL_WIDTH, rows * (0.17 * len(methods) + 0.62))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, metric in zip(grid, metrics, strict=False):
        part = values[values["metric"] == metric]
        for place, method in enumerate(methods):
            mine = part[part["method"] == method]
            offsets = np.linspace(-0.22, 0.22, len(runs)) if len(runs) > 1 else [0.0]
            for run, offset in zip(runs, offsets, strict=True):
                mark = marks[run]
                dots = mine.loc[mine["run"] == run, "value"]
                panel.plot(
                    dots,
                    [place + offset] * len(dots),
                    linestyle="",
                    marker=mark.marker,
                    color=mark.colour,
                    markersize=3,
                )
            panel.plot([mine["value"].mean()] * 2, [place - 0.36, place + 0.36], color="black", linewidth=1.1)
        _spread(panel, part["value"])
        panel.set_title(axis_label(metric))
        panel.set_yticks(range(len(methods)), [literal(name) for name in methods])
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.grid(True)
    for panel in grid[len(metrics) :]:
        panel.axis("off")
    handles = [handle(run, mark) for run, mark in marks.items()]
    handles.append(Line2D([], [], color="black", linewidth=0, marker="|", markersize=8, label="mean over runs"))
    legend(figure, handles)
    return figure


KINDS = {"target_deletion": "TDD", "off_deletion": "ODD", "insertion": "insertion gain"}


@rc_context(STYLE)
def curves(means: pd.DataFrame) -> Figure:
    """Deletion and insertion over k, a panel per kind, with 95 % intervals as bands: see `curves.curve_means`.

    Args:
        means: as `curves.curve_means` gives them, of one data set.

    Raises:
        SettingsError: fewer than two values of k.
    """
    if means["k"].nunique() < 2:
        raise SettingsError(
            f"expected curves over at least two values of k; got {means['k'].nunique()}; measure them with "
            "[evaluation] k = [0.2, 0.05, 0.1, 0.4, 0.6, 0.8, 1.0]"
        )
    kinds = [kind for kind in KINDS if kind in set(means["kind"])]
    look = looks(method_order(means["method"]))
    figure = canvas(FULL_WIDTH, 2.3)
    for panel, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for name, mark in look.items():
            part = means[(means["kind"] == kind) & (means["method"] == name)].sort_values("k")
            panel.fill_between(part["k"], part["low"], part["high"], color=mark.colour, alpha=0.14, linewidth=0)
            panel.plot(
                part["k"], part["value"], color=mark.colour, marker=mark.marker, linestyle=mark.line, markersize=3.5
            )
        where = "outside" if kind == "off_deletion" else "in"
        panel.set_title(KINDS[kind])
        panel.set_xlabel(f"k, of the pixels {where} the target")
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panel.axhline(0, color="0.6", linewidth=0.6)
        panel.grid(True)
    handles = [handle(name, mark, line=True) for name, mark in look.items()]
    legend(figure, handles)
    return figure


@rc_context(STYLE)
def randomisation(
    similarity: Mapping[str, pd.DataFrame], measure: Literal["spearman", "pearson"] = "spearman"
) -> Figure:
    """Sanity check (Adebayo et al. 2018): similarity of maps with those of the trained model, as more and more of
    its weights are drawn anew, head first. A method that reads the model falls towards 0; one that stays up reads the
    image.

    Args:
        similarity: panel's title to the part of the table of `strata.randomisation` that is of one model.
        measure: the correlation that is shown.

    Raises:
        SettingsError: fewer than two stages everywhere.
    """
    panels = {title: table.dropna(subset=[measure]) for title, table in similarity.items()}
    panels = {title: table for title, table in panels.items() if table["stage"].nunique() > 1}
    if not panels:
        raise SettingsError(
            "expected similarities at two stages or more; got none; make the check with: segfaith randomise DIR"
        )
    look = looks(method_order(name for table in panels.values() for name in table["method"]))
    figure = canvas(COLUMN_WIDTH if len(panels) == 1 else FULL_WIDTH, 2.4)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, table) in zip(grid, panels.items(), strict=True):
        for name, mark in look.items():
            part = table[table["method"] == name].sort_values("stage")
            axes.plot(part["stage"], part[measure], color=mark.colour, marker=mark.marker, linestyle=mark.line)
        stages = table.drop_duplicates("stage").sort_values("stage")
        names = [literal(str(part)) if part else "none" for part in stages["part"].fillna("")]
        axes.set_xticks(stages["stage"].to_list(), names)
        if len(names) * len(panels) > 5:
            axes.tick_params("x", rotation=35)
        axes.set_title(literal(title))
        axes.set_xlabel("parts drawn anew, from the head down to")
        axes.axhline(0, color="0.6", linewidth=0.6)
        axes.grid(True)
    grid[0].set_ylabel(f"{measure.capitalize()} correlation of maps")
    legend(figure, [handle(name, mark, line=True) for name, mark in look.items()])
    return figure


def _point(axes: Axes, mean: Any, spread: Any, metrics: tuple[str, str], look: Look, best: bool) -> None:
    """One method at its means of two metrics, across and up."""
    across, up = metrics
    axes.errorbar(
        mean[across],
        mean[up],
        xerr=_within(mean[across], spread[across], across),
        yerr=spread[up],
        color=look.colour,
        marker=look.marker,
        markerfacecolor=look.colour if best else "white",
        markersize=6,
        elinewidth=0.8,
        zorder=3,
    )


def _within(mean: float, spread: float, metric: str) -> list[list[float]]:
    """An error bar's two lengths, cut where a logarithmic axis ends."""
    low = min(spread, 0.9 * mean) if metric == "runtime_s" else spread
    return [[low], [spread]]


def _front(axes: Axes, means: pd.DataFrame, across: str, up: str) -> None:
    """The border of what the panel's front dominates, as a line of steps."""
    chosen = means[pareto(means[[across, up]].to_numpy(), [_better(across), _better(up)])].sort_values(across)
    where: Literal["pre", "post"] = "post" if _better(across) == "lower" else "pre"
    axes.step(chosen[across], chosen[up], where=where, color="0.5", linewidth=0.9, zorder=1.8)


def _better(metric: str) -> Literal["higher", "lower"]:
    better = METRICS[metric].better
    if better is None:
        raise SettingsError(f"{metric} ranks nothing; expected a metric with a direction, such as tdd_gain")
    return better


def _spread(axes: Axes, values: pd.Series) -> None:
    """A logarithmic axis where positive values span more than a factor of 30."""
    defined = values.dropna()
    if len(defined) and float(defined.min()) > 0 and float(defined.max()) > 30 * float(defined.min()):
        axes.set_xscale("log")
    elif not isnan(values.min()):
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
