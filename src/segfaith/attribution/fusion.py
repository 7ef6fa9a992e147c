r"""Fusions of gradient and region evidence: Dual-Evidence Attribution (DEA) and Measured-Evidence Attribution (MEA).

**DEA**, equation 2 of the paper: A_f = minmax(alpha A_g * (1 + beta A_r) + (1 - alpha) A_r). A_g is the EGA map and
A_r the RIA map, both already in [0, 1]; * is elementwise.

**MEA** is ours (docs/fusion.md). What was measured decides, and gradient evidence refines it:

    R = minmax((1 - lambda) A_r + lambda S),    A = minmax(R * (1 + beta A_g) + alpha A_g)

S is the mean of A_r over a square window as wide as the mean region: square cells are so interpolated between their
centres.
"""

from math import sqrt
from typing import Literal

import torch
from torch.nn import functional as F

from segfaith.attribution.cam import ega
from segfaith.attribution.heatmap import minmax
from segfaith.attribution.region import ria
from segfaith.halves import by_halves
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


def mea(
    gradient: GradientEvidence,
    intervention: InterventionEvidence,
    *,
    alpha: float,
    beta: float,
    interpolation: float,
    pool: Literal["mean", "max"],
    window: int,
) -> Float[Tensor, "N H W"]:
    """MEA of N variants, in [0, 1].

    Args:
        alpha: at least 0: gradient evidence on its own, which orders the pixels where nothing was measured.
        beta: at least 0: how far agreement with gradient evidence raises what was measured.
        interpolation: lambda in [0, 1]: 0 paints regions, 1 interpolates between their centres.

    Of wired photographs no value crosses from one half to the other, and each has its own window.
    """
    gradient_map = ega(gradient, pool=pool, window=window)
    return refine(gradient_map, intervention, alpha, beta, interpolation, wired=gradient.halves)


def refine(
    gradient_map: Float[Tensor, "N H W"],
    intervention: InterventionEvidence,
    alpha: float,
    beta: float,
    interpolation: float,
    *,
    wired: bool = False,
) -> Float[Tensor, "N H W"]:
    """MEA of gradient maps in [0, 1] and region evidence."""
    painted = ria(intervention)
    measured = minmax((1 - interpolation) * painted + interpolation * _interpolated(intervention, painted, wired))
    return minmax(measured * (1 + beta * gradient_map) + alpha * gradient_map)


def _interpolated(
    intervention: InterventionEvidence, painted: Float[Tensor, "N H W"], wired: bool
) -> Float[Tensor, "N H W"]:
    """Painted maps, each averaged over a window as wide as its mean region; wired photographs each by itself."""
    both = torch.stack((painted, intervention.regions.to(painted)), 1)
    return torch.stack([by_halves(_averaged, one, wired=wired) for one in both])


def _averaged(painted_and_regions: Float[Tensor, "2 H W"]) -> Float[Tensor, "H W"]:
    """A painted map averaged over its window, which is cut at the border: over columns, then over rows."""
    painted, regions = painted_and_regions
    reach = round(sqrt(regions.numel() / len(regions.unique())) / 2)
    averaged = F.avg_pool2d(painted[None], (2 * reach + 1, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(averaged, (1, 2 * reach + 1), 1, (0, reach), count_include_pad=False)[0]
