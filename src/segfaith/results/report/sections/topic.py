"""What all topics share: a section from one part for each data set, and the names of methods."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import slug
from segfaith.results.records.select import method_labels
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Prose,
    Section,
    Table,
    count,
    figure,
    metric_column,
    missing,
    name_cell,
    number,
    rows_by,
    whole,
    words,
)
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.intervals import POOLED, quantity
from segfaith.results.statistics.targets import target_note

POOL = "pooled"
"""The glossary's key of pooled drops."""
IOU = "IoU\N{NO-BREAK SPACE}≥\N{NO-BREAK SPACE}.5"
PREDICTED = f"{IOU}:"
METHOD = Column("Method", "method", numeric=False)
N = Column("n", "n", "descending", diagnostic=True)
NO_SAMPLE = "no sample was measured"


def by_data(
    analysis: Analysis,
    name: str,
    title: str,
    introduction: Markup,
    build: Callable[[DataAnalysis], Sequence[Block]],
) -> Section:
    """A section with the blocks of each data set, under headings of their own where there are several.

    Where all blocks of all data sets say what is missing, the section holds nothing else, each reason once.
    """
    several = len(analysis.parts) > 1
    blocks = {part.label: list(build(part)) for part in analysis.parts}
    if not any(Section(name, title, tuple(inner)).measured for inner in blocks.values()):
        reasons = dict.fromkeys(block for inner in blocks.values() for block in inner)
        return Section(name, title, tuple(reasons))
    parts: list[Block] = [Prose(introduction)]
    for label, inner in blocks.items():
        parts += [*([Prose(words("{}", label), "heading")] if several else []), *inner]
    return Section(name, title, tuple(parts))


def lacking(part: DataAnalysis, why: str, command: str) -> Prose:
    """Why a table has no rows: no sample was measured, or else `why`, with the command that measures it."""
    any_sample = any((run.records["status"] == "ok").any() for run in part.runs)
    return missing(why, command) if any_sample else missing(NO_SAMPLE, "segfaith run FILE")


def images_words(images: int, targets: int, noun: str = "image") -> str:
    """A number of images, and of their targets where these are more: "40 images (93 targets)"."""
    return count(images, noun) + (f" ({count(targets, 'target')})" if targets > images else "")


def target_remark(part: DataAnalysis) -> list[Block]:
    """What a table of a data set says below it where images have several targets."""
    return [Prose(words("{}", target_note(part.runs)), "remark")] if part.several else []


def labels(part: DataAnalysis) -> dict[str, str]:
    """How the report calls each method, by its name: see `select.method_labels`."""
    return {name: name for name in (*part.methods, *part.compared)} | method_labels(part.read)


def base_methods(part: DataAnalysis, methods: Iterable[str]) -> list[str]:
    """The methods without variants ("dea@alpha=0.5") of a method that the data set has too."""
    return [name for name in methods if "@" not in name or name.partition("@")[0] not in part.methods]


def pooled_metrics(part: DataAnalysis) -> list[str]:
    """The metrics whose pooled drops lead the tables: of scores that are not the probability none is divided by s."""
    return [name for name in part.leading("tdd", "odd_abs") if quantity(name) == POOLED and name in part.metrics]


def pooled_column(metric: str) -> Column:
    """The column of a metric's pooled drop."""
    own = metric_column(metric)
    return replace(own, label=own.label.replace(METRICS[metric].label, f"{METRICS[metric].label}, pooled"), define=POOL)


def pooled_cell(line: Mapping[Any, Any]) -> Cell:
    """The pooled drop with its interval, as "0.431 [0.400, 0.462]"."""
    interval = "" if isnan(line["low"]) else f" [{number(line['low'])}, {number(line['high'])}]"
    return Cell(f"{number(line['value'])}{interval}", None if isnan(line["value"]) else float(line["value"]))


def beside(line: Mapping[Any, Any]) -> str:
    """What stands below a mean: median and interquartile mean over samples, and the mean where the IoU is >= .5."""
    figures = {"median": line["median"], "IQM": line["iqm"]}
    if line["metric"] != "runtime_s":
        figures[PREDICTED] = line["predicted_mean"]
    return "; ".join(f"{name}\N{NO-BREAK SPACE}{number(value)}" for name, value in figures.items() if not isnan(value))


def moves_most(part: DataAnalysis, metrics: Sequence[str]) -> dict[str, dict[Any, Any]]:
    """By metric the row of `influence.influence` with the largest change of the mean of a method that explains."""
    table = part.influence[~part.influence["method"].isin(part.references)].dropna(subset="change")
    found = {}
    for metric in metrics:
        own = table[table["metric"] == metric]
        if len(own):
            found[metric] = own.iloc[int(own["change"].abs().argmax())].to_dict()
    return found


def wide(part: DataAnalysis, table: pd.DataFrame, columns: Mapping[str, Column], name: str, caption: str) -> Table:
    """A table with a row for each method and the named columns of `table`, and how many samples entered."""
    own, called = rows_by(table, "method"), labels(part)
    rows = [
        (name_cell(called[method]), *(figure(own[method][column]) for column in columns), whole(own[method]["n"]))
        for method in part.methods
        if method in own
    ]
    title = words("{}: {}", part.label, caption)
    return Table(f"{name}-{slug(part.label)}", title, (METHOD, *columns.values(), N), tuple(rows))


def pair_cell(first: str, second: str, between: str) -> Cell:
    """A cell that holds two methods, "gpa better than ega"."""
    return Cell(f"{first}{between}{second}", f"{first} {second}")
