"""Scores altered copies of an image by a model that runs on tiles: only tiles whose change can reach the score run.

A tile's logits depend on its own pixels alone. So a tile that an alteration does not meet has the clean image's logits,
and a tile that the target's box does not meet has no share in the score.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from segfaith.batching import Boxes
from segfaith.incremental.scorers import compiled, extent, region_mean
from segfaith.models.padding import reached
from segfaith.models.segmentation import SegmentationModel
from segfaith.models.tiling import Tile
from segfaith.scores import Scalar
from segfaith.types import Float, Image, Mask, Tensor


@dataclass(frozen=True, eq=False)
class _Part:
    """What a tile and the target's box share: the tile's place in the image, the shared pixels' place in the tile and
    in the box, and the weights of their logits, which sum to 1 over the tiles of a pixel.
    """

    tile: Tile
    in_tile: Tile
    in_box: Tile
    weight: Float[Tensor, "h w"]


class TiledScorer:
    """Scores altered copies by the tiles that an alteration and the target's box both meet.

    It keeps the clean image's logits of every tile on the target's box: C x h x w float32 values for each tile that
    meets the box, of which h x w are the pixels that both share. Tiles run in batches of as many as there are copies.
    """

    features = 0

    def __init__(self, model: SegmentationModel, image: Image, region: Mask, scalar: Scalar) -> None:
        assert model.tiling is not None
        (height, width), overlap = model.tiling.tile, model.tiling.overlap
        self.path = f"tiled: {height} x {width}, overlap {overlap}"
        self.model, self.scalar, self.image = model, scalar, image
        rows, columns, self.pixels = extent(region)
        self.size = rows.stop - rows.start, columns.stop - columns.start
        padded = model.padded(image)
        self.padded = padded.shape[1], padded.shape[2]
        weights, total = model.tiling.weights(image.device), model.tiling.total(self.padded, image.device)
        self.parts: list[_Part] = []
        for tile in model.tiling.tiles(self.padded):
            shared = _shared(tile[0], rows), _shared(tile[1], columns)
            if all(axis.start < axis.stop for axis in shared):
                in_tile = _moved(shared[0], tile[0].start), _moved(shared[1], tile[1].start)
                in_box = _moved(shared[0], rows.start), _moved(shared[1], columns.start)
                self.parts.append(_Part(tile, in_tile, in_box, weights[in_tile] / total[shared]))
        self._clean: list[Tensor] = []

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s of B altered images, float64; without `boxes` every tile that meets the target's box runs."""
        return region_mean(self.scalar.of(self.logits(images, boxes), 1), self.pixels)

    @torch.inference_mode()
    def logits(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B C h w"]:
        """z of B altered images on the box around the region, float32."""
        met = self._met(len(images), boxes)
        if not met.all() and not self._clean:
            everything = np.argwhere(np.ones((1, len(self.parts)), dtype=bool))
            self._clean = [values.clone() for _, _, values in self._computed(self.image[None], everything, len(images))]
        total: Tensor | None = None
        for number, part, values in self._computed(images, np.argwhere(met), len(images)):
            if total is None:
                total = values.new_zeros(len(images), len(values), *self.size)
            total[(number, slice(None), *part.in_box)] += part.weight * values
        if total is None:
            total = self._clean[0].new_zeros(len(images), len(self._clean[0]), *self.size)
        for number, index in np.argwhere(~met).tolist():
            part = self.parts[index]
            total[(number, slice(None), *part.in_box)] += part.weight * self._clean[index]
        return total

    def _met(self, images: int, boxes: Boxes | None) -> np.ndarray:
        """Which tiles (K) each copy's alteration meets, (B, K)."""
        if boxes is None:
            return np.ones((images, len(self.parts)), dtype=bool)
        start, stop = reached(*boxes, (self.image.shape[1], self.image.shape[2]), self.padded)
        first, last = (
            np.array([[getattr(axis, end) for axis in part.tile] for part in self.parts]) for end in ("start", "stop")
        )
        met: np.ndarray = np.logical_and.reduce((start[:, None] < last) & (stop[:, None] > first), 2)
        return met

    def _computed(
        self, images: Float[Tensor, "B bands H W"], pairs: np.ndarray, batch: int
    ) -> Iterator[tuple[int, _Part, Float[Tensor, "C h w"]]]:
        """For pairs (image, tile): the image's number, the part, and the tile's logits on the part."""
        padded, module = self.model.padded(images), compiled(self.model)
        for first in range(0, len(pairs), batch):
            chosen = [(number, self.parts[index]) for number, index in pairs[first : first + batch].tolist()]
            tiles = torch.stack([padded[(number, slice(None), *part.tile)] for number, part in chosen])
            logits = self.model.logits_at_once(module, tiles)
            for (number, part), values in zip(chosen, logits, strict=True):
                yield number, part, values[(slice(None), *part.in_tile)]


def _shared(first: slice, second: slice) -> slice:
    return slice(max(first.start, second.start), min(first.stop, second.stop))


def _moved(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)
