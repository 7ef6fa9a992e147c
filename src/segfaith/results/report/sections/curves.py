"""Curves over k, and the areas under them."""

from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    ARROWS,
    Block,
    Column,
    Figure,
    Section,
    Table,
    figure,
    missing,
    name_cell,
    ref,
    rows_by,
    whole,
    words,
)
from segfaith.results.report.sections.topic import METHOD, N, base_methods, by_data, labels, lacking
from segfaith.results.statistics.analysis import Analysis, DataAnalysis

KINDS = {
    "target_deletion": ("Deletion in the target", "tdd"),
    "off_deletion": ("Deletion outside it", "odd"),
    "off_deletion_abs": ("Deletion outside it, absolute", "odd_abs"),
    "insertion": ("Insertion in the target", "insertion_gain"),
}
"""Kinds of curves: title and the metric that a point is."""
COMMAND = "segfaith run FILE --set 'evaluation.k=[0.2,0.05,0.1,0.4,0.6,0.8,1.0]'"


def section(analysis: Analysis) -> Section:
    """The curves as a figure, and a table of their areas."""
    introduction = words(
        "The scores rest on one {}. The {} show the same maps scored at other fractions of the region too. Upright "
        "bars are {}s.",
        ref("deleted", "k"),
        ref("curve", "curves"),
        ref("interval", "95 % interval"),
    )
    return by_data(analysis, "curves", "Curves", introduction, _curves)


def _curves(part: DataAnalysis) -> list[Block]:
    means = part.curve_means
    if means.empty or means["k"].nunique() < 2:
        return [lacking(part, "these runs were scored at a single k, so there are no curves", COMMAND)]
    blocks: list[Block] = [Figure(DRAWINGS["curves"](part))]
    if part.areas.empty:
        return [*blocks, missing("no areas under the curves: the runs share fewer than two k", COMMAND)]
    return [*blocks, _areas(part)]


def _areas(part: DataAnalysis) -> Table:
    by, called = rows_by(part.areas, "method", "kind"), labels(part)
    kinds = [kind for kind in KINDS if kind in set(part.areas["kind"])]
    rows = [
        (
            name_cell(called[name]),
            *(figure(by[(name, kind)]["area"]) for kind in kinds),
            whole(by[(name, kinds[0])]["n"]),
        )
        for name in base_methods(part, part.methods)
        if all((name, kind) in by for kind in kinds)
    ]
    columns = (METHOD, *(_column(kind) for kind in kinds), N)
    caption = words("{}: areas under the curves (mean heights)", part.label)
    return Table(f"areas-{slug(part.label)}", caption, columns, tuple(rows))


def _column(kind: str) -> Column:
    title, metric = KINDS[kind]
    better = METRICS[metric].better
    return Column(title + ARROWS[better], "area", "ascending" if better == "lower" else "descending")
