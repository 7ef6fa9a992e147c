"""The scores: means beside medians, the paper's numbers, the values of each run, and wins by run."""

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.constants import TRUTH
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.records.identity import slug
from segfaith.results.records.select import is_reference
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Fold,
    Prose,
    Section,
    Table,
    count,
    figure,
    metric_column,
    missing,
    name_cell,
    ref,
    rows_by,
    spread,
    whole,
    words,
)
from segfaith.results.report.sections.topic import (
    METHOD,
    NO_SAMPLE,
    N,
    base_methods,
    beside,
    by_data,
    labels,
    pair_cell,
    pooled_cell,
    pooled_column,
    pooled_metrics,
    target_remark,
)
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.paper import PAPER_METRICS
from segfaith.results.statistics.targets import IMAGE

NOT_ASKED = "stability: not measured on this sample"
"""What the records say of a sample on which the settings do not ask for stability."""


def section(analysis: Analysis) -> Section:
    """Means over runs with the best in bold, and in folds medians, the paper's numbers, each run, and wins."""
    introduction = words(
        "{} over runs, each run counting once. {} stands beside TDD, because a random map of the same coarseness has a "
        "TDD above zero.",
        ref("mean", "Means"),
        ref("tdd_gain", "TDD gain"),
    )
    return by_data(analysis, "scores", "Scores", introduction, _scores)


def _scores(part: DataAnalysis) -> list[Block]:
    if part.summary.empty or not part.summary["n"].any():
        return [missing(NO_SAMPLE, "segfaith run FILE")]
    blocks: list[Block] = [
        *target_remark(part),
        Figure(DRAWINGS["runs"](part)),
        Figure(DRAWINGS["tradeoff"](part)),
        Fold(Markup("All means, and what is undefined"), (_means(part), Prose(_remark(part), "remark"))),
        Fold(Markup("Means, medians and trimmed means over samples"), (_robust(part),)),
    ]
    if part.summary["paper_mean"].notna().any():
        about = words(
            "{} used other models, images and samples. Its numbers give a scale and are no target.",
            ref("paper", "The paper"),
        )
        blocks.append(Fold(Markup("Beside Table 1 of the paper"), (Prose(about), _paper(part))))
    blocks.append(Fold(Markup("Values of each run"), (_runs(part),)))
    return [*blocks, Fold(Markup("Wins by run"), _wins(part))]


def not_asked(part: DataAnalysis, keys: Sequence[str] = IMAGE) -> dict[str, int]:
    """On how many measured samples of each method the settings did not ask for stability; or of what `keys` tell."""
    rows = pd.concat([run.measured.assign(run=number) for number, run in enumerate(part.runs)])
    rows = rows[rows["stability"].isna()]
    skipped = rows["reason"].fillna("").str.contains(NOT_ASKED, regex=False)
    counts = rows[skipped].drop_duplicates([*keys, "method"]).groupby("method").size()
    return {name: int(counts.get(name, 0)) for name in part.methods}


def stability_words(part: DataAnalysis) -> str:
    """ "stability on 4 of 16 samples" where the settings ask for it on fewer samples than the rest, or ""."""
    skipped = not_asked(part)
    own = [name for name in part.methods if not is_reference(name)] or part.methods
    measured = {
        name: sum(run.measured.loc[run.measured["method"] == name, "sample_id"].nunique() for run in part.runs)
        for name in own
    }
    most = max(own, key=measured.__getitem__)
    samples = measured[most]
    asked = samples - skipped[most]
    return f"stability on {asked or 'none'} of {count(samples, 'sample')}" if skipped[most] else ""


def _remark(part: DataAnalysis) -> Markup:
    remark = words(
        "Bold: the best of the methods that explain. {} are never bold, nor are leakages, which each method has on "
        "other samples, nor the best two where they are a {}. A number in brackets is how many samples entered where "
        "fewer did. Below each mean stand the median and the {} (IQM) over samples.",
        ref("control", "Controls") + (" and the truth" if TRUTH in part.methods else ""),
        ref("claim", "draw"),
        ref("iqm", "interquartile mean"),
    )
    fewer = stability_words(part)
    return remark + (words(" The settings ask for {}.", fewer) if fewer else "")


def _means(part: DataAnalysis) -> Table:
    shown = [metric for metric in part.metrics if metric in set(part.summary["metric"])]
    skipped, called, table = not_asked(part), labels(part), part.table
    unasked = not_asked(part, [*IMAGE, "target"])
    rows = []
    for method in part.methods:
        lines = rows_by(part.summary[part.summary["method"] == method], "metric")
        most = max(lines[metric]["n"] for metric in table)
        cells = [name_cell(called[method]), *(pooled_cell(lines[metric]) for metric in pooled_metrics(part))]
        for metric in shown:
            line = lines[metric]
            wanted = most - (skipped[method] if metric == "stability" else 0)
            cells.append(
                Cell(
                    spread(line["mean"], line["std"]),
                    None if isnan(line["mean"]) else float(line["mean"]),
                    note=f"({int(line['n'])})" if line["n"] < wanted else "",
                    under=beside(line),
                    best=metric in part.best and part.best[metric].method == method,
                )
            )
        undefined = sum(lines[metric]["undefined"] for metric in table) - unasked[method]
        rows.append((*cells, whole(most), whole(undefined), whole(lines[table[0]]["not_ok"])))
    columns = (
        METHOD,
        *map(pooled_column, pooled_metrics(part)),
        *map(metric_column, shown),
        N,
        Column("Undef.", "undefined", "descending", diagnostic=True),
        Column("Not ok", "status", "descending", diagnostic=True),
    )
    several = "mean ± std over runs" if (part.summary["runs"] > 1).any() else "means of a single run"
    caption = words("{}: {}", part.label, several)
    return Table(f"means-{slug(part.label)}", caption, columns, tuple(rows), tail=len(part.references))


