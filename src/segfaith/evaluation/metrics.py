r"""METRICS: the figures of SPEC section 3 as pure formulas on scores, with unit, direction and range.

With s = s_c(x, M), eps = 1e-6, S_t and S_o the top pixels inside and outside M, and b = O(x, all pixels):

    tdd            = (s - s(O(x, S_t))) / (|s| + eps)          equation 3 of the paper
    odd            = (s - s(O(x, S_o))) / (|s| + eps)          equation 4
    leak_abs       = |odd| / (|tdd| + eps)                     equation 5; undefined where tdd <= 0.05
    insertion_gain = s(b with S_t put back from x) - s(b)
    odd_beyond     = (s(O(x, S_o and E)) - s(O(x, S_o))) / (|s| + eps), E the planted evidence
    odd_fair       = odd with as many pixels outside as tdd deletes inside: n(k, M) instead of n(k, not M)
    odd_near, ...  = odd with those pixels of S_o alone that lie in one band of distance from M
    energy_inside  = sum_M A / sum A, pointing = share of A's maxima that lie in M, gini = Gini coefficient of A

This module imports no torch: tables and reports read it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan, nan
from statistics import fmean
from typing import Literal

from segfaith.constants import EPS, LEAST_TDD


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
        Metric("leak_abs", "Leak abs", "odd_abs / (|tdd| + eps) where tdd > 0.05", "lower", low=0),
        Metric("leak_signed", "Leak signed", "odd / (|tdd| + eps) where tdd > 0.05, a diagnostic", None),
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
        Metric("odd_fair", "ODD fair", "odd with only as many pixels as tdd deletes", None, high=1),
        Metric("odd_fair_abs", "OT fair", "absolute value of odd_fair", "lower", low=0),
        Metric("odd_near", "ODD near", "odd of the pixels of S_o within 16 px (at 224) of the target", None, high=1),
        Metric("odd_middle", "ODD middle", "odd of the pixels of S_o 16 to 48 px (at 224) from it", None, high=1),
        Metric("odd_far", "ODD far", "odd of the pixels of S_o more than 48 px (at 224) from the target", None, high=1),
        Metric("energy_inside", "Energy", "share of the map's sum that lies in the target", None, 0, 1),
        Metric("pointing", "Pointing", "share of the map's maxima that lie in the target", None, 0, 1),
        Metric("gini", "Gini", "Gini coefficient of the map: near 0 even, towards 1 sparse", None, 0, 1),
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


def leakage(odd: float, tdd: float) -> float:
    """odd / (|tdd| + eps), equation 5; NaN where tdd <= 0.05.

    There the deletion of the map's own top pixels costs nothing, or raises s: a ratio to it would call a map the better
    the further its deletion goes the wrong way.
    """
    return odd / (abs(tdd) + EPS) if tdd > LEAST_TDD else nan


def score_metrics(s: float, scores: Mapping[str, float]) -> dict[str, float]:
    """All metrics that follow from one map's intervened scores; NaN where a score is NaN or missing.

    Args:
        s: s_c of the image.
        scores: `s_target_deleted`, `s_off_deleted`, `s_baseline`, `s_inserted` and, where they were measured,
            `s_off_evidence_deleted`, `s_fair_deleted`, `s_near_deleted`, `s_middle_deleted` and `s_far_deleted`, as
            in the records.
    """
    lost = {
        name: deletion(s, scores.get(f"s_{name}_deleted", nan))
        for name in ("target", "off", "off_evidence", "fair", "near", "middle", "far")
    }
    tdd, odd = lost["target"], lost["off"]
    beyond = odd - lost["off_evidence"]
    inserted = scores["s_inserted"] - scores["s_baseline"]
    return {
        "tdd": tdd,
        "odd": odd,
        "odd_abs": abs(odd),
        "leak_abs": leakage(abs(odd), tdd),
        "leak_signed": leakage(odd, tdd),
        "insertion_gain": inserted,
        "insertion_gain_rel": inserted / (abs(s) + EPS),
        "odd_fair": lost["fair"],
        "odd_fair_abs": abs(lost["fair"]),
        "odd_near": lost["near"],
        "odd_middle": lost["middle"],
        "odd_far": lost["far"],
        "odd_beyond": beyond,
        "odd_beyond_abs": abs(beyond),
    }


def mean_defined(values: list[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    defined = [value for value in values if not isnan(value)]
    return fmean(defined) if defined else nan
