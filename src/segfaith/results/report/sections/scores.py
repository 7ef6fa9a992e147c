"""The report's main sections: scores beside the paper's, the claims check, and what made the numbers.

Every function takes the label of one data set and its runs, and gives the parts of a section about it.
"""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import data_label, slug
from segfaith.results.records.runs import Run
from segfaith.results.records.select import is_control, method_order, without_variants
from segfaith.results.report.blocks import (
    Cell,
    Charts,
    Column,
    Fold,
    Points,
    Prose,
    Table,
    figure,
    listed,
    metric_column,
    metric_ref,
    name_cell,
    ref,
    rows_by,
    spread,
    whole,
    words,
)
from segfaith.results.report.page_charts import Strip, strips
from segfaith.results.statistics import claims
from segfaith.results.statistics import summary as tables
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.paired import paired
from segfaith.results.statistics.paper import PAPER_METRICS


def scores(label: str, group: Sequence[Run]) -> list[Any]:
    """Run-level dots, the table of means with the paper's numbers, and folded: medians, runs, wins."""
    runs = group
    summary = tables.with_paper(tables.summarise(runs))
    values = tables.run_values(runs)
    shown = [name for name in (*tables.TABLE_METRICS, *tables.PLANTED_METRICS) if name in set(summary["metric"])]
    return [
        _dots(summary, values),
        _means(label, summary, shown),
        Prose(
            words(
                "Bold: the best of the methods that explain ({} left out), unless the best two are a {}; none of "
                "leakages, whose means rest on other samples for each method. A number in brackets is how many samples "
                "entered where fewer did. In small print: {}.",
                ref("control", "controls"),
                ref("claim", "draw"),
                ref("paper", "the paper’s figure"),
            ),
            "remark",
        ),
        Fold(Markup("Means, medians and trimmed means over samples"), (_robust(label, runs),)),
        Fold(Markup("Values of each run"), (_runs(label, values, shown),)),
        Fold(Markup("Wins by run"), (_wins(label, group),)),
    ]


def claims_check(label: str, group: Sequence[Run]) -> list[Any]:
    """The paper's claims with verdict, counts and numbers."""
    found = analyse(group).parts[0].claims
    rows = [
        (
            name_cell(row["claim"][0].upper() + row["claim"][1:]),
            Cell(verdict(row["holds"]), row["holds"], under=_in_the_mean(row["holds"], row["count"])),
            Cell(row["count"].replace(" runs", ""), row["count"]),
            _beside(row),
            Cell(row["numbers"], row["numbers"], define=row.get("metric", "claim")),
        )
        for row in found.to_dict("records")
    ]
    columns = (
        Column("Claim of the paper", "claim", numeric=False),
        Column("Verdict", "claim", numeric=False),
        Column("Runs", "run"),
        Column("Difference", "claim"),
        Column("Numbers", "mean", numeric=False),
    )
    return [Table(f"claims-{slug(label)}", words("Claims of the paper on {}", label), columns, tuple(rows))]


def _in_the_mean(said: str, runs: str) -> str:
    """What a claim that holds, though not in every run, rests on."""
    held, slash, every = runs.split()[0].partition("/")
    return "in the mean" if said == "holds" and slash and held != every.rstrip(",") else ""


def _beside(row: Mapping[Any, Any]) -> Cell:
    """The difference to the rival, over images, with its interval."""
    words_ = claims.interval_words(row)
    return Cell(words_ or "n/a", row["difference"] if words_ else None, define="difference" if words_ else "")


def verdict(said: str) -> Markup:
    """A verdict with its sign, which does not rest on colour."""
    kind = {"holds": "good", "fails": "bad"}.get(said, "open")
    sign = {"good": "✓", "bad": "✗", "open": "?"}[kind] if said != "draw" else "="
    return words('<span class="verdict {}"><span aria-hidden="true">{} </span>{}</span>', kind, sign, said)


