r"""Gradient evidence of a model that runs on tiles: the maps of the tiles, put on a canvas that covers the whole image.

    F(i, j) = sum_t w_t(i, j) F_t(i, j) / sum_t w_t(i, j),    G(i, j) = sum_t dY/dF_t(i, j)

F_t is tile t's map at the feature layer, w_t the tile's weights (`models.tiling`), averaged over each cell of the map.
Y is a number of the blended logits. So G says how Y changes if the maps of all tiles change alike at a cell.

A tile's map of h x w cells lies on the canvas at its first row times h / (tile height), rounded to the nearest cell,
and so for columns. This is exact where the layer's stride divides a tile's first row and column: where it divides
`tile - overlap`, so choose that a multiple of 32. The last tile of an axis can be half a cell off all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from segfaith.evidence.forms import Form
from segfaith.evidence.layer import altered, gradient_at
from segfaith.models.segmentation import SegmentationModel
from segfaith.models.tiling import Tile, Tiling
from segfaith.types import Float, Tensor


def tiled_maps(
    model: SegmentationModel,
    name: str,
    form: Form,
    images: Float[Tensor, "N bands H W"],
    value: Callable[[Float[Tensor, "N C H W"]], Tensor],
) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K h w"]]:
    """F and G of N images, over the padded images. `value` gives Y from the blended logits, and is called once.

    The graph of one tile of the N images exists at a time. Model passes: one of each tile, and a second one with a
    backward pass of each tile on whose logits Y depends.
    """
    tiling = model.tiling
    assert tiling is not None
    padded = model.padded(images)
    size = padded.shape[2], padded.shape[3]
    tiles, weights = tiling.tiles(size), tiling.weights(images.device)
    activation, total, gradient = (_Canvas(tiling, size) for _ in range(3))
    coming = iter(tiles)
    leaves: list[Tensor] = []

    def note(output: Tensor) -> Tensor:
        maps = form.maps(output.detach(), tiling.tile).float()
        share = F.adaptive_avg_pool2d(weights[None, None], (maps.shape[2], maps.shape[3]))
        tile = next(coming)
        activation.add(tile, share * maps)
        total.add(tile, share)
        return output

    def leaf(output: Tensor) -> Tensor:
        leaves.append(output.detach().clone().requires_grad_())
        return leaves[0]

    def noted(tile: Tensor) -> Tensor:
        with altered(model, name, len(tile), note):
            return model.logits_at_once(model.module, tile)

    with torch.no_grad():
        logits = model.framed(images, noted)
    (slope,) = torch.autograd.grad(value(logits.requires_grad_()), [logits])
    slope = F.pad(slope, (0, size[1] - images.shape[3], 0, size[0] - images.shape[2]))
    slope = slope / tiling.total(size, images.device)
    for tile in tiles:
        share = slope[(..., *tile)] * weights
        if not bool(share.any()):
            continue
        leaves.clear()
        with altered(model, name, len(images), leaf):
            of_tile = model.logits_at_once(model.module, padded[(..., *tile)].contiguous())
            slopes = gradient_at((of_tile * share).sum(), leaves[0], name)
            gradient.add(tile, form.maps(slopes, tiling.tile).float())
    maps = activation.values / total.values
    return maps, torch.zeros_like(maps) if gradient.empty else gradient.values


@dataclass
class _Canvas:
    """A map of the whole image, to which maps of tiles are added; see the module for their places."""

    tiling: Tiling
    size: tuple[int, int]
    _values: Tensor | None = None

    @property
    def empty(self) -> bool:
        return self._values is None

    @property
    def values(self) -> Float[Tensor, "N K h w"]:
        assert self._values is not None
        return self._values

    def add(self, tile: Tile, values: Float[Tensor, "N K h w"]) -> None:
        cells = list(zip(values.shape[2:], self.tiling.tile, strict=True))
        if self._values is None:
            whole = [_nearest(pixels * count, side) for pixels, (count, side) in zip(self.size, cells, strict=True)]
            self._values = values.new_zeros(*values.shape[:2], *whole)
        top, left = (_nearest(axis.start * count, side) for axis, (count, side) in zip(tile, cells, strict=True))
        self._values[..., top : top + values.shape[2], left : left + values.shape[3]] += values


def _nearest(dividend: int, divisor: int) -> int:
    """The whole number nearest to a quotient, halves upwards: tiles and canvas are rounded alike, so that tiles fit."""
    return (2 * dividend + divisor) // (2 * divisor)
