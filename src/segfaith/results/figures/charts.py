"""Charts of one data set from tables of results: the trade-off, curves over k, randomisation.

Every chart is a function from a table to a `Figure` on an Agg canvas; none touches pyplot.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.style import (
    COLUMN_WIDTH,
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
    looks,
)
from segfaith.results.records.select import is_reference, method_order

LINE = 0.16
"""Inches that a tilted name of an axis needs beside the next one."""


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
def tradeoff(values: pd.DataFrame, faithfulness: str = "tdd_gain", labels: Mapping[str, str] = NAMES) -> Figure:
    """Faithfulness against runtime (log) and against stability, with the Pareto front of each panel.

    Points are means over runs, bars one standard deviation (n - 1). A filled marker is on the front of all three
    objectives together. Of controls and of the truth the faithfulness alone is drawn, as lines of reference.

    Args:
        values: run-level means as `summary.run_values` gives them, of one data set.
        faithfulness: the metric of the vertical axis.
        labels: of methods.

    Raises:
        SettingsError: no method has all three metrics.
    """
    metrics = (faithfulness, "stability", "runtime_s")
    table = values[values["metric"].isin(metrics)]
    grouped = table.groupby(["method", "metric"], sort=False)["value"]
    averages = grouped.mean().unstack().reindex(columns=list(metrics))
    ordered = method_order(table["method"])
    own = [name for name in ordered if not is_reference(name)]
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
    log_ticks(axes[0], 8)
    handles = [handle(labels.get(name, name), mark, filled=best[name]) for name, mark in look.items()]
    handles.append(Line2D([], [], color="0.5", linewidth=0.9, label="Pareto front"))
    for name, one in lines.items():
        words = literal(labels.get(name, name))
        handles.append(Line2D([], [], color=one.colour, linestyle=one.line, label=words))
    legend(figure, handles)
    return figure


BESIDE = 0.012
"""Between intervals of neighbouring methods, in k."""
KINDS = {"target_deletion": "TDD", "off_deletion": "ODD", "insertion": "insertion gain"}


@rc_context(STYLE)
def curves(means: pd.DataFrame, labels: Mapping[str, str] = NAMES, titles: Mapping[str, str] = KINDS) -> Figure:
    """Deletion and insertion over k, a panel per kind: see `curves.curve_means`.

    The 95 % intervals of methods under test are upright bars, moved a little sideways so that they stand beside each
    other; controls and the truth have none. Bars are cut where they leave the range of the means by more than a third.

    Args:
        means: as `curves.curve_means` gives them, of one data set.
        labels: of methods.
        titles: of the panels, by kind.

    Raises:
        SettingsError: fewer than two values of k.
    """
    if means["k"].nunique() < 2:
        raise SettingsError(
            f"expected curves over at least two values of k; got {means['k'].nunique()}; measure them with "
            "[evaluation] k = [0.2, 0.05, 0.1, 0.4, 0.6, 0.8, 1.0]"
        )
    kinds = [kind for kind in titles if kind in set(means["kind"])]
    look = looks(method_order(means["method"]))
    figure = canvas(FULL_WIDTH, 2.3)
    for panel, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        own = [name for name in look if not is_reference(name)]
        for name, mark in look.items():
            part = means[(means["kind"] == kind) & (means["method"] == name)].sort_values("k")
            if name in own:
                _intervals(panel, part, mark.colour, own.index(name) - (len(own) - 1) / 2)
            panel.plot(
                part["k"], part["value"], color=mark.colour, marker=mark.marker, linestyle=mark.line, markersize=3.5
            )
        panel.set_ylim(*_heights(means[means["kind"] == kind]))
        where = "outside" if kind == "off_deletion" else "in"
        panel.set_title(titles[kind])
        panel.set_xlabel(f"k, of the pixels {where} the target")
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panel.axhline(0, color="0.6", linewidth=0.6)
        panel.grid(True)
    legend(figure, [handle(labels.get(name, name), mark, line=True) for name, mark in look.items()])
    return figure


@rc_context(STYLE)
def randomisation(
    similarity: Mapping[str, pd.DataFrame],
    measure: Literal["spearman", "pearson"] = "spearman",
    labels: Mapping[str, str] = NAMES,
) -> Figure:
    """Sanity check (Adebayo et al. 2018): similarity of maps with those of the trained model, as more and more of
    its weights are drawn anew, head first. A method that reads the model falls towards 0; one that stays up reads the
    image.

    Where names of parts would stand too close, only every second (third, ...) part is named, the last among them.

    Args:
        similarity: panel's title to the part of the table of `distributions.randomisation` that is of one model.
        measure: the correlation that is shown.
        labels: of methods.

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
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = canvas(COLUMN_WIDTH if columns == 1 else FULL_WIDTH, 2.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (title, table) in zip(grid.ravel(), panels.items(), strict=False):
        for name, mark in look.items():
            part = table[table["method"] == name].sort_values("stage")
            axes.plot(part["stage"], part[measure], color=mark.colour, marker=mark.marker, linestyle=mark.line)
        stages = table.drop_duplicates("stage").sort_values("stage")
        names = [literal(str(part), 18) if part else "none" for part in stages["part"].fillna("")]
        room = figure.get_figwidth() / columns - 0.5
        step = max(1, ceil((len(names) - 1) * LINE / room))
        told = [name if (len(names) - 1 - place) % step == 0 else "" for place, name in enumerate(names)]
        axes.set_xticks(stages["stage"].to_list(), told)
        if max(map(len, names)) * 0.07 * len(names) > room:
            axes.tick_params("x", rotation=35)
            for word in axes.get_xticklabels():
                word.set(ha="right", rotation_mode="anchor")
        axes.set_title(literal(title))
        axes.set_xlabel("parts drawn anew, from the head down to")
        axes.axhline(0, color="0.6", linewidth=0.6)
        axes.grid(True)
    for row in grid:
        row[0].set_ylabel(f"{measure.capitalize()} correlation of maps")
    for axes in grid.ravel()[len(panels) :]:
        axes.axis("off")
    legend(figure, [handle(labels.get(name, name), mark, line=True) for name, mark in look.items()])
    return figure


def _intervals(axes: Axes, part: pd.DataFrame, colour: str, place: float) -> None:
    """The intervals of one curve as bars; `place` is how many bars they stand to the right of k."""
    known = part.dropna(subset=["low", "high"])
    axes.vlines(known["k"] + BESIDE * place, known["low"], known["high"], colors=colour, linewidth=0.9, alpha=0.75)


def _heights(part: pd.DataFrame) -> tuple[float, float]:
    """What a panel of curves shows: all means and 0, and their intervals as far as these do not dwarf them."""
    low, high = min(float(part["value"].min()), 0.0), max(float(part["value"].max()), 0.0)
    air = 0.35 * (high - low) or 0.1
    own = part[[not is_reference(name) for name in part["method"]]]
    least = max(min(low, float(own["low"].min())), low - air) if own["low"].notna().any() else low
    most = min(max(high, float(own["high"].max())), high + air) if own["high"].notna().any() else high
    return least - 0.04 * (high - low or 1), most + 0.04 * (high - low or 1)


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
