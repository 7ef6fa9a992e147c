"""How far to trust the metrics: do they rank methods as the planted evidence does? From records, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segfaith.constants import COUNTERPART
from segfaith.evaluation.metrics import METRICS
from segfaith.results.statistics.summary import Pair

JUDGED = ("tdd", "insertion_gain", "odd_abs", "leak_abs", "odd_beyond_abs", "stability")
"""Metrics whose ranking of methods is held against the evidence score's."""
SCORES = ("evidence_ap", "evidence_mass", "evidence_top")
KINDS = ("plain", "marker", "context", "conjunction", "redundancy")
GROUPS = {"all but plain": KINDS[1:], "all": KINDS}
"""Kinds taken together; where the whole object is the evidence (plain), AP measures likeness to the mask."""
RESAMPLES = 1000
LEAST_SCENES, LEAST_METHODS = 20, 3
"""With fewer scenes or methods, no agreement of rankings is stated: its interval would not cover (`intervals`)."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of two rankings of methods, with a 95 % percentile interval over resampled scenes.

    `why` says why it is not testable; the numbers are then NaN.
    """

    kind: str
    metric: str
    methods: int
    scenes: int
    tau: float = nan
    low: float = nan
    high: float = nan
    why: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.why:
            return f"not testable: {self.why}"
        return "agrees" if self.low > 0 else "disagrees" if self.high < 0 else "undecided"


def usable(runs: Sequence[Pair], min_s: float | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows from which conclusions are drawn, and why the others are not among them, by kind.

    Rows are measured ones with planted evidence, on regions that the model predicts right, of kinds for which the
    model's proof of use holds; with `min_s`, only those with s of at least that.
    """
    parts: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    wrong = 0
    for description, records in runs:
        if "kind" not in records:
            continue
        proven = str(description["model"].get("proven_kinds", "")).split(",")
        planted = records[records["kind"].notna() & (records["status"] == "ok")]
        for kind in sorted(set(planted["kind"]) - set(proven)):
            left_out[kind] = (
                "decided by the absence of a part, for which no pixels are the evidence"
                if kind == COUNTERPART
                else "unproven: the model was not shown to decide by this evidence"
            )
        planted = planted if min_s is None else planted[planted["s"] >= min_s]
        right = planted["majority_class"] == planted["class_index"]
        wrong += planted.loc[~right & planted["kind"].isin(proven), "sample_id"].nunique()
        parts.append(planted[right & planted["kind"].isin(proven)])
    empty = pd.DataFrame(columns=["sample_id", "method", "kind"])
    rows = pd.concat(parts, ignore_index=True) if parts else empty
    for kind in set(left_out) & set(rows["kind"]):
        left_out[kind] += " (in some of these runs; it entered from the others)"
    if wrong:
        left_out["predicted wrong"] = f"{wrong} region(s) that the model does not predict right"
    return rows, left_out


def agreement(rows: pd.DataFrame, kind: str, metric: str, *, seed: int = 0) -> Agreement:
    """Whether a metric ranks methods, by their means over scenes, as the mean `evidence_ap` does.

    Both means of every method are over the same scenes, those on which all methods have a value, for else they would
    compare scenes. A method that has one on less than half of the scenes is left out. Several runs on one scene count
    as their mean, so that the same scene is not drawn as if it were two.

    Args:
        rows: of `usable`; only those of the kind are read, or of one of `GROUPS`.
        metric: of `METRICS`; the sign is turned where lower is better.
    """
    chosen = rows[rows["kind"].isin(GROUPS.get(kind, (kind,)))]
    means = chosen.groupby(["sample_id", "method"])[["evidence_ap", metric]].mean()
    value, truth = means[metric].unstack(), means["evidence_ap"].unstack()
    counts = value.notna().sum()
    value = value.loc[:, counts * 2 > counts.max()].dropna()
    scenes, methods = (len(value), len(value.columns)) if counts.any() else (0, 0)
    if scenes < LEAST_SCENES:
        return Agreement(kind, metric, methods, scenes, why=f"{scenes} scenes, at least {LEAST_SCENES} needed")
    if methods < LEAST_METHODS:
        return Agreement(kind, metric, methods, scenes, why=f"{methods} methods, at least {LEAST_METHODS} needed")
    left = truth.loc[value.index, value.columns].to_numpy(float)
    right = value.to_numpy(float) * (1 if METRICS[metric].better == "higher" else -1)
    (tau,) = _taus(left.mean(0, keepdims=True), right.mean(0, keepdims=True))
    if isnan(tau):
        return Agreement(kind, metric, methods, scenes, why="all methods are tied")
    draws = np.random.default_rng(seed).integers(0, scenes, (RESAMPLES, scenes))
    low, high = np.nanpercentile(_taus(left[draws].mean(1), right[draws].mean(1)), [2.5, 97.5])
    return Agreement(kind, metric, methods, scenes, float(tau), float(low), float(high))


def _taus(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of each row of two tables; values equal to 1e-6 are tied, and NaN where a whole row is."""
    i, j = np.triu_indices(left.shape[1], 1)
    a, b = (np.sign(rounded[:, i] - rounded[:, j]) for rounded in (left.round(6), right.round(6)))
    untied = np.sqrt(np.abs(a).sum(1) * np.abs(b).sum(1))
    taus: NDArray[np.float64] = np.divide((a * b).sum(1), untied, out=np.full(len(a), nan), where=untied > 0)
    return taus
