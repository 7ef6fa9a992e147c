"""Means over runs: the summary, each run's own values, the paper's numbers beside them, and wins by run."""

from collections.abc import Sequence
from itertools import combinations
from math import nan

import numpy as np
import pandas as pd

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS, PROBABILITY, has_zero, leading
from segfaith.results.records.identity import ablation_notes, same_images_notes
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import enough, grouped, methods_of
from segfaith.results.statistics.averaging import Averages
from segfaith.results.statistics.paired import Paired, paired
from segfaith.results.statistics.paper import paper_value
from segfaith.results.statistics.resampled import backbones, quantities
from segfaith.results.statistics.samples import interquartile_mean
from segfaith.results.statistics.targets import IMAGE, counted, over_targets, several

TABLE_METRICS = (
    *("tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain"),
    *("fidelity", "fidelity_outside", "stability", "runtime_s"),
)
ASKED_METRICS = ("fidelity", "fidelity_outside")
"""Those of the table that no table shows where no row has a value: the settings, or an older version, left them out."""
PLANTED_METRICS = ("evidence_ap", "evidence_mass", "evidence_top", "odd_beyond_abs")
"""Summarised too where evidence was planted; the printed table shows the first."""
SMALL_SCORE = 0.05
"""Below this s, the relative metrics divide by next to nothing; reports count such samples."""

SUMMARY_COLUMNS = [
    *("data", "weights", "method", "metric", "mean", "std", "median", "runs", "n", "undefined", "not_ok", "iqm"),
]
PREDICTED_IOU = 0.5
"""From this intersection over union on a target counts as predicted; its values stand beside those of all targets."""
PREDICTED_COLUMNS = ["method", "metric", "predicted_mean", "predicted_value", "predicted_n"]
RUN_VALUE_COLUMNS = ["data", "run", "model", "seed", "method", "metric", "value", "n"]
WIN_COLUMNS = ["data", "metric", "first", "second", "wins", "ties", "losses", "runs", "count"]

DIGITS = 9
"""Differences are rounded to this many places, so that rounding errors decide nothing."""
DRAW, RUNTIME_DRAW = 1e-4, 0.05
"""Run-level means that differ by less are a draw; runtimes, which vary from call to call, by less than that share."""


def has_evidence(runs: Sequence[Run]) -> bool:
    """Whether any of the runs was made on scenes with planted evidence."""
    return any("kind" in run.records and bool(run.records["kind"].notna().any()) for run in runs)


def table_of(runs: Sequence[Run]) -> list[str]:
    """The metrics of the table of one data set's runs: those that their score defines, and that were measured."""
    lacking = {
        name
        for name in ASKED_METRICS
        if not any(name in run.measured and run.measured[name].notna().any() for run in runs)
    }
    return [name for name in leading(TABLE_METRICS, runs[0].score) if name not in lacking]


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """The metrics of the summary of one data set's runs: those of the table, and where evidence was planted its own."""
    return [*table_of(runs), *(leading(PLANTED_METRICS, runs[0].score) if has_evidence(runs) else ())]


