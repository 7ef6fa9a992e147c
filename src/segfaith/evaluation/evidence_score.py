r"""How well a map finds planted evidence: the pixels that are known, by construction, to decide the prediction.

For a map A over the whole image and evidence E (a set of pixels):

    evidence_ap   = sum_t (R_t - R_{t-1}) P_t, the average precision: over the distinct values t of A, downwards, with
                    P_t and R_t the precision and the recall of {A >= t} as a detector of E
    evidence_mass = sum_E A / sum A
    evidence_top  = |top n(k, E) pixels of A in the whole image, and in E| / n(k, E)

Where several alternatives suffice, each by itself, the best one counts for each figure, and the pixels of the others
are left out of it: to mark them is neither right nor wrong. A conjunction is one alternative, the union of its parts.
A random map's expectation is |E| / |image|, for the average precision a little more; the better of two alternatives
lies above that.
"""

from collections.abc import Sequence
from math import isnan, nan

import torch

from segfaith.evaluation.ranking import levels, rank_region, top_count
from segfaith.types import Bool, Float, Int, Map, Mask, Tensor

EVIDENCE_SCORES = ("evidence_ap", "evidence_mass", "evidence_top")


def evidence_scores(
    heatmap: Map, alternatives: Sequence[Mask], ranks: Int[Tensor, "H W"], k: float
) -> dict[str, float]:
    """The three figures of one map, all in [0, 1]; NaN without alternatives, and the mass of an all-zero map.

    Args:
        heatmap: in [0, 1].
        alternatives: sets of pixels, each with at least one.
        ranks: the sample's tie-break, for `evidence_top`; the average precision treats equal values as one threshold.
        k: fraction of the evidence's pixels that `evidence_top` takes.
    """
    best = dict.fromkeys(EVIDENCE_SCORES, nan)
    for truth in alternatives:
        others = torch.zeros_like(truth)
        for other in alternatives:
            others |= other & ~truth
        kept = ~others
        total = float(heatmap[kept].double().sum())
        count = top_count(k, int(truth.sum()))
        top = rank_region(heatmap, kept, ranks)[:count]
        found = {
            "evidence_ap": average_precision(heatmap[kept], truth[kept]),
            "evidence_mass": float(heatmap[truth].double().sum()) / total if total > 0 else nan,
            "evidence_top": int(truth.flatten()[top].sum()) / count,
        }
        best = {key: old if isnan(found[key]) or old >= found[key] else found[key] for key, old in best.items()}
    return best


def average_precision(values: Float[Tensor, "P"], truth: Bool[Tensor, "P"]) -> float:
    """Area under the precision-recall curve as a step function; values equal to 1e-6 share one threshold."""
    order = levels(values).argsort(descending=True, stable=True)
    ordered, hits = levels(values)[order], truth[order].double().cumsum(0)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    found = hits[last]
    precision = found / (last.nonzero().flatten() + 1)
    gained = torch.diff(found, prepend=found.new_zeros(1))
    return float((gained * precision).sum() / hits[-1])