def _dots(summary: pd.DataFrame, values: pd.DataFrame) -> Charts:
    """Strips of run-level means by metric, beside the paper's."""
    panels = []
    names: list[str] = []
    for metric in PAPER_METRICS:
        rows = []
        chosen = rows_by(summary[summary["metric"] == metric], "method")
        for method in method_order(chosen):
            own = values[(values["metric"] == metric) & (values["method"] == method)]["value"].dropna()
            line = chosen[method]
            if len(own):
                rows.append(Strip(method, tuple(own), float(line["mean"]), float(line["paper_mean"])))
        if rows:
            label = METRICS[metric].label
            arrow = {"higher": "higher is better", "lower": "lower is better", None: ""}[METRICS[metric].better]
            panels.append(strips(rows, f"{label} ({arrow})"))
            names += [row.method for row in rows]
    caption = words(
        "{}: a mark per {}; the upright bar is their {}, the open diamond {}.",
        listed([metric_ref(metric) for metric in PAPER_METRICS]),
        ref("run", "run"),
        ref("mean", "mean"),
        ref("paper", "the paper’s"),
    )
    return Charts(tuple(panels), caption)


def _means(label: str, summary: pd.DataFrame, shown: Sequence[str]) -> Table:
    best = _best(summary, "mean")
    rows = []
    for method in method_order(summary["method"]):
        lines = rows_by(summary[summary["method"] == method], "metric")
        most = max(lines[metric]["n"] for metric in tables.TABLE_METRICS)
        cells = [name_cell(method)]
        for metric in shown:
            line = lines[metric]
            text = spread(line["mean"], line["std"])
            cells.append(
                Cell(
                    text,
                    None if isnan(line["mean"]) else float(line["mean"]),
                    note=f"({int(line['n'])})" if line["n"] < most else "",
                    under=_paper(line["paper_mean"], line["paper_std"]),
                    best=best.get(metric) == method,
                )
            )
        undefined = sum(lines[metric]["undefined"] for metric in tables.TABLE_METRICS)
        rows.append((*cells, whole(most), whole(undefined), whole(lines["tdd"]["not_ok"])))
    columns = (
        Column("Method", "method", numeric=False),
        *(metric_column(metric) for metric in shown),
        Column("n", "n", "descending"),
        Column("Undef.", "undefined", "descending"),
        Column("Not ok", "status", "descending"),
    )
    several = "mean ± std over runs" if (summary["runs"] > 1).any() else "means of a single run"
    return Table(f"means-{slug(label)}", words("{}: {}", label, several), columns, tuple(rows))


def _paper(mean: float, std: float) -> str | Markup:
    return "" if isnan(mean) else words('<span class="aside">paper: </span>{}', spread(mean, std))


def _best(summary: pd.DataFrame, statistic: str) -> dict[str, str]:
    """The best method that explains, by metric.

    None where some methods have fewer runs, which may be other ones, where the best two are a draw, and of leakages,
    whose means rest on other samples for each method: those on which its TDD is high enough.
    """
    own = summary[~summary["method"].map(is_control).astype(bool)].dropna(subset=statistic)
    found = {}
    for metric, rows in own.groupby("metric"):
        better = METRICS[str(metric)].better
        if better and len(rows) > 1 and rows["runs"].nunique() == 1 and not str(metric).startswith("leak_"):
            values = rows.set_index("method")[statistic].sort_values(ascending=better == "lower")
            if tables.side(values.iloc[0], values.iloc[1], str(metric)):
                found[str(metric)] = str(values.index[0])
    return found


