"""The look of all figures: sizes for print, colours, markers and lines by method, and the canvas that they share.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision tell apart; markers and lines
tell methods apart in grey print too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    "savefig.dpi": 220,
}
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"


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
    "random": Look("0.65", "x", (0, (1, 1))),
    "random_cells": Look("0.45", "+", (0, (1, 1.5))),
    "mask": Look("0.0", "*", (0, (1, 2.5))),
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


def literal(text: str) -> str:
    """Words that matplotlib must not read as a formula; long ones keep their two ends."""
    short = text if len(text) <= 30 else f"{text[:12]}...{text[-15:]}"
    return short.replace("$", r"\$")


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
