r"""METRICS: every metric as one entry, with its formula, direction and range, what it needs, and the function.

With s = s_c(x, M), eps = 1e-6, S_t and S_o the top pixels inside and outside M, and b = O(x, all pixels):

    tdd            = (s - s(O(x, S_t))) / (|s| + eps)          equation 3 of the paper
    odd            = (s - s(O(x, S_o))) / (|s| + eps)          equation 4
    leak_abs       = |odd| / (|tdd| + eps)                     equation 5; undefined where tdd <= 0.05
    insertion_gain = s(b with S_t put back from x) - s(b)

If s is a mean of logits, log odds or margins, it has no natural zero. Then relative drops, which divide by |s| + eps,
are undefined, and the drops themselves (tdd_drop, odd_drop) take their place: see `leading`.

A metric is a pure function of what it needs. Columns, glossary, tables and the page of definitions follow from its
entry; docs/extending.md shows how to add one. Tables and reports read this module too, so it imports no torch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import inf, isnan, nan
from operator import sub, truediv
from statistics import fmean
from typing import Any, Literal

from segfaith.constants import EPS, LEAST_TDD
from segfaith.errors import SettingsError
from segfaith.evaluation.areas import area_of_drops, area_of_rises
from segfaith.evaluation.interventions import FRACTIONS, SHIFTS, score_columns, whole_column
from segfaith.evaluation.names import CONTROL, OWNERS, refuse_taken
from segfaith.lookup import lookup

STABILITIES = tuple(f"stability_{name}" for name in ("noise", "brightness", "contrast", "blur", "flip"))
"""The correlations of a map with those of the perturbed images, one column each, that `stability` is the mean of."""

QUANTITIES = {
    "heatmap": "the map A, (H, W) in [0, 1]",
    "region": "the target M, a mask (H, W)",
    "alternatives": "the planted evidence: masks (H, W), each of which suffices; unknown where nothing is planted",
    "half": "the half of wired photographs in which the target lies, a mask (H, W); unknown for other images",
    "ranks": "the sample's tie-break, (H, W), as `ranking.tie_ranks` gives it",
    "k": "the first k of the settings",
    "sets": "the sets of parts of the image that fidelity occludes, a `fidelity.Sets`",
    "set_drops": "s − s(O(x, S_j)) of each of these sets",
    "rank_agreement": "mean of `correlation.rank_stability` over the perturbed images",
    "top_agreement": "mean of `correlation.top_stability` over the perturbed images",
    "seconds": "the wall-clock seconds of the map",
    "scale": "|s| + ε, by which relative drops are divided; NaN where the score has no natural zero",
    **dict.fromkeys(STABILITIES, "the correlation of the map with that of this perturbed image"),
}
"""What a metric may need besides the scores of `interventions.score_columns`, earlier metrics, and the metrics of
`random_cells` on the same sample, which are called `control_NAME`."""

OF_MAP = ("heatmap", "region", "alternatives", "half", "ranks", "k", "sets", "set_drops")
"""The quantities that are known for each single map, and not where its row is made."""


@dataclass(frozen=True)
class Metric:
    """A column of the records: what it means, and how it is computed.

    Attributes:
        name: of the column.
        label: heads tables and axes.
        meaning: what it measures, in words.
        formula: in one line; A is the map, E the planted evidence, ε = 1e-6.
        better: None for a diagnostic that ranks nothing.
        needs: names of scores, quantities and earlier metrics; see `QUANTITIES`.
        function: of copies of what it needs, in that order; NaN where it is undefined.
        low, high: bounds of its values.
        undefined: why the function gives NaN where all that it needs is known; for the column `reason`.
    """

    name: str
    label: str
    meaning: str
    formula: str
    better: Literal["higher", "lower"] | None
    needs: tuple[str, ...]
    function: Callable[..., float]
    low: float = -inf
    high: float = inf
    undefined: str = ""


METRICS: dict[str, Metric] = {}
"""By name, in the order of the columns."""

OWNERS["a metric"] = lambda: METRICS
OWNERS["a quantity that metrics may need"] = lambda: QUANTITIES


def add_metric(metric: Metric) -> None:
    """Adds an entry to `METRICS`.

    Raises:
        SettingsError: a column of the records, a metric or a quantity has its name, or the name begins with `control_`;
            or it needs something that is not known, or several things that are not known together.
    """
    refuse_taken(f"the metric {metric.name!r}", metric.name)
    known = {**score_columns(), **QUANTITIES, **METRICS, **{f"{CONTROL}{name}": name for name in METRICS}}
    for need in metric.needs:
        lookup(f"need of the metric {metric.name!r}:", need, known)
    _refuse_apart(metric)
    METRICS[metric.name] = metric


def _refuse_apart(metric: Metric) -> None:
    """Lets a metric pass whose needs are known together.

    Raises:
        SettingsError: it needs the value of random_cells for a metric that is itself computed against random_cells, or
            a quantity of the single map beside something that the map alone does not give.
    """
    for need in metric.needs:
        name = need.removeprefix(CONTROL)
        if need.startswith(CONTROL) and _against_control(name):
            raise SettingsError(
                f"the metric {metric.name!r} cannot need {need!r}: {name} is itself computed against random_cells, so "
                "random_cells has no value of it yet. Metrics that need no control_NAME have such a value"
            )
    of_map = [need for need in metric.needs if need in OF_MAP]
    others = [need for need in metric.needs if not _from_map(need)]
    if of_map and others:
        raise SettingsError(
            f"the metric {metric.name!r} cannot need {', '.join(of_map)} together with {', '.join(others)}: "
            f"{', '.join(OF_MAP)} are known for each map, not for its row. They can be combined with each "
            "other and with metrics of the map alone. Add one metric of the map, and a second metric that needs the "
            f"first and {', '.join(others)}"
        )


def _from_map(need: str) -> bool:
    """Whether a need follows from the map alone."""
    return need in OF_MAP or (need in METRICS and all(map(_from_map, METRICS[need].needs)))


def _against_control(need: str) -> bool:
    """Whether a need is a value of random_cells, or a metric that follows from such a value."""
    return need.startswith(CONTROL) or (need in METRICS and any(map(_against_control, METRICS[need].needs)))


PROBABILITY = "probability"
PROBABILITIES = (PROBABILITY, "conditional")
"""The scores of which a share can be lost: 0 is the least there is. The other scores have no natural zero."""
DROPS = {"tdd": "tdd_drop", "tdd_gain": "tdd_drop_gain", "odd": "odd_drop", "odd_abs": "odd_drop_abs"}
DROPS |= {"deletion_auc": "deletion_area", "insertion_auc": "insertion_area"}
"""Relative metrics, and the absolute one that takes the place of each where the score has no natural zero."""


def has_zero(score: str) -> bool:
    """Whether a score, as `[target] score` or as the column `score`, is one of `PROBABILITIES`."""
    return score.partition(" ")[0] in PROBABILITIES


def scale(s: float, score: str) -> float:
    """The quantity `scale`: |s| + eps, NaN unless the score is a probability."""
    return abs(s) + EPS if has_zero(score) else nan


def is_relative(name: str) -> bool:
    """Whether a metric divides by s, or follows from one that does."""
    needs = METRICS[name].needs if name in METRICS else ()
    return "scale" in needs or any(is_relative(need.removeprefix(CONTROL)) for need in needs)


def leading(names: Iterable[str], score: str) -> list[str]:
    """The metrics of a list that are defined for a score, in their order.

    For a probability these are all. For another score each relative metric is replaced by its absolute one (`DROPS`),
    or left out where it has none.
    """
    if has_zero(score):
        return list(names)
    return [DROPS.get(name, name) for name in names if name in DROPS or not is_relative(name)]


def leakage(odd: float, tdd: float) -> float:
    """odd / (|tdd| + eps), equation 5; NaN where tdd <= 0.05.

    There the map's own deletion costs nothing, or raises s: the further it goes wrong, the better the ratio would be.
    """
    return odd / (abs(tdd) + EPS) if tdd > LEAST_TDD else nan


def mean_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    defined = [value for value in values if not isnan(value)]
    return fmean(defined) if defined else nan


def _from(module: str, name: str) -> Callable[..., float]:
    """A function of `segfaith.evaluation.MODULE`, which is imported when the function is called: it needs torch."""

    def call(*values: Any) -> float:
        return float(getattr(import_module(f"segfaith.evaluation.{module}"), name)(*values))

    return call


def _relative_drop(s: float, s_deleted: float, scale: float) -> float:
    """(s - s_deleted) / (|s| + eps)."""
    return (s - s_deleted) / scale


_DELETED, _INSERTED = (
    ("s", "s_baseline", *(whole_column(kind, k) for k in FRACTIONS)) for kind in ("deletion", "insertion")
)
_SHIFTED = tuple(f"s_shifted_deleted_{number}" for number in range(1, SHIFTS + 1))
_FEW = "the map or the drops are the same for all sets, or the region holds too few different sets"
_LOW_TDD = f"tdd is not above {LEAST_TDD:g}"
_ZERO = "the map is zero everywhere"

# fmt: off
for _metric in (
    Metric("tdd_drop", "TDD drop", "drop of s when the top pixels inside the target are deleted",
           "s − s(O(x, S_t))", "higher", ("s", "s_target_deleted"), sub),
    Metric("tdd", "TDD", "relative drop of s when the top pixels inside the target are deleted",
           "(s − s(O(x, S_t))) / (|s| + ε)", "higher", ("tdd_drop", "scale"), truediv, high=1),
    Metric("tdd_gain", "TDD gain", "how far tdd lies above the mean tdd of random_cells on the same sample",
           "tdd − mean tdd of random_cells on the same sample", "higher", ("tdd", "control_tdd"), sub),
    Metric("tdd_drop_gain", "TDD drop gain",
           "how far tdd_drop lies above the mean tdd_drop of random_cells on the same sample",
           "tdd_drop − mean tdd_drop of random_cells on the same sample", "higher", ("tdd_drop", "control_tdd_drop"),
           sub),
    Metric("odd_drop", "ODD drop", "drop of s when the top pixels outside the target are deleted",
           "s − s(O(x, S_o))", None, ("s", "s_off_deleted"), sub),
    Metric("odd_drop_abs", "OT drop", "absolute value of odd_drop", "|odd_drop|", "lower", ("odd_drop",), abs, low=0),
    Metric("odd", "ODD", "relative drop of s when the top pixels outside the target are deleted",
           "(s − s(O(x, S_o))) / (|s| + ε)", None, ("odd_drop", "scale"), truediv, high=1),
    Metric("odd_abs", "OT abs", "absolute value of odd", "|odd|", "lower", ("odd",), abs, low=0),
    Metric("leak_abs", "Leak abs", "ratio of odd_abs to tdd, where tdd is above 0.05",
           "|odd| / (|tdd| + ε) where tdd > 0.05", "lower", ("odd_abs", "tdd"), leakage, low=0, undefined=_LOW_TDD),
    Metric("leak_signed", "Leak signed", "ratio of odd to tdd, where tdd is above 0.05",
           "odd / (|tdd| + ε) where tdd > 0.05", None, ("odd", "tdd"), leakage, undefined=_LOW_TDD),
    Metric("insertion_gain", "Ins.",
           "rise of s when the top pixels inside the target return to the occluded image, at most 1 of a probability",
           "s(b with S_t put back from x) − s(b), b = O(x, all pixels)", "higher", ("s_inserted", "s_baseline"), sub),
    Metric("insertion_gain_rel", "Ins. rel.", "ratio of insertion_gain to s",
           "insertion_gain / (|s| + ε)", "higher", ("insertion_gain", "scale"), truediv),
    Metric("stability", "Stab.", "mean Pearson correlation with the maps of five perturbed images",
           "mean over five x′ of Pearson(A(x), A(x′))", "higher", STABILITIES,
           lambda *correlations: mean_defined(correlations), low=-1, high=1),
    Metric("stability_rank", "Rank stab.",
           "mean Spearman correlation, inside and outside the target, with the maps of five perturbed images",
           "mean over five x′ and over M and not M of Spearman(A(x), A(x′)) within it", "higher", ("rank_agreement",),
           float, low=-1, high=1),
    Metric("stability_top", "Top stab.",
           "overlap of the top pixels with those of five perturbed images, 0 at chance, in the target and in the image",
           "mean over five x′ and over R = M and all pixels of (IoU − c) / (1 − c), IoU of the tops n(k, R), "
           "c = q / (2 − q), q = n(k, R) / |R|", "higher", ("top_agreement",), float, high=1),
    Metric("fidelity", "Fidelity", "rank correlation of a map's means over sets of regions with the drops without them",
           "Spearman over sets S_j of an unused partition, of mean A over S_j and max(s − s(O(x, S_j)), 0) / |S_j|",
           "higher", ("heatmap", "sets", "set_drops"), _from("fidelity", "fidelity"), low=-1, high=1, undefined=_FEW),
    Metric("fidelity_inside", "Fid. inside", "fidelity over sets of regions inside the target",
           "the same over sets inside M", "higher", ("heatmap", "sets", "set_drops"),
           _from("fidelity", "fidelity_inside"), low=-1, high=1, undefined=_FEW),
    Metric("fidelity_outside", "Fid. outside", "fidelity over sets of regions outside the target",
           "the same over sets outside M", "higher", ("heatmap", "sets", "set_drops"),
           _from("fidelity", "fidelity_outside"), low=-1, high=1, undefined=_FEW),
    Metric("deletion_area", "Del. area",
           "mean drop of s over all fractions k of the image, when the top k of all pixels are deleted",
           "area over k from 0 to 1 of s − s(O(x, top k of all pixels))", "higher", _DELETED, area_of_drops),
    Metric("deletion_auc", "Del. AUC",
           "how far deletion_area lies above that of random_cells on the same sample, relative to s",
           "(deletion_area − that of random_cells) / (|s| + ε)", "higher",
           ("deletion_area", "control_deletion_area", "scale"), _relative_drop),
    Metric("insertion_area", "Ins. area",
           "mean rise of s over all fractions k of the image, when the top k of all pixels return to the baseline",
           "area over k from 0 to 1 of s(b with the top k of all pixels put back from x) − s(b)", "higher", _INSERTED,
           area_of_rises),
    Metric("insertion_auc", "Ins. AUC",
           "how far insertion_area lies above that of random_cells on the same sample, relative to s",
           "(insertion_area − that of random_cells) / (|s| + ε)", "higher",
           ("insertion_area", "control_insertion_area", "scale"), _relative_drop),
    Metric("tdd_own", "TDD own", f"mean tdd of {SHIFTS} shifted copies of the map",
           f"mean over {SHIFTS} toroidal shifts of A of (s − s(O(x, S_t of the shifted map))) / (|s| + ε)", None,
           ("s", "scale", *_SHIFTED),
           lambda s, scale, *scores: fmean((s - score) / scale for score in scores), high=1),
    Metric("tdd_gain_own", "TDD gain own", "how far tdd lies above that of shifted copies of the same map",
           "tdd − tdd_own", "higher", ("tdd", "tdd_own"), sub),
    Metric("odd_fair", "ODD fair",
           "relative drop of s when only as many pixels outside the target are deleted as tdd deletes",
           "(s − s(O(x, the n(k, M) highest pixels outside M))) / (|s| + ε)", None, ("s", "s_fair_deleted", "scale"),
           _relative_drop, high=1),
    Metric("odd_fair_abs", "OT fair", "absolute value of odd_fair", "|odd_fair|", "lower", ("odd_fair",), abs, low=0),
    Metric("odd_near", "ODD near",
           "relative drop of s when only the pixels of S_o within 16 px (image height 224) of the target are deleted",
           "(s − s(O(x, S_o within 16 px of M))) / (|s| + ε)", None, ("s", "s_near_deleted", "scale"),
           _relative_drop, high=1),
    Metric("odd_middle", "ODD middle",
           "relative drop of s when only the pixels of S_o 16 to 48 px (image height 224) from the target are deleted",
           "(s − s(O(x, S_o 16 to 48 px from M))) / (|s| + ε)", None, ("s", "s_middle_deleted", "scale"),
           _relative_drop, high=1),
    Metric("odd_far", "ODD far",
           "relative drop of s when only the pixels of S_o over 48 px (image height 224) from the target are deleted",
           "(s − s(O(x, S_o more than 48 px from M))) / (|s| + ε)", None, ("s", "s_far_deleted", "scale"),
           _relative_drop, high=1),
    Metric("energy_inside", "Energy", "share of the map's sum that lies in the target",
           "sum of A over M / sum of A", None, ("heatmap", "region"), _from("map_properties", "energy_inside"),
           low=0, high=1, undefined=_ZERO),
    Metric("own_half", "Own half", "share of the map's sum that lies in the target's half of two wired photographs",
           "sum of A over the target's half / sum of A", None, ("heatmap", "half"),
           _from("map_properties", "energy_inside"), low=0, high=1, undefined=_ZERO),
    Metric("pointing", "Pointing", "share of the map's maxima that lie in the target",
           "share of the maxima of A that lie in M", None, ("heatmap", "region"), _from("map_properties", "pointing"),
           low=0, high=1),
    Metric("gini", "Gini", "Gini coefficient of the map's values: near 0 for an even map, towards 1 for a sparse one",
           "Gini coefficient of the values of A", None, ("heatmap",), _from("map_properties", "gini"),
           low=0, high=1, undefined=_ZERO),
    Metric("odd_beyond", "ODD beyond",
           "part of odd that is not explained by deleting the planted evidence in S_o alone",
           "(s(O(x, S_o and E)) − s(O(x, S_o))) / (|s| + ε)", None,
           ("s", "odd", "s_off_evidence_deleted", "scale"),
           lambda s, odd, s_off_evidence_deleted, scale: odd - _relative_drop(s, s_off_evidence_deleted, scale)),
    Metric("odd_beyond_abs", "OT beyond", "absolute value of odd_beyond",
           "|odd_beyond|", "lower", ("odd_beyond",), abs, low=0),
    Metric("evidence_ap", "Evid. AP", "average precision of the map as a detector of the planted evidence",
           "average precision of A as a detector of the pixels of E", "higher", ("heatmap", "alternatives"),
           _from("evidence_score", "evidence_ap"), low=0, high=1),
    Metric("evidence_mass", "Evid. mass", "share of the map's sum that lies on the planted evidence",
           "sum of A over E / sum of A", "higher", ("heatmap", "alternatives"),
           _from("evidence_score", "evidence_mass"), low=0, high=1, undefined=_ZERO),
    Metric("evidence_top", "Evid. top", "share of the map's top n(k, E) pixels that lie on the planted evidence",
           "share of the n(k, E) highest pixels of A that lie in E", "higher",
           ("heatmap", "alternatives", "ranks", "k"), _from("evidence_score", "evidence_top"), low=0, high=1),
    Metric("runtime_s", "Time s", "wall-clock seconds of the method's evidence and fusion, alone and after a warm-up",
           "seconds of the evidence the method needs alone + its fusion", "lower", ("seconds",), float, low=0),
):
    add_metric(_metric)
# fmt: on
