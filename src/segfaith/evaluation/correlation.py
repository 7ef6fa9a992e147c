"""Stability: Pearson correlation over all pixels of the map with the map of a perturbed image."""

from math import nan

from segfaith.constants import DEGENERATE_RANGE
from segfaith.types import Float, Tensor


def pearson(first: Float[Tensor, "H W"], second: Float[Tensor, "H W"]) -> float:
    """Correlation in [-1, 1] in float64; NaN where either map is constant (range below 1e-12)."""
    a, b = first.double().flatten(), second.double().flatten()
    if min(float(a.max() - a.min()), float(b.max() - b.min())) < DEGENERATE_RANGE:
        return nan
    a, b = a - a.mean(), b - b.mean()
    return max(-1.0, min(1.0, float((a @ b) / (a.norm() * b.norm()))))
