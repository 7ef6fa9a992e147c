"""Tables from records: Table 1's layout with the controls, n and undefined values, beside the paper's; wins by run."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.records.files import replace_file
from segfaith.results.records.identity import ablation_notes, data_label, same_images_notes
from segfaith.results.statistics.paper import PAPER_METHODS, PAPER_METRICS, paper_value

TABLE_METRICS = ("tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability", "runtime_s")
PLANTED_METRICS = ("evidence_ap", "evidence_mass", "evidence_top", "odd_beyond_abs")
"""Summarised too where evidence was planted; the printed table shows the first."""
NOTHING = "no sample was measured"
"""Why a table is empty where no sample is left, under `min_s` too."""
SMALL_SCORE = 0.05
"""Below this s, the relative metrics divide by next to nothing; reports count such samples."""

STATISTICS: dict[str, Literal["mean", "median"]] = {"Mean": "mean", "Median over samples": "median"}
"""The tables that are printed: title and column of the summary."""

RUN_VALUE_COLUMNS = ["data", "run", "model", "seed", "method", "metric", "value", "n"]
WIN_COLUMNS = ["data", "metric", "first", "second", "wins", "ties", "losses", "runs", "count"]

DIGITS = 9
"""Differences are rounded to this many places, so that rounding errors decide nothing."""
DRAW, RUNTIME_DRAW = 1e-4, 0.05
"""Run-level means that differ by less are a draw; runtimes, which vary from call to call, by less than that share."""

Pair = tuple[Mapping[str, Any], pd.DataFrame]


def has_evidence(runs: Sequence[Pair]) -> bool:
    """Whether any of the runs was made on scenes with planted evidence."""
    return any("kind" in records and bool(records["kind"].notna().any()) for _, records in runs)


def summarise(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
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
    for data, group in by_data(runs).items():
        planted = has_evidence(group)
        methods = list(dict.fromkeys(name for _, records in group for name in records["method"]))
        for method in methods:
            parts = [records[records["method"] == method] for _, records in group]
            entered = [measured(part, min_s) for part in parts]
            for metric in (*TABLE_METRICS, *(PLANTED_METRICS if planted else ())):
                values = [part[metric].dropna() for part in entered]
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
                        "undefined": sum(len(part) for part in entered) - len(everything),
                        "not_ok": sum(int((part["status"] != "ok").sum()) for part in parts),
                    }
                )
    return pd.DataFrame(rows)


def notes(runs: Sequence[Pair], min_s: float | None = None) -> list[str]:
    """What a reader of the table must know: model, weights, samples left out, ablations, seeds, filters."""
    lines = [
        f"{data}: {_note(description, records)}"
        for data, group in by_data(runs).items()
        for description, records in group
    ]
    named = run_labels(runs), [description for description, _ in runs]
    lines += [*ablation_notes(*named), *same_images_notes(*named)]
    if min_s is not None:
        lines.append(f"Only samples with s >= {min_s:g} entered.")
    return lines


def _note(description: Mapping[str, Any], records: pd.DataFrame) -> str:
    """One run in words. A sample counts as measured if any method was; else it was skipped or failed."""
    model, planned = description["model"], description["data"]["samples"]
    entered = records[records["status"] == "ok"].drop_duplicates("sample_id")
    others = records[~records["sample_id"].isin(entered["sample_id"])].drop_duplicates("sample_id")["status"]
    small = int((entered["s"] < SMALL_SCORE).sum())
    unfinished = len(planned) - records["sample_id"].nunique()
    digest = f" (SHA-256 {model['file_sha256'][:12]})" if "file_sha256" in model else ""
    return (
        f"{model['name']}, weights {model['weights']}{digest}, seed {description['settings']['seed']}; "
        f"{len(entered)} of {len(planned)} samples measured, {int((others == 'skipped').sum())} skipped, "
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


def markdown(runs: Sequence[Pair], min_s: float | None = None) -> str:
    """The mean and the median table with their notes, as Markdown."""
    summary = summarise(runs, min_s)
    parts = []
    for title, statistic in STATISTICS.items():
        header, *body = layout(summary, statistic)
        lines = [header, ["---"] * len(header), *body]
        parts.append(f"**{title}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes(runs, min_s))]) + "\n"


def write_tables(runs: Sequence[Pair], directory: Path, min_s: float | None = None) -> tuple[Path, Path]:
    """Writes `table.csv` (one row per data set, method and metric) and `table.md` into a directory."""
    csv, text = directory / "table.csv", directory / "table.md"
    summary = summarise(runs, min_s)
    replace_file(csv, lambda temporary: summary.to_csv(temporary, index=False))
    replace_file(text, lambda temporary: temporary.write_text(markdown(runs, min_s), encoding="utf-8"))
    return csv, text


def run_values(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """One row per (run, method, metric): the run-level mean, from which tables and claims are made.

    Metrics are those of the table, and every other one that the run's records have values of.

    Returns:
        Columns data, run (see `run_labels`), model, seed, method, metric, value (mean over the run's measured samples
        on which it is defined; NaN for none), n (their number).
    """
    rows = []
    for label, (description, records) in zip(run_labels(runs), runs, strict=True):
        entered = measured(records, min_s)
        metrics = [
            name for name in METRICS if name in records and (name in TABLE_METRICS or entered[name].notna().any())
        ]
        grouped = entered[["method"]].join(entered[metrics].astype(float)).groupby("method")[metrics]
        means, counts = (table.to_dict("index") for table in (grouped.mean(), grouped.count()))
        for method in dict.fromkeys(records["method"]):
            for metric in metrics:
                rows.append(
                    {
                        "data": data_label(description),
                        "run": label,
                        "model": description["model"]["name"],
                        "seed": description["settings"]["seed"],
                        "method": method,
                        "metric": metric,
                        "value": means[method][metric] if method in means else nan,
                        "n": counts[method][metric] if method in counts else 0,
                    }
                )
    return pd.DataFrame(rows, columns=RUN_VALUE_COLUMNS)


def wins(runs: Sequence[Pair], metric: str, min_s: float | None = None) -> pd.DataFrame:
    """In how many runs the first method of a pair is better than the second, by their run-level means.

    Only runs that have a value of both count; means are tied where they are a draw, see `side`. A leakage is undefined
    where a method's TDD is low, so that the means of two methods rest on other images; of leakages the means are over
    the samples on which both have one.

    Returns:
        One row per data set and pair: data, metric, first, second, wins (of the first), ties, losses, runs, count
        (wins and runs in words, "5/6"; of a data set with one run "better", "worse" or "draw").

    Raises:
        SettingsError: a metric that does not exist or ranks nothing.
    """
    better = lookup("metric", metric, METRICS).better
    if better is None:
        ranking = ", ".join(name for name, one in METRICS.items() if one.better)
        raise SettingsError(f"expected a metric that ranks methods, got {metric!r}; choose one of {ranking}")
    values = run_values(runs, min_s)
    values = values[values["metric"] == metric].dropna(subset="value")
    rows, sign = [], 1 if better == "higher" else -1
    every = {data: len(group) for data, group in by_data(runs).items()}
    for data, group in values.groupby("data", sort=False):
        table = group.pivot(index="run", columns="method", values="value")
        if metric.startswith("leak_"):
            table = _by_sample(runs, metric, min_s).loc[list(table.index)]
        for first, second in combinations(dict.fromkeys(group["method"]), 2):
            both = table[[first, second]].dropna().groupby(level="run", sort=False).mean()
            sides = [side(one, other, metric) for one, other in zip(both[first], both[second], strict=True)]
            won, lost = sides.count(sign), sides.count(-sign)
            count = f"{won}/{len(both)}"
            if every[str(data)] == 1 and sides:
                count = {sign: "better", 0: "draw", -sign: "worse"}[sides[0]]
            rows.append([data, metric, first, second, won, len(both) - won - lost, lost, len(both), count])
    return pd.DataFrame(rows, columns=WIN_COLUMNS)


def _by_sample(runs: Sequence[Pair], metric: str, min_s: float | None) -> pd.DataFrame:
    """Values of a metric: a row per (run, sample_id), a column per method."""
    every = zip(run_labels(runs), runs, strict=True)
    parts = [measured(records, min_s).assign(run=label) for label, (_, records) in every]
    return pd.concat(parts).pivot_table(index=["run", "sample_id"], columns="method", values=metric, sort=False)


def with_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with paper_mean and paper_std of the paper's Table 1; NaN where it has no number."""
    found = [
        paper_value(*key) or (nan, nan)
        for key in zip(summary["data"], summary["method"], summary["metric"], strict=True)
    ]
    return summary.assign(paper_mean=[mean for mean, _ in found], paper_std=[std for _, std in found])


