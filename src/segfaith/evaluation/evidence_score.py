r"""How well a map marks planted evidence: the pixels that are known, by construction, to decide the prediction.

For a map A over the whole image and evidence E (a set of pixels):

    evidence_ap   = sum_t (R_t - R_{t-1}) P_t, the average precision: over the distinct values t of A, downwards, with
                    P_t and R_t the precision and the recall of {A >= t} as a detector of E
    evidence_mass = sum_E A / sum A
    evidence_top  = |top n(k, E) pixels of A in the whole image, and in E| / n(k, E)

Where several alternatives suffice, each by itself, the best value counts, for each of the three by itself. The pixels
of the other alternatives are left out of it: to mark them is neither right nor wrong. A conjunction is one alternative,
the union of its parts. A random map's expectation is |E| / |image|, for the average precision a little more; the better
of two alternatives lies above that.

All lie in [0, 1]. Each alternative is a mask (H, W) with at least one pixel, and there is at least one alternative.
"""

from collections.abc import Sequence
from math import isnan, nan

import torch

from segfaith.evaluation.ranking import levels, rank_region, top_count
from segfaith.types import Bool, Float, Int, Map, Mask, Tensor


def evidence_ap(heatmap: Map, alternatives: Sequence[Mask]) -> float:
    """Average precision of the map as a detector of the evidence; equal values are one threshold."""
    return _best([average_precision(heatmap[kept], truth[kept]) for truth, kept in _each(alternatives)])


def evidence_mass(heatmap: Map, alternatives: Sequence[Mask]) -> float:
    """Share of the map's sum that lies on the evidence; NaN where the map is zero everywhere."""
    shares = []
    for truth, kept in _each(alternatives):
        total = float(heatmap[kept].double().sum())
        shares.append(float(heatmap[truth].double().sum()) / total if total > 0 else nan)
    return _best(shares)


def evidence_top(heatmap: Map, alternatives: Sequence[Mask], ranks: Int[Tensor, "H W"], k: float) -> float:
    """Share of the map's top pixels that lie in the evidence, as many as the fraction k of its pixels.

    Args:
        ranks: the sample's tie-break.
    """
    shares = []
    for truth, kept in _each(alternatives):
        count = top_count(k, int(truth.sum()))
        top = rank_region(heatmap, kept, ranks)[:count]
        shares.append(int(truth.flatten()[top].sum()) / count)
    return _best(shares)


def _each(alternatives: Sequence[Mask]) -> list[tuple[Mask, Mask]]:
    """Each alternative, with the pixels that do not belong to another alternative alone."""
    marked = torch.stack(list(alternatives)).any(0)
    return [(truth, truth | ~marked) for truth in alternatives]


def _best(values: Sequence[float]) -> float:
    """The largest that is not NaN; NaN where all are."""
    return max((value for value in values if not isnan(value)), default=nan)


def average_precision(values: Float[Tensor, "P"], truth: Bool[Tensor, "P"]) -> float:
    """Area under the precision-recall curve as a step function; values equal to 1e-6 share one threshold."""
    order = levels(values).argsort(descending=True, stable=True)
    ordered, hits = levels(values)[order], truth[order].double().cumsum(0)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    hits_there = hits[last]
    precision = hits_there / (last.nonzero().flatten() + 1)
    gained = torch.diff(hits_there, prepend=hits_there.new_zeros(1))
    return float((gained * precision).sum() / hits[-1])
