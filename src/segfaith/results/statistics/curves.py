"""Curves over k from records: pooled drops and means over images with intervals, and the areas under them.

Every function takes `min_s`, which leaves out samples with a lower s.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.records.select import grouped
from segfaith.results.statistics.intervals import POOLED, estimate, numerators, quantity
from segfaith.results.statistics.summary import NOTHING, measured

CURVE_KINDS = {"tdd": "target_deletion", "odd_abs": "off_deletion", "insertion_gain": "insertion"}
"""Metrics that can be ranked under other settings, and the kind of curve that holds them."""
METRIC_OF = {
    **{"target_deletion": "tdd", "off_deletion": "odd", "off_deletion_abs": "odd_abs"},
    "insertion": "insertion_gain",
}
"""The metric that a point of a curve is."""
POINT = ["method", "kind", "k"]
AREA_COLUMNS = ["data", "method", "kind", "of", "area", "n", "low_k", "high_k"]
CURVE_MEAN_COLUMNS = ["data", "method", "kind", "k", "mean", "of", "value", "low", "high", "n"]
NO_CURVES = "no run has curves; name several operators or several k in [evaluation]"


def areas(data: Sequence[Run], *, min_s: float | None = None) -> pd.DataFrame:
    """Area under each method's curve over k (see `curve_means`), by the trapezoid rule, divided by the range of k.

    The point k = 0 with value 0 is added, for there nothing is deleted or inserted. So an area is the mean height of
    the curve between k = 0 and the highest k: higher is better for target_deletion and insertion. That of off_deletion
    can be 0 because rises and falls cancel; off_deletion_abs, of the absolute values, does not: lower is better.

    Returns:
        Columns data, method, kind, of (the quantity that the curve's points are), area, n (images; the fewest at any
        k), low_k (0), high_k. Only k that all runs share enter, and at least two are needed; else the data set has no
        rows, with the reason in `attrs["why"]`.
    """
    found, reasons = [], []
    for label, group in grouped(data).items():
        curves, ks = _curves(group, min_s)
        if not len(curves):
            reasons.append(f"{label}: {no_curves(group, min_s)}")
            continue
        if len(ks) < 2:
            reasons.append(f"{label}: areas need curves over at least two k that all runs share, got {len(ks)}")
            continue
        off = curves[curves["kind"] == "off_deletion"]
        curves = pd.concat([curves, off.assign(kind="off_deletion_abs", value=absolute(off))], ignore_index=True)
        keys = ["method", "kind", "of"]
        points = _points(curves, group).set_index([*keys, "k"])
        heights = points["value"].unstack("k", sort=False).reindex(columns=ks).dropna()
        with_origin = np.hstack([np.zeros((len(heights), 1)), heights.to_numpy(float)])
        area = pd.Series(np.trapezoid(with_origin, [0.0, *ks], axis=1) / ks[-1], heights.index)
        fewest = points["n"].groupby(level=keys, sort=False).min()
        table = pd.DataFrame({"area": area, "n": fewest[area.index]}).reset_index()
        found.append(table.assign(data=label, low_k=0.0, high_k=ks[-1])[AREA_COLUMNS])
    return _joined(found, AREA_COLUMNS, reasons)


def curve_means(data: Sequence[Run], *, min_s: float | None = None) -> pd.DataFrame:
    """Curves over k at the first operator: pooled drops and mean insertion gains, with 95 % intervals over images.

    Each image is averaged over its runs first, for the same image in two runs is not two independent ones. Values are
    tdd, odd (signed) and insertion gain.

    Returns:
        Columns data, method, kind, k, mean (over images), of, value, low, high (of the quantity of `intervals`; NaN
        below 20 images), n (images). A data set whose runs have no curves has no rows, with the reason in
        `attrs["why"]`.
    """
    found, reasons = [], []
    for label, group in grouped(data).items():
        curves, _ = _curves(group, min_s, shared=False)
        if not len(curves):
            reasons.append(f"{label}: {no_curves(group, min_s)}")
            continue
        table = _points(curves, group).assign(data=label)
        places = {name: place for place, name in enumerate([*curves["method"].unique(), *CURVE_KINDS.values()])}
        table = table.sort_values(["method", "kind", "k"], key=lambda one: one.map(places) if one.name != "k" else one)
        found.append(table[CURVE_MEAN_COLUMNS])
    return _joined(found, CURVE_MEAN_COLUMNS, reasons)


def _points(curves: pd.DataFrame, group: Sequence[Run]) -> pd.DataFrame:
    """Every point of the curves over images: the columns of `curve_means` without data."""
    own = curves["run"].map(dict(enumerate(own_numbers([one.description for one in group]))))
    drops, weight = numerators(curves[["value"]], curves["s"].astype(float), POOLED)
    wide = curves.assign(own=own, drop=drops["value"], weight=weight).dropna(subset="value")
    for keys in ([*POINT, "own", "sample_id"], [*POINT, "sample_id"]):
        wide = wide.groupby(keys, sort=False)[["value", "drop", "weight"]].mean()
    rows = [
        [method, kind, k, *_point(part, quantity(METRIC_OF[str(kind)]))]
        for (method, kind, k), part in wide.groupby(level=POINT, sort=False)
    ]
    return pd.DataFrame(rows, columns=CURVE_MEAN_COLUMNS[1:])


def _point(images: pd.DataFrame, of: str) -> list[Any]:
    """Mean, quantity, value, low, high and n of one point of a curve."""
    values = images["drop" if of == POOLED else "value"].to_numpy(float)
    found = estimate(values, images["weight"].to_numpy(float), of)
    return [images["value"].mean(), of, found.value, found.low, found.high, len(images)]


def no_curves(group: Sequence[Run], min_s: float | None) -> str:
    """Why there are no curves: no sample was measured, or the settings asked for none."""
    return NO_CURVES if any(len(measured(one.records, min_s)) for one in group) else NOTHING


def first_setting(one: Run) -> tuple[str, float]:
    """The operator and the k of a run's records."""
    evaluation = one.description["settings"]["evaluation"]
    operator, k = (
        value[0] if isinstance(value, list) else value for value in (evaluation["occlusion"], evaluation["k"])
    )
    return str(operator), float(k)


def absolute(rows: pd.DataFrame) -> pd.Series:
    """Absolute values, as the records have them: means over a method's draws; older curves have only their mean's."""
    values = rows["value"].abs()
    return rows["value_abs"].fillna(values) if "value_abs" in rows else values


def explained(table: pd.DataFrame, reasons: Sequence[str]) -> pd.DataFrame:
    """`attrs["why"]` says what is missing and why."""
    table.attrs["why"] = "; ".join(reasons) or ("" if len(table) else "no runs")
    return table


def _curves(group: Sequence[Run], min_s: float | None, shared: bool = True) -> tuple[pd.DataFrame, list[float]]:
    """Curves over k at each run's first operator, and their k in order; with `shared` only those of all runs."""
    frames = []
    for number, one in enumerate(group):
        rows = one.curves[one.curves["occlusion"] == first_setting(one)[0]]
        rows = rows if min_s is None else rows[rows["s"] >= min_s]
        if len(rows):
            frames.append(rows.assign(run=number))
    if not frames:
        return pd.DataFrame(), []
    everything = pd.concat(frames, ignore_index=True)
    ks = {float(k) for k in everything["k"].unique()}
    ks = set.intersection(ks, *({float(k) for k in one["k"].unique()} for one in frames)) if shared else ks
    return everything[everything["k"].isin(ks)], sorted(ks)


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str], reasons: Sequence[str]) -> pd.DataFrame:
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))
    return explained(joined, reasons)
