r"""Dual-Evidence Attribution (DEA), equation 2 of the paper.

    A_f = minmax(alpha A_g * (1 + beta A_r) + (1 - alpha) A_r)

A_g is the EGA map and A_r the RIA map, both already in [0, 1]; * is elementwise.
"""

from typing import Literal

from segfaith.attribution.cam import ega
from segfaith.attribution.heatmap import minmax
from segfaith.attribution.region import ria
from segfaith.types import Float, GradientEvidence, InterventionEvidence, Tensor


def dea(
    gradient: GradientEvidence,
    intervention: InterventionEvidence,
    *,
    alpha: float,
    beta: float,
    pool: Literal["mean", "max"],
    window: int,
) -> Float[Tensor, "N H W"]:
    """DEA of N variants, in [0, 1]; alpha in [0, 1] weighs gradient evidence, beta >= 0 rewards agreement."""
    return fuse(ega(gradient, pool=pool, window=window), ria(intervention), alpha, beta)


def fuse(
    gradient_map: Float[Tensor, "N H W"], region_map: Float[Tensor, "N H W"], alpha: float, beta: float
) -> Float[Tensor, "N H W"]:
    """Equation 2 on maps in [0, 1], and minmax."""
    return minmax(alpha * gradient_map * (1 + beta * region_map) + (1 - alpha) * region_map)
