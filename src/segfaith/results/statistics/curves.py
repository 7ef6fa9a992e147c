"""Curves over k: pooled drops and means over images with intervals, and the areas under them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from segfaith.evaluation.metrics import DROPS, leading
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.statistics.intervals import POOLED, estimate, numerators, quantity
from segfaith.results.statistics.samples import NOTHING

CURVE_KINDS = {"tdd": "target_deletion", "odd_abs": "off_deletion", "insertion_gain": "insertion"}
"""Metrics that can be ranked under other settings, and the kind of curve that holds them."""
KIND_OF = CURVE_KINDS | {DROPS[metric]: kind for metric, kind in CURVE_KINDS.items() if metric in DROPS}
"""The same, with the absolute metrics that stand in the curves of scores other than the probability."""
ABSOLUTE = "off_deletion_abs"
"""Not a kind of the files: absolute values of off_deletion."""
METRIC_OF = {
    **{"target_deletion": "tdd", "off_deletion": "odd", ABSOLUTE: "odd_abs"},
    "insertion": "insertion_gain",
}
"""The metric that a point of a curve is, of the probability; of another score see `metrics.leading`."""
POINT = ["method", "kind", "k"]
AREA_COLUMNS = ["data", "method", "kind", "of", "area", "n", "low_k", "high_k"]
CURVE_MEAN_COLUMNS = ["data", "method", "kind", "k", "mean", "of", "value", "low", "high", "n"]
NO_CURVES = "no run has curves; name several operators or several k in [evaluation]"


def points(runs: Sequence[Run]) -> pd.DataFrame:
    """Every point of the curves over k at each run's first operator, over images, with 95 % intervals.

    Each image is averaged over its targets and then over its runs first, for two targets of an image, or the same image
    in two runs, are not independent. Beside the kinds of the curves stands off_deletion_abs, of the absolute values of
    off_deletion. Interventions that a user added have no metric in `METRIC_OF`: their rows are left out.

    Args:
        runs: of one data set.

    Returns:
        Columns method, kind, k, mean (over images), of, value, low, high (of the quantity of `intervals`; NaN below 20
        images), n (images). Without curves there are no rows.
    """
    frames = [run.curves[run.curves["occlusion"] == first_setting(run)[0]] for run in runs]
    frames = [rows[rows["kind"].isin(CURVE_KINDS.values())] for rows in frames]
    own = own_numbers([run.description for run in runs])
    numbered = enumerate(zip(frames, own, strict=True))
    rows = [rows.assign(run=place, own=number) for place, (rows, number) in numbered if len(rows)]
    if not rows:
        return pd.DataFrame(columns=CURVE_MEAN_COLUMNS[1:])
    curves = pd.concat(rows, ignore_index=True)
    off = curves[curves["kind"] == "off_deletion"]
    curves = pd.concat([curves, off.assign(kind=ABSOLUTE, value=absolute(off))], ignore_index=True)
    drops, weight = numerators(curves[["value"]], curves["s"].astype(float), POOLED)
    wide = curves.assign(drop=drops["value"], weight=weight).dropna(subset="value")
    for keys in ([*POINT, "own", "run", "sample_id"], [*POINT, "own", "sample_id"], [*POINT, "sample_id"]):
        wide = wide.groupby(keys, sort=False)[["value", "drop", "weight"]].mean()
    table = [
        [method, kind, k, *_point(part, quantity(*leading([METRIC_OF[str(kind)]], runs[0].score)))]
        for (method, kind, k), part in wide.groupby(level=POINT, sort=False)
    ]
    return pd.DataFrame(table, columns=CURVE_MEAN_COLUMNS[1:])


def areas(runs: Sequence[Run], table: pd.DataFrame) -> pd.DataFrame:
    """Area under each method's curve over k, by the trapezoid rule, divided by the range of k.

    The point k = 0 with value 0 is added, for there nothing is deleted or inserted. So an area is the mean height of
    the curve between k = 0 and the highest k: higher is better for target_deletion and insertion. That of off_deletion
    can be 0 because rises and falls cancel; off_deletion_abs, of the absolute values, does not: lower is better.

    Args:
        runs: of one data set.
        table: their `points`.

    Returns:
        Columns data, method, kind, of (the quantity that the curve's points are), area, n (images; the fewest at any
        k), low_k (0), high_k. Only k that all runs share enter. At least two are needed; else there are no rows, with
        the reason in `attrs["why"]`.
    """
    nothing = pd.DataFrame(columns=AREA_COLUMNS)
    if not len(table):
        return explained(nothing, [f"{runs[0].data}: {no_curves(runs)}"])
    ks = _shared_ks(runs)
    if len(ks) < 2:
        why = f"areas need curves over at least two k that all runs share, got {len(ks)}"
        return explained(nothing, [f"{runs[0].data}: {why}"])
    keys = ["method", "kind", "of"]
    shared = table[table["k"].isin(ks)].set_index([*keys, "k"])
    heights = shared["value"].unstack("k", sort=False).reindex(columns=ks).dropna()
    with_origin = np.hstack([np.zeros((len(heights), 1)), heights.to_numpy(float)])
    area = pd.Series(np.trapezoid(with_origin, [0.0, *ks], axis=1) / ks[-1], heights.index)
    fewest = shared["n"].groupby(level=keys, sort=False).min()
    found = pd.DataFrame({"area": area, "n": fewest[area.index]}).reset_index()
    return explained(found.assign(data=runs[0].data, low_k=0.0, high_k=ks[-1])[AREA_COLUMNS], [])


def curve_means(runs: Sequence[Run], table: pd.DataFrame) -> pd.DataFrame:
    """The curves over k at the first operator: tdd, odd (signed), insertion; pooled drops and mean insertion gains.

    If the score is not the probability, the drops are means that are not divided by s.

    Args:
        runs: of one data set.
        table: their `points`.

    Returns:
        Columns data and those of `points`, by method, kind and k in order. Without curves there are no rows, with the
        reason in `attrs["why"]`.
    """
    if not len(table):
        return explained(pd.DataFrame(columns=CURVE_MEAN_COLUMNS), [f"{runs[0].data}: {no_curves(runs)}"])
    shown = table[table["kind"] != ABSOLUTE]
    places = {name: place for place, name in enumerate([*shown["method"].unique(), *CURVE_KINDS.values()])}
    shown = shown.sort_values(["method", "kind", "k"], key=lambda part: part.map(places) if part.name != "k" else part)
    return explained(shown.assign(data=runs[0].data)[CURVE_MEAN_COLUMNS].reset_index(drop=True), [])


def _point(images: pd.DataFrame, of: str) -> list[Any]:
    """Mean, quantity, value, low, high and n of one point of a curve."""
    values = images["drop" if of == POOLED else "value"].to_numpy(float)
    found = estimate(values, images["weight"].to_numpy(float), of)
    return [images["value"].mean(), of, found.value, found.low, found.high, len(images)]


def no_curves(runs: Sequence[Run]) -> str:
    """Why there are no curves: no sample was measured, or the settings asked for none."""
    return NO_CURVES if any(len(run.measured) for run in runs) else NOTHING


def first_setting(run: Run) -> tuple[str, float]:
    """The operator and the k of a run's records."""
    evaluation = run.description["settings"]["evaluation"]
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


def _shared_ks(runs: Sequence[Run]) -> list[float]:
    """The k at the first operator that all runs with curves share, ascending."""
    own = [set(run.curves.loc[run.curves["occlusion"] == first_setting(run)[0], "k"].astype(float)) for run in runs]
    return sorted(set.intersection(*filter(None, own)))
