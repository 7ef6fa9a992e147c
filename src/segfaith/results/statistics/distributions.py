"""Behind the means: medians, trimmed means and absolute drops, and means within groups of samples.

The relative metrics divide by s, so that a few samples with next to no score can dominate their means. Here stand the
statistics that such samples do not dominate. All samples count alike (`samples`), while the summary averages run by
run. Undefined values are left out and `n` is how many entered.
"""

from itertools import pairwise
from math import nan
from typing import Literal

import numpy as np
import pandas as pd

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS, PROBABILITY, has_zero, leading
from segfaith.lookup import lookup
from segfaith.results.statistics.samples import (
    NOTHING,
    by_method,
    centres,
    interquartile_mean,
    lacking,
    table,
    with_value,
)
from segfaith.results.statistics.summary import ASKED_METRICS, SMALL_SCORE, TABLE_METRICS
from segfaith.results.statistics.targets import IMAGE, over_targets

EDGES: dict[str, tuple[float, ...]] = {
    "s": (0.0, SMALL_SCORE, 0.3, 0.6, 0.9, 1.0),
    "target_area": (0.0, 0.01, 0.05, 0.15, 0.4, 1.0),
}
"""Borders of the strata; each holds its lower border, the last one also its upper."""
STRATA = (*EDGES, "class_index")
ROBUST_METRICS = tuple(name for name in TABLE_METRICS if name != "runtime_s")
DROPS = ("target_drop", "off_drop")

ROBUST_COLUMNS = ["data", "method", "metric", "mean", "median", "trimmed", "iqm", "n", "small_s"]
DROP_COLUMNS = ["data", "method", "drop", "mean", "median", "trimmed", "iqm", "n"]
STRATUM_COLUMNS = ["data", "stratum", "method", "mean", "median", "iqm", "n"]


def robust(rows: pd.DataFrame, score: str = PROBABILITY) -> pd.DataFrame:
    """Mean, median, trimmed (10 %) and interquartile mean over all samples, of each metric but the runtime.

    Args:
        rows: of `samples.samples`, as of every function here.
        score: of the rows' runs.

    Returns:
        Columns data, method, metric, mean, median, trimmed (without the lowest and the highest tenth), iqm (the
        mean of the middle half, `samples.interquartile_mean`), n, small_s (how many of them have s < 0.05; of an image
        with several targets, any of them; NaN where the score is no
        probability).
    """
    lines = []
    unmeasured = [name for name in ASKED_METRICS if name not in rows or not rows[name].notna().any()]
    metrics = [name for name in leading(ROBUST_METRICS, score) if name not in unmeasured]
    for data, method, part in by_method(rows.assign(small=rows["s"] < SMALL_SCORE)):
        for metric in metrics:
            if metric in part:
                own = over_targets(with_value(part, metric), [metric, "small"])
                small = int((own["small"] > 0).sum()) if has_zero(score) else nan
                lines.append([data, method, metric, *centres(own[metric]), len(own), small])
    return table(lines, ROBUST_COLUMNS, NOTHING)


def absolute_drops(rows: pd.DataFrame) -> pd.DataFrame:
    """What TDD and OT abs are before they are divided by s, which cannot explode.

    target_drop = s - s(O(x, S_t)) and off_drop = |s - s(O(x, S_o))|, of probabilities in [-1, 1] and [0, 1]. Of
    random_cells the scores are means over its draws, so that its off_drop is at most the mean of its draws'.

    Returns:
        Columns data, method, drop (`target_drop` or `off_drop`), mean, median, trimmed, iqm, n.
    """
    lines = []
    for data, method, part in by_method(with_value(rows, "s_target_deleted")):
        drops = {
            "target_drop": part["s"] - part["s_target_deleted"],
            "off_drop": (part["s"] - part["s_off_deleted"]).abs(),
        }
        for name in DROPS:
            values = over_targets(part.assign(**{name: drops[name]}), [name])[name].dropna()
            lines.append([data, method, name, *centres(values), len(values)])
    return table(lines, DROP_COLUMNS, lacking("s_target_deleted", rows))


def strata(rows: pd.DataFrame, metric: str, by: Literal["s", "target_area", "class_index"] = "s") -> pd.DataFrame:
    """A metric within groups of samples: by score, by the target's share of the pixels, or by class.

    Of an image with several targets, each belongs to its own stratum; the image's value in a stratum is the mean over
    its targets there.

    Returns:
        Columns data, stratum (in words, in order; classes by their names), method, mean, median, iqm, n. Strata without
        samples do not appear.

    Raises:
        SettingsError: an unknown metric or `by`.
    """
    lookup("metric", metric, METRICS)
    if by not in STRATA:
        raise SettingsError(f"expected strata by one of {', '.join(STRATA)}, got {by!r}")
    both = with_value(with_value(rows, metric), by)
    if not len(both):
        return table([], STRATUM_COLUMNS, lacking(metric if not len(with_value(rows, metric)) else by, rows))
    both = both.assign(stratum=both["class_name"] if by == "class_index" else _cut(both[by], by))
    images = over_targets(both, [metric], ["data", "method", "stratum", *IMAGE])[metric].reset_index()
    lines = []
    for stratum in both.sort_values(by, kind="stable")["stratum"].unique():
        for data, method, part in by_method(images[images["stratum"] == stratum]):
            values = part[metric]
            middle = interquartile_mean(values.to_numpy(float))
            lines.append([data, stratum, method, values.mean(), values.median(), middle, len(values)])
    return table(lines, STRATUM_COLUMNS, "")


def _cut(values: pd.Series, by: str) -> list[str]:
    """The stratum of each value in words."""
    edges = EDGES[by]
    sign, unit, factor = ("s", "", 1) if by == "s" else ("area", " %", 100)
    words = [f"{low * factor:g} <= {sign} < {high * factor:g}{unit}" for low, high in pairwise(edges)]
    words[-1] = words[-1].replace(f"{sign} <", f"{sign} <=")
    places = np.searchsorted(edges, values.to_numpy(float), side="right") - 1
    return [words[min(max(place, 0), len(words) - 1)] for place in places.tolist()]
