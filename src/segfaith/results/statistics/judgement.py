"""What each metric is worth: does it rise with the truth, can it be gamed, does it agree with itself?

The rules were stated before the numbers were seen:

| property | number of a sample | "yes" | otherwise |
|---|---|---|---|
| truth | Kendall's tau-b of dose and (better) metric | above 0.3 | "weakly" above 0, "reversed" below 0 |
| gaming | 1 if RIA is better than gamed, 0 if worse, 1/2 if equal | above 0.5 | "no" below 0.5, or if all are equal |
| gaming (truth) | the same of the evidence itself, where it is known to decide | above 0.5 | likewise |
| forms | the same of RIA and a form that says no more; a small difference is equal | 0.5 or more | "no" below 0.5 |
| style | median change over styles / standard deviation over methods | below 1 | "no" above 1 |

and of rankings of maps by the metric, see `judgement_rankings`:

| property | number | "yes" | otherwise |
|---|---|---|---|
| fills | of a sample: Spearman correlation of its rankings under two operators | above 0.5 | "weakly" above 0, "no" |
| removal | the same of the operator that was asked for and the true removal | above 0.5 | "weakly", "no" |
| seeds | the same of two seeds | above 0.5 | "weakly", "no" |
| images | Spearman correlation of the mean values of two halves of the samples | above 0.5 | "weakly", "no" |
| ranking | Kendall's tau-b of the methods' means and their average precision | above 0 | "reversed" below 0 |
| power | images that tell two methods apart, the median over pairs of methods | no verdict | |

"no" needs an interval that reaches 0 and stays below 0.5.

The words are about the whole 95 % bootstrap interval over samples (of `images` over random halves); where it fits none,
the verdict is "undecided". Below eight samples there is no verdict. A metric that cannot see the evidence of a kind by
construction is "blind" to it. A metric may lead a conclusion if it is monotone in truth for some kind, resists gaming,
and no property says "no" or "reversed". `ranking` has no part in this: the average precision depends on how fine a map
is, so that a metric of coarse and fine maps need not follow it.
"""

from collections.abc import Callable, Iterable
from functools import cache
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau

from segfaith.constants import REMOVAL
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import DROPS, METRICS, has_zero, leading
from segfaith.results.records.select import is_control
from segfaith.results.statistics import judgement_rankings as rankings
from segfaith.results.statistics.evidence import blindness

LEAST_SAMPLES = 8
LEAST_DOSES = 5
"""A sample on which the metric has fewer values has no tau."""
RESAMPLES = 1000
STEEP, ALIKE = 0.3, 0.5
"""What "yes" needs of truth, and of agreements of rankings."""
EQUAL = 1e-6
"""Smaller differences between two maps are none."""
SMALL = 0.1
"""Of forms: differences below this part of the standard deviation over methods are none."""
COMPARED = ("gpa", "ega", "ria", "dea")
"""The methods whose spread says how far methods differ."""
NOT_JUDGED = (
    *("runtime_s", "evidence_ap", "evidence_mass", "evidence_top"),
    *("stability", "stability_rank", "stability_top"),
)
"""Metrics that are no measure of faithfulness, or the truth itself; stability compares maps with each other."""
COLUMNS = ["metric", "property", "kind", "value", "low", "high", "n", "verdict", "why"]
NUMBERS = ("value", "low", "high")
PACKAGED = Path(__file__).parent / "judgement.csv"
AGAINST = ("no", "reversed")
HONEST, TRUTH = "ria", "truth"
"""The kinds of the lines on gaming: who is held against gamed."""
INFORMATION = "ranking"
"""The property that has no part in what may lead."""
ASKED, SEED = "as asked", "seed"
"""Values of `measured`: the first measurement, and that with the next seed. The others are occlusion operators."""


@cache
def packaged() -> pd.DataFrame:
    """The table of `judge` that the package holds: of `segfaith judge-metrics` as it is, on scenes."""
    return read(PACKAGED)


