"""One table of all methods: pooled drops, then the metrics' means; the controls below a rule, the paper's aside."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from markupsafe import Markup

from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Prose,
    Section,
    Table,
    figure,
    join,
    metric_column,
    metric_ref,
    name_cell,
    number,
    ref,
    rows_by,
    spread,
    whole,
    words,
)
from segfaith.results.report.sections.topic import (
    PREDICTED,
    beside,
    labels,
    moves_most,
    pooled_column,
    pooled_metrics,
    target_remark,
)
from segfaith.results.statistics.analysis import Analysis, DataAnalysis

SHOWN = ("evidence_ap", "tdd_gain", "tdd", "odd_abs", "leak_abs", "insertion_gain", "stability", "runtime_s")
"""The columns; the truth comes first where evidence was planted."""


def section(analysis: Analysis) -> Section:
    """The leaderboard of each data set."""
    blocks: list[Block] = []
    for part in analysis.parts:
        blocks += [leaderboard(part), *_remarks(part), *target_remark(part)]
    return Section("leaderboard", "Leaderboard", tuple(blocks))


def leaderboard(part: DataAnalysis) -> Table:
    """Pooled drops with intervals, then means over runs with standard deviations, medians over samples below; the
    methods first, then the controls."""
    shown = _shown(part)
    by_cell, called = rows_by(part.summary, "method", "metric"), labels(part)
    rows = []
    for method in part.methods:
        lines = {name: by_cell[method, name] for name in shown}
        most = max(int(line["n"]) for line in lines.values())
        cells = [name_cell(called[method]), *(_pooled(by_cell[method, name]) for name in pooled_metrics(part))]
        for metric, line in lines.items():
            small = int(line["n"])
            cells.append(
                Cell(
                    spread(line["mean"], line["std"]),
                    None if isnan(line["mean"]) else float(line["mean"]),
                    note=f"({small})" if small < most else "",
                    under=beside(line),
                    best=metric in part.best and part.best[metric].method == method,
                    paper="" if isnan(line["paper_mean"]) else spread(line["paper_mean"], line["paper_std"]),
                )
            )
        rows.append((*cells, whole(most)))
    columns = (
        Column("Method", "method", numeric=False),
        *map(pooled_column, pooled_metrics(part)),
        *(metric_column(metric) for metric in shown),
        Column("n", "n", "descending"),
    )
    several = "means ± standard deviations over runs" if len(part.runs) > 1 else "means of one run"
    first = "pooled drops with 95 % intervals; " if pooled_metrics(part) else ""
    caption = words("{}: {}{}, medians and interquartile means over samples below", part.label, first, several)
    return Table(f"leaderboard-{slug(part.label)}", caption, columns, tuple(rows), tail=len(part.controls))


def _pooled(line: Mapping[Any, Any]) -> Cell:
    """The pooled drop, below it its interval and the pooled drop of the targets that the model predicts."""
    parts = [] if isnan(line["low"]) else [f"{number(line['low'])} to {number(line['high'])}"]
    parts += [] if isnan(line["predicted_value"]) else [f"{PREDICTED} {number(line['predicted_value'])}"]
    return figure(line["value"], under="; ".join(parts))


def _shown(part: DataAnalysis) -> list[str]:
    return [name for name in part.leading(*SHOWN) if name in part.metrics]


def _remarks(part: DataAnalysis) -> list[Block]:
    sentences = [
        words(
            "Bold: the best method by the metric, unless the best two are a {}; {} and variants (names with @) are not "
            "considered.{}",
            ref("claim", "draw"),
            ref("control", "controls"),
            _not_ranked(part),
        )
    ]
    if any(best.runs < best.every for best in part.best.values() if best.second):
        sentences.append(words("Bold is decided over the runs that have all methods; the means are over all runs."))
    fewer = [name for name in _shown(part) if _fewer(part, name)]
    if fewer:
        sentences.append(words("A number in brackets says how many samples entered where not all did."))
    called, moved = labels(part), moves_most(part, _shown(part))
    told = [
        words(
            "{} by {} (mean of {}, {} without it)",
            *(row["image"], metric_ref(metric), called[row["method"]], number(row["without"])),
        )
        for metric, row in moved.items()
    ]
    if told:
        sentences.append(words("{}: {}.", ref("influence", "Images that move a mean most"), join(told, "; ")))
    return [Prose(Markup(" ").join(sentences), "remark")]


def _not_ranked(part: DataAnalysis) -> str:
    """Which columns have no best method; and that drops are not relative, where the score allows none that are."""
    if part.of_probability:
        return " Leak abs is not ranked: the mean of each method is over different images."
    return (
        f" The score is {part.score!r}, which has no natural zero: drops of it are not divided by s, and have its unit."
    )


def _fewer(part: DataAnalysis, metric: str) -> bool:
    counts = part.summary.pivot(index="method", columns="metric", values="n")
    return bool((counts[metric] < counts.max(axis=1)).any())
