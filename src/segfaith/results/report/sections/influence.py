"""How much one image decides: the image that moves each mean most, and by how much."""

from math import isnan

from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    figure,
    metric_ref,
    name_cell,
    whole,
    words,
)
from segfaith.results.report.sections.topic import labels
from segfaith.results.report.sections.verdict import instead
from segfaith.results.statistics.analysis import Analysis, DataAnalysis


def section(analysis: Analysis) -> Section:
    """The most influential image of each mean, for each data set."""
    blocks: list[Block] = [
        Prose(
            words(
                "Each mean was computed again without each image in turn. The table names the image that moves the "
                "mean most. Where leaving out one image changes which method is best, the list says so."
            )
        )
    ]
    for part in analysis.parts:
        blocks += [Prose(words("{}", part.label), "heading")] if len(analysis.parts) > 1 else []
        blocks += [_flips(part), Fold(Markup("The image that moves each mean most"), (_table(part),))]
    return Section("influence", "How much one image decides", tuple(blocks))


def _flips(part: DataAnalysis) -> Block:
    called = labels(part)
    flips = [
        words(
            "{}: {} is best; without {}, {}.",
            *(metric_ref(name), called[best.method], best.flipped),
            instead(best, called),
        )
        for name, best in part.best.items()
        if best.flipped
    ]
    return Points(tuple(flips)) if flips else Prose(words("No single image changes which method is best."))


def _table(part: DataAnalysis) -> Table:
    called = labels(part)
    rows = []
    for row in part.influence.to_dict("records"):
        if row["method"] in part.references:
            continue
        label = METRICS[row["metric"]].label
        rows.append(
            (
                name_cell(called[row["method"]]),
                Cell(label, label),
                figure(row["mean"]),
                name_cell(row["image"] or "n/a"),
                figure(row["without"]),
                Cell("n/a") if isnan(row["change"]) else figure(row["change"]),
                whole(row["images"]),
            )
        )
    columns = (
        Column("Method", "method", numeric=False),
        Column("Metric", numeric=False),
        Column("Mean", "mean", "descending"),
        Column("Image", numeric=False),
        Column("Mean without it", "mean", "descending"),
        Column("Change", "influence", "descending"),
        Column("Images", "images", "descending"),
    )
    caption = words("{}: the image that moves each mean most", part.label)
    return Table(f"influence-{slug(part.label)}", caption, columns, tuple(rows))
