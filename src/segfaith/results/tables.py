"""Tables from records: Table 1's layout with the controls, n and the number of undefined values (SPEC section 4)."""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records import replace_file

TABLE_METRICS = ("tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability", "runtime_s")
PLANTED_METRICS = ("evidence_ap", "evidence_mass", "evidence_top", "odd_beyond_abs")
"""Summarised too where evidence was planted; the printed table shows the first."""
SMALL_SCORE = 0.05
"""Below this s, the relative metrics divide by next to nothing; reports count such samples."""

STATISTICS: dict[str, Literal["mean", "median"]] = {"Mean": "mean", "Median over samples": "median"}
"""The tables that are printed: title and column of the summary."""

Run = tuple[Mapping[str, Any], pd.DataFrame]


def has_evidence(runs: Sequence[Run]) -> bool:
    """Whether any of the runs was made on scenes with planted evidence."""
    return any("kind" in records and bool(records["kind"].notna().any()) for _, records in runs)


def summarise(runs: Sequence[Run], min_s: float | None = None) -> pd.DataFrame:
    """One row per (data, method, metric): mean and std of run-level means, median, and how many values entered.

    Args:
        runs: descriptions and records of runs, as `records.read_run` gives them.
        min_s: leaves out samples with a lower s; off by default.

    Returns:
        Columns data, weights, method, metric, mean (over run-level means, each run counting once), std (n - 1; NaN
        for a single run), median (over all samples), runs, n (samples whose value entered), undefined (NaN values of
        measured samples), not_ok (rows that were skipped or failed).
    """
    rows = []
    for data, group in _by_data(runs).items():
        planted = has_evidence(group)
        methods = list(dict.fromkeys(name for _, records in group for name in records["method"]))
        for method in methods:
            parts = [records[records["method"] == method] for _, records in group]
            measured = [_measured(part, min_s) for part in parts]
            for metric in (*TABLE_METRICS, *(PLANTED_METRICS if planted else ())):
                values = [part[metric].dropna() for part in measured]
                means = pd.Series([value.mean() for value in values if len(value)], dtype=float)
                everything = pd.concat(values)
                rows.append(
                    {
                        "data": data,
                        "weights": "; ".join(dict.fromkeys(str(run["model"]["weights"]) for run, _ in group)),
                        "method": method,
                        "metric": metric,
                        "mean": means.mean(),
                        "std": means.std(ddof=1),
                        "median": everything.median(),
                        "runs": len(means),
                        "n": len(everything),
                        "undefined": sum(len(part) for part in measured) - len(everything),
                        "not_ok": sum(int((part["status"] != "ok").sum()) for part in parts),
                    }
                )
    return pd.DataFrame(rows)


def notes(runs: Sequence[Run], min_s: float | None = None) -> list[str]:
    """What a reader of the table must know: model, weights, samples left out, small scores, filters."""
    lines = [
        f"{data}: {_note(description, records)}"
        for data, group in _by_data(runs).items()
        for description, records in group
    ]
    if min_s is not None:
        lines.append(f"Only samples with s >= {min_s:g} entered.")
    return lines


def _note(description: Mapping[str, Any], records: pd.DataFrame) -> str:
    """One run in words. A sample counts as measured if any method was; else it was skipped or failed."""
    model, planned = description["model"], description["data"]["samples"]
    measured = records[records["status"] == "ok"].drop_duplicates("sample_id")
    others = records[~records["sample_id"].isin(measured["sample_id"])].drop_duplicates("sample_id")["status"]
    small = int((measured["s"] < SMALL_SCORE).sum())
    unfinished = len(planned) - records["sample_id"].nunique()
    digest = f" (SHA-256 {model['file_sha256'][:12]})" if "file_sha256" in model else ""
    return (
        f"{model['name']}, weights {model['weights']}{digest}, seed {description['settings']['seed']}; "
        f"{len(measured)} of {len(planned)} samples measured, {int((others == 'skipped').sum())} skipped, "
        f"{int((others == 'failed').sum())} failed; {small} with s < {SMALL_SCORE}"
        + (f"; NOT FINISHED, {unfinished} samples to go" if unfinished else "")
    )


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


def markdown(runs: Sequence[Run], min_s: float | None = None) -> str:
    """The mean and the median table with their notes, as Markdown."""
    summary = summarise(runs, min_s)
    parts = []
    for title, statistic in STATISTICS.items():
        header, *body = layout(summary, statistic)
        lines = [header, ["---"] * len(header), *body]
        parts.append(f"**{title}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes(runs, min_s))]) + "\n"


def write_tables(runs: Sequence[Run], directory: Path, min_s: float | None = None) -> tuple[Path, Path]:
    """Writes `table.csv` (one row per data set, method and metric) and `table.md` into a directory."""
    csv, text = directory / "table.csv", directory / "table.md"
    summary = summarise(runs, min_s)
    replace_file(csv, lambda temporary: summary.to_csv(temporary, index=False))
    replace_file(text, lambda temporary: temporary.write_text(markdown(runs, min_s), encoding="utf-8"))
    return csv, text


def _by_data(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for description, records in runs:
        data = description["data"]
        groups.setdefault(f"{data['name']} {data['split']}", []).append((description, records))
    return groups


def _measured(records: pd.DataFrame, min_s: float | None) -> pd.DataFrame:
    measured = records[records["status"] == "ok"]
    return measured if min_s is None else measured[measured["s"] >= min_s]


def _cell(value: float, std: float) -> str:
    if isnan(value):
        return "n/a"
    return f"{value:.3f}" if isnan(std) else f"{value:.3f} ± {std:.3f}"