def read(file: Path) -> pd.DataFrame:
    """A table of `judge` that was written as CSV.

    Raises:
        SettingsError: a file that cannot be read, or that is no such table.
    """
    try:
        kinds = {name: float if name in NUMBERS else str for name in COLUMNS if name != "n"}
        table = pd.read_csv(file, keep_default_na=False, na_values={name: ["", "nan"] for name in NUMBERS}, dtype=kinds)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read as a judgement of metrics: {error}") from error
    missing = [name for name in COLUMNS if name not in table]
    unknown = [] if missing else sorted(set(table["metric"]) - set(METRICS))
    if unknown:
        raise SettingsError(f"{file} judges {', '.join(unknown)}, which are no metrics; they are {', '.join(METRICS)}")
    if missing or not len(table):
        lacks = f"column {', '.join(missing)}" if missing else "row"
        raise SettingsError(f"{file} has no {lacks}; expected judgement.csv as `segfaith judge-metrics` writes it")
    return table


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
        Columns metric, property, kind (of truth and ranking the kind of evidence, of gaming the honest map, of forms
        the form, else ""), value,
        low, high, n (samples), verdict and why.
    """
    asked = rows[rows["measured"] == ASKED]
    lines = []
    for metric in [name for name in judged(score) if name in rows and rows[name].notna().any()]:
        sign = -1.0 if METRICS[metric].better == "lower" else 1.0
        better = asked.assign(**{metric: sign * asked[metric]})
        lines += [_truth(better, metric, kind) for kind in _kinds(rows)]
        lines += [_gaming(better, metric), _gaming_truth(better, metric)]
        lines += [*_forms(better, metric), _style(better, metric)]
        lines += _rankings(rows, better, metric)
    return pd.DataFrame(lines, columns=COLUMNS)


def leaders(table: pd.DataFrame) -> list[str]:
    """The metrics that may lead a conclusion, see the module."""
    chosen = []
    for metric, part in table.groupby("metric", sort=False):
        said = {what: set(lines["verdict"]) for what, lines in part.groupby("property")}
        against = {verdict for what, verdicts in said.items() if what != INFORMATION for verdict in verdicts}
        gaming = part.loc[(part["property"] == "gaming") & (part["kind"] != TRUTH), "verdict"]
        if (
            {"truth", "forms"} <= set(said)
            and "yes" in said["truth"]
            and set(gaming) == {"yes"}
            and not against & {*AGAINST}
        ):
            chosen.append(str(metric))
    return chosen


def by_metric(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The verdicts of each metric by property, in words: "yes (marker); blind (context)"."""
    words: dict[str, dict[str, str]] = {}
    for (metric, what), part in table.groupby(["metric", "property"], sort=False):
        kinds: dict[str, list[str]] = {}
        for line in part[part["verdict"] != ""].to_dict("records"):
            kinds.setdefault(line["verdict"], []).append(line["kind"])
        told = [f"{verdict} ({', '.join(names)})" if names != [""] else verdict for verdict, names in kinds.items()]
        words.setdefault(str(metric), {})[str(what)] = "; ".join(told)
    return words


def _kinds(rows: pd.DataFrame) -> list[str]:
    """The kinds of evidence that are known to decide."""
    return list(dict.fromkeys(rows.loc[(rows["role"] == "dose") & rows["usable"], "kind"])) if len(rows) else []


def _truth(rows: pd.DataFrame, metric: str, kind: str) -> list[object]:
    part = rows[(rows["role"] == "dose") & (rows["kind"] == kind) & rows["usable"]]
    taus = [_tau(sample, metric) for _, sample in part.groupby("sample_id")]
    why = blindness(metric, kind)
    return _line(metric, "truth", kind, taus, lambda low, high: _of_truth(low, high, blind=bool(why)), why)


def _tau(sample: pd.DataFrame, metric: str) -> float:
    """Kendall's tau-b of dose and metric; NaN where constant."""
    known = sample[sample[metric].notna()]
    if len(known) < LEAST_DOSES or float(np.ptp(known[metric])) < EQUAL:
        return nan
    return float(kendalltau(known["dose"], known[metric]).statistic)


def _of_truth(low: float, high: float, *, blind: bool) -> str:
    if blind:
        return "blind"
    if low > 0:
        return "yes" if low > STEEP else "weakly"
    return "reversed" if high < 0 else "undecided"


def _gaming(rows: pd.DataFrame, metric: str) -> list[object]:
    values = rows[rows["role"] == "method"].pivot(index="sample_id", columns="method", values=metric)
    if not {"ria", "gamed"} <= set(values):
        return _line(metric, "gaming", HONEST, [], lambda low, high: "", "ria or gamed was not measured")
    gain = (values["ria"] - values["gamed"]).dropna().to_numpy(float)
    equal = bool(len(gain)) and bool((np.abs(gain) < EQUAL).all())
    why = "gamed equals RIA on every sample" if equal else ""
    return _line(
        metric, "gaming", HONEST, _wins(gain, EQUAL), lambda low, high: _of_gaming(low, high, equal=equal), why
    )


