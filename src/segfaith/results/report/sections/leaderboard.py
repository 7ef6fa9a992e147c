"""One table of all methods: pooled drops and a few means; the controls below a rule, the paper's numbers aside."""

from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from typing import Any

from markupsafe import Markup

from segfaith.constants import TRUTH
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Prose,
    Section,
    Table,
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
    IOU,
    PREDICTED,
    labels,
    moves_most,
    pooled_cell,
    pooled_column,
    pooled_metrics,
    target_remark,
)
from segfaith.results.statistics.analysis import Analysis, DataAnalysis

SHOWN = ("evidence_ap", "fidelity", "fidelity_outside", "tdd", "odd_abs", "stability", "runtime_s")
"""The columns: the truth where evidence was planted, what may lead, the paper's. The table of means holds all."""


def section(analysis: Analysis) -> Section:
    """The leaderboard of each data set."""
    blocks: list[Block] = []
    for part in analysis.parts:
        blocks += [leaderboard(part), *_remarks(part), *target_remark(part)]
    return Section("leaderboard", "Leaderboard", tuple(blocks))


def leaderboard(part: DataAnalysis) -> Table:
    """Pooled drops with intervals, and means over runs with standard deviations; the methods first, then the
    references."""
    shown, pooled = _shown(part), pooled_metrics(part)
    by_cell, called = rows_by(part.summary, "method", "metric"), labels(part)
    rows = []
    for method in part.methods:
        lines = {name: by_cell[method, name] for name in shown}
        most = max(int(line["n"]) for line in lines.values())
        best = {name for name in shown if name in part.best and part.best[name].method == method}
        cells = (
            _pooled(line) if name in pooled else _mean(line, most, best=name in best) for name, line in lines.items()
        )
        rows.append((name_cell(called[method]), *cells, whole(most)))
    columns = (
        Column("Method", "method", numeric=False),
        *(pooled_column(metric) if metric in pooled else metric_column(metric) for metric in shown),
        Column("n", "n", "descending"),
    )
    several = "means ± standard deviations over runs" if len(part.runs) > 1 else "means of one run"
    first = "pooled drops with 95 % intervals; of the other metrics " if pooled else ""
    caption = words("{}: {}{}", part.label, first, several)
    return Table(f"leaderboard-{slug(part.label)}", caption, columns, tuple(rows), tail=len(part.references))


def _pooled(line: Mapping[Any, Any]) -> Cell:
    """The pooled drop with its interval, below it that of the targets that the model predicts.

    The paper's numbers are means of relative drops, so that ours stand beside them where they are asked for.
    """
    paper = Markup("")
    if not isnan(line["paper_mean"]):
        theirs, ours = spread(line["paper_mean"], line["paper_std"]), spread(line["mean"], line["std"])
        paper = words("{}<br>our mean: {}", theirs, ours)
    under = "" if isnan(line["predicted_value"]) else f"{PREDICTED} {number(line['predicted_value'])}"
    return replace(pooled_cell(line), under=under, paper=paper)


def _mean(line: Mapping[Any, Any], most: int, *, best: bool) -> Cell:
    """The mean over runs, and how many samples entered where not all did."""
    small = int(line["n"])
    return Cell(
        spread(line["mean"], line["std"]),
        None if isnan(line["mean"]) else float(line["mean"]),
        note=f"({small})" if small < most else "",
        best=best,
        paper="" if isnan(line["paper_mean"]) else spread(line["paper_mean"], line["paper_std"]),
    )


def _shown(part: DataAnalysis) -> list[str]:
    return [name for name in part.leading(*SHOWN) if name in part.metrics]


def _means(part: DataAnalysis) -> list[str]:
    """The columns that hold means."""
    return [name for name in _shown(part) if name not in pooled_metrics(part)]


def _remarks(part: DataAnalysis) -> list[Block]:
    sentences = [
        words(
            "{}Bold: the best method by the mean, unless the best two are a {} or another one is ahead over the images "
            "that both have; {} and variants (names with @) are not considered.{}",
            _no_bold(part),
            ref("claim", "draw"),
            ref("control", "controls"),
            _no_zero(part),
        )
    ]
    if TRUTH in part.methods:
        sentences.append(words("{} is the planted evidence itself as a map, and no method.", ref("truth", "Truth")))
    if any(best.runs < best.every for name in _means(part) if (best := part.best[name]).second):
        sentences.append(words("Bold is decided over the runs that have all methods; the means are over all runs."))
    fewer = [name for name in _means(part) if _fewer(part, name)]
    if fewer:
        sentences.append(words("A number in round brackets says how many samples entered where not all did."))
    if part.summary["predicted_value"].notna().any() and pooled_metrics(part):
        sentences.append(words("{}: over the targets alone that the model predicts.", ref("predicted", IOU)))
    called, moved = labels(part), moves_most(part, _means(part))
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


def _no_bold(part: DataAnalysis) -> str:
    """What tells methods apart by a pooled drop."""
    if not pooled_metrics(part):
        return ""
    return "Of pooled drops none is bold: compare their intervals. "


def _no_zero(part: DataAnalysis) -> str:
    """That drops are not relative, where the score allows none that are."""
    if part.of_probability:
        return ""
    return (
        f" The score is {part.score!r}, which has no natural zero: drops of it are not divided by s, and have its unit."
    )


def _fewer(part: DataAnalysis, metric: str) -> bool:
    counts = part.summary.pivot(index="method", columns="metric", values="n")
    return bool((counts[metric] < counts.max(axis=1)).any())
