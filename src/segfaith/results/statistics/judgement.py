"""What each metric is worth: does it rise with the truth, can it be gamed, does it mind a map's style?

The rules were stated before any number was seen:

| property | number of a sample | "yes" | otherwise |
|---|---|---|---|
| truth | Kendall's tau-b of dose and (better) metric | above 0.3 | "weakly" above 0, "reversed" below 0 |
| gaming | 1 if RIA is better than gamed, 0 if worse, 1/2 if equal | above 0.5 | "no" below 0.5, or if all are equal |
| style | median change over styles / standard deviation over methods | below 1 | "no" above 1 |

The words are about the whole 95 % bootstrap interval over samples; where it fits none, the verdict is "undecided".
Values are means over samples. Below eight samples there is no verdict. A metric that cannot see the evidence of a kind
by construction is "blind" to it. A metric may lead a conclusion if it is monotone for some kind, reversed for none, and
resists gaming.
"""

from collections.abc import Callable, Iterable
from math import nan

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from segfaith.evaluation.metrics import DROPS, METRICS, has_zero, leading
from segfaith.results.statistics.evidence import blindness

LEAST_SAMPLES = 8
LEAST_DOSES = 5
"""A sample on which the metric has fewer values has no tau."""
RESAMPLES = 1000
STEEP = 0.3
EQUAL = 1e-6
"""Smaller differences between two maps are none."""
COMPARED = ("gpa", "ega", "ria", "dea")
"""The methods whose spread says how far methods differ."""
NOT_JUDGED = (
    "runtime_s",
    "evidence_ap",
    "evidence_mass",
    "evidence_top",
    "stability",
    "stability_rank",
    "stability_top",
)
"""Metrics that are no measure of faithfulness, or the truth itself; stability compares maps with each other."""
COLUMNS = ["metric", "property", "kind", "value", "low", "high", "n", "verdict", "why"]


def judged(score: str) -> list[str]:
    """The metrics that are judged, of a run that explains a score; a drop beside its relative form is not."""
    left_out = {*NOT_JUDGED, *(DROPS.values() if has_zero(score) else ())}
    ranking = [name for name, metric in METRICS.items() if metric.better]
    return [name for name in dict.fromkeys(leading(ranking, score)) if name not in left_out]


def judge(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """A verdict on each metric, property and kind.

    Args:
        rows: of `planted.judging.measure`.
        score: of the rows.

    Returns:
        Columns metric, property (truth, gaming, style), kind ("" for all), value, low, high, n (samples), verdict and
        why.
    """
    lines = []
    for metric in [name for name in judged(score) if name in rows and rows[name].notna().any()]:
        lines += [_truth(rows, metric, kind) for kind in _kinds(rows)]
        lines += [_gaming(rows, metric), _style(rows, metric)]
    return pd.DataFrame(lines, columns=COLUMNS)


def leaders(table: pd.DataFrame) -> list[str]:
    """The metrics that may lead a conclusion, see the module."""
    chosen = []
    for metric, part in table.groupby("metric", sort=False):
        truth = set(part.loc[part["property"] == "truth", "verdict"])
        gaming = set(part.loc[part["property"] == "gaming", "verdict"])
        if "yes" in truth and "reversed" not in truth and gaming == {"yes"}:
            chosen.append(str(metric))
    return chosen


def _kinds(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows.loc[rows["role"] == "dose", "kind"])) if len(rows) else []


def _truth(rows: pd.DataFrame, metric: str, kind: str) -> list[object]:
    part = rows[(rows["role"] == "dose") & (rows["kind"] == kind)]
    taus = [_tau(sample, metric) for _, sample in part.groupby("sample_id")]
    why = blindness(metric, kind)
    return _line(metric, "truth", kind, taus, lambda low, high: _of_truth(low, high, blind=bool(why)), why)


def _tau(sample: pd.DataFrame, metric: str) -> float:
    """Kendall's tau-b of dose and metric, positive where the metric gets better with the dose; NaN where constant."""
    sign = -1.0 if METRICS[metric].better == "lower" else 1.0
    known = sample[sample[metric].notna()]
    if len(known) < LEAST_DOSES or float(np.ptp(known[metric])) < EQUAL:
        return nan
    return float(kendalltau(known["dose"], sign * known[metric]).statistic)


def _of_truth(low: float, high: float, *, blind: bool) -> str:
    if blind:
        return "blind"
    if low > 0:
        return "yes" if low > STEEP else "weakly"
    return "reversed" if high < 0 else "undecided"


def _gaming(rows: pd.DataFrame, metric: str) -> list[object]:
    values = rows[rows["role"] == "method"].pivot(index="sample_id", columns="method", values=metric)
    if not {"ria", "gamed"} <= set(values):
        return _line(metric, "gaming", "", [], lambda low, high: "", "ria or gamed was not measured")
    sign = -1.0 if METRICS[metric].better == "lower" else 1.0
    gain = (sign * (values["ria"] - values["gamed"])).dropna().to_numpy(float)
    wins = np.where(np.abs(gain) < EQUAL, 0.5, gain > 0).tolist()
    equal = bool(len(gain)) and bool((np.abs(gain) < EQUAL).all())
    why = "gamed equals RIA on every sample" if equal else ""
    return _line(metric, "gaming", "", wins, lambda low, high: _of_gaming(low, high, equal=equal), why)


def _of_gaming(low: float, high: float, *, equal: bool) -> str:
    if equal or high < 0.5:
        return "no"
    return "yes" if low > 0.5 else "undecided"


def _style(rows: pd.DataFrame, metric: str) -> list[object]:
    ratios = []
    for _, sample in rows.groupby("sample_id"):
        plain = sample[sample["role"] == "method"].set_index("method")[metric]
        spread = float(plain.reindex(COMPARED).std())
        styled = sample[sample["role"] == "style"]
        moved = (styled[metric].to_numpy(float) - plain.reindex(styled["of"]).to_numpy(float)).tolist()
        known = [abs(value) for value in moved if not np.isnan(value)]
        ratios.append(float(np.median(known)) / spread if known and spread > EQUAL else nan)
    return _line(metric, "style", "", ratios, _of_style, "")


def _of_style(low: float, high: float) -> str:
    if high < 1:
        return "yes"
    return "no" if low > 1 else "undecided"


def _line(
    metric: str, what: str, kind: str, values: Iterable[float], verdict: Callable[[float, float], str], why: str
) -> list[object]:
    known = np.array([value for value in values if not np.isnan(value)])
    mean, low, high = _interval(known)
    told = verdict(low, high)
    if len(known) < LEAST_SAMPLES and told != "blind":
        told, why = "no verdict", why or f"fewer than {LEAST_SAMPLES} samples have a value"
    return [metric, what, kind, mean, low, high, len(known), told, why]


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and its 95 % percentile bootstrap interval over samples."""
    if not len(values):
        return nan, nan, nan
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