def comparison(summary: pd.DataFrame) -> list[list[str]]:
    """Ours beside the paper's Table 1, as in `layout`; only the header where the paper has none of these rows."""
    both = with_paper(summary)
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


def all_wins(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """`wins` for every metric of the table, one below the other."""
    return pd.concat([wins(runs, metric, min_s) for metric in TABLE_METRICS], ignore_index=True)


def win_table(counts: pd.DataFrame) -> list[list[str]]:
    """Pairs of the paper's methods, and in how many runs the first is better by each metric."""
    shown = counts[counts["first"].isin(PAPER_METHODS) & counts["second"].isin(PAPER_METHODS)]
    table = [["Data", "Pair", *(METRICS[name].label for name in TABLE_METRICS)]]
    for (data, first, second), group in shown.groupby(["data", "first", "second"], sort=False):
        found = dict(zip(group["metric"], group["count"], strict=True))
        table.append([str(data), f"{first} : {second}", *(found.get(name, "n/a") for name in TABLE_METRICS)])
    return table


def run_table(runs: Sequence[Pair], min_s: float | None = None) -> list[list[str]]:
    """The run-level means of the table's metrics."""
    table = [["Run", "Method", *(METRICS[name].label for name in TABLE_METRICS)]]
    for (run, method), group in run_values(runs, min_s).groupby(["run", "method"], sort=False):
        found = dict(zip(group["metric"], group["value"], strict=True))
        table.append([str(run), str(method), *(_cell(found[name], nan) for name in TABLE_METRICS)])
    return table


def run_labels(runs: Sequence[Pair]) -> list[str]:
    """A name of each run, all different: that of its settings, or else model and seed; a repeated one is numbered."""
    labels: list[str] = []
    for description, _ in runs:
        settings = description["settings"]
        name = str(settings.get("name") or f"{description['model']['name']} seed {settings['seed']}")
        label, number = name, 2
        while label in labels:
            label, number = f"{name} ({number})", number + 1
        labels.append(label)
    return labels


def by_data(runs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The runs of each data set, in their order."""
    groups: dict[str, list[Pair]] = {}
    for description, records in runs:
        groups.setdefault(data_label(description), []).append((description, records))
    return groups


def measured(records: pd.DataFrame, min_s: float | None) -> pd.DataFrame:
    """The rows that were measured, with s of at least `min_s` if it is given."""
    entered = records[records["status"] == "ok"]
    return entered if min_s is None else entered[entered["s"] >= min_s]


def side(first: float, second: float, metric: str) -> int:
    """1 where the first mean is the larger one, -1 where the second is, 0 for a draw.

    A draw is a difference below 1e-4, or of runtimes below 5 % of the longer one.
    """
    least = RUNTIME_DRAW * max(abs(first), abs(second)) if metric == "runtime_s" else DRAW
    difference = round(first - second, DIGITS)
    return 0 if not difference or abs(difference) < least else 1 if difference > 0 else -1


def _cell(value: float, std: float) -> str:
    if isnan(value):
        return "n/a"
    return f"{value:.3f}" if isnan(std) else f"{value:.3f} ± {std:.3f}"
