"""The file `leaderboard.md`: of each data set and model one table with a line a method, the best first."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from segfaith.results.records.identity import slug
from segfaith.results.records.select import is_control
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Points,
    Prose,
    Section,
    Table,
    count,
    figure,
    listed,
    metric_column,
    name_cell,
    number,
    words,
)
from segfaith.results.report.sections.topic import METHOD, labels, pooled_cell, pooled_column
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.intervals import POOLED, quantity
from segfaith.results.statistics.standings import SHOWN

GROUPS = Column("Groups", numeric=False)
INTRODUCTION = words(
    "The methods are sorted by the metric that leads the conclusions, with its 95 % interval over images, and over "
    "models too where a table has several; methods that have it on fewer than half of the images stand below the "
    "others. Where a method has it on fewer images than another one, their number stands in round brackets: its "
    "value is over these. Methods that share a letter are not told apart by it: Wilcoxon’s test over images, with "
    "Holm’s correction over all pairs of a table, at 5 %. Sharing no letter is a difference; sharing one is no proof "
    "of equality, and pairs with fewer than six images that differ always share one. Controls explain nothing, and "
    "the truth is the known evidence itself as a map, under no test. TDD and OT abs are pooled drops. Evid. AP is over "
    "the scenes by which the evidence is tested: those that the model solves, without objects that are evidence as a "
    "whole. Seconds are medians of one map, and passes are those of one map alone."
)
LAST = (Column("Seconds"), Column("Passes", numeric=False), Column("Failed"))


def section(analysis: Analysis) -> Section:
    """The tables of all data sets; where several models were run, first the table of all of them."""
    blocks: list[Block] = [Prose(INTRODUCTION)]
    for part, tables in zip(analysis.parts, analysis.standings, strict=True):
        blocks += [Prose(words("{}", part.label), "heading")]
        for models, table in tables.items():
            blocks += _table(part, models, table)
    return Section("standings", "Leaderboard", tuple(blocks))


def _table(part: DataAnalysis, models: str, table: pd.DataFrame) -> list[Block]:
    """One table, and below it why rows failed."""
    called, lead = labels(part), part.lead
    metrics = [name for name in dict.fromkeys((lead, *part.leading(*SHOWN))) if name in table]
    most = int(table["images"].max())
    rows = []
    for line in table.to_dict("records"):
        name = called[line["method"]] + " (control)" * is_control(line["method"])
        cells = [_led(line, lead, most) if metric == lead else figure(line[metric]) for metric in metrics]
        last = (Cell(number(line["seconds"], 2)), Cell(line["cost"] or "n/a"), Cell(_share(line)))
        rows.append((name_cell(name), Cell(line["groups"]), *cells, *last))
    columns = (METHOD, GROUPS, *map(_column, metrics), *LAST)
    several = models.count(", ") + 1
    of = words("{} ({})", count(several, "model"), models) if several > 1 else words("{}", models)
    caption = words("{}: {}; up to {}", part.label, of, count(most, "image"))
    board = Table(f"standings-{slug(part.label)}", caption, columns, tuple(rows))
    return [board, *_reversed(table, called), *_failures(table, called)]


def _led(line: Mapping[Hashable, Any], lead: str, most: int) -> Cell:
    """The leading metric with its interval, and over how many images where another method has more."""
    images = int(line["images"])
    return replace(pooled_cell({**line, "value": line[lead]}), note=f"({images})" if 0 < images < most else "")


def _column(metric: str) -> Column:
    return pooled_column(metric) if quantity(metric) == POOLED else metric_column(metric)


def _share(line: dict[object, object]) -> str:
    return f"{line['failed']} of {line['rows']}" if line["failed"] else "0"


def _reversed(table: pd.DataFrame, called: dict[str, str]) -> list[Block]:
    """The pairs of lines of which the test favours the lower one."""
    pairs = [words("{} over {}", called[lower], called[upper]) for lower, upper in table.attrs["reversed"]]
    text = words("Over the images that both have, the test favours the lower of two lines: {}.", listed(pairs))
    return [Prose(text)] if pairs else []


def _failures(table: pd.DataFrame, called: dict[str, str]) -> list[Block]:
    """Each reason once, with the methods whose most frequent one it is."""
    failed = table[table["failed"] > 0]
    lines = [
        words("{}: {}", listed([called[name] for name in rows["method"]]), reason)
        for reason, rows in failed.groupby("reason", sort=False)
    ]
    return [Prose(words("Why most rows of these methods failed:")), Points(tuple(lines))] if lines else []
