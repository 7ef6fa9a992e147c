"""The look of all figures: sizes for print, colours, markers and lines by method, and the canvas that they share.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision tell apart; markers and lines
tell methods apart in grey print too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from segfaith.evaluation.metrics import METRICS

COLUMN_WIDTH, FULL_WIDTH = 3.35, 6.9
"""Inches: a column and the text of a two-column page."""
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "segfaith",
    "savefig.dpi": 220,
}
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"

NAMES: Mapping[str, str] = MappingProxyType({})
"""Labels where none are given: methods are shown under their names."""


@dataclass(frozen=True)
class Look:
    """How a method, or a run, is drawn in every chart."""

    colour: str
    marker: str
    line: Any = "-"


LOOKS = {
    "gpa": Look(ORANGE, "s", (0, (5, 1))),
    "ega": Look(SKY, "^", (0, (3, 1, 1, 1))),
    "ria": Look(GREEN, "D", (0, (4, 1.5, 1, 1.5, 1, 1.5))),
    "dea": Look(VERMILION, "o", "-"),
    "mea": Look(BLUE, "8", (0, (6, 1, 1, 1, 1, 1))),
    "random": Look("0.65", "x", (0, (1, 1))),
    "random_cells": Look("0.45", "+", (0, (1, 1.5))),
    "mask": Look("0.0", "*", (0, (1, 2.5))),
    "gamed": Look("0.25", "1", (0, (2, 2, 1, 2))),
    "truth": Look("0.0", "H", "-"),
}
OTHERS = tuple(
    Look(colour, marker, line)
    for colour, marker, line in zip(
        (BLUE, PURPLE, ORANGE, SKY, GREEN, VERMILION, BLUE, PURPLE),
        ("v", "P", "<", ">", "X", "p", "h", "d"),
        ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))) * 2,
        strict=True,
    )
)


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Each method's look, the same whatever the order: a variant ("dea@alpha=0.5") has its method's colour and a
    marker of its own; methods of others take the free looks by name."""
    foreign = sorted({name for name in methods if name.partition("@")[0] not in LOOKS})
    variants = sorted({name for name in methods if name not in LOOKS and name not in foreign})
    result = {name: LOOKS[name] for name in methods if name in LOOKS}
    result |= {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(foreign)}
    for place, name in enumerate(variants):
        base = LOOKS[name.partition("@")[0]]
        result[name] = Look(base.colour, OTHERS[place % len(OTHERS)].marker, base.line)
    return {name: result[name] for name in methods}


def run_looks(runs: Sequence[str]) -> dict[str, Look]:
    """A look for each run: twelve markers, six colours; they repeat together after 72 runs."""
    colours, markers = [one.colour for one in OTHERS[:6]], [*(one.marker for one in OTHERS), "s", "^", "D", "o"]
    return {
        name: Look(colours[(place + place // 12) % 6], markers[place % 12])
        for place, name in enumerate(dict.fromkeys(runs))
    }


def canvas(width: float, height: float) -> Figure:
    """An empty figure of that many inches on an Agg canvas, outside pyplot's state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def literal(text: str, most: int = 30) -> str:
    """Words that matplotlib must not read as a formula; those longer than `most` characters keep their two ends."""
    left = (most - 3) * 4 // 9
    short = text if len(text) <= most else f"{text[:left]}...{text[left + 3 - most :]}"
    return short.replace("$", r"\$")


def log_ticks(axes: Axes, most: int = 6) -> None:
    """Gives a logarithmic horizontal axis at most `most` ticks, so that they don't overprint: call it after drawing.

    Ticks are round numbers: as many as are few enough, and only powers of ten where the axis spans several.
    """
    low, high = axes.get_xlim()
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    steps = ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5))
    ladders = [[step * 10.0**power for power in powers for step in each] for each in steps]
    ladders += [[10.0**power for power in powers[::apart]] for apart in range(1, len(powers) + 1)]
    inside = [[tick for tick in ticks if low <= tick <= high] for ticks in ladders]
    axes.xaxis.set_major_locator(FixedLocator(next(ticks for ticks in inside if len(ticks) <= most) or [low, high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def spread_out(places: Sequence[float], least: float) -> list[float]:
    """Places moved as little as needed so that neighbours, in order of size, are at least so far apart."""
    order = sorted(range(len(places)), key=lambda index: (places[index], index))
    moved = [places[index] for index in order]
    groups: list[list[float]] = []
    for place in moved:
        groups.append([place])
        while len(groups) > 1 and _start(groups[-1], least) < _start(groups[-2], least) + len(groups[-2]) * least:
            groups[-2:] = [groups[-2] + groups[-1]]
    result = [0.0] * len(places)
    spaced = [_start(group, least) + least * number for group in groups for number in range(len(group))]
    for index, place in zip(order, spaced, strict=True):
        result[index] = place
    return result


def _start(group: Sequence[float], least: float) -> float:
    """Where the first of a group's members stands when they are spaced evenly around their mean."""
    return sum(group) / len(group) - least * (len(group) - 1) / 2


def axis_label(metric: str) -> str:
    """A metric's label with an arrow towards better."""
    return (
        METRICS[metric].label
        + {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}", None: ""}[METRICS[metric].better]
    )


def handle(name: str, look: Look, *, line: bool = False, filled: bool = True) -> Line2D:
    """A legend's entry."""
    return Line2D(
        [],
        [],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line if line else "",
        markerfacecolor=look.colour if filled else "white",
        label=literal(name),
    )


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend below the panels, in as many columns as the width holds; the figure grows by its height."""
    widths = [0.6 + 0.062 * len(str(one.get_label())) for one in handles]
    columns = len(handles)
    while columns > 1 and sum(part.max() for part in np.array_split(widths, columns)) > figure.get_figwidth():
        columns -= 1
    figure.set_figheight(figure.get_figheight() + 0.165 * -(-len(handles) // columns) + 0.05)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)
