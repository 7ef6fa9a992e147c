r"""What a map looks like, without any model: diagnostics that rank nothing.

energy_inside = sum_M A / sum A                                  (energy-based pointing game, Wang et al. 2020)
pointing      = |maxima of A in M| / |maxima of A|               (pointing game, Zhang et al. 2018; ties share)
gini          = sum_i (2 i - n - 1) A_(i) / (n sum A), A_(1) <= ... <= A_(n)     (sparseness, Chalasani et al. 2020)
"""

from math import nan

import torch

from segfaith.evaluation.ranking import levels
from segfaith.types import Map, Mask


def map_properties(heatmap: Map, region: Mask) -> dict[str, float]:
    """The three figures of one map in [0, 1]; energy and Gini of an all-zero map are NaN.

    Values equal to 1e-6 share the maximum; of a constant map, `pointing` is the region's share of the image.
    """
    values = heatmap.double()
    total = float(values.sum())
    top = levels(heatmap) == levels(heatmap).max()
    ordered = values.flatten().sort().values
    n = len(ordered)
    weights = 2 * torch.arange(1, n + 1, device=ordered.device, dtype=torch.float64) - n - 1
    return {
        "energy_inside": float(values[region].sum()) / total if total > 0 else nan,
        "pointing": float((top & region).sum() / top.sum()),
        "gini": float(ordered @ weights) / (n * total) if total > 0 else nan,
    }
