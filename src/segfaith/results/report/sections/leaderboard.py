"""One table of all methods: the metrics' means with medians, the controls below a rule, the paper's figures aside."""

from math import isnan

from markupsafe import Markup

from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Prose,
    Section,
    Table,
    metric_column,
    name_cell,
    number,
    ref,
    rows_by,
    spread,
    whole,
    words,
)
from segfaith.results.report.sections.topic import labels, target_remark
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
    """Means over runs with standard deviations, medians over samples below; the methods first, then the controls."""
    shown = _shown(part)
    by_cell, called = rows_by(part.summary, "method", "metric"), labels(part)
    rows = []
    for method in part.methods:
        lines = {name: by_cell[method, name] for name in shown}
        most = max(int(line["n"]) for line in lines.values())
        cells = [name_cell(called[method])]
        for metric, line in lines.items():
            small = int(line["n"])
            cells.append(
                Cell(
                    spread(line["mean"], line["std"]),
                    None if isnan(line["mean"]) else float(line["mean"]),
                    note=f"({small})" if small < most else "",
                    under="" if isnan(line["median"]) else f"median {number(line['median'])}",
                    best=metric in part.best and part.best[metric].method == method,
                    paper="" if isnan(line["paper_mean"]) else spread(line["paper_mean"], line["paper_std"]),
                )
            )
        rows.append((*cells, whole(most)))
    columns = (
        Column("Method", "method", numeric=False),
        *(metric_column(metric) for metric in shown),
        Column("n", "n", "descending"),
    )
    several = "means ± standard deviations over runs" if len(part.runs) > 1 else "means of one run"
    caption = words("{}: {}, medians over samples below", part.label, several)
    return Table(f"leaderboard-{slug(part.label)}", caption, columns, tuple(rows), tail=len(part.controls))


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
