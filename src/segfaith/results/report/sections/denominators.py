"""What small scores do to the means: absolute drops, and scores within groups of samples."""

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Prose,
    Section,
    Table,
    figure,
    missing,
    name_cell,
    number,
    ref,
    rows_by,
    whole,
    words,
)
from segfaith.results.report.sections.topic import METHOD, N, base_methods, by_data, labels, lacking
from segfaith.results.statistics.analysis import BYS, Analysis, By, DataAnalysis

WHAT = {"s": "score s", "target_area": "share of the image", "class_index": "class"}
DROPS = {"target_drop": "in target", "off_drop": "outside"}
NAMES = {"mean": "Mean", "median": "Median", "trimmed": "Trimmed", "iqm": "IQM"}
SHOWN = ("tdd", "odd_abs")
STRATA = (
    Prose(
        words(
            "Each target of an image is in its own stratum. The value of an image there is the mean over its targets "
            "in the stratum, so that an image can be in several strata."
        ),
        "remark",
    ),
)
"""What strata are of where images have several targets."""


def section(analysis: Analysis) -> Section:
    """Absolute drops, then TDD and OT abs by s, by the target's area and by class."""
    introduction = words(
        "TDD and OT abs divide by {}. Where s is close to 0 they explode, and the mean with them. Medians do not, nor "
        "do the {}, which are not divided by s. A conclusion should hold by these too, and in every part of the data.",
        ref("s", "s"),
        ref("absolute_drop", "absolute drops"),
    )
    return by_data(analysis, "denominators", "Small scores and strata", introduction, _denominators)


def _denominators(part: DataAnalysis) -> list[Block]:
    if not part.of_probability:
        return [
            missing(
                f"this does not apply to {part.label}: its drops are those of the score {part.score!r}, which are not "
                "divided by s",
                "",
            )
        ]
    if part.drops.empty:
        why = "drops that are not divided by s are missing: an older version made these records"
        return [lacking(part, why, "segfaith run FILE -o NEW_DIR")]
    folds = [
        Fold(words("TDD and OT abs by {}", WHAT[by]), tuple(_strata(part, metric, by) for metric in SHOWN))
        for by in BYS
    ]
    return [_drops(part), *(STRATA if part.several else ()), *folds]


def _drops(part: DataAnalysis) -> Table:
    shown = [(drop, statistic) for drop in DROPS for statistic in ("mean", "median", "trimmed", "iqm")]
    by, called = rows_by(part.drops, "method", "drop"), labels(part)
    rows = [
        (
            name_cell(called[name]),
            *(figure(by[(name, drop)][statistic]) for drop, statistic in shown),
            whole(by[(name, "target_drop")]["n"]),
        )
        for name in part.methods
        if (name, "target_drop") in by
    ]
    columns = (
        METHOD,
        *(Column(f"{NAMES[statistic]}, {DROPS[drop]}", statistic, "descending") for drop, statistic in shown),
        N,
    )
    return Table(f"drops-{slug(part.label)}", words("{}: absolute drops of s", part.label), columns, tuple(rows))


def _strata(part: DataAnalysis, metric: str, by: By) -> Block:
    table, called = part.strata(metric, by), labels(part)
    if table.empty:
        return missing(f"the records have no values of {METRICS[metric].label} and {WHAT[by]}", "segfaith run FILE")
    methods = [name for name in base_methods(part, part.methods) if name in set(table["method"])]
    rows: list[tuple[Cell, ...]] = []
    for stratum, values in table[table["method"].isin(methods)].groupby("stratum", sort=False):
        place = float(len(rows))
        rows.append((Cell(str(stratum).replace("<=", "≤"), place), *_cells(values, methods), whole(values["n"].max())))
    columns = (
        Column("Stratum", "stratum", numeric=False),
        *(Column(called[name], metric, "descending") for name in methods),
        N,
    )
    caption = words(
        "{}: {} by {}, medians (means and interquartile means)", part.label, METRICS[metric].label, WHAT[by]
    )
    return Table(f"strata-{by.replace('_', '-')}-{metric}-{slug(part.label)}", caption, columns, tuple(rows))


def _cells(values: pd.DataFrame, methods: list[str]) -> list[Cell]:
    own = rows_by(values, "method")
    return [
        figure(row["median"], under=f"mean {number(row['mean'])}; IQM {number(row['iqm'])}") if row else Cell("n/a")
        for row in (own.get(name) for name in methods)
    ]