def _robust(label: str, runs: Sequence[Run]) -> Table:
    """All samples count alike here; the counts of small s belong to each value."""
    found = analyse(runs).parts[0].robust
    rows = [
        (
            name_cell(row["method"]),
            Cell(metric_ref(row["metric"]), METRICS[row["metric"]].label),
            *(figure(row[name], define=row["metric"]) for name in ("mean", "median", "trimmed")),
            whole(row["n"]),
            whole(row["small_s"]),
        )
        for row in found.to_dict("records")
    ]
    columns = (
        Column("Method", "method", numeric=False),
        Column("Metric", "method", numeric=False),
        Column("Mean", "mean", "descending"),
        Column("Median", "median", "descending"),
        Column("Trimmed", "trimmed", "descending"),
        Column("n", "n", "descending"),
        Column("s < .05", "small_s", "descending"),
    )
    return Table(f"robust-{slug(label)}", words("{}: over samples", label), columns, tuple(rows))


def _runs(label: str, values: pd.DataFrame, shown: Sequence[str]) -> Table:
    rows = []
    for (run, method), part in values.groupby(["run", "method"], sort=False):
        own = dict(zip(part["metric"], part["value"], strict=True))
        first = part.iloc[0]
        rows.append(
            (
                name_cell(run),
                name_cell(first["model"]),
                whole(first["seed"]),
                name_cell(method),
                *(figure(own.get(metric, nan)) for metric in shown),
            )
        )
    columns = (
        Column("Run", "run", numeric=False),
        Column("Model", "run", numeric=False),
        Column("Seed", "run"),
        Column("Method", "method", numeric=False),
        *(metric_column(metric) for metric in shown),
    )
    return Table(f"runs-{slug(label)}", words("{}: run-level means", label), columns, tuple(rows))


def _wins(label: str, group: Sequence[Run]) -> Any:
    """Pairs of methods by metric, "5/6", or in the only run "better"; controls and variants left out."""
    runs = [without_variants(one) for one in group]
    values = tables.run_values(runs)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for metric in tables.TABLE_METRICS:
        for row in tables.wins(values, paired(runs, metric)).to_dict("records"):
            if not (is_control(row["first"]) or is_control(row["second"])):
                found.setdefault((row["first"], row["second"]), {})[metric] = row
    if not found:
        return Points((Markup("Fewer than two methods besides controls: no wins to count."),))
    rows = [
        (
            Cell(f"{first} better than {second}", f"{first} {second}"),
            *(_won(by.get(metric)) for metric in tables.TABLE_METRICS),
        )
        for (first, second), by in found.items()
    ]
    columns = (Column("Pair", "wins", numeric=False), *(metric_column(metric) for metric in tables.TABLE_METRICS))
    title = words("{}: in how many runs" if len(runs) > 1 else "{}: in the only run", label)
    return Table(f"wins-{slug(label)}", title, columns, tuple(rows))


def _won(row: dict[str, Any] | None) -> Cell:
    return Cell("n/a") if row is None or not row["runs"] else Cell(row["count"], row["wins"] / row["runs"])


def provenance(data: Sequence[Run]) -> list[Any]:
    """One row per run: what made it."""
    rows = []
    for label, one in zip(tables.run_labels(data), data, strict=True):
        about, model = one.description, one.description["model"]
        measured = one.records[one.records["status"] == "ok"]["sample_id"].nunique()
        texts = [
            data_label(about),
            model["name"],
            model.get("weights", ""),
            str(model.get("file_sha256", model.get("state_sha256", "")))[:12],
        ]
        rows.append(
            (
                name_cell(label),
                *map(name_cell, texts),
                whole(about["settings"]["seed"]),
                whole(measured),
                whole(len(about["data"]["samples"])),
                *(
                    name_cell(text)
                    for text in (about.get("created", ""), about.get("versions", {}).get("segfaith", ""))
                ),
            )
        )
    text = ["Run", "Data", "Model", "Weights", "SHA-256"]
    columns = (
        *(Column(one, "run", numeric=False) for one in text),
        Column("Seed", "run"),
        Column("Measured", "status", "descending"),
        Column("Planned", "status", "descending"),
        Column("Made", "run", numeric=False),
        Column("Version", "run", numeric=False),
    )
    return [Table("provenance", Markup("What made these numbers"), columns, tuple(rows))]
