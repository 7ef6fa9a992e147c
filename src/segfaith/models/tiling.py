r"""Images larger than memory: a model runs on overlapping tiles, and the tiles' logits are blended.

    z(u, v) = sum_t w_t(u, v) z_t(u, v) / sum_t w_t(u, v),    w_t = max(exp(-d_r^2 / 2 s_r^2 - d_c^2 / 2 s_c^2), 1e-3)

z_t are the logits of tile t, d_r and d_c the distances in pixels from its centre, and s = 0.125 times its sides. Tiles
lie as those of `sliding_window_inference` of MONAI (Cardoso et al. 2022, arXiv:2211.02701): every `tile - overlap`
pixels, and the last one ends at the image's border. The weights are its mode "gaussian", with the same s and floor;
nnU-Net (Isensee et al. 2021) has the same s and another floor. An image smaller than a tile is padded to one at the
bottom and the right (`padding`), where MONAI adds zeros on both sides.

Logits are blended, as nnU-Net does, and MONAI where the model returns logits. To blend probabilities is something else:
the softmax of blended logits is the normalised geometric mean of the tiles' probabilities, which their arithmetic mean
differs from where tiles disagree. Where the model returns probabilities, their logarithms are blended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from segfaith.errors import SettingsError
from segfaith.types import Float, Tensor

SIGMA = 0.125
"""The standard deviation of the weights, in sides of a tile."""
LEAST = 1e-3
"""The smallest weight; the largest is 1, or a little less where a side is even and no pixel is the centre."""

Tile = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of `tile` pixels (height, width), of which neighbours share `overlap` rows or columns."""

    tile: tuple[int, int]
    overlap: int

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of an image whose sides are at least those of a tile."""
        return max(size[0], self.tile[0]), max(size[1], self.tile[1])

    def tiles(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of an image of at least a tile's size, row by row."""
        rows, columns = (
            [slice(start, start + side) for start in _starts(whole, side, side - self.overlap)]
            for whole, side in zip(size, self.tile, strict=True)
        )
        return [(row, column) for row in rows for column in columns]

    def weights(self, device: torch.device) -> Float[Tensor, "h w"]:
        """w of a tile's pixels, in [1e-3, 1]."""
        rows, columns = (_gaussian(side, device) for side in self.tile)
        return (rows[:, None] * columns).clamp(min=LEAST)

    def total(self, size: tuple[int, int], device: torch.device) -> Float[Tensor, "H W"]:
        """The sum of the weights of all tiles at each pixel of an image."""
        total, weights = torch.zeros(size, device=device), self.weights(device)
        for rows, columns in self.tiles(size):
            total[rows, columns] += weights
        return total

    def blended(
        self,
        images: Float[Tensor, "N bands H W"],
        run: Callable[[Float[Tensor, "N bands h w"]], Float[Tensor, "N C h w"]],
    ) -> Float[Tensor, "N C H W"]:
        """The blended logits of N images of at least a tile's size. `run` gives those of N tiles of one place."""
        size = (images.shape[-2], images.shape[-1])
        weights = self.weights(images.device)
        total: Tensor | None = None
        for rows, columns in self.tiles(size):
            logits = run(images[..., rows, columns].contiguous())
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *size)
            total[..., rows, columns] += weights * logits
        assert total is not None
        return total / self.total(size, images.device)


def tiling_of(tile: Any, overlap: Any, pad: int | None) -> Tiling | None:
    """The tiling that settings ask for; None: images go through the model whole.

    Args:
        tile: a side in pixels, (height, width), or None.
        overlap: pixels that neighbours share, from 0 to below the tile's smaller side; None only without a tile.
        pad: which must divide the tile's sides; None: anything does.

    Raises:
        SettingsError: settings that do not fit each other.
    """
    if tile is None:
        if overlap is not None:
            raise SettingsError(
                f"overlap = {overlap!r} says how far tiles overlap, but there is no tile; give tile too"
            )
        return None
    sides: list[Any] = list(tile) if isinstance(tile, Sequence) else [tile, tile]
    if len(sides) != 2 or not all(map(_is_whole, sides)) or min(sides) < 1:
        raise SettingsError(f"tile = {tile!r}: expected a whole number of pixels, or two: [height, width]")
    if overlap is None:
        raise SettingsError(
            f"tile = {tile!r} needs overlap, the pixels that neighbouring tiles share: MONAI's default is a quarter of "
            "the tile, nnU-Net's a half"
        )
    if not _is_whole(overlap) or not 0 <= overlap < min(sides):
        raise SettingsError(
            f"overlap = {overlap!r}: expected whole pixels from 0 to below the tile's side, {min(sides)}"
        )
    if pad is not None and any(side % pad for side in sides):
        raise SettingsError(f"tile = {tile!r} is not divisible by pad = {pad}; choose a tile whose sides are multiples")
    return Tiling((sides[0], sides[1]), overlap)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _starts(whole: int, side: int, stride: int) -> list[int]:
    """First pixels of tiles on an axis: every `stride`, the last such that its tile ends at the border."""
    count = -(-(whole - side) // stride) + 1
    return [min(number * stride, whole - side) for number in range(count)]


def _gaussian(side: int, device: torch.device) -> Float[Tensor, "side"]:
    distance = torch.arange(side, device=device, dtype=torch.float32) - (side - 1) / 2
    return torch.exp(-0.5 * (distance / (SIGMA * side)) ** 2)
