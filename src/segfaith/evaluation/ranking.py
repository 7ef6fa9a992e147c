r"""Which pixels a heatmap ranks highest: S(A, R, k), with ties broken by chance and said (SPEC section 3).

    n(k, R) = max(1, floor(k |R| + 0.5))

Values are rounded to 1e-6. Equal ones are ordered by a random rank of the pixel's cell in a 14 x 14 grid, then by a
random rank of the pixel: the same for every method of a sample, never memory order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from segfaith.occlusion import grid_partition
from segfaith.types import Bool, Float, Int, Map, Mask, Target, Tensor

Ties = Literal["cell", "pixel"]
Region = Literal["inside", "outside"]
"""Of the target: M, and not M."""
RESOLUTION = 1e-6
TIE_GRID = 14


@dataclass(frozen=True, eq=False)
class Ranking:
    """A map's pixels, highest first, inside and outside the target (`outside` is empty where M covers the image)."""

    heatmap: Map
    inside: Int[Tensor, "P"]
    outside: Int[Tensor, "Q"]

    def region(self, name: Region) -> Int[Tensor, "P"]:
        """The pixels of one of the two regions, as flat indices."""
        return self.inside if name == "inside" else self.outside

    def top(self, name: Region, k: float, counted: Region | None = None) -> Int[Tensor, "P"]:
        """The highest pixels of a region: n(k, R) for R the region itself, or the one that is `counted`.

        None where the region has fewer pixels than that.
        """
        order, count = self.region(name), top_count(k, len(self.region(counted or name)))
        return order[: count if count <= len(order) else 0]

    def tied_share(self, k: float) -> tuple[float, float]:
        """Share of the top fraction k inside and outside that the tie-break chose; NaN for an empty outside."""
        shares = [
            tied_share(self.heatmap, order, top_count(k, len(order))) if len(order) else torch.nan
            for order in (self.inside, self.outside)
        ]
        return shares[0], shares[1]


def rank(heatmap: Map, target: Target, outside: Mask, ranks: Int[Tensor, "H W"]) -> Ranking:
    """Ranks the pixels of M and those of `outside` (not M, or not M without ignored pixels)."""
    return Ranking(heatmap, rank_region(heatmap, target.region, ranks), rank_region(heatmap, outside, ranks))


def tie_ranks(size: tuple[int, int], ties: Ties, rng: np.random.Generator) -> Int[Tensor, "H W"]:
    """A random total order of the pixels, 0 first: by cell and then pixel, or by pixel alone (`ties="pixel"`)."""
    pixels = rng.permutation(size[0] * size[1])
    if ties == "cell":
        cells = rng.permutation(TIE_GRID**2)[grid_partition(size, TIE_GRID).flatten().numpy()]
        order = np.lexsort((pixels, cells))
        pixels = np.empty_like(order)
        pixels[order] = np.arange(len(order))
    return torch.from_numpy(pixels).reshape(size)


def top_count(k: float, region_size: int) -> int:
    """n(k, R): how many pixels the top fraction k of a region of `region_size` pixels is; at least 1."""
    return max(1, int(np.floor(k * region_size + 0.5)))


def rank_region(
    heatmap: Float[Tensor, "H W"], region: Bool[Tensor, "H W"], ranks: Int[Tensor, "H W"]
) -> Int[Tensor, "P"]:
    """Flat indices of the region's pixels, highest attribution first, ties in the order of `ranks`."""
    indices = region.flatten().nonzero().flatten()
    key = levels(heatmap).flatten()[indices] * ranks.numel() + (ranks.numel() - 1 - ranks.flatten()[indices])
    return indices[key.argsort(descending=True)]


def top_pixels(order: Int[Tensor, "P"], count: int, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """The first `count` pixels of a ranking as a mask."""
    chosen = torch.zeros(size[0] * size[1], dtype=torch.bool, device=order.device)
    chosen[order[:count]] = True
    return chosen.reshape(size)


def tied_share(heatmap: Float[Tensor, "H W"], order: Int[Tensor, "P"], count: int) -> float:
    """Fraction of the first `count` pixels that are there by the tie-break alone.

    These are the chosen pixels with the lowest chosen value, where not all pixels of the region with that value were
    chosen. 0: the map itself decides; 1: chance does, as for a constant map.
    """
    ordered = levels(heatmap).flatten()[order]
    edge = ordered == ordered[count - 1]
    return int(edge[:count].sum()) / count if bool(edge[count:].any()) else 0.0


def levels(values: Float[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Values in steps of 1e-6, as integers: what counts as equal."""
    return (values.double() / RESOLUTION).round().long()
