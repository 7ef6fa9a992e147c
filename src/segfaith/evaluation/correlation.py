"""How alike two maps are: correlations of values and of ranks, and the overlap of what they rank highest."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from scipy.stats import rankdata

from segfaith.constants import DEGENERATE_RANGE
from segfaith.evaluation.metrics import mean_defined
from segfaith.evaluation.ranking import levels, rank_region, top_count
from segfaith.types import Float, Int, Map, Mask, Tensor


def pearson(first: Float[Tensor, "H W"], second: Float[Tensor, "H W"]) -> float:
    """Correlation in [-1, 1] in float64; NaN where either map is constant (range below 1e-12)."""
    a, b = first.double().flatten(), second.double().flatten()
    if min(float(a.max() - a.min()), float(b.max() - b.min())) < DEGENERATE_RANGE:
        return nan
    a, b = a - a.mean(), b - b.mean()
    return max(-1.0, min(1.0, float((a @ b) / (a.norm() * b.norm()))))


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two vectors in [-1, 1], equal values at their mean rank; NaN where either is constant."""
    return _correlated(centred_ranks(first), centred_ranks(second))


def centred_ranks(values: Tensor) -> np.ndarray:
    """The ranks of a vector's values less the mean rank, in float64; equal values have the mean of their ranks."""
    ranks: np.ndarray = rankdata(values.cpu().numpy())
    return ranks - (len(ranks) + 1) / 2


def _correlated(a: np.ndarray, b: np.ndarray) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return max(-1.0, min(1.0, float(a @ b) / norms)) if norms > 0 else nan


@dataclass(frozen=True, eq=False)
class Order:
    """What a map ranks high, for comparisons with maps of perturbed images; see `order_of`.

    Attributes:
        ranks: the centred ranks of the pixels inside the target, and of those outside.
        tops: the n(k, R) highest pixels of the target and of the whole image, as flat indices.
        sizes: |R| of these two.
    """

    ranks: Sequence[np.ndarray]
    tops: Sequence[Tensor]
    sizes: Sequence[int]


def order_of(heatmap: Map, target: Mask, outside: Mask, k: float, ranks: Int[Tensor, "H W"]) -> Order:
    """The order of a map's pixels.

    Args:
        outside: not M, or not M without ignored pixels.
        ranks: the tie-break of the tops. A map and the map that it is compared with need different ones: else two
            constant maps would agree.
    """
    values, regions = levels(heatmap), (target, target | outside)
    orders = [rank_region(heatmap, region, ranks) for region in regions]
    return Order(
        [centred_ranks(values[region]) for region in (target, outside)],
        [order[: top_count(k, len(order))] for order in orders],
        [len(order) for order in orders],
    )


def rank_stability(clean: Order, perturbed: Order) -> float:
    """Mean of the Spearman correlations inside the target and outside, those that are defined; NaN where none is.

    A correlation is undefined where a map is constant in its region.
    """
    pairs = zip(clean.ranks, perturbed.ranks, strict=True)
    return mean_defined([_correlated(a, b) if len(a) else nan for a, b in pairs])


def top_stability(clean: Order, perturbed: Order) -> float:
    r"""Mean over R = M and R = the whole image of how far the tops of two maps overlap, beyond chance; at most 1.

        (IoU - c) / (1 - c),    c = q / (2 - q),    q = n(k, R) / |R|

    IoU is the intersection of the two sets of n(k, R) pixels over their union, and c the IoU at the overlap that two
    random sets have on average. It is 0 at chance. A region that is all top, as at k = 1, is left out; NaN if both are.
    """
    values = []
    for first, second, size in zip(clean.tops, perturbed.tops, clean.sizes, strict=True):
        both = int(torch.isin(first, second).sum())
        q = len(first) / size
        chance = q / (2 - q)
        values.append((both / (2 * len(first) - both) - chance) / (1 - chance) if q < 1 else nan)
    return mean_defined(values)
