r"""Which pixels a heatmap ranks highest: S(A, R, k), with ties broken by chance and said (SPEC section 3).

    n(k, R) = max(1, floor(k |R| + 0.5))

Values are rounded to 1e-6. Equal ones are ordered by a random rank of the pixel's cell in a 14 x 14 grid, then by a
random rank of the pixel: the same for every method of a sample, never memory order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch

from segfaith.occlusion import grid_partition
from segfaith.types import Bool, Float, Int, Map, Mask, Target, Tensor

Ties = Literal["cell", "pixel"]
Region = Literal["inside", "outside", "whole"]
"""M, not M, and both together."""
RESOLUTION = 1e-6
TIE_GRID = 14


@dataclass(frozen=True, eq=False)
class Ranking:
    """A map's pixels, highest first, inside and outside the target (`outside` is empty where M covers the image), and
    all of these together; `shifts` holds the pixels inside the target as shifted copies of the map rank them."""

    heatmap: Map
    inside: Int[Tensor, "P"]
    outside: Int[Tensor, "Q"]
    whole: Int[Tensor, "R"]
    shifts: Sequence[Int[Tensor, "P"]] = ()

    def region(self, name: Region) -> Int[Tensor, "S"]:
        """The pixels of a region, as flat indices."""
        return {"inside": self.inside, "outside": self.outside, "whole": self.whole}[name]

    def shifted(self, number: int, k: float) -> Int[Tensor, "P"]:
        """The highest n(k, M) pixels inside M of a shifted copy; none where no copies were asked for."""
        return self.shifts[number][: top_count(k, len(self.inside))] if self.shifts else self.inside[:0]

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


def rank(
    heatmap: Map, target: Target, outside: Mask, ranks: Int[Tensor, "H W"], shifts: Sequence[tuple[int, int]] = ()
) -> Ranking:
    """Ranks the pixels of M, those of `outside` (not M, or not M without ignored pixels), and all of these.

    Args:
        shifts: rows and columns by which copies of the map are shifted; see `draw_shifts`.
    """
    return Ranking(
        heatmap,
        rank_region(heatmap, target.region, ranks),
        rank_region(heatmap, outside, ranks),
        rank_region(heatmap, target.region | outside, ranks),
        [rank_region(heatmap.roll(shift, (0, 1)), target.region, ranks) for shift in shifts],
    )


def draw_shifts(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Toroidal shifts of an image by rows and columns, each by at least a quarter of the side in either direction.

    A map that is shifted keeps its values, its smoothness and its coarseness, but no longer points at anything.
    """
    return [(int(_shift(rng, size[0])), int(_shift(rng, size[1]))) for _ in range(count)]


def _shift(rng: np.random.Generator, side: int) -> int:
    least = ceil(side / 4)
    return int(rng.integers(least, max(least, side - least) + 1))


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
