"""Diagrams of rankings of one data set: critical differences, and ranks under every operator and k."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.style import COLUMN_WIDTH, FULL_WIDTH, NAMES, STYLE, canvas, literal, looks, spread_out
from segfaith.results.records.select import method_order
from segfaith.results.statistics.friedman import Friedman
from segfaith.results.statistics.paired import ALPHA


def cliques(test: Friedman, level: float = ALPHA) -> list[list[str]]:
    """Groups of methods next to each other in mean rank, no two of which differ (Nemenyi's p >= level); the largest.

    One group of all where Friedman's own p is not below the level: nothing then tells any two apart.
    """
    order = sorted(test.ranks, key=lambda name: (test.ranks[name], name))
    if not test.p < level:
        return [order]
    groups: list[list[str]] = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and all(
            test.nemenyi[order[last + 1]][one] >= level for one in order[first : last + 1]
        ):
            last += 1
        if last > first and not (groups and order[last] in groups[-1]):
            groups.append(order[first : last + 1])
    return groups


@rc_context(STYLE)
def critical_differences(tests: Sequence[Friedman], labels: Mapping[str, str] = NAMES) -> Figure:
    """Critical-difference diagrams (Demsar 2006): mean ranks, 1 = best; bars join methods that Nemenyi's test does not
    tell apart at 5 %. Where Friedman's p is not below .05, one bar joins all, and no critical difference is drawn.

    Args:
        tests: Friedman's tests of one data set, a diagram for each.
        labels: of methods.

    Raises:
        SettingsError: no test, or one that says why it could not be made.
    """
    for test in tests:
        if test.why:
            raise SettingsError(f"expected Friedman tests that could be made; {test.metric}: {test.why}")
    if not tests:
        raise SettingsError("expected at least one Friedman test; got none")
    short = all(len(labels.get(name, name)) <= 16 for test in tests for name in test.ranks)
    columns = min(2 if short else 1, len(tests))
    lines = -(-len(tests) // columns)
    tall = max(0.62 + 0.17 * -(-len(test.ranks) // 2) + 0.08 * len(cliques(test)) for test in tests)
    figure = canvas(FULL_WIDTH if columns > 1 or not short else COLUMN_WIDTH, lines * (tall + 0.1))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, test in zip(grid, tests, strict=False):
        _differences(panel, test, tall, labels)
    for panel in grid[len(tests) :]:
        panel.axis("off")
    return figure


def _differences(axes: Axes, test: Friedman, inches: float, labels: Mapping[str, str]) -> None:
    """One diagram; heights are inches below the axis of ranks. A method's marker stands where the line from its rank
    turns to its name, so that markers of equal ranks don't hide each other."""
    order = sorted(test.ranks, key=lambda name: (test.ranks[name], name))
    count, look, groups = len(order), looks(order), cliques(test)
    axes.axis("off")
    axes.set_xlim(1 - 0.55 * (count - 1), count + 0.55 * (count - 1))
    axes.set_ylim(-inches + 0.5, 0.3)
    axes.plot([1, count], [0, 0], color="black", linewidth=0.8)
    for tick in range(1, count + 1):
        axes.plot([tick] * 2, [0, 0.04], color="black", linewidth=0.8)
        axes.text(tick, 0.055, str(tick), ha="center", va="bottom", fontsize=6.5)
    difference = test.critical_difference
    if test.p < ALPHA:
        axes.plot([1, 1 + difference], [0.25, 0.25], color="black", linewidth=1.4)
        axes.text(1 + difference + 0.1, 0.25, f"CD = {difference:.2f}", ha="left", va="center", fontsize=6.5)
    else:
        axes.text(1, 0.25, f"none told apart: Friedman p = {test.p:.2f}", ha="left", va="center", fontsize=6.5)
    axes.set_title(f"{METRICS[test.metric].label} ({test.images} images)", pad=2)
    for place, group in enumerate(groups):
        ends = [test.ranks[group[0]] - 0.05, test.ranks[group[-1]] + 0.05]
        axes.plot(ends, [-0.07 - 0.08 * place] * 2, color="0.35", linewidth=2.4, solid_capstyle="butt")
    for place, name in enumerate(order):
        left = place < -(-count // 2)
        step = 0.17 * (place if left else count - 1 - place) + (0 if left else 0.085)
        depth = -0.07 - 0.08 * len(groups) - step - 0.06
        edge = 1 - 0.1 * (count - 1) if left else count + 0.1 * (count - 1)
        rank, mark = test.ranks[name], look[name]
        axes.plot([rank, rank, edge], [0, depth, depth], color=mark.colour, linewidth=0.9)
        axes.plot([rank], [depth], marker=mark.marker, color=mark.colour, markersize=4.5, clip_on=False)
        label = literal(labels.get(name, name))
        axes.annotate(
            f"{label} {rank:.2f}" if left else f"{rank:.2f} {label}",
            (edge, depth),
            (-3 if left else 3, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=7,
        )


@rc_context(STYLE)
def ranks(
    settings: Mapping[str, Mapping[str, pd.DataFrame]],
    agreement: Mapping[str, Mapping[str, str]] | None = None,
    labels: Mapping[str, str] = NAMES,
) -> Figure:
    """Ranks of the methods (1 = best) under every setting of the evaluation: a row of panels for each metric, a column
    for each thing that was varied.

    Args:
        settings: metric to what was varied ("occlusion", "k") to the table of `rankings.by_setting`, of one data set.
        agreement: the same to Kendall's W of these rankings, in words; missing: not shown.
        labels: of methods.

    Raises:
        SettingsError: nothing was varied.
    """
    shown = {
        metric: {over: table for over, table in tables.items() if table["setting"].nunique() > 1}
        for metric, tables in settings.items()
    }
    shown = {metric: tables for metric, tables in shown.items() if tables}
    if not shown:
        raise SettingsError("expected at least two occlusion operators or two values of k; got one of each")
    columns = list(dict.fromkeys(over for tables in shown.values() for over in tables))
    widths = [1.0 + max(one[over]["setting"].nunique() for one in shown.values() if over in one) for over in columns]
    methods = method_order([name for one in shown.values() for table in one.values() for name in table["method"]])
    size = (FULL_WIDTH if len(columns) > 1 else COLUMN_WIDTH, len(shown) * (0.8 + 0.25 * len(methods)))
    figure = canvas(*size)
    grid = figure.subplots(len(shown), len(columns), squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, (metric, tables) in zip(grid, shown.items(), strict=True):
        for panel, over in zip(row, columns, strict=True):
            if over not in tables:
                panel.axis("off")
                continue
            _bump(panel, tables[over], methods, labels)
            sentence = (agreement or {}).get(metric, {}).get(over, "")
            name = {"occlusion": "occlusion operator"}.get(over, over)
            panel.set_xlabel(name)
            panel.set_title(f"Kendall's {sentence}" if sentence else "", fontsize=7)
            panel.set_ylabel(f"rank by {METRICS[metric].label}")
    return figure


def _bump(axes: Axes, table: pd.DataFrame, methods: Sequence[str], labels: Mapping[str, str]) -> None:
    """One panel. Methods that share a rank stand side by side, and their names at the right end one below the other."""
    names = list(dict.fromkeys(table["setting"]))
    numeric = all(isinstance(name, int | float) for name in names)
    names = sorted(names) if numeric else names
    rows = {name: table[table["method"] == name].set_index("setting")["rank"].reindex(names) for name in methods}
    rows = {name: row for name, row in rows.items() if row.notna().any()}
    look = looks(methods)
    for number, (name, row) in enumerate(rows.items()):
        sharing = pd.DataFrame({other: rows[other] == row for other in rows}).reindex(columns=list(rows))
        before, every = sharing.iloc[:, :number].sum(axis=1), sharing.sum(axis=1)
        across = np.arange(len(names)) + 0.11 * (before - (every - 1) / 2).to_numpy(float)
        mark = look[name]
        axes.plot(across, row, color=mark.colour, marker=mark.marker, markersize=6, linestyle=mark.line)
    ends = {name: (names.index(row.dropna().index[-1]), float(row.dropna().iloc[-1])) for name, row in rows.items()}
    heights = spread_out([height for _, height in ends.values()], 0.55)
    for (name, (place, _)), height in zip(ends.items(), heights, strict=True):
        words = literal(labels.get(name, name), 20)
        axes.annotate(words, (place, height), (10, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_xticks(range(len(names)), [f"{name:g}" if numeric else literal(str(name)) for name in names])
    axes.set_xlim(-0.25, len(names) - 0.1)
    axes.set_ylim(len(methods) + 0.5, 0.5)
    axes.set_yticks(range(1, len(methods) + 1))
    axes.grid(True, axis="x")
