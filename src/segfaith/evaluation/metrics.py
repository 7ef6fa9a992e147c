r"""METRICS: the figures of SPEC section 3 as pure formulas on scores, with unit, direction and range.

With s = s_c(x, M), eps = 1e-6, S_t and S_o the top pixels inside and outside M, and b = O(x, all pixels):

    tdd            = (s - s(O(x, S_t))) / (|s| + eps)          equation 3 of the paper
    odd            = (s - s(O(x, S_o))) / (|s| + eps)          equation 4
    leak_abs       = |odd| / (|tdd| + eps)                     equation 5
    insertion_gain = s(b with S_t put back from x) - s(b)
    odd_beyond     = (s(O(x, S_o and E)) - s(O(x, S_o))) / (|s| + eps), E the planted evidence

This module imports no torch: tables and reports read it too.
"""

from dataclasses import dataclass
from math import inf, isnan, nan
from statistics import fmean
from typing import Literal

from segfaith.constants import EPS


@dataclass(frozen=True)
class Metric:
    """What a column of the records means.

    `better` is None for a diagnostic that ranks nothing; `low` and `high` bound the values.
    """

    name: str
    label: str
    meaning: str
    better: Literal["higher", "lower"] | None
    low: float = -inf
    high: float = inf


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "tdd",
            "TDD",
            "relative drop of s when the top pixels inside the target are deleted",
            "higher",
            high=1,
        ),
        Metric("tdd_gain", "TDD gain", "tdd minus the mean tdd of random_cells on the same sample", "higher"),
        Metric(
            "odd",
            "ODD",
            "relative drop of s when the top pixels outside the target are deleted",
            None,
            high=1,
        ),
        Metric("odd_abs", "OT abs", "absolute value of odd", "lower", low=0),
        Metric("leak_abs", "Leak abs", "odd_abs / (|tdd| + eps)", "lower", low=0),
        Metric("leak_signed", "Leak signed", "odd / (|tdd| + eps), a diagnostic", None),
        Metric("insertion_gain", "Ins.", "rise of s when the top target pixels return", "higher", -1, 1),
        Metric("insertion_gain_rel", "Ins. rel.", "insertion_gain / (|s| + eps)", "higher"),
        Metric(
            "stability",
            "Stab.",
            "mean Pearson correlation with the maps of five perturbations",
            "higher",
            -1,
            1,
        ),
        Metric("odd_beyond", "ODD beyond", "odd less what deleting the planted evidence within S_o costs", None),
        Metric("odd_beyond_abs", "OT beyond", "absolute value of odd_beyond", "lower", low=0),
        Metric("evidence_ap", "Evid. AP", "average precision of the map against planted evidence", "higher", 0, 1),
        Metric("evidence_mass", "Evid. mass", "share of the map's sum on planted evidence", "higher", 0, 1),
        Metric(
            "evidence_top", "Evid. top", "share of the map's top n(k, E) pixels on planted evidence", "higher", 0, 1
        ),
        Metric("runtime_s", "Time s", "wall-clock seconds of evidence and fusion, alone, warm", "lower", low=0),
    )
}


def deletion(s: float, s_deleted: float) -> float:
    """(s - s_deleted) / (|s| + eps): TDD for target pixels, ODD for off-target ones."""
    return (s - s_deleted) / (abs(s) + EPS)


def score_metrics(
    s: float, s_target: float, s_off: float, s_baseline: float, s_inserted: float, s_off_evidence: float = nan
) -> dict[str, float]:
    """All metrics that follow from one map's intervened scores; NaN where a score is NaN.

    Args:
        s, s_target, s_off: s_c of the image, and with S_t and S_o occluded (NaN where nothing lies outside M).
        s_baseline, s_inserted: s_c of the fully occluded image, and of it with S_t put back.
        s_off_evidence: s_c with the planted evidence within S_o occluded (NaN where none was planted).
    """
    tdd, odd = deletion(s, s_target), deletion(s, s_off)
    beyond = odd - deletion(s, s_off_evidence)
    return {
        "tdd": tdd,
        "odd": odd,
        "odd_abs": abs(odd),
        "leak_abs": abs(odd) / (abs(tdd) + EPS),
        "leak_signed": odd / (abs(tdd) + EPS),
        "insertion_gain": s_inserted - s_baseline,
        "insertion_gain_rel": (s_inserted - s_baseline) / (abs(s) + EPS),
        "odd_beyond": beyond,
        "odd_beyond_abs": abs(beyond),
    }


def mean_defined(values: list[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    defined = [value for value in values if not isnan(value)]
    return fmean(defined) if defined else nan
