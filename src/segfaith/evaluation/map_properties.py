r"""What a map looks like, without any model: diagnostics that rank nothing.

energy_inside = sum_M A / sum A                                  (energy-based pointing game, Wang et al. 2020)
pointing      = |maxima of A in M| / |maxima of A|               (pointing game, Zhang et al. 2018; ties share)
gini          = sum_i (2 i - n - 1) A_(i) / (n sum A), A_(1) <= ... <= A_(n)     (sparseness, Chalasani et al. 2020)

All lie in [0, 1]. Energy and Gini of an all-zero map are NaN.
"""

from math import nan

import torch

from segfaith.evaluation.ranking import levels
from segfaith.types import Map, Mask


def energy_inside(heatmap: Map, region: Mask) -> float:
    """Share of the map's sum that lies in the region; NaN for an all-zero map."""
    values = heatmap.double()
    total = float(values.sum())
    return float(values[region].sum()) / total if total > 0 else nan


def pointing(heatmap: Map, region: Mask) -> float:
    """Share of the map's maxima that lie in the region.

    Values equal to 1e-6 share the maximum; of a constant map it is the region's share of the image.
    """
    values = levels(heatmap)
    top = values == values.max()
    return float((top & region).sum() / top.sum())


def gini(heatmap: Map) -> float:
    """Gini coefficient of the map's values, all at least 0; NaN for an all-zero map."""
    values = heatmap.double()
    total = float(values.sum())
    ordered = values.flatten().sort().values
    n = len(ordered)
    weights = 2 * torch.arange(1, n + 1, device=ordered.device, dtype=torch.float64) - n - 1
    return float(ordered @ weights) / (n * total) if total > 0 else nan
