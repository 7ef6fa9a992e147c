"""Tables from records: Table 1's layout with the controls, n and undefined values, beside the paper's; wins by run."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import nan
from typing import Any

import pandas as pd

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.records.identity import data_label
from segfaith.results.statistics.paper import paper_value

TABLE_METRICS = ("tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability", "runtime_s")
PLANTED_METRICS = ("evidence_ap", "evidence_mass", "evidence_top", "odd_beyond_abs")
"""Summarised too where evidence was planted; the printed table shows the first."""
NOTHING = "no sample was measured"
"""Why a table is empty where no sample is left, under `min_s` too."""
SMALL_SCORE = 0.05
"""Below this s, the relative metrics divide by next to nothing; reports count such samples."""

SUMMARY_COLUMNS = [
    *("data", "weights", "method", "metric", "mean", "std", "median", "runs", "n", "undefined", "not_ok"),
]
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
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


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


def all_wins(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """`wins` for every metric of the table, one below the other."""
    return pd.concat([wins(runs, metric, min_s) for metric in TABLE_METRICS], ignore_index=True)


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