def _paper(part: DataAnalysis) -> Table:
    """Ours beside the paper's, for the methods and metrics of its Table 1."""
    called = labels(part)
    both = part.summary[part.summary["paper_mean"].notna()]
    rows = []
    for method in dict.fromkeys(both["method"]):
        lines = rows_by(both[both["method"] == method], "metric")
        cells = [name_cell(called[method])]
        for metric in PAPER_METRICS:
            line = lines[metric]
            for mean, std in ((line["mean"], line["std"]), (line["paper_mean"], line["paper_std"])):
                cells.append(Cell(spread(mean, std), None if isnan(mean) else float(mean)))
        rows.append((*cells, whole(max(line["runs"] for line in lines.values()))))
    columns = [METHOD]
    for metric in PAPER_METRICS:
        columns += [metric_column(metric), Column("paper", "paper", "descending")]
    columns.append(Column("Runs", "run", "descending"))
    return Table(f"paper-{slug(part.label)}", words("{}: beside the paper", part.label), tuple(columns), tuple(rows))


def _robust(part: DataAnalysis) -> Table:
    """All samples count alike here; the counts of small s belong to each value."""
    called = labels(part)
    rows = [
        (
            name_cell(called[row["method"]]),
            Cell(METRICS[row["metric"]].label, METRICS[row["metric"]].label),
            *(figure(row[name]) for name in ("mean", "median", "trimmed", "iqm")),
            whole(row["n"]),
            *([whole(row["small_s"])] if part.of_probability else []),
        )
        for row in part.robust.to_dict("records")
    ]
    columns = (
        METHOD,
        Column("Metric", "method", numeric=False),
        Column("Mean", "mean", "descending"),
        Column("Median", "median", "descending"),
        Column("Trimmed", "trimmed", "descending"),
        Column("IQM", "iqm", "descending"),
        N,
        *([Column("s < .05", "small_s", "descending")] if part.of_probability else []),
    )
    return Table(f"robust-{slug(part.label)}", words("{}: over samples", part.label), columns, tuple(rows))


def _runs(part: DataAnalysis) -> Table:
    called = labels(part)
    shown = [metric for metric in part.metrics if metric in set(part.values["metric"])]
    rows = []
    for (run, method), values in part.values.groupby(["run", "method"], sort=False):
        own = dict(zip(values["metric"], values["value"], strict=True))
        first = values.iloc[0]
        cells = (figure(own.get(metric, nan)) for metric in shown)
        rows.append(
            (name_cell(run), name_cell(first["model"]), whole(first["seed"]), name_cell(called[str(method)]), *cells)
        )
    columns = (
        Column("Run", "run", numeric=False),
        Column("Model", "run", numeric=False),
        Column("Seed", "run"),
        METHOD,
        *map(metric_column, shown),
    )
    return Table(f"runs-{slug(part.label)}", words("{}: run-level means", part.label), columns, tuple(rows))


def _wins(part: DataAnalysis) -> tuple[Block, ...]:
    """Pairs of methods by metric, "5/6", or in the only run "better"; controls and variants left out."""
    shown, called = base_methods(part, part.own), labels(part)
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in part.wins.to_dict("records"):
        if row["first"] in shown and row["second"] in shown:
            pairs.setdefault((row["first"], row["second"]), {})[row["metric"]] = row
    if not pairs:
        return (Prose(Markup("No run has two methods besides controls, so there are no wins to count.")),)
    about = words(
        "In how many of the runs that have both methods the {} of the first is better. Leakages are compared on the "
        "samples on which both methods have a value.",
        ref("wins", "mean"),
    )
    rows = [
        (
            pair_cell(called[first], called[second], " against "),
            *(_won(by.get(metric)) for metric in part.table),
        )
        for (first, second), by in pairs.items()
    ]
    columns = (Column("Pair", "wins", numeric=False), *map(metric_column, part.table))
    title = words("{}: in how many runs" if len(part.runs) > 1 else "{}: in the only run", part.label)
    return Prose(about), Table(f"wins-{slug(part.label)}", title, columns, tuple(rows))


def _won(row: dict[str, Any] | None) -> Cell:
    return Cell("n/a") if row is None or not row["runs"] else Cell(row["count"], row["wins"] / row["runs"])