def _gaming_truth(rows: pd.DataFrame, metric: str) -> list[object]:
    """Whether the evidence itself, the dose 1, is better than gamed."""
    known = rows[rows["usable"]]
    truth = known[(known["role"] == "dose") & (known["dose"] == 1)].set_index("sample_id")[metric]
    gamed = known[known["method"] == "gamed"].set_index("sample_id")[metric]
    gain = (truth - gamed).dropna().to_numpy(float)
    return _line(metric, "gaming", TRUTH, _wins(gain, EQUAL), lambda low, high: _of_gaming(low, high, equal=False), "")


def _of_gaming(low: float, high: float, *, equal: bool) -> str:
    if equal or high < 0.5:
        return "no"
    return "yes" if low > 0.5 else "undecided"


def _forms(rows: pd.DataFrame, metric: str) -> list[list[object]]:
    """Whether forms of RIA's map are better than the map."""
    values = rows.pivot(index="sample_id", columns="method", values=metric)
    spread = values.reindex(columns=COMPARED).std(axis=1)
    lines = []
    for form in dict.fromkeys(rows.loc[rows["role"] == "form", "method"]):
        gain = (values["ria"] - values[form]).to_frame("gain").assign(small=SMALL * spread).dropna()
        wins = _wins(gain["gain"].to_numpy(float), np.maximum(gain["small"].to_numpy(float), EQUAL))
        lines.append(_line(metric, "forms", str(form), wins, _of_form, ""))
    return lines


def _of_form(low: float, high: float) -> str:
    if low >= 0.5:
        return "yes"
    return "no" if high < 0.5 else "undecided"


def _wins(gain: NDArray[np.float64], equal: float | NDArray[np.float64]) -> list[float]:
    """1 for a gain, 0 for a loss, and 1/2 below `equal`."""
    wins: list[float] = np.where(np.abs(gain) < equal, 0.5, gain > 0).tolist()
    return wins


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


def _rankings(rows: pd.DataFrame, better: pd.DataFrame, metric: str) -> list[list[object]]:
    """What the rankings of methods by the metric say, see the module."""
    own = rows[(rows["role"] == "method") & ~rows["method"].map(is_control)]
    fills = [name for name in dict.fromkeys(own["measured"]) if name not in (SEED, REMOVAL)]
    lines = []
    for what, measured in {"fills": fills, "removal": [ASKED, REMOVAL], "seeds": [ASKED, SEED]}.items():
        why = "" if {*measured} <= {*own["measured"]} and len(measured) > 1 else "not measured on these data"
        lines.append(_line(metric, what, "", rankings.concordances(own, metric, measured), _of_agreement, why))
    asked = better[(better["role"] == "method") & ~better["method"].map(is_control)]
    halves = rankings.split_halves(asked, metric)
    lines.append(_stated(metric, "images", "", halves, _of_agreement))
    for kind in _kinds(rows):
        part = asked[(asked["kind"] == kind) & asked["usable"]]
        lines.append(
            _stated(metric, "ranking", kind, rankings.with_truth(part, metric, blindness(metric, kind)), _of_ranking)
        )
    return [
        *lines,
        _stated(metric, "power", "", rankings.images_for_pairs(asked, metric, COMPARED), lambda low, high: ""),
    ]


def _of_agreement(low: float, high: float) -> str:
    if low > 0:
        return "yes" if low > ALIKE else "weakly"
    return "no" if high < ALIKE else "undecided"


def _of_ranking(low: float, high: float) -> str:
    if low > 0:
        return "yes"
    return "reversed" if high < 0 else "undecided"


def _stated(
    metric: str, what: str, kind: str, known: rankings.Stated, verdict: Callable[[float, float], str]
) -> list[object]:
    """The line of a number that is not a mean over samples."""
    told = known.why.partition(":")[0] if known.why.startswith("blind") else verdict(known.low, known.high)
    why = known.why.partition(": ")[2] if told == "blind" else known.why
    if told != "blind" and (known.n < LEAST_SAMPLES or np.isnan(known.value)):
        told, why = "no verdict", why or f"fewer than {LEAST_SAMPLES} samples have a value"
    return [metric, what, kind, known.value, known.low, known.high, known.n, told, why]


def _line(
    metric: str, what: str, kind: str, values: Iterable[float], verdict: Callable[[float, float], str], why: str
) -> list[object]:
    """The line of a number of each sample: its mean and interval."""
    known = np.array([value for value in values if not np.isnan(value)])
    mean, low, high = _interval(known)
    told = verdict(low, high)
    if len(known) < LEAST_SAMPLES and told != "blind":
        told, why = "no verdict", why or f"fewer than {LEAST_SAMPLES} samples have a value"
    return [metric, what, kind, mean, low, high, len(known), told, why]


def _interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean, and its 95 % percentile bootstrap interval over samples."""
    if not len(values):
        return nan, nan, nan
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
