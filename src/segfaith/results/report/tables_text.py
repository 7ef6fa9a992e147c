"""The tables of statistics as lines of text: the printed table, Markdown, and beside the paper's Table 1."""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Literal

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.files import replace_file
from segfaith.results.statistics.paper import PAPER_METHODS, PAPER_METRICS
from segfaith.results.statistics.summary import PLANTED_METRICS, TABLE_METRICS, with_paper

STATISTICS: dict[str, Literal["mean", "median"]] = {"Mean": "mean", "Median over samples": "median"}
"""The tables that are printed: title and column of the summary."""


def layout(summary: pd.DataFrame, statistic: Literal["mean", "median"] = "mean") -> list[list[str]]:
    """The printed table: a header row, then one row per data set and method.

    `n` is how many samples entered; a value that fewer entered is followed by its own number in brackets.
    """
    several = bool((summary["runs"] > 1).any()) and statistic == "mean"
    arrows = {"higher": " ↑", "lower": " ↓", None: ""}
    shown = [*TABLE_METRICS, *(name for name in PLANTED_METRICS[:1] if name in set(summary["metric"]))]
    header = ["Data", "Method", *(METRICS[name].label + arrows[METRICS[name].better] for name in shown)]
    table = [[*header, "n", "undef."]]
    for (data, method), group in summary.groupby(["data", "method"], sort=False):
        values, spreads, counts = (
            dict(zip(group["metric"], group[name], strict=True)) for name in (statistic, "std", "n")
        )
        n = max(counts.values())
        cells = [
            _cell(values[name], spreads[name] if several else nan) + (f" ({counts[name]})" if counts[name] < n else "")
            if name in values
            else ""
            for name in shown
        ]
        undefined = group.loc[group["metric"].isin(TABLE_METRICS), "undefined"].sum()
        table.append([str(data), str(method), *cells, str(n), str(undefined)])
    return table


def markdown(summary: pd.DataFrame, notes: Sequence[str]) -> str:
    """The mean and the median table of a summary with notes below them, as Markdown."""
    parts = []
    for title, statistic in STATISTICS.items():
        header, *body = layout(summary, statistic)
        lines = [header, ["---"] * len(header), *body]
        parts.append(f"**{title}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes)]) + "\n"


def write_tables(summary: pd.DataFrame, notes: Sequence[str], directory: Path) -> tuple[Path, Path]:
    """Writes `table.csv` (the summary) and `table.md` (see `markdown`) into a directory."""
    csv, text = directory / "table.csv", directory / "table.md"
    numbers = summary.drop(columns=["paper_mean", "paper_std"], errors="ignore")
    replace_file(csv, lambda temporary: numbers.to_csv(temporary, index=False))
    replace_file(text, lambda temporary: temporary.write_text(markdown(summary, notes), encoding="utf-8"))
    return csv, text


def comparison(summary: pd.DataFrame) -> list[list[str]]:
    """Ours beside the paper's Table 1, as in `layout`; only the header where the paper has none of these rows."""
    both = summary if "paper_mean" in summary else with_paper(summary)
    both = both[both["paper_mean"].notna()]
    labels = [METRICS[name].label for name in PAPER_METRICS]
    table = [["Data", "Method", *(cell for label in labels for cell in (label, "paper")), "runs"]]
    for (data, method), group in both.groupby(["data", "method"], sort=False):
        cells = []
        for name in PAPER_METRICS:
            row = group[group["metric"] == name].iloc[0]
            cells += [_cell(row["mean"], row["std"]), _cell(row["paper_mean"], row["paper_std"])]
        table.append([str(data), str(method), *cells, str(group["runs"].max())])
    return table


def win_table(counts: pd.DataFrame) -> list[list[str]]:
    """Pairs of the paper's methods, and in how many runs the first is better by each metric."""
    shown = counts[counts["first"].isin(PAPER_METHODS) & counts["second"].isin(PAPER_METHODS)]
    table = [["Data", "Pair", *(METRICS[name].label for name in TABLE_METRICS)]]
    for (data, first, second), group in shown.groupby(["data", "first", "second"], sort=False):
        found = dict(zip(group["metric"], group["count"], strict=True))
        table.append([str(data), f"{first} : {second}", *(found.get(name, "n/a") for name in TABLE_METRICS)])
    return table


def run_table(values: pd.DataFrame) -> list[list[str]]:
    """The run-level means of the table's metrics."""
    table = [["Run", "Method", *(METRICS[name].label for name in TABLE_METRICS)]]
    for (run, method), group in values.groupby(["run", "method"], sort=False):
        found = dict(zip(group["metric"], group["value"], strict=True))
        table.append([str(run), str(method), *(_cell(found[name], nan) for name in TABLE_METRICS)])
    return table


def _cell(value: float, std: float) -> str:
    if isnan(value):
        return "n/a"
    return f"{value:.3f}" if isnan(std) else f"{value:.3f} ± {std:.3f}"