def summarise(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per method and metric: mean and std of run-level means, median, and how many values entered.

    Args:
        runs: of one data set.

    Returns:
        Columns data, weights, method, metric, mean (over run-level means, each run counting once), std (n - 1; NaN
        for a single run), median (over all samples), runs, n (samples whose value entered), undefined (NaN values of
        measured rows), not_ok (rows that were skipped or failed), iqm (the mean of the middle half of all samples,
        `samples.interquartile_mean`). The value of a sample with several targets is the
        mean over them.
    """
    rows = []
    weights = "; ".join(dict.fromkeys(str(run.description["model"]["weights"]) for run in runs))
    for method in methods_of(runs):
        planned = sum(int((run.records["method"] == method).sum()) for run in runs)
        entered = [run.measured[run.measured["method"] == method] for run in runs]
        count = sum(map(len, entered))
        metrics = metrics_of(runs)
        images = [over_targets(part, metrics, ["sample_id"]) for part in entered]
        for metric in metrics:
            values = [part[metric].dropna() for part in images]
            means = pd.Series([value.mean() for value in values if len(value)], dtype=float)
            everything = pd.concat(values)
            spread = (means.mean(), means.std(ddof=1), everything.median())
            undefined = sum(int(part[metric].isna().sum()) for part in entered)
            counts = (len(means), len(everything), undefined, planned - count)
            middle = interquartile_mean(everything)
            rows.append([runs[0].data, weights, method, metric, *spread, *counts, middle])
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def predicted(runs: Sequence[Run], metrics: Sequence[str]) -> pd.DataFrame:
    """The scores on the targets that the model predicts: those with an IoU of at least `PREDICTED_IOU`.

    Args:
        runs: of one data set.
        metrics: of the summary.

    Returns:
        Columns method, metric, predicted_mean (of run-level means), predicted_value (of `resampled.quantities`),
        predicted_n (samples whose value entered). No rows where no target has an IoU, and where all are predicted.
    """
    known = [run for run in runs if "target_iou" in run.measured and run.measured["target_iou"].notna().any()]
    kept = [enough(run, min_iou=PREDICTED_IOU) for run in known]
    if not known or all(len(run.measured) == len(part.measured) for run, part in zip(known, kept, strict=True)):
        return pd.DataFrame(columns=PREDICTED_COLUMNS)
    table = summarise(kept)
    numbers = backbones(kept)
    values = pd.concat([quantities(paired(kept, metric), numbers, interval=False) for metric in metrics])
    both = table.merge(values[["method", "metric", "value"]], on=["method", "metric"])
    names = {"mean": "predicted_mean", "value": "predicted_value", "n": "predicted_n"}
    return both.rename(columns=names)[PREDICTED_COLUMNS]


def notes(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[str]:
    """What a reader of the tables must know of the runs: model, weights, samples left out, ablations, seeds.

    Args:
        runs: of any number of data sets, with all samples.
        names: a name of each, see `run_labels`, which is the default.
    """
    lines = [f"{data}: {_note(run)}" for data, group in grouped(runs).items() for run in group]
    named = run_labels(runs) if names is None else names, [run.description for run in runs]
    return [*lines, *ablation_notes(*named), *same_images_notes(*named)]


def _note(run: Run) -> str:
    """One run in words. A sample counts as measured if any method was; else it was skipped or failed.

    Where samples have several targets, the measured ones of these are counted too, and those with a small s.
    """
    description, records = run.description, run.records
    model, planned = description["model"], description["data"]["samples"]
    entered = run.measured.drop_duplicates("sample_id")
    others = records[~records["sample_id"].isin(entered["sample_id"])].drop_duplicates("sample_id")["status"]
    targets = run.measured.drop_duplicates(TARGET)
    small = int((targets["s"] < SMALL_SCORE).sum())
    of_targets = f" ({len(targets)} of {counted([records])[1]} targets)" if several([run]) else ""
    unfinished = len(planned) - records["sample_id"].nunique()
    digest = f" (SHA-256 {model['file_sha256'][:12]})" if "file_sha256" in model else ""
    return (
        f"{model['name']}, weights {model['weights']}{digest}, seed {description['settings']['seed']}; "
        f"{len(entered)} of {len(planned)} samples{of_targets} measured, {int((others == 'skipped').sum())} skipped, "
        f"{int((others == 'failed').sum())} failed"
        + (f"; score: {run.score}" if run.score != PROBABILITY else "")
        + (f"; {small} with s < {SMALL_SCORE}" if has_zero(run.score) else "")
        + (f"; not finished, {unfinished} sample{'s' * (unfinished != 1)} to go" if unfinished else "")
    )


def run_values(runs: Sequence[Run], names: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per (run, method, metric): the run-level mean, from which tables and claims are made.

    Metrics are those of the table, and every other one that the run's records have values of.

    Args:
        runs: of one data set.
        names: a name of each, see `run_labels`, which is the default.

    Returns:
        Columns data, run (its name), model, seed, method, metric, value (mean over the run's measured images on which
        it is defined, of the mean over each one's targets; NaN for none), n (their number).
    """
    rows = []
    for name, run in zip(run_labels(runs) if names is None else names, runs, strict=True):
        records, entered, table = run.records, run.measured, table_of([run])
        metrics = [
            metric for metric in METRICS if metric in records and (metric in table or entered[metric].notna().any())
        ]
        by_method = over_targets(entered, metrics, ["method", "sample_id"]).groupby(level="method")[metrics]
        means, counts = (part.to_dict("index") for part in (by_method.mean(), by_method.count()))
        about = [run.data, name, run.description["model"]["name"], run.description["settings"]["seed"]]
        rows += [
            [*about, method, metric, means[method][metric], counts[method][metric]]
            if method in means
            else [*about, method, metric, nan, 0]
            for method in methods_of([run])
            for metric in metrics
        ]
    return pd.DataFrame(rows, columns=RUN_VALUE_COLUMNS)


def wins(values: pd.DataFrame, images: Paired) -> pd.DataFrame:
    """In how many runs the first method of a pair is better than the second, by their run-level means.

    Only runs that have a value of both count; means are tied where they are a draw, see `side`. A leakage is undefined
    where a method's TDD is low, so that the means of two methods rest on other images; of leakages the means are over
    the samples on which both have one.

    Args:
        values: of `run_values`.
        images: of the same runs, by the metric that is asked for.

    Returns:
        One row per pair: data, metric, first, second, wins (of the first), ties, losses, runs, count (wins and runs in
        words, "5/6"; of a data set with one run "better", "worse" or "draw").

    Raises:
        SettingsError: a metric that ranks nothing.
    """
    metric = images.metric
    better = METRICS[metric].better
    if better is None:
        ranking = ", ".join(name for name, known in METRICS.items() if known.better)
        raise SettingsError(f"expected a metric that ranks methods, got {metric!r}; choose one of {ranking}")
    rows, sign = [], 1 if better == "higher" else -1
    defined = values[values["metric"] == metric].dropna(subset="value")
    leakage = metric.startswith("leak_")
    table = images.values if leakage else defined.pivot(index="run", columns="method", values="value")
    averages = Averages.of(table.index, (IMAGE, ("run",)) if leakage else ())
    columns = {method: table[method].to_numpy(float) for method in dict.fromkeys(defined["method"])}
    for first, second in combinations(columns, 2):
        both = np.stack([columns[first], columns[second]], 1)
        both = averages.means(both, ~(np.isnan(columns[first]) | np.isnan(columns[second])))
        sides = [side(mine, theirs, metric) for mine, theirs in both.tolist()]
        won, lost = sides.count(sign), sides.count(-sign)
        count = f"{won}/{len(both)}"
        if values["run"].nunique() == 1 and sides:
            count = {sign: "better", 0: "draw", -sign: "worse"}[sides[0]]
        rows.append([images.data, metric, first, second, won, len(both) - won - lost, lost, len(both), count])
    return pd.DataFrame(rows, columns=WIN_COLUMNS)


def with_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with paper_mean and paper_std of the paper's Table 1; NaN where it has no number."""
    numbers = [
        paper_value(*key) or (nan, nan)
        for key in zip(summary["data"], summary["method"], summary["metric"], strict=True)
    ]
    return summary.assign(paper_mean=[mean for mean, _ in numbers], paper_std=[std for _, std in numbers])


def run_labels(runs: Sequence[Run]) -> list[str]:
    """A name of each run, all different: that of its settings, or else model and seed; a repeated one is numbered."""
    labels: list[str] = []
    for run in runs:
        settings = run.description["settings"]
        name = str(settings.get("name") or f"{run.description['model']['name']} seed {settings['seed']}")
        label, number = name, 2
        while label in labels:
            label, number = f"{name} ({number})", number + 1
        labels.append(label)
    return labels


def side(first: float, second: float, metric: str) -> int:
    """1 where the first mean is the larger one, -1 where the second is, 0 for a draw.

    A draw is a difference below 1e-4, or of runtimes below 5 % of the longer one.
    """
    least = RUNTIME_DRAW * max(abs(first), abs(second)) if metric == "runtime_s" else DRAW
    difference = round(first - second, DIGITS)
    return 0 if not difference or abs(difference) < least else 1 if difference > 0 else -1
